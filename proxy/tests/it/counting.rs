//! How long a prompt is: asked of whoever can count, estimated where nobody can, and never charged.

use crate::fake::{Act, CHAT, Fake, Seen, json};
use crate::gateway::{Answer, Gateway, KEY, one_backend, post, read_answer, until};
use std::time::Duration;
use tidegate::canon::{Outcome, UsageSource};

const MESSAGES: &str = "/v1/messages/count_tokens";
const RESPONSES: &str = "/v1/responses/input_tokens";
/// Forty bytes of messages, so ten tokens by rule of thumb.
const PROMPT: &str = r#"{"model":"m","messages":[{"role":"user","content":"1234567890"}]}"#;
const INPUT: &str = r#"{"model":"m","input":"12345678901234"}"#;

/// What it was asked beside being probed.
fn asked(fake: &Fake) -> Vec<Seen> {
    fake.seen().into_iter().filter(|seen| seen.head.starts_with("post ")).collect()
}

fn source(answer: &Answer) -> Option<&str> {
    answer.header("x-tidegate-usage-source")
}

#[test]
fn every_kind_is_asked_in_its_own_way() {
    let fake = Fake::start(|seen| {
        let answer = match seen.head.split(' ').nth(1).unwrap() {
            MESSAGES => r#"{"input_tokens":21,"extra":{"kept":1}}"#,
            RESPONSES => r#"{"object":"response.input_tokens","input_tokens":22}"#,
            "/tokenize" => r#"{"count":23,"max_model_len":4096,"tokens":[1,2,3]}"#,
            _ => CHAT,
        };
        json(200, "", answer)
    });
    let counted = |tokens: u64| format!("{{\"input_tokens\":{tokens}}}");
    let said = |tokens: u64| format!("{{\"object\":\"response.input_tokens\",\"input_tokens\":{tokens}}}");
    let own = r#"{"input_tokens":21,"extra":{"kept":1}}"#.to_owned();
    for (kind, more, path, body, expect, by) in [
        ("anthropic", "", MESSAGES, PROMPT, own.clone(), MESSAGES),
        ("anthropic", "", RESPONSES, INPUT, said(21), MESSAGES),
        ("llamacpp", "", MESSAGES, PROMPT, own.clone(), MESSAGES),
        ("llamacpp", "", RESPONSES, INPUT, said(21), MESSAGES),
        ("vllm", "", MESSAGES, PROMPT, counted(23), "/tokenize"),
        ("vllm", "", RESPONSES, INPUT, said(23), "/tokenize"),
        ("openai", "", MESSAGES, PROMPT, counted(22), RESPONSES),
        ("openai", "", RESPONSES, INPUT, said(22), RESPONSES),
        ("tidegate", "", MESSAGES, PROMPT, own, MESSAGES),
        ("tidegate", "", RESPONSES, INPUT, said(22), RESPONSES),
        ("openai", "dialects = [\"chat\"]", MESSAGES, PROMPT, counted(10), ""),
        ("openai", "dialects = [\"chat\"]", RESPONSES, INPUT, said(4), ""),
        ("ollama", "", MESSAGES, PROMPT, counted(10), ""),
    ] {
        let before = asked(&fake).len();
        let gateway = Gateway::before(kind, &fake.url(), more);
        let answer = gateway.post(path, body);
        assert_eq!((answer.status, answer.body), (200, expect), "{kind} {path}");
        let answer = gateway.post(path, body);
        assert_eq!(source(&answer), Some(if by.is_empty() { "estimated" } else { "reported" }), "{kind} {path}");
        let seen = asked(&fake).split_off(before);
        assert!(seen.iter().all(|seen| seen.head.starts_with(&format!("post {by} "))), "{kind} {path}: {seen:?}");
        assert_eq!(seen.len(), if by.is_empty() { 0 } else { 2 }, "{kind} {path}");
        assert!(seen.iter().all(|seen| seen.body.contains("\"model\":\"served\"") && !seen.body.contains("max_")));
        for record in gateway.booked(2) {
            assert_eq!((&*record.endpoint, record.outcome, record.status), (&path[4..], Outcome::Ok, 200));
            assert_eq!((record.input_tokens, record.output_tokens, record.cost), (None, None, None));
            assert_eq!((record.usage_source, &*record.backend, &*record.model), (UsageSource::Missing, "b", "served"));
        }
    }
}

#[test]
fn a_counter_that_fails_is_replaced_by_the_estimate() {
    let scripts: [(&str, Vec<Act>); 5] = [
        ("no counter", json(404, "", "{\"error\":{\"message\":\"no such path\"}}")),
        ("broken", json(500, "", "{}")),
        ("gone", vec![Act::Close]),
        ("no answer", json(200, "", "{\"tokens\":[]}")),
        ("no JSON", json(200, "", "<html>")),
    ];
    for (name, script) in scripts {
        let fake = Fake::start(move |_| script.clone());
        let gateway = Gateway::before("anthropic", &fake.url(), "");
        let answer = gateway.post(MESSAGES, PROMPT);
        assert_eq!((answer.status, answer.body.as_str()), (200, "{\"input_tokens\":10}"), "{name}");
        assert_eq!(source(&answer), Some("estimated"), "{name}");
        assert_eq!(gateway.record().outcome, Outcome::Ok, "{name}");
    }
    // One that cannot be reached, and another that can.
    let fake = Fake::start(|_| json(200, "", "{\"input_tokens\":5}"));
    let gateway = Gateway::start(&format!(
        "[backends.a]\nkind = \"anthropic\"\nurl = \"http://127.0.0.1:9\"\n[backends.b]\nkind = \"anthropic\"\nurl = \"{}\"\n\
         [models.m]\ntargets = [{{ backend = \"a\" }}, {{ backend = \"b\", priority = 1 }}]\n",
        fake.url()
    ));
    let answer = gateway.post(MESSAGES, PROMPT);
    assert_eq!((answer.body.as_str(), source(&answer)), ("{\"input_tokens\":5}", Some("reported")));
    assert_eq!((answer.header("x-tidegate-backend"), answer.header("x-tidegate-attempts")), (Some("b"), Some("2")));
}

#[test]
fn what_cannot_be_answered_is_not_counted() {
    let fake = Fake::start(|_| {
        json(400, "", r#"{"type":"error","error":{"type":"invalid_request_error","message":"roles must alternate"}}"#)
    });
    let gateway = Gateway::start(&format!(
        "{}[backends.o]\nkind = \"ollama\"\nurl = \"{}\"\n[models.o]\ntargets = [{{ backend = \"o\" }}]\n",
        one_backend("anthropic", &fake.url(), ""),
        fake.url()
    ));
    let with = |path: &str, headers: &str, body: &str| gateway.raw(&post(path, headers, body.as_bytes()));
    let key = format!("x-api-key: {KEY}\r\n");
    let image = r#"{"model":"o","messages":[{"role":"user","content":[{"type":"image","source":{"type":"url","url":"http://x/y.png"}}]}]}"#;
    for (name, answer, status, says) in [
        ("no key", with(MESSAGES, "", PROMPT), 401, "authentication_error"),
        ("unknown model", gateway.post(MESSAGES, &PROMPT.replace("\"m\"", "\"no\"")), 404, "not_found_error"),
        ("no messages", gateway.post(MESSAGES, "{\"model\":\"m\"}"), 422, "Field required"),
        ("no model", gateway.post(RESPONSES, "{\"input\":\"x\"}"), 400, "model"),
        ("a form", with(MESSAGES, &format!("{key}content-type: text/plain\r\n"), PROMPT), 415, "application/json"),
        ("what the backend knows to be wrong", gateway.post(MESSAGES, PROMPT), 400, "roles must alternate"),
        ("a backend without a counter", gateway.post(MESSAGES, image), 400, "image"),
        (
            "kept elsewhere",
            gateway.post(RESPONSES, &INPUT.replace("\"input\"", "\"conversation\":\"c\",\"input\"")),
            400,
            "conversation",
        ),
    ] {
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(answer.body.contains(says), "{name}: {}", answer.body);
    }
    assert_eq!(asked(&fake).len(), 1, "only one got so far");
    assert!(gateway.booked(8).iter().all(|record| record.outcome != Outcome::Ok && record.cost.is_none()));
}

#[test]
fn who_asks_when_the_gateway_stops_is_answered() {
    let fake = Fake::start(|_| vec![Act::Wait(Duration::from_secs(8)), Act::Close]);
    let mut gateway = Gateway::start_with("drain = \"100ms\"", &one_backend("anthropic", &fake.url(), ""));
    let mut client = gateway.send(MESSAGES, KEY, PROMPT);
    until(|| !asked(&fake).is_empty(), "the backend is not asked");
    gateway.begin_stop();
    let answer = read_answer(&mut client);
    assert!(answer.status == 503 && answer.body.contains("stopping"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    gateway.finish();
    assert_eq!(gateway.record().status, 503);
}
