//! A call as a request of Ollama's API.
//!
//! Choices: a forced tool cannot be said here and is refused, `none` leaves the tools out. Images are bytes: an address is
//! refused by name. A failed tool has no flag, so its text begins with `Error: `; images of a result go into the user message
//! behind. Ids are written though older versions do not know them, and the tool's name beside, which all know. Which models think
//! is not known here: `think` is said where it was asked for by name.

use super::Form;
use super::read_call::SPOKEN;
use crate::canon::call::{Content, Effort, Format, Image, Role, Thinking, Tool, ToolChoice};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{
    NEVER, drop_named, earlier_object, found_tool, is_shared, joined, refuse_part, refuse_silence, refuse_thread,
    result_text, system_texts,
};
use crate::wire::json::validate;
use crate::wire::put::{comma, key, number, put_raw, put_some, put_text, put_texts};
use crate::wire::{Target, Written};
use std::borrow::Cow;

pub(super) fn write_call(form: Form, call: &Call, to: &Target) -> Result<Written, Fault> {
    if form == Form::Chat || call.family != "ollama" {
        refuse_thread(call)?;
    }
    if call.choices > 1 {
        return Err(Fault::unsupported("n", "`n` greater than 1 is not supported for this model."));
    }
    let call = &*joined(call, to.system_first);
    let mut writer = Writer { call, out: Vec::with_capacity(1024), dropped: Vec::new(), adjusted: Vec::new() };
    writer.out.push(b'{');
    put_text(&mut writer.out, "model", &to.model);
    match form {
        Form::Chat => {
            writer.messages(to)?;
            writer.tools()?;
        }
        Form::Generate => writer.prompt()?,
    }
    writer.format_and_thinking(&to.model);
    writer.options_and_extras();
    put_raw(&mut writer.out, "stream", call.stream);
    writer.out.push(b'}');
    Ok(Written { body: writer.out.into(), dropped: writer.dropped, adjusted: writer.adjusted })
}

struct Writer<'c> {
    call: &'c Call,
    out: Vec<u8>,
    dropped: Vec<String>,
    adjusted: Vec<String>,
}

/// The flat content of a message.
#[derive(Default)]
struct Said<'c> {
    texts: Vec<&'c str>,
    images: Vec<&'c str>,
}

impl<'c> Said<'c> {
    /// Takes a part that this dialect has a place for; gives back every other.
    fn take(&mut self, part: &'c Content) -> Result<Option<&'c Content>, Fault> {
        match part {
            Content::Text(text) | Content::Refusal(text) => self.texts.push(text),
            Content::Image(Image::Data { data, .. }) => self.images.push(data),
            Content::Image(Image::Url(_)) => {
                return Err(Fault::unsupported(
                    "messages",
                    "This model takes images as base64 data only: an image part with a URL cannot be sent to it.",
                ));
            }
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    fn put(&self, text: &str, out: &mut Vec<u8>) {
        put_text(out, text, &self.texts.join("\n\n"));
        if !self.images.is_empty() {
            put_texts(out, "images", &self.images);
        }
    }
}

impl<'c> Writer<'c> {
    fn messages(&mut self, to: &Target) -> Result<(), Fault> {
        key(&mut self.out, "messages");
        self.out.push(b'[');
        if to.system_first {
            let texts = system_texts(&self.call.turns)?;
            if !texts.is_empty() {
                self.message("system", |out| put_text(out, "content", &texts.join("\n\n")));
            }
        }
        for turn in &self.call.turns {
            match turn.role {
                Role::System | Role::Developer => {
                    let texts = system_texts([turn])?;
                    if !to.system_first && !texts.is_empty() {
                        self.message("system", |out| put_text(out, "content", &texts.join("\n\n")));
                    }
                }
                Role::User => self.user(&turn.content)?,
                Role::Assistant => self.assistant(&turn.content)?,
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn message(&mut self, role: &str, body: impl FnOnce(&mut Vec<u8>)) {
        comma(&mut self.out);
        self.out.push(b'{');
        put_text(&mut self.out, "role", role);
        body(&mut self.out);
        self.out.push(b'}');
    }

    /// Results as tool messages right behind the calls, then everything else as one user message.
    fn user(&mut self, content: &'c [Content]) -> Result<(), Fault> {
        let mut rest = Said::default();
        let (mut results, mut others) = (0, 0);
        for part in content {
            let Content::ToolResult { id, content, is_error } = part else { continue };
            results += 1;
            let mut texts: Vec<Cow<'_, str>> = Vec::new();
            for inner in content {
                match inner {
                    Content::Text(text) => texts.push(text.into()),
                    Content::Image(_) => {
                        texts.push("[image: in the next user message]".into());
                        rest.take(inner)?;
                        others += 1;
                    }
                    other => {
                        let found = found_tool(other).ok_or_else(|| refuse_part(other, "a tool result"))?;
                        texts.push(found.into());
                    }
                }
            }
            let text = result_text(&texts, *is_error);
            let name = self.tool_name(id);
            self.message("tool", |out| {
                put_text(out, "content", &text);
                if let Some(name) = name {
                    put_text(out, "tool_name", name);
                }
                put_text(out, "tool_call_id", some_id(id));
            });
        }
        for part in content.iter().filter(|part| !matches!(part, Content::ToolResult { .. })) {
            others += 1;
            if let Some(other) = rest.take(part)? {
                return Err(refuse_part(other, "a user message"));
            }
        }
        if others > 0 || results == 0 {
            self.message("user", |out| rest.put("content", out));
        }
        Ok(())
    }

    /// The tool that a call of this id named.
    fn tool_name(&self, wanted: &str) -> Option<&'c str> {
        self.call.turns.iter().rev().flat_map(|turn| &turn.content).find_map(|part| match part {
            Content::ToolCall { id, name, .. } if id == wanted => Some(name.as_str()),
            _ => None,
        })
    }

    fn assistant(&mut self, content: &'c [Content]) -> Result<(), Fault> {
        let (mut said, mut thoughts, mut calls) = (Said::default(), Vec::new(), Vec::new());
        for part in content {
            match said.take(part)? {
                None => {}
                Some(Content::Thinking { text, .. }) => thoughts.push(text.as_str()),
                Some(Content::RedactedThinking { .. }) => drop_named(&mut self.dropped, "redacted_thinking"),
                Some(Content::ToolCall { id, name, arguments }) => {
                    let arguments = earlier_object(arguments, &mut self.adjusted);
                    put_call(&mut calls, some_id(id), name, &arguments);
                }
                Some(other) => return Err(refuse_part(other, "an assistant message")),
            }
        }
        self.message("assistant", |out| {
            said.put("content", out);
            if !thoughts.is_empty() {
                put_text(out, "thinking", &thoughts.join("\n\n"));
            }
            if !calls.is_empty() {
                key(out, "tool_calls");
                out.push(b'[');
                out.extend_from_slice(&calls);
                out.push(b']');
            }
        });
        Ok(())
    }

    fn tools(&mut self) -> Result<(), Fault> {
        let mut tools = Vec::new();
        for tool in &self.call.tools {
            match tool {
                Tool::Function { name, description, parameters, strict } => {
                    comma(&mut tools);
                    tools.extend_from_slice(b"{\"type\":\"function\",\"function\":{");
                    put_text(&mut tools, "name", name);
                    if let Some(description) = description {
                        put_text(&mut tools, "description", description);
                    }
                    let nothing = r#"{"type":"object","properties":{}}"#;
                    put_raw(&mut tools, "parameters", parameters.as_deref().unwrap_or(nothing));
                    tools.extend_from_slice(b"}}");
                    if *strict == Some(true) {
                        drop_named(&mut self.dropped, "tools.strict");
                    }
                }
                Tool::Hosted { json, .. } if self.call.family == "ollama" => {
                    comma(&mut tools);
                    tools.extend_from_slice(json.as_bytes());
                }
                Tool::Hosted { kind, .. } => drop_named(&mut self.dropped, &format!("tools.{kind}")),
            }
        }
        match &self.call.tool_choice {
            Some(ToolChoice::Required | ToolChoice::Named(_)) if tools.is_empty() => {
                drop_named(&mut self.dropped, "tool_choice");
            }
            Some(ToolChoice::Required | ToolChoice::Named(_)) => {
                return Err(Fault::unsupported("tool_choice", "This model cannot be made to call a tool."));
            }
            Some(ToolChoice::None) => return Ok(()),
            Some(ToolChoice::Auto) | None => {}
        }
        if !tools.is_empty() {
            key(&mut self.out, "tools");
            self.out.push(b'[');
            self.out.extend_from_slice(&tools);
            self.out.push(b']');
            if self.call.parallel_tools == Some(false) {
                drop_named(&mut self.dropped, "parallel_tool_calls");
            }
        }
        Ok(())
    }

    /// A conversation of one turn is a prompt; any other is not.
    fn prompt(&mut self) -> Result<(), Fault> {
        if !self.call.tools.is_empty() {
            return Err(Fault::unsupported("tools", "A prompt cannot be given tools."));
        }
        let system = system_texts(&self.call.turns)?;
        let mut said = Said::default();
        let mut spoken = self.call.turns.iter().filter(|turn| !turn.role.is_system()).peekable();
        let any = spoken.peek().is_some();
        for (at, turn) in spoken.enumerate() {
            if turn.role != Role::User || at > 0 {
                return Err(Fault::unsupported(
                    "messages",
                    "A conversation of several turns cannot be sent as one prompt.",
                ));
            }
            for part in &turn.content {
                if let Some(other) = said.take(part)? {
                    return Err(refuse_part(other, "a prompt"));
                }
            }
        }
        if any {
            said.put("prompt", &mut self.out);
        } else if self.call.family != "ollama" {
            // Without a prompt it would load the model and say nothing, which only a client of this API can want.
            return Err(refuse_silence());
        }
        if !system.is_empty() {
            put_text(&mut self.out, "system", &system.join("\n\n"));
        }
        Ok(())
    }

    fn format_and_thinking(&mut self, model: &str) {
        match &self.call.format {
            None => {}
            Some(Format::Json) => put_text(&mut self.out, "format", "json"),
            Some(Format::Schema { json, .. }) => {
                let whole = validate(json.as_bytes()).ok();
                match whole.and_then(|whole| whole.get("schema")) {
                    Some(schema) => put_raw(&mut self.out, "format", schema.raw()),
                    None => put_text(&mut self.out, "format", "json"),
                }
            }
        }
        let own = self.call.family == "ollama";
        match self.call.thinking {
            None => {}
            Some(Thinking::Off) => put_raw(&mut self.out, "think", false),
            // As the model sees fit: one that can think does so unasked, and one that cannot refuses the word.
            Some(Thinking::Adaptive) if !own => {}
            Some(Thinking::Adaptive | Thinking::Budget(_)) => put_raw(&mut self.out, "think", true),
            // Of that family an effort goes with adaptive thinking.
            Some(Thinking::Effort(_)) if self.call.family == "anthropic" && !has_levels(model) => {
                drop_named(&mut self.dropped, "output_config.effort");
            }
            Some(Thinking::Effort(_)) if !own && !has_levels(model) => {
                drop_named(&mut self.adjusted, "reasoning_effort");
                put_raw(&mut self.out, "think", true);
            }
            Some(Thinking::Effort(effort)) => {
                let (word, exact) = match effort {
                    Effort::Minimal => ("low", false),
                    Effort::Low => ("low", true),
                    Effort::Medium => ("medium", true),
                    Effort::High => ("high", true),
                    // Words of newer versions: whoever says them has one.
                    Effort::XHigh if own => ("xhigh", true),
                    Effort::Max if own => ("max", true),
                    Effort::XHigh | Effort::Max => ("high", false),
                };
                if !exact {
                    drop_named(&mut self.adjusted, "reasoning_effort");
                }
                put_text(&mut self.out, "think", word);
            }
        }
    }

    fn options_and_extras(&mut self) {
        let (call, own) = (self.call, self.call.family == "ollama");
        let mut options = b"{".to_vec();
        put_some(&mut options, "num_predict", call.max_tokens);
        for (name, value) in [
            ("temperature", call.temperature),
            ("top_p", call.top_p),
            ("presence_penalty", call.presence_penalty),
            ("frequency_penalty", call.frequency_penalty),
        ] {
            put_some(&mut options, name, value.map(number));
        }
        put_some(&mut options, "top_k", call.top_k);
        put_some(&mut options, "seed", call.seed);
        if !call.stop.is_empty() {
            put_texts(&mut options, "stop", &call.stop);
        }
        if call.user.is_some() {
            drop_named(&mut self.dropped, "user");
        }
        for (name, json) in call.extra.iter().filter(|(name, _)| !NEVER.contains(&name.as_str())) {
            match name.strip_prefix("options.") {
                Some(option) if own => put_raw(&mut options, option, json),
                // Two words for one thing, of which this server knows the other.
                _ if name == "repetition_penalty" && call.extra.iter().any(|(name, _)| name == "repeat_penalty") => {
                    drop_named(&mut self.dropped, name);
                }
                _ if is_shared(name) && matches!(call.family, "openai" | "ollama") => {
                    let name = if name == "repetition_penalty" { "repeat_penalty" } else { name };
                    put_raw(&mut options, name, json);
                }
                // What the other form calls its own is said here already, in this form's words.
                _ if own && !name.contains('.') && !SPOKEN.contains(&name.as_str()) => {
                    put_raw(&mut self.out, name, json)
                }
                _ => drop_named(&mut self.dropped, name),
            }
        }
        if options.len() > 1 {
            options.push(b'}');
            put_raw(&mut self.out, "options", String::from_utf8_lossy(&options));
        }
    }
}

/// Levels of thinking are made for one family of models; for others most versions refuse them.
fn has_levels(model: &str) -> bool {
    model.to_ascii_lowercase().contains("gpt-oss")
}

/// An empty id is none to this API; calls and results change alike.
fn some_id(id: &str) -> &str {
    if id.is_empty() { "_" } else { id }
}

/// A call of a tool, as both ends of this dialect write it.
pub(super) fn put_call(out: &mut Vec<u8>, id: &str, name: &str, arguments: &str) {
    comma(out);
    out.push(b'{');
    put_text(out, "id", id);
    key(out, "function");
    out.push(b'{');
    put_text(out, "name", name);
    put_raw(out, "arguments", arguments);
    out.extend_from_slice(b"}}");
}

#[cfg(test)]
mod tests;
