//! Response events as events; what whole streams mean is in the recordings.

use super::*;
use crate::canon::event::Grammar;

/// What was read: `T(text) K(thinking) C(id,name,arguments) stop`.
fn read(events: &[&str]) -> String {
    let mut reader = Reader::default();
    let mut out = Vec::new();
    for event in events {
        reader.read(&Frame { raw: Bytes::from(format!("data: {{{event}}}\n\n")) }, &mut out);
    }
    reader.end(&mut out);
    Grammar::check(&out).unwrap_or_else(|rule| panic!("{rule}: {out:#?}"));
    let mut said = String::new();
    for event in &out {
        match event {
            Event::Open(Part::ToolCall { id, name }) => said.push_str(&format!("C({id},{name},")),
            Event::Open(Part::Text) => said.push_str("T("),
            Event::Open(Part::Thinking) => said.push_str("K("),
            Event::Open(other) => said.push_str(&format!("{other:?}(")),
            Event::Delta(Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text)) => said.push_str(text),
            Event::Close => said.push_str(") "),
            Event::Stop(reason) => said.push_str(reason.as_str()),
            Event::Fault(fault) => said.push_str(&format!("!{}", fault.kind.label())),
            _ => {}
        }
    }
    said
}

#[test]
fn what_servers_leave_out_or_say_twice() {
    let end = r#""type":"response.completed","response":{"status":"completed","output":[]}"#;
    let text = r#""type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"a""#;
    let call = r#""type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"i","name":"f","arguments":""}"#;
    let argument = r#""type":"response.function_call_arguments.delta","output_index":1,"delta":"{}""#;
    let custom = r#""type":"response.output_item.added","output_index":1,"item":{"type":"custom_tool_call","call_id":"i","name":"p","input":""}"#;
    let cut = r#""type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"output":[]}"#;
    let input = r#""type":"response.custom_tool_call_input.delta","output_index":1,"delta":"a""#;
    let cases: &[(&str, Vec<&str>, &str)] = &[
        ("no announcements", vec![text, text, end], "T(aa) end_turn"),
        ("a call without a done", vec![text, call, argument, end], "T(a) C(i,f,{}) tool_use"),
        ("announced twice", vec![call, call, argument, end], "C(i,f,{}) tool_use"),
        (
            "arguments only in the done",
            vec![
                call,
                r#""type":"response.function_call_arguments.done","output_index":1,"arguments":"{\"a\":1}""#,
                end,
            ],
            "C(i,f,{\"a\":1}) tool_use",
        ),
        (
            "arguments only in the item",
            vec![
                call,
                r#""type":"response.output_item.done","output_index":1,"item":{"type":"function_call","call_id":"i","name":"f","arguments":"{\"a\":1}"}"#,
                end,
            ],
            "C(i,f,{\"a\":1}) tool_use",
        ),
        ("no arguments", vec![call, end], "C(i,f,) tool_use"),
        ("an empty custom input", vec![custom, end], "C(i,p,{\"input\":\"\"}) tool_use"),
        (
            "a custom input in pieces",
            vec![custom, r#""type":"response.custom_tool_call_input.delta","output_index":1,"delta":"a\"b\n""#, end],
            "C(i,p,{\"input\":\"a\\\"b\\n\"}) tool_use",
        ),
        (
            "a custom input that was cut",
            vec![
                custom,
                input,
                r#""type":"response.custom_tool_call_input.done","output_index":1,"input":"a""#,
                r#""type":"response.output_item.done","output_index":1,"item":{"type":"custom_tool_call","status":"incomplete","call_id":"i","name":"p","input":"a"}"#,
                cut,
            ],
            "C(i,p,{\"input\":\"a) max_tokens",
        ),
        ("the same without the item's end", vec![custom, input, cut], "C(i,p,{\"input\":\"a) max_tokens"),
        (
            "one that was not, before the limit",
            vec![
                custom,
                input,
                r#""type":"response.output_item.done","output_index":1,"item":{"type":"custom_tool_call","status":"completed","call_id":"i","name":"p","input":"a"}"#,
                cut,
            ],
            "C(i,p,{\"input\":\"a\"}) max_tokens",
        ),
        (
            "a search for tools that the client makes",
            vec![
                r#""type":"response.output_item.added","output_index":1,"item":{"type":"tool_search_call","call_id":"i","execution":"client","arguments":{}}"#,
                r#""type":"response.output_item.done","output_index":1,"item":{"type":"tool_search_call","call_id":"i","execution":"client","arguments":{"query":"q"}}"#,
                end,
            ],
            "C(i,tool_search,{\"query\":\"q\"}) tool_use",
        ),
        (
            "one that the server made",
            vec![
                r#""type":"response.output_item.done","output_index":1,"item":{"type":"tool_search_call","call_id":null,"execution":"server","arguments":{"paths":["p"]}}"#,
                end,
            ],
            "end_turn",
        ),
        (
            "text only in the done",
            vec![r#""type":"response.output_text.done","output_index":0,"content_index":0,"text":"a""#, end],
            "T(a) end_turn",
        ),
        (
            "a thought told in two ways",
            vec![
                r#""type":"response.reasoning_text.delta","output_index":0,"content_index":0,"delta":"a""#,
                r#""type":"response.reasoning_summary_text.delta","output_index":0,"summary_index":0,"delta":"b""#,
                end,
            ],
            "K(a) end_turn",
        ),
        ("arguments without a call", vec![argument, end], "!backend_error"),
        ("arguments of a closed call", vec![call, text, argument, end], "C(i,f,) T(a!backend_error"),
        ("cut", vec![text], "T(a!backend_cut"),
        ("nothing", vec![], "!backend_cut"),
        ("done is no end", vec![text, r#""type":"response.output_item.done","output_index":0"#], "T(a) !backend_cut"),
        (
            "cancelled",
            vec![text, r#""type":"response.cancelled","response":{"status":"cancelled"}"#],
            "T(a!backend_error",
        ),
        ("an error of another family", vec![r#""error":{"message":"x","code":429}"#], "!backend_busy"),
        ("nothing after the end", vec![text, end, text], "T(a) end_turn"),
    ];
    for (name, events, expect) in cases {
        assert_eq!(read(events), *expect, "{name}");
    }
}

#[test]
fn whole_replies_that_are_none() {
    for (body, kind) in [
        (r#"{"error":{"message":"x"}}"#, FaultKind::BackendError),
        (
            r#"{"status":"failed","error":{"code":"rate_limit_exceeded","message":"x"},"output":[]}"#,
            FaultKind::BackendBusy,
        ),
        (r#"{"status":"cancelled","error":null,"output":[]}"#, FaultKind::BackendError),
        (r#"{"status":"completed"}"#, FaultKind::BackendError),
        ("[]", FaultKind::BackendError),
        ("x", FaultKind::BackendError),
    ] {
        assert_eq!(answer(&Bytes::from_static(body.as_bytes())).unwrap_err().kind, kind, "{body}");
    }
}
