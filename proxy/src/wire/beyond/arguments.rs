//! Arguments of a tool call where they must be an object.

use super::drop_named;
use crate::canon::{Fault, FaultKind};
use crate::wire::json::{Json, Kind, validate};
use crate::wire::put::put_text;
use std::borrow::Cow;

/// A tool call's arguments as an object; nothing at all is `{}`.
pub(in crate::wire) fn arguments_object(arguments: &str) -> Option<&str> {
    let text = arguments.trim();
    if text.is_empty() {
        return Some("{}");
    }
    validate(text.as_bytes()).ok().filter(|json| json.kind() == Kind::Object).map(|_| text)
}

/// The same for a target that takes nothing else, and never an error: what a model once wrote wrong stands in its conversation from
/// then on, and would end it. A string that holds an object is that object, every other text the one argument of one; named in
/// `adjusted`.
pub(in crate::wire) fn earlier_object<'a>(arguments: &'a str, adjusted: &mut Vec<String>) -> Cow<'a, str> {
    if let Some(object) = arguments_object(arguments) {
        return object.into();
    }
    drop_named(adjusted, "messages.tool_calls");
    let string = validate(arguments.as_bytes()).ok().and_then(Json::as_str);
    if let Some(object) = string.as_deref().and_then(arguments_object) {
        return object.to_owned().into();
    }
    let mut out = vec![b'{'];
    put_text(&mut out, "arguments", arguments);
    out.push(b'}');
    String::from_utf8(out).map_or("{}".into(), Cow::Owned)
}

/// The same of a call in a reply, for clients whose calls hold an object. Models say `null` for nothing, too, and some servers put
/// the object into a string once more.
///
/// # Errors
/// They are none, and a tool that is run without them does something else.
pub(in crate::wire) fn said_arguments<'a>(name: &str, arguments: &'a str) -> Result<Cow<'a, str>, Fault> {
    if let Some(object) = arguments_object(arguments) {
        return Ok(object.into());
    }
    let said = validate(arguments.trim().as_bytes()).ok();
    if said.is_some_and(Json::is_null) {
        return Ok("{}".into());
    }
    let inner = said.and_then(Json::as_str);
    if let Some(object) = inner.as_deref().and_then(arguments_object) {
        return Ok(object.to_owned().into());
    }
    let name: String = name.chars().take(64).collect();
    let message = format!("The backend called the tool `{name}` with arguments that are not a JSON object.");
    Err(Fault::new(FaultKind::BackendError, message))
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

    #[test]
    fn what_is_no_object_stands_in_one() {
        for (text, expect, said) in [
            (" {\"a\": 1} ", r#"{"a": 1}"#, false),
            ("", "{}", false),
            (r#""{\"a\": \"é\"}""#, r#"{"a": "é"}"#, true),
            (r#""{""#, r#"{"arguments":"\"{\""}"#, true),
            ("{\"cmd\": \"ls", r#"{"arguments":"{\"cmd\": \"ls"}"#, true),
            ("[1]", r#"{"arguments":"[1]"}"#, true),
            ("ls\n", r#"{"arguments":"ls\n"}"#, true),
        ] {
            let mut adjusted = Vec::new();
            assert_eq!((&*earlier_object(text, &mut adjusted), adjusted.len()), (expect, usize::from(said)), "{text}");
        }
    }

    #[test]
    fn arguments_that_were_said_are_looked_for_in_a_string() {
        for (text, expect) in [
            (" ", Some("{}")),
            ("null", Some("{}")),
            ("{\"a\":1}", Some("{\"a\":1}")),
            ("\"{\\\"a\\\": 1}\" ", Some("{\"a\": 1}")),
            ("\"[1]\"", None),
            ("\"x\"", None),
            ("[1]", None),
            ("{\"a\":", None),
        ] {
            assert_eq!(said_arguments("f", text).ok().as_deref(), expect, "{text}");
        }
        let fault = said_arguments(&"f".repeat(99), "[1]").unwrap_err();
        assert!(fault.status() == 502 && fault.message.contains(&format!("`{}`", "f".repeat(64))), "{fault:?}");
    }
}
