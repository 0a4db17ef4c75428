//! A chat request as a call.

mod turns;

use crate::canon::call::{Format, Tool, ToolChoice};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{extra, lose_lookalikes};
use crate::wire::check::{At, BODY, Check, Fields, present};
use crate::wire::json::{Json, Kind};
use crate::wire::object::Object;
use crate::wire::openai::tools::{Names, as_function, custom};
use crate::wire::openai::words::{choice, effort, sampling, stream};
use turns::Turns;

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
mod tests;
