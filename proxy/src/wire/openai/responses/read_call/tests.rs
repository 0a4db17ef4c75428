//! Responses requests as calls.

use super::*;
use crate::canon::call::{Tool, ToolChoice};
use bytes::Bytes;

fn read(text: &str) -> Result<Call, Fault> {
    read_call(&Object::read(Bytes::copy_from_slice(text.as_bytes())).unwrap())
}

#[test]
fn everything_wrong_is_said_at_once() {
    let cases: &[(&str, &[&str])] = &[
        ("{}", &["body.model missing", "body.input missing"]),
        (r#"{"model":"","input":[]}"#, &["body.model string_too_short", "body.input too_short"]),
        (
            r#"{"model":"m","input":3,"instructions":[],"store":1,"max_output_tokens":0,"reasoning":{"effort":"much"},"tools":{},"stream":"x"}"#,
            &[
                "body.input list_type",
                "body.instructions string_type",
                "body.store bool_type",
                "body.tools list_type",
                "body.stream bool_type",
                "body.max_output_tokens greater_than_equal",
                "body.reasoning.effort literal_error",
            ],
        ),
        (
            r#"{"model":"m","input":["x",{"a":1},{"role":"tool","content":"x"},{"role":"user"},{"type":"message","content":"x"},{"role":"user","content":[{"type":"input_text"},{"text":"x"},{"type":"input_image","image_url":"data:x"}]},{"type":"function_call","call_id":"c"},{"type":"function_call_output","call_id":"c"}]}"#,
            &[
                "body.input.0 dict_type",
                "body.input.1 union_tag_not_found",
                "body.input.2.role literal_error",
                "body.input.3.content missing",
                "body.input.4.role missing",
                "body.input.5.content.0.text missing",
                "body.input.5.content.1 union_tag_not_found",
                "body.input.5.content.2.image_url value_error",
                "body.input.6.name missing",
                "body.input.6.arguments missing",
                "body.input.7.output missing",
            ],
        ),
        (
            r#"{"model":"m","input":"x","tools":[1,{"type":"function"},{"type":"namespace","name":"n","tools":[{"type":"custom"}]}],"tool_choice":"maybe","text":{"format":{"type":"json_schema","name":"s"}}}"#,
            &[
                "body.tools.0 dict_type",
                "body.tools.1.name missing",
                "body.tools.2.tools.0.name missing",
                "body.tool_choice literal_error",
                "body.text.format.schema missing",
            ],
        ),
    ];
    for (text, expect) in cases {
        let fault = read(text).unwrap_err();
        let found: Vec<_> =
            fault.details.iter().map(|detail| format!("{} {}", detail.loc.join("."), detail.kind)).collect();
        assert_eq!(found, *expect, "{text}");
    }
}

#[test]
fn items_in_a_row_are_one_turn() {
    let call = read(
        r#"{"model":"m","instructions":"s","input":[{"role":"user","content":"x"},
        {"type":"reasoning","id":"r","summary":[{"type":"summary_text","text":"a"},{"type":"summary_text","text":"b"}]},
        {"type":"reasoning","id":"r","summary":[],"encrypted_content":"zz"},
        {"type":"message","role":"assistant","content":[{"type":"output_text","text":"t","annotations":[]}]},
        {"type":"function_call","call_id":"1","name":"f","arguments":"{}"},
        {"type":"custom_tool_call","call_id":"2","name":"p","namespace":"n","input":"a\nb"},
        {"type":"function_call_output","call_id":"1","output":"one"},
        {"type":"custom_tool_call_output","call_id":"2","output":[{"type":"input_text","text":"two"}]},
        {"type":"message","role":"developer","content":"d"}]}"#,
    )
    .unwrap();
    let result = |id: &str, text: &str| Content::ToolResult {
        id: id.into(),
        content: vec![Content::Text(text.into())],
        is_error: false,
    };
    let call_of = |id: &str, name: &str, arguments: &str| Content::ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
    };
    assert_eq!(
        call.turns,
        [
            Turn::text(Role::System, "s"),
            Turn::text(Role::User, "x"),
            Turn {
                role: Role::Assistant,
                content: vec![
                    Content::Thinking { text: "a\n\nb".into(), signature: None },
                    Content::RedactedThinking {
                        data: r#"{"type":"reasoning","id":"r","summary":[],"encrypted_content":"zz"}"#.into()
                    },
                    Content::Text("t".into()),
                    call_of("1", "f", "{}"),
                    call_of("2", "n__p", r#"{"input":"a\nb"}"#),
                ]
            },
            Turn { role: Role::User, content: vec![result("1", "one"), result("2", "two")] },
            Turn::text(Role::Developer, "d"),
        ]
    );
}

/// A conversation that went on before its vendor goes on elsewhere.
#[test]
fn items_of_the_vendor_s_own_end_no_conversation() {
    let call = read(
        r#"{"model":"m","input":[{"role":"user","content":"x"},{"type":"compaction","encrypted_content":"zz"},{"type":"image_generation_call","id":"i","result":"AA=="},
        {"type":"local_shell_call","id":"l","call_id":"1","status":"completed","action":{"type":"exec","command":["ls"]}},{"type":"function_call_output","call_id":"1","output":"a"},
        {"type":"tool_search_call","call_id":null,"execution":"server","arguments":{}}]}"#,
    )
    .unwrap();
    assert_eq!(super::super::confined(&call), Ok(()));
    let names: Vec<_> = call.extra.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["input.compaction", "input.image_generation_call", "input.tool_search_call"]);
    let [_, said, result, _] = call.turns.as_slice() else { panic!("{:#?}", call.turns) };
    let shell = Content::ToolCall {
        id: "1".into(),
        name: "local_shell".into(),
        arguments: r#"{"type":"exec","command":["ls"]}"#.into(),
    };
    assert_eq!(said.content.last(), Some(&shell));
    assert!(matches!(result.content.as_slice(), [Content::ToolResult { id, .. }] if id == "1"));
    let fault = read(r#"{"model":"m","input":[{"type":"local_shell_call","action":{}}]}"#).unwrap_err();
    assert_eq!(fault.details[0].loc.join("."), "body.input.0.call_id");
}

#[test]
fn tools_become_functions_and_what_has_no_form_is_kept_by_name() {
    let call = read(
        r#"{"model":"m","input":"x","store":true,"background":false,"include":["a"],"text":{"verbosity":"low"},"reasoning":{"summary":"auto"},"api_base":"u",
        "tool_choice":{"type":"custom","name":"p"},"tools":[{"type":"custom","name":"p","description":"D","format":{"type":"grammar","syntax":"lark","definition":"start: x"}},
        {"type":"namespace","name":"n","tools":[{"type":"function","name":"f","parameters":{}}]},{"type":"web_search"}]}"#,
    )
    .unwrap();
    let names: Vec<_> = call.extra.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["include", "text.verbosity", "reasoning.summary"]);
    assert_eq!(call.tool_choice, Some(ToolChoice::Named("p".into())));
    let [
        Tool::Function { name, description, parameters, .. },
        Tool::Function { name: flat, .. },
        Tool::Hosted { kind, .. },
    ] = call.tools.as_slice()
    else {
        panic!("{:?}", call.tools)
    };
    assert_eq!((name.as_str(), flat.as_str(), kind.as_str()), ("p", "n__f", "web_search"));
    assert_eq!(description.as_deref(), Some("D\n\n`input` must follow this lark grammar:\nstart: x"));
    assert!(parameters.as_deref().unwrap().contains("\"input\""));
    assert!(call.tools_as_sent.is_some());
}

/// A body of a few megabytes has room for this many, and they are read on a thread of many requests.
#[test]
fn many_tools_among_the_items_do_not_cost_their_square() {
    const MANY: usize = 100_000;
    let tools: Vec<String> = (0..MANY).map(|at| format!(r#"{{"type":"function","name":"f{at:06}"}}"#)).collect();
    let item = format!(r#"{{"type":"additional_tools","tools":[{}]}}"#, tools.join(","));
    let again = r#"{"type":"additional_tools","tools":[{"type":"function","name":"f000007"},{"type":"web_search"}]}"#;
    let body =
        format!(r#"{{"model":"m","input":[{item},{{"role":"user","content":"x"}},{again}],"tools":[{}]}}"#, tools[0]);
    let began = std::time::Instant::now();
    let call = read(&body).unwrap();
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    assert_eq!(call.tools.len(), MANY + 1, "each function once, and the search");
    assert!(matches!(&call.tools[MANY], Tool::Hosted { kind, .. } if kind == "web_search"));
}
