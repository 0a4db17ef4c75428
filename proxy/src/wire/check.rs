//! Reading what a client sent, with every error collected.
//!
//! Reading follows pydantic's words (`missing`, `string_type`, …) because DeepFellow's clients parse them; it does not follow
//! its leniency: `"8"` is no integer, since a verbatim path would carry the string to a backend that may think so too.
//! Null is "absent" for every field that is not required.

use super::json::{Json, Kind, write_str};
use crate::canon::Fault;
use crate::canon::call::{Content, Image};
use crate::canon::fault::Detail;
use crate::canon::usage::ABSURD;
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

    /// A required address of an image, which may be its bytes.
    pub fn need_image(&mut self, at: &At<'_>, from: &impl Members, key: &str) -> Option<Content> {
        let url = self.need_text(at, from, key)?;
        self.image(&at.key(key), url)
    }

    /// An image by its address, which may be its bytes.
    pub fn image(&mut self, at: &At<'_>, url: String) -> Option<Content> {
        let image = Image::at(url);
        if image.is_none() {
            let msg = "A data URL of an image should hold base64: data:image/png;base64,…";
            self.wrong(at, "value_error", msg, None);
        }
        image.map(Content::Image)
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
        self.as_word(&at.key(key), present(from, key)?, words)
    }

    /// A required word of a closed set.
    pub fn need_word(
        &mut self,
        at: &At<'_>,
        from: &impl Members,
        key: &str,
        words: &[&'static str],
    ) -> Option<&'static str> {
        let json = self.need(at, from, key)?;
        self.as_word(&at.key(key), json, words)
    }

    fn as_word(&mut self, at: &At<'_>, json: Json<'_>, words: &[&'static str]) -> Option<&'static str> {
        let found = json.as_str().and_then(|text| words.iter().find(|word| **word == text));
        if found.is_none() {
            self.wrong(at, "literal_error", format!("Input should be {}", either(words)), Some(json));
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

    /// An optional text, or a list of them.
    pub fn one_or_more(&mut self, at: &At<'_>, from: &impl Members, key: &str) -> Vec<String> {
        let at = at.key(key);
        match present(from, key) {
            Some(json) if json.kind() == Kind::Array => self.texts(&at, json),
            Some(json) => self.as_text(&at, json).map(Cow::into_owned).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// An optional object, as its text.
    pub fn object(&mut self, at: &At<'_>, from: &impl Members, key: &str) -> Option<String> {
        let json = present(from, key)?;
        self.as_dict(&at.key(key), json);
        Some(json.raw().to_owned())
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
            self.as_list(&at, messages);
            if messages.kind() == Kind::Array && !messages.has_items() {
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
pub(super) fn shorten(json: Json<'_>) -> String {
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
