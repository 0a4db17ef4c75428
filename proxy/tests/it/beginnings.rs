//! Until a client has something of its reply, another target can give it; and a request goes to one that can be told all of it.

use crate::fake::{Act, CHAT, Fake, MESSAGES_STREAM, chat_stream, json, stream, stream_head};
use crate::gateway::Gateway;
use std::time::Duration;
use tidegate::canon::Outcome;

const CHAT_PATH: &str = "/v1/chat/completions";
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

fn backend(name: &str, kind: &str, fake: &Fake, more: &str) -> String {
    format!("[backends.{name}]\nkind = \"{kind}\"\nurl = \"{}\"\n{more}\n", fake.url())
}

/// The model `m` on `one` before `two`.
const ONE_BEFORE_TWO: &str = "[models.m]\ntargets = [{ backend = \"one\" }, { backend = \"two\", priority = 1 }]\n";

fn good() -> Fake {
    Fake::start(|_| stream(&chat_stream("m"), 1000))
}

fn after(millis: u64) -> Act {
    Act::Wait(Duration::from_millis(millis))
}

#[test]
fn a_stream_that_ends_before_it_begins_is_another_target_s() {
    let says = |text: &'static str| vec![stream_head(), Act::Chunk(text.into()), Act::Send(b"0\r\n\r\n".to_vec())];
    let overloaded = "data: {\"error\":{\"message\":\"engine is gone\",\"type\":\"server_error\"}}\n\n";
    for (what, acts) in [
        ("reset", vec![stream_head(), after(50), Act::Reset]),
        ("closed", vec![stream_head(), after(50), Act::Close]),
        ("empty", vec![stream_head(), Act::Send(b"0\r\n\r\n".to_vec())]),
        ("silent", vec![stream_head(), after(8000)]),
        ("an error", says(overloaded)),
    ] {
        let (bad, fake) = (Fake::start(move |_| acts.clone()), good());
        let limits = "timeouts = { first_token = \"1s\" }";
        let sections = backend("one", "openai", &bad, limits) + &backend("two", "openai", &fake, "") + ONE_BEFORE_TWO;
        let gateway = Gateway::start(&sections);
        let answer = gateway.post(CHAT_PATH, STREAM);
        assert!(answer.status == 200 && answer.body.ends_with("data: [DONE]\n\n"), "{what}: {answer:?}");
        assert_eq!(answer.header("x-tidegate-attempts"), Some("2"), "{what}");
        let record = gateway.record();
        assert_eq!((&*record.backend, record.attempts, record.outcome), ("two", 2, Outcome::Ok), "{what}");
    }
    // What is wrong with the request is wrong everywhere.
    let wrong = "data: {\"error\":{\"message\":\"no such role\",\"type\":\"BadRequestError\",\"code\":400}}\n\n";
    let (bad, fake) = (Fake::start(move |_| says(wrong)), good());
    let sections = backend("one", "openai", &bad, "") + &backend("two", "openai", &fake, "") + ONE_BEFORE_TWO;
    let answer = Gateway::start(&sections).post(CHAT_PATH, STREAM);
    assert!(answer.status == 400 && answer.body.contains("no such role"), "{answer:?}");
    assert!(fake.seen().is_empty());
}

#[test]
fn a_client_does_not_wait_longer_for_its_head_than_it_may_hear_nothing() {
    let text = chat_stream("m");
    let slow = Fake::start(move |_| [vec![stream_head(), after(900)], stream(&text, 1000).split_off(1)].concat());
    let sections = backend("one", "openai", &slow, "") + &backend("two", "openai", &good(), "") + ONE_BEFORE_TWO;
    let gateway = Gateway::start_with("keep_alive = \"300ms\"", &sections);
    let answer = gateway.post(CHAT_PATH, STREAM);
    assert!(answer.body.starts_with(": ") && answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    assert_eq!(gateway.record().attempts, 1);
}

#[test]
fn who_says_that_it_is_there_may_still_read_the_prompt() {
    let text = chat_stream("m");
    let (role, rest) = text.split_at(text.find("\n\n").unwrap() + 2);
    let acts = [
        vec![stream_head(), Act::Chunk(b": alive\n\n".to_vec()), after(200), Act::Chunk(role.into()), after(1500)],
        stream(rest, 1000).split_off(1),
    ];
    let fake = Fake::start(move |_| acts.concat());
    let limits = "timeouts = { first_token = \"5s\", idle = \"1s\" }";
    let gateway =
        Gateway::start(&(backend("one", "openai", &fake, limits) + "[models.m]\ntargets = [{ backend = \"one\" }]\n"));
    let answer = gateway.post(CHAT_PATH, STREAM);
    assert!(answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    assert_eq!(gateway.record().outcome, Outcome::Ok);
}

#[test]
fn a_request_goes_to_a_target_that_can_be_told_all_of_it() {
    let call =
        r#"{"model":"m","max_tokens":9,"stream":true,"thread":{"id":"t"},"messages":[{"role":"user","content":"x"}]}"#;
    for kind in ["openai", "vllm", "llamacpp", "ollama"] {
        let (other, native) = (good(), Fake::start(|_| stream(MESSAGES_STREAM, 1000)));
        let sections = backend("one", kind, &other, "health = { probe = false }\ndiscover = false")
            + &backend("two", "anthropic", &native, "")
            + ONE_BEFORE_TWO
            + "[models.alone]\ntargets = [{ backend = \"one\" }]\n";
        let gateway = Gateway::start(&sections);
        let answer = gateway.post("/v1/messages", call);
        assert!(answer.status == 200 && answer.body.contains("message_stop"), "{kind}: {answer:?}");
        assert_eq!(answer.header("x-tidegate-attempts"), Some("1"), "{kind}: who was not asked was not tried");
        assert_eq!(&*gateway.record().backend, "two");
        let answer = gateway.post("/v1/messages", &call.replace("\"m\"", "\"alone\""));
        let code = answer.json()["error"]["details"]["error_code"].clone();
        assert_eq!((answer.status, code.as_str()), (400, Some("thread_unsupported_request")), "{kind}: {answer:?}");
        let record = gateway.records().pop().unwrap();
        assert_eq!((record.attempts, &*record.backend, &*record.model), (0, "", ""), "{kind}: nor where all are such");
        assert_eq!(answer.header("x-tidegate-backend"), None, "{kind}");
        let asked = other.seen().into_iter().filter(|seen| seen.head.starts_with("post "));
        assert_eq!(asked.count(), 0, "{kind}");
    }
}

#[test]
fn who_met_a_full_target_learns_when_to_come_again_whatever_the_others_did() {
    for full in ["one", "two"] {
        let busy = Fake::start(|_| json(429, "retry-after: 7\r\n", r#"{"error":{"message":"full"}}"#));
        let broken = Fake::start(|_| vec![Act::Reset]);
        let other = if full == "one" { "two" } else { "one" };
        let sections = backend(full, "openai", &busy, "") + &backend(other, "openai", &broken, "") + ONE_BEFORE_TWO;
        let answer = Gateway::start(&sections).post(CHAT_PATH, &STREAM.replace("true", "false"));
        assert_eq!((answer.status, answer.header("retry-after")), (429, Some("7")), "{full}: {answer:?}");
    }
    // And where one has room there is nothing to learn.
    let busy = Fake::start(|_| json(429, "", "{}"));
    let fake = Fake::start(|_| json(200, "", CHAT));
    let sections = backend("one", "openai", &busy, "") + &backend("two", "openai", &fake, "") + ONE_BEFORE_TWO;
    assert_eq!(Gateway::start(&sections).post(CHAT_PATH, &STREAM.replace("true", "false")).status, 200);
}
