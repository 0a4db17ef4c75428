//! Bad input: a clear error in the caller's dialect, and a record.

use crate::fake::{CHAT, Fake, json};
use crate::gateway::{Gateway, KEY, one_backend, post, read_answer};
use crate::process::{Process, may_have_files_of_its_own, unshared};
use std::io::Write;
use tidegate::canon::Outcome;

struct Case {
    name: &'static str,
    request: Vec<u8>,
    status: u16,
    /// Pieces the body must hold.
    says: &'static [&'static str],
}

fn case(name: &'static str, request: Vec<u8>, status: u16, says: &'static [&'static str]) -> Case {
    Case { name, request, status, says }
}

fn chat(body: &str) -> Vec<u8> {
    post(
        "/v1/chat/completions",
        &format!("authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"),
        body.as_bytes(),
    )
}

fn messages(body: &str) -> Vec<u8> {
    post("/v1/messages", &format!("x-api-key: {KEY}\r\ncontent-type: application/json\r\n"), body.as_bytes())
}

const GOOD: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const OPENAI: &str = "{\"error\":{\"message\":";
const ANTHROPIC: &str = "\"type\":\"error\",\"error\":{\"type\":";

#[test]
fn every_bad_request_is_answered_in_its_dialect_and_booked() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let gateway =
        Gateway::start_with("body_limit = \"4KiB\"\nbody_timeout = \"300ms\"", &one_backend("openai", &fake.url(), ""));
    let with = |headers: &str| post("/v1/chat/completions", headers, GOOD.as_bytes());
    let encoded = |encoding: &str, body: &[u8]| {
        post(
            "/v1/chat/completions",
            &format!(
                "authorization: Bearer {KEY}\r\ncontent-type: application/json\r\ncontent-encoding: {encoding}\r\n"
            ),
            body,
        )
    };
    let deep = format!(r#"{{"model":"m","messages":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    let cases = [
        case("no key", with("content-type: application/json\r\n"), 401, &[OPENAI, "invalid_api_key"]),
        case("no key, messages", post("/v1/messages", "", b"{}"), 401, &[ANTHROPIC, "authentication_error", "request_id"]),
        case("unknown key", with("authorization: Bearer nobody\r\n"), 401, &["Incorrect API key"]),
        case("two keys", with(&format!("authorization: Bearer {KEY}\r\nx-api-key: other\r\n")), 400, &["different keys"]),
        case("contradicting tenant", with(&format!("authorization: Bearer {KEY}\r\nopenai-organization: globex\r\n")), 403, &["another organization"]),
        case("tenant twice", with(&format!("authorization: Bearer {KEY}\r\nopenai-project: web\r\nopenai-project: web\r\n")), 400, &["more than once"]),
        case("organization key without project", with("authorization: Bearer dforg_test\r\n"), 400, &["OpenAI-Project"]),
        case("invalid JSON", chat("{\"model\":\"m\",\n x}"), 400, &[OPENAI, "line 2 column 2"]),
        case("invalid JSON, messages", messages("{\"model\" \"m\"}"), 422, &[ANTHROPIC, "\"detail\":[", "json_invalid", "column 10"]),
        case("empty, messages", messages(""), 422, &["\"loc\":[\"body\",\"model\"]", "\"loc\":[\"body\",\"messages\"]", "\"type\":\"missing\""]),
        case("empty, chat", chat(""), 400, &[OPENAI, "model", "messages"]),
        case("wrong types, all at once", messages(r#"{"model":7,"messages":"x","max_tokens":"y","temperature":3}"#), 422, &["\"model\"", "\"messages\"", "\"max_tokens\"", "\"temperature\""]),
        case("duplicate key", chat(r#"{"model":"m","messages":[],"model":"other"}"#), 400, &["`model` stands twice"]),
        case("an array", chat("[]"), 400, &["must be a JSON object"]),
        case("too deep", chat(&deep), 400, &["nested more than 512"]),
        case("NUL", chat("{\"model\":\"m\0\",\"messages\":[]}"), 400, &["control character"]),
        case("invalid UTF-8", post("/v1/chat/completions", &format!("authorization: Bearer {KEY}\r\n"), b"{\"model\":\"\xff\"}"), 400, &["invalid UTF-8"]),
        case("declared too large", chat(&"x".repeat(5000)), 413, &["4096 bytes"]),
        case("undeclared too large", format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ntransfer-encoding: chunked\r\n\r\n1400\r\n{}\r\n0\r\n\r\n", "x".repeat(0x1400)).into_bytes(), 413, &["request_too_large"]),
        case("bomb", encoded("gzip", &gzip(&vec![b' '; 1 << 20])), 413, &["4096 bytes"]),
        case("not what it says", encoded("zstd", b"plain"), 400, &["Content-Encoding"]),
        case("chunks that are none", format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n").into_bytes(), 400, &["its Transfer-Encoding"]),
        case("unknown encoding", encoded("lzma", b"x"), 415, &["gzip, zstd or br"]),
        case("a form", post("/v1/chat/completions", &format!("authorization: Bearer {KEY}\r\ncontent-type: application/x-www-form-urlencoded\r\n"), b"a=b"), 415, &["application/json"]),
        case("never sends", format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 10\r\n\r\nx").into_bytes(), 408, &["did not arrive in time"]),
        case("unknown model", chat(r#"{"model":"nope","messages":[{"role":"user","content":"x"}]}"#), 404, &["model_not_found", "`nope`"]),
        case("unknown model, messages", messages(r#"{"model":"nope","messages":[{"role":"user","content":"x"}]}"#), 404, &["not_found_error"]),
        case("a model of others", post("/v1/chat/completions", "x-api-key: dfproj_small\r\n", GOOD.replace("\"m\"", "\"served\"").as_bytes()), 404, &["model_not_found"]),
        case("unknown path", post("/v1/nothing", "", b"{}"), 404, &[OPENAI, "/v1/nothing"]),
        case("unknown path, messages", post("/v1/messages/batches", "", b"{}"), 404, &[ANTHROPIC, "not_found_error"]),
        case("wrong method", b"GET /v1/chat/completions HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(), 405, &["takes POST"]),
        case("a WebSocket", b"GET /v1/responses HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n".to_vec(), 426, &[OPENAI, "no WebSockets"]),
    ];
    let count = cases.len();
    for Case { name, request, status, says } in cases {
        let answer = gateway.raw(&request);
        assert_eq!(answer.status, status, "{name}: {answer:?}");
        for piece in says {
            assert!(answer.body.contains(piece), "{name}: {piece} in {}", answer.body);
        }
        answer.json();
        assert!(answer.header("x-request-id").is_some(), "{name}");
    }
    let records = gateway.records();
    assert_eq!(records.len(), count);
    assert!(records.iter().all(|record| record.outcome == Outcome::Refused && record.attempts == 0), "{records:#?}");
    assert_eq!(fake.seen().len(), 0, "nothing of it reached the backend");
    let metrics = gateway.operator("/metrics").body;
    assert!(metrics.contains("error_type=\"caller_unauthenticated\",model=\"unknown\""), "{metrics}");
    assert!(!metrics.contains("nope"), "no caller's string is a label");
}

#[test]
fn who_is_refused_while_sending_can_send_on_and_read_why() {
    let gateway = Gateway::start_with("body_limit = \"4KiB\"", &one_backend("openai", "http://127.0.0.1:9", ""));
    // More than the buffers of both sides hold.
    let long = vec![b' '; 16 << 20];
    for (path, key, status, says) in [
        ("/v1/chat/completions", KEY, 413, "4096 bytes"),
        ("/v1/messages", "nobody", 401, "Incorrect API key"),
        ("/v1/nothing", KEY, 404, "/v1/nothing"),
    ] {
        let mut client = gateway.open();
        let sent = client.write_all(&post(path, &format!("x-api-key: {key}\r\n"), &long));
        assert!(sent.is_ok(), "{path}: {sent:?}");
        let answer = read_answer(&mut client);
        assert!(answer.status == status && answer.body.contains(says), "{path}: {answer:?}");
    }
}

#[test]
fn who_leaves_while_it_sends_a_body_is_gone() {
    let gateway = Gateway::before("openai", "http://127.0.0.1:9", "");
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\n");
    let sent = [
        "content-length: 10\r\n\r\n",
        "content-length: 10\r\n\r\n{",
        "transfer-encoding: chunked\r\n\r\n5\r\n{",
        "transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
    ];
    for sent in sent {
        gateway.open().write_all(format!("{head}{sent}").as_bytes()).unwrap();
    }
    for record in gateway.wait_for_records(sent.len()) {
        assert_eq!((record.outcome, record.status, &*record.project), (Outcome::ClientGone, 499, "web"));
    }
    assert!(gateway.operator("/metrics").body.contains("error_type=\"caller_gone\""));
}

#[test]
fn encoded_bodies_are_read() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let gateway = Gateway::before("openai", &fake.url(), "");
    let mut brotli = Vec::new();
    brotli::CompressorWriter::new(&mut brotli, 4096, 5, 20).write_all(GOOD.as_bytes()).unwrap();
    for (encoding, body) in
        [("gzip", gzip(GOOD.as_bytes())), ("zstd", zstd::encode_all(GOOD.as_bytes(), 1).unwrap()), ("br", brotli)]
    {
        let headers = format!("x-api-key: {KEY}\r\ncontent-encoding: {encoding}\r\n");
        assert_eq!(gateway.raw(&post("/v1/chat/completions", &headers, &body)).status, 200, "{encoding}");
    }
    assert!(fake.seen().iter().all(|seen| seen.body == GOOD.replace("\"m\"", "\"served\"")));
}

#[test]
fn a_full_gateway_says_so() {
    let fake =
        Fake::start(|_| vec![crate::fake::Act::Wait(std::time::Duration::from_secs(8)), crate::fake::Act::Close]);
    let gateway = Gateway::start_with("max_in_flight = 1", &one_backend("openai", &fake.url(), ""));
    let mut held = gateway.open();
    held.write_all(&chat(GOOD)).unwrap();
    while fake.seen().is_empty() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let answer = gateway.post("/v1/messages", GOOD);
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{answer:?}");
    assert!(answer.body.contains("overloaded_error"));
    assert_eq!(gateway.post("/v1/chat/completions", GOOD).status, 503);
}

#[test]
fn a_gateway_that_cannot_keep_its_books_says_so() {
    if !may_have_files_of_its_own() {
        return;
    }
    // A page, which the first few records fill.
    let small = unshared("mkdir t.db.spool && mount -t tmpfs -o size=4k none t.db.spool");
    let process = Process::start(&one_backend("openai", "http://127.0.0.1:9", ""), &[], small);
    let unknown = GOOD.replace("\"m\"", "\"nope\"");
    let answer = (0..100).map(|_| process.post(&unknown)).find(|answer| answer.status != 404).unwrap();
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")), "{answer:?}");
    assert!(answer.body.contains("usage records"), "{answer:?}");
}

#[test]
fn models_are_listed_as_far_as_they_are_the_caller_s() {
    let gateway = Gateway::before("openai", "http://127.0.0.1:9", "");
    let names = |answer: crate::gateway::Answer| {
        answer.json()["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(gateway.get("/v1/models", "")), ["m", "served"]);
    let list = gateway.get("/v1/models", "anthropic-version: 2023-06-01\r\n");
    assert_eq!(
        (list.json()["has_more"].as_bool(), names(list.clone())),
        (Some(false), vec!["m".to_owned(), "served".to_owned()])
    );
    let small = gateway.raw(b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: dfproj_small\r\n\r\n");
    assert_eq!(names(small), ["m"]);
    assert_eq!(gateway.get("/v1/models/m", "").json()["object"], "model");
    assert_eq!(gateway.get("/v1/models/nope", "").status, 404);
    assert_eq!(gateway.records().len(), 5);
}

#[test]
fn of_a_name_that_is_made_up_the_books_keep_what_a_name_can_need() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let sections =
        crate::gateway::one_backend("openai", &fake.url(), "") + "[models.\"*\"]\ntargets = [{ backend = \"b\" }]\n";
    let gateway = Gateway::start(&sections);
    let name = "x".repeat(10_000);
    let answer = gateway.post("/v1/chat/completions", &GOOD.replace("\"m\"", &format!("\"{name}\"")));
    assert_eq!((answer.status, answer.header("x-tidegate-model").map(str::len)), (200, Some(256)), "{answer:?}");
    assert!(fake.seen()[0].body.contains(&name), "the backend is told all of it");
    let record = gateway.record();
    assert_eq!((record.model_requested.len(), record.model.len()), (256, 256));
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_refusal_is_booked_to_whose_key_it_was() {
    let gateway = Gateway::before("openai", "http://127.0.0.1:9", "");
    gateway.raw(&post("/v1/messages", &format!("x-api-key: {KEY}\r\nopenai-project: other\r\n"), b"{}"));
    let record = gateway.record();
    assert_eq!((&*record.organization, &*record.project, &*record.key, record.status), ("acme", "web", "web-1", 403));
}
