//! JSON read in place: validated once, then looked at through slices of the same bytes.
//!
//! A gateway reads few of the bytes it carries. A tree would allocate for every one of them and lose what it does not model
//! (the digits of a large number, the order of keys); serde with ignored fields still parses every number and unescapes
//! every string. So: one pass that checks the grammar (RFC 8259) and finds the ends of things, and typed access to a slice on
//! demand. Strings, which are most of a prompt, are skipped by vector instructions.

mod scan;
mod unescape;
mod write;

pub(super) use scan::Scan;
pub use write::{write_f64, write_int, write_str};

use std::borrow::Cow;

/// Nesting allowed in what we only carry. What we read is held to [`READ_DEPTH`].
pub const CARRY_DEPTH: usize = 512;
/// Nesting allowed in what we read.
pub const READ_DEPTH: usize = 128;

/// Where a text stops being JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Syntax {
    /// Byte offset.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

impl Syntax {
    /// `line 2 column 7`, both from 1, the column in bytes.
    pub fn place(&self, text: &[u8]) -> String {
        let before = &text[..self.at.min(text.len())];
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        let column = before.len() - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1) + 1;
        format!("line {line} column {column}")
    }
}

/// Checks that `text` is one JSON value and nothing else.
///
/// # Errors
/// The first place where it is not.
pub fn validate(text: &[u8]) -> Result<Json<'_>, Syntax> {
    if let Err(error) = simdutf8::compat::from_utf8(text) {
        return Err(Syntax { at: error.valid_up_to(), what: "invalid UTF-8" });
    }
    let mut scan = Scan::new(text);
    scan.space();
    let start = scan.at;
    scan.value()?;
    let end = scan.at;
    scan.space();
    if scan.at < text.len() {
        return scan.fail("unexpected text after the end");
    }
    Ok(Json(&text[start..end]))
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A slice that holds exactly one valid JSON value, without space around it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Json<'a>(&'a [u8]);

impl std::fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.raw())
    }
}

impl<'a> Json<'a> {
    /// A slice cut out of a text that was validated before.
    pub(super) fn trusted(slice: &'a [u8]) -> Self {
        Self(slice)
    }

    /// The value's own text.
    pub fn raw(self) -> &'a str {
        // Validated as UTF-8 when the whole text was; the check is repeated because `unsafe` is not worth what it costs.
        simdutf8::basic::from_utf8(self.0).unwrap_or_default()
    }

    /// The value's own text, as bytes.
    pub fn bytes(self) -> &'a [u8] {
        self.0
    }

    /// Bytes of its text.
    #[allow(clippy::len_without_is_empty, reason = "a JSON value is never empty")]
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// What it is, from its first byte.
    pub fn kind(self) -> Kind {
        match self.0.first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') => Kind::Null,
            _ => Kind::Number,
        }
    }

    /// `null`?
    pub fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    /// A boolean's value.
    pub fn as_bool(self) -> Option<bool> {
        match self.0 {
            b"true" => Some(true),
            b"false" => Some(false),
            _ => None,
        }
    }

    /// A string's text, unescaped. `None` for other kinds and for lone surrogates, which are no text.
    pub fn as_str(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        if memchr::memchr(b'\\', inner).is_none() {
            return simdutf8::basic::from_utf8(inner).ok().map(Cow::Borrowed);
        }
        unescape::unescape(inner).map(Cow::Owned)
    }

    /// An integer ≥ 0 that fits 64 bits; `3.0` counts as 3.
    pub fn as_u64(self) -> Option<u64> {
        self.parse::<u64>().or_else(|| {
            self.as_f64()
                .filter(|number| number.fract() == 0.0 && (0.0..9e15).contains(number))
                .map(|number| number as u64)
        })
    }

    /// An integer that fits 64 bits.
    pub fn as_i64(self) -> Option<i64> {
        self.parse::<i64>().or_else(|| {
            self.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 9e15).map(|number| number as i64)
        })
    }

    /// A finite number.
    pub fn as_f64(self) -> Option<f64> {
        self.parse::<f64>().filter(|number| number.is_finite())
    }

    fn parse<T: std::str::FromStr>(self) -> Option<T> {
        if self.kind() == Kind::Number { self.raw().parse().ok() } else { None }
    }

    /// The elements of an array; nothing for other kinds.
    pub fn items(self) -> Items<'a> {
        Items { scan: Scan::again(self.0, 1), done: self.kind() != Kind::Array }
    }

    /// An array with at least one element, without looking at that element.
    pub fn has_items(self) -> bool {
        self.kind() == Kind::Array && self.0[1..].trim_ascii_start().first() != Some(&b']')
    }

    /// The members of an object, in order; nothing for other kinds.
    pub fn entries(self) -> Entries<'a> {
        Entries { scan: Scan::again(self.0, 1), done: self.kind() != Kind::Object }
    }

    /// The member of this name, if it is an object that has it and it is not null. Of a doubled one the last counts, as in most
    /// parsers.
    pub fn get(self, key: &str) -> Option<Json<'a>> {
        self.entries().filter(|(name, _)| name == key).last().map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// How deep it nests: 0 for scalars.
    pub fn depth(self) -> usize {
        let (mut depth, mut deepest, mut scan) = (0_usize, 0_usize, Scan::again(self.0, 0));
        while let Some(byte) = scan.peek() {
            scan.at += 1;
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth = depth.saturating_sub(1),
                b'"' if scan.string().is_err() => {
                    break;
                }
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    }
}

/// Elements of an array.
pub struct Items<'a> {
    scan: Scan<'a>,
    done: bool,
}

impl<'a> Iterator for Items<'a> {
    type Item = Json<'a>;

    fn next(&mut self) -> Option<Json<'a>> {
        if self.done {
            return None;
        }
        self.scan.space();
        if self.scan.peek() == Some(b',') {
            self.scan.at += 1;
            self.scan.space();
        }
        let value = self.scan.take_value();
        self.done = value.is_none();
        value
    }
}

/// Members of an object.
pub struct Entries<'a> {
    scan: Scan<'a>,
    done: bool,
}

impl<'a> Entries<'a> {
    /// The next member's key and value as raw slices, with the key's quotes.
    fn next_raw(&mut self) -> Option<(&'a [u8], Json<'a>)> {
        if self.done {
            return None;
        }
        let scan = &mut self.scan;
        scan.space();
        if scan.peek() == Some(b',') {
            scan.at += 1;
            scan.space();
        }
        let start = scan.at;
        let member = (scan.peek() == Some(b'"') && scan.key().is_ok()).then_some(()).and_then(|()| {
            let key = scan.since(start);
            let end = key.iter().rposition(|byte| *byte == b'"')? + 1;
            scan.space();
            Some((&key[..end], scan.take_value()?))
        });
        self.done = member.is_none();
        member
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (Cow<'a, str>, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        // A key that is no text (a lone surrogate) is kept under its raw spelling: it can match nothing we ask for.
        self.next_raw().map(|(key, value)| (Json(key).as_str().unwrap_or_else(|| Json(key).raw().into()), value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_serde_json_on_what_is_json() {
        let cases: &[&str] = &[
            "{}",
            "[]",
            " {\"a\" : [1, 2.5e+3, -0, true,false,null,\"x\\u00e9\\n\"] } ",
            "1",
            "\"\"",
            "[[[]]]",
            "{\"a\":{\"b\":{}}}",
            "",
            "{",
            "[1,]",
            "{\"a\":}",
            "{\"a\" 1}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "-",
            "1e",
            "+1",
            "tru",
            "nulll",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"a\nb\"",
            "[1 2]",
            "{} {}",
            "{\"a\":1,}",
            "\"",
            "[\"a\"",
            "{\"a\":1 \"b\":2}",
            "]",
            "}",
            ",",
            "NaN",
            "'a'",
        ];
        for case in cases {
            assert_eq!(
                validate(case.as_bytes()).is_ok(),
                serde_json::from_str::<serde_json::Value>(case).is_ok(),
                "{case}"
            );
        }
    }

    #[test]
    fn says_where_it_breaks() {
        for (text, place, what) in [
            ("{\n  \"a\": tru\n}", "line 2 column 8", "expected a value"),
            ("[1,\n2", "line 2 column 2", "unexpected end, an array is not closed"),
            ("{\"a\":\"\u{1}\"}", "line 1 column 7", "a control character inside a string"),
        ] {
            let error = validate(text.as_bytes()).unwrap_err();
            assert_eq!((error.place(text.as_bytes()).as_str(), error.what), (place, what), "{text}");
        }
        assert_eq!(validate(b"\"\xff\"").unwrap_err(), Syntax { at: 1, what: "invalid UTF-8" });
    }

    #[test]
    fn nesting_has_an_end() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(validate(nested(CARRY_DEPTH).as_bytes()).unwrap().depth(), CARRY_DEPTH);
        assert_eq!(validate(nested(CARRY_DEPTH + 1).as_bytes()).unwrap_err().what, "nested more than 512 deep");
        assert!(validate("[".repeat(1_000_000).as_bytes()).is_err());
    }

    #[test]
    fn reads_in_place() {
        let json = validate(br#"{"s":"a\"b","n":12345678901234567890123,"i":-3,"u":18446744073709551615,"f":2.0,"l":[1,"x",{}],"z":null,"lone":"\ud800"}"#).unwrap();
        assert_eq!(json.get("s").unwrap().as_str().unwrap(), "a\"b");
        assert_eq!(json.get("n").unwrap().raw(), "12345678901234567890123");
        assert_eq!(json.get("n").unwrap().as_u64(), None);
        assert_eq!(json.get("i").unwrap().as_i64(), Some(-3));
        assert_eq!(json.get("u").unwrap().as_u64(), Some(u64::MAX));
        assert_eq!(json.get("f").unwrap().as_u64(), Some(2));
        assert_eq!(
            json.get("l").unwrap().items().map(|item| item.raw().to_owned()).collect::<Vec<_>>(),
            ["1", "\"x\"", "{}"]
        );
        assert!(json.get("z").is_none() && json.get("absent").is_none());
        assert!(json.get("lone").unwrap().as_str().is_none());
        assert_eq!(json.entries().count(), 8);
    }

    proptest::proptest! {
        #[test]
        fn never_disagrees_with_serde_json(text in r#"[\[\]{}",:0-9a\\ue. truefalsn-]{0,40}"#) {
            proptest::prop_assert_eq!(validate(text.as_bytes()).is_ok(), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}
