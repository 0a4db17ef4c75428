use super::*;
use crate::canon::FaultKind;
use crate::canon::call::Turn;
use crate::wire::Dialect;
use crate::wire::object::Object;
use bytes::Bytes;
use serde_json::{Value, json};

fn read(dialect: Dialect, body: &Value) -> Call {
    let object = Object::read(Bytes::from(body.to_string())).unwrap();
    dialect.codec().read_call(&object).unwrap()
}

fn written(from: Dialect, body: &Value, to: Dialect, target: &Target) -> (Value, Vec<String>) {
    let written = to.codec().write_call(&read(from, body), target).unwrap();
    (serde_json::from_slice(&written.body).unwrap(), written.dropped)
}

/// A conversation whose calls have no ids, as the official client sends it back.
#[test]
fn results_without_ids_find_their_calls() {
    let call = |name: &str| json!({"function": {"name": name, "arguments": {}}});
    let body = json!({"model": "m", "messages": [
        {"role": "assistant", "content": "", "tool_calls": [call("read"), call("now"), call("read")]},
        {"role": "tool", "tool_name": "now", "content": "12:00"},
        {"role": "tool", "tool_name": "read", "content": "a"},
        {"role": "tool", "content": "b"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "mine", "function": {"name": "now", "arguments": {}}}]},
        {"role": "tool", "tool_call_id": "mine", "content": "12:01"},
    ]});
    let results: Vec<_> = read(Dialect::OllamaChat, &body)
        .turns
        .into_iter()
        .flat_map(|turn| turn.content)
        .filter_map(|part| match part {
            Content::ToolResult { id, content, .. } => Some(format!("{id} {content:?}")),
            _ => None,
        })
        .collect();
    let text = |id: &str, text: &str| format!("{id} [Text({text:?})]");
    assert_eq!(results, [text("call_1", "12:00"), text("call_0", "a"), text("call_2", "b"), text("mine", "12:01")]);
}

#[test]
fn neighbours_of_one_side_of_messages_are_one_turn() {
    let messages = json!([{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]);
    let body = json!({"model": "m", "max_tokens": 1, "messages": messages});
    let (ollama, _) = written(Dialect::Messages, &body, Dialect::OllamaChat, &Target::default());
    assert_eq!(ollama["messages"], json!([{"role": "user", "content": "a\n\nb"}]));
}

#[test]
fn options_keep_their_meaning_both_ways() {
    let plain = Target { model: "there".into(), ..Target::default() };
    let open = Target { extended_sampling: true, ..plain.clone() };
    let messages = json!([{"role": "user", "content": "x"}]);
    let options = json!({"num_predict": 9, "top_k": 4, "min_p": 0.1, "repeat_penalty": 1.5, "seed": 3, "num_ctx": 64, "new": [1]});
    let body = json!({"model": "m", "messages": messages, "options": options, "keep_alive": 5, "stream": false});

    let (chat, dropped) = written(Dialect::OllamaChat, &body, Dialect::Chat, &open);
    let sampling = json!({"model": "there", "messages": messages, "max_tokens": 9, "top_k": 4, "min_p": 0.1,
        "repeat_penalty": 1.5, "repetition_penalty": 1.5, "seed": 3, "stream": false});
    assert_eq!(chat, sampling);
    assert_eq!(dropped, ["keep_alive", "options.num_ctx", "options.new"]);
    let (_, dropped) = written(Dialect::OllamaChat, &body, Dialect::Chat, &plain);
    assert_eq!(dropped, ["top_k", "keep_alive", "options.num_ctx", "options.new", "min_p", "repeat_penalty"]);

    let (same, dropped) = written(Dialect::OllamaChat, &body, Dialect::OllamaChat, &plain);
    assert_eq!((&same["options"], &same["keep_alive"], dropped.len()), (&options, &5.into(), 0));

    let chat = json!({"model": "m", "messages": messages, "max_tokens": 9, "min_p": 0.1, "repetition_penalty": 1.5,
        "logit_bias": {}, "user": "u", "reasoning_effort": "minimal"});
    let (ollama, dropped) = written(Dialect::Chat, &chat, Dialect::OllamaChat, &plain);
    assert_eq!(ollama["options"], json!({"num_predict": 9, "min_p": 0.1, "repeat_penalty": 1.5}));
    assert_eq!((&ollama["think"], dropped), (&true.into(), vec!["user".to_owned(), "logit_bias".to_owned()]));
}

#[test]
fn an_option_that_is_said_over_and_over_counts_once() {
    let many: String = (0..200_000).map(|at| format!(r#""o{at}":1,"min_p":{at},"#)).collect();
    let (head, tail) = (r#"{"model":"m","messages":[],"min_p":0.5,"options":{"#, r#""min_p":0.25,"typical_p":1}}"#);
    let object = Object::read(Bytes::from([head, &many, tail].concat())).unwrap();
    let began = std::time::Instant::now();
    let call = Dialect::OllamaChat.codec().read_call(&object).unwrap();
    // Each was looked for among all the others.
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    let known = call.extra.iter().filter(|(name, _)| !name.contains('.'));
    let known: Vec<_> = known.map(|(name, json)| (name.as_str(), json.as_str())).collect();
    assert_eq!((known, call.extra.len()), (vec![("min_p", "0.25"), ("typical_p", "1")], 200_002));
}

#[test]
fn arguments_that_are_no_object_go_out_as_one() {
    let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"n\":"}});
    let messages = json!([{"role": "user", "content": "x"}, {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "no JSON"}]);
    let body = json!({"model": "m", "messages": messages});
    let to = Target { model: "m".into(), ..Target::default() };
    let written = Dialect::OllamaChat.codec().write_call(&read(Dialect::Chat, &body), &to).unwrap();
    let sent: Value = serde_json::from_slice(&written.body).unwrap();
    assert_eq!(sent["messages"][1]["tool_calls"][0]["function"]["arguments"], json!({"arguments": "{\"n\":"}));
    assert_eq!(written.adjusted, ["messages.tool_calls"]);
}

#[test]
fn thinking_and_formats() {
    let to = |model: &str| Target { model: model.into(), ..Target::default() };
    let (adaptive, budget) = (Some(Thinking::Adaptive), Some(Thinking::Budget(9000)));
    let effort = |effort| Some(Thinking::Effort(effort));
    let (minimal, high, max) = (effort(Effort::Minimal), effort(Effort::High), effort(Effort::Max));
    type Case<'a> = (&'static str, &'a str, Option<Thinking>, Value, &'a [&'a str]);
    let cases: Vec<Case<'_>> = vec![
        ("anthropic", "m", None, Value::Null, &[]),
        ("anthropic", "m", Some(Thinking::Off), json!(false), &[]),
        ("anthropic", "m", adaptive, Value::Null, &[]),
        ("anthropic", "m", budget, json!(true), &[]),
        ("anthropic", "m", high, Value::Null, &["output_config.effort"]),
        ("anthropic", "hf.co/x/GPT-OSS-20b", high, json!("high"), &[]),
        ("openai", "m", high, json!(true), &["reasoning_effort"]),
        ("openai", "gpt-oss:20b", high, json!("high"), &[]),
        ("openai", "gpt-oss:20b", minimal, json!("low"), &["reasoning_effort"]),
        ("openai", "gpt-oss:20b", max, json!("high"), &["reasoning_effort"]),
        ("ollama", "m", adaptive, json!(true), &[]),
        ("ollama", "m", high, json!("high"), &[]),
        ("ollama", "m", max, json!("max"), &[]),
        ("ollama", "m", effort(Effort::XHigh), json!("xhigh"), &[]),
    ];
    for (family, model, thinking, expect, named) in cases {
        let call = Call { thinking, choices: 1, family, ..Call::default() };
        let written = write_call(Form::Chat, &call, &to(model)).unwrap();
        let body: Value = serde_json::from_slice(&written.body).unwrap();
        assert_eq!(body["think"], expect, "{family} {model} {thinking:?}");
        assert_eq!([written.dropped, written.adjusted].concat(), named, "{family} {model} {thinking:?}");
    }
    let schema = Format::Schema { name: "s".into(), json: r#"{"name":"s","schema":{"type":"object"}}"#.into() };
    for (format, expect) in [(Format::Json, json!("json")), (schema, json!({"type": "object"}))] {
        let call = Call { format: Some(format), choices: 1, ..Call::default() };
        let body: Value = serde_json::from_slice(&write_call(Form::Chat, &call, &to("m")).unwrap().body).unwrap();
        assert_eq!(body["format"], expect);
    }
}

#[test]
fn what_cannot_be_said_is_refused_by_name() {
    let tool = Tool::Function { name: "f".into(), description: None, parameters: None, strict: None };
    let url = Content::Image(Image::Url("https://example.com/a.png".into()));
    let plain = || Call { choices: 1, family: "openai", ..Call::default() };
    let user = |content| Turn { role: Role::User, content };
    let cases: Vec<(Form, Call, &str)> = vec![
        (Form::Chat, Call { choices: 2, ..plain() }, "n"),
        (
            Form::Chat,
            Call { tools: vec![tool.clone()], tool_choice: Some(ToolChoice::Required), ..plain() },
            "tool_choice",
        ),
        (Form::Chat, Call { turns: vec![user(vec![url])], ..plain() }, "messages"),
        (Form::Generate, Call { tools: vec![tool], ..plain() }, "tools"),
        (Form::Generate, Call { turns: vec![user(vec![]), user(vec![])], ..plain() }, "messages"),
        (Form::Chat, Call { extra: vec![("raw".into(), "true".into())], family: "ollama", ..plain() }, "raw"),
    ];
    for (form, call, param) in cases {
        let fault = write_call(form, &call, &Target::default()).unwrap_err();
        assert_eq!((fault.kind, fault.param.as_deref()), (FaultKind::Unsupported, Some(param)));
    }
}
