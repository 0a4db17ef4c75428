//! Tools of three forms that only this vendor's protocols have, as functions and back.
//!
//! A *custom* tool takes free text: as a function it has one string, `input`. A *namespace*, of responses alone, holds tools whose
//! names are unique only in it: as functions they bear both names. A *search* for tools that its client runs, of responses alone,
//! has no name: as a function it is called by its type. What a model says to such a function is told to the client as a call of
//! what it had offered.

use crate::canon::call::Tool;
use crate::wire::beyond::arguments_object;
use crate::wire::check::Fields;
use crate::wire::json::{Json, validate, write_str};
use crate::wire::object::Object;
use crate::wire::put::put_text;
use bytes::Bytes;
use std::borrow::Cow;

/// The arguments of a custom tool as a function.
const INPUT: &str =
    r#"{"type":"object","properties":{"input":{"type":"string"}},"required":["input"],"additionalProperties":false}"#;

/// The type word of a search for tools, and its name as a function.
pub(super) const SEARCH: &str = "tool_search";

/// The longest name that all servers take.
const LONGEST: usize = 64;

/// What a flat name stands for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Named {
    /// The function's name elsewhere.
    pub flat: String,
    /// The tool's own name.
    pub name: String,
    /// Where it is that.
    pub namespace: Option<String>,
    /// What it is where it has that name.
    pub form: Form,
    /// The tool as the client wrote it.
    pub json: String,
}

/// What a tool is to the client that offers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Function,
    /// It takes free text.
    Custom,
    /// It looks for further tools.
    Search,
}

/// The tools of a request that are called otherwise elsewhere.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<Named>);

impl Names {
    /// Reads a list of tools.
    pub fn read(tools: Json<'_>) -> Self {
        let mut names = Vec::new();
        for json in tools.items() {
            let tool = Fields::of(json);
            let namespace = tool.text("name").unwrap_or_default();
            match tool.text("type").as_deref() {
                Some("custom") => names.extend(named(None, json)),
                Some(SEARCH) if is_search(&tool) => names.push(Named {
                    flat: SEARCH.into(),
                    name: SEARCH.into(),
                    namespace: None,
                    form: Form::Search,
                    json: json.raw().to_owned(),
                }),
                Some("namespace") => {
                    let inner = tool.get("tools").into_iter().flat_map(Json::items);
                    names.extend(inner.filter_map(|json| named(Some(&namespace), json)));
                }
                _ => {}
            }
        }
        Self(names)
    }

    /// Reads several lists.
    pub fn read_all<'a>(lists: impl Iterator<Item = Json<'a>>) -> Self {
        Self(lists.flat_map(|list| Self::read(list).0).collect())
    }

    /// The same of a text that may be none.
    pub fn of(tools: Option<&str>) -> Self {
        tools.and_then(|text| validate(text.as_bytes()).ok()).map(Self::read).unwrap_or_default()
    }

    /// Those of a chat request. Almost none has one, and to look for the word is much less than to read.
    pub fn of_chat(request: &Bytes) -> Self {
        let custom = memchr::memmem::find(request, b"\"custom\"").is_some();
        let request = custom.then(|| Object::read(request.clone()).ok()).flatten();
        request.as_ref().and_then(|request| request.get("tools")).map(Self::read).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What this name stands for, if it is not just a function's.
    pub fn find(&self, flat: &str) -> Option<&Named> {
        self.0.iter().find(|named| named.flat == flat)
    }

    /// The custom tool that a function of this name stands for in chat, which has no namespaces.
    pub fn custom(&self, flat: &str) -> Option<&Named> {
        self.find(flat).filter(|named| named.form == Form::Custom && named.namespace.is_none())
    }
}

fn named(namespace: Option<&str>, json: Json<'_>) -> Option<Named> {
    let tool = Fields::of(json);
    let name = custom(json).text("name")?.into_owned();
    Some(Named {
        flat: flat(namespace, &name).into_owned(),
        namespace: namespace.map(str::to_owned),
        form: if tool.text("type").as_deref() == Some("custom") { Form::Custom } else { Form::Function },
        json: json.raw().to_owned(),
        name,
    })
}

/// Whether a tool is a search that the client runs; the vendor's own is nothing to others.
pub(super) fn is_search(tool: &Fields<'_>) -> bool {
    tool.text("type").as_deref() == Some(SEARCH) && tool.text("execution").as_deref() == Some("client")
}

/// What a custom tool says of itself; chat puts it one level deeper.
pub(super) fn custom(tool: Json<'_>) -> Fields<'_> {
    Fields::of(tool.get("custom").unwrap_or(tool))
}

/// The name of a tool where there are no namespaces. One that grows too long ends in a number made of all of it.
pub(super) fn flat<'n>(namespace: Option<&str>, name: &'n str) -> Cow<'n, str> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let Some(namespace) = namespace.filter(|namespace| !namespace.is_empty()) else { return name.into() };
    let whole = format!("{}__{name}", namespace.trim_end_matches('_'));
    if whole.len() <= LONGEST {
        return whole.into();
    }
    let mut hash = DefaultHasher::new();
    whole.hash(&mut hash);
    let head: String = whole.chars().filter(char::is_ascii).take(LONGEST - 17).collect();
    format!("{head}_{:016x}", hash.finish()).into()
}

/// A custom tool as a function. The model is told of a grammar; nothing holds it to one.
pub(super) fn as_function(flat: String, tool: &Fields<'_>) -> Tool {
    let mut description = tool.text("description").unwrap_or_default().into_owned();
    // The grammar, too, is a level deeper in chat.
    if let Some(format) = tool.get("format").map(|format| Fields::of(format.get("grammar").unwrap_or(format)))
        && let Some(definition) = format.text("definition")
    {
        let syntax = format.text("syntax").unwrap_or_default();
        description.push_str(&format!("\n\n`input` must follow this {syntax} grammar:\n{definition}"));
    }
    let description = Some(description.trim_start().to_owned()).filter(|text| !text.is_empty());
    Tool::Function { name: flat, description, parameters: Some(INPUT.into()), strict: None }
}

/// A free text as a function's arguments.
pub(super) fn as_arguments(input: &str) -> String {
    let mut out = b"{".to_vec();
    put_text(&mut out, "input", input);
    out.push(b'}');
    String::from_utf8(out).unwrap_or_default()
}

/// A function's arguments as the free text they stand for; what a model wrote otherwise is taken for the text itself.
pub(super) fn as_input(arguments: &str) -> String {
    let input = validate(arguments.trim().as_bytes()).ok().and_then(|json| json.get("input")).and_then(Json::as_str);
    input.map_or_else(|| arguments.to_owned(), Cow::into_owned)
}

/// The same of arguments that were said last. `cut`: the reply was not complete when it ended with them; they may be so
/// nevertheless.
pub(super) fn said_input(arguments: &str, cut: bool) -> String {
    if cut && arguments_object(arguments).is_none() { begun_input(arguments) } else { as_input(arguments) }
}

/// What can be read of a free text whose arguments break off: half a JSON text would be taken for it.
pub(super) fn begun_input(arguments: &str) -> String {
    let Some(object) = arguments.trim_start().strip_prefix('{') else { return arguments.to_owned() };
    let value = object.trim_start().strip_prefix("\"input\"").and_then(|rest| rest.trim_start().strip_prefix(':'));
    let Some(inner) = value.and_then(|rest| rest.trim_start().strip_prefix('"')) else { return String::new() };
    let bytes = inner.as_bytes();
    let mut end = 0;
    while end < bytes.len() && bytes[end] != b'"' {
        let step = match &bytes[end..] {
            [b'\\', b'u', ..] => 6,
            [b'\\', ..] => 2,
            _ => 1,
        };
        if end + step > bytes.len() {
            break;
        }
        end += step;
    }
    let read = |end: usize| {
        let quoted = format!("\"{}\"", inner.get(..end)?);
        validate(quoted.as_bytes()).ok().and_then(Json::as_str).map(Cow::into_owned)
    };
    // Of a letter of two escapes the first may be the last there is.
    read(end).or_else(|| read(end.checked_sub(6)?)).unwrap_or_default()
}

/// A piece of a free text as it stands inside a JSON string.
pub(super) fn escaped(text: &str) -> String {
    let mut out = Vec::new();
    write_str(&mut out, text);
    String::from_utf8(out[1..out.len() - 1].to_vec()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_flat_and_short_and_lead_back() {
        assert_eq!(flat(None, "f"), "f");
        assert_eq!(flat(Some("mcp__x"), "f"), "mcp__x__f");
        assert_eq!(flat(Some("mcp__x__"), "f"), "mcp__x__f");
        let long = flat(Some(&"n".repeat(60)), "function").into_owned();
        assert!(long.len() == LONGEST && long != flat(Some(&"n".repeat(60)), "functiom"), "{long}");
        let tools = r#"[{"type":"function","name":"a"},{"type":"custom","name":"patch"},{"type":"tool_search","execution":"client"},{"type":"namespace","name":"n","tools":[{"type":"function","name":"a"},{"type":"custom","name":"b"}]}]"#;
        let names = Names::of(Some(tools));
        assert_eq!(names.find("a"), None);
        assert!(names.find("patch").is_some_and(|named| named.form == Form::Custom && named.namespace.is_none()));
        assert!(names.find("n__a").is_some_and(|named| named.form == Form::Function && named.name == "a"));
        assert!(names.find("n__b").is_some_and(|named| named.form == Form::Custom && named.namespace.is_some()));
        assert!(names.find("tool_search").is_some_and(|named| named.form == Form::Search));
        assert!(Names::of(Some(r#"[{"type":"tool_search"}]"#)).is_empty());
    }

    #[test]
    fn free_text_survives_being_arguments() {
        for text in ["", "*** Begin\n+\"é\"\\ \u{2028}", "{\"input\":1}"] {
            assert_eq!(as_input(&as_arguments(text)), text);
            assert_eq!(as_input(&format!("{{\"input\":\"{}\"}}", escaped(text))), text);
        }
        assert_eq!(as_input("no JSON"), "no JSON");
    }

    #[test]
    fn of_a_text_that_breaks_off_its_beginning_is_read() {
        for (arguments, expect) in [
            (r#"{"input":"*** Begin\n+\"é"#, "*** Begin\n+\"é"),
            (r#" { "input" : "a\"#, "a"),
            (r#"{"input":"a\u00e"#, "a"),
            (r#"{"input":"a\ud83c"#, "a"),
            (r#"{"input":"a\ud83c\udf"#, "a"),
            (r#"{"input":"a""#, "a"),
            (r#"{"inp"#, ""),
            (r#"{"other":"a"#, ""),
            ("", ""),
            ("no JSON", "no JSON"),
        ] {
            assert_eq!(begun_input(arguments), expect, "{arguments}");
        }
    }
}
