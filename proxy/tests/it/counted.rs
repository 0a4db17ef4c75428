//! What is counted over a whole stream: the tokens of several choices, and the numbers of events.

use crate::golden::recordings;
use bytes::Bytes;
use tidegate::canon::{Fault, StopReason, Usage};
use tidegate::wire::reply::Pipe;
use tidegate::wire::{Dialect, ReplyHead, Unasked};

/// llama.cpp gives each choice counts of its own; the prompt was one for all.
#[test]
fn the_tokens_of_all_choices_are_counted() {
    let mut known =
        recordings(false).into_iter().filter(|known| known.path.ends_with("recorded_llamacpp_choices_two.sse"));
    let mut usage = Usage::default();
    let mut pipe = Pipe::alike(Dialect::Chat, "smollm2", Unasked::None);
    let passed =
        pipe.push(known.next().unwrap().bytes, &mut |glance| glance.usage.iter().for_each(|more| usage.update(more)));
    assert!(passed.end, "{passed:?}");
    assert_eq!((usage.input, usage.cache_read, usage.output), (Some(33), Some(32), Some(8)));
}

/// vLLM's running counts are each choice's own, those at the end are all of them: a stream that is cut has the former only.
#[test]
fn running_counts_of_choices_are_put_together() {
    let mut known = recordings(false)
        .into_iter()
        .filter(|known| known.path.ends_with("recorded_vllm_choices_two.sse") && known.dialect == Dialect::Chat);
    let stream = known.next().unwrap().bytes;
    let text = std::str::from_utf8(&stream).unwrap();
    let last = text.find("\"choices\":[]").and_then(|at| text[..at].rfind("data:")).unwrap();
    let mut usage = Usage::default();
    let mut pipe = Pipe::alike(Dialect::Chat, "smollm2", Unasked::None);
    for (part, input, output) in [(stream.slice(..last), 33, 8), (stream.slice(last..), 33, 8)] {
        pipe.push(part, &mut |glance| glance.usage.iter().for_each(|more| usage.update(more)));
        assert_eq!((usage.input, usage.output), (Some(input), Some(output)));
    }
}

/// A server that counts on every chunk, and once more at the end, counts the same tokens each time.
#[test]
fn a_running_count_is_not_added() {
    let chunk = |choices: &str, output: u64| {
        format!(
            "data: {{\"choices\":[{choices}],\"usage\":{{\"prompt_tokens\":3,\"completion_tokens\":{output}}}}}\n\n"
        )
    };
    let text = r#"{"index":0,"delta":{"content":"x"}}"#;
    let stop = r#"{"index":0,"delta":{},"finish_reason":"stop"}"#;
    let stream = [chunk(text, 1), chunk(stop, 2), chunk("", 2), "data: [DONE]\n\n".to_owned()].concat();
    let mut usage = Usage::default();
    let mut pipe = Pipe::alike(Dialect::Chat, "m", Unasked::None);
    pipe.push(stream.into(), &mut |glance| glance.usage.iter().for_each(|more| usage.update(more)));
    assert_eq!((usage.input, usage.output), (Some(3), Some(2)));
}

/// A plain stop after calls means the calls, in the books, too, where the bytes pass as they are.
#[test]
fn a_stop_after_calls_is_booked_as_their_use() {
    let call =
        r#"{"delta":{"content":null,"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":""}}]}}"#;
    let text = r#"{"delta":{"content":"\"tool_calls\":[{\"arguments\":1}]"}}"#;
    for (said, finish, expect) in [
        (call, r#""stop""#, StopReason::ToolUse),
        (call, r#""stop","stop_reason":"END""#, StopReason::ToolUse),
        (call, r#""length""#, StopReason::MaxTokens),
        (text, r#""stop""#, StopReason::EndTurn),
    ] {
        let stream = format!(
            "data: {{\"choices\":[{said}]}}\n\n\
             data: {{\"choices\":[{{\"delta\":{{}},\"finish_reason\":{finish}}}]}}\n\ndata: [DONE]\n\n"
        );
        let mut stop = None;
        let mut pipe = Pipe::alike(Dialect::Chat, "m", Unasked::None);
        let passed = pipe.push(stream.clone().into(), &mut |glance| {
            if let Some(reason) = &glance.stop {
                stop = Some(reason.clone());
            }
        });
        assert_eq!((stop, &passed.bytes[..]), (Some(expect), stream.as_bytes()), "{stream}");
    }
}

#[test]
fn the_event_of_a_failure_bears_the_next_number() {
    let mut pipe =
        Pipe::across(Dialect::Responses, Dialect::Chat, ReplyHead { id: "1".into(), ..ReplyHead::default() });
    let chunk = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n");
    let mut text = pipe.push(chunk, &mut |_| {}).bytes.to_vec();
    let passed = pipe.finish(&mut |_| {});
    text.extend_from_slice(&passed.bytes);
    text.extend_from_slice(&pipe.write_fault(&passed.fault.unwrap_or_else(Fault::cut)).unwrap());
    let text = String::from_utf8(text).unwrap();
    let numbers: Vec<u64> = text
        .split("\"sequence_number\":")
        .skip(1)
        .map(|rest| rest.split([',', '}']).next().unwrap().parse().unwrap())
        .collect();
    assert!(text.contains("event: response.failed") && text.contains("\"id\":\"resp_1\""), "{text}");
    assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>(), "{text}");
}
