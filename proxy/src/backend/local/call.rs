//! What a model writes when it calls tools, read back out of its text as it comes.
//!
//! Three forms are understood whatever the model's family, because small models mix them up: Hermes' and Qwen's
//! `<tool_call>{…}</tool_call>`, Mistral's `[TOOL_CALLS][{…}]`, and Llama 3's bare object at the beginning of an answer.
//! Only what may be one of these is held back. What begins like a call and is none stays visible as text, all of it.

use super::text::overlap;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Around a call in the form of Hermes and Qwen.
pub const OPENING: &str = "<tool_call>";
/// Its end.
pub const CLOSING: &str = "</tool_call>";
/// Before a list of calls in Mistral's form.
pub const LIST: &str = "[TOOL_CALLS]";

/// How a model's family writes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `<tool_call>{"name":…,"arguments":{…}}</tool_call>`; also what models are told whose template knows no tools.
    Hermes,
    /// `{"name":…,"parameters":{…}}` and nothing else.
    Llama,
    /// `[TOOL_CALLS][{"name":…,"arguments":{…}}]`.
    Mistral,
}

/// A piece of what was said.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Text(String),
    Call(ToolCall),
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// An object as JSON text, as the model wrote it.
    pub arguments: String,
}

/// Tells calls from text.
pub struct Listener {
    /// Names of the tools on offer: a bare object is a call only of one of these.
    names: Vec<String>,
    held: String,
    /// The value after the marker, as far as it was looked at.
    value: Extent,
    place: Place,
}

/// Where in an answer the held text begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing but white space was said.
    Beginning,
    /// Something was.
    Middle,
    /// After a call in this form; white space here belongs to nobody.
    Behind(Form),
}

/// What the held text turned out to begin with.
enum Found {
    /// That many bytes of text.
    Text(usize),
    /// That many bytes that say nothing.
    Nothing(usize),
    Calls(usize, Form, Vec<ToolCall>),
    /// Not known yet.
    Wait,
}

impl Listener {
    /// Hears calls of the tools of these names.
    pub fn new(names: Vec<String>) -> Listener {
        Listener { names, held: String::new(), value: Extent::default(), place: Place::Beginning }
    }

    /// Takes more of the answer, and adds what is certain now.
    pub fn push(&mut self, text: &str, heard: &mut Vec<Heard>) {
        self.held.push_str(text);
        loop {
            let length = match self.look() {
                Found::Wait => return,
                Found::Nothing(length) => length,
                Found::Text(length) => {
                    add_text(heard, &self.held[..length]);
                    self.place = Place::Middle;
                    length
                }
                Found::Calls(length, form, calls) => {
                    heard.extend(calls.into_iter().map(Heard::Call));
                    self.place = Place::Behind(form);
                    length
                }
            };
            self.held.drain(..length);
            self.value = Extent::default();
        }
    }

    /// The answer is over: what was held is text, unless it is white space behind a call.
    pub fn finish(&mut self, heard: &mut Vec<Heard>) {
        let rest = std::mem::take(&mut self.held);
        let closing = matches!(self.place, Place::Behind(Form::Hermes)) && CLOSING.starts_with(rest.trim());
        if !(closing || matches!(self.place, Place::Behind(_)) && rest.trim().is_empty()) {
            add_text(heard, &rest);
        }
    }

    fn look(&mut self) -> Found {
        if self.held.is_empty() {
            return Found::Wait;
        }
        let blank = self.held.len() - self.held.trim_start().len();
        let rest = &self.held[blank..];
        let (form, marker) = if rest.starts_with(OPENING) {
            (Form::Hermes, OPENING)
        } else if rest.starts_with(LIST) {
            (Form::Mistral, LIST)
        } else if self.place != Place::Middle && may_be_object(rest) {
            (Form::Llama, "")
        } else {
            return self.look_at_text(blank);
        };
        // White space before a marker belongs to text that went before it, if there was any.
        if blank > 0 && self.place == Place::Middle {
            return Found::Text(blank);
        }
        self.look_at_call(form, blank + marker.len())
    }

    /// At a place where no call begins.
    fn look_at_text(&self, blank: usize) -> Found {
        let rest = &self.held[blank..];
        if let Place::Behind(form) = self.place {
            let closing = match form {
                Form::Hermes => CLOSING,
                Form::Llama => ";",
                Form::Mistral => "",
            };
            if !closing.is_empty() && rest.starts_with(closing) {
                return Found::Nothing(blank + closing.len());
            }
            if rest.len() < closing.len() && closing.starts_with(rest) {
                return Found::Wait;
            }
        }
        let markers = [OPENING, LIST];
        if self.place != Place::Middle && markers.iter().any(|marker| marker.starts_with(rest)) {
            return Found::Wait;
        }
        let end = markers.iter().filter_map(|marker| rest.find(marker)).min();
        let end = end.unwrap_or_else(|| rest.len() - markers.iter().map(|m| overlap(rest, m)).max().unwrap_or(0));
        if blank + end == 0 { Found::Wait } else { Found::Text(blank + end) }
    }

    /// Behind a marker; `start`: where its value begins.
    fn look_at_call(&mut self, form: Form, start: usize) -> Found {
        let value = &self.held[start..];
        let value_start = self.held.len() - value.trim_start().len();
        let Some(first) = self.held[value_start..].chars().next() else { return Found::Wait };
        let opens = if form == Form::Mistral { "[{" } else { "{" };
        if !opens.contains(first) {
            // Bare objects always open; so this was a marker, and no call.
            return Found::Text(start);
        }
        match self.value.end(&self.held.as_bytes()[value_start..]) {
            Ok(None) => Found::Wait,
            Ok(Some(length)) => {
                let end = value_start + length;
                match read(&self.held[value_start..end]) {
                    Some(calls) if form != Form::Llama || calls.iter().all(|call| self.names.contains(&call.name)) => {
                        Found::Calls(end, form, calls)
                    }
                    _ => Found::Text(end),
                }
            }
            // Text up to what no JSON holds; there, the next marker may begin.
            Err(length) => Found::Text((value_start + length).max(1)),
        }
    }
}

fn add_text(heard: &mut Vec<Heard>, text: &str) {
    match heard.last_mut() {
        _ if text.is_empty() => {}
        Some(Heard::Text(before)) => before.push_str(text),
        _ => heard.push(Heard::Text(text.to_owned())),
    }
}

/// Whether this may become a bare object that calls: its first key is one that calls have.
fn may_be_object(text: &str) -> bool {
    let Some(inside) = text.strip_prefix('{') else { return false };
    let key = inside.trim_start();
    let keys = ["\"name\"", "\"type\"", "\"function\"", "\"parameters\"", "\"arguments\""];
    keys.iter().any(|known| key.starts_with(known) || known.starts_with(key))
}

/// Finds the end of a JSON value, going on where it stopped.
#[derive(Default)]
struct Extent {
    at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Extent {
    /// The length of the object or array that `text` begins with, if its end is there; else where it cannot be JSON.
    fn end(&mut self, text: &[u8]) -> Result<Option<usize>, usize> {
        for &byte in &text[self.at..] {
            self.at += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                _ if self.in_string => {}
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Ok(Some(self.at));
                    }
                }
                b',' | b':' | b'+' | b'-' | b'.' => {}
                _ if byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() => {}
                _ => return Err(self.at - 1),
            }
        }
        Ok(None)
    }
}

#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

/// The calls of an object, or of a list of them.
fn read(text: &str) -> Option<Vec<ToolCall>> {
    let written: Vec<Written<'_>> = if text.starts_with('[') {
        serde_json::from_str(text).ok().filter(|list: &Vec<_>| !list.is_empty())?
    } else {
        vec![serde_json::from_str(text).ok()?]
    };
    written.into_iter().map(Written::call).collect()
}

impl Written<'_> {
    /// Arguments must be an object, or one in a string, as OpenAI writes them.
    fn call(self) -> Option<ToolCall> {
        let arguments = match self.arguments.map(RawValue::get) {
            None | Some("null") => "{}".to_owned(),
            Some(object) if object.starts_with('{') => object.to_owned(),
            Some(other) => {
                let inner: String = serde_json::from_str(other).ok()?;
                serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&inner).ok()?;
                inner
            }
        };
        Some(ToolCall { name: self.name.into_owned(), arguments }).filter(|call| !call.name.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As one string: text as it is, calls as `‹name arguments›`.
    fn hear(answer: &str, size: usize) -> String {
        let mut listener = Listener::new(vec!["f".into(), "g".into()]);
        let mut heard = Vec::new();
        let letters: Vec<char> = answer.chars().collect();
        for piece in letters.chunks(size) {
            listener.push(&piece.iter().collect::<String>(), &mut heard);
        }
        listener.finish(&mut heard);
        let said = |heard: &Heard| match heard {
            Heard::Text(text) => text.clone(),
            Heard::Call(call) => format!("‹{} {}›", call.name, call.arguments),
        };
        heard.iter().map(said).collect()
    }

    #[test]
    fn calls_are_told_from_text_under_any_chunking() {
        let hermes = r#"<tool_call>{"name": "f", "arguments": {"a": 1.10}}</tool_call>"#;
        let cases: &[(&str, String, &str)] = &[
            ("text", "a < b, [1] and <tool> {\"name\"".into(), "a < b, [1] and <tool> {\"name\""),
            ("hermes", hermes.into(), r#"‹f {"a": 1.10}›"#),
            ("line breaks", hermes.replace(">{", ">\n{").replace("}<", "}\n<") + "\n", r#"‹f {"a": 1.10}›"#),
            ("two", format!("{hermes}\n{hermes}"), r#"‹f {"a": 1.10}›‹f {"a": 1.10}›"#),
            ("text around", format!("Sure.\n{hermes}\nDone"), "Sure.\n‹f {\"a\": 1.10}›\nDone"),
            ("white space before", format!("\n\n{hermes}"), r#"‹f {"a": 1.10}›"#),
            ("closing in a string", hermes.replace("1.10", "\"</tool_call>\\\"}\""), r#"‹f {"a": "</tool_call>\"}"}›"#),
            ("never closed", r#"<tool_call>{"name":"f"}"#.into(), "‹f {}›"),
            ("half closed", r#"<tool_call>{"name":"f"}</tool_"#.into(), "‹f {}›"),
            ("arguments in a string", r#"<tool_call>{"name":"f","arguments":"{\"a\":1}"}"#.into(), r#"‹f {"a":1}›"#),
            ("no object", "<tool_call>f(1)</tool_call>".into(), "<tool_call>f(1)</tool_call>"),
            ("no JSON", "<tool_call>{'name': 'f'}</tool_call>".into(), "<tool_call>{'name': 'f'}</tool_call>"),
            (
                "a brace short",
                "<tool_call>{\"name\":\"f\"</tool_call> x".into(),
                "<tool_call>{\"name\":\"f\"</tool_call> x",
            ),
            (
                "a brace short, then right",
                format!("<tool_call>{{\"name\":{hermes}"),
                "<tool_call>{\"name\":‹f {\"a\": 1.10}›",
            ),
            ("cut short", "<tool_call>{\"name\":\"f\",".into(), "<tool_call>{\"name\":\"f\","),
            (
                "arguments no object",
                r#"<tool_call>{"name":"f","arguments":[1]}"#.into(),
                r#"<tool_call>{"name":"f","arguments":[1]}"#,
            ),
            (
                "no name",
                r#"<tool_call>{"arguments":{}}</tool_call>"#.into(),
                r#"<tool_call>{"arguments":{}}</tool_call>"#,
            ),
            ("only a marker", "<tool_call>".into(), "<tool_call>"),
            ("marker twice", format!("<tool_call>{hermes}"), "<tool_call>‹f {\"a\": 1.10}›"),
            (
                "mistral",
                r#"[TOOL_CALLS][{"name":"f","arguments":{}},{"name":"g","arguments":{"b":[]}}]"#.into(),
                r#"‹f {}›‹g {"b":[]}›"#,
            ),
            ("mistral, one", r#"[TOOL_CALLS] {"name":"f"}"#.into(), "‹f {}›"),
            ("mistral, none", "[TOOL_CALLS][]".into(), "[TOOL_CALLS][]"),
            ("llama", r#"{"name": "f", "parameters": {"a": "b"}}"#.into(), r#"‹f {"a": "b"}›"#),
            ("llama, typed", r#" {"type": "function", "name": "g", "parameters": {}}"#.into(), "‹g {}›"),
            ("llama, two", r#"{"name":"f"}; {"name":"g"}"#.into(), "‹f {}›‹g {}›"),
            ("llama, not offered", r#"{"name": "h", "parameters": {}}"#.into(), r#"{"name": "h", "parameters": {}}"#),
            ("llama, later", r#"So: {"name": "f"}"#.into(), r#"So: {"name": "f"}"#),
            ("other JSON", r#"{"answer": 1}"#.into(), r#"{"answer": 1}"#),
            ("white space", " \n".into(), " \n"),
            ("not ASCII", "<tool_call>é {\"ü".into(), "<tool_call>é {\"ü"),
            ("nothing", String::new(), ""),
        ];
        for (name, answer, expect) in cases {
            for size in [1, 2, 3, 7, 1000] {
                assert_eq!(hear(answer, size), *expect, "{name}, by {size}");
            }
        }
    }

    #[test]
    fn only_what_may_be_a_call_is_held() {
        let mut listener = Listener::new(vec!["f".into()]);
        let mut now = |text: &str| {
            let mut heard = Vec::new();
            listener.push(text, &mut heard);
            heard
        };
        let text = |text: &str| vec![Heard::Text(text.to_owned())];
        assert_eq!(now("one"), text("one"));
        assert_eq!(now(" two <"), text(" two "));
        assert_eq!(now("tool"), []);
        assert_eq!(now("box> [TOOL"), text("<toolbox> "));
        assert_eq!(now("S]"), text("[TOOLS]"));
        assert_eq!(now("<tool_call>{\"name\": \"f\""), []);
        assert_eq!(now("}"), [Heard::Call(ToolCall { name: "f".into(), arguments: "{}".into() })]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost(pieces in proptest::collection::vec("(<tool_call>|</tool_call>|\\[TOOL_CALLS\\]|[a-z{}\\[\\]\":, ']{1,3})", 0..12)) {
            let answer = pieces.concat();
            let heard = hear(&answer, 1);
            proptest::prop_assert_eq!(&heard, &hear(&answer, 5));
            if !heard.contains('‹') {
                proptest::prop_assert_eq!(heard, answer);
            }
        }
    }
}
