//! Replies of Messages as events.

use super::*;
use crate::canon::event::Grammar;

fn read(events: &[&str]) -> String {
    let mut reader = Reader::default();
    let mut out = Vec::new();
    for data in events {
        reader.read(&Frame { raw: Bytes::from(format!("event: x\ndata: {data}\n\n")) }, &mut out);
    }
    reader.end(&mut out);
    Grammar::check(&out).unwrap_or_else(|rule| panic!("{rule}: {out:#?}"));
    let mut said = String::new();
    for event in &out {
        match event {
            Event::Start { .. } => {}
            Event::Open(Part::ToolCall { id, name }) => said.push_str(&format!("C({id},{name},")),
            Event::Open(Part::Text) => said.push_str("T("),
            Event::Open(Part::Thinking) => said.push_str("K("),
            Event::Open(Part::Other { kind, json }) => said.push_str(&format!("O({kind},{json}")),
            Event::Open(other) => said.push_str(&format!("{other:?}(")),
            Event::Delta(Delta::Signature(text)) => said.push_str(&format!("|{text}")),
            Event::Delta(Delta::Citation(text)) => said.push_str(&format!("[{text}]")),
            Event::Delta(Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text)) => said.push_str(text),
            Event::Close => said.push_str(") "),
            Event::Usage(usage) => {
                said.push_str(&format!("U({:?},{:?}) ", usage.input.unwrap_or(9999), usage.output.unwrap_or(9999)))
            }
            Event::Stop(reason) => said.push_str(reason.as_str()),
            Event::Fault(fault) => said.push_str(&format!("!{}", fault.kind.label())),
        }
    }
    said
}

#[test]
fn what_backends_send() {
    let start = r#"{"type":"message_start","message":{"id":"m1","model":"m","usage":{"input_tokens":3,"cache_read_input_tokens":4,"cache_creation_input_tokens":null,"output_tokens":1}}}"#;
    let text = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
    let more = r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#;
    let close = r#"{"type":"content_block_stop","index":0}"#;
    let end = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":5,"input_tokens":null}}"#;
    let one = r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":1}}"#;
    let last = r#"{"type":"message_stop"}"#;
    let call = r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#;
    let json = |part: &str| {
        format!(
            r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"input_json_delta","partial_json":{part:?}}}}}"#
        )
    };
    let cases: Vec<(&str, Vec<&str>, &str)> = vec![
        ("text", vec![start, text, r#"{"type":"ping"}"#, more, close, end, last], "U(7,1) T(a) U(7,5) end_turn"),
        ("a second start", vec![start, start, text, more, close, end, last], "U(7,1) U(7,1) T(a) U(7,5) end_turn"),
        ("one token", vec![start, text, more, close, one, last], "U(7,1) T(a) U(7,1) end_turn"),
        ("no block start", vec![start, more, close, end, last], "U(7,1) T(a) U(7,5) end_turn"),
        ("no block stop", vec![start, text, more, end, last], "U(7,1) T(aU(7,5) ) end_turn"),
        (
            "reused index",
            vec![start, text, more, close, text, more, close, end, last],
            "U(7,1) T(a) T(a) U(7,5) end_turn",
        ),
        ("no arguments", vec![start, call, close, end, last], "U(7,1) C(t,f,) U(7,5) tool_use"),
        (
            "input on the start",
            vec![
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"f","input":{"n":12345678901234567890}}}"#,
                close,
                last,
            ],
            "C(t,f,{\"n\":12345678901234567890}) tool_use",
        ),
        (
            "zeros at the end",
            vec![
                start,
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5,"input_tokens":0,"cache_read_input_tokens":0}}"#,
                last,
            ],
            "U(7,1) U(7,5) end_turn",
        ),
        ("cut", vec![start, text, more, close, end], "U(7,1) T(a) U(7,5) !backend_cut"),
        (
            "error",
            vec![start, text, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#],
            "U(7,1) T(!backend_busy",
        ),
        (
            "another block",
            vec![start, text, r#"{"type":"content_block_delta","index":3,"delta":{"type":"text_delta","text":"a"}}"#],
            "U(7,1) T(!backend_error",
        ),
        ("nothing", vec![], "!backend_cut"),
    ];
    for (name, events, expect) in cases {
        assert_eq!(read(&events), expect, "{name}");
    }
    let hosted = r#"{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"s","name":"web_search","input":{}}}"#;
    assert_eq!(
        read(&[start, hosted, &json("{\"q\""), &json(":1}"), close, last]),
        "U(7,1) O(server_tool_use,{\"type\":\"server_tool_use\",\"id\":\"s\",\"name\":\"web_search\",\"input\":{\"q\":1}}) end_turn"
    );
    let summed = [
        start,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"compaction","content":null}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"compaction_delta","content":"a\"b"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"s"}}"#,
        close,
        last,
    ];
    assert_eq!(
        read(&summed),
        "U(7,1) O(compaction,{\"type\":\"compaction\",\"content\":\"a\\\"b\",\"signature\":\"s\"}) end_turn"
    );
    let thinking = [
        start,
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"h"}}"#,
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"sig"}}"#,
        close,
        last,
    ];
    assert_eq!(read(&thinking), "U(7,1) K(h|sig) end_turn");
}
