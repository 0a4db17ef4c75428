//! Copies of exchanges.

use serde_json::{Value, json};
use tidegate_plugin::http::Response;
use tidegate_plugin::testing::{Chat, Trial, World, splits};
use tidegate_plugin::{Error, Hop, Start, StopReason};

use super::*;

const URL: &str = "https://sink.example/copies";

fn answering(status: u16) {
    World::with(|world| world.http = Box::new(move |_| Ok(Response { status, headers: Vec::new(), body: Vec::new() })));
}

fn copies() -> Vec<Value> {
    World::with(|world| world.requests.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect())
}

fn reply() -> Vec<Event> {
    vec![
        Event::Start(Start { id: None, model: None }),
        Event::Open(Part::Thinking),
        Event::thinking("hm"),
        Event::Close,
        Event::Open(Part::Text),
        Event::text("hello"),
        Event::Close,
        Event::tool_call("1", "look"),
        Event::arguments("{}"),
        Event::Close,
        Event::Stop(StopReason::ToolUse),
    ]
}

#[test]
fn a_copy_says_what_happened() {
    let fields = json!([
        "request",
        "tools",
        "parameters",
        "reply",
        "thinking",
        "tool_calls",
        "usage",
        "identity",
        "user",
        "route"
    ]);
    let trial = Trial::<Tap>::new(json!({"url": URL, "fields": fields, "headers": {"authorization": "Bearer x"}}));
    answering(204);
    let chat = Chat::user("hi").system("be kind").with("temperature", 0.5);
    for batches in splits(&reply()) {
        World::with(|world| world.requests.clear());
        let mut request = trial.call(chat.clone());
        assert_eq!(request.verdict, Verdict::Pass);
        World::with(|world| {
            world.route = Some(Hop { name: "test".into(), backend: "gpu".into(), model: "m".into(), attempt: 1 });
        });
        for batch in batches {
            assert!(request.batch(batch), "it changes nothing");
        }
        request.end();
        let copy = &copies()[0];
        for (pointer, expect) in [
            ("/id", json!("request-1")),
            ("/model", json!("test")),
            ("/outcome", json!("ok")),
            ("/stop", json!("tool_use")),
            ("/request/0", json!({"role": "system", "kind": "text", "text": "be kind"})),
            ("/request/1/text", json!("hi")),
            ("/parameters/temperature", json!(0.5)),
            ("/reply", json!("hello")),
            ("/thinking", json!("hm")),
            ("/tool_calls", json!([{"name": "look", "arguments": "{}"}])),
            ("/usage/source", json!("reported")),
            ("/identity/organization", json!("acme")),
            ("/route/backend", json!("gpu")),
            ("/duration_ms", json!(34.5)),
        ] {
            assert_eq!(copy.pointer(pointer), Some(&expect), "{pointer}");
        }
    }
    World::with(|world| {
        let sent = &world.requests[0];
        assert_eq!((sent.method.as_str(), sent.url.as_str(), sent.timeout), ("POST", URL, Some(2000)));
        assert!(sent.headers.contains(&("authorization".into(), "Bearer x".into())));
    });
}

#[test]
fn fields_and_sizes_are_chosen() {
    let trial = Trial::<Tap>::new(json!({"url": URL, "fields": ["request", "reply"], "max_chars": 3}));
    answering(200);
    let mut request = trial.call(Chat::user("héllo").says("user", "abc"));
    request.batch(reply());
    request.end();
    let copy = &copies()[0];
    assert_eq!(copy["request"][0]["text"], "hél…");
    assert_eq!((&copy["request"][1]["text"], &copy["reply"]), (&json!("abc"), &json!("hel…")));
    for absent in ["thinking", "usage", "identity", "route", "user", "tools"] {
        assert!(copy.get(absent).is_none(), "{absent}");
    }
    let trial = Trial::<Tap>::new(json!({"url": URL, "fields": ["usage"]}));
    assert_eq!(trial.description.hooks, Hooks::ON_CALL | Hooks::ON_END, "the reply is not even read");
}

#[test]
fn a_sink_in_trouble_disturbs_nothing() {
    let cases: [(fn(), &str, usize); 3] = [
        (|| answering(200), "sent", 0),
        (|| answering(500), "refused", 1),
        (|| World::with(|world| world.http = Box::new(|_| Err(Error::Timeout))), "failed", 1),
    ];
    for (sink, outcome, lines) in cases {
        let trial = Trial::<Tap>::new(json!({"url": URL}));
        sink();
        trial.call(Chat::user("hi")).end();
        assert_eq!(World::metric("copies", outcome), 1.0);
        World::with(|world| assert_eq!(world.logs.len(), lines, "{outcome}"));
    }
}

#[test]
fn sampling_leaves_some_out() {
    for (sample, sent) in [(0.0, 0), (0.5, 1), (1.0, 1)] {
        // The trial's chance is always 0.
        let trial = Trial::<Tap>::new(json!({"url": URL, "sample": sample}));
        answering(200);
        trial.call(Chat::user("hi")).end();
        assert_eq!(copies().len(), sent, "{sample}");
    }
}

#[test]
fn mistakes_in_the_configuration_are_found() {
    for config in [
        json!({}),
        json!({"url": "ftp://x.example"}),
        json!({"url": URL, "fields": ["body"]}),
        json!({"url": URL, "sample": 2}),
    ] {
        assert!(Trial::<Tap>::problem(config.clone()).is_some(), "{config}");
    }
    let secret = Trial::<Tap>::problem(json!({"url": "sink.example/s3cret"})).unwrap();
    assert!(secret.contains("url: it must begin") && !secret.contains("s3cret"), "{secret}");
}

#[test]
fn the_examples_load() {
    let configs = readme::configs(include_str!("../README.md"));
    assert!(!configs.is_empty());
    for config in configs {
        assert_eq!(Trial::<Tap>::problem(config.clone()), None, "{config}");
    }
}
