//! Events as response events.

use super::*;
use crate::canon::Part;
use serde_json::json;

const REQUEST: &str = r#"{"model":"m","input":"x","store":true,"instructions":"I","temperature":0.5,"metadata":{"a":"b"},"tools":[{"type":"custom","name":"patch"},{"type":"tool_search","execution":"client"},{"type":"namespace","name":"n","tools":[{"type":"function","name":"f"}]}]}"#;

fn head() -> ReplyHead {
    let request = Bytes::from_static(REQUEST.as_bytes());
    ReplyHead { id: "1".into(), model: "m".into(), created: 7, input_estimate: 9, request, ..ReplyHead::default() }
}

fn write(events: &[Event]) -> Vec<serde_json::Value> {
    let mut writer = Writer::new(&head());
    let mut out = BytesMut::new();
    events.iter().for_each(|event| writer.write(event, &mut out));
    let text = String::from_utf8(out.to_vec()).unwrap();
    text.split_terminator("\n\n")
        .enumerate()
        .map(|(at, frame)| {
            let (name, data) = frame.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let value: serde_json::Value = serde_json::from_str(data).unwrap();
            assert_eq!((&value["type"], &value["sequence_number"]), (&json!(name), &json!(at)));
            value
        })
        .collect()
}

fn said(part: Part, delta: Delta) -> Vec<Event> {
    vec![Event::Open(part), Event::Delta(delta), Event::Close]
}

#[test]
fn items_begin_go_on_and_end() {
    let tool = |name: &str| Part::ToolCall { id: "i".into(), name: name.into() };
    let mut events = vec![Event::Start { id: None, model: None }];
    events.extend(said(Part::Thinking, Delta::Thinking("hm".into())));
    events.extend(said(Part::Text, Delta::Text("a".into())));
    events.extend(said(tool("n__f"), Delta::Arguments("{\"x\":1}".into())));
    events.extend(said(tool("patch"), Delta::Arguments("{\"input\":\"a\\n\\\"b\"}".into())));
    events.extend([Event::Open(tool("bare")), Event::Close]);
    events.extend(said(Part::RedactedThinking { data: "z".into() }, Delta::Signature("s".into())));
    events.push(Event::Usage(Usage { output: Some(5), reasoning: Some(2), ..Usage::default() }));
    events.push(Event::Stop(StopReason::ToolUse));
    let frames = write(&events);
    let names: Vec<_> = frames
        .iter()
        .map(|frame| {
            let at = frame.get("output_index").map(ToString::to_string).unwrap_or_default();
            format!("{at}{}", frame["type"].as_str().unwrap().trim_start_matches("response"))
        })
        .collect();
    let item = |at: usize, words: &[&str]| -> Vec<String> { words.iter().map(|word| format!("{at}.{word}")).collect() };
    let arguments =
        ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"];
    let expect: Vec<String> = [
        vec![".created".into(), ".in_progress".into()],
        item(
            0,
            &[
                "output_item.added",
                "reasoning_summary_part.added",
                "reasoning_summary_text.delta",
                "reasoning_summary_text.done",
                "reasoning_summary_part.done",
                "output_item.done",
            ],
        ),
        item(
            1,
            &[
                "output_item.added",
                "content_part.added",
                "output_text.delta",
                "output_text.done",
                "content_part.done",
                "output_item.done",
            ],
        ),
        item(2, &arguments),
        item(
            3,
            &["output_item.added", "custom_tool_call_input.delta", "custom_tool_call_input.done", "output_item.done"],
        ),
        item(4, &arguments),
        vec![".completed".into()],
    ]
    .concat();
    assert_eq!(names, expect);
    let last = &frames.last().unwrap()["response"];
    assert_eq!(
        last["output"],
        json!([
            {"id":"rs_1_0","type":"reasoning","summary":[{"type":"summary_text","text":"hm"}]},
            {"id":"msg_1_1","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":"a","annotations":[],"logprobs":[]}]},
            {"id":"fc_1_2","type":"function_call","status":"completed","call_id":"i","namespace":"n","name":"f","arguments":"{\"x\":1}"},
            {"id":"ctc_1_3","type":"custom_tool_call","status":"completed","call_id":"i","name":"patch","input":"a\n\"b"},
            {"id":"fc_1_4","type":"function_call","status":"completed","call_id":"i","name":"bare","arguments":"{}"},
        ])
    );
    assert_eq!(
        last["usage"],
        json!({"input_tokens":9,"input_tokens_details":{"cached_tokens":0},"output_tokens":5,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":14})
    );
    for (name, value) in [
        ("id", json!("resp_1")),
        ("model", json!("m")),
        ("status", json!("completed")),
        ("store", json!(false)),
        ("instructions", json!("I")),
        ("temperature", json!(0.5)),
        ("top_p", json!(null)),
        ("tool_choice", json!("auto")),
        ("metadata", json!({"a":"b"})),
        ("error", json!(null)),
        ("created_at", json!(7)),
    ] {
        assert_eq!(last[name], value, "{name}");
    }
    let first = &frames[0]["response"];
    assert_eq!(
        (&first["status"], &first["output"], &first["usage"]),
        (&json!("in_progress"), &json!([]), &json!(null))
    );
}

/// What is looked for is an object, and told with its item alone; of what is none the client is told nothing.
#[test]
fn a_search_for_tools_is_an_item_of_its_own() {
    for (arguments, expect) in
        [("{\n\"query\":\"q\"}", json!({"query":"q"})), ("\"{\\\"query\\\":1}\"", json!({"query":1})), ("q", json!({}))]
    {
        let part = Part::ToolCall { id: "i".into(), name: "tool_search".into() };
        let mut events = vec![Event::Start { id: None, model: None }];
        events.extend(said(part, Delta::Arguments(arguments.into())));
        events.push(Event::Stop(StopReason::ToolUse));
        let frames = write(&events);
        let [_, _, added, done, last] = &frames[..] else { panic!("{frames:#?}") };
        let item = |status: &str, arguments: &serde_json::Value| json!({"id":"tsc_1_0","type":"tool_search_call","status":status,"call_id":"i","execution":"client","arguments":arguments});
        assert_eq!(added["item"], item("in_progress", &json!({})));
        assert_eq!(done["item"], item("completed", &expect));
        assert_eq!(last["response"]["output"], json!([item("completed", &expect)]));
    }
}

/// The limit cuts what was being said. A call whose arguments are all there is complete; half a JSON text is no text of a tool's.
#[test]
fn what_the_limit_cut_is_incomplete() {
    let tool = |name: &str, arguments: &str| {
        (Part::ToolCall { id: "i".into(), name: name.into() }, Delta::Arguments(arguments.into()))
    };
    for ((part, delta), stop, status, text) in [
        (tool("bare", "{\"x\":"), StopReason::MaxTokens, "incomplete", "{\"x\":"),
        (tool("bare", ""), StopReason::MaxTokens, "incomplete", ""),
        (tool("bare", "{\"x\":1}"), StopReason::MaxTokens, "completed", "{\"x\":1}"),
        (tool("bare", "{\"x\":"), StopReason::ToolUse, "completed", "{\"x\":"),
        (tool("patch", "{\"input\":\"*** Begin\\nPa"), StopReason::ContextWindow, "incomplete", "*** Begin\nPa"),
        (tool("patch", "{\"inp"), StopReason::MaxTokens, "incomplete", ""),
        (tool("patch", "{\"input\":\"all\"}"), StopReason::MaxTokens, "completed", "all"),
        ((Part::Text, Delta::Text("a".into())), StopReason::MaxTokens, "incomplete", "a"),
        ((Part::Text, Delta::Text("a".into())), StopReason::EndTurn, "completed", "a"),
    ] {
        let mut events = vec![Event::Start { id: None, model: None }];
        events.extend(said(part, delta));
        events.extend([Event::Usage(Usage { output: Some(5), ..Usage::default() }), Event::Stop(stop)]);
        let frames = write(&events);
        let [.., done, last] = &frames[..] else { panic!("{frames:#?}") };
        assert_eq!(done["type"], "response.output_item.done");
        let item = &done["item"];
        let members = [&item["arguments"], &item["input"], &item["content"][0]["text"]];
        assert_eq!(item["status"], status, "{item}");
        assert_eq!(members.iter().find_map(|member| member.as_str()), Some(text), "{item}");
        assert_eq!(last["response"]["output"], json!([item]));
        let mut whole = Answer::default();
        events.into_iter().for_each(|event| whole.fold(event).unwrap());
        let body: serde_json::Value = serde_json::from_slice(&answer(&whole, &head())).unwrap();
        assert_eq!(body["output"], json!([item]));
    }
}

#[test]
fn ends() {
    for (stop, name, why) in [
        (StopReason::EndTurn, "completed", json!(null)),
        (StopReason::PauseTurn, "completed", json!(null)),
        (StopReason::MaxTokens, "incomplete", json!({"reason":"max_output_tokens"})),
        (StopReason::ContextWindow, "incomplete", json!({"reason":"max_output_tokens"})),
        (StopReason::Refusal, "incomplete", json!({"reason":"content_filter"})),
    ] {
        let frames = write(&[Event::Start { id: None, model: None }, Event::Stop(stop)]);
        let last = frames.last().unwrap();
        assert_eq!(last["type"], format!("response.{name}"));
        assert_eq!((&last["response"]["status"], &last["response"]["incomplete_details"]), (&json!(name), &why));
    }
    let frames = write(&[Event::Start { id: None, model: None }, Event::Fault(Fault::cut())]);
    let last = &frames.last().unwrap()["response"];
    assert_eq!(
        (&last["status"], &last["error"]["code"], &last["model"]),
        (&json!("failed"), &json!("server_error"), &json!("m"))
    );
}

/// A plugin changes something while such a call goes out as it came: the client has a part of its text.
#[test]
fn of_a_custom_tool_the_rest_is_told_behind_what_went_out() {
    let mut writer = Writer::new(&head());
    let more = |text: &str| Event::Delta(Delta::Arguments(text.into()));
    let (mut unheard, mut out) = (BytesMut::new(), BytesMut::new());
    for event in [
        Event::Start { id: None, model: None },
        Event::Open(Part::ToolCall { id: "i".into(), name: "patch".into() }),
        more("{\"input\":\""),
        more("\u{e9}\\n"),
        more("a"),
    ] {
        writer.write(&event, &mut unheard);
    }
    writer.settle(&mut unheard);
    for event in [more("b"), more("\"}"), Event::Close, Event::Stop(StopReason::ToolUse)] {
        writer.write(&event, &mut out);
    }
    let told = String::from_utf8(out.to_vec()).unwrap();
    assert!(told.contains(r#""delta":"b""#) && told.contains(r#""input":"é\nab""#), "{told}");
    let first = told.split_once(r#""sequence_number":"#).and_then(|(_, rest)| rest.split_once(',')).unwrap().0;
    assert!(
        first.parse::<u64>().unwrap() >= 5,
        "two events began the reply, one the item, and two told of its text: {told}"
    );
    assert_eq!(told.matches("custom_tool_call_input.delta").count(), 2, "the event's name and its type: {told}");
}
