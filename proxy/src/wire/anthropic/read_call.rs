//! A messages request as a call. The fields and their ranges are DeepFellow's published table.

mod turns;

use crate::canon::call::{Content, Effort, Format, Role, Thinking, Tool, ToolChoice, Turn};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{BILLING, extra, lose};
use crate::wire::check::{BODY, Check, present};
use crate::wire::json::Kind;
use crate::wire::object::Object;
use crate::wire::put::put_raw;
use turns::Turns;

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
mod tests;
