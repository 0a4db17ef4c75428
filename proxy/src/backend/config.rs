//! `[backends]`

use super::breaker::Rules;
use super::kind::{Kind, Lists};
use crate::canon::{Period, Secret};
use crate::wire::Dialect;
use crate::wire::embed::EmbedApi;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Backends by name.
pub type Config = BTreeMap<Arc<str>, Settings>;

/// `[backends.NAME]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Backend")]
pub struct Settings {
    /// What kind of server it is; decides what it speaks and how it is probed.
    pub kind: Kind,
    /// Its base address, without `/v1`.
    pub url: Option<String>,
    /// Several addresses of replicas that serve the same models.
    #[serde(default)]
    pub urls: Vec<String>,
    /// Instead of these: a base address whose name stands for all replicas; each address it resolves to is one. With a port.
    pub dns: Option<String>,
    /// Or instead: `http://SERVICE.NAMESPACE:PORT`, a Service of Kubernetes; each of its endpoints that is ready is one. Needs a
    /// program with the cargo feature `kubernetes`.
    pub kubernetes: Option<String>,
    /// How often that name is looked up again (10 s where absent), and its addresses are asked for their models (30 s).
    pub refresh: Option<Period>,
    /// Ask its addresses which models they have; absent: vllm, llamacpp and ollama are asked.
    pub discover: Option<bool>,
    /// The gateway's key there.
    pub key: Option<Secret>,
    /// What it speaks, where the kind's preset is not right; best first for calls that must be translated.
    pub dialects: Option<Vec<Speaks>>,
    /// HTTP/2 with prior knowledge (`http://`) or by ALPN (`https://`).
    #[serde(default)]
    pub http2: bool,
    /// `https://`: a PEM file with the authorities that vouch for its certificate, instead of the public ones.
    pub ca: Option<PathBuf>,
    /// Time limits.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// When an address is set aside.
    #[serde(default)]
    pub health: Health,
    /// How many further tries it can bear.
    #[serde(default)]
    pub retry_budget: RetryBudget,
    /// `local`: the GGUF file, or the folder of an embedding model.
    pub weights: Option<PathBuf>,
    /// `local`: threads that compute; all cores where absent.
    pub threads: Option<usize>,
    /// `local`: tokens of context; the model's own where absent.
    pub context: Option<usize>,
    /// `local`: requests computed at the same time.
    pub slots: Option<usize>,
    /// `local`: requests that may wait; further ones get 429.
    pub queue: Option<usize>,
}

impl Settings {
    /// What its addresses are asked for the models they have, if they are.
    pub(super) fn lists(&self) -> Option<Lists> {
        let traits = self.kind.traits();
        traits.lists.filter(|_| self.discover.unwrap_or(traits.discovers))
    }

    /// What cannot be meant of the ways to say where it is, by key.
    pub(super) fn naming_errors(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut wrong = |is: bool, key: &str, what: &str| {
            if is {
                errors.push((format!(".{key}"), what.to_owned()));
            }
        };
        let listed = self.url.is_some() || !self.urls.is_empty();
        wrong(
            self.kubernetes.is_some() && (listed || self.dns.is_some()),
            "kubernetes",
            "either a Service in `kubernetes`, or a name in `dns`, or addresses in `url` and `urls`, only one of them",
        );
        wrong(
            self.dns.is_some() && listed,
            "dns",
            "either a name in `dns`, or addresses in `url` and `urls`, not both",
        );
        let lists = self.kind.traits().lists;
        let says = "`discover` is for kinds that list their models: vllm, llamacpp, ollama, openai, tidegate";
        wrong(self.discover == Some(true) && lists.is_none(), "discover", says);
        let idle = self.dns.is_none() && self.lists().is_none();
        let says = "`refresh` is for backends with `dns`, or that are asked for their models";
        wrong(idle && self.refresh.is_some(), "refresh", says);
        let pace = Duration::from_millis(100)..=Duration::from_secs(3600);
        let paced = self.refresh.is_none_or(|refresh| pace.contains(&refresh.0));
        wrong(!paced, "refresh", "between 100ms and an hour, such as \"10s\"");
        errors
    }
}

/// A dialect, as configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// OpenAI's chat completions.
    Chat,
    /// The same: its name when the family had one member.
    Openai,
    /// Anthropic's messages.
    Messages,
    /// The same.
    Anthropic,
    /// OpenAI's responses.
    Responses,
    /// OpenAI's completions, the legacy protocol.
    Completions,
    /// OpenAI's embeddings.
    Embeddings,
    /// Ollama's own: chat, generate and both of its embeddings.
    Ollama,
}

impl Speaks {
    /// The dialects of this name.
    pub fn dialects(self) -> &'static [Dialect] {
        match self {
            Self::Chat | Self::Openai => &[Dialect::Chat],
            Self::Messages | Self::Anthropic => &[Dialect::Messages],
            Self::Responses => &[Dialect::Responses],
            Self::Completions => &[Dialect::Completions],
            Self::Ollama => &[Dialect::OllamaChat, Dialect::OllamaGenerate],
            Self::Embeddings => &[],
        }
    }

    /// The same for vectors.
    pub fn embeds(self) -> &'static [EmbedApi] {
        match self {
            Self::Embeddings => &[EmbedApi::Openai],
            Self::Ollama => &[EmbedApi::Ollama, EmbedApi::OllamaPrompt],
            _ => &[],
        }
    }
}

/// Time limits towards a backend. There is no limit on the whole reply unless one is set: long generations are not failures.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// For the TCP (and TLS) connection.
    pub connect: Period,
    /// From the request to the first byte of a streamed reply.
    pub first_token: Period,
    /// Between two reads of a streamed reply.
    pub idle: Period,
    /// From the request to the last byte of its reply, streamed or not.
    pub total: Option<Period>,
}

impl Default for Timeouts {
    fn default() -> Self {
        let seconds = |seconds| Period(Duration::from_secs(seconds));
        Self { connect: seconds(2), first_token: seconds(120), idle: seconds(60), total: None }
    }
}

/// How many further tries a backend can bear, of requests that failed elsewhere or were hedged.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryBudget {
    /// For each first try.
    pub share: f64,
    /// Besides, however few first ones there are: else a quiet gateway could not afford any.
    pub per_second: f64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self { share: 0.2, per_second: 10.0 }
    }
}

impl RetryBudget {
    /// What cannot be meant, by key.
    pub(super) fn errors(self) -> impl Iterator<Item = (String, String)> {
        let meant = |number: f64| (0.0..=1e6).contains(&number);
        let error = |key: &str| (format!(".retry_budget.{key}"), "a number from 0 (none) up, such as 0.2".to_owned());
        let keys = [("share", self.share), ("per_second", self.per_second)];
        keys.into_iter().filter(move |(_, number)| !meant(*number)).map(move |(key, _)| error(key))
    }
}

/// When an address of a backend is tried after all others.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Probe its addresses, where the kind has a place for that.
    pub probe: bool,
    /// Connection-level failures in a row that open the breaker of an address.
    pub failures: u32,
    /// Share of errors, between 0 and 1, that opens it.
    pub errors: f64,
    /// Requests within a window below which no share is taken.
    pub minimum: u32,
    /// Length of the window.
    pub window: Period,
    /// How long an address is set aside at first.
    pub aside: Period,
}

impl Default for Health {
    fn default() -> Self {
        let seconds = |seconds| Period(Duration::from_secs(seconds));
        Self { probe: true, failures: 3, errors: 0.5, minimum: 20, window: seconds(30), aside: seconds(5) }
    }
}

impl Health {
    /// What cannot be meant, by key.
    pub(super) fn errors(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut wrong = |is: bool, key: &str, what: &str| {
            if is {
                errors.push((format!(".health.{key}"), what.to_owned()));
            }
        };
        wrong(self.failures == 0, "failures", "at least 1: an address cannot be set aside before it failed");
        let share = self.errors > 0.0 && self.errors <= 1.0;
        wrong(!share, "errors", "a share of requests above 0 and up to 1, such as 0.5");
        wrong(self.minimum == 0, "minimum", "at least 1");
        wrong(self.window.0.is_zero(), "window", "longer than nothing, such as \"30s\"");
        let aside = !self.aside.0.is_zero() && self.aside.0 <= Duration::from_secs(3600);
        wrong(!aside, "aside", "longer than nothing and at most an hour, such as \"5s\"");
        errors
    }

    /// The same for a breaker.
    pub(super) fn rules(&self) -> Rules {
        let millis = |period: Period| u64::try_from(period.0.as_millis()).unwrap_or(u64::MAX);
        Rules {
            failures: self.failures,
            errors: self.errors,
            minimum: self.minimum,
            window: millis(self.window),
            aside: millis(self.aside),
        }
    }
}
