//! Names that differ from one that counts in case only.

use super::lose;
use crate::canon::{Call, Fault};
use crate::wire::check::Fields;
use crate::wire::object::{Object, folded};

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

/// Other words of the top level that are read here or written for a target, in any dialect.
const SAID: &[&str] = &[
    "model",
    "stream",
    "stream_options",
    "max_output_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "stop",
    "stop_sequences",
    "user",
    "metadata",
    "store",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "format",
    "output_config",
    "output_format",
    "reasoning_effort",
    "think",
    "chat_template_kwargs",
    "continue_final_message",
    "add_generation_prompt",
    "logprobs",
    "top_logprobs",
    "keep_alive",
    "raw",
    "thread",
    "verbosity",
    "include",
    "dimensions",
    "encoding_format",
    "truncate",
];

/// A member of the top level whose name differs from one that counts in case only. What a server that does not tell the two apart
/// makes of it is not what was decided here, and written beside the one that counts it would stand twice there.
///
/// # Errors
/// 400 with its name.
pub(in crate::wire) fn refuse_capitals(request: &Object) -> Result<(), Fault> {
    if !request.has_capitals() {
        return Ok(());
    }
    let odd = request.entries().find(|(name, _)| looks_like(name, READ) || looks_like(name, SAID));
    odd.map_or(Ok(()), |(name, _)| Err(misspelt(&name, &folded(&name))))
}

fn misspelt(name: &str, word: &str) -> Fault {
    Fault::invalid(format!("Some servers read the field `{name}` as `{word}`: write it so.")).with_param(name)
}

/// The same of what stands deeper: in tools and in calls of them.
const INNER: &[&str] = &["function", "name", "description", "parameters", "input_schema", "arguments"];

/// Whether the name of a nested field ends in a word that differs from one that is read there in case only. Those of the top level
/// are refused before.
pub(super) fn is_lookalike(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, word)| looks_like(word, READ) || looks_like(word, INNER))
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
            return Err(misspelt(name, &folded(name.rsplit('.').next().unwrap_or_default())));
        }
    }
    Ok(call)
}

#[cfg(test)]
mod tests {
    use crate::wire::Dialect;
    use crate::wire::request::Request;

    #[test]
    fn what_some_servers_would_take_for_another_is_refused() {
        for (key, word) in [
            ("Stream", Some("stream")),
            ("stream_Options", Some("stream_options")),
            ("\\u004dodel", Some("model")),
            ("Messages", Some("messages")),
            ("messageſ", Some("messages")),
            ("ſuffix", Some("suffix")),
            ("System", Some("system")),
            ("chatId", None),
            ("stream_x", None),
        ] {
            let model = if word == Some("model") { "" } else { r#","model":"m""# };
            let read = Request::read(Dialect::OllamaChat, format!(r#"{{"{key}":1{model}}}"#).into());
            match word {
                Some(word) => {
                    assert!(read.unwrap_err().message.ends_with(&format!("as `{word}`: write it so.")), "{key}")
                }
                None => assert!(read.is_ok(), "{key}"),
            }
        }
    }
}
