//! Names that differ from one that counts in case only.

use super::lose;
use crate::canon::{Call, Fault};
use crate::wire::check::Fields;
use crate::wire::object::folded;

/// Remembers those nested fields that some servers would read as another: the rest say nothing to anybody there.
pub(in crate::wire) fn lose_lookalikes(extra: &mut Vec<(String, String)>, place: &str, fields: &Fields<'_>) {
    for (name, json) in fields.beyond(&[]).filter(|(name, _)| looks_like(name, INNER)) {
        lose(extra, format!("{place}.{name}"), json);
    }
}

/// Names of what a model reads, and of how much it may say.
const READ: &[&str] = &[
    "messages",
    "input",
    "instructions",
    "system",
    "prompt",
    "suffix",
    "template",
    "tools",
    "functions",
    "role",
    "content",
    "text",
    "thinking",
    "reasoning",
    "reasoning_content",
    "refusal",
    "tool_calls",
    "function_call",
    "images",
    "image_url",
    "source",
    "output",
    "options",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "num_predict",
];

/// The same of what stands deeper: in tools and in calls of them.
const INNER: &[&str] = &["function", "name", "description", "parameters", "input_schema", "arguments"];

/// Whether the last word of a name differs from one of [`READ`] in case only, or inside of something from one of [`INNER`].
pub(super) fn is_lookalike(name: &str) -> bool {
    let (inside, word) = name.rsplit_once('.').map_or((false, name), |(_, word)| (true, word));
    looks_like(word, READ) || inside && looks_like(word, INNER)
}

fn looks_like(word: &str, words: &[&str]) -> bool {
    let plain = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase();
    !word.bytes().all(plain) && words.contains(&folded(word).as_str())
}

/// A member whose name differs from one of those in case only says nothing here, and to a server that does not tell the two
/// apart it may be the one that counts. Whoever looks at calls before they go there would be shown something else.
pub(in crate::wire) fn refuse_lookalikes(call: &Call) -> Result<&Call, Fault> {
    for (name, _) in &call.extra {
        if is_lookalike(name) {
            let word = folded(name.rsplit('.').next().unwrap_or_default());
            let what = format!("Some servers read the field `{name}` as `{word}`: write it so.");
            return Err(Fault::invalid(what).with_param(name.as_str()));
        }
    }
    Ok(call)
}
