//! A responses request as a call.
//!
//! Items in a row that one side said are one turn, as in the richer grammar: thinking, texts and calls of the model; results of
//! tools. What only a server of this dialect can read (encrypted reasoning, searches it made) is kept as opaque thinking and
//! goes back to such a server alone.

mod client;
mod offer;

use super::tools::{as_arguments, flat};
use super::{WORDS, is_clients, offered};
use crate::canon::call::{Content, Format, Role, Thinking, Turn};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{extra, lose};
use crate::wire::check::{At, BODY, Check, Fields, present};
use crate::wire::json::{Json, Kind};
use crate::wire::object::Object;
use crate::wire::openai::words::effort;
use crate::wire::put::put_raw;
use offer::{plain_choice, tool_choice, tools};

/// Fields with a canonical form, and those that mean nothing here. Everything else is `extra`.
const KNOWN: &[&str] = &[
    "model",
    "input",
    "instructions",
    "max_output_tokens",
    "temperature",
    "top_p",
    "stream",
    "stream_options",
    "user",
    "tools",
    "parallel_tool_calls",
    "text",
    "reasoning",
    // Accepted and answered with false.
    "store",
];

pub(super) fn check(request: &Object) -> Result<(), Fault> {
    let mut check = Check::default();
    scalars(&mut check, request);
    check.finish(())
}

pub(super) fn read_call(request: &Object) -> Result<Call, Fault> {
    let mut check = Check::default();
    let mut call = scalars(&mut check, request);
    // As in chat: a backend of this dialect may have words of its own.
    call.thinking = thinking(&mut check, request);
    call.extra = extra(request, |name, json| match name {
        "background" => json.as_bool() == Some(false),
        "tool_choice" => plain_choice(json),
        _ => KNOWN.contains(&name),
    });
    let mut reader = Turns { check: &mut check, turns: Vec::new(), extra: &mut call.extra };
    if let Some(text) = request.get("instructions").and_then(Json::as_str) {
        reader.turns.push(Turn::text(Role::System, text));
    }
    let at = BODY.key("input");
    if let Some(input) = request.get("input").filter(|input| reader.check.depth(&at, *input)) {
        match input.as_str() {
            Some(text) => reader.turns.push(Turn::text(Role::User, text)),
            None => input.items().enumerate().for_each(|(index, item)| reader.item(&at.index(index), item)),
        }
    }
    call.turns = reader.turns;
    tools(&mut check, request, &mut call);
    tool_choice(&mut check, request, &mut call);
    text(&mut check, request, &mut call);
    check.finish(call)
}

/// The top level: types and ranges of everything that is not a list of objects.
fn scalars(check: &mut Check, request: &Object) -> Call {
    let model = check.model(request).unwrap_or_default();
    match request.get("input") {
        Some(input) if input.kind() == Kind::String => {
            check.as_text(&BODY.key("input"), input);
        }
        Some(input) => {
            check.as_list(&BODY.key("input"), input);
            if input.kind() == Kind::Array && !input.has_items() {
                let msg = "List should have at least 1 item after validation, not 0";
                check.wrong(&BODY.key("input"), "too_short", msg, Some(input));
            }
        }
        // What is kept at the backend may be all there is.
        None if ["previous_response_id", "conversation", "prompt"].iter().any(|name| request.get(name).is_some()) => {}
        None => check.wrong(&BODY.key("input"), "missing", "Field required", None),
    }
    for name in ["instructions", "previous_response_id"] {
        check.text(&BODY, request, name);
    }
    for name in ["store", "background"] {
        check.flag(&BODY, request, name);
    }
    if let Some(json) = present(request, "tools") {
        check.as_list(&BODY.key("tools"), json);
    }
    let stream = check.flag(&BODY, request, "stream").unwrap_or(false);
    Call {
        model,
        max_tokens: check.int(&BODY, request, "max_output_tokens", 1..=i64::MAX).map(i64::unsigned_abs),
        stream,
        stream_usage: stream,
        temperature: check.num(&BODY, request, "temperature", 0.0..=2.0),
        top_p: check.num(&BODY, request, "top_p", 0.0..=1.0),
        choices: 1,
        user: check.text(&BODY, request, "user"),
        parallel_tools: check.flag(&BODY, request, "parallel_tool_calls"),
        family: WORDS,
        ..Call::default()
    }
}

fn thinking(check: &mut Check, request: &Object) -> Option<Thinking> {
    let at = BODY.key("reasoning");
    let reasoning = present(request, "reasoning").and_then(|json| check.as_dict(&at, json))?;
    effort(check, &at, &reasoning, "effort")
}

/// Items as turns.
struct Turns<'c> {
    check: &'c mut Check,
    turns: Vec<Turn>,
    extra: &'c mut Vec<(String, String)>,
}

impl Turns<'_> {
    fn item(&mut self, at: &At<'_>, json: Json<'_>) {
        let Some(item) = self.check.as_dict(at, json) else { return };
        let kind = match item.text("type") {
            Some(kind) => kind.into_owned(),
            None if item.get("role").is_some() => "message".into(),
            None => {
                let msg = "Unable to extract tag using discriminator 'type'";
                return self.check.wrong(at, "union_tag_not_found", msg, Some(json));
            }
        };
        match kind.as_str() {
            "message" => self.message(at, &item),
            "function_call" | "custom_tool_call" => self.call(at, &item, &kind),
            "function_call_output" | "custom_tool_call_output" => self.result(at, &item),
            "reasoning" => self.reasoning(&item, json),
            "tool_search_call" if is_clients(&item) => self.search(at, &item),
            offered::FOUND if is_clients(&item) => self.found(at, &item, json),
            "local_shell_call" => self.shell(at, &item),
            // What the vendor found by itself has gone into the text behind it, or is on offer; what it has made of a
            // conversation that was too long only it can read.
            "web_search_call"
            | "tool_search_call"
            | offered::FOUND
            | "image_generation_call"
            | "compaction"
            | "compaction_summary"
            | "context_compaction" => {
                lose(self.extra, format!("input.{kind}"), json);
                self.said(Content::RedactedThinking { data: json.raw().to_owned() });
            }
            // With the other tools, see `tools`.
            offered::ITEM => self.lose_beyond(&item, &["type", "role", "id", "status", "tools"]),
            _ => self.said(Content::Other { kind, json: json.raw().to_owned() }),
        }
    }

    /// More of what the model said.
    fn said(&mut self, content: Content) {
        match self.turns.last_mut() {
            Some(turn) if turn.role == Role::Assistant => turn.content.push(content),
            _ => self.turns.push(Turn { role: Role::Assistant, content: vec![content] }),
        }
    }

    fn lose_beyond(&mut self, item: &Fields<'_>, known: &[&str]) {
        for (name, json) in item.beyond(known) {
            lose(self.extra, format!("input.{name}"), json);
        }
    }

    fn message(&mut self, at: &At<'_>, item: &Fields<'_>) {
        self.lose_beyond(item, &["type", "role", "content", "id", "status"]);
        if item.get("role").is_none() {
            return self.check.wrong(&at.key("role"), "missing", "Field required", None);
        }
        let roles = ["user", "assistant", "system", "developer"];
        let Some(role) = self.check.word(at, item, "role", &roles) else { return };
        let Some(content) = self.check.need(at, item, "content") else { return };
        let content = self.content(&at.key("content"), content);
        let role = match role {
            "assistant" => return content.into_iter().for_each(|part| self.said(part)),
            "system" => Role::System,
            "developer" => Role::Developer,
            _ => Role::User,
        };
        self.turns.push(Turn { role, content });
    }

    /// Text or parts.
    fn content(&mut self, at: &At<'_>, json: Json<'_>) -> Vec<Content> {
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
        let (known, name): (&[&str], _) = match kind.as_ref() {
            "input_text" | "output_text" | "text" => (&["type", "text", "annotations", "logprobs"], "text"),
            "refusal" => (&["type", "refusal"], "refusal"),
            "input_image" if part.get("image_url").is_some() => (&["type", "image_url", "detail"], "image_url"),
            _ => return Some(Content::Other { kind: kind.into_owned(), json: json.raw().to_owned() }),
        };
        for (name, json) in part.beyond(known) {
            lose(self.extra, format!("content.{name}"), json);
        }
        let text = self.check.need_text(at, &part, name)?;
        match name {
            "text" => Some(Content::Text(text)),
            "refusal" => Some(Content::Refusal(text)),
            _ => {
                if let Some(detail) = part.get("detail").filter(|detail| detail.as_str().as_deref() != Some("auto")) {
                    lose(self.extra, "input_image.detail".into(), detail);
                }
                self.check.image(&at.key("image_url"), text)
            }
        }
    }

    fn call(&mut self, at: &At<'_>, item: &Fields<'_>, kind: &str) {
        let custom = kind == "custom_tool_call";
        let words = if custom { "input" } else { "arguments" };
        self.lose_beyond(item, &["type", "id", "status", "call_id", "name", "namespace", words]);
        let id = self.check.need_text(at, item, "call_id");
        let name = self.check.need_text(at, item, "name");
        let text = self.check.need_text(at, item, words);
        let (Some(id), Some(name), Some(text)) = (id, name, text) else { return };
        let name = flat(item.text("namespace").as_deref(), &name).into_owned();
        let arguments = if custom { as_arguments(&text) } else { text };
        self.said(Content::ToolCall { id, name, arguments });
    }

    fn result(&mut self, at: &At<'_>, item: &Fields<'_>) {
        self.lose_beyond(item, &["type", "id", "status", "call_id", "output"]);
        let id = self.check.need_text(at, item, "call_id");
        let Some(output) = self.check.need(at, item, "output") else { return };
        let content = self.content(&at.key("output"), output);
        let Some(id) = id else { return };
        Turn::add_result(&mut self.turns, id, content);
    }

    fn reasoning(&mut self, item: &Fields<'_>, json: Json<'_>) {
        let text = thoughts(item);
        self.said(match item.get("encrypted_content") {
            None if !text.is_empty() => Content::Thinking { text, signature: None },
            _ => Content::RedactedThinking { data: json.raw().to_owned() },
        });
    }
}

/// The readable text of a reasoning item.
pub(super) fn thoughts(item: &Fields<'_>) -> String {
    let texts = |name: &str| -> Vec<String> {
        let parts = item.get(name).into_iter().flat_map(Json::items);
        parts.filter_map(|part| part.get("text").and_then(Json::as_str)).map(std::borrow::Cow::into_owned).collect()
    };
    let summary = texts("summary");
    if summary.is_empty() { texts("content") } else { summary }.join("\n\n")
}

/// `text.format`, and what else `text` and `reasoning` say.
fn text(check: &mut Check, request: &Object, call: &mut Call) {
    for (name, known) in [("text", "format"), ("reasoning", "effort")] {
        for (inner, json) in request.get(name).into_iter().flat_map(Json::entries) {
            if inner != known && !json.is_null() {
                lose(&mut call.extra, format!("{name}.{inner}"), json);
            }
        }
    }
    let at = BODY.key("text");
    let Some(text) = request.get("text").and_then(|json| check.as_dict(&at, json)) else { return };
    let Some(json) = text.get("format") else { return };
    let at = at.key("format");
    let Some(format) = check.as_dict(&at, json) else { return };
    match check.tag(&at, &format, json, &["text", "json_object", "json_schema"]) {
        Some("json_object") => call.format = Some(Format::Json),
        Some("json_schema") => {
            let name = check.need_text(&at, &format, "name");
            let schema = check.need(&at, &format, "schema");
            schema.and_then(|schema| check.as_dict(&at.key("schema"), schema));
            if let (Some(name), Some(_)) = (name, schema) {
                call.format = Some(Format::Schema { name, json: nested(json) });
            }
        }
        _ => {}
    }
}

/// The members of a format without its type word: what chat calls `json_schema`.
fn nested(format: Json<'_>) -> String {
    let mut out = b"{".to_vec();
    for (name, json) in format.entries().filter(|(name, json)| name != "type" && !json.is_null()) {
        put_raw(&mut out, &name, json.raw());
    }
    out.push(b'}');
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests;
