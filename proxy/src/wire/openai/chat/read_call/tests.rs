//! Chat requests as calls.

use super::*;
use crate::canon::call::Content;
use bytes::Bytes;

fn read(text: &str) -> Result<Call, Fault> {
    read_call(&Object::read(Bytes::copy_from_slice(text.as_bytes())).unwrap())
}

#[test]
fn everything_wrong_is_said_at_once() {
    let cases: &[(&str, &[&str])] = &[
        ("{}", &["body.model missing", "body.messages missing"]),
        (r#"{"model":"","messages":[]}"#, &["body.model string_too_short", "body.messages too_short"]),
        (
            r#"{"model":1,"messages":{},"temperature":3,"n":0,"stream":"yes","max_tokens":1.5,"top_p":"x"}"#,
            &[
                "body.model string_type",
                "body.messages list_type",
                "body.max_tokens int_from_float",
                "body.stream bool_type",
                "body.temperature less_than_equal",
                "body.top_p float_parsing",
                "body.n greater_than_equal",
            ],
        ),
        (
            r#"{"model":"m","messages":[{"role":"bad","content":"x"},{"content":"x"},{"role":"user"},3,{"role":"user","content":[{"type":"text"},{"text":"x"}]}]}"#,
            &[
                "body.messages.0.role literal_error",
                "body.messages.1.role missing",
                "body.messages.2.content missing",
                "body.messages.3 dict_type",
                "body.messages.4.content.0.text missing",
                "body.messages.4.content.1 union_tag_not_found",
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
fn deep_messages_are_refused() {
    let text = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"x","x":{}{}}}]}}]}}"#,
        "[".repeat(130),
        "]".repeat(130)
    );
    assert_eq!(read(&text).unwrap_err().details[0].kind, "json_invalid");
}

#[test]
fn fields_that_name_another_backend_do_not_exist() {
    let call = read(r#"{"model":"m","messages":[{"role":"user","content":"x","name":"bo"}],"api_base":"http://x","api_key":"k","base_url":"u","extra_headers":{},"logit_bias":{"1":2}}"#).unwrap();
    assert_eq!(
        call.extra,
        [("logit_bias".to_owned(), "{\"1\":2}".to_owned()), ("messages.name".to_owned(), "\"bo\"".to_owned())]
    );
}

#[test]
fn tool_messages_in_a_row_are_one_turn() {
    let call = read(
        r#"{"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","content":null,"tool_calls":[
            {"id":"a","type":"function","function":{"name":"f","arguments":"{\"n\": 12345678901234567890}"}},{"id":"b","type":"function","function":{"name":"g","arguments":{"x":1.0}}}]},
            {"role":"tool","tool_call_id":"a","content":"1"},{"role":"tool","tool_call_id":"b","content":[{"type":"text","text":"2"}]}]}"#,
    )
    .unwrap();
    assert_eq!(call.turns.len(), 3);
    assert_eq!(
        call.turns[1].content[0],
        Content::ToolCall { id: "a".into(), name: "f".into(), arguments: "{\"n\": 12345678901234567890}".into() }
    );
    assert_eq!(
        call.turns[1].content[1],
        Content::ToolCall { id: "b".into(), name: "g".into(), arguments: "{\"x\":1.0}".into() }
    );
    assert_eq!(call.turns[2].content.len(), 2);
}
