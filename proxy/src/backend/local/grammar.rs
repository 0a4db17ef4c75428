//! Holding an answer to a form: JSON of a schema, or a call of a tool.
//!
//! The crate `llguidance` says after each token which tokens may follow; the sampler chooses among those. What is written
//! is on one line with a space behind commas and colons, as Python's `json.dumps` has it: free white space is what small
//! models get lost in, and each step is cheaper without (docs/decisions/0019-constrained-answers.md).

#[cfg(test)]
mod tests;

use super::call::{CLOSING, Form, LIST, OPENING};
use super::vocabulary::Vocabulary;
use super::{Choice, Format, Refusal};
use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::Arc;

/// Calls of one answer that must call; a model that does not know when to stop would not.
const CALLS: usize = 16;
/// Parts of a refused schema that are looked at to name the one that is to blame.
const TRIES: usize = 200;
/// Bytes of all schemas that one answer is held to. One thread prepares the prompts of all; agents' tools come to 100 KB.
const LONGEST: usize = 256 << 10;
/// Bytes of a refused schema and its parts that are looked at for the same: each part is compiled with all shared definitions.
const LOOKED_AT: usize = 4 * LONGEST;

/// Compiles grammars for one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
}

/// What one answer is held to, and how far it has come.
pub struct Grammar {
    matcher: Box<Matcher>,
}

/// What an answer may be.
pub struct Wanted<'a> {
    pub format: &'a Format,
    /// Tools on offer, as OpenAI writes them.
    pub tools: &'a [Value],
    pub choice: &'a Choice,
    /// More than one call in an answer.
    pub parallel: bool,
    pub form: Form,
}

impl Wanted<'_> {
    /// Whether the answer must be, or may be, a call of this tool.
    fn may_call(&self, name: &str) -> bool {
        !matches!(self.choice, Choice::Named(only) if only != name)
    }

    fn within_bounds(&self) -> Result<(), Refusal> {
        let length = |schema: &Value| schema.to_string().len();
        let format = match (self.choice, self.format) {
            (Choice::Auto, Format::Schema(schema)) => length(schema),
            _ => 0,
        };
        let called = self.tools.iter().filter(|tool| {
            tool.pointer("/function/name").and_then(Value::as_str).is_some_and(|name| self.may_call(name))
        });
        let tools: usize = called.filter_map(|tool| tool.pointer("/function/parameters")).map(length).sum();
        if format + tools <= LONGEST {
            return Ok(());
        }
        let place = if format > tools { "response_format" } else { "tools" };
        let length = format + tools;
        let message = format!(
            "This model's answers are held to schemas of at most {LONGEST} bytes together, and these have {length}; shorten them."
        );
        Err(Refusal { place: Some(place), message })
    }
}

impl Grammars {
    /// Takes a moment: the vocabulary is sorted into a tree.
    pub fn new(vocabulary: &Vocabulary) -> Result<Grammars, String> {
        let words: Vec<Vec<u8>> = (0..vocabulary.len() as u32).map(|token| vocabulary.bytes(token).to_vec()).collect();
        let ends = vocabulary.all_ends();
        let end = *ends.first().ok_or("the model has no token that ends an answer")?;
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, end), &words).with_eos_tokens(ends);
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment).map_err(|error| sentence(&error.to_string()))?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Grammars { factory })
    }

    /// The grammar of what is wanted; `None` where anything may be said.
    ///
    /// # Errors
    /// A schema that is none, or that answers cannot be held to.
    pub fn compile(&self, wanted: &Wanted<'_>) -> Result<Option<Grammar>, Refusal> {
        let schema = match wanted.format {
            Format::Free => None,
            Format::Json => Some(json!({"type": "object"})),
            Format::Schema(schema) => Some(schema.clone()),
        };
        let forced = !matches!(wanted.choice, Choice::Auto);
        if forced || schema.is_some() {
            wanted.within_bounds()?;
        }
        let mut schemas = Vec::new();
        let mut source = String::from("start: ");
        if forced {
            source.push_str("calls\n");
        } else {
            let Some(schema) = &schema else { return Ok(None) };
            schemas.push(Asked::read("response_format", "the schema".to_owned(), schema.clone())?);
            source.push_str(if wanted.tools.is_empty() { "answer\n" } else { "answer | calls\n" });
            let _ = writeln!(source, "answer: %json {}", on_one_line(schema));
        }
        if !wanted.tools.is_empty() {
            Self::calls(wanted, &mut source, &mut schemas)?;
        }
        let reason = match self.parse(TopLevelGrammar::from_lark(source)) {
            Ok(grammar) => return Ok(Some(grammar)),
            Err(reason) => reason,
        };
        // Which of them is to blame is only asked now: compiling is most of what a request like this costs beforehand.
        for asked in schemas {
            self.blame(&asked.schema).map_err(|fault| fault.refusal(asked.place, &asked.what))?;
        }
        let place = if forced { "tools" } else { "response_format" };
        Err(Refusal { place: Some(place), message: format!("The answer cannot be held to this: {reason}") })
    }

    /// Adds the rules of calls.
    fn calls(wanted: &Wanted<'_>, source: &mut String, schemas: &mut Vec<Asked>) -> Result<(), Refusal> {
        let (before, between, after) = match wanted.form {
            Form::Hermes => (format!("{OPENING}\n"), format!("\n{CLOSING}\n{OPENING}\n"), format!("\n{CLOSING}")),
            Form::Llama => (String::new(), "; ".to_owned(), String::new()),
            Form::Mistral => (format!("{LIST}["), ", ".to_owned(), "]".to_owned()),
        };
        let more = if wanted.parallel { CALLS - 1 } else { 0 };
        let _ = write!(source, "calls: {} call", literal(&before));
        if more > 0 {
            let _ = write!(source, " more{{0,{more}}}");
        }
        let _ = writeln!(source, " {}\nmore: {} call", literal(&after), literal(&between));
        let key = if wanted.form == Form::Llama { "parameters" } else { "arguments" };
        let (mut names, mut rules) = (Vec::new(), String::new());
        for (number, tool) in wanted.tools.iter().enumerate() {
            let Some(name) = tool.pointer("/function/name").and_then(Value::as_str) else { continue };
            if !wanted.may_call(name) {
                continue;
            }
            let schema = object_schema(tool.pointer("/function/parameters"));
            let head = format!("{{\"name\": {}, \"{key}\": ", Value::from(name));
            let _ = writeln!(rules, "call_{number}: {} arguments_{number} \"}}\"", literal(&head));
            let _ = writeln!(rules, "arguments_{number}: %json {}", on_one_line(&schema));
            schemas.push(Asked::read("tools", format!("the parameters of `{name}`"), schema)?);
            names.push(format!("call_{number}"));
        }
        if names.is_empty() {
            let message = "The tool that must be called is not among the tools.".to_owned();
            return Err(Refusal { place: Some("tool_choice"), message });
        }
        let _ = write!(source, "call: {}\n{rules}", names.join(" | "));
        Ok(())
    }

    /// Whether answers can be held to a schema; else what in it is to blame.
    fn blame(&self, schema: &Value) -> Result<(), Fault> {
        let mut looked_at = 0;
        let Err(reason) = self.alone(schema, schema, &mut looked_at) else { return Ok(()) };
        let mut fault = Fault { place: String::new(), reason };
        let (mut at, mut tries) = (schema, 0);
        loop {
            let mut refused = parts(at).into_iter().filter_map(|(place, part)| {
                tries += 1;
                let more = tries <= TRIES && looked_at < LOOKED_AT;
                let reason = more.then(|| self.alone(part, schema, &mut looked_at).err())??;
                Some((place, part, reason))
            });
            let Some((place, part, reason)) = refused.next() else { return Err(fault) };
            drop(refused);
            at = part;
            fault = Fault { place: fault.place + &place, reason };
        }
    }

    /// Compiles a part of a schema as if it were all of it, and adds its length.
    fn alone(&self, part: &Value, whole: &Value, looked_at: &mut usize) -> Result<(), String> {
        let mut part = part.clone();
        if let Value::Object(part) = &mut part {
            for shared in ["$defs", "definitions"] {
                if let Some(definitions) = whole.get(shared) {
                    part.entry(shared).or_insert_with(|| definitions.clone());
                }
            }
        }
        *looked_at += part.to_string().len();
        self.parse(TopLevelGrammar::from_json_schema(on_one_line(&part))).map(|_| ())
    }

    fn parse(&self, grammar: TopLevelGrammar) -> Result<Grammar, String> {
        let matcher = Matcher::new(self.factory.create_parser(grammar));
        match matcher.get_error() {
            Some(error) => Err(sentence(&error)),
            None => Ok(Grammar { matcher: Box::new(matcher) }),
        }
    }
}

impl Grammar {
    /// Leaves only the scores of tokens that may follow.
    pub fn mask(&mut self, scores: &mut [f32]) -> Result<(), String> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|error| sentence(&error.to_string()))?;
        for (scores, &bits) in scores.chunks_mut(u32::BITS as usize).zip(allowed.as_slice()) {
            if bits == u32::MAX {
                continue;
            }
            for (at, score) in scores.iter_mut().enumerate() {
                if bits >> at & 1 == 0 {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        Ok(())
    }

    /// A token was chosen. Returns whether the answer is complete and nothing may follow.
    pub fn advance(&mut self, token: u32) -> Result<bool, String> {
        self.matcher.consume_token(token).map_err(|error| sentence(&error.to_string()))?;
        Ok(self.matcher.is_stopped())
    }
}

/// A schema that an answer is to be held to.
struct Asked {
    /// The request's field.
    place: &'static str,
    /// What it is there.
    what: String,
    schema: Value,
}

impl Asked {
    /// One that is a schema at all.
    fn read(place: &'static str, what: String, schema: Value) -> Result<Self, Refusal> {
        let valid = jsonschema::meta::validate(&schema)
            .map_err(|error| Fault { place: error.instance_path().to_string(), reason: error.to_string() });
        valid.map_err(|fault| fault.refusal(place, &what))?;
        Ok(Self { place, what, schema })
    }
}

/// What is wrong with a schema.
struct Fault {
    /// A JSON pointer.
    place: String,
    reason: String,
}

impl Fault {
    fn refusal(self, place: &'static str, what: &str) -> Refusal {
        let at = if self.place.is_empty() { String::new() } else { format!(" at {}", self.place) };
        Refusal { place: Some(place), message: format!("No answer can be held to {what}{at}: {}", self.reason) }
    }
}

/// The schema with our own layout; a caller's would let it write what is no JSON.
fn on_one_line(schema: &Value) -> Value {
    let mut schema = match schema {
        Value::Object(schema) => schema.clone(),
        Value::Bool(false) => Map::from_iter([("enum".to_owned(), json!([]))]),
        _ => Map::new(),
    };
    let layout = json!({"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": false});
    schema.insert("x-guidance".to_owned(), layout);
    Value::Object(schema)
}

/// Arguments are an object, whatever else their schema says or does not.
fn object_schema(parameters: Option<&Value>) -> Value {
    let mut schema = match parameters {
        Some(Value::Object(schema)) => schema.clone(),
        _ => Map::new(),
    };
    schema.entry("type").or_insert_with(|| "object".into());
    Value::Object(schema)
}

/// The schemas inside a schema, with where they stand.
fn parts(schema: &Value) -> Vec<(String, &Value)> {
    let mut parts = Vec::new();
    for (key, value) in schema.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("properties" | "patternProperties" | "$defs" | "definitions", Value::Object(named)) => {
                let step = |name: &str| format!("/{key}/{}", name.replace('~', "~0").replace('/', "~1"));
                parts.extend(named.iter().map(|(name, part)| (step(name), part)));
            }
            ("anyOf" | "oneOf" | "allOf" | "prefixItems" | "items", Value::Array(list)) => {
                parts.extend(list.iter().enumerate().map(|(number, part)| (format!("/{key}/{number}"), part)));
            }
            ("items" | "additionalItems" | "additionalProperties", Value::Object(_)) => {
                parts.push((format!("/{key}"), value));
            }
            _ => {}
        }
    }
    parts
}

/// A text in a grammar, which writes them as JSON does.
fn literal(text: &str) -> String {
    Value::from(text).to_string()
}

/// The library's errors have several lines, and end with its state.
fn sentence(error: &str) -> String {
    let lines = error.lines().map(str::trim).take_while(|line| !line.starts_with("<non-verbose"));
    let text = lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    text.chars().take(500).collect()
}
