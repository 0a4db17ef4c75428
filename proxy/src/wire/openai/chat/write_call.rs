//! A call as a chat request.
//!
//! Choices: thinking of earlier turns goes out as `reasoning_content` to open servers (they ignore it or feed it to the
//! template that wants it) and is named as dropped towards OpenAI itself, which refuses unknown message fields. A failed tool
//! has no flag here, so its text begins with `Error: `. Images of a tool result go into the user message behind the results,
//! the only place where this dialect takes images.

use super::{CALL, put_custom_call};
use crate::canon::call::{Content, Format, Role, Thinking, Tool, ToolChoice};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{
    arguments_object, drop_named, earlier_object, extras, found_tool, is_prefilled, joined, refuse_part, refuse_thread,
    result_text, system_texts,
};
use crate::wire::json::write_str;
use crate::wire::openai::tools::{Names, as_input};
use crate::wire::openai::words::{effort_word, put_sampling, put_stream};
use crate::wire::put::{comma, key, merge, put_raw, put_some, put_text};
use crate::wire::{Prefill, Target, Written};
use std::borrow::Cow;

/// Sampling fields that open servers take beside OpenAI's.
const EXTENDED: &[&str] = &[
    "min_p",
    "repetition_penalty",
    "repeat_penalty",
    "typical_p",
    "min_tokens",
    "length_penalty",
    "mirostat",
    "ignore_eos",
    "top_a",
    "tfs_z",
];

pub(super) fn write_call(call: &Call, to: &Target) -> Result<Written, Fault> {
    refuse_thread(call)?;
    let call = &*joined(call, to.system_first);
    let names = Names::of(call.tools_as_sent.as_deref().filter(|_| call.family == "openai"));
    let out = Vec::with_capacity(1024);
    let mut writer = Writer { call, to, names, out, dropped: Vec::new(), adjusted: Vec::new() };
    writer.out.push(b'{');
    put_text(&mut writer.out, "model", &to.model);
    writer.messages()?;
    writer.prefill();
    writer.sampling();
    writer.tools()?;
    writer.thinking_and_extras();
    writer.out.push(b'}');
    Ok(Written { body: writer.out.into(), dropped: writer.dropped, adjusted: writer.adjusted })
}

struct Writer<'c> {
    call: &'c Call,
    to: &'c Target,
    /// What of the functions the client offered otherwise, in this dialect.
    names: Names,
    out: Vec<u8>,
    dropped: Vec<String>,
    adjusted: Vec<String>,
}

impl Writer<'_> {
    fn messages(&mut self) -> Result<(), Fault> {
        key(&mut self.out, "messages");
        self.out.push(b'[');
        if self.to.system_first {
            let texts = system_texts(&self.call.turns)?;
            if !texts.is_empty() {
                self.message("system", |out| put_text(out, "content", &texts.join("\n\n")));
            }
        }
        for turn in &self.call.turns {
            match turn.role {
                Role::System | Role::Developer => {
                    let texts = system_texts([turn])?;
                    if !self.to.system_first && !texts.is_empty() {
                        let role = if turn.role == Role::System { "system" } else { "developer" };
                        self.message(role, |out| put_text(out, "content", &texts.join("\n\n")));
                    }
                }
                Role::User => self.user(&turn.content)?,
                Role::Assistant => self.assistant(&turn.content)?,
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// A beginning of the answer. Who does not go on with it answers from the start, and the client puts both together.
    fn prefill(&mut self) {
        if !is_prefilled(self.call) {
            return;
        }
        match self.to.prefill {
            Prefill::Continued => {}
            Prefill::Told => {
                put_raw(&mut self.out, "continue_final_message", true);
                put_raw(&mut self.out, "add_generation_prompt", false);
            }
            Prefill::Ended => drop_named(&mut self.adjusted, "messages"),
        }
    }

    fn message(&mut self, role: &str, body: impl FnOnce(&mut Vec<u8>)) {
        comma(&mut self.out);
        self.out.push(b'{');
        put_text(&mut self.out, "role", role);
        body(&mut self.out);
        self.out.push(b'}');
    }

    /// Results as tool messages right behind the calls, then everything else as one user message.
    fn user(&mut self, content: &[Content]) -> Result<(), Fault> {
        let mut rest: Vec<&Content> = Vec::new();
        for part in content {
            let Content::ToolResult { id, content, is_error } = part else { continue };
            let mut texts: Vec<Cow<'_, str>> = Vec::new();
            for inner in content {
                match inner {
                    Content::Text(text) => texts.push(text.into()),
                    Content::Image(_) => {
                        texts.push("[image: in the next user message]".into());
                        rest.push(inner);
                    }
                    other => {
                        let found = found_tool(other).ok_or_else(|| refuse_part(other, "a tool result"))?;
                        texts.push(found.into());
                    }
                }
            }
            let text = result_text(&texts, *is_error);
            self.message("tool", |out| {
                put_text(out, "tool_call_id", id);
                put_text(out, "content", &text);
            });
        }
        let results = content.len() - content.iter().filter(|part| !matches!(part, Content::ToolResult { .. })).count();
        rest.extend(content.iter().filter(|part| !matches!(part, Content::ToolResult { .. })));
        if rest.is_empty() && results > 0 {
            return Ok(());
        }
        let mut parts = Vec::new();
        self.parts(&rest, &mut parts)?;
        self.message("user", |out| {
            key(out, "content");
            out.extend_from_slice(&parts);
        });
        Ok(())
    }

    /// A string where one text is all there is, else a list of parts.
    fn parts(&self, content: &[&Content], out: &mut Vec<u8>) -> Result<(), Fault> {
        match content {
            [] => write_str(out, ""),
            [Content::Text(text)] => write_str(out, text),
            _ => {
                out.push(b'[');
                for part in content {
                    comma(out);
                    self.part(part, out)?;
                }
                out.push(b']');
            }
        }
        Ok(())
    }

    fn part(&self, part: &Content, out: &mut Vec<u8>) -> Result<(), Fault> {
        match part {
            Content::Text(text) => {
                out.extend_from_slice(b"{\"type\":\"text\"");
                put_text(out, "text", text);
                out.push(b'}');
            }
            Content::Image(image) => {
                out.extend_from_slice(b"{\"type\":\"image_url\",\"image_url\":{");
                put_text(out, "url", &image.url());
                out.extend_from_slice(b"}}");
            }
            Content::Other { json, .. } if self.call.family == "openai" => out.extend_from_slice(json.as_bytes()),
            other => return Err(refuse_part(other, "a user message")),
        }
        Ok(())
    }

    fn assistant(&mut self, content: &[Content]) -> Result<(), Fault> {
        let (mut texts, mut thoughts, mut refusals, mut calls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut listed = None;
        for part in content {
            match part {
                Content::Text(text) => texts.push(text.as_str()),
                Content::Thinking { text, .. } => thoughts.push(text.as_str()),
                Content::RedactedThinking { .. } => drop_named(&mut self.dropped, "redacted_thinking"),
                Content::Refusal(text) => refusals.push(text.as_str()),
                Content::ToolCall { id, name, arguments } if self.names.custom(name).is_some() => {
                    put_custom_call(&mut calls, id, name, &as_input(arguments));
                }
                Content::ToolCall { id, name, arguments } => {
                    let arguments = match arguments_object(arguments) {
                        Some(object) => Cow::Borrowed(object),
                        None if self.to.argument_objects => earlier_object(arguments, &mut self.adjusted),
                        // Text here, whatever a model once made of it.
                        None => Cow::Borrowed(arguments.as_str()),
                    };
                    comma(&mut calls);
                    calls.push(b'{');
                    put_text(&mut calls, "id", id);
                    put_text(&mut calls, "type", "function");
                    key(&mut calls, "function");
                    calls.push(b'{');
                    put_text(&mut calls, "name", name);
                    put_text(&mut calls, "arguments", &arguments);
                    calls.extend_from_slice(b"}}");
                }
                Content::Other { kind, json } if self.call.family == "openai" && kind.starts_with(CALL) => {
                    comma(&mut calls);
                    calls.extend_from_slice(json.as_bytes());
                }
                // A part that only this family knows stands among the texts, which are parts then, too.
                Content::Other { .. } if self.call.family == "openai" => listed = Some(Vec::new()),
                other => return Err(refuse_part(other, "an assistant message")),
            }
        }
        if let Some(out) = &mut listed {
            let others = |part: &&Content| match part {
                Content::Text(_) => true,
                Content::Other { kind, .. } => !kind.starts_with(CALL),
                _ => false,
            };
            self.parts(&content.iter().filter(others).collect::<Vec<_>>(), out)?;
        }
        let open = self.to.thinking_kwargs || self.to.extended_sampling;
        if !thoughts.is_empty() && !open {
            drop_named(&mut self.dropped, "thinking");
        }
        self.message("assistant", |out| {
            match texts.is_empty() {
                _ if let Some(parts) = &listed => put_raw(out, "content", String::from_utf8_lossy(parts)),
                true if calls.is_empty() && refusals.is_empty() => put_text(out, "content", ""),
                true => put_raw(out, "content", "null"),
                false => put_text(out, "content", &texts.join("\n\n")),
            }
            if !refusals.is_empty() {
                put_text(out, "refusal", &refusals.join("\n\n"));
            }
            if !thoughts.is_empty() && open {
                let thoughts = thoughts.join("\n\n");
                put_text(out, "reasoning_content", &thoughts);
                if self.to.continuous_usage {
                    // vLLM's name of today: its chat takes both, its tokenizer only this one.
                    put_text(out, "reasoning", &thoughts);
                }
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

    fn sampling(&mut self) {
        let out = &mut self.out;
        let limit = if self.to.max_completion_tokens { "max_completion_tokens" } else { "max_tokens" };
        put_some(out, limit, self.call.max_tokens);
        put_sampling(self.call, self.to, out, &mut self.dropped, &mut self.adjusted);
        match &self.call.format {
            Some(Format::Json) => put_raw(out, "response_format", r#"{"type":"json_object"}"#),
            Some(Format::Schema { json, .. }) => {
                put_raw(out, "response_format", format_args!(r#"{{"type":"json_schema","json_schema":{json}}}"#))
            }
            None => {}
        }
        put_stream(self.call, self.to, out);
    }

    fn tools(&mut self) -> Result<(), Fault> {
        let mut tools = Vec::new();
        for tool in &self.call.tools {
            match tool {
                Tool::Function { name, .. } if let Some(named) = self.names.custom(name) => {
                    comma(&mut tools);
                    tools.extend_from_slice(named.json.as_bytes());
                }
                Tool::Function { name, description, parameters, strict } => {
                    comma(&mut tools);
                    tools.extend_from_slice(b"{\"type\":\"function\",\"function\":{");
                    put_text(&mut tools, "name", name);
                    if let Some(description) = description {
                        put_text(&mut tools, "description", description);
                    }
                    put_some(&mut tools, "parameters", parameters.as_ref());
                    put_some(&mut tools, "strict", *strict);
                    tools.extend_from_slice(b"}}");
                }
                Tool::Hosted { json, .. } if self.call.family == "openai" => {
                    comma(&mut tools);
                    tools.extend_from_slice(json.as_bytes());
                }
                Tool::Hosted { kind, .. } => drop_named(&mut self.dropped, &format!("tools.{kind}")),
            }
        }
        if tools.is_empty() {
            // A choice among no tools is an error to OpenAI; only a forced one was worth anything to the client.
            if matches!(self.call.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_))) {
                drop_named(&mut self.dropped, "tool_choice");
            }
            return Ok(());
        }
        let out = &mut self.out;
        key(out, "tools");
        out.push(b'[');
        out.extend_from_slice(&tools);
        out.push(b']');
        match &self.call.tool_choice {
            Some(ToolChoice::Auto) => put_text(out, "tool_choice", "auto"),
            Some(ToolChoice::None) => put_text(out, "tool_choice", "none"),
            Some(ToolChoice::Required) => put_text(out, "tool_choice", "required"),
            Some(ToolChoice::Named(name)) => {
                let kind = if self.names.custom(name).is_some() { "custom" } else { "function" };
                key(out, "tool_choice");
                out.push(b'{');
                put_text(out, "type", kind);
                key(out, kind);
                out.push(b'{');
                put_text(out, "name", name);
                out.extend_from_slice(b"}}");
            }
            None => {}
        }
        put_some(out, "parallel_tool_calls", self.call.parallel_tools);
        Ok(())
    }

    /// `reasoning_effort` and `chat_template_kwargs`, and then what else the client said in this family's words.
    fn thinking_and_extras(&mut self) {
        let to = self.to;
        let own = self.call.family == "openai";
        let (mut effort, mut enable) = (None, None);
        match self.call.thinking {
            None => {}
            Some(Thinking::Off) => {
                enable = to.thinking_kwargs.then_some(false);
                // Older models of OpenAI and servers refuse `none`; it is said only where nothing else can be, or where
                // the client said it in these words.
                effort = (to.reasoning_effort && (own || (!to.thinking_kwargs && !to.max_completion_tokens)))
                    .then_some("none");
            }
            Some(level) => {
                enable = to.thinking_kwargs.then_some(true);
                effort = to.reasoning_effort.then(|| effort_word(level, to.max_completion_tokens, &mut self.adjusted));
                if effort.is_none() && (enable.is_none() || matches!(level, Thinking::Effort(_))) {
                    drop_named(&mut self.dropped, if own { "reasoning_effort" } else { "thinking" });
                }
            }
        }
        if let Some(effort) = effort {
            put_text(&mut self.out, "reasoning_effort", effort);
        }
        let mut kwargs = enable.map(|enable| format!("{{\"enable_thinking\":{enable}}}").into_bytes());
        let extras = extras(self.call, "openai", &mut self.dropped);
        let repetition = extras.iter().any(|(name, _)| *name == "repetition_penalty");
        for (name, json) in extras {
            if EXTENDED.contains(&name) && !to.extended_sampling {
                drop_named(&mut self.dropped, name);
            } else if name == "chat_template_kwargs" {
                let ours = enable.filter(|_| !json.contains("enable_thinking")).map(|enable| enable.to_string());
                let edit = ours.as_ref().map(|value| ("enable_thinking", value.as_bytes()));
                kwargs = merge(json, edit.as_slice()).or(kwargs);
            } else {
                put_raw(&mut self.out, name, json);
                if name == "repeat_penalty" && !own && !repetition {
                    // Ollama's and llama.cpp's word; vLLM knows the other, and each ignores what it does not know.
                    put_raw(&mut self.out, "repetition_penalty", json);
                }
            }
        }
        if let Some(kwargs) = kwargs {
            put_raw(&mut self.out, "chat_template_kwargs", String::from_utf8_lossy(&kwargs));
        }
    }
}

#[cfg(test)]
mod tests;
