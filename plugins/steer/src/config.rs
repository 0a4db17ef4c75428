//! The configuration as it is written.

use regex_lite::Regex;
use serde::Deserialize;
use tidegate_plugin::Destination;
use tidegate_plugin::names::Names;

use crate::Steer;
use crate::rule::{Range, Rule};
use crate::script::Script;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    rules: Vec<RuleConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleConfig {
    name: String,
    model: Option<String>,
    backend: Option<String>,
    #[serde(default)]
    models: Names,
    #[serde(default)]
    organizations: Names,
    #[serde(default)]
    projects: Names,
    #[serde(default)]
    endpoints: Names,
    header: Option<HeaderConfig>,
    streamed: Option<bool>,
    tools: Option<bool>,
    images: Option<bool>,
    min_bytes: Option<usize>,
    max_bytes: Option<usize>,
    min_chars: Option<usize>,
    max_chars: Option<usize>,
    min_turns: Option<u32>,
    pattern: Option<String>,
    #[serde(default)]
    scripts: Vec<Script>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderConfig {
    name: String,
    #[serde(default = "any")]
    value: String,
}

fn any() -> String {
    "*".into()
}

/// Bytes of a tag, at most.
const TAG: usize = 64;

impl TryFrom<Config> for Steer {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        Ok(Self { rules: config.rules.into_iter().map(Rule::try_from).collect::<Result<_, _>>()? })
    }
}

impl TryFrom<RuleConfig> for Rule {
    type Error = String;

    fn try_from(rule: RuleConfig) -> Result<Self, String> {
        let tag = format!("steer:{}", rule.name);
        if tag.len() > TAG {
            return Err(format!("{}: the name is longer than a tag can be", rule.name));
        }
        let pattern = match &rule.pattern {
            Some(pattern) => Some(Regex::new(pattern).map_err(|error| format!("{}: {error}", rule.name))?),
            None => None,
        };
        Ok(Self {
            tag,
            destination: Destination { model: rule.model, backend: rule.backend },
            models: rule.models,
            organizations: rule.organizations,
            projects: rule.projects,
            endpoints: rule.endpoints,
            header: rule.header.map(|header| (header.name.to_ascii_lowercase(), header.value)),
            streamed: rule.streamed,
            tools: rule.tools,
            images: rule.images,
            bytes: Range { least: rule.min_bytes, most: rule.max_bytes },
            chars: Range { least: rule.min_chars, most: rule.max_chars },
            min_turns: rule.min_turns,
            pattern,
            scripts: rule.scripts,
        })
    }
}
