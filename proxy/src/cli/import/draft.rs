//! A configuration in the making, and how it is written: as TOML for people, what needs a look in comments.

use super::place::line;
use super::provider::{OPENAI, Provider, called};
use super::section::{Note, dotted};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use toml_edit::{Key as Name, Value};

/// Names that a configuration has already.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub backends: BTreeSet<String>,
    pub models: BTreeSet<String>,
}

/// A key at a backend. Not to be printed: the second kind is the key itself.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// In this environment variable.
    Variable(String),
    Secret(String),
}

/// `[backends.NAME]`
pub(super) struct Backend {
    pub name: String,
    kind: &'static str,
    url: String,
    key: Option<Key>,
    pub times: Times,
    /// What is good to know of it.
    hints: Vec<String>,
}

/// Time limits in seconds, where there are any.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Times {
    pub total: Option<f64>,
    pub first_token: Option<f64>,
}

/// `[models."NAME"]`
#[derive(Clone)]
pub(super) struct Model {
    pub name: String,
    /// The model it was made from, where it is another name for one.
    pub of: Option<String>,
    pub targets: Vec<Target>,
    pub policy: &'static str,
    pub retries: Option<u64>,
    pub fallbacks: Vec<String>,
    pub price: Option<Price>,
    pub max_output: Option<u64>,
    pub notes: Vec<Note>,
}

#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Its place among the backends.
    pub backend: usize,
    /// The model's name there, where it is another.
    pub model: Option<String>,
    pub weight: u64,
    pub priority: u64,
}

/// In dollars per token, as LiteLLM has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Price {
    pub input: Option<f64>,
    pub output: Option<f64>,
    pub cache_read: Option<f64>,
    pub cache_write: Option<f64>,
}

#[derive(Default)]
pub(super) struct Draft {
    pub taken: Taken,
    pub backends: Vec<Backend>,
    pub models: Vec<Model>,
    /// What belongs to no model of these.
    pub notes: Vec<Note>,
}

impl Draft {
    /// Whether there is a model of exactly this name, here or in the configuration this is for.
    pub fn has(&self, model: &str) -> bool {
        self.taken.models.contains(model) || self.models.iter().any(|there| there.name == model)
    }

    /// The backend of this provider, address and key: one that is there, or a new one with these limits.
    pub fn backend(&mut self, provider: &Provider, url: &str, key: Option<Key>, times: Times) -> usize {
        let is_same = |backend: &Backend| backend.kind == provider.kind && backend.url == url && backend.key == key;
        if let Some(there) = self.backends.iter().position(is_same) {
            return there;
        }
        let (first, host) = (provider.called(url), called(url, false));
        let more = [host.clone(), called(url, true)];
        let more = more.map(|place| if first == host { place } else { format!("{first}_{place}") });
        // Another key at the same address: the address tells them apart no better than a number.
        let is_new = self.backends.iter().all(|backend| backend.url != url);
        let more = more.into_iter().filter(|_| is_new);
        let mut names = [first.clone()].into_iter().chain(more).chain((2..).map(|number| format!("{first}_{number}")));
        let is_free = |name: &String| {
            !self.taken.backends.contains(name) && self.backends.iter().all(|backend| backend.name != *name)
        };
        let name = names.find(is_free).unwrap_or_else(|| first.clone());
        let backend = Backend { name, kind: provider.kind, url: url.to_owned(), key, times, hints: Vec::new() };
        self.backends.push(backend);
        self.backends.len() - 1
    }

    /// Text of the file, and how many keys need a look. `source` is the file it was made from, with this text.
    pub fn write(&self, source: &str, text: &str) -> (String, usize) {
        let mut out = Page { source, text, out: String::new(), notes: 0 };
        out.say(&format!("Made from {source} by `tidegate import litellm`."));
        out.say("Lines that begin with its name and a line number are about what is not carried over as it was.");
        out.notes(&self.notes);
        for backend in &self.backends {
            out.backend(backend);
        }
        for model in &self.models {
            out.model(model, &self.backends);
        }
        if self.models.iter().any(|model| model.price.is_none()) {
            out.gap();
            out.say(
                "LiteLLM knows prices of public models by itself. What has no `price` here has no cost in the books.",
            );
        }
        if self.taken.backends.is_empty() && self.taken.models.is_empty() {
            out.gap();
            out.say("Nobody may call yet. `tidegate keys new --project acme/web` makes a key and its line for this section:");
            out.say("[organizations.acme.projects.web]");
            out.say("keys = [ … ]");
        }
        (out.out, out.notes)
    }
}

impl Backend {
    pub fn hint(&mut self, hint: String) {
        if !self.hints.contains(&hint) {
            self.hints.push(hint);
        }
    }

    /// The variable that its key is taken from.
    pub fn variable(&self) -> Option<String> {
        Some(match self.key.as_ref()? {
            Key::Variable(name) => name.clone(),
            Key::Secret(_) => format!("{}_KEY_TO_SET", self.name.to_ascii_uppercase()),
        })
    }
}

/// What is being written.
struct Page<'a> {
    source: &'a str,
    text: &'a str,
    out: String,
    notes: usize,
}

impl Page<'_> {
    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push('\n');
    }

    fn gap(&mut self) {
        self.out.push('\n');
    }

    /// A comment. What stands in somebody's file must not end it.
    fn say(&mut self, text: &str) {
        let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        let _ = writeln!(self.out, "# {text}");
    }

    fn notes(&mut self, notes: &[Note]) {
        self.notes += notes.len();
        for note in notes {
            let line = line(self.text, &note.place);
            self.say(&format!("{}:{line}: {}: {}", self.source, dotted(&note.place), note.why));
        }
    }

    fn key(&mut self, key: &str, value: impl Into<Value>) {
        self.line(&format!("{key} = {}", value.into()));
    }

    fn backend(&mut self, backend: &Backend) {
        self.gap();
        for hint in &backend.hints {
            self.say(hint);
        }
        self.line(&format!("[backends.{}]", Name::new(&*backend.name)));
        self.key("kind", backend.kind);
        self.key("url", &backend.url);
        if let Some(variable) = backend.variable() {
            self.key("key", format!("env:{variable}"));
        }
        if backend.kind == "openai" && backend.url != OPENAI {
            self.line(
                "dialects = [\"chat\", \"embeddings\"]     # what compatible servers have in common; it may speak more",
            );
        }
        let times = [("total", backend.times.total), ("first_token", backend.times.first_token)];
        let times: Vec<_> =
            times.into_iter().filter_map(|(key, time)| Some(format!("{key} = {}", period(time?)))).collect();
        if !times.is_empty() {
            self.line(&format!("timeouts = {{ {} }}", times.join(", ")));
        }
    }

    fn model(&mut self, model: &Model, backends: &[Backend]) {
        self.gap();
        self.notes(&model.notes);
        if let Some(of) = &model.of {
            self.say(&format!("Another name for {of}."));
        }
        self.line(&format!("[models.{}]", Name::new(&*model.name)));
        self.line("targets = [");
        for target in &model.targets {
            let mut text = format!("backend = {}", Value::from(&*backends[target.backend].name));
            if let Some(name) = &target.model {
                let _ = write!(text, ", model = {}", Value::from(name));
            }
            for (key, number, usual) in [("weight", target.weight, 1), ("priority", target.priority, 0)] {
                if number != usual {
                    let _ = write!(text, ", {key} = {number}");
                }
            }
            self.line(&format!("    {{ {text} }},"));
        }
        self.line("]");
        if model.targets.len() > 1 {
            self.key("policy", model.policy);
        }
        if let Some(retries) = model.retries {
            self.line(&format!("retries = {retries}"));
        }
        if !model.fallbacks.is_empty() {
            self.key("fallbacks", model.fallbacks.iter().collect::<toml_edit::Array>());
        }
        if let Some(price) = &model.price {
            let parts = [
                ("input", price.input),
                ("output", price.output),
                ("cache_read", price.cache_read),
                ("cache_write", price.cache_write),
            ];
            let parts = parts.into_iter().filter_map(|(key, price)| Some(format!(", {key} = {}", per_million(price?))));
            self.line(&format!("price = {{ currency = \"USD\"{} }}", parts.collect::<String>()));
        }
        if let Some(most) = model.max_output {
            self.line(&format!("max_output = {most}"));
        }
    }
}

/// Rounded to what a price can mean: a product of floats has a tail.
fn per_million(per_token: f64) -> Value {
    Value::from((per_token * 1e15).round() / 1e9)
}

fn period(seconds: f64) -> String {
    if seconds.fract() == 0.0 { format!("\"{seconds:.0}s\"") } else { format!("\"{:.0}ms\"", seconds * 1e3) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_do() {
        for (per_token, expect) in
            [(0.000_000_15, "0.15"), (1e-5, "10.0"), (3.75e-6, "3.75"), (0.0, "0.0"), (2e-8, "0.02")]
        {
            assert_eq!(per_million(per_token).to_string(), expect);
        }
        assert_eq!((period(60.0), period(2.5)), ("\"60s\"".into(), "\"2500ms\"".into()));
    }
}
