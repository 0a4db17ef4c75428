//! Calls as chat requests.

use super::*;
use crate::canon::call::{Image, Turn};
use crate::wire::Dialect;
use crate::wire::request::Request;

fn vllm() -> Target {
    Target {
        model: "t".into(),
        system_first: true,
        thinking_kwargs: true,
        extended_sampling: true,
        ..Target::default()
    }
}

fn body(call: &Call, to: &Target) -> serde_json::Value {
    serde_json::from_slice(&write_call(call, to).unwrap().body).unwrap()
}

#[test]
fn system_texts_are_joined_first_or_left_in_place() {
    let turns = vec![
        Turn::text(Role::User, "u"),
        Turn::text(Role::System, "a"),
        Turn::text(Role::System, ""),
        Turn::text(Role::Developer, "b"),
    ];
    let call = Call { turns, choices: 1, ..Call::default() };
    assert_eq!(
        body(&call, &vllm())["messages"],
        serde_json::json!([{"role":"system","content":"a\n\nb"},{"role":"user","content":"u"}])
    );
    assert_eq!(
        body(&call, &Target::default())["messages"],
        serde_json::json!([{"role":"user","content":"u"},{"role":"system","content":"a"},{"role":"developer","content":"b"}])
    );
}

#[test]
fn results_images_and_errors_find_their_places() {
    let result = |id: &str, content, is_error| Content::ToolResult { id: id.into(), content, is_error };
    let image = Content::Image(Image::Data { media_type: "image/png".into(), data: "AA==".into() });
    let turns = vec![
        Turn {
            role: Role::Assistant,
            content: vec![
                Content::Thinking { text: "hm".into(), signature: None },
                Content::ToolCall { id: "a".into(), name: "f".into(), arguments: String::new() },
                Content::ToolCall {
                    id: "b".into(),
                    name: "g".into(),
                    arguments: "{\"n\":12345678901234567890}".into(),
                },
            ],
        },
        Turn {
            role: Role::User,
            content: vec![
                Content::Text("and".into()),
                result("a", vec![image], false),
                result("b", vec![Content::Text("no".into())], true),
            ],
        },
    ];
    let call = Call { turns, choices: 1, ..Call::default() };
    assert_eq!(
        body(&call, &vllm())["messages"],
        serde_json::json!([
            {"role":"assistant","content":null,"reasoning_content":"hm","tool_calls":[
                {"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},
                {"id":"b","type":"function","function":{"name":"g","arguments":"{\"n\":12345678901234567890}"}}]},
            {"role":"tool","tool_call_id":"a","content":"[image: in the next user message]"},
            {"role":"tool","tool_call_id":"b","content":"Error: no"},
            {"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}},{"type":"text","text":"and"}]},
        ])
    );
    assert_eq!(write_call(&call, &Target::default()).unwrap().dropped, ["thinking"]);
}

/// Messages joins the turns of one side; here results that are parted from their calls are refused.
#[test]
fn neighbours_of_one_side_are_one_turn() {
    let call = |id: &str| Content::ToolCall { id: id.into(), name: "f".into(), arguments: String::new() };
    let result = |id: &str, content| Content::ToolResult { id: id.into(), content: vec![content], is_error: false };
    let user = |content| Turn { role: Role::User, content };
    let model = |content| Turn { role: Role::Assistant, content };
    let image = Content::Image(Image::Url("u".into()));
    let text = |text: &str| Content::Text(text.into());
    let turns = vec![
        model(vec![text("1"), call("a")]),
        model(vec![call("b")]),
        user(vec![result("a", image.clone())]),
        Turn::text(Role::System, "s"),
        user(vec![result("b", text("r"))]),
    ];
    let said = |family, to: &Target| {
        let written = body(&Call { turns: turns.clone(), choices: 1, family, ..Call::default() }, to);
        let messages = written["messages"].as_array().unwrap().iter();
        messages.map(|message| message["role"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(said("anthropic", &vllm()), ["system", "assistant", "tool", "tool", "user"]);
    let apart = ["assistant", "tool", "user", "system", "tool"];
    assert_eq!(said("anthropic", &Target::default()), apart, "a system message stays where it stood");
    assert_eq!(said("openai", &Target::default()), [&["assistant"][..], &apart[..]].concat(), "as the client had it");
}

#[test]
fn arguments_are_text_whatever_they_are() {
    for (arguments, expect) in [("", "{}"), (" {\"n\":1} ", "{\"n\":1}"), ("{\"n\":", "{\"n\":"), ("[1]", "[1]")] {
        let called = Content::ToolCall { id: "a".into(), name: "f".into(), arguments: arguments.into() };
        let turns = vec![Turn { role: Role::Assistant, content: vec![called] }];
        let body = body(&Call { turns, choices: 1, ..Call::default() }, &vllm());
        assert_eq!(body["messages"][0]["tool_calls"][0]["function"]["arguments"], expect);
    }
}

/// Servers that show them to a template as objects end the conversation otherwise.
#[test]
fn arguments_are_an_object_where_they_are_read_as_one() {
    let to = Target { argument_objects: true, ..vllm() };
    for (arguments, expect, named) in [
        (" {\"n\":1} ", r#"{"n":1}"#, false),
        ("", "{}", false),
        ("{\"n\":", r#"{"arguments":"{\"n\":"}"#, true),
        ("[1]", r#"{"arguments":"[1]"}"#, true),
        (r#""{\"n\":1}""#, r#"{"n":1}"#, true),
    ] {
        let called = Content::ToolCall { id: "a".into(), name: "f".into(), arguments: arguments.into() };
        let turns = vec![Turn { role: Role::Assistant, content: vec![called] }];
        let call = Call { turns, choices: 1, family: "openai", ..Call::default() };
        for dialect in [Dialect::Chat, Dialect::Responses] {
            let written = dialect.codec().write_call(&call, &to).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&written.body).unwrap();
            let calls = [&body["messages"][0]["tool_calls"][0]["function"], &body["input"][0]];
            let sent = &calls[usize::from(dialect == Dialect::Responses)]["arguments"];
            assert_eq!(sent, expect, "{dialect:?}: {arguments}");
            let adjusted: &[&str] = if named { &["messages.tool_calls"] } else { &[] };
            assert_eq!(written.adjusted, adjusted, "{dialect:?}: {arguments}");
        }
    }
}

#[test]
fn thinking_is_said_in_the_words_the_target_knows() {
    let effort = Target { reasoning_effort: true, ..Target::default() };
    type Case<'a> = (Option<Thinking>, &'a Target, &'a str, &'a str, &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (None, &vllm(), "null", "null", &[]),
        (Some(Thinking::Off), &vllm(), "null", r#"{"enable_thinking":false}"#, &[]),
        (Some(Thinking::Budget(9)), &vllm(), "null", r#"{"enable_thinking":true}"#, &[]),
        (Some(Thinking::Budget(4096)), &effort, "\"low\"", "null", &[]),
        (Some(Thinking::Budget(16384)), &effort, "\"medium\"", "null", &[]),
        (Some(Thinking::Budget(16385)), &effort, "\"high\"", "null", &[]),
        (Some(Thinking::Adaptive), &effort, "\"medium\"", "null", &[]),
        (Some(Thinking::Off), &effort, "\"none\"", "null", &[]),
        (Some(Thinking::Adaptive), &Target::default(), "null", "null", &["thinking"]),
        (Some(Thinking::Off), &Target::default(), "null", "null", &[]),
    ];
    for (thinking, to, effort, kwargs, dropped) in cases {
        let call = Call { thinking: *thinking, choices: 1, family: "anthropic", ..Call::default() };
        let body = body(&call, to);
        assert_eq!(
            (body["reasoning_effort"].to_string().as_str(), body["chat_template_kwargs"].to_string().as_str()),
            (*effort, *kwargs),
            "{thinking:?}"
        );
        assert_eq!(write_call(&call, to).unwrap().dropped, *dropped, "{thinking:?}");
    }
}

#[test]
fn levels_without_a_word_become_the_nearest_and_are_named() {
    let open = Target { reasoning_effort: true, ..Target::default() };
    let openai = Target { max_completion_tokens: true, ..open.clone() };
    for (level, to, word, named) in [
        ("minimal", &open, "low", true),
        ("high", &open, "high", false),
        ("xhigh", &open, "high", true),
        ("max", &open, "high", true),
        ("minimal", &openai, "minimal", false),
        ("xhigh", &openai, "xhigh", false),
        ("max", &openai, "xhigh", true),
    ] {
        let body = format!(r#"{{"model":"m","input":"x","reasoning":{{"effort":"{level}"}}}}"#);
        let request = Request::read(Dialect::Responses, body.into()).unwrap();
        let out = request.write(&[Dialect::Chat], to).unwrap();
        let sent: serde_json::Value = serde_json::from_slice(&out.written.body).unwrap();
        assert_eq!(sent["reasoning_effort"], word, "{level}");
        assert_eq!(out.written.adjusted.iter().any(|name| name == "reasoning_effort"), named, "{level}");
    }
}

/// Words of efforts are the backend's where it speaks the client's API, and ours to understand elsewhere.
#[test]
fn an_unknown_level_is_refused_where_it_would_have_to_be_translated() {
    for (dialect, body) in [
        (Dialect::Chat, r#"{"model":"m","messages":[{"role":"user","content":"x"}],"reasoning_effort":"default"}"#),
        (Dialect::Responses, r#"{"model":"m","input":"x","reasoning":{"effort":"default"}}"#),
    ] {
        let request = Request::read(dialect, body.into()).unwrap();
        let to = Target { model: "m".into(), ..Target::default() };
        assert_eq!(request.write(&[dialect], &to).unwrap().written.body, body);
        assert_eq!(request.write(&[Dialect::Messages], &to).unwrap_err().details[0].kind, "literal_error");
    }
}

#[test]
fn foreign_fields_are_named_and_threads_refused() {
    let mut call = Call {
        choices: 1,
        family: "anthropic",
        top_k: Some(4),
        tools: vec![Tool::Hosted { kind: "web_search_20250305".into(), json: "{}".into() }],
        extra: vec![("context_management".into(), "{}".into())],
        ..Call::default()
    };
    assert_eq!(
        write_call(&call, &Target::default()).unwrap().dropped,
        ["top_k", "tools.web_search_20250305", "context_management"]
    );
    call.extra.push(("thread".into(), "{}".into()));
    let fault = write_call(&call, &Target::default()).unwrap_err();
    assert_eq!((fault.status(), fault.code.as_deref()), (400, Some("thread_unsupported_request")));
}

#[test]
fn usage_is_always_asked_for() {
    let call = Call { stream: true, choices: 1, ..Call::default() };
    let to = Target { continuous_usage: true, ..Target::default() };
    assert_eq!(
        body(&call, &to)["stream_options"],
        serde_json::json!({"include_usage":true,"continuous_usage_stats":true})
    );
    assert_eq!(body(&call, &Target::default())["stream_options"], serde_json::json!({"include_usage":true}));
}

/// Claude Code's names of users are longer than OpenAI takes; every API of its family has the same bound.
#[test]
fn a_long_user_goes_by_its_hash() {
    let long = "user_0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef_account__session_5";
    let hash = "4221249c3789f8da9c520104d6992ae38d57d61df2ac5fb61b889912b04a1fb0";
    let edge = "ü".repeat(64);
    for (user, expect) in [(long, hash), (edge.as_str(), edge.as_str()), ("u", "u")] {
        let turns = vec![Turn::text(Role::User, "x")];
        let call = Call { turns, user: Some(user.into()), choices: 1, family: "anthropic", ..Call::default() };
        for dialect in [Dialect::Chat, Dialect::Responses, Dialect::Completions] {
            let written = dialect.codec().write_call(&call, &Target::default()).unwrap();
            let body: serde_json::Value = serde_json::from_slice(&written.body).unwrap();
            assert_eq!(body["user"], expect, "{dialect:?}");
            assert_eq!(written.adjusted.iter().any(|name| name == "user"), user != expect, "{dialect:?}");
        }
    }
}

#[test]
fn a_beginning_of_the_answer_is_gone_on_with_or_named() {
    let said = |content| Turn { role: Role::Assistant, content };
    let begun = || said(vec![Content::Text("{".into())]);
    let called = || Content::ToolCall { id: "a".into(), name: "f".into(), arguments: String::new() };
    for (family, last, prefill, continues, named) in [
        ("anthropic", begun(), Prefill::Told, true, false),
        ("anthropic", begun(), Prefill::Continued, false, false),
        ("anthropic", begun(), Prefill::Ended, false, true),
        ("anthropic", said(vec![Content::Text("{".into()), called()]), Prefill::Told, false, false),
        ("anthropic", Turn::text(Role::User, "x"), Prefill::Ended, false, false),
        ("ollama", begun(), Prefill::Told, true, false),
        ("ollama", begun(), Prefill::Ended, false, true),
        ("openai", begun(), Prefill::Told, false, false),
        ("openai", begun(), Prefill::Ended, false, false),
    ] {
        let call = Call { turns: vec![Turn::text(Role::User, "u"), last], choices: 1, family, ..Call::default() };
        let to = Target { prefill, ..Target::default() };
        let sent = body(&call, &to);
        let told = (sent["continue_final_message"] == true, sent["add_generation_prompt"] == false);
        assert_eq!(told, (continues, continues), "{call:?}");
        for dialect in [Dialect::Chat, Dialect::Responses] {
            let adjusted = dialect.codec().write_call(&call, &to).unwrap().adjusted;
            let named = named || (dialect == Dialect::Responses && is_prefilled(&call));
            assert_eq!(adjusted.iter().any(|name| name == "messages"), named, "{dialect:?}: {call:?}");
        }
    }
}
