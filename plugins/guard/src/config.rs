//! The configuration as it is written.

use regex_lite::Regex;
use serde::Deserialize;
use tidegate_plugin::window::Kind;
use tidegate_plugin::{Opaque, Passage, PassageKind, Refusal, Role};

use crate::injection;
use crate::judge::Judge;
use crate::rules::{Rule, Rules};
use crate::{Action, Guard};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    deny: Vec<String>,
    injection: bool,
    rules: Vec<RuleConfig>,
    read_call: Vec<Reader>,
    read_reply: Vec<Part>,
    window: usize,
    refuse_parts: Vec<Opaque>,
    judge: Option<Judge>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RuleConfig {
    name: String,
    phrases: Vec<String>,
    pattern: Option<String>,
    on: Vec<Side>,
    action: ActionName,
    mask: String,
    status: u16,
    code: String,
    message: String,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Side {
    Call,
    Reply,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum ActionName {
    Refuse,
    Mask,
}

/// Whose texts are read.
#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Reader {
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Part {
    Text,
    Thinking,
    Refusal,
    Arguments,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deny: Vec::new(),
            injection: true,
            rules: Vec::new(),
            read_call: vec![Reader::User, Reader::Tool],
            read_reply: vec![Part::Text, Part::Thinking, Part::Refusal, Part::Arguments],
            window: 256,
            refuse_parts: Vec::new(),
            judge: None,
        }
    }
}

impl Default for RuleConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            phrases: Vec::new(),
            pattern: None,
            on: vec![Side::Call, Side::Reply],
            action: ActionName::Refuse,
            mask: "[removed]".into(),
            status: 403,
            code: "denied_content".into(),
            message: "The text holds something this gateway does not let pass.".into(),
        }
    }
}

impl Reader {
    pub fn reads(self, passage: &Passage) -> bool {
        let result = passage.kind == PassageKind::ToolResult;
        match self {
            Self::Tool => result,
            Self::User => passage.role == Role::User && !result,
            Self::Assistant => passage.role == Role::Assistant,
            Self::System => matches!(passage.role, Role::System | Role::Developer),
        }
    }
}

impl TryFrom<Config> for Guard {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        let mut rules = config.rules;
        if !config.deny.is_empty() {
            rules.insert(0, RuleConfig { name: "deny".into(), phrases: config.deny, ..RuleConfig::default() });
        }
        if config.injection {
            rules.push(RuleConfig {
                name: "injection".into(),
                phrases: injection::PHRASES.iter().map(|phrase| (*phrase).into()).collect(),
                on: vec![Side::Call],
                code: "prompt_injection".into(),
                message: "The text tries to talk the model out of its instructions.".into(),
                ..RuleConfig::default()
            });
        }
        let side = |side: Side| {
            let named = rules.iter().filter(|rule| rule.on.contains(&side));
            Rules::new(named.map(RuleConfig::read).collect::<Result<_, _>>()?)
        };
        let kinds = config.read_reply.iter().map(|part| match part {
            Part::Text => Kind::Text,
            Part::Thinking => Kind::Thinking,
            Part::Refusal => Kind::Refusal,
            Part::Arguments => Kind::Arguments,
        });
        Ok(Self {
            on_calls: side(Side::Call)?,
            on_replies: side(Side::Reply)?,
            readers: config.read_call,
            kinds: kinds.collect(),
            window: config.window,
            refuse_parts: config.refuse_parts,
            judge: config.judge,
        })
    }
}

impl RuleConfig {
    fn read(&self) -> Result<Rule, String> {
        let name = if self.name.is_empty() { "a rule without a name" } else { &self.name };
        if self.phrases.is_empty() && self.pattern.is_none() {
            return Err(format!("{name}: neither phrases nor a pattern"));
        }
        let pattern = match &self.pattern {
            Some(pattern) => Some(Regex::new(pattern).map_err(|error| format!("{name}: {error}"))?),
            None => None,
        };
        if pattern.as_ref().is_some_and(|pattern| pattern.is_match("")) {
            return Err(format!("{name}: the pattern matches nothing at all, hence everywhere"));
        }
        let refusal = Refusal::new(&self.code, &self.message).status(self.status);
        Ok(Rule {
            name: name.into(),
            phrases: self.phrases.clone(),
            pattern,
            action: match self.action {
                ActionName::Refuse => Action::Refuse(refusal),
                ActionName::Mask => Action::Mask(self.mask.clone()),
            },
        })
    }
}
