//! Pages in browsers: who may ask, what is asked beforehand, and what a browser is told.

use crate::fake::{CHAT, Fake, chat_stream, json, stream};
use crate::gateway::{Answer, Gateway, KEY, one_backend, post, until};

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

fn preflight(gateway: &Gateway, origin: &str) -> Answer {
    let asks =
        "access-control-request-method: POST\r\naccess-control-request-headers: authorization,x-stainless-os\r\n";
    gateway
        .raw(format!("OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\n{asks}\r\n").as_bytes())
}

fn asked_by(gateway: &Gateway, origin: &str, key: &str, body: &str) -> Answer {
    let headers = format!("origin: {origin}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n");
    gateway.raw(&post("/v1/chat/completions", &headers, body.as_bytes()))
}

/// What a browser lets the page have.
fn allowed(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

fn fake() -> Fake {
    Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") { stream(&chat_stream("served"), 64) } else { json(200, "", CHAT) }
    })
}

#[test]
fn no_page_may_ask_unless_its_origin_is_named() {
    let fake = fake();
    let gateway = Gateway::before("openai", &fake.url(), "");
    let refused = preflight(&gateway, "https://a.example");
    assert_eq!((refused.status, allowed(&refused)), (405, None), "{refused:?}");
    let answer = asked_by(&gateway, "https://a.example", KEY, CALL);
    assert_eq!((answer.status, allowed(&answer), answer.header("vary")), (200, None, None), "{answer:?}");
}

#[test]
fn a_page_whose_origin_is_named_may_ask() {
    let fake = fake();
    let sections = one_backend("openai", &fake.url(), "");
    let named = "cors = [\"https://a.example\", \"app://obsidian.md\"]";
    let gateway = Gateway::start_with(named, &sections);
    let asked = preflight(&gateway, "app://obsidian.md");
    assert_eq!((asked.status, allowed(&asked)), (200, Some("app://obsidian.md")), "{asked:?}");
    assert_eq!(asked.header("access-control-allow-headers"), Some("authorization,x-stainless-os"));
    assert!(asked.header("access-control-allow-methods").unwrap().contains("POST"));
    assert!(gateway.records().is_empty(), "what a browser asks beforehand leaves no record, and needs no key");
    // Errors are for the page to read, too.
    for (key, body, status) in [(KEY, CALL, 200), (KEY, STREAM, 200), ("nobody", CALL, 401), (KEY, "{}", 400)] {
        let answer = asked_by(&gateway, "https://a.example", key, body);
        assert_eq!((answer.status, allowed(&answer)), (status, Some("https://a.example")), "{answer:?}");
        assert_eq!(
            (answer.header("access-control-expose-headers"), answer.header("vary")),
            (Some("*"), Some("origin"))
        );
        assert!(answer.header("access-control-allow-credentials").is_none());
    }
    assert_eq!(gateway.records().len(), 4);
    let foreign = preflight(&gateway, "https://b.example");
    assert_eq!((foreign.status, allowed(&foreign)), (405, None), "{foreign:?}");
    assert_eq!(allowed(&asked_by(&gateway, "https://b.example", KEY, CALL)), None);

    // Without a restart, also where the connection stays.
    gateway.replace(&format!("{}{sections}", gateway.common().replace(named, "cors = [\"*\"]")));
    until(|| allowed(&preflight(&gateway, "https://b.example")) == Some("*"), "the origins are those of the file");
    assert_eq!(asked_by(&gateway, "https://b.example", KEY, CALL).header("vary"), None);
}
