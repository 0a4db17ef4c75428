//! A call as a completions request.
//!
//! A conversation becomes a prompt through a model's own template, which is not known here; a made-up one would give worse
//! answers without a word. So one question can be asked, with instructions in front, and everything else is refused by name.

use super::WORDS;
use crate::canon::call::{Content, Role, Thinking};
use crate::canon::{Call, Fault};
use crate::wire::beyond::{drop_named, extras, refuse_thread};
use crate::wire::openai::words::{put_sampling, put_stream};
use crate::wire::put::{put_raw, put_some, put_text};
use crate::wire::{Target, Written};

pub(super) fn write_call(call: &Call, to: &Target) -> Result<Written, Fault> {
    refuse_thread(call)?;
    refuse(call)?;
    let (mut dropped, mut adjusted) = (Vec::new(), Vec::new());
    let mut out = Vec::with_capacity(512);
    out.push(b'{');
    put_text(&mut out, "model", &to.model);
    prompt(call, &mut out)?;
    put_some(&mut out, "max_tokens", call.max_tokens);
    put_sampling(call, to, &mut out, &mut dropped, &mut adjusted);
    put_stream(call, to, &mut out);
    if !matches!(call.thinking, None | Some(Thinking::Off)) {
        drop_named(&mut dropped, "thinking");
    }
    for (name, json) in extras(call, WORDS, &mut dropped) {
        put_raw(&mut out, name, json);
    }
    out.push(b'}');
    Ok(Written { body: out.into(), dropped, adjusted })
}

/// What a prompt cannot say and the answer depends on.
fn refuse(call: &Call) -> Result<(), Fault> {
    let refused = [
        ("tools", !call.tools.is_empty(), "This model only goes on with a text and cannot call tools."),
        (
            "response_format",
            call.format.is_some(),
            "This model only goes on with a text and cannot be held to a format.",
        ),
        ("n", call.choices > 1 && call.family != WORDS, "`n` greater than 1 is not supported for this model."),
    ];
    match refused.into_iter().find(|(_, asked, _)| *asked) {
        Some((name, _, message)) => Err(Fault::unsupported(name, message)),
        None => Ok(()),
    }
}

/// The instructions and the one question, with blank lines between.
fn prompt(call: &Call, out: &mut Vec<u8>) -> Result<(), Fault> {
    let no = || {
        Fault::unsupported(
            "messages",
            "This model only goes on with a text: send one user message of text, with system messages in front at most.",
        )
    };
    let mut texts = Vec::new();
    let mut asked = false;
    for turn in &call.turns {
        if asked || turn.role == Role::Assistant {
            return Err(no());
        }
        asked = turn.role == Role::User;
        for part in &turn.content {
            match part {
                Content::Text(text) if text.is_empty() && !asked => {}
                Content::Text(text) => texts.push(text.as_str()),
                Content::Other { json, .. } if call.family == WORDS => {
                    put_raw(out, "prompt", json);
                    return Ok(());
                }
                _ => return Err(no()),
            }
        }
    }
    if !asked {
        return Err(no());
    }
    put_text(out, "prompt", &texts.join("\n\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::call::{Tool, Turn};

    fn write(call: &Call) -> Result<serde_json::Value, Fault> {
        let to = Target { model: "t".into(), ..Target::default() };
        write_call(call, &to).map(|written| serde_json::from_slice(&written.body).unwrap())
    }

    #[test]
    fn one_question_is_a_prompt_and_a_conversation_is_none() {
        let say = Turn::text;
        let cases: Vec<(Vec<Turn>, Result<&str, &str>)> = vec![
            (vec![say(Role::User, "q")], Ok("q")),
            (vec![say(Role::System, "s"), say(Role::Developer, "d"), say(Role::User, "q")], Ok("s\n\nd\n\nq")),
            (vec![say(Role::User, "q"), say(Role::Assistant, "a"), say(Role::User, "q")], Err("messages")),
            (vec![say(Role::User, "q"), say(Role::System, "s")], Err("messages")),
            (vec![say(Role::System, "s")], Err("messages")),
            (
                vec![Turn {
                    role: Role::User,
                    content: vec![Content::Image(crate::canon::call::Image::Url("u".into()))],
                }],
                Err("messages"),
            ),
        ];
        for (turns, expect) in cases {
            let call = Call { turns, choices: 1, family: "openai", ..Call::default() };
            match (write(&call), expect) {
                (Ok(body), Ok(prompt)) => assert_eq!(body["prompt"], prompt),
                (Err(fault), Err(param)) => assert_eq!(fault.param.as_deref(), Some(param)),
                (found, expect) => panic!("{found:?} {expect:?}"),
            }
        }
        let tool = Tool::Hosted { kind: "x".into(), json: "{}".into() };
        let asks = Call { turns: vec![say(Role::User, "q")], choices: 1, tools: vec![tool], ..Call::default() };
        assert_eq!(write(&asks).unwrap_err().param.as_deref(), Some("tools"));
    }
}
