//! What a call says that not every dialect can: kept for its own, dropped by name, or refused by name.

mod arguments;
mod lookalikes;

use super::check::shorten;
use super::json::{Json, validate};
use super::object::Object;
use super::openai::responses;
use crate::canon::call::{Content, Role, Turn};
use crate::canon::{Call, Fault};
use lookalikes::is_lookalike;
use std::borrow::Cow;

pub(super) use arguments::{arguments_object, earlier_object, said_arguments};
pub(super) use lookalikes::{lose_lookalikes, refuse_capitals, refuse_lookalikes};

/// Fields that would let a caller choose where a request goes or with whose key. Never obeyed, never forwarded.
pub(super) const NEVER: &[&str] = &["api_base", "api_key", "base_url", "extra_headers"];

/// Those of [`NEVER`] that stand in a request.
pub(super) fn forbidden(request: &Object) -> impl Iterator<Item = &'static str> {
    NEVER.iter().copied().filter(|key| request.value(key).is_some())
}

/// The top-level members without a canonical form, for [`Call::extra`]. `known`: it has one, or says nothing.
pub(super) fn extra(request: &Object, known: impl Fn(&str, Json<'_>) -> bool) -> Vec<(String, String)> {
    request
        .entries()
        .filter(|(name, json)| !json.is_null() && !NEVER.contains(&name.as_ref()) && !known(name, *json))
        .map(|(name, json)| {
            // No API has a name with a dot: it is not to be taken for that of a nested field.
            let name = if name.contains('.') { format!("body.{name}") } else { name.into_owned() };
            (name, json.raw().to_owned())
        })
        .collect()
}

/// So many names are told. More help nobody, and to look for each among all before it would cost their square: a body has room
/// for millions.
const NAMES: usize = 64;
/// Said behind them where there are more.
const MORE: &str = "...";

/// Remembers a nested field without a canonical form, once per name: `messages.name`.
pub(super) fn lose(extra: &mut Vec<(String, String)>, name: String, json: Json<'_>) {
    // They stand at the end, and only their names have a dot. One beyond the number, so that it is known that there are more.
    let last = &extra[extra.len().saturating_sub(NAMES + 1)..];
    let enough = last.len() > NAMES && last[0].0.contains('.');
    // One that must be refused is remembered behind any number of others.
    let told = !enough || is_lookalike(&name) && !last.last().is_some_and(|(known, _)| is_lookalike(known));
    if told && !last.iter().any(|(known, _)| *known == name) {
        extra.push((name, shorten(json)));
    }
}

/// Sampling words without a canonical form that open servers and Ollama share.
const SHARED: [&str; 6] = ["min_p", "repeat_penalty", "repetition_penalty", "typical_p", "mirostat", "tfs_z"];

/// Whether open servers and Ollama share this word.
pub(super) fn is_shared(name: &str) -> bool {
    SHARED.contains(&name)
}

/// Sends a client's extra fields back to its own family, those that other families know there, and names those that cannot go.
pub(super) fn extras<'c>(call: &'c Call, family: &str, dropped: &mut Vec<String>) -> Vec<(&'c str, &'c str)> {
    let mut kept = Vec::new();
    for (name, json) in &call.extra {
        if NEVER.contains(&name.as_str()) {
            continue;
        }
        let open = |family| matches!(family, "openai" | "ollama");
        let shared = open(call.family) && open(family) && is_shared(name);
        if shared || call.family == family && !name.contains('.') {
            kept.push((name.as_str(), json.as_str()));
        } else {
            drop_named(dropped, name);
        }
    }
    kept
}

/// Names a dropped field once.
pub(super) fn drop_named(dropped: &mut Vec<String>, name: &str) {
    if dropped.len() <= NAMES && !dropped.iter().any(|known| known == name) {
        let name = if dropped.len() < NAMES { name } else { MORE };
        dropped.push(name.to_owned());
    }
}

/// What no other dialect can say and no answer can do without. A conversation that the vendor keeps cannot be continued
/// elsewhere, without the history the answer would be wrong; and a prompt that is to be taken as it stands, filled in the middle
/// or put into another template means something else without that.
pub(super) fn refuse_thread(call: &Call) -> Result<(), Fault> {
    const OLLAMA: [&str; 4] = ["raw", "suffix", "template", "context"];
    let own = call.extra.iter().find(|(name, _)| call.family == "ollama" && OLLAMA.contains(&name.as_str()));
    if let Some((name, _)) = own {
        return Err(Fault::unsupported(
            name.as_str(),
            format!("`{name}` is only supported for models on a backend that speaks Ollama's own API."),
        ));
    }
    if call.extra.iter().any(|(name, _)| name == "thread") { Err(no_thread()) } else { Ok(()) }
}

/// A conversation that is kept elsewhere. Clients that see the code send all of it.
pub(super) fn no_thread() -> Fault {
    Fault::invalid("`thread` is not supported for this model: send the full message history.")
        .with_status(400)
        .with_param("thread")
        .with_code("thread_unsupported_request")
}

/// What Claude Code puts in front of its instructions for its vendor's books. It is another one in each request, so a server that
/// keeps what it has computed of a prompt would compute all of it anew.
pub(super) const BILLING: &str = "x-anthropic-billing-header:";

/// All texts of those of these turns that instruct, as others than Messages are told them; blank ones add nothing.
///
/// # Errors
/// One holds something that is no text.
pub(super) fn system_texts<'c>(turns: impl IntoIterator<Item = &'c Turn>) -> Result<Vec<&'c str>, Fault> {
    let texts = every_system_text(turns)?.into_iter().map(|text| match text.strip_prefix(BILLING) {
        Some(line) => line.split_once('\n').map_or("", |(_, more)| more),
        None => text,
    });
    Ok(texts.filter(|text| !text.trim_ascii().is_empty()).collect())
}

/// The same with all that was said.
///
/// # Errors
/// As [`system_texts`].
pub(super) fn every_system_text<'c>(turns: impl IntoIterator<Item = &'c Turn>) -> Result<Vec<&'c str>, Fault> {
    let mut texts = Vec::new();
    for part in turns.into_iter().filter(|turn| turn.role.is_system()).flat_map(|turn| &turn.content) {
        match part {
            Content::Text(text) if text.trim_ascii().is_empty() => {}
            Content::Text(text) => texts.push(text.as_str()),
            other => return Err(refuse_part(other, "a system message")),
        }
    }
    Ok(texts)
}

/// What a result says of tools that were looked for and found, where there is no part for it: one of Messages, or one of
/// responses. The tools themselves are among those on offer.
pub(super) fn found_tool(part: &Content) -> Option<String> {
    let Content::Other { kind, json } = part else { return None };
    let said = validate(json.as_bytes()).ok()?;
    match kind.as_str() {
        "tool_reference" => {
            let name = said.get("tool_name")?.as_str()?;
            Some(format!("The tool `{name}` can be called now."))
        }
        responses::FOUND => Some(responses::found(said)),
        _ => None,
    }
}

/// A tool's result where there is no word for failure: its text says so, unless it does by itself.
pub(super) fn result_text(texts: &[Cow<'_, str>], is_error: bool) -> String {
    let text = texts.join("\n\n");
    if is_error && !says_error(&text) { format!("Error: {text}") } else { text }
}

/// It begins with that word.
pub(super) fn says_error(text: &str) -> bool {
    text.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("error"))
}

/// A call of Messages with the neighbouring turns of each side as one, as that API means them: the results of a turn's calls then
/// stand together, right behind it. Instructions part neighbours only where they stay between them (`system_first`: they do not).
pub(super) fn joined(call: &Call, system_first: bool) -> Cow<'_, Call> {
    let stay: Vec<Role> =
        call.turns.iter().map(|turn| turn.role).filter(|role| !(system_first && role.is_system())).collect();
    let doubled = stay.windows(2).any(|pair| matches!(pair, [one, next] if one == next && !one.is_system()));
    if call.family != "anthropic" || !doubled {
        return Cow::Borrowed(call);
    }
    let mut call = call.clone();
    let mut turns: Vec<Turn> = Vec::with_capacity(call.turns.len());
    for turn in std::mem::take(&mut call.turns) {
        let before = turns.iter_mut().rev().find(|before| !(system_first && before.role.is_system()));
        match before.filter(|before| before.role == turn.role && !turn.role.is_system()) {
            Some(before) => before.content.extend(turn.content),
            None => turns.push(turn),
        }
    }
    call.turns = turns;
    Cow::Owned(call)
}

/// It ends with a beginning of the answer, which is to go on with it: so Messages and Ollama mean a last turn of the model's that is
/// text. To other APIs the turn is over.
pub(super) fn is_prefilled(call: &Call) -> bool {
    let means_it = matches!(call.family, "anthropic" | "ollama");
    let last = call.turns.last().filter(|turn| means_it && turn.role == Role::Assistant);
    last.is_some_and(|turn| {
        let spoken = |part: &Content| matches!(part, Content::Text(text) if !text.is_empty());
        let thought = |part: &Content| matches!(part, Content::Thinking { .. } | Content::RedactedThinking { .. });
        turn.content.iter().any(spoken) && turn.content.iter().all(|part| spoken(part) || thought(part))
    })
}

/// A conversation in which nothing is said.
pub(super) fn refuse_silence() -> Fault {
    Fault::unsupported("messages", "There is nothing in this conversation that could be sent to this model.")
}

/// A part that has no place there, by its type word.
pub(super) fn refuse_part(content: &Content, place: &str) -> Fault {
    let kind = match content {
        Content::Text(_) => "text",
        Content::Image(_) => "image",
        Content::Thinking { .. } | Content::RedactedThinking { .. } => "thinking",
        Content::Refusal(_) => "refusal",
        Content::ToolCall { .. } => "tool_use",
        Content::ToolResult { .. } => "tool_result",
        Content::Other { kind, .. } => kind,
    };
    Fault::unsupported(
        "messages",
        format!("A content part of type `{kind}` cannot be sent to this model inside {place}."),
    )
}

/// Names the sampling that only chat and its like know, where it was asked for.
pub(super) fn drop_chat_sampling(call: &Call, dropped: &mut Vec<String>) {
    for (name, said) in [
        ("presence_penalty", call.presence_penalty.is_some_and(|penalty| penalty != 0.0)),
        ("frequency_penalty", call.frequency_penalty.is_some_and(|penalty| penalty != 0.0)),
        ("seed", call.seed.is_some()),
    ] {
        if said {
            drop_named(dropped, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_names_are_told() {
        let json = validate(b"1").unwrap();
        let mut extra = vec![("top".to_owned(), "1".to_owned())];
        for number in (0..200).chain(0..200) {
            lose(&mut extra, format!("messages.{number}"), json);
        }
        assert_eq!(extra.len(), 1 + NAMES + 1);
        let mut dropped = Vec::new();
        extra.iter().for_each(|(name, _)| drop_named(&mut dropped, name));
        assert_eq!((dropped.len(), dropped[0].as_str(), dropped[NAMES].as_str()), (NAMES + 1, "top", MORE));
        for name in ["messages.Content", "messages.CONTENT", "messages.last"] {
            lose(&mut extra, name.to_owned(), json);
        }
        assert_eq!((extra.len(), extra[1 + NAMES + 1].0.as_str()), (1 + NAMES + 2, "messages.Content"));
        let fault = refuse_lookalikes(&Call { extra, ..Call::default() }).unwrap_err();
        assert_eq!(fault.param.as_deref(), Some("messages.Content"), "no number of others hides it");
    }
}
