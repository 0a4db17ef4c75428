//! What is only carried: bodies that keep their bytes but for the model's name, replies that keep all of theirs, and books.

use crate::fake::{Act, Fake, IMPATIENT, json, stream_head};
use crate::gateway::{Gateway, KEY, one_backend, post, read_answer, until};
use std::io::{Read, Write};
use std::time::Duration;
use tidegate::canon::{Outcome, UsageSource};

const RANKING: &str =
    r#"{"id":"rerank-1","model":"served","usage":{"total_tokens":56},"results":[{"index":1,"relevance_score":0.9}]}"#;
const QUERY: &str = r#"{ "query":"m", "documents":["a","b"], "model" : "m" }"#;

fn field(head: &str, content: &str) -> String {
    format!("--b0undary\r\ncontent-disposition: form-data; {head}\r\n\r\n{content}\r\n")
}

/// A form with a file first and its model last, as some clients write it.
fn form(model: &str) -> String {
    [
        field("name=\"file\"; filename=\"a.wav\"", "RIFF\0\r\n--b0und\u{1}"),
        field("name=\"language\"", "en"),
        field("name=\"model\"", model),
        "--b0undary--\r\n".into(),
    ]
    .concat()
}

fn send_form(path: &str, body: &str) -> Vec<u8> {
    let headers = format!("authorization: Bearer {KEY}\r\ncontent-type: multipart/form-data; boundary=b0undary\r\n");
    post(path, &headers, body.as_bytes())
}

#[test]
fn a_ranking_keeps_its_bytes_both_ways_and_is_booked() {
    let fake = Fake::start(|_| json(200, "x-foreign: 1\r\n", RANKING));
    let gateway = Gateway::before("openai", &fake.url(), "");
    let mut client = gateway.open();
    for path in ["/v1/rerank", "/v2/rerank", "/rerank"] {
        let headers = format!("x-api-key: {KEY}\r\ncontent-type: application/json\r\n");
        client.write_all(&post(path, &headers, QUERY.as_bytes())).unwrap();
        let answer = read_answer(&mut client);
        assert_eq!((answer.status, answer.body.as_str(), answer.whole), (200, RANKING, true), "{path}");
        assert_eq!(answer.header("content-length"), Some(RANKING.len().to_string().as_str()));
        assert_eq!((answer.header("x-foreign"), answer.header("x-tidegate-backend")), (None, Some("b")));
        assert_eq!(
            (answer.header("x-tidegate-model"), answer.header("x-tidegate-attempts")),
            (Some("served"), Some("1"))
        );
        let seen = fake.seen().pop().unwrap();
        assert!(
            seen.head.starts_with(&format!("post {path} ")) && seen.head.contains("bearer backend-key"),
            "{seen:?}"
        );
        assert_eq!(seen.body, QUERY.replace("\"model\" : \"m\"", "\"model\" : \"served\""));
        assert_eq!(seen.connection, 0, "connections are kept on both sides");
    }
    for record in gateway.booked(3) {
        assert_eq!((&*record.endpoint, &*record.dialect, record.outcome), ("rerank", "openai", Outcome::Ok));
        assert_eq!((record.model_requested.as_str(), &*record.model, record.status), ("m", "served", 200));
        assert_eq!((record.input_tokens, record.output_tokens), (Some(56), Some(0)));
        assert_eq!((record.usage_source, record.currency.as_deref()), (UsageSource::Reported, Some("USD")));
    }
}

#[test]
fn a_form_s_model_is_exchanged_where_it_stands_for_each_target() {
    let gone = Fake::start(|_| vec![Act::Reset]);
    let fake = Fake::start(|_| {
        let sound = "HTTP/1.1 201 X\r\ncontent-type: audio/mpeg\r\ncontent-disposition: attachment; filename=a.mp3\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut acts = vec![Act::Send(sound.into())];
        acts.extend([Act::Chunk(b"one".to_vec()), Act::Chunk(b"two".to_vec()), Act::Send(b"0\r\n\r\n".to_vec())]);
        acts
    });
    let gateway = Gateway::start(&format!(
        "[backends.here]\nkind = \"anthropic\"\nurl = \"{0}\"\n[backends.a]\nkind = \"openai\"\nurl = \"{0}\"\n[backends.b]\nkind = \"openai\"\nurl = \"{1}\"\n\
         [models.m]\nretries = 1\ntargets = [{{ backend = \"here\" }}, {{ backend = \"a\", model = \"whisper-a\", priority = 1 }}, {{ backend = \"b\", model = \"b\", priority = 2 }}]\n",
        gone.url(),
        fake.url()
    ));
    let answer = gateway.raw(&send_form("/v1/audio/transcriptions", &form("m")));
    assert_eq!((answer.status, answer.body.as_str(), answer.whole), (201, "onetwo", true), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("audio/mpeg"));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=a.mp3"));
    assert_eq!((answer.header("x-tidegate-backend"), answer.header("x-tidegate-attempts")), (Some("b"), Some("2")));
    for (fake, model) in [(&gone, "whisper-a"), (&fake, "b")] {
        let seen = &fake.seen()[0];
        assert_eq!(seen.body, form(model));
        assert!(seen.head.contains("content-type: multipart/form-data; boundary=b0undary"), "{}", seen.head);
    }
    let record = gateway.record();
    assert_eq!((&*record.endpoint, &*record.target, record.attempts), ("audio/transcriptions", "b/0", 2));
    assert_eq!((record.outcome, record.status, record.usage_source), (Outcome::Ok, 201, UsageSource::Missing));
}

#[test]
fn what_cannot_be_carried_is_refused_and_booked() {
    let fake = Fake::start(|_| json(200, "", RANKING));
    let sections = one_backend("openai", &fake.url(), "")
        + &format!(
            "[backends.c]\nkind = \"anthropic\"\nurl = \"{}\"\n[models.c]\ntargets = [{{ backend = \"c\" }}]\n",
            fake.url()
        );
    let gateway = Gateway::start_with("body_limit = \"4KiB\"", &sections);
    let as_json = |path: &str, body: &str| post(path, &format!("x-api-key: {KEY}\r\n"), body.as_bytes());
    let twice = field("name=model", "m") + &form("other");
    let file = field("name=\"model\"; filename=\"m\"", "m") + "--b0undary--";
    let unclosed = form("m").replace("--b0undary--", "");
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("no key", post("/v1/rerank", "", b"{}"), 401, "invalid_api_key"),
        ("no model", as_json("/v1/moderations", "{\"input\":\"x\"}"), 400, "Name a model"),
        ("no model in the form", send_form("/v1/images/variations", "--b0undary--"), 400, "Name a model"),
        ("two models", send_form("/v1/audio/translations", &twice), 400, "twice"),
        ("a file for a model", send_form("/v1/images/edits", &file), 400, "not a file"),
        ("a form that breaks off", send_form("/v1/images/edits", &unclosed), 400, "breaks off"),
        ("two models in JSON", as_json("/v1/rerank", "{\"model\":\"m\",\"model\":\"served\"}"), 400, "twice"),
        ("no JSON", as_json("/v1/images/generations", "x"), 400, "JSON"),
        ("JSON for a form", as_json("/v1/audio/transcriptions", "{\"model\":\"m\"}"), 415, "multipart/form-data"),
        ("a form for JSON", send_form("/v1/audio/speech", &form("m")), 415, "application/json"),
        ("unknown model", as_json("/v1/rerank", "{\"model\":\"nope\"}"), 404, "model_not_found"),
        (
            "a model of others",
            post("/v1/rerank", "x-api-key: dfproj_small\r\n", b"{\"model\":\"served\"}"),
            404,
            "model_not_found",
        ),
        ("a backend without it", as_json("/v1/rerank", "{\"model\":\"c\"}"), 400, "no backend that has /v1/rerank"),
        ("too large", send_form("/v1/audio/transcriptions", &form(&"m".repeat(5000))), 413, "4096 bytes"),
        ("wrong method", b"GET /v1/rerank HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 405, "takes POST"),
    ];
    let count = cases.len();
    for (name, request, status, says) in cases {
        let answer = gateway.raw(&request);
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        assert!(
            answer.body.starts_with("{\"error\":{\"message\":") && answer.body.contains(says),
            "{name}: {}",
            answer.body
        );
    }
    let records = gateway.records();
    assert_eq!(records.len(), count);
    assert!(records.iter().all(|record| record.outcome == Outcome::Refused && record.attempts == 0), "{records:#?}");
    assert_eq!(fake.seen().len(), 0, "nothing of it reached a backend");
}

#[test]
fn a_backend_s_errors_are_judged_as_elsewhere() {
    for (status, expect, says) in [
        (400, 400, "too many documents"),
        (404, 502, "does not know"),
        (429, 429, "too many documents"),
        (500, 502, "status 500"),
    ] {
        let fake =
            Fake::start(move |_| json(status, "retry-after: 3\r\n", r#"{"error":{"message":"too many documents"}}"#));
        let gateway = Gateway::before("openai", &fake.url(), "");
        let answer = gateway.post("/v1/rerank", QUERY);
        assert_eq!((answer.status, answer.body.contains(says)), (expect, true), "{status}: {answer:?}");
        assert_eq!(answer.header("retry-after"), (status == 429).then_some("3"));
        assert_eq!(gateway.record().outcome, Outcome::BackendError);
    }
    let gateway = Gateway::before("openai", "http://127.0.0.1:9", "");
    assert_eq!(gateway.post("/v1/moderations", QUERY).status, 502);
}

#[test]
fn a_reply_that_breaks_off_breaks_off() {
    let declared =
        || Act::Send(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 100\r\n\r\npart".to_vec());
    let chunk = || Act::Chunk(b"part".to_vec());
    let silence = || Act::Wait(Duration::from_secs(4));
    type Script = Vec<Act>;
    let scripts: Vec<(&str, Script, &str)> = vec![
        ("declared", vec![declared(), Act::Close], "backend_cut"),
        ("chunked", vec![stream_head(), chunk(), Act::Close], "backend_cut"),
        ("reset", vec![stream_head(), chunk(), Act::Wait(Duration::from_millis(50)), Act::Reset], "backend_cut"),
        ("silent", vec![declared(), silence(), Act::Close], "backend_timeout"),
        ("silent, chunked", vec![stream_head(), chunk(), silence(), Act::Close], "backend_timeout"),
    ];
    for (name, script, label) in scripts {
        let fake = Fake::start(move |_| script.clone());
        let gateway = Gateway::before("openai", &fake.url(), if label == "backend_timeout" { IMPATIENT } else { "" });
        let answer = gateway.post("/v1/audio/speech", QUERY);
        assert_eq!((answer.status, answer.body.as_str(), answer.whole), (200, "part", false), "{name}");
        let record = gateway.wait_for_records(1).remove(0);
        assert_eq!((record.outcome, record.status), (Outcome::Cut, 200), "{name}");
        assert!(gateway.operator("/metrics").body.contains(label), "{name}");
    }
}

#[test]
fn a_stream_that_does_not_begin_is_given_up() {
    let fake = Fake::start(|_| vec![Act::Wait(Duration::from_secs(8)), Act::Close]);
    let gateway = Gateway::before("openai", &fake.url(), "timeouts = { first_token = \"200ms\" }");
    let answer = gateway.post("/v1/images/generations", r#"{"model":"m","prompt":"x","stream":true}"#);
    assert_eq!(answer.status, 504, "{answer:?}");
    assert!(gateway.record().stream);
}

#[test]
fn a_client_that_leaves_cancels_the_backend() {
    let fake = Fake::start(|_| vec![stream_head(), Act::Forever(vec![b'x'; 1000])]);
    let gateway = Gateway::before("openai", &fake.url(), "");
    let mut client = gateway.send("/v1/audio/speech", KEY, QUERY);
    client.read_exact(&mut [0; 2000]).unwrap();
    drop(client);
    let record = gateway.wait_for_records(1).remove(0);
    assert_eq!((record.outcome, record.status, record.usage_source), (Outcome::ClientGone, 200, UsageSource::Missing));
    until(|| !fake.left().is_empty(), "the backend was not told");
}

#[test]
fn usage_is_read_where_it_is_told_and_nothing_is_made_up() {
    let picture = format!(
        r#"{{"created":1,"data":[{{"b64_json":"{}"}}],"usage":{{"input_tokens":50,"output_tokens":4160,"total_tokens":4210}}}}"#,
        "QUJD".repeat(100_000)
    );
    let text = r#"{"text":"hi","usage":{"type":"duration","seconds":3}}"#;
    for (path, reply, counts) in [
        ("/v1/images/generations", picture.as_str(), (Some(50), Some(4160), UsageSource::Reported)),
        ("/v1/moderations", text, (None, None, UsageSource::Missing)),
        ("/v1/moderations", "{}", (None, None, UsageSource::Missing)),
    ] {
        let whole = reply.to_owned();
        let fake = Fake::start(move |_| json(200, "", &whole));
        let gateway = Gateway::before("openai", &fake.url(), "");
        assert!(gateway.post(path, QUERY).body == reply, "{path}");
        let record = gateway.record();
        assert_eq!((record.input_tokens, record.output_tokens, record.usage_source), counts, "{path}");
        assert_eq!(record.cost.is_some(), counts.0.is_some());
    }
    let fake = Fake::start(|_| vec![Act::Send(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())]);
    let gateway = Gateway::before("openai", &fake.url(), "");
    let request = post("/v1/moderations", &format!("x-api-key: {KEY}\r\nconnection: close\r\n"), QUERY.as_bytes());
    assert_eq!(gateway.raw(&request).status, 204);
    assert_eq!((gateway.record().outcome, gateway.record().status), (Outcome::Ok, 204));
}
