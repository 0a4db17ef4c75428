//! Calls made up at random: what every dialect writes of them is read back as what they said, and then comes to rest.

use crate::pairs::{read_call, refuses, talk, target};
use bytes::Bytes;
use proptest::prelude::*;
use tidegate::canon::call::{Content, Effort, Format, Image, Role, Thinking, Tool, ToolChoice, Turn};
use tidegate::canon::{Call, FaultKind};
use tidegate::wire::Dialect;
use tidegate::wire::request::Request;

/// Texts with all that has to be escaped somewhere. They begin and end with a letter, since some dialects trim.
const TEXT: &str = "[a-z]([a-z\"\\\\\n\té🌊\u{2028}/]{0,10}[a-z])?";

/// Turns of a conversation that every dialect can order: instructions, then turn and turn about, calls answered at once.
fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let user = (TEXT, any::<bool>()).prop_map(|(text, image)| {
        let image = image.then(|| Content::Image(Image::Data { media_type: "image/png".into(), data: "aGk=".into() }));
        Turn { role: Role::User, content: [Content::Text(text)].into_iter().chain(image).collect() }
    });
    let round = (user, proptest::option::of(TEXT), proptest::option::of((TEXT, any::<u32>(), TEXT)));
    (proptest::option::of(TEXT), proptest::collection::vec(round, 1..4)).prop_map(|(system, rounds)| {
        let mut turns: Vec<Turn> = system.map(|text| Turn::text(Role::System, text)).into_iter().collect();
        let last = rounds.len() - 1;
        for (at, (user, said, called)) in rounds.into_iter().enumerate() {
            turns.push(user);
            if at == last {
                break;
            }
            let mut content: Vec<Content> = said.map(Content::Text).into_iter().collect();
            if let Some((value, number, answer)) = called {
                let (id, arguments) =
                    (format!("call_{at}"), serde_json::json!({ "v": value, "n": number }).to_string());
                content.push(Content::ToolCall { id: id.clone(), name: "look".into(), arguments });
                turns.push(Turn { role: Role::Assistant, content });
                let content = vec![Content::ToolResult { id, content: vec![Content::Text(answer)], is_error: false }];
                turns.push(Turn { role: Role::User, content });
                turns.push(Turn::text(Role::Assistant, "seen"));
            } else {
                content.extend(content.is_empty().then(|| Content::Text("ok".into())));
                turns.push(Turn { role: Role::Assistant, content });
            }
        }
        turns
    })
}

fn calls() -> impl Strategy<Value = Call> {
    let schema = r#"{"type":"object","properties":{"v":{"type":"string"}}}"#;
    let tool = Tool::Function {
        name: "look".into(),
        description: Some("Looks \"it\" up".into()),
        parameters: Some(schema.into()),
        strict: None,
    };
    let choice = prop_oneof![
        Just(None),
        Just(Some(ToolChoice::Auto)),
        Just(Some(ToolChoice::Required)),
        Just(Some(ToolChoice::Named("look".into())))
    ];
    let format = prop_oneof![
        3 => Just(None),
        1 => Just(Some(Format::Json)),
        1 => Just(Some(Format::Schema { name: "s".into(), json: format!(r#"{{"name":"s","schema":{schema}}}"#) }))
    ];
    let thinking = prop_oneof![
        Just(None),
        Just(Some(Thinking::Off)),
        Just(Some(Thinking::Budget(2048))),
        Just(Some(Thinking::Effort(Effort::Low)))
    ];
    let numbers = (proptest::option::of(1..9000_u64), proptest::option::of(0..=4_u8), proptest::option::of(1..=4_u8));
    let stops = proptest::collection::vec("[a-z]{1,4}", 0..3);
    (turns(), any::<bool>(), choice, format, thinking, numbers, stops, any::<bool>()).prop_map(
        move |(turns, tools, tool_choice, format, thinking, (max_tokens, temperature, top_p), stop, stream)| Call {
            model: "m".into(),
            turns,
            tools: tools.then(|| tool.clone()).into_iter().collect(),
            tool_choice: tool_choice.filter(|_| tools),
            max_tokens,
            temperature: temperature.map(|quarters| f64::from(quarters) / 4.0),
            top_p: top_p.map(|quarters| f64::from(quarters) / 4.0),
            stop,
            thinking,
            format,
            choices: 1,
            stream,
            stream_usage: stream,
            family: "openai",
            ..Call::default()
        },
    )
}

/// All that is said, in one.
fn prompt(call: &Call) -> String {
    let said: Vec<String> = talk(call).into_iter().map(|(_, text)| text).filter(|text| !text.is_empty()).collect();
    said.join("\n\n")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_is_read_and_comes_to_rest(call in calls()) {
        for backend in Dialect::ALL {
            let written = match backend.codec().write_call(&call, &target()) {
                Ok(written) => written,
                Err(fault) => {
                    prop_assert_eq!(fault.kind, FaultKind::Unsupported, "{:?}: {:?}", backend, fault);
                    continue;
                }
            };
            prop_assert!(!refuses(backend, &call), "{:?}", backend);
            let again = read_call(backend, &written.body);
            if matches!(backend, Dialect::Completions) {
                // It knows one prompt, whoever said what.
                prop_assert_eq!(prompt(&again), prompt(&call), "{:?}: {:?}", backend, written.body);
            } else {
                prop_assert_eq!(talk(&again), talk(&call), "{:?}: {:?}", backend, written.body);
            }
            prop_assert_eq!((again.stream, again.tools.len()), (call.stream, call.tools.len()), "{:?}", backend);
            prop_assert_eq!(&again.stop, &call.stop, "{:?}", backend);
            let second = backend.codec().write_call(&again, &target()).unwrap();
            let third = backend.codec().write_call(&read_call(backend, &second.body), &target()).unwrap();
            prop_assert_eq!(&second.body, &third.body, "{:?}", backend);
        }
    }

    /// A call that is put back as it was read leaves every byte where it stood.
    #[test]
    fn a_call_put_back_changes_no_byte(call in calls()) {
        for client in Dialect::ALL {
            let Ok(written) = client.codec().write_call(&call, &target()) else { continue };
            let request = Request::read(client, written.body).unwrap();
            let same = request.with_call(request.call().unwrap()).unwrap();
            prop_assert_eq!(same.body(), request.body(), "{:?}", client);
        }
    }
}

/// Claude Code looks for tools that it has not told of yet, and the result names those it has found.
#[test]
fn tools_that_were_found_are_named_to_every_model() {
    let reference = r#"{"type":"tool_reference","tool_name":"Edit"}"#;
    let body = format!(
        r#"{{"model":"m","messages":[{{"role":"user","content":"x"}},{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"ToolSearch","input":{{}}}}]}},{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","content":[{reference}]}}]}}]}}"#
    );
    let call = read_call(Dialect::Messages, &Bytes::from(body));
    for backend in [Dialect::Messages, Dialect::Chat, Dialect::Responses, Dialect::OllamaChat] {
        let written = backend.codec().write_call(&call, &target()).unwrap().body;
        let text = std::str::from_utf8(&written).unwrap();
        let own = backend == Dialect::Messages;
        assert_eq!((text.contains(reference), text.contains("The tool `Edit` can")), (own, !own), "{text}");
    }
}

/// It is another one in each request: a server that remembers prompts would find each one new from its first words on.
#[test]
fn what_claude_code_tells_its_vendor_s_books_goes_to_nobody_else() {
    let body = r#"{"model":"m","system":[{"type":"text","text":"x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch=36ee5;"},{"type":"text","text":"You are Claude Code."}],"messages":[{"role":"user","content":"x"}]}"#;
    let call = read_call(Dialect::Messages, &Bytes::from(body));
    for backend in [Dialect::Messages, Dialect::Chat, Dialect::Responses, Dialect::OllamaChat] {
        let written = backend.codec().write_call(&call, &target()).unwrap();
        let (text, own) = (String::from_utf8_lossy(&written.body), backend == Dialect::Messages);
        assert_eq!((text.contains("cch="), text.contains("You are Claude Code.")), (own, true), "{text}");
        let named = written.dropped.iter().any(|name| name == "system.x-anthropic-billing-header");
        assert!(own || named, "{:?}", written.dropped);
    }
}
