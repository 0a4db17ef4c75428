//! A call as a responses request.
//!
//! Choices: `store` is always false, since no other dialect's client asked its vendor to keep anything. Stop sequences and
//! several answers cannot be said here and are refused; penalties and a seed are dropped by name. Texts of the model go out one
//! item each, so that a request of this dialect which was edited keeps its items one by one. Thinking of earlier turns goes to
//! open servers only: OpenAI takes none that it has not encrypted itself.

mod offer;

use super::tools::{Form, Names, as_input};
use super::{FOUND, WORDS, offered};
use crate::canon::call::{Content, Format, Role, Thinking, Tool, Turn};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{
    arguments_object, drop_chat_sampling, drop_named, earlier_object, extras, found_tool, is_prefilled, refuse_part,
    refuse_silence, refuse_thread, says_error, system_texts,
};
use crate::wire::check::Fields;
use crate::wire::json::{validate, write_str};
use crate::wire::openai::words::{effort_word, put_user};
use crate::wire::put::{comma, key, merge, number, put_raw, put_some, put_text};
use crate::wire::{Target, Written};

/// What `text.format` and chat's `json_schema` have in common.
const SCHEMED: [&str; 4] = ["name", "description", "schema", "strict"];

pub(super) fn write_call(call: &Call, to: &Target) -> Result<Written, Fault> {
    refuse_thread(call)?;
    if call.choices > 1 {
        return Err(Fault::unsupported("n", "`n` greater than 1 is not supported for this model."));
    }
    if !call.stop.is_empty() {
        return Err(Fault::unsupported("stop", "Stop sequences are not supported for this model."));
    }
    let own = call.family == WORDS;
    let names = Names::of(call.tools_as_sent.as_deref().filter(|_| own));
    let out = Vec::with_capacity(1024);
    let mut writer = Writer { call, to, own, names, out, dropped: Vec::new(), adjusted: Vec::new(), thoughts: 0 };
    writer.out.push(b'{');
    put_text(&mut writer.out, "model", &to.model);
    writer.input()?;
    writer.sampling();
    writer.tools();
    writer.format();
    writer.thinking_and_extras();
    writer.out.push(b'}');
    Ok(Written { body: writer.out.into(), dropped: writer.dropped, adjusted: writer.adjusted })
}

struct Writer<'c> {
    call: &'c Call,
    to: &'c Target,
    /// The call came in this dialect.
    own: bool,
    names: Names,
    out: Vec<u8>,
    dropped: Vec<String>,
    adjusted: Vec<String>,
    thoughts: usize,
}

impl Writer<'_> {
    fn input(&mut self) -> Result<(), Fault> {
        // A conversation of instructions alone stays where it is: `input` may not be empty.
        let spoken = self.call.turns.iter().any(|turn| !turn.role.is_system());
        // `instructions` is a text.
        let is_text = |turn: &Turn| turn.content.iter().all(|part| matches!(part, Content::Text(_)));
        let first = self.call.turns.first().filter(|turn| spoken && turn.role == Role::System && is_text(turn));
        let gather = self.to.system_first && spoken;
        let texts = if gather { system_texts(&self.call.turns)? } else { system_texts(first)? };
        if !texts.is_empty() {
            put_text(&mut self.out, "instructions", &texts.join("\n\n"));
        }
        let told = usize::from(first.is_some() && !gather);
        key(&mut self.out, "input");
        self.out.push(b'[');
        for turn in self.call.turns.iter().skip(told) {
            match turn.role {
                Role::System | Role::Developer if gather => {}
                Role::System => self.message("system", &turn.content)?,
                Role::Developer => self.message("developer", &turn.content)?,
                Role::User => self.user(&turn.content)?,
                Role::Assistant => self.assistant(&turn.content)?,
            }
        }
        // All that was said was thinking, and this server takes none of it.
        if self.out.ends_with(b"[") && spoken {
            return Err(refuse_silence());
        }
        self.out.push(b']');
        if is_prefilled(self.call) {
            drop_named(&mut self.adjusted, "messages");
        }
        Ok(())
    }

    /// One item, its type first.
    fn item(&mut self, kind: &str, body: impl FnOnce(&mut Vec<u8>)) {
        comma(&mut self.out);
        self.out.push(b'{');
        put_text(&mut self.out, "type", kind);
        body(&mut self.out);
        self.out.push(b'}');
    }

    fn message<'p>(&mut self, role: &str, content: impl IntoIterator<Item = &'p Content>) -> Result<(), Fault> {
        let content = self.parts(content, "a message")?;
        self.item("message", |out| {
            put_text(out, "role", role);
            put_raw(out, "content", content);
        });
        Ok(())
    }

    /// Results of tools, then everything else as one message.
    fn user(&mut self, content: &[Content]) -> Result<(), Fault> {
        let mut results = 0;
        for part in content {
            let Content::ToolResult { id, content, is_error } = part else { continue };
            results += 1;
            if let [Content::Other { kind, json }] = content.as_slice()
                && self.own
                && kind == FOUND
            {
                let item = self.found(json);
                comma(&mut self.out);
                self.out.extend_from_slice(&item);
                continue;
            }
            let marked = (*is_error && !matches!(content.first(), Some(Content::Text(text)) if says_error(text)))
                .then(|| marked(content));
            let output = self.parts(marked.as_ref().unwrap_or(content), "a tool result")?;
            let custom = self.call.turns.iter().flat_map(|turn| &turn.content).any(|part| {
                matches!(part, Content::ToolCall { id: of, name, .. } if of == id && self.names.find(name).is_some_and(|named| named.form == Form::Custom))
            });
            self.item(if custom { "custom_tool_call_output" } else { "function_call_output" }, |out| {
                put_text(out, "call_id", id);
                put_raw(out, "output", output);
            });
        }
        let rest: Vec<_> = content.iter().filter(|part| !matches!(part, Content::ToolResult { .. })).collect();
        if rest.is_empty() && results > 0 {
            return Ok(());
        }
        self.message("user", rest)
    }

    /// What a search for tools has found. Where one of them was taken away it offers none; those left stand in the list of tools.
    fn found(&self, json: &str) -> Vec<u8> {
        let is_there = |wanted: &String| {
            self.call.tools.iter().any(|tool| matches!(tool, Tool::Function { name, .. } if name == wanted))
        };
        let whole = validate(json.as_bytes()).is_ok_and(|item| offered::names(item).iter().all(is_there));
        let emptied = (!whole).then(|| merge(json, &[("tools", b"[]".as_slice())])).flatten();
        emptied.unwrap_or_else(|| json.as_bytes().to_vec())
    }

    /// A string where texts are all there is, else a list of parts.
    fn parts<'p>(&self, content: impl IntoIterator<Item = &'p Content>, place: &str) -> Result<String, Fault> {
        let content: Vec<_> = content.into_iter().collect();
        let mut out = Vec::new();
        match content.as_slice() {
            [] => write_str(&mut out, ""),
            [Content::Text(text)] => write_str(&mut out, text),
            parts => {
                out.push(b'[');
                for part in parts {
                    comma(&mut out);
                    self.part(part, place, &mut out)?;
                }
                out.push(b']');
            }
        }
        String::from_utf8(out).map_err(|_| Fault::internal("a text was written that is no UTF-8"))
    }

    fn part(&self, part: &Content, place: &str, out: &mut Vec<u8>) -> Result<(), Fault> {
        match part {
            Content::Text(text) => {
                out.extend_from_slice(b"{\"type\":\"input_text\"");
                put_text(out, "text", text);
            }
            Content::Image(image) => {
                out.extend_from_slice(b"{\"type\":\"input_image\",\"detail\":\"auto\"");
                put_text(out, "image_url", &image.url());
            }
            Content::Other { json, .. } if self.own => {
                out.extend_from_slice(json.as_bytes());
                return Ok(());
            }
            other => {
                let found = found_tool(other).ok_or_else(|| refuse_part(other, place))?;
                out.extend_from_slice(b"{\"type\":\"input_text\"");
                put_text(out, "text", &found);
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn assistant(&mut self, content: &[Content]) -> Result<(), Fault> {
        for part in content {
            match part {
                Content::Text(text) => self.item("message", |out| {
                    put_text(out, "role", "assistant");
                    put_text(out, "content", text);
                }),
                Content::Refusal(text) => self.item("message", |out| {
                    put_text(out, "role", "assistant");
                    out.extend_from_slice(b",\"content\":[{\"type\":\"refusal\"");
                    put_text(out, "refusal", text);
                    out.extend_from_slice(b"}]");
                }),
                Content::Thinking { text, .. } => self.thinking(text),
                Content::RedactedThinking { data } | Content::Other { json: data, .. } if self.own => {
                    comma(&mut self.out);
                    self.out.extend_from_slice(data.as_bytes());
                }
                Content::RedactedThinking { .. } => drop_named(&mut self.dropped, "redacted_thinking"),
                Content::ToolCall { id, name, arguments } => self.call(id, name, arguments),
                other => return Err(refuse_part(other, "an assistant message")),
            }
        }
        Ok(())
    }

    fn thinking(&mut self, text: &str) {
        if !self.own && !self.to.thinking_kwargs && !self.to.extended_sampling {
            return drop_named(&mut self.dropped, "thinking");
        }
        let id = format!("rs_{}", self.thoughts);
        self.thoughts += 1;
        self.item("reasoning", |out| {
            put_text(out, "id", &id);
            out.extend_from_slice(b",\"summary\":[{\"type\":\"summary_text\"");
            put_text(out, "text", text);
            out.extend_from_slice(b"}]");
        });
    }

    fn call(&mut self, id: &str, name: &str, arguments: &str) {
        let named = self.names.find(name).cloned();
        let form = named.as_ref().map_or(Form::Function, |named| named.form);
        let custom = form == Form::Custom;
        // What a client of this dialect sends back as arguments is the text that its model wrote.
        let text = match arguments_object(arguments) {
            _ if custom => as_input(arguments),
            Some(object) => object.to_owned(),
            None if self.own => arguments.to_owned(),
            None => earlier_object(arguments, &mut self.adjusted).into_owned(),
        };
        if form == Form::Search {
            let arguments = arguments_object(&text).unwrap_or("{}");
            return self.item("tool_search_call", |out| {
                put_text(out, "call_id", id);
                put_text(out, "execution", "client");
                put_raw(out, "arguments", arguments);
            });
        }
        self.item(if custom { "custom_tool_call" } else { "function_call" }, |out| {
            put_text(out, "call_id", id);
            if let Some(namespace) = named.as_ref().and_then(|named| named.namespace.as_ref()) {
                put_text(out, "namespace", namespace);
            }
            put_text(out, "name", named.as_ref().map_or(name, |named| &named.name));
            put_text(out, if custom { "input" } else { "arguments" }, &text);
        });
    }

    fn sampling(&mut self) {
        let call = self.call;
        put_some(&mut self.out, "max_output_tokens", call.max_tokens);
        put_some(&mut self.out, "temperature", call.temperature.map(number));
        put_some(&mut self.out, "top_p", call.top_p.map(number));
        if self.to.extended_sampling {
            put_some(&mut self.out, "top_k", call.top_k);
        } else if call.top_k.is_some() {
            drop_named(&mut self.dropped, "top_k");
        }
        drop_chat_sampling(call, &mut self.dropped);
        put_user(call, &mut self.out, &mut self.adjusted);
        put_raw(&mut self.out, "stream", call.stream);
        put_raw(&mut self.out, "store", false);
    }

    fn format(&mut self) {
        let format = match &self.call.format {
            None => return,
            Some(Format::Json) => r#"{"type":"json_object"}"#.to_owned(),
            Some(Format::Schema { json, .. }) => {
                let said = validate(json.as_bytes()).map(Fields::of).unwrap_or_default();
                let mut format = b"{\"type\":\"json_schema\"".to_vec();
                for word in SCHEMED {
                    // Without a schema, which chat allows, any object is one.
                    match said.get(word) {
                        Some(json) => put_raw(&mut format, word, json.raw()),
                        None if word == "schema" => put_raw(&mut format, word, "{}"),
                        None => {}
                    }
                }
                for (name, json) in said.beyond(&["type"]).filter(|(name, _)| !SCHEMED.contains(name)) {
                    put_raw(&mut format, name, json.raw());
                }
                format.push(b'}');
                String::from_utf8(format).unwrap_or_default()
            }
        };
        put_raw(&mut self.out, "text", format_args!("{{\"format\":{format}}}"));
    }

    fn thinking_and_extras(&mut self) {
        let to = self.to;
        let effort = match self.call.thinking {
            None => None,
            // As in chat: older models and servers refuse the word.
            Some(Thinking::Off) => {
                let last_resort = !to.thinking_kwargs && !to.max_completion_tokens;
                (to.reasoning_effort && (self.own || last_resort)).then_some("none")
            }
            Some(level) if to.reasoning_effort => {
                Some(effort_word(level, to.max_completion_tokens || self.own, &mut self.adjusted))
            }
            Some(_) => {
                drop_named(&mut self.dropped, "thinking");
                None
            }
        };
        if let Some(effort) = effort {
            put_raw(&mut self.out, "reasoning", format_args!("{{\"effort\":\"{effort}\"}}"));
        }
        for (name, json) in extras(self.call, WORDS, &mut self.dropped) {
            put_raw(&mut self.out, name, json);
        }
    }
}

/// A failed tool has no flag here: its text says so.
fn marked(content: &[Content]) -> Vec<Content> {
    let mut content = content.to_vec();
    match content.first_mut() {
        Some(Content::Text(text)) => text.insert_str(0, "Error: "),
        _ => content.insert(0, Content::Text("Error: ".into())),
    }
    content
}

#[cfg(test)]
mod tests;
