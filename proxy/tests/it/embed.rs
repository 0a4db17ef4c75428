//! Embedding from socket to socket: same protocol, other protocol, faults, books.

use crate::fake::{Act, Fake, Seen, json};
use crate::gateway::{Gateway, KEY, post, until};
use std::time::Duration;
use tidegate::canon::{Outcome, UsageSource};
use tidegate::wire::complaint;

const OPENAI: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5, -2]}],"model":"served","usage":{"prompt_tokens":7,"total_tokens":7},"vendor":{"kept":true}}"#;
const OLLAMA: &str =
    r#"{"model":"served","embeddings":[[0.5,-2]],"total_duration":5,"load_duration":2000000000,"prompt_eval_count":7}"#;
const PROMPT: &str = r#"{"embedding":[0.5,-2]}"#;
const CALL: &str = r#"{"model":"m","input":"a word"}"#;

/// A server that speaks whatever it is asked in.
fn speaks_all() -> Fake {
    Fake::start(|seen| {
        let path = seen.head.split(' ').nth(1).unwrap();
        let reply = match path {
            "/v1/embeddings" => OPENAI,
            "/api/embed" => OLLAMA,
            "/api/embeddings" => PROMPT,
            _ => return json(200, "", "{}"),
        };
        json(200, "", reply)
    })
}

/// What the backend was asked, without the gateway's probes of its health.
fn asked(fake: &Fake) -> Vec<Seen> {
    fake.seen().into_iter().filter(|seen| seen.head.starts_with("post ")).collect()
}

#[test]
fn every_client_before_every_kind() {
    let clients = [
        ("/v1/embeddings", CALL, "embeddings", "openai", OPENAI),
        ("/api/embed", CALL, "api/embed", "ollama", OLLAMA),
        ("/api/embeddings", r#"{"model":"m","prompt":"a word"}"#, "api/embeddings", "ollama", PROMPT),
    ];
    for (kind, more, speaks) in [
        ("openai", "", &["/v1/embeddings"][..]),
        ("vllm", "", &["/v1/embeddings"]),
        ("llamacpp", "", &["/v1/embeddings"]),
        ("ollama", "", &["/api/embed", "/api/embeddings", "/v1/embeddings"]),
        ("ollama", "dialects = [\"ollama\"]\n", &["/api/embed", "/api/embeddings"]),
        ("anthropic", "dialects = [\"anthropic\", \"embeddings\"]\n", &["/v1/embeddings"]),
        ("tidegate", "", &["/v1/embeddings", "/api/embed", "/api/embeddings"]),
    ] {
        for (path, body, endpoint, family, whole) in clients {
            let fake = speaks_all();
            let gateway = Gateway::before(kind, &fake.url(), more);
            let answer = gateway.post(path, body);
            assert_eq!(answer.status, 200, "{kind} {path}: {answer:?}");
            let alike = speaks.contains(&path);
            let seen = &asked(&fake)[0];
            let way = if alike { path } else { speaks[0] };
            assert!(seen.head.starts_with(&format!("post {way} ")), "{kind} {path}: {}", seen.head);
            assert!(seen.head.contains("backend-key"), "{}", seen.head);
            if alike {
                assert_eq!(seen.body, body.replace("\"m\"", "\"served\""));
                assert_eq!(answer.body, whole.replace("\"served\"", "\"m\""), "{kind} {path}");
            }
            let reply = answer.json();
            let vector = match path {
                "/v1/embeddings" => &reply["data"][0]["embedding"],
                "/api/embed" => &reply["embeddings"][0],
                _ => &reply["embedding"],
            };
            assert_eq!(vector[0].as_f64().zip(vector[1].as_f64()), Some((0.5, -2.0)), "{kind} {path}: {reply}");
            assert!(reply.get("model").is_none_or(|model| model == "m"), "{reply}");
            let record = gateway.record();
            assert_eq!((&*record.endpoint, &*record.dialect, record.stream), (endpoint, family, false));
            assert_eq!((record.outcome, record.status, record.attempts), (Outcome::Ok, 200, 1));
            assert_eq!((&*record.model_requested, &*record.model, &*record.target), ("m", "served", "b/0"));
            assert_eq!((record.output_tokens, record.first_token_ms), (Some(0), None));
            // The older of Ollama's two tells no counts.
            let told = !(path == "/api/embeddings" && alike);
            let (tokens, source) = if told { (7, UsageSource::Reported) } else { (2, UsageSource::Estimated) };
            assert_eq!((record.input_tokens, record.usage_source), (Some(tokens), source), "{kind} {path}");
            assert_eq!(record.cost, Some(tokens as f64 / 1e6));
        }
    }
}

#[test]
fn metrics_know_of_it() {
    let fake = speaks_all();
    let gateway = Gateway::before("ollama", &fake.url(), "");
    gateway.post("/api/embed", CALL);
    gateway.wait_for_metric("tidegate_requests_total{endpoint=\"api/embed\"", true);
    let page = gateway.operator("/metrics").body;
    assert!(page.contains("gen_ai_operation_name=\"embeddings\""), "{page}");
    assert!(page.contains("tidegate_backend_load_seconds_sum{backend=\"b\",model=\"m\"} 2"), "{page}");
    assert!(page.contains("kind=\"input\",model=\"m\",organization=\"acme\",project=\"web\"} 7"), "{page}");
}

#[test]
fn what_another_server_cannot_say_is_dropped_or_refused_by_name() {
    let fake = speaks_all();
    let gateway = Gateway::before("ollama", &fake.url(), "dialects = [\"ollama\"]\n");
    let answer =
        gateway.post("/v1/embeddings", r#"{"model":"m","input":"x","encoding_format":"base64","user":"ann","new":1}"#);
    assert_eq!(answer.header("x-tidegate-dropped"), Some("new, user"));
    assert_eq!(answer.json()["data"][0]["embedding"], "AAAAPwAAAMA=");
    assert_eq!(answer.json()["usage"]["total_tokens"], 7);
    assert_eq!(gateway.record().user.as_deref(), Some("ann"));
    let answer = gateway.post("/v1/embeddings", r#"{"model":"m","input":[1,2]}"#);
    assert_eq!((answer.status, &answer.json()["error"]["param"]), (400, &serde_json::json!("input")));
    assert_eq!(asked(&fake).len(), 1);
}

#[test]
fn faults_have_the_shape_of_their_path_and_leave_a_record() {
    let fake = speaks_all();
    let gateway = Gateway::before("openai", &fake.url(), "");
    let form = "content-type: application/x-www-form-urlencoded\r\n";
    let key = format!("authorization: Bearer {KEY}\r\n");
    for (path, headers, body, status, says) in [
        ("/v1/embeddings", key.clone(), "{}", 400, "input: Field required"),
        ("/api/embed", key.clone(), r#"{"model":"m","input":3}"#, 400, "input"),
        ("/api/embeddings", key.clone(), r#"{"prompt":3}"#, 400, "prompt"),
        ("/v1/embeddings", String::new(), CALL, 401, "key"),
        ("/api/embed", String::new(), CALL, 401, "key"),
        ("/v1/embeddings", key.clone(), r#"{"model":"no","input":"x"}"#, 404, "does not exist"),
        ("/api/embed", key.clone(), r#"{"model":"no","input":"x"}"#, 404, "does not exist"),
        (
            "/v1/embeddings",
            "authorization: Bearer dfproj_small\r\n".into(),
            r#"{"model":"served","input":"x"}"#,
            404,
            "does not exist",
        ),
        ("/v1/embeddings", format!("{key}{form}"), CALL, 415, "application/json"),
    ] {
        let answer = gateway.raw(&post(path, &headers, body.as_bytes()));
        let error = &answer.json()["error"];
        let text = if path.starts_with("/v1") { &error["message"] } else { error };
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert!(text.as_str().unwrap().contains(says), "{path} {body}: {answer:?}");
        assert!(answer.header("x-request-id").is_some());
    }
    let records = gateway.records();
    assert_eq!(records.len(), 9);
    assert!(
        records.iter().all(|record| record.outcome == Outcome::Refused && record.usage_source == UsageSource::Missing)
    );
    assert!(asked(&fake).is_empty());
    // Ollama takes JSON under any name.
    assert_eq!(gateway.raw(&post("/api/embed", &format!("{key}{form}"), CALL.as_bytes())).status, 200);
}

#[test]
fn nonsense_from_a_backend_is_502_and_no_secret_gets_out() {
    for reply in [
        "<html>",
        r#"{"data":[]}"#,
        r#"{"data":[{"index":0,"embedding":[null]}]}"#,
        r#"{"error":{"message":"broken for backend-key"}}"#,
    ] {
        let fake = Fake::start(move |_| json(200, "", reply));
        let gateway = Gateway::before("openai", &fake.url(), "");
        let answer = gateway.post("/v1/embeddings", CALL);
        assert_eq!(answer.status, 502, "{reply}: {answer:?}");
        assert!(!answer.body.contains("backend-key"), "{answer:?}");
        let record = gateway.record();
        assert_eq!((record.outcome, record.input_tokens), (Outcome::BackendError, None));
    }
    let fake = Fake::start(|_| vec![Act::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec()), Act::Close]);
    let gateway = Gateway::before("openai", &fake.url(), "");
    assert_eq!(gateway.post("/v1/embeddings", CALL).status, 502);
}

#[test]
fn a_target_that_fails_is_followed_by_one_that_can() {
    let busy = Fake::start(|_| json(503, "", r#"{"error":{"message":"loading"}}"#));
    let good = speaks_all();
    let gateway = Gateway::start(&format!(
        "[backends.busy]\nkind = \"openai\"\nurl = \"{}\"\n[backends.claude]\nkind = \"anthropic\"\nurl = \"http://127.0.0.1:9\"\n\
         [backends.good]\nkind = \"openai\"\nurl = \"{}\"\n[models.m]\nretries = 1\ntargets = [{{ backend = \"claude\" }}, \
         {{ backend = \"busy\", priority = 1 }}, {{ backend = \"good\", priority = 2 }}]\n",
        busy.url(),
        good.url()
    ));
    let answer = gateway.post("/v1/embeddings", CALL);
    // The one that makes no vectors is no try.
    assert_eq!((answer.status, answer.header("x-tidegate-attempts")), (200, Some("2")), "{answer:?}");
    assert_eq!(answer.header("x-tidegate-backend"), Some("good"));
}

#[test]
fn who_does_only_one_of_the_two_says_so() {
    let fake = speaks_all();
    let gateway = Gateway::before("anthropic", &fake.url(), "");
    for path in ["/v1/embeddings", "/api/embed"] {
        let answer = gateway.post(path, CALL);
        assert!(answer.status == 400 && answer.body.contains("makes no embeddings"), "{answer:?}");
    }
    let gateway = Gateway::before("openai", &fake.url(), "dialects = [\"embeddings\"]\n");
    assert_eq!(gateway.post("/v1/embeddings", CALL).status, 200);
    for path in ["/v1/chat/completions", "/v1/messages", "/api/chat"] {
        let answer = gateway.post(path, r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}]}"#);
        assert!(answer.status == 400 && answer.body.contains("only makes embeddings"), "{path}: {answer:?}");
    }
}

#[test]
fn loading_a_model_is_nothing_to_do_but_for_ollama() {
    let fake = Fake::start(|_| json(200, "", r#"{"model":"served","embeddings":[]}"#));
    let gateway = Gateway::before("ollama", &fake.url(), "");
    assert_eq!(gateway.post("/api/embed", r#"{"model":"m"}"#).body, r#"{"model":"m","embeddings":[]}"#);
    assert_eq!(asked(&fake).len(), 1);
    let fake = speaks_all();
    let gateway = Gateway::before("vllm", &fake.url(), "");
    assert_eq!(gateway.post("/api/embed", r#"{"model":"m","input":[]}"#).body, r#"{"model":"m","embeddings":[]}"#);
    assert_eq!(gateway.post("/api/embeddings", r#"{"model":"m","prompt":""}"#).body, r#"{"embedding":[]}"#);
    assert!(asked(&fake).is_empty());
    for record in gateway.booked(2) {
        assert_eq!((record.input_tokens, record.usage_source), (Some(0), UsageSource::Reported));
    }
}

#[test]
fn a_client_that_leaves_frees_the_backend() {
    let fake = Fake::start(|seen| match seen.head.starts_with("post ") {
        true => vec![Act::Wait(Duration::from_secs(3)), Act::Forever(b"x".to_vec())],
        false => json(200, "", "{}"),
    });
    let gateway = Gateway::before("openai", &fake.url(), "");
    let mut stream = gateway.open();
    let key = format!("authorization: Bearer {KEY}\r\n");
    std::io::Write::write_all(&mut stream, &post("/v1/embeddings", &key, CALL.as_bytes())).unwrap();
    until(|| !asked(&fake).is_empty(), "the backend is asked");
    drop(stream);
    let records = gateway.wait_for_records(1);
    assert_eq!((records[0].outcome, records[0].status), (Outcome::ClientGone, 499));
    let began = std::time::Instant::now();
    while fake.left().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// What a real llama.cpp said (`golden/recorded_llamacpp.md`): the same texts as numbers and in base64 are the same vectors.
#[test]
fn recordings_of_a_real_server_are_understood() {
    use tidegate::wire::embed::{EmbedApi, EmbedRequest};
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden/embeddings");
    let recorded = |name: &str| std::fs::read(folder.join(format!("recorded_llamacpp_{name}.json"))).unwrap();
    let read = |name: &str, input: &str, more: &str| {
        let body = format!(r#"{{"model":"smollm2","input":{input}{more}}}"#);
        EmbedRequest::read(EmbedApi::Openai, body.into()).unwrap().reply(EmbedApi::Openai, recorded(name).into())
    };
    let (floats, base64) = (r#"["a","b"]"#, r#","encoding_format":"base64""#);
    let numbers = read("floats", floats, "").unwrap();
    let spelled = read("base64", floats, base64).unwrap();
    // Same spelling: the very bytes.
    assert_eq!((numbers.body.as_ref(), spelled.body.as_ref()), (&*recorded("floats"), &*recorded("base64")));
    // The other spelling: the same numbers.
    let translated: serde_json::Value = serde_json::from_slice(&read("base64", floats, "").unwrap().body).unwrap();
    let plain: serde_json::Value = serde_json::from_slice(&numbers.body).unwrap();
    for at in 0..2 {
        let vector = |reply: &serde_json::Value| {
            let vector = reply["data"][at]["embedding"].as_array().unwrap();
            vector.iter().map(|number| number.as_f64().unwrap() as f32).collect::<Vec<_>>()
        };
        let (one, two) = (vector(&plain), vector(&translated));
        assert_eq!(one.len(), 576);
        assert!(one.iter().zip(&two).all(|(one, two)| (one - two).abs() < 1e-6), "{at}");
    }
    assert!(numbers.usage.input.is_some_and(|tokens| tokens > 2) && numbers.usage == spelled.usage);
    assert_eq!(read("single", "\"a\"", "").unwrap().usage.output, Some(0));
    assert_eq!(read("tokens", "[1,2,3]", "").unwrap().usage.input, Some(3));
    for name in ["error_field", "error_too_long"] {
        let said = complaint(&recorded(name)).unwrap().message;
        assert!(said.len() > 10, "{said}");
        assert!(read(name, "\"a\"", "").is_err());
    }
}
