//! What the fuzz targets (`proxy/fuzz`) found, each as the smallest case that shows it.

use crate::golden::read_stream;
use bytes::{Bytes, BytesMut};
use tidegate::canon::event::Grammar;
use tidegate::canon::{Event, StopReason, Usage};
use tidegate::wire::frame::Frame;
use tidegate::wire::json::{Json, validate};
use tidegate::wire::object::Object;
use tidegate::wire::reply::Pipe;
use tidegate::wire::request::Request;
use tidegate::wire::{Dialect, ReplyHead, Target, Unasked, complaint};

fn request(dialect: Dialect, body: impl Into<Bytes>) -> Request {
    Request::read(dialect, body.into()).unwrap()
}

#[test]
fn a_mark_of_the_byte_order_hides_no_data() {
    let frame = Frame { raw: Bytes::from_static("\u{feff}data: {\"a\":1}\n\n".as_bytes()) };
    assert_eq!(frame.with_data(b"{}"), "\u{feff}data: {}\n\n".as_bytes());
}

#[test]
fn instructions_alone_are_still_a_conversation() {
    let request = request(Dialect::Chat, r#"{"model":"m","messages":[{"role":"system","content":"S"}]}"#);
    for system_first in [false, true] {
        let target = Target { model: "there".into(), system_first, ..Target::default() };
        for backend in Dialect::ALL {
            let Ok(written) = backend.codec().write_call(request.call().unwrap(), &target) else { continue };
            let again = Request::read(backend, written.body).unwrap();
            assert!(
                again.call().unwrap().turns.iter().any(|turn| format!("{turn:?}").contains("\"S\"")),
                "{backend:?}"
            );
        }
    }
}

#[test]
fn a_schema_is_an_object() {
    let chat = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"name":"s","schema":true}}}"#;
    let fault = request(Dialect::Chat, chat).call().unwrap_err();
    assert_eq!(fault.param.as_deref(), Some("response_format.json_schema.schema"));
    let responses = r#"{"model":"m","input":"x","text":{"format":{"type":"json_schema","name":"s","schema":[]}}}"#;
    assert_eq!(request(Dialect::Responses, responses).call().unwrap_err().param.as_deref(), Some("text.format.schema"));
}

#[test]
fn nothing_to_generate_is_a_word_of_completions_alone() {
    let request = request(Dialect::Completions, r#"{"model":"m","prompt":"x","max_tokens":0}"#);
    assert_eq!(request.call_for_others().unwrap_err().param.as_deref(), Some("max_tokens"));
}

#[test]
fn a_tool_call_without_a_name_is_refused_in_every_dialect() {
    for (dialect, body) in [
        (
            Dialect::Chat,
            r#"{"choices":[{"message":{"tool_calls":[{"id":"a","function":{"name":"","arguments":"{}"}}]}}]}"#,
        ),
        (
            Dialect::Messages,
            r#"{"content":[{"type":"tool_use","id":"a","name":"","input":{}}],"stop_reason":"tool_use"}"#,
        ),
        (
            Dialect::Responses,
            r#"{"output":[{"type":"function_call","call_id":"a","arguments":"{}"}],"status":"completed"}"#,
        ),
    ] {
        let fault = dialect.codec().read_answer(&Bytes::from_static(body.as_bytes())).unwrap_err();
        assert_eq!(fault.message, "The backend sent a tool call without a name.", "{dialect:?}");
    }
}

/// llama.cpp writes both; what one leaves out the other has, for the books as for a client of another dialect.
#[test]
fn counts_and_timings_together_are_one_report() {
    let body = r#"{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"completion_tokens":4},"timings":{"prompt_n":1,"cache_n":2,"predicted_n":9}}"#;
    let usage = Dialect::Chat.codec().glance_answer(&Object::read(Bytes::from_static(body.as_bytes())).unwrap()).usage;
    let events = Dialect::Chat.codec().read_answer(&Bytes::from_static(body.as_bytes())).unwrap();
    let usage = usage.unwrap();
    assert_eq!((usage.input, usage.output), (Some(3), Some(4)));
    assert!(events.contains(&Event::Usage(usage)), "{events:?}");
}

#[test]
fn a_message_that_ends_without_a_reason_has_ended() {
    let stream = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let events = read_stream(Dialect::Messages, [Bytes::from_static(stream.as_bytes())]);
    assert_eq!(events.last(), Some(&Event::Stop(StopReason::EndTurn)));
    let passed =
        Pipe::alike(Dialect::Messages, "m", Unasked::None).push(Bytes::from_static(stream.as_bytes()), &mut |_| {});
    assert!(passed.end && passed.fault.is_none(), "{passed:?}");
}

#[test]
fn a_format_without_a_schema_takes_any_object() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"name":"s"}}}"#;
    let request = request(Dialect::Chat, body);
    let written = Dialect::Responses.codec().write_call(request.call().unwrap(), &Target::default()).unwrap();
    let written: serde_json::Value = serde_json::from_slice(&written.body).unwrap();
    assert_eq!(written["text"]["format"], serde_json::json!({"type":"json_schema","name":"s","schema":{}}));
}

#[test]
fn the_members_of_one_form_of_ollamas_are_not_written_beside_the_others() {
    let request =
        request(Dialect::OllamaChat, r#"{"model":"m","messages":[{"role":"user","content":"x"}],"prompt":"y"}"#);
    let target = Target { model: "m".into(), ..Target::default() };
    let written = Dialect::OllamaGenerate.codec().write_call(request.call().unwrap(), &target).unwrap();
    assert_eq!(Object::read(written.body).unwrap().get("prompt").unwrap().raw(), "\"x\"");
    assert_eq!(written.dropped, ["prompt"]);
}

#[test]
fn a_content_block_is_an_object() {
    let body = Bytes::from_static(br#"{"content":[null],"stop_reason":"end_turn"}"#);
    assert!(Dialect::Messages.codec().read_answer(&body).is_err());
}

/// An item told at once, while another is still open, ends that one.
#[test]
fn items_of_a_response_do_not_nest() {
    let events = [
        r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"delta":"a"}"#,
        r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"reasoning","summary":[{"type":"summary_text","text":"b"}]}}"#,
        r#"{"type":"response.completed","response":{"status":"completed","output":[]}}"#,
    ];
    let stream: String = events.iter().map(|data| format!("data: {data}\n\n")).collect();
    let events = read_stream(Dialect::Responses, [Bytes::from(stream)]);
    Grammar::check(&events).unwrap_or_else(|rule| panic!("{rule}: {events:#?}"));
    assert!(matches!(events.last(), Some(Event::Stop(_))), "{events:#?}");
}

#[test]
fn a_long_complaint_is_cut_once() {
    let told = |text: &str| {
        complaint(&serde_json::to_vec(&serde_json::json!({"error": text})).unwrap()).map(|complaint| complaint.message)
    };
    let once = told(&"🌊".repeat(300)).unwrap();
    assert!(once.len() <= 1003 && once.ends_with('…'), "{once}");
    assert_eq!(told(&once), Some(once.clone()));
}

/// What goes into a stream as it was written may have been written over several lines: there it is one.
#[test]
fn json_over_several_lines_breaks_no_stream() {
    let head =
        |request: &'static str| ReplyHead { request: Bytes::from_static(request.as_bytes()), ..ReplyHead::default() };
    let written = |client: Dialect, head: ReplyHead, events: &[Event]| {
        let (mut writer, mut out) = (client.codec().writer(head), BytesMut::new());
        events.iter().for_each(|event| writer.write(event, &mut out));
        out.freeze()
    };
    // Tools of the request, which a response repeats.
    let request = "{\"model\":\"m\",\"input\":\"x\",\"tools\":[\n  {\"type\":\"function\",\r\n   \"name\":\"f\"}]}";
    let events = Dialect::Chat.codec().read_answer(&Bytes::from_static(
        br#"{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
    ));
    let stream = written(Dialect::Responses, head(request), &events.unwrap());
    let again = read_stream(Dialect::Responses, [stream]);
    assert!(matches!(again.last(), Some(Event::Stop(_))), "{again:#?}");
    // A block and a citation that only their own dialect knows.
    let body = "{\"content\":[{\n\"type\":\"server_tool_use\"},{\"type\":\"text\",\"text\":\"a\",\"citations\":[{\r\n\"type\":\"x\"}]}],\"stop_reason\":\"end_turn\"}";
    let events = Dialect::Messages.codec().read_answer(&Bytes::from_static(body.as_bytes())).unwrap();
    let again = read_stream(Dialect::Messages, [written(Dialect::Messages, ReplyHead::default(), &events)]);
    assert!(matches!(again.last(), Some(Event::Stop(_))), "{again:#?}");
}

/// A line without a colon is a field, too; what is put in its place stands behind it.
#[test]
fn data_without_a_value_can_be_exchanged() {
    let frame = Frame { raw: Bytes::from_static(b"event: m\ndata\n\n") };
    assert_eq!(frame.data().as_deref(), Some(b"".as_slice()));
    assert_eq!(frame.with_data(b"{}"), b"event: m\ndata: {}\n\n".as_slice());
}

#[test]
fn white_space_around_a_reply_changes_no_id() {
    let body = "{\"choices\":[{\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}}]}";
    let codec = Dialect::Chat.codec();
    let spaced = Bytes::from(format!(" {body}\n"));
    let events = codec.read_answer(&spaced).unwrap();
    assert_eq!(codec.read_object(&Object::read(spaced).unwrap()).unwrap(), events);
    assert_eq!(codec.read_answer(&Bytes::from_static(body.as_bytes())).unwrap(), events);
}

/// What the books of an untouched stream come to, and what its reader says.
fn counted(stream: &str) -> (Usage, Usage) {
    let (mut booked, mut read) = (Usage::default(), Usage::default());
    let bytes = Bytes::copy_from_slice(stream.as_bytes());
    let mut pipe = Pipe::alike(Dialect::Messages, "m", Unasked::None);
    pipe.push(bytes.clone(), &mut |glance| glance.usage.iter().for_each(|usage| booked.update(usage)));
    for event in read_stream(Dialect::Messages, [bytes]) {
        if let Event::Usage(usage) = event {
            read.update(&usage);
        }
    }
    (booked, read)
}

/// Reports are cumulative, and a prompt is told in parts: nothing that was counted is lost to a later report that says less.
#[test]
fn a_message_counts_alike_for_the_books_and_for_a_reader() {
    let start = r#"{"input_tokens":20,"cache_read_input_tokens":80,"output_tokens":7}"#;
    for (start, delta, expect) in [
        (start, r#"{"output_tokens":9}"#, (100, 9, Some(80))),
        (start, r#"{"output_tokens":0}"#, (100, 7, Some(80))),
        (start, r#"{"input_tokens":0,"cache_read_input_tokens":0,"output_tokens":9}"#, (100, 9, Some(80))),
        // The prompt is left out, a part of it repeated.
        (start, r#"{"cache_read_input_tokens":80,"output_tokens":9}"#, (100, 9, Some(80))),
        (start, r#"{"input_tokens":0,"cache_read_input_tokens":80,"output_tokens":9}"#, (100, 9, Some(80))),
        // The cached part is left out.
        (start, r#"{"input_tokens":25,"output_tokens":9}"#, (105, 9, Some(80))),
        // The same said by a zero, and a part that is named for the first time at the end.
        (start, r#"{"input_tokens":25,"cache_read_input_tokens":0,"output_tokens":9}"#, (105, 9, Some(80))),
        (
            r#"{"input_tokens":20,"output_tokens":7}"#,
            r#"{"cache_read_input_tokens":5000,"output_tokens":9}"#,
            (5020, 9, Some(5000)),
        ),
        // What the start had estimated is known at the end.
        (
            r#"{"input_tokens":120,"output_tokens":1}"#,
            r#"{"input_tokens":20,"cache_read_input_tokens":80,"output_tokens":9}"#,
            (100, 9, Some(80)),
        ),
        (r#"{"input_tokens":0,"output_tokens":0}"#, r#"{"input_tokens":12,"output_tokens":9}"#, (12, 9, None)),
    ] {
        let stream = format!(
            "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"usage\":{start}}}}}\n\n\
             event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{delta}}}\n\n\
             event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
        );
        let (booked, read) = counted(&stream);
        assert_eq!((booked.input.unwrap(), booked.output.unwrap(), booked.cache_read), expect, "{delta} after {start}");
        assert_eq!(booked, read, "{delta} after {start}");
    }
}

#[test]
fn a_message_without_a_role_is_refused_and_not_left_out() {
    let body = r#"{"model":"m","messages":[{"role":null,"content":"x"},{"role":"user","content":"y"}]}"#;
    let fault = request(Dialect::Messages, body).call().unwrap_err();
    assert_eq!(fault.param.as_deref(), Some("messages[0].role"));
}

/// No server would take it, and Ollama's would load a model.
#[test]
fn a_conversation_in_which_nothing_is_said_is_refused() {
    let (silent, told) = (r#"{"role":"system","content":""}"#, r#"{"role":"system","content":"S"}"#);
    for (messages, backends) in [(silent, &Dialect::ALL[..]), (told, &[Dialect::OllamaGenerate])] {
        let body = format!(r#"{{"model":"m","messages":[{messages}]}}"#);
        let request = Request::read(Dialect::Messages, body.into()).unwrap();
        for backend in backends.iter().filter(|backend| **backend != Dialect::Messages) {
            let fault = request.write(&[*backend], &Target::default()).unwrap_err();
            assert_eq!((fault.status(), fault.param.as_deref()), (400, Some("messages")), "{backend:?}");
        }
    }
}

/// A part of an assistant's text that only chat knows is no call of a tool.
#[test]
fn an_unknown_part_stays_among_the_texts() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"text","text":"a"},{"type":"function","id":1}],"tool_calls":[{"id":"c","type":"custom","custom":{"name":"f","input":"y"}},{"type":"image_url"},{"id":"d","type":"mcp","mcp":{}}]},{"role":"tool","tool_call_id":"c","content":"z"}]}"#;
    let written = Dialect::Chat.codec().write_call(request(Dialect::Chat, body).call().unwrap(), &Target::default());
    let written: serde_json::Value = serde_json::from_slice(&written.unwrap().body).unwrap();
    let before: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(written["messages"][1], before["messages"][1]);
}

#[test]
fn a_namespace_stands_in_no_other() {
    let body = r#"{"model":"m","input":"x","tools":[{"type":"namespace","name":"a","tools":[{"type":"namespace","name":"b","tools":true}]}]}"#;
    let fault = request(Dialect::Responses, body).call().unwrap_err();
    assert_eq!(fault.param.as_deref(), Some("tools[0].tools[0].type"));
}

/// The two words for one penalty, and a word that stands twice: each goes out once.
#[test]
fn a_penalty_is_written_once() {
    let target = Target { model: "there".into(), extended_sampling: true, ..Target::default() };
    let options = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"min_p":0.1,"options":{"repeat_penalty":1.1,"repetition_penalty":1.2,"min_p":0.2,"min_p":0.3}}"#;
    let written = Dialect::Chat.codec().write_call(request(Dialect::OllamaChat, options).call().unwrap(), &target);
    let written = Object::read(written.unwrap().body).unwrap();
    for (name, expect) in [("repeat_penalty", "1.1"), ("repetition_penalty", "1.2"), ("min_p", "0.3")] {
        assert_eq!(written.get(name).unwrap().raw(), expect, "{name}");
    }
    let chat =
        r#"{"model":"m","messages":[{"role":"user","content":"x"}],"repetition_penalty":1.2,"repeat_penalty":1.1}"#;
    let written =
        Dialect::OllamaChat.codec().write_call(request(Dialect::Chat, chat).call().unwrap(), &target).unwrap();
    assert_eq!(Object::read(written.body).unwrap().get("options").unwrap().raw(), r#"{"repeat_penalty":1.1}"#);
    assert_eq!(written.dropped, ["repetition_penalty"]);
}

#[test]
fn a_call_without_an_id_has_its_result() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"},{"role":"assistant","content":[{"type":"tool_use","id":"","name":"f","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"","content":"y"}]}]}"#;
    let target = Target { model: "m".into(), ..Target::default() };
    let written = Dialect::OllamaChat.codec().write_call(request(Dialect::Messages, body).call().unwrap(), &target);
    let again = Request::read(Dialect::OllamaChat, written.unwrap().body).unwrap();
    assert_eq!(again.call().unwrap().turns.len(), 3);
}

/// Where a chat is given to a server as a prompt, they stand beside it.
#[test]
fn a_template_is_a_text_in_either_form() {
    let bodies = [
        (Dialect::OllamaChat, r#"{"model":"m","messages":[{"role":"user","content":"x"}],"template":64}"#),
        (Dialect::OllamaGenerate, r#"{"model":"m","prompt":"x","template":64}"#),
    ];
    for (dialect, body) in bodies {
        let fault = Request::read(dialect, Bytes::from_static(body.as_bytes())).unwrap_err();
        assert_eq!(fault.param.as_deref(), Some("template"), "{dialect:?}");
    }
}

/// OpenAI takes no thinking but its own, and `input` may not be empty.
#[test]
fn a_conversation_of_nothing_but_thinking_is_refused() {
    let body = r#"{"model":"m","messages":[{"role":"assistant","content":[{"type":"thinking","thinking":"x"}]}]}"#;
    let fault = request(Dialect::Messages, body).write(&[Dialect::Responses], &Target::default()).unwrap_err();
    assert_eq!((fault.status(), fault.param.as_deref()), (400, Some("messages")));
}

/// What chat has beside the type word of a format may have one of its own.
#[test]
fn a_format_has_one_type_among_responses() {
    let body = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"response_format":{"type":"json_schema","json_schema":{"name":"s","type":""}}}"#;
    let target = Target { model: "m".into(), ..Target::default() };
    let written = Dialect::Responses.codec().write_call(request(Dialect::Chat, body).call().unwrap(), &target);
    let again = Request::read(Dialect::Responses, written.unwrap().body).unwrap();
    assert!(again.call().unwrap().format.is_some());
}

/// An address that holds bytes is read by every dialect alike: the target would refuse it, or take it for none.
#[test]
fn an_image_in_an_address_holds_base64() {
    let body = |url| {
        format!(
            r#"{{"model":"m","max_tokens":1,"messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"url","url":"{url}"}}}}]}}]}}"#
        )
    };
    let fault = request(Dialect::Messages, body("data:https://example.com/a.png")).call().unwrap_err();
    assert_eq!(fault.param.as_deref(), Some("messages[0].content[0].image.source.url"));
    let written = Dialect::OllamaChat
        .codec()
        .write_call(request(Dialect::Messages, body("data:image/png;base64,AA==")).call().unwrap(), &Target::default());
    let written: serde_json::Value = serde_json::from_slice(&written.unwrap().body).unwrap();
    assert_eq!(written["messages"][0]["images"][0], "AA==");
}

/// What is merged into may say things twice.
#[test]
fn an_object_with_doubled_keys_takes_more() {
    let body = r#"{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"x"}],"output_config":{"effort":"low","effort":"high","x":1,"x":2}}"#;
    let written =
        Dialect::Messages.codec().write_call(request(Dialect::Messages, body).call().unwrap(), &Target::default());
    let written = Object::read(written.unwrap().body).unwrap();
    assert_eq!(written.get("output_config").unwrap().raw(), r#"{"x":2,"effort":"high"}"#);
}

/// Options stand in an object of their own.
#[test]
fn a_dot_in_a_name_makes_no_option() {
    let body = r#"{"model":"m","prompt":"x","options.temperature":5.5}"#;
    let written = Dialect::OllamaChat
        .codec()
        .write_call(request(Dialect::OllamaGenerate, body).call().unwrap(), &Target::default())
        .unwrap();
    assert!(Object::read(written.body).unwrap().get("options").is_none());
    assert_eq!(written.dropped, ["body.options.temperature"]);
}

/// Whoever reads an object must read the same of a doubled key: here a name, by its reader and by its writer.
#[test]
fn of_a_doubled_key_the_last_counts() {
    let body = r#"{"model":"m","input":"x","tools":[{"type":"namespace","name":"a","name":"b","tools":[{"type":"function","name":"f","parameters":{}}]}]}"#;
    let target = Target { model: "m".into(), ..Target::default() };
    let written = Dialect::Responses.codec().write_call(request(Dialect::Responses, body).call().unwrap(), &target);
    let written: serde_json::Value = serde_json::from_slice(&written.unwrap().body).unwrap();
    assert_eq!(written["tools"][0]["name"], "b");
    assert_eq!(validate(br#"{"a":1,"b":2,"\u0061":3}"#).unwrap().get("a").map(Json::raw), Some("3"));
}

/// Instructions are a text; a picture among them goes where they are a message.
#[test]
fn instructions_with_a_picture_are_a_message() {
    let body = r#"{"model":"m","messages":[{"role":"system","content":"look","images":["iVBORw0KGgo="]},{"role":"user","content":"x"}]}"#;
    let written =
        Dialect::Responses.codec().write_call(request(Dialect::OllamaChat, body).call().unwrap(), &Target::default());
    let written: serde_json::Value = serde_json::from_slice(&written.unwrap().body).unwrap();
    assert_eq!((&written["input"][0]["role"], &written["instructions"]), (&"system".into(), &serde_json::Value::Null));
}
