//! What a call says that not every dialect can: kept for its own, dropped by name, or refused by name.

use super::check::shorten;
use super::json::{Json, Kind, validate};
use crate::canon::{Call, Fault};

/// Fields that would let a caller choose where a request goes or with whose key. Never obeyed, never forwarded.
pub(super) const NEVER: &[&str] = &["api_base", "api_key", "base_url", "extra_headers"];

/// Remembers a nested field without a canonical form, once per name: `messages.name`.
pub(super) fn lose(extra: &mut Vec<(String, String)>, name: String, json: Json<'_>) {
    if !extra.iter().any(|(known, _)| *known == name) {
        extra.push((name, shorten(json)));
    }
}

/// Sampling words without a canonical form that open servers and Ollama share.
const SHARED: [&str; 6] = ["min_p", "repeat_penalty", "repetition_penalty", "typical_p", "mirostat", "tfs_z"];

/// Whether open servers and Ollama share this word.
pub(super) fn is_shared(name: &str) -> bool {
    SHARED.contains(&name)
}

/// Sends a client's extra fields back to its own family, those that other families know there, and names those that cannot go.
pub(super) fn extras<'c>(call: &'c Call, family: &str, dropped: &mut Vec<String>) -> Vec<(&'c str, &'c str)> {
    let mut kept = Vec::new();
    for (name, json) in &call.extra {
        if NEVER.contains(&name.as_str()) {
            continue;
        }
        let open = |family| matches!(family, "openai" | "ollama");
        let shared = open(call.family) && open(family) && is_shared(name);
        if shared || call.family == family && !name.contains('.') {
            kept.push((name.as_str(), json.as_str()));
        } else {
            drop_named(dropped, name);
        }
    }
    kept
}

/// Names a dropped field once.
pub(super) fn drop_named(dropped: &mut Vec<String>, name: &str) {
    if !dropped.iter().any(|known| known == name) {
        dropped.push(name.to_owned());
    }
}

/// What no other dialect can say and no answer can do without. A conversation that the vendor keeps cannot be continued
/// elsewhere, without the history the answer would be wrong; and a prompt that is to be taken as it stands, filled in the middle
/// or put into another template means something else without that.
pub(super) fn refuse_thread(call: &Call) -> Result<(), Fault> {
    const OLLAMA: [&str; 4] = ["raw", "suffix", "template", "context"];
    let own = call.extra.iter().find(|(name, _)| call.family == "ollama" && OLLAMA.contains(&name.as_str()));
    if let Some((name, _)) = own {
        return Err(Fault::unsupported(
            name.as_str(),
            format!("`{name}` is only supported for models on a backend that speaks Ollama's own API."),
        ));
    }
    if !call.extra.iter().any(|(name, _)| name == "thread") {
        return Ok(());
    }
    Err(Fault::invalid("`thread` is not supported for this model: send the full message history.")
        .with_status(400)
        .with_param("thread")
        .with_code("thread_unsupported_request"))
}

/// A tool call's arguments as an object; nothing at all is `{}`.
pub(super) fn arguments_object(arguments: &str) -> Option<&str> {
    let text = arguments.trim();
    if text.is_empty() {
        return Some("{}");
    }
    validate(text.as_bytes()).ok().filter(|json| json.kind() == Kind::Object).map(|_| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_an_object_or_nothing() {
        for (text, expect) in [
            ("", Some("{}")),
            (" ", Some("{}")),
            ("{\"n\":12345678901234567890}", Some("{\"n\":12345678901234567890}")),
            ("[1]", None),
            ("{", None),
            ("\"x\"", None),
        ] {
            assert_eq!(arguments_object(text), expect, "{text}");
        }
    }
}
