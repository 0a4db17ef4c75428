//! A JSON object read shallowly: see a key, set a key, keep every other byte.

use super::json::{Json, Scan, Syntax};
use bytes::{BufMut, Bytes, BytesMut};
use std::ops::Range;

/// The top level of an object over the bytes it came in. The whole text has been validated.
#[derive(Debug, Clone)]
pub struct Object {
    source: Bytes,
    fields: Vec<Field>,
    end: usize,
    /// A bit for every length that a key has (the last one for all beyond 63): most names we ask for are not there, and are
    /// found not to be there without looking at any.
    lengths: u64,
    /// Some key is written with an escape or beyond ASCII: by its bytes alone it is not known from others.
    escaped: bool,
}

#[derive(Debug, Clone)]
struct Field {
    /// With its quotes.
    key: Range<usize>,
    value: Range<usize>,
}

/// Why bytes are not an object we take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Not JSON.
    Syntax(Syntax),
    /// JSON, but not an object.
    NotAnObject,
    /// A key that stands twice, be it in another case: one reader would take the first, another the last.
    Duplicate(String),
}

impl Object {
    /// Validates `source` and finds its top-level members.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn read(source: Bytes) -> Result<Self, Refusal> {
        if let Err(error) = simdutf8::compat::from_utf8(&source) {
            return Err(Refusal::Syntax(Syntax { at: error.valid_up_to(), what: "invalid UTF-8" }));
        }
        let (fields, end) = members(&source)?;
        let plain = |byte: &u8| *byte != b'\\' && byte.is_ascii();
        let escaped = !fields.iter().all(|field| source[field.key.clone()].iter().all(plain));
        let lengths = fields.iter().fold(0, |lengths, field| lengths | length_bit(field.key.len() - 2));
        let object = Self { source, fields, end, lengths, escaped };
        object.refuse_duplicates()?;
        Ok(object)
    }

    /// The bytes as they came.
    pub fn source(&self) -> &Bytes {
        &self.source
    }

    /// The member of this name, null included.
    pub fn value(&self, key: &str) -> Option<Json<'_>> {
        self.field(key).map(|field| Json::trusted(&self.source[field.value.clone()]))
    }

    /// The member of this name, unless it is null.
    pub fn get(&self, key: &str) -> Option<Json<'_>> {
        self.value(key).filter(|value| !value.is_null())
    }

    /// All members in order, keys unescaped.
    pub fn entries(&self) -> impl Iterator<Item = (std::borrow::Cow<'_, str>, Json<'_>)> {
        self.fields.iter().map(|field| {
            let key = Json::trusted(&self.source[field.key.clone()]);
            (key.as_str().unwrap_or_else(|| key.raw().into()), Json::trusted(&self.source[field.value.clone()]))
        })
    }

    /// Whether some key may be taken for another: names have no capital letters, but some servers take those that have for them.
    pub(super) fn has_capitals(&self) -> bool {
        let capital = |field: &Field| self.source[field.key.clone()].iter().any(u8::is_ascii_uppercase);
        self.escaped || self.fields.iter().any(capital)
    }

    /// Where the value of a member stands in the source.
    pub fn span(&self, key: &str) -> Option<Range<usize>> {
        self.field(key).map(|field| field.value.clone())
    }

    /// The same text for a target that calls the model so, without these members.
    pub(super) fn addressed(&self, from: &str, to: &str, without: &[impl AsRef<str>]) -> Bytes {
        let mut name = Vec::new();
        super::json::write_str(&mut name, to);
        let renamed = (from != to).then_some(("model", Some(&name[..])));
        self.splice(&renamed.into_iter().chain(without.iter().map(|key| (key.as_ref(), None))).collect::<Vec<_>>())
    }

    /// The same text with members set (JSON text) or removed (`None`); every other byte stays.
    pub fn splice(&self, edits: &[(&str, Option<&[u8]>)]) -> Bytes {
        if edits.is_empty() {
            return self.source.clone();
        }
        let room: usize = edits.iter().map(|(key, value)| key.len() + 4 + value.map_or(0, <[u8]>::len)).sum();
        let mut out = BytesMut::with_capacity(self.source.len() + room);
        let (mut kept, mut any) = (0, false);
        for (at, field) in self.fields.iter().enumerate() {
            let edit = edits.iter().find(|(key, _)| self.is_named(field, key));
            match edit {
                None => any = true,
                Some((_, Some(value))) => {
                    out.put_slice(&self.source[kept..field.value.start]);
                    out.put_slice(value);
                    kept = field.value.end;
                    any = true;
                }
                Some((_, None)) => {
                    // Up to the next key; the last one goes with the comma before it.
                    out.put_slice(&self.source[kept..field.key.start]);
                    kept = self.fields.get(at + 1).map_or(self.end, |next| next.key.start);
                    if kept == self.end && any {
                        let comma = out.iter().rposition(|byte| *byte == b',').unwrap_or(out.len());
                        out.truncate(comma);
                    }
                }
            }
        }
        out.put_slice(&self.source[kept..self.end]);
        for (key, value) in edits {
            if let (Some(value), None) = (value, self.field(key)) {
                if any {
                    out.put_u8(b',');
                }
                out.put_u8(b'"');
                out.put_slice(key.as_bytes());
                out.put_slice(b"\":");
                out.put_slice(value);
                any = true;
            }
        }
        out.put_slice(&self.source[self.end..]);
        out.freeze()
    }

    fn field(&self, key: &str) -> Option<&Field> {
        if self.lengths & length_bit(key.len()) == 0 && !self.escaped {
            return None;
        }
        self.fields.iter().find(|field| self.is_named(field, key))
    }

    fn is_named(&self, field: &Field, key: &str) -> bool {
        if self.escaped {
            return Json::trusted(&self.source[field.key.clone()]).as_str().is_some_and(|name| name == key);
        }
        // Most names differ in length already: no byte is looked at then.
        field.key.len() == key.len() + 2 && self.source[field.key.start + 1..field.key.end - 1] == *key.as_bytes()
    }

    fn refuse_duplicates(&self) -> Result<(), Refusal> {
        // Requests have a dozen keys; a body made of thousands must not cost their square.
        let twice = if self.fields.len() <= 32 && !self.escaped {
            let key = |field: &Field| &self.source[field.key.clone()];
            let mut lengths = 0;
            let twice = self.fields.iter().enumerate().find(|(at, field)| {
                // Few keys are as long as one before them: only those are compared.
                let bit = length_bit(field.key.len());
                let known = lengths & bit != 0;
                lengths |= bit;
                known && self.fields[..*at].iter().any(|earlier| key(earlier).eq_ignore_ascii_case(key(field)))
            });
            twice.map(|(_, field)| Json::trusted(key(field)).raw().trim_matches('"').to_owned())
        } else {
            let mut seen = std::collections::HashSet::new();
            self.entries().map(|(key, _)| key).find(|key| !seen.insert(folded(key))).map(std::borrow::Cow::into_owned)
        };
        twice.map_or(Ok(()), |key| Err(Refusal::Duplicate(key)))
    }
}

/// A name as it is read by servers that do not tell upper case from lower: Go's reader of JSON, and with it Ollama. To it two
/// letters beyond ASCII are the same as one of it.
pub(super) fn folded(name: &str) -> String {
    let fold = |letter: char| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    name.chars().map(fold).collect()
}

fn length_bit(length: usize) -> u64 {
    1 << length.min(63)
}

/// The members of the object that `text` is, and where its closing brace stands.
fn members(text: &[u8]) -> Result<(Vec<Field>, usize), Refusal> {
    let mut scan = Scan::new(text);
    scan.space();
    if scan.peek() != Some(b'{') {
        return Err(super::json::validate(text).map_or_else(Refusal::Syntax, |_| Refusal::NotAnObject));
    }
    scan.at += 1;
    let mut fields = Vec::with_capacity(16);
    scan.space();
    if scan.peek() != Some(b'}') {
        loop {
            let start = scan.at;
            scan.key().map_err(Refusal::Syntax)?;
            let quote = start + text[start..scan.at].iter().rposition(|byte| *byte == b'"').unwrap_or_default() + 1;
            scan.space();
            let value = scan.at;
            scan.value().map_err(Refusal::Syntax)?;
            fields.push(Field { key: start..quote, value: value..scan.at });
            scan.space();
            match scan.peek() {
                Some(b',') => scan.at += 1,
                Some(b'}') => break,
                Some(_) => return scan.fail("expected `,` or `}`").map_err(Refusal::Syntax),
                None => return scan.fail("unexpected end, an object is not closed").map_err(Refusal::Syntax),
            }
            scan.space();
        }
    }
    let end = scan.at;
    scan.at += 1;
    scan.space();
    if scan.peek().is_some() {
        return scan.fail("unexpected text after the end").map_err(Refusal::Syntax);
    }
    Ok((fields, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        Object::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn splices_one_value_and_keeps_the_rest() {
        type Edit<'a> = (&'a str, Option<&'a [u8]>);
        let cases: &[(&str, &[Edit<'_>], &str)] = &[
            (
                r#"{ "a" : 1 , "model":"x", "z":[ 1 ] }"#,
                &[("model", Some(b"\"y\""))],
                r#"{ "a" : 1 , "model":"y", "z":[ 1 ] }"#,
            ),
            (r#"{"a":1}"#, &[("b", Some(b"2"))], r#"{"a":1,"b":2}"#),
            (r"{}", &[("b", Some(b"2"))], r#"{"b":2}"#),
            (r#"{"a":1,"b":2}"#, &[("a", None)], r#"{"b":2}"#),
            (r#"{"a":1,"b":2}"#, &[("b", None)], r#"{"a":1}"#),
            (r#"{"a":1}"#, &[("a", None)], r"{}"),
            (r#"{"a":1}"#, &[("a", None), ("b", Some(b"3"))], r#"{"b":3}"#),
            (r#"{"a":1, "b":2, "c":3}"#, &[("b", None), ("c", None)], r#"{"a":1}"#),
            (r#"{"a":"x,y","b":2}"#, &[("b", None)], r#"{"a":"x,y"}"#),
            (r#"{"\u0061":1}"#, &[("a", Some(b"2"))], r#"{"\u0061":2}"#),
            (r#"{"é":0,"a":1}"#, &[("a", Some(b"2")), ("é", None)], r#"{"a":2}"#),
        ];
        for (text, edits, expect) in cases {
            assert_eq!(object(text).splice(edits), expect.as_bytes(), "{text} {edits:?}");
        }
    }

    #[test]
    fn refuses_what_two_readers_would_read_differently() {
        for (text, key) in [
            (r#"{"model":"a","model":"b"}"#, "model"),
            (r#"{"model":"a","m\u006fdel":"b"}"#, "model"),
            (r#"{"model":"a","MODEL":"b"}"#, "MODEL"),
            (r#"{"model":"a","\u004dodel":"b"}"#, "Model"),
            (r#"{"messages":[],"messageſ":[]}"#, "messageſ"),
        ] {
            assert_eq!(
                Object::read(Bytes::copy_from_slice(text.as_bytes())).unwrap_err(),
                Refusal::Duplicate(key.into()),
                "{text}"
            );
        }
        assert_eq!(Object::read(Bytes::from_static(b"[1]")).unwrap_err(), Refusal::NotAnObject);
        assert!(matches!(
            Object::read(Bytes::from_static(b"{\"a\":1} x")).unwrap_err(),
            Refusal::Syntax(Syntax { at: 8, .. })
        ));
    }

    proptest::proptest! {
        #[test]
        fn a_splice_is_what_serde_would_have_done(keys in proptest::collection::vec("[abcd]", 0..4), set in "[abcd]", remove in proptest::bool::ANY) {
            let mut tree = serde_json::Map::new();
            for key in keys { tree.insert(key, serde_json::json!([1, "x,}"])); }
            let text = serde_json::to_string(&tree).unwrap();
            let spliced = object(&text).splice(&[(&set, (!remove).then_some(b"7".as_slice()))]);
            if remove { tree.shift_remove(&set); } else { tree.insert(set, 7.into()); }
            proptest::prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&spliced).unwrap(), serde_json::Value::Object(tree));
        }
    }
}
