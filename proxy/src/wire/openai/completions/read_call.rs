//! A completions request as a call: the prompt is the one turn, the user's.

use super::WORDS;
use crate::canon::call::{Content, Role, Turn};
use crate::canon::{Call, Fault};
use crate::wire::beyond::extra;
use crate::wire::check::{BODY, Check};
use crate::wire::json::{Json, Kind};
use crate::wire::object::Object;
use crate::wire::openai::words::{sampling, stream};

/// Fields with a canonical form. Everything else is `extra`.
const KNOWN: &[&str] = &[
    "model",
    "prompt",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "n",
    "stop",
    "stream",
    "stream_options",
    "user",
];

pub(super) fn check(request: &Object) -> Result<(), Fault> {
    let mut check = Check::default();
    scalars(&mut check, request);
    check.finish(())
}

pub(super) fn read_call(request: &Object) -> Result<Call, Fault> {
    let mut check = Check::default();
    let mut call = scalars(&mut check, request);
    call.extra = extra(request, |name, _| KNOWN.contains(&name));
    if let Some(prompt) = request.get("prompt") {
        call.turns.push(Turn { role: Role::User, content: vec![content(prompt)] });
    }
    check.finish(call)
}

/// A text, or what only a server of this dialect can read: tokens, or several prompts.
fn content(prompt: Json<'_>) -> Content {
    let mut items = prompt.items();
    let only = items.next().filter(|_| items.next().is_none()).and_then(Json::as_str);
    match prompt.as_str().or(only) {
        Some(text) => Content::Text(text.into_owned()),
        None => Content::Other { kind: "prompt".into(), json: prompt.raw().to_owned() },
    }
}

fn scalars(check: &mut Check, request: &Object) -> Call {
    let model = check.model(request).unwrap_or_default();
    if let Some(prompt) = check.need(&BODY, request, "prompt") {
        let at = BODY.key("prompt");
        match prompt.kind() {
            Kind::String => drop(check.as_text(&at, prompt)),
            Kind::Array if prompt.items().next().is_none() => {
                let msg = "List should have at least 1 item after validation, not 0";
                check.wrong(&at, "too_short", msg, Some(prompt));
            }
            Kind::Array => {}
            _ => check.wrong(&at, "string_type", "Input should be a valid string or a list", Some(prompt)),
        }
    }
    let stop = check.one_or_more(&BODY, request, "stop");
    let (stream, stream_usage) = stream(check, request);
    check.flag(&BODY, request, "echo");
    check.text(&BODY, request, "suffix");
    check.int(&BODY, request, "best_of", 0..=128);
    check.int(&BODY, request, "logprobs", 0..=i64::MAX);
    let max_tokens = check.int(&BODY, request, "max_tokens", 0..=i64::MAX).map(i64::unsigned_abs);
    let mut call = Call { model, stop, stream, stream_usage, max_tokens, family: WORDS, ..Call::default() };
    sampling(check, request, &mut call);
    call
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn read(text: &str) -> Result<Call, Fault> {
        read_call(&Object::read(Bytes::copy_from_slice(text.as_bytes())).unwrap())
    }

    #[test]
    fn a_prompt_is_what_the_user_says() {
        for prompt in ["\"once\"", "[\"once\"]"] {
            let call = read(&format!(r#"{{"model":"m","prompt":{prompt},"logprobs":2,"echo":null}}"#)).unwrap();
            assert_eq!(call.turns, [Turn::text(Role::User, "once")]);
            assert_eq!(call.extra, [("logprobs".to_owned(), "2".to_owned())]);
        }
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        for (text, expect) in [
            ("{}", vec!["body.model missing", "body.prompt missing"]),
            (r#"{"model":"m","prompt":[]}"#, vec!["body.prompt too_short"]),
            (
                r#"{"model":"m","prompt":1,"stop":[1],"n":0,"echo":"x","suffix":1,"best_of":"2","logprobs":-1,"max_tokens":-1}"#,
                vec![
                    "body.prompt string_type",
                    "body.stop.0 string_type",
                    "body.echo bool_type",
                    "body.suffix string_type",
                    "body.best_of int_parsing",
                    "body.logprobs greater_than_equal",
                    "body.max_tokens greater_than_equal",
                    "body.n greater_than_equal",
                ],
            ),
        ] {
            let fault = read(text).unwrap_err();
            let found: Vec<_> =
                fault.details.iter().map(|detail| format!("{} {}", detail.loc.join("."), detail.kind)).collect();
            assert_eq!(found, expect, "{text}");
        }
    }
}
