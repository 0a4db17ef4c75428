//! A copy of each exchange, as JSON, to an HTTP address.
//!
//! It is sent when the request is over, changes nothing, and disturbs nothing: a sink that is down costs a log line and a
//! count. Attached behind `redact`, it sees placeholders on both ways.

mod copy;

use std::collections::BTreeMap;

use tidegate_plugin::prelude::*;
use tidegate_plugin::{http, system};

use crate::copy::{Copy, Field};

const COPIES: Metric =
    Metric::counter("copies", "Exchanges that were to be copied.").label("outcome", &["sent", "refused", "failed"]);

/// The plugin.
#[derive(Deserialize)]
#[serde(try_from = "Config")]
struct Tap(Config);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default = "Field::usual")]
    fields: Vec<Field>,
    #[serde(default = "all")]
    sample: f64,
    #[serde(default = "max_chars")]
    max_chars: usize,
    #[serde(default = "timeout")]
    timeout: u32,
}

fn all() -> f64 {
    1.0
}

/// Most conversations whole; a book is cut.
fn max_chars() -> usize {
    64 << 10
}

/// A sink answers at once or is in trouble.
fn timeout() -> u32 {
    2000
}

impl TryFrom<Config> for Tap {
    type Error = String;

    fn try_from(config: Config) -> Result<Self, String> {
        if !config.url.starts_with("https://") && !config.url.starts_with("http://") {
            return Err("url: it must begin with https:// or http://".to_owned());
        }
        Ok(Self(config))
    }
}

impl Plugin for Tap {
    type Exchange = Copy;
    const HOOKS: Hooks = Hooks::all();
    const EVENTS: Interests = Interests::all();
    const SCHEMA: Option<&'static str> = Some(include_str!("../config.schema.json"));
    const METRICS: &'static [Metric] = &[COPIES];

    fn hooks(&self) -> Hooks {
        let mut hooks = Self::HOOKS;
        hooks.set(Hooks::ON_EVENTS, self.0.fields.iter().any(|field| field.is_of_reply()));
        hooks
    }

    fn on_call(&self, call: &Call, copy: &mut Copy) -> Verdict {
        if self.0.sample < 1.0 && system::chance() >= self.0.sample {
            call.ignore_reply();
        } else {
            copy.take_call(call, &self.0.fields, self.0.max_chars);
        }
        Verdict::Pass
    }

    fn on_events(&self, copy: &mut Copy, events: Vec<Event>) -> Rewrite {
        copy.take_reply(&events, self.0.max_chars);
        Rewrite::Pass
    }

    fn on_end(&self, copy: Copy, end: End) {
        let body = copy.finish(&end, &self.0.fields, self.0.max_chars);
        let sent = http::Request::post_json(&self.0.url, &body).and_then(|request| {
            let headers = self.0.headers.iter();
            headers.fold(request, |request, (name, value)| request.header(name, value)).timeout(self.0.timeout).send()
        });
        match sent {
            Ok(answer) if (200..300).contains(&answer.status) => COPIES.count_as("sent"),
            Ok(answer) => {
                COPIES.count_as("refused");
                log::warn("the sink refused a copy", &[("status", &answer.status)]);
            }
            Err(error) => {
                COPIES.count_as("failed");
                log::warn("a copy was not sent", &[("error", &error)]);
            }
        }
    }
}
tidegate_plugin::export!(Tap);

#[cfg(test)]
mod tests;
