//! A canonical call as the engine's job, or why it cannot be one.

use crate::backend::local::{Choice, EncodeJob, Format, Job};
use crate::canon::call::{self, Content, Role, Thinking, Tool, ToolChoice};
use crate::canon::{Call, EmbedCall, EmbedInput, Fault};
use crate::wire::{Dialect, Prefill, Target, Written};
use std::sync::Arc;

/// Sampling where the caller says nothing: small models ramble at 1.0.
const TEMPERATURE: f32 = 0.7;
const TOP_P: f32 = 0.95;
/// Stop sequences, and bytes of each. All are looked for at each token, on the thread that computes everybody's.
const STOPS: usize = 64;
const STOP: usize = 1024;
/// The field in which chat clients give variables to the chat template.
const KWARGS: &str = "chat_template_kwargs";

/// What the encoder is asked, or why it cannot be.
pub(super) fn vectors(call: &EmbedCall, width: usize, dropped: &mut Vec<String>) -> Result<EncodeJob, Fault> {
    let words = |input: &EmbedInput| match input {
        EmbedInput::Text(text) => Ok(text.clone()),
        EmbedInput::Tokens(_) => {
            let message = "This model takes texts only: `input` must be a string or a list of strings, not tokens.";
            Err(Fault::unsupported("input", message))
        }
    };
    let dimensions = call.dimensions.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
    if dimensions.is_some_and(|length| length > width) {
        let message = format!("This model's vectors have {width} numbers: `dimensions` can be at most that.");
        return Err(Fault::unsupported("dimensions", message));
    }
    let texts = call.inputs.iter().map(words).collect::<Result<_, _>>()?;
    dropped.extend(call.user.iter().map(|_| "user".to_owned()));
    dropped.extend(call.extra.iter().cloned());
    Ok(EncodeJob { texts, truncate: call.truncate.unwrap_or(true), dimensions })
}

/// What the engine is asked, or why it cannot be. `named` takes what is dropped and adjusted.
pub(super) fn text(call: &Call, target: &Target, organization: &Arc<str>, named: &mut Written) -> Result<Job, Fault> {
    let dropped = &mut named.dropped;
    for content in call.turns.iter().flat_map(|turn| &turn.content) {
        if matches!(content, Content::Image(_)) {
            return Err(Fault::unsupported("messages", "This model reads text only; remove the image part."));
        }
    }
    if call.choices > 1 {
        return Err(Fault::unsupported("n", "This model gives one answer a request; set `n` to 1."));
    }
    if call.stop.len() > STOPS || call.stop.iter().any(|stop| stop.len() > STOP) {
        let name = if call.family == "anthropic" { "stop_sequences" } else { "stop" };
        let message = format!("This model takes at most {STOPS} stop sequences, of at most {STOP} bytes each.");
        return Err(Fault::unsupported(name, message));
    }
    // vLLM's word for it goes before others, as there.
    let word = call.extra.iter().find(|(name, _)| name == KWARGS && target.thinking_kwargs);
    let word = word.and_then(|(_, json)| thinking_alone(json));
    let thinking = word.or(call.thinking.map(|thinking| thinking != Thinking::Off));
    // It thinks or it does not: how much cannot be said.
    if thinking == Some(true) && (!target.thinking_kwargs || matches!(call.thinking, Some(Thinking::Effort(_)))) {
        let name = if call.family == "openai" { "reasoning_effort" } else { "thinking" };
        dropped.push(name.into());
    }
    let extra = |names: &[&str]| call.extra.iter().find(|(name, _)| names.contains(&name.as_str()))?.1.parse().ok();
    let (min_p, repetition) = (extra(&["min_p"]), extra(&["repetition_penalty", "repeat_penalty"]));
    let known = ["min_p", "repetition_penalty", "repeat_penalty"];
    let obeyed = |name: &str| known.contains(&name) || (name == KWARGS && word.is_some());
    dropped.extend(call.extra.iter().map(|(name, _)| name.clone()).filter(|name| !obeyed(name)));
    // The chat template reads messages as OpenAI writes them: that dialect says them, and refuses what cannot be dropped. Custom
    // tools are functions here, whoever offered them.
    let mut plain = Call { thinking: None, format: None, tools_as_sent: None, ..call.clone() };
    plain.tools.retain(|tool| {
        let Tool::Hosted { kind, .. } = tool else { return true };
        dropped.push(format!("tools.{kind}"));
        false
    });
    if plain.tools.is_empty() && matches!(call.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_))) {
        return Err(Fault::unsupported("tool_choice", "There is no function among the tools that could be called."));
    }
    // An answer that is held to a form is so from its first letter on.
    let held = call.format.is_some() || matches!(call.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_)));
    let target = Target { prefill: if held { Prefill::Ended } else { target.prefill }, ..target.clone() };
    let written = Dialect::Chat.codec().write_call(&plain, &target)?;
    let mut body: serde_json::Value = serde_json::from_slice(&written.body)
        .map_err(|error| Fault::internal(format!("a call was written that is no JSON: {error}")))?;
    dropped.extend(written.dropped.into_iter().filter(|name| !call.extra.iter().any(|(extra, _)| extra == name)));
    // All but the messages is taken from the call as it is.
    named.adjusted.extend(written.adjusted.into_iter().filter(|name| name.starts_with("messages")));
    let number = |value: Option<f64>, otherwise: f32| value.map_or(otherwise, |value| value as f32);
    let count = |value: Option<u64>| value.map(|value| usize::try_from(value).unwrap_or(usize::MAX));
    // Chat clients say it in vLLM's words.
    let begun = call.turns.last().is_some_and(|turn| turn.role == Role::Assistant);
    let goes_on = begun && target.prefill == Prefill::Told && body["continue_final_message"] == true;
    if goes_on {
        named.dropped.retain(|name| !["continue_final_message", "add_generation_prompt"].contains(&name.as_str()));
    }
    Ok(Job {
        goes_on,
        messages: body["messages"].take(),
        tools: Some(body["tools"].take()).filter(|_| call.tool_choice != Some(ToolChoice::None)),
        choice: match &call.tool_choice {
            Some(ToolChoice::Required) => Choice::Required,
            Some(ToolChoice::Named(name)) => Choice::Named(name.clone()),
            Some(ToolChoice::Auto | ToolChoice::None) | None => Choice::Auto,
        },
        parallel: call.parallel_tools != Some(false),
        thinking,
        format: format(call.format.as_ref())?,
        owner: organization.clone(),
        max_tokens: count(call.max_tokens),
        temperature: number(call.temperature, TEMPERATURE),
        top_p: number(call.top_p, TOP_P),
        top_k: count(call.top_k).unwrap_or(0),
        min_p: number(min_p, 0.0),
        repetition_penalty: number(repetition, 1.0),
        presence_penalty: number(call.presence_penalty, 0.0),
        frequency_penalty: number(call.frequency_penalty, 0.0),
        seed: call.seed.map(|seed| seed as u64),
        stop: call.stop.clone(),
    })
}

/// What variables for the chat template say of thinking, where they say nothing else.
fn thinking_alone(json: &str) -> Option<bool> {
    let said: serde_json::Map<String, serde_json::Value> = serde_json::from_str(json).ok()?;
    said.get("enable_thinking")?.as_bool().filter(|_| said.len() == 1)
}

fn format(asked: Option<&call::Format>) -> Result<Format, Fault> {
    let Some(asked) = asked else { return Ok(Format::Free) };
    let call::Format::Schema { json, .. } = asked else { return Ok(Format::Json) };
    let mut json: serde_json::Value = serde_json::from_str(json)
        .map_err(|error| Fault::invalid(format!("The schema is no JSON: {error}")).with_param("response_format"))?;
    Ok(match json["schema"].take() {
        serde_json::Value::Null => Format::Json,
        schema => Format::Schema(schema),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::kind::Kind;
    use crate::canon::call::{Effort, Turn};
    use crate::wire::request::Request;

    /// The job that a request is, and what is named.
    fn asked(dialect: Dialect, body: &str) -> (Job, Written) {
        asked_of(Prefill::Told, dialect, body)
    }

    fn asked_of(prefill: Prefill, dialect: Dialect, body: &str) -> (Job, Written) {
        let request = Request::read(dialect, body.to_owned().into()).unwrap();
        let mut named = Written::default();
        let target = Target { prefill, ..Kind::Local.traits().target("m", None) };
        let job = text(request.call_for_others().unwrap(), &target, &Arc::default(), &mut named).unwrap();
        (job, named)
    }

    #[test]
    fn custom_tools_are_functions() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"x"},
            {"role":"assistant","tool_calls":[{"id":"a","type":"custom","custom":{"name":"p","input":"y"}}]},
            {"role":"tool","tool_call_id":"a","content":"z"}],
            "tools":[{"type":"custom","custom":{"name":"p","description":"Edits."}}],
            "tool_choice":{"type":"custom","custom":{"name":"p"}}}"#;
        let (job, named) = asked(Dialect::Chat, body);
        let tools = job.tools.unwrap();
        assert_eq!((&tools[0]["type"], &tools[0]["function"]["name"]), (&"function".into(), &"p".into()));
        assert_eq!(job.messages[1]["tool_calls"][0]["function"]["arguments"], r#"{"input":"y"}"#);
        assert_eq!((job.choice, named), (Choice::Named("p".into()), Written::default()));
    }

    #[test]
    fn a_beginning_of_the_answer_is_gone_on_with_or_named() {
        let turns = r#""messages":[{"role":"user","content":"x"},{"role":"assistant","content":"The "}]"#;
        let forced = r#","tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":{"type":"any"}"#;
        for (prefill, dialect, more, goes_on, named) in [
            (Prefill::Told, Dialect::Messages, "", true, false),
            (Prefill::Ended, Dialect::Messages, "", false, true),
            (Prefill::Told, Dialect::Messages, forced, false, true),
            (Prefill::Told, Dialect::OllamaChat, "", true, false),
            (Prefill::Told, Dialect::OllamaChat, r#","format":"json""#, false, true),
            (Prefill::Told, Dialect::Chat, "", false, false),
        ] {
            let (job, said) = asked_of(prefill, dialect, &format!(r#"{{"model":"m","max_tokens":9,{turns}{more}}}"#));
            assert_eq!(job.goes_on, goes_on, "{dialect:?}{more}");
            assert_eq!(said.adjusted.iter().any(|name| name == "messages"), named, "{dialect:?}{more}");
        }
        let told = format!(r#"{{"model":"m",{turns},"continue_final_message":true,"add_generation_prompt":false}}"#);
        for (prefill, goes_on, dropped) in [(Prefill::Told, true, 0), (Prefill::Ended, false, 2)] {
            let (job, said) = asked_of(prefill, Dialect::Chat, &told);
            assert_eq!((job.goes_on, said.dropped.len()), (goes_on, dropped), "{:?}", said.dropped);
        }
    }

    #[test]
    fn thinking_is_asked_of_models_that_can_be_told() {
        let effort = Some(Thinking::Effort(Effort::High));
        for (family, thinking, thinking_kwargs, expect, named) in [
            ("ollama", None, true, None, None),
            ("anthropic", Some(Thinking::Off), true, Some(false), None),
            ("anthropic", Some(Thinking::Off), false, Some(false), None),
            ("anthropic", Some(Thinking::Budget(1024)), true, Some(true), None),
            ("anthropic", Some(Thinking::Budget(1024)), false, Some(true), Some("thinking")),
            ("openai", effort, true, Some(true), Some("reasoning_effort")),
            ("openai", effort, false, Some(true), Some("reasoning_effort")),
        ] {
            let turns = vec![Turn { role: Role::User, content: vec![Content::Text("Hi".into())] }];
            let call = Call { turns, thinking, family, choices: 1, ..Call::default() };
            let (target, mut said) = (Target { thinking_kwargs, ..Target::default() }, Written::default());
            let job = text(&call, &target, &Arc::default(), &mut said).unwrap();
            assert_eq!(job.thinking, expect, "{family} {thinking:?} {thinking_kwargs}");
            assert_eq!(said.dropped, Vec::from_iter(named), "{family} {thinking:?} {thinking_kwargs}");
        }
    }

    #[test]
    fn stop_sequences_have_bounds() {
        let some = |count, length| vec!["x".repeat(length); count];
        for (family, stop, refused) in [
            ("openai", some(STOPS, STOP), None),
            ("openai", some(STOPS + 1, 1), Some("stop")),
            ("anthropic", some(1, STOP + 1), Some("stop_sequences")),
        ] {
            let turns = vec![Turn { role: Role::User, content: vec![Content::Text("Hi".into())] }];
            let call = Call { turns, stop, family, choices: 1, ..Call::default() };
            let asked = text(&call, &Target::default(), &Arc::default(), &mut Written::default());
            assert_eq!(asked.err().and_then(|fault| fault.param).as_deref(), refused, "{family}");
        }
    }

    #[test]
    fn vllms_word_for_thinking_is_obeyed_where_it_says_nothing_else() {
        for (kwargs, more, thinking_kwargs, expect, named) in [
            (r#"{"enable_thinking":false}"#, "", true, Some(false), None),
            (r#"{"enable_thinking":true}"#, r#","reasoning_effort":"none""#, true, Some(true), None),
            (r#"{"enable_thinking":false}"#, "", false, None, Some(KWARGS)),
            (r#"{"enable_thinking":false,"x":1}"#, "", true, None, Some(KWARGS)),
            (r#"{"enable_thinking":"no"}"#, "", true, None, Some(KWARGS)),
            (r#""no""#, "", true, None, Some(KWARGS)),
        ] {
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"x"}}],"chat_template_kwargs":{kwargs}{more}}}"#
            );
            let request = Request::read(Dialect::Chat, body.into()).unwrap();
            let target = Target { thinking_kwargs, ..Kind::Local.traits().target("m", None) };
            let mut said = Written::default();
            let job = text(request.call_for_others().unwrap(), &target, &Arc::default(), &mut said).unwrap();
            assert_eq!(job.thinking, expect, "{kwargs}{more} {thinking_kwargs}");
            assert_eq!(said.dropped, Vec::from_iter(named), "{kwargs}{more} {thinking_kwargs}");
        }
    }

    #[test]
    fn earlier_arguments_that_are_no_object_are_shown_in_one() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"x"},
            {"role":"assistant","tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"n\":"}}]},
            {"role":"tool","tool_call_id":"a","content":"no JSON"}]}"#;
        let (job, named) = asked(Dialect::Chat, body);
        assert_eq!(job.messages[1]["tool_calls"][0]["function"]["arguments"], r#"{"arguments":"{\"n\":"}"#);
        assert_eq!((named.dropped.len(), named.adjusted), (0, vec!["messages.tool_calls".to_owned()]));
    }
}
