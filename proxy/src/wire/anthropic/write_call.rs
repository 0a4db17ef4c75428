//! A call as a messages request.
//!
//! Choices: a conversation that does not begin with the user gets a short user turn in front (Anthropic refuses it
//! otherwise), named in `adjusted`. A JSON schema becomes `output_config.format`, Anthropic's structured outputs; "any JSON"
//! has no counterpart and is refused by name. Thinking without a vendor's signature is never sent. Towards Anthropic thinking
//! excludes another temperature and a forced tool; where a client of another family asked for both, thinking wins over the
//! temperature and yields to the tool. Temperature wins over `top_p`, of which newer models take one.

mod content;
mod ids;

use super::limit;
use crate::canon::call::{Effort, Format, Role, Thinking, Tool, ToolChoice};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{drop_chat_sampling, drop_named, every_system_text, extras, refuse_thread};
use crate::wire::json::{Json, validate};
use crate::wire::put::{comma, key, merge, number, put_raw, put_some, put_text, put_texts};
use crate::wire::{Target, Written};
use content::{Merged, put_block_text};
use ids::Ids;
use std::borrow::Cow;

/// The least that Anthropic takes as a budget.
const LEAST_BUDGET: u64 = 1024;

/// The user turn in front of a conversation that has none.
const FILLER: &str = "Continue.";

pub(super) fn write_call(call: &Call, to: &Target) -> Result<Written, Fault> {
    refuse_thread(call)?;
    if call.choices > 1 {
        return Err(Fault::unsupported("n", "`n` greater than 1 is not supported for this model."));
    }
    let (out, dropped, adjusted) = (Vec::with_capacity(1024), Vec::new(), Vec::new());
    let mut writer = Writer { call, out, ids: Ids::default(), dropped, adjusted };
    writer.out.push(b'{');
    put_text(&mut writer.out, "model", &to.model);
    writer.system(to)?;
    let turns = writer.turns()?;
    writer.messages(&turns);
    let forced = writer.tools();
    let (thinks, max_tokens) = writer.thinking(to.max_output, forced, &turns);
    put_raw(&mut writer.out, "max_tokens", max_tokens);
    writer.sampling(thinks);
    writer.format_and_extras()?;
    writer.out.push(b'}');
    Ok(Written { body: writer.out.into(), dropped: writer.dropped, adjusted: writer.adjusted })
}

struct Writer<'c> {
    call: &'c Call,
    out: Vec<u8>,
    ids: Ids<'c>,
    dropped: Vec<String>,
    adjusted: Vec<String>,
}

impl Writer<'_> {
    /// All system and developer texts, in order, at the top: this protocol has no other place for them.
    fn system(&mut self, to: &Target) -> Result<(), Fault> {
        let texts = every_system_text(&self.call.turns)?;
        match texts.as_slice() {
            [] => {}
            [text] => put_text(&mut self.out, "system", text),
            texts if to.system_first => put_text(&mut self.out, "system", &texts.join("\n\n")),
            texts => {
                key(&mut self.out, "system");
                self.out.push(b'[');
                for text in texts {
                    put_block_text(&mut self.out, text);
                }
                self.out.push(b']');
            }
        }
        Ok(())
    }

    fn turns(&mut self) -> Result<Vec<Merged>, Fault> {
        let call = self.call;
        let mut merged: Vec<Merged> = Vec::new();
        for turn in &call.turns {
            let assistant = match turn.role {
                Role::System | Role::Developer => continue,
                Role::User => false,
                Role::Assistant => true,
            };
            if merged.last().is_none_or(|last| last.assistant != assistant) {
                merged.push(Merged { assistant, ..Merged::default() });
            }
            let Some(last) = merged.last_mut() else { continue };
            for part in &turn.content {
                self.block(part, last)?;
            }
            if last.blocks.is_empty() && last.results.is_empty() {
                // Nothing that could be sent; its neighbours meet.
                merged.pop();
            }
        }
        if merged.first().is_none_or(|first| first.assistant) {
            let mut filler = Merged::default();
            put_block_text(&mut filler.blocks, FILLER);
            merged.insert(0, filler);
            drop_named(&mut self.adjusted, "messages");
        }
        Ok(merged)
    }

    fn messages(&mut self, turns: &[Merged]) {
        let out = &mut self.out;
        key(out, "messages");
        out.push(b'[');
        for turn in turns {
            comma(out);
            out.extend_from_slice(if turn.assistant {
                b"{\"role\":\"assistant\",\"content\":["
            } else {
                b"{\"role\":\"user\",\"content\":["
            });
            out.extend_from_slice(&turn.results);
            if !turn.results.is_empty() && !turn.blocks.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(&turn.blocks);
            out.extend_from_slice(b"]}");
        }
        out.push(b']');
    }

    /// Says whether a tool is forced.
    fn tools(&mut self) -> bool {
        let mut tools = Vec::new();
        for tool in &self.call.tools {
            match tool {
                Tool::Function { name, description, parameters, strict } => {
                    comma(&mut tools);
                    tools.push(b'{');
                    put_text(&mut tools, "name", name);
                    if let Some(description) = description {
                        put_text(&mut tools, "description", description);
                    }
                    put_raw(&mut tools, "input_schema", schema(parameters.as_deref()));
                    put_some(&mut tools, "strict", strict.filter(|strict| *strict));
                    tools.push(b'}');
                }
                Tool::Hosted { json, .. } if self.call.family == "anthropic" => {
                    comma(&mut tools);
                    tools.extend_from_slice(json.as_bytes());
                }
                Tool::Hosted { kind, .. } => drop_named(&mut self.dropped, &format!("tools.{kind}")),
            }
        }
        let wanted = self.call.tool_choice.as_ref();
        let forced = matches!(wanted, Some(ToolChoice::Required | ToolChoice::Named(_)));
        if tools.is_empty() {
            if forced {
                drop_named(&mut self.dropped, "tool_choice");
            }
            return false;
        }
        let out = &mut self.out;
        key(out, "tools");
        out.push(b'[');
        out.extend_from_slice(&tools);
        out.push(b']');
        let parallel = self.call.parallel_tools;
        if wanted.is_some() || parallel == Some(false) {
            key(out, "tool_choice");
            out.push(b'{');
            match wanted {
                None | Some(ToolChoice::Auto) => put_text(out, "type", "auto"),
                Some(ToolChoice::None) => put_text(out, "type", "none"),
                Some(ToolChoice::Required) => put_text(out, "type", "any"),
                Some(ToolChoice::Named(name)) => {
                    put_text(out, "type", "tool");
                    put_text(out, "name", name);
                }
            }
            if wanted != Some(&ToolChoice::None) {
                put_some(out, "disable_parallel_tool_use", parallel.map(|parallel| !parallel));
            }
            out.push(b'}');
        }
        forced
    }

    /// Says whether the model will think, and how long its answer may be then.
    fn thinking(&mut self, max_output: Option<u64>, forced: bool, turns: &[Merged]) -> (bool, u64) {
        let own = self.call.family == "anthropic";
        let said = self.call.max_tokens;
        let limit = said.unwrap_or(limit::with_budget(max_output, 0));
        let budget = match self.call.thinking {
            None => return (false, limit),
            Some(Thinking::Off) => {
                put_raw(&mut self.out, "thinking", r#"{"type":"disabled"}"#);
                return (false, limit);
            }
            // Of this family an effort stands for adaptive thinking; see `read_call::output`.
            Some(Thinking::Effort(_)) if own => {
                put_raw(&mut self.out, "thinking", r#"{"type":"adaptive"}"#);
                return (true, limit);
            }
            Some(Thinking::Adaptive) => {
                put_raw(&mut self.out, "thinking", r#"{"type":"adaptive"}"#);
                return (true, limit);
            }
            Some(Thinking::Budget(budget)) => budget,
            Some(Thinking::Effort(Effort::Minimal)) => LEAST_BUDGET,
            Some(Thinking::Effort(Effort::Low)) => 4096,
            Some(Thinking::Effort(Effort::Medium)) => 16384,
            Some(Thinking::Effort(Effort::High)) => 31999,
            // More would leave less and less of `max_tokens` for the answer.
            Some(Thinking::Effort(Effort::XHigh | Effort::Max)) => {
                drop_named(&mut self.adjusted, "reasoning_effort");
                31999
            }
        };
        let name = if own { "thinking" } else { "reasoning_effort" };
        // In the middle of a tool loop Anthropic wants to see the thinking that led to the calls.
        let unsigned_loop =
            turns.iter().rev().find(|turn| turn.assistant).is_some_and(|last| last.calls && !last.thinks_first)
                && turns.last().is_some_and(|last| !last.results.is_empty());
        if limit <= LEAST_BUDGET || unsigned_loop || (forced && !own) {
            drop_named(&mut self.adjusted, name);
            return (false, limit);
        }
        // A limit of the client's is the client's affair.
        let limit = said.unwrap_or(limit::with_budget(max_output, budget));
        let most = if said.is_some() { limit - 1 } else { limit::room(limit).max(LEAST_BUDGET) };
        let fitting = budget.clamp(LEAST_BUDGET, most);
        if fitting != budget && matches!(self.call.thinking, Some(Thinking::Budget(_))) {
            drop_named(&mut self.adjusted, "thinking.budget_tokens");
        }
        put_raw(&mut self.out, "thinking", format_args!("{{\"type\":\"enabled\",\"budget_tokens\":{fitting}}}"));
        (true, limit)
    }

    fn sampling(&mut self, thinks: bool) {
        let call = self.call;
        let own = call.family == "anthropic";
        let temperature = match call.temperature {
            Some(temperature) if thinks && !own && (temperature - 1.0).abs() > f64::EPSILON => {
                drop_named(&mut self.adjusted, "temperature");
                None
            }
            Some(temperature) if temperature > 1.0 => {
                drop_named(&mut self.adjusted, "temperature");
                Some(1.0)
            }
            temperature => temperature,
        };
        put_some(&mut self.out, "temperature", temperature.map(number));
        match call.top_p {
            // Newer models take one of the two, and this one only from 0.95 on while they think.
            Some(top_p) if !own && (temperature.is_some() || thinks && top_p < 0.95) => {
                drop_named(&mut self.dropped, "top_p");
            }
            top_p => put_some(&mut self.out, "top_p", top_p.map(number)),
        }
        match call.top_k {
            // Zero is "off" to OpenAI-like clients and an error to some servers.
            Some(0) if !own => {}
            Some(_) if thinks && !own => drop_named(&mut self.dropped, "top_k"),
            top_k => put_some(&mut self.out, "top_k", top_k),
        }
        drop_chat_sampling(call, &mut self.dropped);
        let out = &mut self.out;
        if !call.stop.is_empty() {
            put_texts(out, "stop_sequences", &call.stop);
        }
        if let Some(user) = &call.user {
            key(out, "metadata");
            out.push(b'{');
            put_text(out, "user_id", user);
            out.push(b'}');
        }
        put_raw(out, "stream", call.stream);
    }

    fn format_and_extras(&mut self) -> Result<(), Fault> {
        let mut config: Vec<(&str, String)> = Vec::new();
        match &self.call.format {
            None => {}
            Some(Format::Json) => {
                return Err(Fault::unsupported(
                    "response_format",
                    "`response_format` of type `json_object` is not supported for this model: send a `json_schema`, or ask for JSON in the prompt.",
                ));
            }
            Some(Format::Schema { json, .. }) => {
                let schema = validate(json.as_bytes())
                    .ok()
                    .and_then(|json| json.get("schema"))
                    .map_or("{\"type\":\"object\"}", Json::raw);
                config.push(("format", format!("{{\"type\":\"json_schema\",\"schema\":{schema}}}")));
            }
        }
        if let (Some(Thinking::Effort(effort)), "anthropic") = (self.call.thinking, self.call.family) {
            let word = match effort {
                Effort::Minimal | Effort::Low => "\"low\"",
                Effort::Medium => "\"medium\"",
                Effort::High => "\"high\"",
                Effort::XHigh => "\"xhigh\"",
                Effort::Max => "\"max\"",
            };
            config.push(("effort", word.into()));
        }
        let mut base = Cow::Borrowed("{}");
        for (name, json) in extras(self.call, "anthropic", &mut self.dropped) {
            if name == "output_config" {
                base = json.into();
            } else {
                put_raw(&mut self.out, name, json);
            }
        }
        if !config.is_empty() || base != "{}" {
            let edits: Vec<_> = config.iter().map(|(name, json)| (*name, json.as_bytes())).collect();
            let merged = merge(&base, &edits).unwrap_or_default();
            put_raw(&mut self.out, "output_config", String::from_utf8_lossy(&merged));
        }
        Ok(())
    }
}

/// A schema that this protocol takes: an object schema. Tools without parameters exist in other dialects.
fn schema(parameters: Option<&str>) -> Cow<'_, str> {
    let Some(text) = parameters else { return "{\"type\":\"object\"}".into() };
    match validate(text.as_bytes()) {
        Ok(json) if json.get("type").is_none() => merge(text, &[("type", b"\"object\"")])
            .and_then(|merged| String::from_utf8(merged).ok())
            .map_or(text.into(), Cow::Owned),
        _ => text.into(),
    }
}

#[cfg(test)]
mod tests;
