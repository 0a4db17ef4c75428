//! Calls as Messages requests.

use super::*;
use crate::canon::call::{Content, Image, Turn};
use crate::wire::Dialect;
use crate::wire::anthropic::MARKER;
use crate::wire::object::Object;

fn body(call: &Call) -> serde_json::Value {
    serde_json::from_slice(&write_call(call, &Target::default()).unwrap().body).unwrap()
}

#[test]
fn turns_alternate_and_results_come_first() {
    let result =
        |id: &str| Content::ToolResult { id: id.into(), content: vec![Content::Text("r".into())], is_error: id == "b" };
    let turns = vec![
        Turn::text(Role::System, "s"),
        Turn {
            role: Role::Assistant,
            content: vec![
                Content::Thinking { text: "t".into(), signature: Some(MARKER.into()) },
                Content::Text(String::new()),
                Content::ToolCall { id: "a".into(), name: "f".into(), arguments: String::new() },
                Content::ToolCall { id: "functions.g:1".into(), name: "g".into(), arguments: "{\"n\":1.0}".into() },
            ],
        },
        Turn { role: Role::User, content: vec![Content::Text("and".into()), result("a")] },
        Turn { role: Role::User, content: vec![result("b")] },
    ];
    let call = Call {
        turns,
        choices: 1,
        tools: vec![Tool::Function { name: "f".into(), description: None, parameters: None, strict: None }],
        parallel_tools: Some(false),
        ..Call::default()
    };
    let body = body(&call);
    assert_eq!(
        body["messages"],
        serde_json::json!([
            {"role":"user","content":[{"type":"text","text":"Continue."}]},
            {"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":{}},{"type":"tool_use","id":"functions_g_1","name":"g","input":{"n":1.0}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":"r"},{"type":"tool_result","tool_use_id":"b","content":"r","is_error":true},{"type":"text","text":"and"}]},
        ])
    );
    assert_eq!((&body["system"], &body["max_tokens"]), (&"s".into(), &8000.into()));
    assert_eq!(body["tool_choice"], serde_json::json!({"type":"auto","disable_parallel_tool_use":true}));
    assert_eq!(body["tools"][0]["input_schema"], serde_json::json!({"type":"object"}));
    let written = write_call(&call, &Target::default()).unwrap();
    assert_eq!((written.dropped, written.adjusted), (vec!["thinking".to_owned()], vec!["messages".to_owned()]));
}

/// A tool that answered with a picture alone, and parts of which one says nothing: Anthropic refuses blank texts.
#[test]
fn blank_texts_are_left_out_wherever_they_stand() {
    let text = |text: &str| Content::Text(text.into());
    let image = || Content::Image(Image::Data { media_type: "image/png".into(), data: "AA==".into() });
    let picture = serde_json::json!({"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA=="}});
    for (content, expect) in [
        (vec![text(""), image()], serde_json::json!([picture])),
        (vec![text(""), text("x"), text(" \n")], serde_json::json!("x")),
        (vec![text("x"), image()], serde_json::json!([{"type":"text","text":"x"}, picture])),
        (vec![text(" ")], serde_json::Value::Null),
        (vec![], serde_json::Value::Null),
    ] {
        let result = Content::ToolResult { id: "a".into(), content, is_error: false };
        let turns = vec![
            Turn::text(Role::System, " "),
            Turn::text(Role::User, "u"),
            Turn { role: Role::Assistant, content: vec![text("\t")] },
            Turn { role: Role::User, content: vec![text(" "), result] },
        ];
        let body = body(&Call { turns, choices: 1, ..Call::default() });
        let said = &body["messages"][0]["content"];
        assert_eq!((&said[0]["content"], &said[1]["text"], said.as_array().unwrap().len()), (&expect, &"u".into(), 2));
        assert_eq!(body["system"], serde_json::Value::Null);
    }
}

/// OpenAI's first form of calls has no ids: the function's name stands for one.
#[test]
fn a_function_called_twice_is_answered_twice() {
    let call = serde_json::json!({"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}});
    let result = |text: &str| serde_json::json!({"role":"function","name":"f","content":text});
    let user = serde_json::json!({"role":"user","content":"x"});
    let chat = serde_json::json!({"model":"m","messages":[user, call, result("1"), call, result("2")]});
    let chat = Object::read(chat.to_string().into()).unwrap();
    let body = body(&Dialect::Chat.codec().read_call(&chat).unwrap());
    let ids = ["/messages/1/content/0/id", "/messages/2/content/0/tool_use_id"];
    let again = ["/messages/3/content/0/id", "/messages/4/content/0/tool_use_id"];
    assert_eq!(ids.map(|at| body.pointer(at).unwrap()), ["f", "f"]);
    assert_eq!(again.map(|at| body.pointer(at).unwrap()), ["f_2", "f_2"]);
}

/// What a model wrote wrong once does not end its conversation.
#[test]
fn arguments_that_are_no_object_go_out_as_one() {
    for (arguments, input, adjusted) in [
        ("{\"n\":1.0}", serde_json::json!({"n":1.0}), 0),
        ("{\"n\":", serde_json::json!({"arguments":"{\"n\":"}), 1),
        ("\"{\\\"n\\\":1}\"", serde_json::json!({"n":1}), 1),
    ] {
        let called = Content::ToolCall { id: "a".into(), name: "f".into(), arguments: arguments.into() };
        let turns = vec![Turn::text(Role::User, "u"), Turn { role: Role::Assistant, content: vec![called] }];
        let call = Call { turns, choices: 1, ..Call::default() };
        assert_eq!(body(&call)["messages"][1]["content"][0]["input"], input, "{arguments}");
        let written = write_call(&call, &Target::default()).unwrap();
        assert_eq!(written.adjusted, vec!["messages.tool_calls".to_owned(); adjusted], "{arguments}");
    }
}

#[test]
fn values_are_moved_into_range_or_named() {
    let user = || vec![Turn::text(Role::User, "u")];
    type Case<'a> = (Call, &'a str, &'a str, &'a [&'a str], &'a [&'a str]);
    let base = || Call { turns: user(), choices: 1, family: "openai", ..Call::default() };
    let cases: Vec<Case<'_>> = vec![
        (Call { temperature: Some(1.7), ..base() }, "temperature", "1", &[], &["temperature"]),
        (Call { temperature: Some(0.5), ..base() }, "temperature", "0.5", &[], &[]),
        (Call { temperature: Some(0.7), top_p: Some(1.0), ..base() }, "temperature", "0.7", &["top_p"], &[]),
        (Call { temperature: Some(0.7), top_p: Some(1.0), ..base() }, "top_p", "null", &["top_p"], &[]),
        (Call { top_p: Some(0.5), ..base() }, "top_p", "0.5", &[], &[]),
        (Call { temperature: Some(0.7), top_p: Some(0.5), family: "anthropic", ..base() }, "top_p", "0.5", &[], &[]),
        (
            Call { temperature: Some(0.7), top_p: Some(0.95), thinking: Some(Thinking::Adaptive), ..base() },
            "top_p",
            "0.95",
            &[],
            &["temperature"],
        ),
        (Call { top_p: Some(0.94), thinking: Some(Thinking::Adaptive), ..base() }, "top_p", "null", &["top_p"], &[]),
        (
            Call { seed: Some(1), presence_penalty: Some(1.0), frequency_penalty: Some(0.0), ..base() },
            "seed",
            "null",
            &["presence_penalty", "seed"],
            &[],
        ),
        (
            Call { thinking: Some(Thinking::Effort(Effort::Low)), ..base() },
            "thinking",
            r#"{"type":"enabled","budget_tokens":4096}"#,
            &[],
            &[],
        ),
        (
            Call { thinking: Some(Thinking::Effort(Effort::XHigh)), max_tokens: Some(64000), ..base() },
            "thinking",
            r#"{"type":"enabled","budget_tokens":31999}"#,
            &[],
            &["reasoning_effort"],
        ),
        (
            Call { thinking: Some(Thinking::Effort(Effort::High)), max_tokens: Some(5000), ..base() },
            "thinking",
            r#"{"type":"enabled","budget_tokens":4999}"#,
            &[],
            &[],
        ),
        (
            Call { thinking: Some(Thinking::Budget(9000)), max_tokens: Some(5000), family: "anthropic", ..base() },
            "thinking",
            r#"{"type":"enabled","budget_tokens":4999}"#,
            &[],
            &["thinking.budget_tokens"],
        ),
        (
            Call { thinking: Some(Thinking::Budget(2000)), max_tokens: Some(1000), family: "anthropic", ..base() },
            "thinking",
            "null",
            &[],
            &["thinking"],
        ),
        (
            Call {
                format: Some(Format::Schema {
                    name: "n".into(),
                    json: r#"{"name":"n","schema":{"type":"object"}}"#.into(),
                }),
                ..base()
            },
            "output_config",
            r#"{"format":{"type":"json_schema","schema":{"type":"object"}}}"#,
            &[],
            &[],
        ),
        (Call { user: Some("u".into()), ..base() }, "metadata", r#"{"user_id":"u"}"#, &[], &[]),
        (
            Call { extra: vec![("logit_bias".into(), "{}".into())], ..base() },
            "logit_bias",
            "null",
            &["logit_bias"],
            &[],
        ),
        (
            Call { extra: vec![("context_management".into(), "{}".into())], family: "anthropic", ..base() },
            "context_management",
            "{}",
            &[],
            &[],
        ),
    ];
    for (call, field, value, dropped, adjusted) in cases {
        let written = write_call(&call, &Target::default()).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&written.body).unwrap();
        assert_eq!(
            (body[field].to_string().as_str(), written.dropped.as_slice(), written.adjusted.as_slice()),
            (
                value,
                dropped.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice(),
                adjusted.iter().map(ToString::to_string).collect::<Vec<_>>().as_slice()
            ),
            "{call:?}"
        );
    }
}

#[test]
fn thinking_leaves_room_for_an_answer() {
    use Effort::{High, Low, Medium, Minimal};
    for (effort, max_tokens, max_output, limit, budget) in [
        (Minimal, None, None, 9024, Some(1024)),
        (Low, None, None, 12096, Some(4096)),
        (Medium, None, None, 24384, Some(16384)),
        // As much as all models can put out that think.
        (High, None, None, 32000, Some(24000)),
        (High, None, Some(64000), 64000, Some(31999)),
        (High, None, Some(16000), 16000, Some(8000)),
        (Medium, None, Some(8000), 8000, Some(4000)),
        (Low, None, Some(1500), 1500, Some(1024)),
        (Low, None, Some(1000), 1000, None),
        (High, Some(8000), Some(64000), 8000, Some(7999)),
    ] {
        let turns = vec![Turn::text(Role::User, "u")];
        let thinking = Some(Thinking::Effort(effort));
        let call = Call { turns, thinking, max_tokens, choices: 1, family: "openai", ..Call::default() };
        let written = write_call(&call, &Target { max_output, ..Target::default() }).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&written.body).unwrap();
        let thought = body["thinking"]["budget_tokens"].as_u64();
        assert_eq!((body["max_tokens"].as_u64(), thought), (Some(limit), budget), "{effort:?} {max_output:?}");
        assert_eq!(written.adjusted.is_empty(), budget.is_some());
    }
}

#[test]
fn what_cannot_be_said_is_refused_by_name() {
    let base = || Call { turns: vec![Turn::text(Role::User, "u")], choices: 1, ..Call::default() };
    let with = |content| Call { turns: vec![Turn { role: Role::User, content: vec![content] }], ..base() };
    for (call, param) in [
        (Call { choices: 2, ..base() }, "n"),
        (Call { format: Some(Format::Json), ..base() }, "response_format"),
        (with(Content::Other { kind: "input_audio".into(), json: "{}".into() }), "messages"),
        (Call { extra: vec![("thread".into(), "{}".into())], ..base() }, "thread"),
    ] {
        assert_eq!(write_call(&call, &Target::default()).unwrap_err().param.as_deref(), Some(param), "{call:?}");
    }
}
