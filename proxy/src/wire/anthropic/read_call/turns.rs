//! Messages as turns, their blocks as content.

use crate::canon::call::{Content, Image, Role, Turn};
use crate::wire::beyond::lose;
use crate::wire::check::{At, Check, Fields};
use crate::wire::json::{Json, Kind};

pub(super) struct Turns<'c> {
    pub(super) check: &'c mut Check,
    pub(super) extra: &'c mut Vec<(String, String)>,
}

impl Turns<'_> {
    pub(super) fn message(&mut self, at: &At<'_>, json: Json<'_>) -> Option<Turn> {
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

    pub(super) fn content(&mut self, at: &At<'_>, json: Option<Json<'_>>) -> Vec<Content> {
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
            Some("url") => self.check.need_image(&at, &source, "url"),
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
