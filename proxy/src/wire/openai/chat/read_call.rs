//! A chat request as a call.

use super::CALL;
use crate::canon::call::{Content, Format, Role, Tool, ToolChoice, Turn};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{extra, lose, lose_lookalikes};
use crate::wire::check::{At, BODY, Check, Fields, present};
use crate::wire::json::{Json, Kind};
use crate::wire::object::Object;
use crate::wire::openai::tools::{Names, as_arguments, as_function, custom};
use crate::wire::openai::words::{choice, effort, image, sampling, stream};

/// Fields with a canonical form. Everything else is `extra`.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "max_completion_tokens",
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
    "tools",
    "tool_choice",
    "functions",
    "function_call",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
];

pub(super) fn check(request: &Object) -> Result<(), Fault> {
    let mut check = Check::default();
    scalars(&mut check, request);
    check.finish(())
}

pub(super) fn read_call(request: &Object) -> Result<Call, Fault> {
    let mut check = Check::default();
    let mut call = scalars(&mut check, request);
    // Not the top level's to judge: servers have words of their own, and on the same API they are theirs.
    call.thinking = effort(&mut check, &BODY, request, "reasoning_effort");
    call.extra = extra(request, |name, _| KNOWN.contains(&name));
    let names = request.get("tools").map(Names::read).unwrap_or_default();
    let at = BODY.key("messages");
    if let Some(messages) = request.get("messages").filter(|messages| check.depth(&at, *messages)) {
        let mut reader = Turns { check: &mut check, names: &names, turns: Vec::new(), extra: &mut call.extra };
        for (index, message) in messages.items().enumerate() {
            reader.message(&at.index(index), message);
        }
        call.turns = reader.turns;
    }
    tools(&mut check, request, &mut call);
    call.tools_as_sent = request.get("tools").filter(|_| !names.is_empty()).map(|list| list.raw().to_owned());
    tool_choice(&mut check, request, &names, &mut call);
    format(&mut check, request, &mut call);
    check.finish(call)
}

/// The top level: types and ranges of everything that is not a list of objects.
fn scalars(check: &mut Check, request: &Object) -> Call {
    let model = check.model_and_messages(request).unwrap_or_default();
    let tokens = |check: &mut Check, name: &str| check.int(&BODY, request, name, 1..=i64::MAX).map(i64::unsigned_abs);
    let older = tokens(check, "max_tokens");
    let max_tokens = tokens(check, "max_completion_tokens").or(older);
    let stop = check.one_or_more(&BODY, request, "stop");
    let (stream, stream_usage) = stream(check, request);
    for name in ["tools", "functions"] {
        if let Some(json) = present(request, name) {
            check.as_list(&BODY.key(name), json);
        }
    }
    let mut call = Call { model, max_tokens, stop, stream, stream_usage, family: "openai", ..Call::default() };
    sampling(check, request, &mut call);
    call.parallel_tools = check.flag(&BODY, request, "parallel_tool_calls");
    call
}

/// Messages as turns: tool messages in a row are one user turn, as in the richer grammar.
struct Turns<'c> {
    check: &'c mut Check,
    names: &'c Names,
    turns: Vec<Turn>,
    extra: &'c mut Vec<(String, String)>,
}

impl Turns<'_> {
    fn message(&mut self, at: &At<'_>, json: Json<'_>) {
        let Some(message) = self.check.as_dict(at, json) else { return };
        if message.get("role").is_none() {
            self.check.wrong(&at.key("role"), "missing", "Field required", Some(json));
            return;
        }
        let roles = ["system", "developer", "user", "assistant", "tool", "function"];
        let Some(role) = self.check.word(at, &message, "role", &roles) else { return };
        let known: &[&str] = match role {
            "assistant" => {
                &["role", "content", "refusal", "tool_calls", "function_call", "reasoning_content", "reasoning"]
            }
            "tool" | "function" => &["role", "content", "tool_call_id", "name"],
            _ => &["role", "content"],
        };
        for (name, json) in message.beyond(known) {
            lose(self.extra, format!("messages.{name}"), json);
        }
        match role {
            "assistant" => self.assistant(at, &message),
            "tool" | "function" => self.tool_result(at, &message),
            _ => {
                if self.check.need(at, &message, "content").is_none() {
                    return;
                }
                let content = self.content(&at.key("content"), message.get("content"), true);
                let role = match role {
                    "system" => Role::System,
                    "developer" => Role::Developer,
                    _ => Role::User,
                };
                self.turns.push(Turn { role, content });
            }
        }
    }

    /// Text or parts; `required` notes a null.
    fn content(&mut self, at: &At<'_>, json: Option<Json<'_>>, required: bool) -> Vec<Content> {
        let Some(json) = json else {
            if required {
                self.check.wrong(at, "string_type", "Input should be a valid string or a list of parts", None);
            }
            return Vec::new();
        };
        match json.kind() {
            Kind::String => {
                self.check.as_text(at, json).map(|text| Content::Text(text.into_owned())).into_iter().collect()
            }
            Kind::Array => {
                json.items().enumerate().filter_map(|(index, part)| self.part(&at.index(index), part)).collect()
            }
            _ => {
                self.check.wrong(at, "string_type", "Input should be a valid string or a list of parts", Some(json));
                Vec::new()
            }
        }
    }

    fn part(&mut self, at: &At<'_>, json: Json<'_>) -> Option<Content> {
        let part = self.check.as_dict(at, json)?;
        let Some(kind) = part.text("type") else {
            self.check.wrong(at, "union_tag_not_found", "Unable to extract tag using discriminator 'type'", Some(json));
            return None;
        };
        let known: &[&str] = match kind.as_ref() {
            "text" | "input_text" | "output_text" => &["type", "text", "annotations"],
            "refusal" => &["type", "refusal"],
            "image_url" => &["type", "image_url"],
            _ => return Some(Content::Other { kind: kind.into_owned(), json: json.raw().to_owned() }),
        };
        for (name, json) in part.beyond(known) {
            lose(self.extra, format!("content.{name}"), json);
        }
        match kind.as_ref() {
            "refusal" => self.check.need_text(at, &part, "refusal").map(Content::Refusal),
            "image_url" => {
                let image = need(self.check, at, &part, "image_url")?;
                self.image(&at.key("image_url"), image)
            }
            _ => self.check.need_text(at, &part, "text").map(Content::Text),
        }
    }

    /// `{"url", "detail"}`, or the bare address that some clients write.
    fn image(&mut self, at: &At<'_>, json: Json<'_>) -> Option<Content> {
        let url = if json.kind() == Kind::String {
            self.check.as_text(at, json)?.into_owned()
        } else {
            let image = self.check.as_dict(at, json)?;
            if let Some(detail) = image.get("detail").filter(|detail| detail.as_str().as_deref() != Some("auto")) {
                lose(self.extra, "image_url.detail".into(), detail);
            }
            self.check.need_text(at, &image, "url")?
        };
        image(self.check, at, url)
    }

    fn assistant(&mut self, at: &At<'_>, message: &Fields<'_>) {
        let mut content = Vec::new();
        if let Some(text) =
            ["reasoning_content", "reasoning"].iter().find_map(|key| message.text(key)).filter(|text| !text.is_empty())
        {
            content.push(Content::Thinking { text: text.into_owned(), signature: None });
        }
        content.extend(self.content(&at.key("content"), message.get("content"), false));
        content.extend(self.check.text(at, message, "refusal").map(Content::Refusal));
        if let Some(calls) = message.get("tool_calls") {
            let at = at.key("tool_calls");
            for (index, json) in self.check.as_list(&at, calls).enumerate() {
                let call = self.call(&at.index(index), json);
                content.extend(call);
            }
        }
        if let Some(json) = message.get("function_call") {
            let at = at.key("function_call");
            if let Some(function) = self.check.as_dict(&at, json) {
                lose_lookalikes(self.extra, "function_call", &function);
                let name = self.check.need_text(&at, &function, "name").unwrap_or_default();
                let arguments = self.arguments(&at, &function);
                // The legacy form has no ids: a function is known by its name.
                content.push(Content::ToolCall { id: name.clone(), name, arguments });
            }
        }
        self.turns.push(Turn { role: Role::Assistant, content });
    }

    fn call(&mut self, at: &At<'_>, json: Json<'_>) -> Option<Content> {
        let call = self.check.as_dict(at, json)?;
        lose_lookalikes(self.extra, "tool_calls", &call);
        if let Some(kind) = call.text("type").filter(|kind| kind != "function") {
            let custom = if kind == "custom" { self.custom(&call) } else { None };
            let other = || Content::Other { kind: format!("{CALL}{kind}"), json: json.raw().to_owned() };
            return Some(custom.unwrap_or_else(other));
        }
        let id = self.check.need_text(at, &call, "id");
        let at = at.key("function");
        let function = need(self.check, &at, &call, "function").and_then(|json| self.check.as_dict(&at, json))?;
        lose_lookalikes(self.extra, "function", &function);
        let name = self.check.need_text(&at, &function, "name")?;
        let arguments = self.arguments(&at, &function);
        Some(Content::ToolCall { id: id?, name, arguments })
    }

    /// A call of a custom tool that is offered, as one of the function that stands for it.
    fn custom(&self, call: &Fields<'_>) -> Option<Content> {
        let said = Fields::of(call.get("custom")?);
        let name = said.text("name").filter(|name| self.names.custom(name).is_some())?.into_owned();
        let arguments = as_arguments(&said.text("input")?);
        Some(Content::ToolCall { id: call.text("id")?.into_owned(), name, arguments })
    }

    /// JSON in a string; some clients send the object itself.
    fn arguments(&mut self, at: &At<'_>, function: &Fields<'_>) -> String {
        match function.get("arguments") {
            Some(json) if json.kind() == Kind::Object => json.raw().to_owned(),
            Some(json) => self.check.as_text(&at.key("arguments"), json).unwrap_or_default().into_owned(),
            None => String::new(),
        }
    }

    fn tool_result(&mut self, at: &At<'_>, message: &Fields<'_>) {
        let id = match message.text("tool_call_id").or_else(|| message.text("name")) {
            Some(id) => id.into_owned(),
            None => {
                self.check.wrong(&at.key("tool_call_id"), "missing", "Field required", None);
                return;
            }
        };
        let content = self.content(&at.key("content"), message.get("content"), false);
        Turn::add_result(&mut self.turns, id, content);
    }
}

/// A required member that must not be null.
fn need<'a>(check: &mut Check, at: &At<'_>, fields: &Fields<'a>, key: &str) -> Option<Json<'a>> {
    let found = fields.get(key);
    if found.is_none() {
        check.wrong(&at.key(key), "missing", "Field required", None);
    }
    found
}

fn tools(check: &mut Check, request: &Object, call: &mut Call) {
    for name in ["tools", "functions"] {
        let at = BODY.key(name);
        let Some(list) = request.get(name).filter(|list| check.depth(&at, *list)) else { continue };
        for (index, json) in list.items().enumerate() {
            let at = at.index(index);
            let Some(tool) = check.as_dict(&at, json) else { continue };
            lose_lookalikes(&mut call.extra, "tools", &tool);
            let kind = tool.text("type").unwrap_or("function".into());
            if name == "functions" {
                call.tools.extend(function(check, &at, &tool));
            } else if kind == "function" {
                let at = at.key("function");
                let Some(json) = need(check, &at, &tool, "function") else { continue };
                let Some(inner) = check.as_dict(&at, json) else { continue };
                lose_lookalikes(&mut call.extra, "function", &inner);
                call.tools.extend(function(check, &at, &inner));
            } else if kind == "custom" {
                let said = custom(json);
                let name = check.need_text(&at.key("custom"), &said, "name");
                call.tools.extend(name.map(|name| as_function(name, &said)));
            } else {
                call.tools.push(Tool::Hosted { kind: kind.into_owned(), json: json.raw().to_owned() });
            }
        }
    }
}

fn function(check: &mut Check, at: &At<'_>, function: &Fields<'_>) -> Option<Tool> {
    let parameters = check.object(at, function, "parameters");
    Some(Tool::Function {
        name: check.need_text(at, function, "name")?,
        description: check.text(at, function, "description"),
        parameters,
        strict: check.flag(at, function, "strict"),
    })
}

fn tool_choice(check: &mut Check, request: &Object, names: &Names, call: &mut Call) {
    let Some((name, json)) = ["tool_choice", "function_call"].iter().find_map(|name| Some((*name, request.get(name)?)))
    else {
        return;
    };
    let at = BODY.key(name);
    if json.kind() == Kind::String {
        call.tool_choice = choice(check, request, name);
        return;
    }
    let Some(choice) = check.as_dict(&at, json) else { return };
    if name == "function_call" {
        call.tool_choice = check.need_text(&at, &choice, "name").map(ToolChoice::Named);
        return;
    }
    if let Some(name) = custom(json).text("name").filter(|name| names.custom(name).is_some()) {
        call.tool_choice = Some(ToolChoice::Named(name.into_owned()));
    } else if choice.text("type").is_none_or(|kind| kind == "function") {
        let at = at.key("function");
        let Some(function) = need(check, &at, &choice, "function").and_then(|json| check.as_dict(&at, json)) else {
            return;
        };
        call.tool_choice = check.need_text(&at, &function, "name").map(ToolChoice::Named);
    } else {
        // `allowed_tools` exists in this family only.
        call.extra.push((name.into(), json.raw().to_owned()));
    }
}

fn format(check: &mut Check, request: &Object, call: &mut Call) {
    let Some(json) = request.get("response_format") else { return };
    let at = BODY.key("response_format");
    let Some(format) = check.as_dict(&at, json) else { return };
    match check.tag(&at, &format, json, &["text", "json_object", "json_schema"]) {
        Some("json_object") => call.format = Some(Format::Json),
        Some("json_schema") => {
            let at = at.key("json_schema");
            let Some(json) = need(check, &at, &format, "json_schema") else { return };
            let Some(schema) = check.as_dict(&at, json) else { return };
            check.object(&at, &schema, "schema");
            call.format =
                check.need_text(&at, &schema, "name").map(|name| Format::Schema { name, json: json.raw().to_owned() });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn read(text: &str) -> Result<Call, Fault> {
        read_call(&Object::read(Bytes::copy_from_slice(text.as_bytes())).unwrap())
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let cases: &[(&str, &[&str])] = &[
            ("{}", &["body.model missing", "body.messages missing"]),
            (r#"{"model":"","messages":[]}"#, &["body.model string_too_short", "body.messages too_short"]),
            (
                r#"{"model":1,"messages":{},"temperature":3,"n":0,"stream":"yes","max_tokens":1.5,"top_p":"x"}"#,
                &[
                    "body.model string_type",
                    "body.messages list_type",
                    "body.max_tokens int_from_float",
                    "body.stream bool_type",
                    "body.temperature less_than_equal",
                    "body.top_p float_parsing",
                    "body.n greater_than_equal",
                ],
            ),
            (
                r#"{"model":"m","messages":[{"role":"bad","content":"x"},{"content":"x"},{"role":"user"},3,{"role":"user","content":[{"type":"text"},{"text":"x"}]}]}"#,
                &[
                    "body.messages.0.role literal_error",
                    "body.messages.1.role missing",
                    "body.messages.2.content missing",
                    "body.messages.3 dict_type",
                    "body.messages.4.content.0.text missing",
                    "body.messages.4.content.1 union_tag_not_found",
                ],
            ),
        ];
        for (text, expect) in cases {
            let fault = read(text).unwrap_err();
            let found: Vec<_> =
                fault.details.iter().map(|detail| format!("{} {}", detail.loc.join("."), detail.kind)).collect();
            assert_eq!(found, *expect, "{text}");
        }
    }

    #[test]
    fn deep_messages_are_refused() {
        let text = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"x","x":{}{}}}]}}]}}"#,
            "[".repeat(130),
            "]".repeat(130)
        );
        assert_eq!(read(&text).unwrap_err().details[0].kind, "json_invalid");
    }

    #[test]
    fn fields_that_name_another_backend_do_not_exist() {
        let call = read(r#"{"model":"m","messages":[{"role":"user","content":"x","name":"bo"}],"api_base":"http://x","api_key":"k","base_url":"u","extra_headers":{},"logit_bias":{"1":2}}"#).unwrap();
        assert_eq!(
            call.extra,
            [("logit_bias".to_owned(), "{\"1\":2}".to_owned()), ("messages.name".to_owned(), "\"bo\"".to_owned())]
        );
    }

    #[test]
    fn tool_messages_in_a_row_are_one_turn() {
        let call = read(
            r#"{"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[
            {"id":"a","type":"function","function":{"name":"f","arguments":"{\"n\": 12345678901234567890}"}},{"id":"b","type":"function","function":{"name":"g","arguments":{"x":1.0}}}]},
            {"role":"tool","tool_call_id":"a","content":"1"},{"role":"tool","tool_call_id":"b","content":[{"type":"text","text":"2"}]}]}"#,
        )
        .unwrap();
        assert_eq!(call.turns.len(), 3);
        assert_eq!(
            call.turns[1].content[0],
            Content::ToolCall { id: "a".into(), name: "f".into(), arguments: "{\"n\": 12345678901234567890}".into() }
        );
        assert_eq!(
            call.turns[1].content[1],
            Content::ToolCall { id: "b".into(), name: "g".into(), arguments: "{\"x\":1.0}".into() }
        );
        assert_eq!(call.turns[2].content.len(), 2);
    }
}
