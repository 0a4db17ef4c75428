//! What is known of each kind of server, as data.

use crate::wire::count::Counter;
use crate::wire::embed::EmbedApi;
use crate::wire::{Dialect, Prefill, Target};
use std::time::Duration;

/// `kind = "…"`
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Kind {
    Vllm,
    Ollama,
    Llamacpp,
    Openai,
    Anthropic,
    Tidegate,
    Local,
}

/// Where a server says which models it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lists {
    /// OpenAI's `/v1/models`, with what vLLM and llama.cpp add.
    Models,
    /// Ollama's `/api/tags` and `/api/ps`.
    Tags,
}

/// The facts of a kind.
#[derive(Debug)]
pub struct Traits {
    /// `gen_ai_provider_name` in metrics.
    pub provider: &'static str,
    /// What it speaks, best first for calls that must be translated.
    pub dialects: &'static [Dialect],
    /// What it speaks about vectors, likewise.
    pub embeds: &'static [EmbedApi],
    /// What counts a prompt's tokens there, best first; asked where the backend speaks its dialect.
    pub counters: &'static [Counter],
    /// Carries the key in `x-api-key` instead of `Authorization: Bearer`.
    pub api_key_header: bool,
    /// Idle connections are dropped after this: sooner than the server does it (vLLM after 5 s).
    pub idle: Duration,
    /// Asked here whether it can serve: any answer but a 5xx says so. `None`: not probed, because somebody else's servers are.
    pub health: Option<&'static str>,
    /// What it can be asked for the models it has.
    pub lists: Option<Lists>,
    /// It is asked unless the configuration says otherwise: its list is short, and of what it has itself.
    pub discovers: bool,
    /// May have APIs of which only the model is known: it is asked.
    pub opaque: bool,
    /// See [`Target`].
    pub system_first: bool,
    /// See [`Target`].
    pub thinking_kwargs: bool,
    /// See [`Target`].
    pub reasoning_effort: bool,
    /// See [`Target`].
    pub max_completion_tokens: bool,
    /// See [`Target`].
    pub max_tokens_only: bool,
    /// See [`Target`].
    pub extended_sampling: bool,
    /// See [`Target`].
    pub continuous_usage: bool,
    /// See [`Target`].
    pub argument_objects: bool,
    /// See [`Target`].
    pub threads: bool,
    /// See [`Target`].
    pub prefill: Prefill,
}

const PLAIN: Traits = Traits {
    provider: "openai",
    dialects: &[Dialect::Chat],
    embeds: &[EmbedApi::Openai],
    counters: &[],
    api_key_header: false,
    idle: Duration::from_secs(4),
    health: None,
    lists: Some(Lists::Models),
    discovers: false,
    opaque: true,
    system_first: false,
    thinking_kwargs: false,
    reasoning_effort: true,
    max_completion_tokens: false,
    max_tokens_only: false,
    extended_sampling: false,
    continuous_usage: false,
    argument_objects: false,
    threads: false,
    prefill: Prefill::Ended,
};

const VLLM: Traits = Traits {
    provider: "vllm",
    dialects: &[Dialect::Chat, Dialect::Messages, Dialect::Responses, Dialect::Completions],
    counters: &[Counter::Tokenize],
    health: Some("/health"),
    discovers: true,
    system_first: true,
    thinking_kwargs: true,
    extended_sampling: true,
    continuous_usage: true,
    // Its chat templates, and llama.cpp's, are shown objects.
    argument_objects: true,
    prefill: Prefill::Told,
    ..PLAIN
};
const LLAMACPP: Traits = Traits {
    provider: "llamacpp",
    dialects: &[Dialect::Chat, Dialect::Messages, Dialect::Completions],
    counters: &[Counter::Messages],
    continuous_usage: false,
    prefill: Prefill::Continued,
    ..VLLM
};
// Its own API first: only there can thinking be switched off, and what else its options say be said.
const OLLAMA: Traits = Traits {
    provider: "ollama",
    dialects: &[Dialect::OllamaChat, Dialect::OllamaGenerate, Dialect::Chat, Dialect::Completions],
    embeds: &[EmbedApi::Ollama, EmbedApi::OllamaPrompt, EmbedApi::Openai],
    health: Some("/api/version"),
    lists: Some(Lists::Tags),
    discovers: true,
    system_first: true,
    max_tokens_only: true,
    // By the templates of its library: an assistant's turn that is the last is left open.
    prefill: Prefill::Continued,
    ..PLAIN
};
// OpenAI itself: https://platform.openai.com/docs/api-reference/chat, `max_tokens` is deprecated there. Its chat models refuse
// completions: those are translated unless the configuration says otherwise.
const OPENAI: Traits = Traits {
    dialects: &[Dialect::Chat, Dialect::Responses],
    counters: &[Counter::Responses],
    idle: Duration::from_secs(30),
    max_completion_tokens: true,
    ..PLAIN
};
const ANTHROPIC: Traits = Traits {
    provider: "anthropic",
    dialects: &[Dialect::Messages],
    embeds: &[],
    counters: &[Counter::Messages],
    api_key_header: true,
    lists: None,
    opaque: false,
    idle: Duration::from_secs(30),
    extended_sampling: true,
    threads: true,
    ..PLAIN
};
const TIDEGATE: Traits = Traits {
    provider: "tidegate",
    dialects: &Dialect::ALL,
    embeds: &EmbedApi::ALL,
    counters: &[Counter::Messages, Counter::Responses],
    idle: Duration::from_secs(30),
    extended_sampling: true,
    health: Some("/"),
    threads: true,
    ..PLAIN
};
const LOCAL: Traits = Traits {
    provider: "local",
    embeds: &[],
    lists: None,
    opaque: false,
    system_first: true,
    extended_sampling: true,
    argument_objects: true,
    ..PLAIN
};

impl Kind {
    /// Its facts.
    pub fn traits(self) -> &'static Traits {
        match self {
            Self::Vllm => &VLLM,
            Self::Ollama => &OLLAMA,
            Self::Llamacpp => &LLAMACPP,
            Self::Openai => &OPENAI,
            Self::Anthropic => &ANTHROPIC,
            Self::Tidegate => &TIDEGATE,
            Self::Local => &LOCAL,
        }
    }
}

impl Traits {
    /// What a dialect must know to write a call for a model there.
    pub fn target(&self, model: &str, max_output: Option<u64>) -> Target {
        Target {
            model: model.to_owned(),
            system_first: self.system_first,
            thinking_kwargs: self.thinking_kwargs,
            reasoning_effort: self.reasoning_effort,
            max_completion_tokens: self.max_completion_tokens,
            max_tokens_only: self.max_tokens_only,
            extended_sampling: self.extended_sampling,
            continuous_usage: self.continuous_usage,
            argument_objects: self.argument_objects,
            threads: self.threads,
            prefill: self.prefill,
            max_output,
        }
    }
}
