//! Messages as turns, their parts as content.

use super::need;
use crate::canon::call::{Content, Role, Turn};
use crate::wire::beyond::{lose, lose_lookalikes};
use crate::wire::check::{At, Check, Fields};
use crate::wire::json::{Json, Kind};
use crate::wire::openai::chat::CALL;
use crate::wire::openai::tools::{Names, as_arguments};

/// Messages as turns: tool messages in a row are one user turn, as in the richer grammar.
pub(super) struct Turns<'c> {
    pub(super) check: &'c mut Check,
    pub(super) names: &'c Names,
    pub(super) turns: Vec<Turn>,
    pub(super) extra: &'c mut Vec<(String, String)>,
}

impl Turns<'_> {
    pub(super) fn message(&mut self, at: &At<'_>, json: Json<'_>) {
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
        self.check.image(at, url)
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
