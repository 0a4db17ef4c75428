//! Heads: which of a client's headers reach a backend, and what those of replies bear.

use crate::fake::{CHAT, Fake, MESSAGES_STREAM, Seen, chat_stream, json, stream};
use crate::gateway::{Answer, Gateway, KEY, post};
use std::io::{Read, Write};

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;
const QUERY: &str = r#"{"model":"m","query":"x","documents":["x"]}"#;

/// Names of a request's headers, in order.
fn names(seen: &Seen) -> Vec<&str> {
    let mut names: Vec<_> = seen.head.lines().skip(1).map(|line| line.split(':').next().unwrap()).collect();
    names.sort_unstable();
    names
}

fn value<'a>(seen: &'a Seen, name: &str) -> Option<&'a str> {
    seen.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn a_backend_gets_of_a_client_s_head_only_what_is_meant_for_it() {
    // What may hold secrets of the client's, or steer what is behind the backend, and what is for a backend.
    let said = format!(
        "authorization: Bearer {KEY}\r\ncookie: session=s3cret\r\nopenai-organization: acme\r\nopenai-project: web\r\n\
         x-session-id: mine\r\nsession_id: mine\r\nx-forwarded-for: 10.0.0.1\r\nforwarded: for=10.0.0.1\r\nuser-agent: me\r\n\
         accept: */*\r\naccept-encoding: gzip\r\nx-vendor: 1\r\nanthropic-version: 2023-06-01\r\nanthropic-beta: one\r\n\
         x-request-id: mine-1\r\ncontent-type: application/json\r\n"
    );
    let plain = &["authorization", "content-length", "content-type", "host", "x-request-id"][..];
    let messages =
        &["anthropic-beta", "anthropic-version", "content-length", "content-type", "host", "x-api-key", "x-request-id"]
            [..];
    let spoken = stream(MESSAGES_STREAM, 1000);
    for (kind, path, body, reply, expect) in [
        ("openai", "/v1/chat/completions", CALL, json(200, "", CHAT), plain),
        ("openai", "/v1/messages", CALL, json(200, "", CHAT), plain),
        ("openai", "/v1/rerank", QUERY, json(200, "", r#"{"results":[]}"#), plain),
        ("anthropic", "/v1/messages", STREAM, spoken.clone(), messages),
        ("anthropic", "/v1/chat/completions", STREAM, spoken, messages),
    ] {
        let fake = Fake::start(move |_| reply.clone());
        let gateway = Gateway::before(kind, &fake.url(), "");
        let answer = gateway.raw(&post(path, &said, body.as_bytes()));
        assert_eq!((answer.status, answer.header("x-request-id")), (200, Some("mine-1")), "{kind} {path}: {answer:?}");
        let seen = &fake.seen()[0];
        assert_eq!(names(seen), expect, "{kind} {path}");
        assert_eq!(value(seen, "x-request-id"), Some("mine-1"), "{kind} {path}");
        let key = value(seen, "authorization").or(value(seen, "x-api-key")).unwrap();
        assert_eq!(key.trim_start_matches("bearer "), "backend-key", "{kind} {path}");
        assert_eq!(gateway.record().request_id, "mine-1", "{kind} {path}");
    }
}

#[test]
fn an_id_that_cannot_be_repeated_is_replaced_by_one_that_all_have() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let gateway = Gateway::before("openai", &fake.url(), "");
    let (longest, longer) = ("x".repeat(128), "x".repeat(129));
    for (number, (said, is_kept)) in
        [(longest.as_str(), true), (longer.as_str(), false), ("", false), ("two words", false), ("é", false)]
            .into_iter()
            .enumerate()
    {
        let headers = format!("x-api-key: {KEY}\r\nx-request-id: {said}\r\n");
        let answer = gateway.raw(&post("/v1/messages", &headers, CALL.as_bytes()));
        let id = answer.header("x-request-id").unwrap();
        assert_eq!((answer.status, id == said), (200, is_kept), "{said}: {answer:?}");
        assert!(!id.is_empty() && answer.header("request-id") == Some(id), "as Anthropic says it: {answer:?}");
        let (seen, records) = (fake.seen(), gateway.records());
        assert_eq!((seen.len(), records.len()), (number + 1, number + 1));
        assert_eq!(value(&seen[number], "x-request-id"), Some(id));
        assert!(records.iter().any(|record| record.request_id == id), "{said}: {records:#?}");
    }
}

#[test]
fn streams_tell_who_stands_between_not_to_hold_them_back() {
    let fake = Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") { stream(&chat_stream("served"), 1000) } else { json(200, "", CHAT) }
    });
    let gateway = Gateway::before("openai", &fake.url(), "");
    let told = |answer: &Answer| {
        answer.header("cache-control") == Some("no-cache") && answer.header("x-accel-buffering") == Some("no")
    };
    for path in ["/v1/chat/completions", "/v1/messages", "/api/chat"] {
        let streamed = gateway.post(path, STREAM);
        assert!(streamed.status == 200 && told(&streamed), "{path}: {streamed:?}");
        let whole = gateway.post(path, &STREAM.replace("true", "false"));
        assert!(whole.status == 200 && !told(&whole), "{path}: {whole:?}");
    }
}

#[test]
fn who_asks_for_a_head_alone_gets_it_and_other_methods_are_told_which_there_are() {
    let gateway = Gateway::before("openai", "http://127.0.0.1:9", "");
    let ask = |method: &str, path: &str, more: &str| {
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n{more}\r\n")
    };
    for path in ["/", "/v1/models", "/v1/models/m", "/api/tags", "/api/ps", "/api/version"] {
        let whole = gateway.get(path, "");
        // What follows on the connection is the next reply.
        let both = ask("HEAD", path, "") + &ask("GET", "/api/version", "connection: close\r\n");
        let mut client = gateway.open();
        client.write_all(both.as_bytes()).unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        let (head, next) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 ") && next.starts_with("HTTP/1.1 200 "), "{path}: {text}");
        let length = format!("content-length: {}", whole.body.len());
        assert!(head.lines().any(|line| line.eq_ignore_ascii_case(&length)), "{path}: {length} in {text}");
    }
    for (method, path, allowed) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models/m", "GET, HEAD"),
        ("PUT", "/api/tags", "GET, HEAD"),
    ] {
        let answer = gateway.raw(ask(method, path, "").as_bytes());
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allowed)), "{method} {path}: {answer:?}");
    }
}
