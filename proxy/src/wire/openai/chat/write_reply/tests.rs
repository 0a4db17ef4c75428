//! Events as chat chunks.

use super::*;
use crate::canon::Fault;

fn head(stream_usage: bool, request: &'static str) -> ReplyHead {
    let request = Bytes::from_static(request.as_bytes());
    ReplyHead { id: "1".into(), model: "m".into(), created: 7, stream_usage, request, ..ReplyHead::default() }
}

fn write(events: &[Event], stream_usage: bool) -> String {
    write_for(events, &head(stream_usage, ""))
}

fn write_for(events: &[Event], head: &ReplyHead) -> String {
    let mut writer = Writer::new(head);
    let mut out = BytesMut::new();
    for event in events {
        writer.write(event, &mut out);
    }
    String::from_utf8(out.to_vec()).unwrap().replace(
        "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"m\",",
        "~",
    )
}

#[test]
fn a_call_without_arguments_and_usage_once() {
    let events = [
        Event::Start { id: None, model: None },
        Event::Usage(Usage { input: Some(3), ..Usage::default() }),
        Event::Open(Part::ToolCall { id: "i".into(), name: "f".into() }),
        Event::Close,
        Event::Usage(Usage { output: Some(2), ..Usage::default() }),
        Event::Stop(StopReason::ToolUse),
    ];
    let plain = "},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    let body = format!(
        "~\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"{plain}\
         ~\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{{\"index\":0,\"id\":\"i\",\"type\":\"function\",\"function\":{{\"name\":\"f\",\"arguments\":\"\"}}}}]{plain}\
         ~\"choices\":[{{\"index\":0,\"delta\":{{\"tool_calls\":[{{\"index\":0,\"function\":{{\"arguments\":\"{{}}\"}}}}]{plain}\
         ~\"choices\":[{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"tool_calls\"}}]}}\n\n"
    );
    let usage = "~\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\n";
    assert_eq!(write(&events, false), format!("{body}data: [DONE]\n\n"));
    assert_eq!(write(&events, true), format!("{body}{usage}data: [DONE]\n\n"));
}

#[test]
fn who_asked_with_functions_is_told_of_one() {
    let call = |name: &str, arguments: &str| {
        let part = Part::ToolCall { id: "i".into(), name: name.into() };
        let argued = (!arguments.is_empty()).then(|| Event::Delta(Delta::Arguments(arguments.into())));
        [Some(Event::Open(part)), argued, Some(Event::Close)].into_iter().flatten()
    };
    let events: Vec<Event> = [Event::Start { id: None, model: None }]
        .into_iter()
        .chain(call("f", "{\"x\":1}"))
        .chain(call("g", ""))
        .chain([Event::Stop(StopReason::ToolUse)])
        .collect();
    let mut whole = Answer::default();
    events.iter().for_each(|event| whole.fold(event.clone()).unwrap());
    let legacy = head(false, r#"{"functions":[{"name":"f"}]}"#);
    let plain = "},\"logprobs\":null,\"finish_reason\":null}]}\n\n";
    assert_eq!(
        write_for(&events, &legacy),
        format!(
            "~\"choices\":[{{\"index\":0,\"delta\":{{\"role\":\"assistant\",\"content\":\"\"{plain}\
             ~\"choices\":[{{\"index\":0,\"delta\":{{\"function_call\":{{\"name\":\"f\",\"arguments\":\"\"}}{plain}\
             ~\"choices\":[{{\"index\":0,\"delta\":{{\"function_call\":{{\"arguments\":\"{{\\\"x\\\":1}}\"}}{plain}\
             ~\"choices\":[{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"function_call\"}}]}}\n\n\
             data: [DONE]\n\n"
        )
    );
    let message = |head: &ReplyHead| {
        let body: serde_json::Value = serde_json::from_slice(&answer(&whole, head)).unwrap();
        (body["choices"][0]["message"].clone(), body["choices"][0]["finish_reason"].clone())
    };
    let called = serde_json::json!({"role":"assistant","content":null,"refusal":null,
        "function_call":{"name":"f","arguments":"{\"x\":1}"}});
    assert_eq!(message(&legacy), (called, serde_json::json!("function_call")));
    for request in [
        "",
        r#"{"messages":[{"content":"\"functions\""}],"functions":null}"#,
        r#"{"functions":[{"name":"f"}],"tools":[]}"#,
    ] {
        let (message, finish) = message(&head(false, request));
        assert_eq!(message["tool_calls"].as_array().map(Vec::len), Some(2), "{request}");
        assert_eq!((message.get("function_call"), finish), (None, serde_json::json!("tool_calls")));
    }
}

#[test]
fn a_custom_tool_is_called_as_such() {
    let request = r#"{"model":"m","messages":[],"tools":[{"type":"custom","custom":{"name":"patch"}}]}"#;
    let head = ReplyHead { request: Bytes::from_static(request.as_bytes()), ..ReplyHead::default() };
    let (mut writer, mut out, mut whole) = (Writer::new(&head), BytesMut::new(), Answer::default());
    for event in [
        Event::Start { id: None, model: None },
        Event::Open(Part::ToolCall { id: "i".into(), name: "patch".into() }),
        Event::Delta(Delta::Arguments("{\"input\":".into())),
        Event::Delta(Delta::Arguments("\"a\\nb\"}".into())),
        Event::Close,
        Event::Stop(StopReason::ToolUse),
    ] {
        writer.write(&event, &mut out);
        whole.fold(event).unwrap();
    }
    let streamed = String::from_utf8(out.to_vec()).unwrap();
    for piece in [
        r#""tool_calls":[{"index":0,"id":"i","type":"custom","custom":{"name":"patch","input":""}}]"#,
        r#""tool_calls":[{"index":0,"custom":{"input":"a\nb"}}]"#,
    ] {
        assert!(streamed.contains(piece), "{streamed}");
    }
    let whole: serde_json::Value = serde_json::from_slice(&answer(&whole, &head)).unwrap();
    let call = serde_json::json!([{"id":"i","type":"custom","custom":{"name":"patch","input":"a\nb"}}]);
    assert_eq!(whole["choices"][0]["message"]["tool_calls"], call);
}

#[test]
fn a_failed_stream_has_no_done() {
    let text = write(&[Event::Start { id: None, model: None }, Event::Fault(Fault::internal("x"))], true);
    assert!(
        text.ends_with(
            "data: {\"error\":{\"message\":\"x\",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n"
        ),
        "{text}"
    );
}

/// Half a JSON text is not what the model wrote for the tool.
#[test]
fn of_a_custom_tool_that_was_cut_the_text_so_far_is_told() {
    let request = r#"{"model":"m","messages":[],"tools":[{"type":"custom","custom":{"name":"patch"}}]}"#;
    let head = head(false, request);
    for (arguments, reason, input) in [
        (r#"{"input":"*** Begin\n+a"#, StopReason::MaxTokens, "*** Begin\n+a"),
        (r#"{"inp"#, StopReason::MaxTokens, ""),
        (r#"{"note":1,"input":"a"}"#, StopReason::MaxTokens, "a"),
        ("*** Begin", StopReason::MaxTokens, "*** Begin"),
        // Not cut: what a model wrote otherwise is the text itself.
        (r#"{"input":"a"#, StopReason::ToolUse, r#"{"input":"a"#),
        ("{ x }", StopReason::ToolUse, "{ x }"),
    ] {
        let events = [
            Event::Start { id: None, model: None },
            Event::Open(Part::ToolCall { id: "i".into(), name: "patch".into() }),
            Event::Delta(Delta::Arguments(arguments.into())),
            Event::Close,
            Event::Usage(Usage { output: Some(2), ..Usage::default() }),
            Event::Stop(reason),
        ];
        let mut whole = Answer::default();
        events.iter().for_each(|event| whole.fold(event.clone()).unwrap());
        let quoted = serde_json::to_string(input).unwrap();
        let piece = format!(r#""tool_calls":[{{"index":0,"custom":{{"input":{quoted}}}}}]"#);
        let streamed = write_for(&events, &head);
        assert_eq!(streamed.matches(&piece).count(), 1, "{arguments}: {streamed}");
        let whole: serde_json::Value = serde_json::from_slice(&answer(&whole, &head)).unwrap();
        assert_eq!(whole["choices"][0]["message"]["tool_calls"][0]["custom"]["input"], input, "{arguments}");
    }
}

/// A plugin changes something while such a call goes out as it came: the client has a part of its text.
#[test]
fn of_a_custom_tool_the_rest_is_told_behind_what_went_out() {
    let request = r#"{"model":"m","messages":[],"tools":[{"type":"custom","custom":{"name":"patch"}}]}"#;
    let mut writer = Writer::new(&head(false, request));
    let more = |text: &str| Event::Delta(Delta::Arguments(text.into()));
    let (mut unheard, mut out) = (BytesMut::new(), BytesMut::new());
    for event in [
        Event::Start { id: None, model: None },
        Event::Open(Part::ToolCall { id: "i".into(), name: "patch".into() }),
        more("{\"input\":\""),
        more("\u{e9}\\n"),
    ] {
        writer.write(&event, &mut unheard);
    }
    writer.settle(&mut unheard);
    for event in [more("b"), more("\"}"), Event::Close, Event::Stop(StopReason::ToolUse)] {
        writer.write(&event, &mut out);
    }
    let told = String::from_utf8(out.to_vec()).unwrap();
    assert!(told.contains(r#""tool_calls":[{"index":0,"custom":{"input":"b"}}]"#), "{told}");
    assert_eq!(told.matches("\"custom\"").count(), 1, "{told}");
}
