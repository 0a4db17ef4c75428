//! The tools of a responses request, wherever they stand, and which of them is to be called.

use crate::canon::Call;
use crate::canon::call::{Tool, ToolChoice};
use crate::wire::beyond::lose_lookalikes;
use crate::wire::check::{At, BODY, Check, Fields};
use crate::wire::json::{Json, Kind};
use crate::wire::object::Object;
use crate::wire::openai::responses::offered;
use crate::wire::openai::tools::{Names, SEARCH, as_function, flat, is_search};
use crate::wire::openai::words::choice;
use std::collections::HashSet;

pub(super) fn tools(check: &mut Check, request: &Object, call: &mut Call) {
    let at = BODY.key("tools");
    if let Some(list) = request.get("tools").filter(|list| check.depth(&at, *list)) {
        tool_list(check, &at, list, &mut call.tools, &mut call.extra);
    }
    let at = BODY.key("input");
    let mut more = Vec::new();
    // Looked for once: that is a search through the whole request.
    let among: Vec<_> = offered::among_items(request).collect();
    for (index, list) in among.iter().copied() {
        let at = at.index(index);
        let at = at.key("tools");
        check.as_list(&at, list);
        tool_list(check, &at, list, &mut more, &mut call.extra);
    }
    if !more.is_empty() {
        // The history may say one once more, and no server takes a function twice. There is room for hundreds of thousands: to
        // look for each among all before it would cost their square.
        let mut known: HashSet<String> = call.tools.iter().filter_map(function).map(str::to_owned).collect();
        more.retain(|tool| function(tool).is_none_or(|name| known.insert(name.to_owned())));
        call.tools.append(&mut more);
    }
    let lists: Vec<_> = request.get("tools").into_iter().chain(among.into_iter().map(|(_, list)| list)).collect();
    let renamed = lists.iter().any(|list| !Names::read(*list).is_empty());
    call.tools_as_sent = renamed.then(|| offered::as_one(&lists));
}

/// The name of a function.
fn function(tool: &Tool) -> Option<&str> {
    if let Tool::Function { name, .. } = tool { Some(name) } else { None }
}

fn tool_list(check: &mut Check, at: &At<'_>, list: Json<'_>, tools: &mut Vec<Tool>, extra: &mut Vec<(String, String)>) {
    for (index, json) in list.items().enumerate() {
        let at = at.index(index);
        let Some(tool) = check.as_dict(&at, json) else { continue };
        lose_lookalikes(extra, "tools", &tool);
        if tool.text("type").as_deref() != Some("namespace") {
            tools.extend(one_tool(check, &at, &tool, json, None));
            continue;
        }
        let namespace = check.need_text(&at, &tool, "name").unwrap_or_default();
        let at = at.key("tools");
        let inner = tool.get("tools").map(|inner| check.as_list(&at, inner));
        for (index, json) in inner.into_iter().flatten().enumerate() {
            let at = at.index(index);
            let Some(tool) = check.as_dict(&at, json) else { continue };
            lose_lookalikes(extra, "tools", &tool);
            if tool.text("type").as_deref() == Some("namespace") {
                check.wrong(&at.key("type"), "value_error", "A namespace cannot stand in another", None);
                continue;
            }
            tools.extend(one_tool(check, &at, &tool, json, Some(&namespace)));
        }
    }
}

fn one_tool(check: &mut Check, at: &At<'_>, tool: &Fields<'_>, json: Json<'_>, space: Option<&str>) -> Option<Tool> {
    let kind = tool.text("type").unwrap_or("function".into());
    let search = space.is_none() && is_search(tool);
    if !search && !matches!(kind.as_ref(), "function" | "custom") {
        return Some(Tool::Hosted { kind: kind.into_owned(), json: json.raw().to_owned() });
    }
    let name = if search { SEARCH.to_owned() } else { flat(space, &check.need_text(at, tool, "name")?).into_owned() };
    if kind == "custom" {
        return Some(as_function(name, tool));
    }
    let parameters = check.object(at, tool, "parameters");
    Some(Tool::Function {
        name,
        description: check.text(at, tool, "description"),
        parameters,
        strict: check.flag(at, tool, "strict"),
    })
}

/// A choice that has a canonical form.
pub(super) fn plain_choice(json: Json<'_>) -> bool {
    json.kind() != Kind::Object
        || matches!(json.get("type").and_then(Json::as_str).as_deref(), Some("function" | "custom"))
}

pub(super) fn tool_choice(check: &mut Check, request: &Object, call: &mut Call) {
    let Some(json) = request.get("tool_choice").filter(|json| plain_choice(*json)) else { return };
    let at = BODY.key("tool_choice");
    if json.kind() == Kind::Object {
        let choice = Fields::of(json);
        let name = check.need_text(&at, &choice, "name");
        call.tool_choice =
            name.map(|name| ToolChoice::Named(flat(choice.text("namespace").as_deref(), &name).into_owned()));
        return;
    }
    call.tool_choice = choice(check, request, "tool_choice");
}
