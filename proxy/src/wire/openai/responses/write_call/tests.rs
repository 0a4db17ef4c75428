//! Calls as responses requests.

use super::*;
use crate::canon::call::{Effort, Image, Tool, ToolChoice, Turn};
use crate::wire::Codec;
use crate::wire::object::Object;
use crate::wire::openai::responses::Responses;
use bytes::Bytes;
use serde_json::json;

fn body(call: &Call, to: &Target) -> serde_json::Value {
    serde_json::from_slice(&write_call(call, to).unwrap().body).unwrap()
}

fn openai() -> Target {
    Target { model: "t".into(), reasoning_effort: true, max_completion_tokens: true, ..Target::default() }
}

#[test]
fn a_conversation_is_a_list_of_items() {
    let image = Content::Image(Image::Data { media_type: "image/png".into(), data: "AA==".into() });
    let turns = vec![
        Turn::text(Role::System, "s"),
        Turn { role: Role::User, content: vec![Content::Text("look".into()), image.clone()] },
        Turn {
            role: Role::Assistant,
            content: vec![
                Content::Thinking { text: "hm".into(), signature: Some("sig".into()) },
                Content::RedactedThinking { data: "zz".into() },
                Content::Text("a".into()),
                Content::ToolCall { id: "1".into(), name: "f".into(), arguments: String::new() },
            ],
        },
        Turn {
            role: Role::User,
            content: vec![
                Content::Text("and".into()),
                Content::ToolResult {
                    id: "1".into(),
                    content: vec![Content::Text("no".into()), image],
                    is_error: true,
                },
            ],
        },
        Turn::text(Role::Developer, "d"),
    ];
    let call = Call { turns, choices: 1, family: "anthropic", ..Call::default() };
    let picture = json!({"type":"input_image","detail":"auto","image_url":"data:image/png;base64,AA=="});
    let written = body(&call, &openai());
    assert_eq!((&written["instructions"], &written["store"]), (&json!("s"), &json!(false)));
    assert_eq!(
        written["input"],
        json!([
            {"type":"message","role":"user","content":[{"type":"input_text","text":"look"},picture]},
            {"type":"message","role":"assistant","content":"a"},
            {"type":"function_call","call_id":"1","name":"f","arguments":"{}"},
            {"type":"function_call_output","call_id":"1","output":[{"type":"input_text","text":"Error: no"},picture]},
            {"type":"message","role":"user","content":"and"},
            {"type":"message","role":"developer","content":"d"},
        ])
    );
    assert_eq!(write_call(&call, &openai()).unwrap().dropped, ["thinking", "redacted_thinking"]);
    let first = Target { system_first: true, extended_sampling: true, ..openai() };
    assert_eq!(body(&call, &first)["instructions"], "s\n\nd");
    assert_eq!(body(&call, &first)["input"][1]["summary"][0]["text"], "hm");
}

#[test]
fn what_cannot_be_said_is_refused_or_dropped_by_name() {
    let call = Call {
        choices: 1,
        family: "openai",
        top_k: Some(4),
        seed: Some(1),
        presence_penalty: Some(0.5),
        frequency_penalty: Some(0.0),
        thinking: Some(Thinking::Effort(Effort::Minimal)),
        tools: vec![Tool::Hosted { kind: "custom".into(), json: "{}".into() }],
        tool_choice: Some(ToolChoice::Required),
        extra: vec![("logit_bias".into(), "{}".into())],
        ..Call::default()
    };
    let written = write_call(&call, &openai()).unwrap();
    assert_eq!(written.dropped, ["top_k", "presence_penalty", "seed", "tools.custom", "tool_choice", "logit_bias"]);
    assert_eq!(body(&call, &openai())["reasoning"], json!({"effort":"minimal"}));
    for (call, param) in [
        (Call { choices: 2, ..call.clone() }, "n"),
        (Call { stop: vec!["x".into()], ..call.clone() }, "stop"),
        (Call { extra: vec![("thread".into(), "{}".into())], ..call.clone() }, "thread"),
    ] {
        assert_eq!(write_call(&call, &openai()).unwrap_err().param.as_deref(), Some(param));
    }
}

#[test]
fn tools_and_formats_of_another_family() {
    let call = Call {
        choices: 1,
        family: "openai",
        tools: vec![Tool::Function { name: "f".into(), description: None, parameters: None, strict: None }],
        tool_choice: Some(ToolChoice::Named("f".into())),
        format: Some(Format::Schema { name: "s".into(), json: r#"{"name":"s","schema":{"type":"object"}}"#.into() }),
        ..Call::default()
    };
    let written = body(&call, &openai());
    assert_eq!(
        written["tools"],
        json!([{"type":"function","name":"f","parameters":{"type":"object","properties":{}},"strict":false}])
    );
    assert_eq!(written["tool_choice"], json!({"type":"function","name":"f"}));
    assert_eq!(written["text"], json!({"format":{"type":"json_schema","name":"s","schema":{"type":"object"}}}));
}

/// Chat nests what this dialect has beside the type word.
#[test]
fn a_schema_says_each_thing_once() {
    let cases = [
        (r#"{"name":"s","strict":true,"type":""}"#, r#""name":"s","schema":{},"strict":true"#),
        (r#"{"type":1,"name":"a","name":"s","schema":null,"x":2}"#, r#""name":"s","schema":{},"x":2"#),
        (r#" {"schema":{"type":"object"},"name":"s"}"#, r#""name":"s","schema":{"type":"object"}"#),
    ];
    for (json, expect) in cases {
        let format = Some(Format::Schema { name: "s".into(), json: json.into() });
        let call = Call { choices: 1, family: "openai", format, ..Call::default() };
        let written = write_call(&call, &openai()).unwrap();
        let text = String::from_utf8(written.body.to_vec()).unwrap();
        assert!(text.contains(&format!(r#""text":{{"format":{{"type":"json_schema",{expect}}}}}"#)), "{text}");
    }
}

/// A request of this dialect that a plugin touched keeps what only this dialect can say.
#[test]
fn own_words_survive() {
    let sent = json!({"model":"t","instructions":"s","input":[
        {"type":"message","role":"user","content":"x"},
        {"type":"reasoning","id":"r","summary":[],"encrypted_content":"zz"},
        {"type":"custom_tool_call","call_id":"1","name":"p","input":"a\"b"},
        {"type":"function_call","call_id":"2","namespace":"n","name":"f","arguments":"{}"},
        {"type":"custom_tool_call_output","call_id":"1","output":"one"},
        {"type":"function_call_output","call_id":"2","output":"two"},
        {"type":"message","role":"user","content":[{"type":"input_text","text":"y"},{"type":"input_file","file_id":"f"}]},
    ],"stream":false,"store":false,"tools":[
        {"type":"custom","name":"p","format":{"type":"grammar","syntax":"lark","definition":"x"}},
        {"type":"web_search"},
        {"type":"namespace","name":"n","description":"N","tools":[{"type":"function","name":"f","parameters":{}},{"type":"function","name":"g"}]},
        {"type":"function","name":"h","parameters":{}},
    ],"tool_choice":{"type":"custom","name":"p"},"include":["a"],"previous_response_id":"resp_1"});
    let object = Object::read(Bytes::from(sent.to_string())).unwrap();
    let mut call = Responses.read_call(&object).unwrap();
    assert_eq!(body(&call, &openai()), sent);
    call.tools.retain(|tool| !matches!(tool, Tool::Function { name, .. } if name == "n__g"));
    assert_eq!(body(&call, &openai())["tools"][2]["tools"], json!([{"type":"function","name":"f","parameters":{}}]));
}

/// Found by fuzzing: its place in the list was left empty.
#[test]
fn a_namespace_that_has_a_key_twice_has_it_once() {
    let text = r#"{"model":"m","input":"x","tools":[{"type":"namespace","name":"b","a":1,"a":2,"tools":[{"type":"function","name":"s","parameters":{}}]}]}"#;
    let call = Responses.read_call(&Object::read(Bytes::from_static(text.as_bytes())).unwrap()).unwrap();
    let tool = json!({"type":"function","name":"s","parameters":{}});
    assert_eq!(body(&call, &openai())["tools"], json!([{"type":"namespace","name":"b","a":2,"tools":[tool]}]));
}
