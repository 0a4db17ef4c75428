//! Parameters as they are configured: what a client may leave open, must accept, or may go up to.

use serde::Deserialize;
use tidegate_plugin::{Effort, Parameters, Thinking};

/// Values for parameters.
#[derive(Deserialize, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Values {
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<u32>,
    max_tokens: Option<u32>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    seed: Option<i64>,
    stop: Option<Vec<String>>,
    parallel_tools: Option<bool>,
    thinking: Option<Depth>,
}

/// How much to think.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Depth {
    Off,
    Adaptive,
    Minimal,
    Low,
    Medium,
    High,
}

/// Upper bounds.
#[derive(Deserialize, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    temperature: Option<f64>,
    max_tokens: Option<u32>,
}

/// A parameter by its name.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "snake_case")]
pub enum Name {
    Temperature,
    TopP,
    TopK,
    MaxTokens,
    PresencePenalty,
    FrequencyPenalty,
    Seed,
    Stop,
    ParallelTools,
    Thinking,
    Format,
}

impl Values {
    /// Says what the client did not.
    pub fn fill(&self, to: &mut Parameters) {
        self.write(to, true);
    }

    /// Says it whatever the client said.
    pub fn set(&self, to: &mut Parameters) {
        self.write(to, false);
    }

    fn write(&self, to: &mut Parameters, only_open: bool) {
        fn put<T: Clone>(from: &Option<T>, to: &mut Option<T>, only_open: bool) {
            if from.is_some() && !(only_open && to.is_some()) {
                to.clone_from(from);
            }
        }
        put(&self.temperature, &mut to.temperature, only_open);
        put(&self.top_p, &mut to.top_p, only_open);
        put(&self.top_k, &mut to.top_k, only_open);
        put(&self.max_tokens, &mut to.max_tokens, only_open);
        put(&self.presence_penalty, &mut to.presence_penalty, only_open);
        put(&self.frequency_penalty, &mut to.frequency_penalty, only_open);
        put(&self.seed, &mut to.seed, only_open);
        put(&self.parallel_tools, &mut to.parallel_tools, only_open);
        put(&self.thinking.map(Depth::thinking), &mut to.thinking, only_open);
        if let Some(stop) = self.stop.as_ref().filter(|_| !only_open || to.stop.is_empty()) {
            to.stop.clone_from(stop);
        }
    }
}

impl Depth {
    fn thinking(self) -> Thinking {
        match self {
            Self::Off => Thinking::Off,
            Self::Adaptive => Thinking::Adaptive,
            Self::Minimal => Thinking::Effort(Effort::Minimal),
            Self::Low => Thinking::Effort(Effort::Low),
            Self::Medium => Thinking::Effort(Effort::Medium),
            Self::High => Thinking::Effort(Effort::High),
        }
    }
}

impl Limits {
    /// Cuts what is above. A client that named no number of tokens gets the limit, or it would have none.
    pub fn cut(&self, to: &mut Parameters) {
        if let Some(most) = self.max_tokens {
            to.max_tokens = Some(to.max_tokens.map_or(most, |tokens| tokens.min(most)));
        }
        if let (Some(most), Some(temperature)) = (self.temperature, to.temperature.as_mut()) {
            *temperature = temperature.min(most);
        }
    }
}

impl Name {
    pub fn remove(self, from: &mut Parameters) {
        match self {
            Self::Temperature => from.temperature = None,
            Self::TopP => from.top_p = None,
            Self::TopK => from.top_k = None,
            Self::MaxTokens => from.max_tokens = None,
            Self::PresencePenalty => from.presence_penalty = None,
            Self::FrequencyPenalty => from.frequency_penalty = None,
            Self::Seed => from.seed = None,
            Self::Stop => from.stop.clear(),
            Self::ParallelTools => from.parallel_tools = None,
            Self::Thinking => from.thinking = None,
            Self::Format => from.format = None,
        }
    }
}
