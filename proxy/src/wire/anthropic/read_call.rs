//! A messages request as a call. The fields and their ranges are DeepFellow's published table.

use crate::canon::call::{Content, Effort, Format, Image, Role, Thinking, Tool, ToolChoice, Turn};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{BILLING, extra, lose};
use crate::wire::check::{At, BODY, Check, Fields, present};
use crate::wire::json::{Json, Kind};
use crate::wire::object::Object;
use crate::wire::put::put_raw;

/// `max_tokens` when the client says none, as DeepFellow has it.
pub(super) const MAX_TOKENS: u64 = 8000;

/// Fields with a canonical form. Everything else is `extra`.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "max_tokens",
    "stream",
    "system",
    "temperature",
    "metadata",
    "stop_sequences",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
    "output_config",
    "output_format",
];

pub(super) fn check(request: &Object) -> Result<(), Fault> {
    let mut check = Check::default();
    scalars(&mut check, request);
    check.finish(())
}

pub(super) fn read_call(request: &Object) -> Result<Call, Fault> {
    let mut check = Check::default();
    let mut call = scalars(&mut check, request);
    call.extra = extra(request, |name, _| KNOWN.contains(&name));
    let mut reader = Turns { check: &mut check, extra: &mut call.extra };
    if let Some(system) = request.get("system") {
        let content = reader.content(&BODY.key("system"), Some(system));
        if content.iter().any(|part| matches!(part, Content::Text(text) if text.starts_with(BILLING))) {
            lose(reader.extra, "system.x-anthropic-billing-header".into(), system);
        }
        if !content.is_empty() {
            call.turns.push(Turn { role: Role::System, content });
        }
    }
    let at = BODY.key("messages");
    if let Some(messages) = request.get("messages").filter(|messages| reader.check.depth(&at, *messages)) {
        for (index, message) in messages.items().enumerate() {
            call.turns.extend(reader.message(&at.index(index), message));
        }
    }
    tools(&mut check, request, &mut call);
    output(&mut check, request, &mut call);
    check.finish(call)
}

/// The top level: types and ranges of everything that is not a list of objects.
fn scalars(check: &mut Check, request: &Object) -> Call {
    let model = check.model_and_messages(request).unwrap_or_default();
    let stop = present(request, "stop_sequences")
        .map(|json| check.texts(&BODY.key("stop_sequences"), json))
        .unwrap_or_default();
    if let Some(system) = present(request, "system").filter(|json| !matches!(json.kind(), Kind::String | Kind::Array)) {
        check.wrong(
            &BODY.key("system"),
            "string_type",
            "Input should be a valid string or a list of text blocks",
            Some(system),
        );
    }
    if let Some(tools) = present(request, "tools") {
        check.as_list(&BODY.key("tools"), tools);
    }
    let user = present(request, "metadata").and_then(|json| {
        let at = BODY.key("metadata");
        let metadata = check.as_dict(&at, json)?;
        check.text(&at, &metadata, "user_id")
    });
    check.word(&BODY, request, "service_tier", &["auto", "standard_only"]);
    let max_tokens = check.int(&BODY, request, "max_tokens", 1..=i64::MAX).map_or(MAX_TOKENS, i64::unsigned_abs);
    let temperature = check.num(&BODY, request, "temperature", 0.0..=1.0);
    let top_p = check.num(&BODY, request, "top_p", 0.0..=1.0);
    let top_k = check.num(&BODY, request, "top_k", 0.0..=9e15).map(|top| top as u64);
    let stream = check.flag(&BODY, request, "stream").unwrap_or(false);
    let thinking = thinking(check, request);
    let (tool_choice, parallel_tools) = tool_choice(check, request);
    Call {
        model,
        max_tokens: Some(max_tokens),
        stop,
        user,
        temperature,
        top_p,
        top_k,
        stream,
        stream_usage: true,
        thinking: Some(thinking),
        tool_choice,
        parallel_tools,
        choices: 1,
        family: "anthropic",
        ..Call::default()
    }
}

/// Absent is off: that is this dialect's rule, unlike the others'.
fn thinking(check: &mut Check, request: &Object) -> Thinking {
    let at = BODY.key("thinking");
    let Some(json) = present(request, "thinking") else { return Thinking::Off };
    let Some(thinking) = check.as_dict(&at, json) else { return Thinking::Off };
    match check.tag(&at, &thinking, json, &["enabled", "disabled", "adaptive"]) {
        Some("enabled") => {
            let at = at.key("enabled");
            check.need(&at, &thinking, "budget_tokens");
            Thinking::Budget(check.int(&at, &thinking, "budget_tokens", 1..=i64::MAX).map_or(0, i64::unsigned_abs))
        }
        Some("adaptive") => Thinking::Adaptive,
        _ => Thinking::Off,
    }
}

fn tool_choice(check: &mut Check, request: &Object) -> (Option<ToolChoice>, Option<bool>) {
    let at = BODY.key("tool_choice");
    let Some(json) = present(request, "tool_choice") else { return (None, None) };
    let Some(choice) = check.as_dict(&at, json) else { return (None, None) };
    let parallel = check.flag(&at, &choice, "disable_parallel_tool_use").map(|disabled| !disabled);
    let choice = match check.tag(&at, &choice, json, &["auto", "any", "tool", "none"]) {
        Some("auto") => Some(ToolChoice::Auto),
        Some("any") => Some(ToolChoice::Required),
        Some("none") => Some(ToolChoice::None),
        Some(_) => check.need_text(&at.key("tool"), &choice, "name").map(ToolChoice::Named),
        None => None,
    };
    (choice, parallel)
}

struct Turns<'c> {
    check: &'c mut Check,
    extra: &'c mut Vec<(String, String)>,
}

impl Turns<'_> {
    fn message(&mut self, at: &At<'_>, json: Json<'_>) -> Option<Turn> {
        let message = self.check.as_dict(at, json)?;
        for (name, json) in
            message.beyond(&["role", "content", "id", "type", "model", "stop_reason", "stop_sequence", "usage"])
        {
            lose(self.extra, format!("messages.{name}"), json);
        }
        // `system` inside the messages is a beta that Claude Code uses with models it does not know.
        let role = match message.text("role").as_deref() {
            Some("system") => Some(Role::System),
            _ => self
                .check
                .need_word(at, &message, "role", &["user", "assistant"])
                .map(|word| if word == "user" { Role::User } else { Role::Assistant }),
        };
        self.check.need(at, &message, "content");
        let content = self.content(&at.key("content"), message.get("content"));
        Some(Turn { role: role?, content })
    }

    fn content(&mut self, at: &At<'_>, json: Option<Json<'_>>) -> Vec<Content> {
        match json.map(|json| (json, json.kind())) {
            None => Vec::new(),
            Some((json, Kind::String)) => self
                .check
                .as_text(at, json)
                .filter(|text| !text.is_empty())
                .map(|text| Content::Text(text.into_owned()))
                .into_iter()
                .collect(),
            Some((json, Kind::Array)) => {
                json.items().enumerate().filter_map(|(index, block)| self.block(&at.index(index), block)).collect()
            }
            Some((json, _)) => {
                self.check.wrong(
                    at,
                    "string_type",
                    "Input should be a valid string or a list of content blocks",
                    Some(json),
                );
                Vec::new()
            }
        }
    }

    fn block(&mut self, at: &At<'_>, json: Json<'_>) -> Option<Content> {
        let block = self.check.as_dict(at, json)?;
        let Some(kind) = block.text("type") else {
            self.check.wrong(at, "union_tag_not_found", "Unable to extract tag using discriminator 'type'", Some(json));
            return None;
        };
        let known: &[&str] = match kind.as_ref() {
            "text" => &["type", "text"],
            "image" => &["type", "source"],
            "thinking" => &["type", "thinking", "signature"],
            "redacted_thinking" => &["type", "data"],
            "tool_use" => &["type", "id", "name", "input", "caller"],
            "tool_result" => &["type", "tool_use_id", "content", "is_error"],
            _ => return Some(Content::Other { kind: kind.into_owned(), json: json.raw().to_owned() }),
        };
        for (name, json) in block.beyond(known) {
            lose(self.extra, format!("content.{name}"), json);
        }
        let at = at.key(known_tag(&kind));
        match kind.as_ref() {
            "text" => self.check.need_text(&at, &block, "text").map(Content::Text),
            "image" => self.image(&at, &block, json),
            "thinking" => {
                let text = self.check.need_text(&at, &block, "thinking");
                Some(Content::Thinking { signature: self.check.text(&at, &block, "signature"), text: text? })
            }
            "redacted_thinking" => {
                self.check.need_text(&at, &block, "data").map(|data| Content::RedactedThinking { data })
            }
            "tool_use" => {
                let (id, name) = (self.check.need_text(&at, &block, "id"), self.check.need_text(&at, &block, "name"));
                let input = block.get("input");
                if let Some(input) = input {
                    self.check.as_dict(&at.key("input"), input);
                }
                Some(Content::ToolCall { id: id?, name: name?, arguments: input.map_or("{}", Json::raw).to_owned() })
            }
            _ => {
                let id = self.check.need_text(&at, &block, "tool_use_id");
                let is_error = self.check.flag(&at, &block, "is_error").unwrap_or(false);
                let content = self.content(&at.key("content"), block.get("content"));
                Some(Content::ToolResult { id: id?, content, is_error })
            }
        }
    }

    fn image(&mut self, at: &At<'_>, block: &Fields<'_>, json: Json<'_>) -> Option<Content> {
        let source = self.check.need(at, block, "source")?;
        let at = at.key("source");
        let source = self.check.as_dict(&at, source)?;
        match source.text("type").as_deref() {
            Some("url") => self.check.need_text(&at, &source, "url").map(|url| Content::Image(Image::Url(url))),
            Some("base64") => {
                let (media_type, data) =
                    (self.check.need_text(&at, &source, "media_type"), self.check.need_text(&at, &source, "data"));
                Some(Content::Image(Image::Data { media_type: media_type?, data: data? }))
            }
            // A file of the vendor's.
            _ => Some(Content::Other { kind: "image".into(), json: json.raw().to_owned() }),
        }
    }
}

/// Pydantic puts the chosen tag into the path.
fn known_tag(kind: &str) -> &'static str {
    match kind {
        "text" => "text",
        "image" => "image",
        "thinking" => "thinking",
        "redacted_thinking" => "redacted_thinking",
        "tool_use" => "tool_use",
        _ => "tool_result",
    }
}

fn tools(check: &mut Check, request: &Object, call: &mut Call) {
    let at = BODY.key("tools");
    let Some(list) = request.get("tools").filter(|list| check.depth(&at, *list)) else { return };
    for (index, json) in list.items().enumerate() {
        let at = at.index(index);
        let Some(tool) = check.as_dict(&at, json) else { continue };
        if let Some(kind) = tool.text("type").filter(|kind| kind != "custom") {
            call.tools.push(Tool::Hosted { kind: kind.into_owned(), json: json.raw().to_owned() });
            continue;
        }
        for (name, json) in tool.beyond(&["type", "name", "description", "input_schema", "strict"]) {
            lose(&mut call.extra, format!("tools.{name}"), json);
        }
        let schema = check
            .need(&at, &tool, "input_schema")
            .filter(|schema| check.as_dict(&at.key("input_schema"), *schema).is_some());
        let (description, strict) = (check.text(&at, &tool, "description"), check.flag(&at, &tool, "strict"));
        if let Some(name) = check.need_text(&at, &tool, "name") {
            call.tools.push(Tool::Function {
                name,
                description,
                parameters: schema.map(|json| json.raw().to_owned()),
                strict,
            });
        }
    }
}

/// `output_config{effort, format}` and its older `output_format`. Effort is the level of adaptive thinking; a schema is the
/// answer's format. What has no canonical form stays in `extra`.
fn output(check: &mut Check, request: &Object, call: &mut Call) {
    let config = request
        .get("output_config")
        .and_then(|json| check.as_dict(&BODY.key("output_config"), json))
        .unwrap_or_default();
    let mut rest: Vec<(&str, &str)> =
        config.beyond(&["effort", "format"]).map(|(name, json)| (name, json.raw())).collect();
    if let Some(effort) = config.get("effort") {
        let level = match effort.as_str().as_deref() {
            Some("low") => Some(Effort::Low),
            Some("medium") => Some(Effort::Medium),
            Some("high") => Some(Effort::High),
            Some("xhigh") => Some(Effort::XHigh),
            Some("max") => Some(Effort::Max),
            _ => None,
        };
        match level.filter(|_| call.thinking == Some(Thinking::Adaptive)) {
            Some(level) => call.thinking = Some(Thinking::Effort(level)),
            None => rest.push(("effort", effort.raw())),
        }
    }
    if let Some(format) = config.get("format").or_else(|| request.get("output_format")) {
        match format.get("schema").filter(|schema| schema.kind() == Kind::Object) {
            Some(schema) => {
                call.format = Some(Format::Schema {
                    name: "output".into(),
                    json: format!(r#"{{"name":"output","schema":{},"strict":true}}"#, schema.raw()),
                })
            }
            None => rest.push(("format", format.raw())),
        }
    }
    if !rest.is_empty() {
        let mut out = vec![b'{'];
        for (name, raw) in rest {
            put_raw(&mut out, name, raw);
        }
        out.push(b'}');
        call.extra.push(("output_config".into(), String::from_utf8_lossy(&out).into_owned()));
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
            (r#"{"model":null,"messages":null}"#, &["body.model string_type", "body.messages list_type"]),
            (
                r#"{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":0,"temperature":1.5,"top_p":-1,"top_k":-1,"stream":1,"system":3,"stop_sequences":["a",1],
                "metadata":[],"thinking":{"type":"maybe"},"tool_choice":{"type":"tool"},"tools":{},"service_tier":"gold"}"#,
                &[
                    "body.stop_sequences.1 string_type",
                    "body.system string_type",
                    "body.tools list_type",
                    "body.metadata dict_type",
                    "body.service_tier literal_error",
                    "body.max_tokens greater_than_equal",
                    "body.temperature less_than_equal",
                    "body.top_p greater_than_equal",
                    "body.top_k greater_than_equal",
                    "body.stream bool_type",
                    "body.thinking union_tag_invalid",
                    "body.tool_choice.tool.name missing",
                ],
            ),
            (
                r#"{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":"9","thinking":{"type":"enabled"}}"#,
                &["body.max_tokens int_parsing", "body.thinking.enabled.budget_tokens missing"],
            ),
        ];
        for (text, expect) in cases {
            let object = Object::read(Bytes::copy_from_slice(text.as_bytes())).unwrap();
            let fault = check(&object).unwrap_err();
            let found: Vec<_> =
                fault.details.iter().map(|detail| format!("{} {}", detail.loc.join("."), detail.kind)).collect();
            assert_eq!(found, *expect, "{text}");
        }
        let fault = read(r#"{"model":"m","messages":[{"role":"bot","content":"x"},{"role":"user"},{"role":"user","content":[{"type":"text"},{},{"type":"tool_use","id":1,"name":"f","input":[]}]}],"tools":[{"name":"f"},{"input_schema":{}}]}"#).unwrap_err();
        let found: Vec<_> =
            fault.details.iter().map(|detail| format!("{} {}", detail.loc.join("."), detail.kind)).collect();
        assert_eq!(
            found,
            [
                "body.messages.0.role literal_error",
                "body.messages.1.content missing",
                "body.messages.2.content.0.text.text missing",
                "body.messages.2.content.1 union_tag_not_found",
                "body.messages.2.content.2.tool_use.id string_type",
                "body.messages.2.content.2.tool_use.input dict_type",
                "body.tools.0.input_schema missing",
                "body.tools.1.name missing",
            ]
        );
    }

    #[test]
    fn defaults_and_details() {
        let call = read(
            r#"{"model":"m","system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],"messages":[
            {"role":"user","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}},{"type":"document","source":{}}]},
            {"role":"assistant","content":[{"type":"thinking","thinking":"t","signature":"sig"},{"type":"redacted_thinking","data":"d"},{"type":"tool_use","id":"a","name":"f","input":{"n": 12345678901234567890}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","is_error":true,"content":[{"type":"text","text":"r"}]}]},{"role":"system","content":"late"}],
            "tool_choice":{"type":"any","disable_parallel_tool_use":true},"tools":[{"type":"web_search_20250305","name":"web_search"},{"name":"f","input_schema":{"type":"object"}}],
            "thinking":{"type":"adaptive"},"output_config":{"effort":"low"},"context_management":{},"metadata":{"user_id":"u"}}"#,
        )
        .unwrap();
        assert_eq!(
            (call.max_tokens, call.thinking, call.parallel_tools, call.tool_choice),
            (Some(8000), Some(Thinking::Effort(Effort::Low)), Some(false), Some(ToolChoice::Required))
        );
        assert_eq!(
            call.turns.iter().map(|turn| turn.role).collect::<Vec<_>>(),
            [Role::System, Role::User, Role::Assistant, Role::User, Role::System]
        );
        assert_eq!(
            call.turns[2].content[2],
            Content::ToolCall { id: "a".into(), name: "f".into(), arguments: "{\"n\": 12345678901234567890}".into() }
        );
        assert_eq!(
            call.extra.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
            ["context_management", "content.cache_control"]
        );
        assert_eq!(call.user.as_deref(), Some("u"));
        for (word, level) in [
            ("high", Thinking::Effort(Effort::High)),
            ("xhigh", Thinking::Effort(Effort::XHigh)),
            ("max", Thinking::Effort(Effort::Max)),
            ("new", Thinking::Adaptive),
        ] {
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"thinking":{{"type":"adaptive"}},"output_config":{{"effort":"{word}"}}}}"#
            );
            assert_eq!(read(&body).unwrap().thinking, Some(level), "{word}");
        }
        assert_eq!(
            read(r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#).unwrap().thinking,
            Some(Thinking::Off)
        );
    }
}
