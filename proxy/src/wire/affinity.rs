//! What a request shows of where it belongs: a session it names, and how its prompt begins.

use super::beyond::BILLING;
use super::json::{Json, Kind};
use super::request::Request;
use std::borrow::Cow;

/// Bytes of the system text, and of the messages, that are looked at. The conversations of one program differ after its
/// system text, which is long but seldom longer.
const LOOK: usize = 32 << 10;
/// Of a prompt that is one text, the whole conversation, only the beginning stays the same from turn to turn.
const TEXT: usize = 4 << 10;

impl Request {
    /// The session as the body names it: the key under which caches are shared, else the end user.
    pub fn session(&self) -> Option<Cow<'_, str>> {
        let key = self.member("prompt_cache_key").and_then(Json::as_str).filter(|key| !key.is_empty());
        key.or_else(|| self.user().map(Cow::Owned)).filter(|key| !key.is_empty())
    }

    /// Hands over how the prompt begins, piece by piece: system texts, and messages up to the user's first. That is the same
    /// in every turn of a conversation, and other conversations of the same program share most of it. Marks for caches do not
    /// count, which clients move from message to message. False: there is nothing.
    pub fn lead(&self, take: &mut dyn FnMut(&[u8])) -> bool {
        let mut any = false;
        for key in ["system", "instructions"] {
            if let Some(text) = self.member(key).filter(|text| !text.is_null()) {
                take(past_billing(cut(text.bytes(), LOOK)));
                any = true;
            }
        }
        let messages = ["messages", "input", "prompt"].into_iter().find_map(|key| self.member(key));
        let Some(messages) = messages.filter(|messages| !messages.is_null()) else { return any };
        if messages.kind() == Kind::String {
            take(inside(cut(messages.bytes(), TEXT)));
            return true;
        }
        // Cut off, the last item has no end and is not found: a prompt costs what is looked at, however long it is.
        let window = cut(messages.bytes(), LOOK);
        let mut seen = 1;
        for item in Json::trusted(window).items() {
            any = true;
            seen = item.bytes().as_ptr().addr() - window.as_ptr().addr() + item.len();
            if item.get("role").and_then(Json::as_str).as_deref() == Some("user") {
                said(item, take);
                return true;
            }
            take(item.bytes());
        }
        if messages.len() > window.len() {
            take(&window[seen.min(window.len())..]);
            any = true;
        }
        any
    }
}

/// What a message says: the same whether it is written as a text or as a list of parts.
fn said(message: Json<'_>, take: &mut dyn FnMut(&[u8])) {
    let Some(content) = message.get("content") else { return take(message.bytes()) };
    if content.kind() == Kind::String {
        return take(inside(content.bytes()));
    }
    for part in content.items() {
        match part.get("text").filter(|text| text.kind() == Kind::String) {
            Some(text) => take(inside(text.bytes())),
            None => part.entries().filter(|(key, _)| key != "cache_control").for_each(|(_, value)| take(value.bytes())),
        }
    }
}

/// System texts without what is another one in each request of a conversation.
fn past_billing(window: &[u8]) -> &[u8] {
    if memchr::memmem::find(cut(window, 128), BILLING.as_bytes()).is_none() {
        return window;
    }
    let first = Json::trusted(window).items().next();
    let skip = first.map_or(0, |item| item.bytes().as_ptr().addr() - window.as_ptr().addr() + item.len());
    &window[skip..]
}

fn cut(bytes: &[u8], to: usize) -> &[u8] {
    &bytes[..bytes.len().min(to)]
}

/// A string without its quotes.
fn inside(text: &[u8]) -> &[u8] {
    let text = text.strip_prefix(b"\"").unwrap_or(text);
    text.strip_suffix(b"\"").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Dialect;

    fn lead(dialect: Dialect, body: &str) -> Vec<u8> {
        let request = Request::read(dialect, body.to_owned().into()).unwrap();
        let mut out = Vec::new();
        assert!(request.lead(&mut |piece| out.extend_from_slice(piece)), "{body}");
        out
    }

    #[test]
    fn turns_of_one_conversation_begin_alike_and_others_do_not() {
        let chat = |messages: &str| lead(Dialect::Chat, &format!(r#"{{"model":"m","messages":[{messages}]}}"#));
        let first = chat(r#"{"role":"system","content":"s"},{"role":"user","content":"hello"}"#);
        let later = chat(
            r#"{"role":"system","content":"s"},{"role":"user","content":[{"type":"text","text":"hello"}]},{"role":"assistant","content":"hi"},{"role":"user","content":"more"}"#,
        );
        assert_eq!(first, later);
        assert_ne!(first, chat(r#"{"role":"system","content":"s"},{"role":"user","content":"other"}"#));
        assert_ne!(first, chat(r#"{"role":"system","content":"t"},{"role":"user","content":"hello"}"#));
        let messages = |mark: &str, more: &str| {
            lead(
                Dialect::Messages,
                &format!(
                    r#"{{"model":"m","max_tokens":9,"system":"s","messages":[{{"role":"user","content":[{{"type":"text","text":"hello"{mark}}}]}}{more}]}}"#
                ),
            )
        };
        let mark = r#","cache_control":{"type":"ephemeral"}"#;
        assert_eq!(
            messages(mark, ""),
            messages("", r#",{"role":"assistant","content":"hi"},{"role":"user","content":"x"}"#)
        );
        let responses =
            |input: &str| lead(Dialect::Responses, &format!(r#"{{"model":"m","instructions":"s","input":{input}}}"#));
        assert_eq!(
            responses("\"hello\""),
            responses(r#"[{"role":"user","content":"hello"},{"role":"assistant","content":"hi"}]"#)
        );
        let text = |more: &str| {
            lead(Dialect::Completions, &format!(r#"{{"model":"m","prompt":"{}{more}"}}"#, "x".repeat(TEXT)))
        };
        assert_eq!(text("one"), text("two"));
    }

    #[test]
    fn what_claude_code_says_of_each_request_is_not_looked_at() {
        let lead = |hash: &str, system: &str| {
            let billing = format!("x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch={hash};");
            lead(
                Dialect::Messages,
                &format!(
                    r#"{{"model":"m","max_tokens":9,"system":[{{"type":"text","text":"{billing}"}},{{"type":"text","text":"{system}"}}],"messages":[{{"role":"user","content":"hello"}}]}}"#
                ),
            )
        };
        assert_eq!(lead("36ee5", "s"), lead("0aaa9", "s"));
        assert_ne!(lead("36ee5", "s"), lead("36ee5", "t"));
    }

    #[test]
    fn only_the_beginning_is_looked_at() {
        for role in ["system", "user"] {
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"{role}","content":"{}"}},{{"role":"user","content":"end"}}]}}"#,
                "long ".repeat(100_000)
            );
            let lead = lead(Dialect::Chat, &body);
            assert!((LOOK - 16..=LOOK).contains(&lead.len()), "{}", lead.len());
        }
    }

    #[test]
    fn sessions_are_named_by_the_body() {
        let session = |dialect, more: &str| {
            let body = format!(r#"{{"model":"m","max_tokens":9,"messages":[{{"role":"user","content":"x"}}]{more}}}"#);
            Request::read(dialect, body.into()).unwrap().session().map(Cow::into_owned)
        };
        for (dialect, more, named) in [
            (Dialect::Chat, "", None),
            (Dialect::Chat, r#","user":"u""#, Some("u")),
            (Dialect::Chat, r#","user":"u","prompt_cache_key":"k""#, Some("k")),
            (Dialect::Chat, r#","user":"u","prompt_cache_key":"""#, Some("u")),
            (Dialect::Messages, r#","metadata":{"user_id":"u"}"#, Some("u")),
        ] {
            assert_eq!(session(dialect, more).as_deref(), named, "{more}");
        }
    }
}
