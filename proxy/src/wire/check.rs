//! The small tools that the dialects share: fields read with every error collected, objects written by hand, and what a
//! backend says about its own failure made fit for a stranger.
//!
//! Reading follows pydantic's words (`missing`, `string_type`, …) because DeepFellow's clients parse them; it does not follow
//! its leniency: `"8"` is no integer, since a verbatim path would carry the string to a backend that may think so too.
//! Null is "absent" for every field that is not required.

use super::json::{Json, Kind, validate, write_str};
use crate::canon::fault::Detail;
use crate::canon::usage::ABSURD;
use crate::canon::{Call, Fault, FaultKind};
use bytes::BufMut;
use std::borrow::Cow;
use std::ops::RangeInclusive;

/// Details beyond this many help nobody and cost an answer as large as the body.
const DETAILS: usize = 64;

/// A place in the body: a list on the stack, spelled out only when something is wrong there.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    above: Option<&'p At<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

/// The whole body.
pub(super) const BODY: At<'static> = At { above: None, step: Step::Key("body") };

impl<'p> At<'p> {
    pub fn key(&'p self, key: &'p str) -> At<'p> {
        At { above: Some(self), step: Step::Key(key) }
    }

    pub fn index(&'p self, index: usize) -> At<'p> {
        At { above: Some(self), step: Step::Index(index) }
    }

    fn loc(&self) -> Vec<String> {
        let mut loc = self.above.map(At::loc).unwrap_or_default();
        loc.push(match self.step {
            Step::Key(key) => key.to_owned(),
            Step::Index(index) => index.to_string(),
        });
        loc
    }
}

/// Something with members.
pub(super) trait Members {
    /// The member, null included.
    fn member(&self, key: &str) -> Option<Json<'_>>;
}

impl Members for super::object::Object {
    fn member(&self, key: &str) -> Option<Json<'_>> {
        self.value(key)
    }
}

/// A nested object's members, found in one pass. Of a doubled key the last counts, as in most parsers.
#[derive(Default)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Fields<'a> {
    pub fn of(json: Json<'a>) -> Self {
        Self(json.entries().collect())
    }

    pub fn of_object(object: &'a super::object::Object) -> Self {
        Self(object.entries().collect())
    }

    pub fn get(&self, key: &str) -> Option<Json<'a>> {
        self.value(key).filter(|json| !json.is_null())
    }

    /// A text member; `None` for everything else.
    pub fn text(&self, key: &str) -> Option<Cow<'a, str>> {
        self.get(key).and_then(Json::as_str)
    }

    /// Members that are not null and not among `known`.
    pub fn beyond<'s>(&'s self, known: &'s [&str]) -> impl Iterator<Item = (&'s str, Json<'a>)> {
        self.0
            .iter()
            .filter(|(key, json)| !json.is_null() && !known.contains(&key.as_ref()))
            .map(|(key, json)| (key.as_ref(), *json))
    }

    fn value(&self, key: &str) -> Option<Json<'a>> {
        self.0.iter().rev().find(|(name, _)| name == key).map(|(_, json)| *json)
    }
}

impl Members for Fields<'_> {
    fn member(&self, key: &str) -> Option<Json<'_>> {
        self.value(key)
    }
}

/// Collects what is wrong. Every reader gives `None` for an absent member, and for a wrong one that it has noted.
#[derive(Default)]
pub(super) struct Check {
    details: Vec<Detail>,
}

impl Check {
    /// The value, if nothing was wrong.
    pub fn finish<T>(self, value: T) -> Result<T, Fault> {
        if self.details.is_empty() { Ok(value) } else { Err(Fault::from_details(self.details)) }
    }

    /// Notes an error.
    pub fn wrong(&mut self, at: &At<'_>, kind: &'static str, msg: impl Into<String>, input: Option<Json<'_>>) {
        if self.details.len() < DETAILS {
            self.details.push(Detail {
                loc: at.loc(),
                msg: msg.into(),
                kind,
                input: input.map(shorten).unwrap_or_default(),
            });
        }
    }

    /// A required member, null included; notes `missing`.
    pub fn need<'m>(&mut self, at: &At<'_>, from: &'m impl Members, key: &str) -> Option<Json<'m>> {
        let found = from.member(key);
        if found.is_none() {
            self.wrong(&at.key(key), "missing", "Field required", None);
        }
        found
    }

    /// A required text.
    pub fn need_text(&mut self, at: &At<'_>, from: &impl Members, key: &str) -> Option<String> {
        let json = self.need(at, from, key)?;
        self.as_text(&at.key(key), json).map(Cow::into_owned)
    }

    /// An optional text.
    pub fn text(&mut self, at: &At<'_>, from: &impl Members, key: &str) -> Option<String> {
        let json = present(from, key)?;
        self.as_text(&at.key(key), json).map(Cow::into_owned)
    }

    /// An optional boolean.
    pub fn flag(&mut self, at: &At<'_>, from: &impl Members, key: &str) -> Option<bool> {
        let json = present(from, key)?;
        if json.as_bool().is_none() {
            self.wrong(&at.key(key), "bool_type", "Input should be a valid boolean", Some(json));
        }
        json.as_bool()
    }

    /// An optional integer in a range.
    pub fn int(&mut self, at: &At<'_>, from: &impl Members, key: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let json = present(from, key)?;
        let at = at.key(key);
        let Some(number) = json.as_i64() else {
            let (kind, msg) = match json.kind() {
                Kind::String => {
                    ("int_parsing", "Input should be a valid integer, given as a number and not as a string")
                }
                Kind::Number if json.as_f64().is_some_and(|number| number.fract() != 0.0) => {
                    ("int_from_float", "Input should be a valid integer, got a number with a fractional part")
                }
                Kind::Number => ("int_parsing_size", "Input should be an integer of at most 64 bits"),
                _ => ("int_type", "Input should be a valid integer"),
            };
            self.wrong(&at, kind, msg, Some(json));
            return None;
        };
        self.within(&at, json, number, &range).then_some(number)
    }

    /// An optional number in a range.
    pub fn num(&mut self, at: &At<'_>, from: &impl Members, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let json = present(from, key)?;
        let at = at.key(key);
        let Some(number) = json.as_f64() else {
            let kind = if json.kind() == Kind::String { "float_parsing" } else { "float_type" };
            self.wrong(&at, kind, "Input should be a valid number", Some(json));
            return None;
        };
        self.within(&at, json, number, &range).then_some(number)
    }

    /// An optional word of a closed set.
    pub fn word(
        &mut self,
        at: &At<'_>,
        from: &impl Members,
        key: &str,
        words: &[&'static str],
    ) -> Option<&'static str> {
        let json = present(from, key)?;
        let found = json.as_str().and_then(|text| words.iter().find(|word| **word == text));
        if found.is_none() {
            self.wrong(&at.key(key), "literal_error", format!("Input should be {}", either(words)), Some(json));
        }
        found.copied()
    }

    /// The `type` word that says which shape an object has; unknown ones are noted.
    pub fn tag(
        &mut self,
        at: &At<'_>,
        from: &Fields<'_>,
        json: Json<'_>,
        tags: &[&'static str],
    ) -> Option<&'static str> {
        let Some(tag) = from.text("type") else {
            self.wrong(at, "union_tag_not_found", "Unable to extract tag using discriminator 'type'", Some(json));
            return None;
        };
        let found = tags.iter().find(|known| **known == tag).copied();
        if found.is_none() {
            self.wrong(
                at,
                "union_tag_invalid",
                format!(
                    "Input tag '{tag}' found using 'type' does not match any of the expected tags: {}",
                    either(tags)
                ),
                Some(json),
            );
        }
        found
    }

    /// A list of texts.
    pub fn texts(&mut self, at: &At<'_>, json: Json<'_>) -> Vec<String> {
        self.as_list(at, json)
            .enumerate()
            .filter_map(|(index, item)| self.as_text(&at.index(index), item).map(Cow::into_owned))
            .collect()
    }

    /// The elements; notes `list_type`.
    pub fn as_list<'a>(&mut self, at: &At<'_>, json: Json<'a>) -> super::json::Items<'a> {
        if json.kind() != Kind::Array {
            self.wrong(at, "list_type", "Input should be a valid list", Some(json));
        }
        json.items()
    }

    /// The members; notes `dict_type`.
    pub fn as_dict<'a>(&mut self, at: &At<'_>, json: Json<'a>) -> Option<Fields<'a>> {
        if json.kind() != Kind::Object {
            self.wrong(at, "dict_type", "Input should be a valid dictionary", Some(json));
            return None;
        }
        Some(Fields::of(json))
    }

    /// The text; notes `string_type`.
    pub fn as_text<'a>(&mut self, at: &At<'_>, json: Json<'a>) -> Option<Cow<'a, str>> {
        let text = json.as_str();
        if text.is_none() {
            match json.kind() {
                Kind::String => self.wrong(
                    at,
                    "string_unicode",
                    "Input should be a valid string, unable to parse raw data as a unicode string",
                    None,
                ),
                _ => self.wrong(at, "string_type", "Input should be a valid string", Some(json)),
            }
        }
        text
    }

    /// `model`, which every dialect demands.
    pub fn model(&mut self, request: &super::object::Object) -> Option<String> {
        let model = self.need_text(&BODY, request, "model");
        if model.as_deref() == Some("") {
            self.wrong(
                &BODY.key("model"),
                "string_too_short",
                "String should have at least 1 character",
                request.value("model"),
            );
        }
        model
    }

    /// `model` and `messages`.
    pub fn model_and_messages(&mut self, request: &super::object::Object) -> Option<String> {
        let model = self.model(request);
        if let Some(messages) = self.need(&BODY, request, "messages") {
            let at = BODY.key("messages");
            if self.as_list(&at, messages).next().is_none() && messages.kind() == Kind::Array {
                self.wrong(
                    &at,
                    "too_short",
                    "List should have at least 1 item after validation, not 0",
                    Some(messages),
                );
            }
        }
        model
    }

    /// Nesting of what is read deeply.
    pub fn depth(&mut self, at: &At<'_>, json: Json<'_>) -> bool {
        let fits = json.depth() <= super::json::READ_DEPTH;
        if !fits {
            self.wrong(at, "json_invalid", "Input is nested more than 128 deep", None);
        }
        fits
    }

    fn within<T: PartialOrd + std::fmt::Display>(
        &mut self,
        at: &At<'_>,
        json: Json<'_>,
        number: T,
        range: &RangeInclusive<T>,
    ) -> bool {
        if number < *range.start() {
            self.wrong(
                at,
                "greater_than_equal",
                format!("Input should be greater than or equal to {}", range.start()),
                Some(json),
            );
        } else if number > *range.end() {
            self.wrong(
                at,
                "less_than_equal",
                format!("Input should be less than or equal to {}", range.end()),
                Some(json),
            );
        }
        range.contains(&number)
    }
}

/// The member unless it is null.
pub(super) fn present<'m>(from: &'m impl Members, key: &str) -> Option<Json<'m>> {
    from.member(key).filter(|json| !json.is_null())
}

/// A value fit for an error message: itself, or the beginning of its text as a string.
fn shorten(json: Json<'_>) -> String {
    let raw = json.raw();
    if raw.len() <= 160 {
        return raw.to_owned();
    }
    let head: String = raw.chars().take(120).collect();
    let mut out = Vec::new();
    write_str(&mut out, &format!("{head}…"));
    String::from_utf8(out).unwrap_or_default()
}

/// `'a', 'b' or 'c'`.
fn either(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

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

/// Where a text found in `data` stands there. `data` need not have been validated: a broken one gives nothing.
pub(super) fn text_span(data: &[u8], found: Json<'_>) -> Option<std::ops::Range<usize>> {
    let text = Some(found).filter(|json| json.kind() == Kind::String)?.raw();
    let start = (text.as_ptr() as usize).checked_sub(data.as_ptr() as usize)?;
    (!text.is_empty() && start + text.len() <= data.len()).then(|| start..start + text.len())
}

/// A token count; negative, fractional and absurd ones are missing.
pub(super) fn count(json: Option<Json<'_>>) -> Option<u64> {
    json.and_then(Json::as_u64).filter(|count| *count <= ABSURD)
}

/// Begins an object's member.
pub(super) fn key(out: &mut Vec<u8>, name: &str) {
    comma(out);
    write_str(out, name);
    out.push(b':');
}

/// Separates from the value before, if there is one.
pub(super) fn comma(out: &mut Vec<u8>) {
    if !matches!(out.last(), None | Some(b'{' | b'[' | b',')) {
        out.push(b',');
    }
}

/// A text member.
pub(super) fn put_text(out: &mut Vec<u8>, name: &str, text: &str) {
    key(out, name);
    write_str(out, text);
}

/// A member whose value is JSON text.
pub(super) fn put_raw(out: &mut Vec<u8>, name: &str, json: impl std::fmt::Display) {
    key(out, name);
    put_display(out, json);
}

/// A member whose value is JSON text, where there is one.
pub(super) fn put_some(out: &mut Vec<u8>, name: &str, json: Option<impl std::fmt::Display>) {
    if let Some(json) = json {
        put_raw(out, name, json);
    }
}

/// A number or JSON text.
pub(super) fn put_display(out: &mut impl BufMut, value: impl std::fmt::Display) {
    use std::io::Write;
    // Writing to memory cannot fail.
    let _ = write!(BufMut::writer(out), "{value}");
}

/// A number of the caller's: `1` rather than `1.0`, as they wrote it.
pub(super) fn number(value: f64) -> String {
    value.to_string()
}

/// Merges members into an object's text.
pub(super) fn merge(json: &str, edits: &[(&str, &[u8])]) -> Option<Vec<u8>> {
    let object = super::object::Object::read(bytes::Bytes::copy_from_slice(json.as_bytes())).ok()?;
    let edits: Vec<_> = edits.iter().map(|(key, value)| (*key, Some(*value))).collect();
    Some(object.splice(&edits).to_vec())
}

/// A backend's error as a fault. Its own words are kept where they are words.
pub(super) fn backend_fault(error: Json<'_>) -> Fault {
    let status = ["code", "status", "status_code", "http_code"]
        .iter()
        .find_map(|key| error.get(key).and_then(Json::as_u64))
        .filter(|code| (400..600).contains(code));
    let kind = error.get("type").and_then(Json::as_str).unwrap_or_default();
    let code = error.get("code").and_then(Json::as_str).unwrap_or_default();
    let message = message(error).unwrap_or_else(|| "The backend reported an error without a message.".into());
    let said = |words: &[&str]| words.iter().any(|word| kind == *word || code == *word);
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
    match status {
        Some(code @ (400 | 413 | 422)) => {
            Fault::new(FaultKind::BackendInvalid, message).with_status(u16::try_from(code).unwrap_or(400))
        }
        None if said(&["invalid_request_error", "request_too_large"]) => Fault::new(FaultKind::BackendInvalid, message),
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
        if out.len() > 1000 {
            out = out.chars().take(1000).collect();
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
