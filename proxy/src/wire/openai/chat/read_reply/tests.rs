//! Chat replies as events.

use super::*;
use crate::canon::event::Grammar;

/// A short way to say what was read: `T(text) K(thinking) R(refusal) C(id,name,arguments) U(in,out) stop`.
fn read(chunks: &[&str]) -> String {
    let mut reader = Reader::default();
    let mut events = Vec::new();
    for chunk in chunks {
        reader.read(&Frame { raw: Bytes::from(format!("data: {chunk}\n\n")) }, &mut events);
    }
    reader.end(&mut events);
    Grammar::check(&events).unwrap_or_else(|rule| panic!("{rule}: {events:#?}"));
    let mut said = String::new();
    for event in &events {
        match event {
            Event::Start { .. } => {}
            Event::Open(Part::ToolCall { id, name }) => said.push_str(&format!("C({id},{name},")),
            Event::Open(Part::Text) => said.push_str("T("),
            Event::Open(Part::Thinking) => said.push_str("K("),
            Event::Open(Part::Refusal) => said.push_str("R("),
            Event::Open(other) => said.push_str(&format!("{other:?}(")),
            Event::Delta(Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text)) => said.push_str(text),
            Event::Delta(other) => said.push_str(&format!("{other:?}")),
            Event::Close => said.push_str(") "),
            Event::Usage(usage) => {
                said.push_str(&format!("U({},{}) ", usage.input.unwrap_or(9999), usage.output.unwrap_or(9999)))
            }
            Event::Stop(reason) => said.push_str(reason.as_str()),
            Event::Fault(fault) => said.push_str(&format!("!{}", fault.kind.label())),
        }
    }
    said
}

fn delta(json: &str) -> String {
    format!(r#"{{"id":"x","choices":[{{"index":0,"delta":{json},"finish_reason":null}}]}}"#)
}

fn finish(word: &str) -> String {
    format!(r#"{{"id":"x","choices":[{{"index":0,"delta":{{}},"finish_reason":"{word}"}}]}}"#)
}

fn call(index: &str, id: &str, name: &str, arguments: &str) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap();
    delta(&format!(
        r#"{{"tool_calls":[{{{index}"id":{},"type":"function","function":{{"name":{},"arguments":{}}}}}]}}"#,
        if id.is_empty() { "null".into() } else { quoted(id) },
        if name.is_empty() { "null".into() } else { quoted(name) },
        quoted(arguments)
    ))
}

#[test]
fn what_backends_send() {
    let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    let (zero, one) = ("\"index\":0,", "\"index\":1,");
    let invented = |n: usize, first: &str| {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hash = DefaultHasher::new();
        first.hash(&mut hash);
        format!("call_{:016x}{n}", hash.finish())
    };
    let cases: Vec<(&str, Vec<String>, String)> = vec![
            ("role, null, empty list", vec![delta(r#"{"role":"assistant","content":null,"tool_calls":[]}"#), delta(r#"{"content":"a","tool_calls":[]}"#), delta(r#"{"content":"b"}"#), finish("stop"), usage.into(), "[DONE]".into()], "T(ab) U(3,2) end_turn".into()),
            ("no choices at all", vec![r#"{"choices":[],"prompt_progress":{}}"#.into(), delta(r#"{"content":"a"}"#), finish("stop")], "T(a) end_turn".into()),
            ("two kinds of reasoning", vec![delta(r#"{"reasoning":"a","reasoning_content":"a"}"#), delta(r#"{"reasoning":"b","content":""}"#), delta(r#"{"content":"c"}"#), finish("stop")], "K(ab) T(c) end_turn".into()),
            ("refusal", vec![delta(r#"{"refusal":"no"}"#), finish("stop")], "R(no) end_turn".into()),
            ("text and call at once", vec![delta(r#"{"content":"a","tool_calls":[{"index":0,"id":"i","function":{"name":"f","arguments":"{}"}}]}"#), finish("stop")], "T(a) C(i,f,{}) tool_use".into()),
            ("length wins", vec![call(zero, "i", "f", "{\"a"), finish("length")], "C(i,f,{\"a) max_tokens".into()),
            ("parallel", vec![call(zero, "i", "f", ""), call(zero, "", "", "{\"a\":1}"), call(one, "j", "g", ""), call(one, "", "", "{}"), finish("tool_calls")], "C(i,f,{\"a\":1}) C(j,g,{}) tool_use".into()),
            ("interleaved", vec![call(zero, "i", "f", "{\"a\":"), call(one, "j", "g", "{\"b\":"), call(zero, "", "", "1}"), call(one, "", "", "2}"), finish("tool_calls")], "C(i,f,{\"a\":1}) C(j,g,{\"b\":2}) tool_use".into()),
            ("heads first", vec![call(zero, "i", "f", ""), call(one, "j", "g", ""), call(zero, "", "", "{}"), call(one, "", "", "{}"), finish("stop")], "C(i,f,{}) C(j,g,{}) tool_use".into()),
            ("index 0 for all", vec![call(zero, "i", "f", "{}"), call(zero, "j", "f", "{}"), finish("stop")], "C(i,f,{}) C(j,f,{}) tool_use".into()),
            ("index 0, no ids", vec![call(zero, "", "f", "{}"), call(zero, "", "f", "{\"a\":1}"), finish("stop")], format!("C({},f,{{}}) C({},f,{{\"a\":1}}) tool_use", invented(0, &call(zero, "", "f", "{}")), invented(1, &call(zero, "", "f", "{}")))),
            ("no index, no later ids", vec![call("", "i", "f", ""), call("", "", "", "{}"), call("", "j", "g", "{"), call("", "", "", "}"), finish("stop")], "C(i,f,{}) C(j,g,{}) tool_use".into()),
            ("repeated id and name", vec![call(zero, "i", "f", "{"), call(zero, "i", "f", "}"), finish("stop")], "C(i,f,{}) tool_use".into()),
            ("doubled id", vec![call(zero, "i", "f", "{}"), call(one, "i", "g", "{}"), finish("stop")], format!("C(i,f,{{}}) C({},g,{{}}) tool_use", invented(1, &call(zero, "i", "f", "{}")))),
            ("line end inside a call", vec![call(zero, "i", "f", ""), delta(r#"{"content":"\n"}"#), call(zero, "", "", "{}"), finish("stop")], "C(i,f,{}) tool_use".into()),
            ("no arguments", vec![call(zero, "i", "f", ""), finish("tool_calls")], "C(i,f,) tool_use".into()),
            ("everything at the end", vec![r#"{"choices":[{"message":{"content":"a","tool_calls":[{"id":"i","function":{"name":"f","arguments":{"x":12345678901234567890}}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#.into()], "T(a) C(i,f,{\"x\":12345678901234567890}) U(1,0) tool_use".into()),
            ("legacy", vec![delta(r#"{"function_call":{"name":"f","arguments":"{"}}"#), delta(r#"{"function_call":{"arguments":"}"}}"#), finish("function_call")], format!("C({},f,{{}}) tool_use", invented(0, &delta(r#"{"function_call":{"name":"f","arguments":"{"}}"#)))),
            ("timings", vec![delta(r#"{"content":"a"}"#), r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"timings":{"prompt_n":4,"cache_n":2,"predicted_n":1}}"#.into()], "T(a) U(6,1) end_turn".into()),
            ("usage null, then twice", vec![r#"{"choices":[{"delta":{"content":"a"}}],"usage":null}"#.into(), r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#.into(), usage.into()], "T(a) U(3,2) end_turn".into()),
            ("error inside", vec![delta(r#"{"content":"a"}"#), r#"{"error":{"message":"x","code":500}}"#.into(), "[DONE]".into()], "T(a!backend_error".into()),
            ("busy inside", vec![r#"{"error":{"message":"x","code":429}}"#.into()], "!backend_busy".into()),
            ("cut", vec![delta(r#"{"content":"a"}"#)], "T(a!backend_cut".into()),
            ("done without a reason", vec![delta(r#"{"content":"a"}"#), "[DONE]".into()], "T(a!backend_cut".into()),
            ("nothing", vec![], "!backend_cut".into()),
            ("not JSON", vec!["<html>".into()], "!backend_error".into()),
            ("stop sequence", vec![delta(r#"{"content":"a"}"#), r#"{"choices":[{"delta":{},"finish_reason":"stop","stop_reason":"END"}]}"#.into()], "T(a) stop_sequence".into()),
            ("other choices", vec![r#"{"choices":[{"index":1,"delta":{"content":"b"}},{"index":0,"delta":{"content":"a"}}]}"#.into(), finish("stop")], "T(a) end_turn".into()),
        ];
    for (name, chunks, expect) in cases {
        let chunks: Vec<_> = chunks.iter().map(String::as_str).collect();
        assert_eq!(read(&chunks), expect, "{name}");
    }
}

#[test]
fn a_call_of_no_function_is_refused_by_its_type() {
    for call in [r#"{"id":"i","type":"mcp","mcp":{"name":"f","input":"x"}}"#, r#"{"type":"mcp"}"#] {
        let body = format!(r#"{{"choices":[{{"message":{{"content":"a","tool_calls":[{call}]}}}}]}}"#);
        let fault = answer(&Bytes::from(body)).unwrap_err();
        assert!(fault.message.contains("of type `mcp`"), "{call}: {fault:?}");
    }
    let odd = delta(r#"{"tool_calls":[{"index":0,"id":"i","type":"tool","function":{"name":"f","arguments":"{}"}}]}"#);
    assert_eq!(read(&[&odd, &finish("stop")]), "C(i,f,{}) tool_use");
}

/// As one of the function that stands for its tool.
#[test]
fn a_call_of_a_custom_tool_is_read() {
    let custom = |index: u64, id: &str, name: &str, input: &str| {
        let call =
            serde_json::json!({"index": index, "id": id, "type": "custom", "custom": {"name": name, "input": input}});
        delta(&serde_json::json!({ "tool_calls": [call] }).to_string())
    };
    let more = |input: &str| {
        let call = serde_json::json!({"index": 0, "custom": {"input": input}});
        delta(&serde_json::json!({ "tool_calls": [call] }).to_string())
    };
    let first = r#"C(i,p,{"input":"a\"}{\n b"}) "#;
    for (chunks, expect) in [
        (vec![custom(0, "i", "p", ""), more("a\"}{\n"), more(" b"), finish("tool_calls")], format!("{first}tool_use")),
        (vec![custom(0, "i", "p", "a\"}{\n b"), finish("length")], format!("{first}max_tokens")),
        (vec![custom(0, "i", "p", ""), finish("stop")], r#"C(i,p,{"input":""}) tool_use"#.to_owned()),
        (
            vec![custom(0, "i", "p", "a\"}{\n"), custom(1, "j", "q", "x"), more(" b"), finish("tool_calls")],
            format!(r#"{first}C(j,q,{{"input":"x"}}) tool_use"#),
        ),
        (
            vec![custom(0, "i", "p", "a\"}{\n b"), delta(r#"{"content":"t"}"#), more("c")],
            format!("{first}T(t!backend_error"),
        ),
    ] {
        assert_eq!(read(&chunks.iter().map(String::as_str).collect::<Vec<_>>()), expect);
    }
    let body = br#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"i","type":"custom","custom":{"name":"p","input":"x"}},{"id":"j","type":"custom","custom":{"name":"q","input":"y"}}]},"finish_reason":"tool_calls"}]}"#;
    let arguments: String = answer(&Bytes::from_static(body))
        .unwrap()
        .iter()
        .filter_map(|event| if let Event::Delta(Delta::Arguments(text)) = event { Some(text.as_str()) } else { None })
        .collect();
    assert_eq!(arguments, r#"{"input":"x"}{"input":"y"}"#);
}

#[test]
fn whole_replies() {
    let body =
        Bytes::from_static(br#"{"id":"c","model":"m","choices":[{"message":{"role":"assistant","content":"hi"}}]}"#);
    let events = answer(&body).unwrap();
    assert_eq!(events.last(), Some(&Event::Stop(StopReason::EndTurn)));
    for (body, kind) in [
        (r#"{"error":{"message":"x"}}"#, FaultKind::BackendError),
        ("[]", FaultKind::BackendError),
        (r#"{"choices":[]}"#, FaultKind::BackendError),
        ("x", FaultKind::BackendError),
    ] {
        assert_eq!(answer(&Bytes::from_static(body.as_bytes())).unwrap_err().kind, kind, "{body}");
    }
}
