//! What is said in a turn, as blocks.

use super::Writer;
use crate::canon::Fault;
use crate::canon::call::{Content, Image};
use crate::wire::anthropic::MARKER;
use crate::wire::beyond::{drop_named, earlier_object, found_tool, refuse_part};
use crate::wire::put::{comma, key, put_raw, put_text};

/// Consecutive turns of one side, their blocks written.
#[derive(Default)]
pub(super) struct Merged {
    pub assistant: bool,
    /// Tool results: first in a user turn.
    pub results: Vec<u8>,
    pub blocks: Vec<u8>,
    pub thinks_first: bool,
    pub calls: bool,
}

impl<'c> Writer<'c> {
    /// Writes one piece of a turn.
    pub(super) fn block(&mut self, part: &'c Content, turn: &mut Merged) -> Result<(), Fault> {
        let own = self.call.family == "anthropic";
        let first = turn.blocks.is_empty();
        match part {
            part if is_blank(part) => {}
            Content::Text(text) | Content::Refusal(text) => put_block_text(&mut turn.blocks, text),
            Content::Image(image) if !turn.assistant => put_image(&mut turn.blocks, image),
            Content::Thinking { text, signature: Some(signature) }
                if turn.assistant && !signature.is_empty() && signature != MARKER =>
            {
                turn.thinks_first |= first;
                let out = &mut turn.blocks;
                comma(out);
                out.extend_from_slice(b"{\"type\":\"thinking\"");
                put_text(out, "thinking", text);
                put_text(out, "signature", signature);
                out.push(b'}');
            }
            Content::Thinking { .. } => drop_named(&mut self.dropped, "thinking"),
            Content::RedactedThinking { data } if own => {
                turn.thinks_first |= first;
                let out = &mut turn.blocks;
                comma(out);
                out.extend_from_slice(b"{\"type\":\"redacted_thinking\"");
                put_text(out, "data", data);
                out.push(b'}');
            }
            // Another vendor's secrets.
            Content::RedactedThinking { .. } => drop_named(&mut self.dropped, "redacted_thinking"),
            Content::ToolCall { id, name, arguments } if turn.assistant => {
                let input = earlier_object(arguments, &mut self.adjusted);
                let id = self.ids.call(id, !turn.calls);
                turn.calls = true;
                let out = &mut turn.blocks;
                comma(out);
                out.extend_from_slice(b"{\"type\":\"tool_use\"");
                put_text(out, "id", &id);
                put_text(out, "name", name);
                put_raw(out, "input", input);
                out.push(b'}');
            }
            Content::ToolResult { id, content, is_error } if !turn.assistant => {
                put_result(&mut turn.results, &self.ids.result(id), content, *is_error, own)?
            }
            Content::Other { json, .. } if own => {
                comma(&mut turn.blocks);
                turn.blocks.extend_from_slice(json.as_bytes());
            }
            other => {
                return Err(refuse_part(other, if turn.assistant { "an assistant message" } else { "a user message" }));
            }
        }
        Ok(())
    }
}

/// A text without a word, which Anthropic refuses.
fn is_blank(part: &Content) -> bool {
    matches!(part, Content::Text(text) | Content::Refusal(text) if text.trim_ascii().is_empty())
}

pub(super) fn put_block_text(out: &mut Vec<u8>, text: &str) {
    comma(out);
    out.extend_from_slice(b"{\"type\":\"text\"");
    put_text(out, "text", text);
    out.push(b'}');
}

/// What a tool answered. `own`: parts that only this dialect knows are its own.
fn put_result(out: &mut Vec<u8>, id: &str, content: &[Content], is_error: bool, own: bool) -> Result<(), Fault> {
    comma(out);
    out.extend_from_slice(b"{\"type\":\"tool_result\"");
    put_text(out, "tool_use_id", id);
    let said: Vec<&Content> = content.iter().filter(|part| !is_blank(part)).collect();
    match said.as_slice() {
        [] => {}
        [Content::Text(text)] => put_text(out, "content", text),
        parts => {
            key(out, "content");
            out.push(b'[');
            for part in parts {
                match part {
                    Content::Text(text) => put_block_text(out, text),
                    Content::Image(image) => put_image(out, image),
                    Content::Other { json, .. } if own => {
                        comma(out);
                        out.extend_from_slice(json.as_bytes());
                    }
                    other => {
                        let found = found_tool(other).ok_or_else(|| refuse_part(other, "a tool result"))?;
                        put_block_text(out, &found);
                    }
                }
            }
            out.push(b']');
        }
    }
    if is_error {
        put_raw(out, "is_error", true);
    }
    out.push(b'}');
    Ok(())
}

fn put_image(out: &mut Vec<u8>, image: &Image) {
    comma(out);
    out.extend_from_slice(b"{\"type\":\"image\",\"source\":{");
    match image {
        Image::Url(url) => {
            put_text(out, "type", "url");
            put_text(out, "url", url);
        }
        Image::Data { media_type, data } => {
            put_text(out, "type", "base64");
            put_text(out, "media_type", media_type);
            put_text(out, "data", data);
        }
    }
    out.extend_from_slice(b"}}");
}
