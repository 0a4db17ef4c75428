//! What a backend says about its own failure, made fit for a stranger.

use super::json::{Json, Kind, validate};
use crate::canon::{Fault, FaultKind};
use std::borrow::Cow;

/// Bytes kept of a backend's sentence.
const LONGEST: usize = 1000;
/// And of a word of its for programs.
const LONGEST_WORD: usize = 128;

/// What a backend says of a request that it does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// For people, without addresses and keys; not empty.
    pub message: String,
    /// For programs: `context_length_exceeded`.
    pub code: Option<String>,
    /// The field that it is about, by its name in the backend's API.
    pub param: Option<String>,
}

/// The fault of a request that the backend does not take.
impl From<Complaint> for Fault {
    fn from(Complaint { message, code, param }: Complaint) -> Self {
        Self { code: code.map(Into::into), param, ..Self::new(FaultKind::BackendInvalid, message) }
    }
}

/// The complaint of an error's body. Its shapes are few and alike, whatever the API, and servers that imitate one use those of
/// another.
pub fn complaint(body: &[u8]) -> Option<Complaint> {
    let json = validate(body).ok()?;
    let (message, error) = ["error", "message", "detail"].iter().find_map(|key| {
        let error = json.get(key)?;
        Some((message(error)?, if error.kind() == Kind::Object { error } else { json }))
    })?;
    Some(Complaint { message, code: code(error), param: word(error, "param") })
}

/// Anthropic keeps such words among the details.
fn code(error: Json<'_>) -> Option<String> {
    word(error, "code").or_else(|| word(error.get("details")?, "error_code"))
}

/// A member that is a word or a path, and neither a sentence nor a number.
fn word(error: Json<'_>, name: &str) -> Option<String> {
    let text = error.get(name)?.as_str()?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-[]".contains(&byte);
    let is_word = text.len() <= LONGEST_WORD && text.bytes().all(fits) && text.bytes().any(|b| b.is_ascii_alphabetic());
    is_word.then(|| text.into_owned())
}

/// A backend's error as a fault. Its own words are kept where they are words.
pub(super) fn backend_fault(error: Json<'_>) -> Fault {
    let status = ["code", "status", "status_code", "http_code"]
        .iter()
        .find_map(|key| error.get(key).and_then(Json::as_u64))
        .filter(|code| (400..600).contains(code));
    let kind = error.get("type").and_then(Json::as_str).unwrap_or_default();
    let name = error.get("code").and_then(Json::as_str).unwrap_or_default();
    let message = message(error).unwrap_or_else(|| "The backend reported an error without a message.".into());
    let said = |words: &[&str]| words.iter().any(|word| kind == *word || name == *word);
    if status == Some(529) || said(&["overloaded_error", "overloaded"]) {
        return Fault::new(FaultKind::BackendBusy, message).with_status(529);
    }
    if status == Some(429)
        || said(&["rate_limit_error", "rate_limit_exceeded", "insufficient_quota", "too_many_requests"])
    {
        return Fault::new(FaultKind::BackendBusy, message);
    }
    if status == Some(504) || said(&["timeout_error", "timeout"]) {
        return Fault::new(FaultKind::BackendTimeout, message);
    }
    let invalid = |message| Fault::from(Complaint { message, code: code(error), param: word(error, "param") });
    match status {
        Some(status @ (400 | 413 | 422)) => invalid(message).with_status(u16::try_from(status).unwrap_or(400)),
        None if said(&["invalid_request_error", "request_too_large", "BadRequestError"]) => invalid(message),
        _ => Fault::new(FaultKind::BackendError, message),
    }
}

/// The message of an error value, whatever its shape: a string, `{message}`, `{error: …}`, FastAPI's `{detail}`.
pub(super) fn message(error: Json<'_>) -> Option<String> {
    let text = match error.kind() {
        Kind::String => error.as_str().map(Cow::into_owned),
        Kind::Object => ["message", "error", "detail", "msg"].iter().find_map(|key| error.get(key).and_then(message)),
        Kind::Array => error.items().next().and_then(message),
        _ => None,
    }?;
    Some(clean(&text)).filter(|text| !text.is_empty())
}

/// A backend's sentence without its addresses, keys and pages.
fn clean(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    if lower.contains("<html") || lower.contains("<!doctype") {
        return "The backend answered with an HTML page.".into();
    }
    let secret = |piece: &str| {
        let bare = piece.trim_matches(|c: char| !c.is_ascii_alphanumeric());
        let host = bare.split('/').next().unwrap_or_default();
        host.parse::<std::net::SocketAddr>().is_ok()
            || host.parse::<std::net::IpAddr>().is_ok()
            || ["sk-", "sk_", "dfproj_", "dforg_", "dfuser_", "hf_"].iter().any(|prefix| bare.starts_with(prefix))
    };
    let hide = |word: &str| word.contains("://") || word.split(['=', ',', ';', '(', ')', '"', '\'']).any(secret);
    let mut out = String::with_capacity(text.len().min(1024));
    for (at, word) in text.split_whitespace().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        out.push_str(if hide(word) { "[hidden]" } else { word });
        if out.len() > LONGEST {
            out.truncate(out.floor_char_boundary(LONGEST));
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_every_shape() {
        type Words<'a> = (&'a str, Option<&'a str>, Option<&'a str>);
        let cases: &[(&str, Option<Words<'_>>)] = &[
            (r#"{"error":"no such model"}"#, Some(("no such model", None, None))),
            (r#"{"detail":[{"msg":"Field required"}]}"#, Some(("Field required", None, None))),
            (
                r#"{"error":{"message":"m","type":"t","param":"messages[0].content","code":"context_length_exceeded"}}"#,
                Some(("m", Some("context_length_exceeded"), Some("messages[0].content"))),
            ),
            (r#"{"object":"error","message":"m","param":null,"code":400}"#, Some(("m", None, None))),
            (
                r#"{"type":"error","error":{"type":"invalid_request_error","message":"m","details":{"error_code":"c"}}}"#,
                Some(("m", Some("c"), None)),
            ),
            (r#"{"error":{"message":"m","code":"a sentence","param":"http://10.0.0.7/"}}"#, Some(("m", None, None))),
            (r#"{"error":{"message":"m","code":"10.0.0.7"}}"#, Some(("m", None, None))),
            (r#"{"error":{"message":""}}"#, None),
            ("<html>", None),
        ];
        for (body, expect) in cases {
            let found = complaint(body.as_bytes());
            let found = found.as_ref().map(|found| (&*found.message, found.code.as_deref(), found.param.as_deref()));
            assert_eq!(found, *expect, "{body}");
        }
    }

    #[test]
    fn a_backends_words_are_kept_and_its_address_is_not() {
        for (text, expect) in [
            ("model not loaded", "model not loaded"),
            ("cannot reach http://10.0.0.7:8000/v1 now", "cannot reach [hidden] now"),
            ("upstream 10.0.0.7:8000, refused", "upstream [hidden] refused"),
            ("Incorrect API key provided: sk-abc123.", "Incorrect API key provided: [hidden]"),
            ("host\n10.0.0.7:8000/v1 gone", "host [hidden] gone"),
            ("bad key=sk-abc (10.0.0.7)", "bad [hidden] [hidden]"),
            ("<!DOCTYPE html><title>502", "The backend answered with an HTML page."),
        ] {
            assert_eq!(clean(text), expect, "{text}");
        }
    }
}
