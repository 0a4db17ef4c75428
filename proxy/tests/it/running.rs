//! A gateway's life: HTTP/2, drain, the operator's listener, a model file that is none.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, stream_head};
use crate::gateway::{Gateway, KEY, one_backend, post, read_answer, until};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::io::Write;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tidegate::canon::Outcome;

const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

#[test]
fn http2_with_prior_knowledge_on_both_sides() {
    // One gateway is the other's backend, over HTTP/2.
    let fake = Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") {
            crate::fake::stream(&chat_stream("served"), 40)
        } else {
            json(200, "", CHAT)
        }
    });
    let inner = Gateway::before("openai", &fake.url(), "");
    let sections = one_backend("tidegate", &format!("http://{}", inner.api), "http2 = true");
    let outer = Gateway::start(&sections.replace("backend-key", KEY));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let socket = tokio::net::TcpStream::connect(outer.api).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(tidegate::backend::http::LocalExecutor, TokioIo::new(socket))
                .await
                .unwrap();
        tokio::task::spawn_local(connection);
        for body in [STREAM.replace(",\"stream\":true", ""), STREAM.into()] {
            let request = http::Request::post("http://x/v1/chat/completions")
                .header("x-api-key", KEY)
                .body(Full::new(Bytes::from(body)))
                .unwrap();
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), 200);
            let text = response.into_body().collect().await.unwrap().to_bytes();
            assert!(text.ends_with(b"data: [DONE]\n\n") || text.starts_with(b"{\"id\":"), "{text:?}");
        }
    });
    assert_eq!((outer.records().len(), inner.records().len(), fake.seen().len()), (2, 2, 2));
    let ids = |gateway: &Gateway| gateway.records().into_iter().map(|record| record.request_id).collect::<Vec<_>>();
    assert_eq!(ids(&outer), ids(&inner), "the books of both can be joined");
}

#[test]
fn a_stop_lets_streams_finish_and_ends_the_rest_with_an_error() {
    let chunk = chat_stream("served").split_inclusive("\n\n").nth(1).unwrap().to_owned();
    let (go, gone) = mpsc::channel();
    let hold = Act::Hold(Arc::new(Mutex::new(gone)));
    let fake = Fake::start(move |seen| {
        if seen.body.contains("short") {
            let mut acts = vec![stream_head(), Act::Chunk(chunk.clone().into()), hold.clone()];
            acts.push(Act::Chunk(chat_stream("served").into()));
            acts.push(Act::Send(b"0\r\n\r\n".to_vec()));
            return acts;
        }
        vec![stream_head(), Act::Forever(chunk.clone().into())]
    });
    let mut gateway = Gateway::start_with("drain = \"3s\"", &one_backend("openai", &fake.url(), ""));
    let clients: Vec<_> = ["short", "endless"]
        .into_iter()
        .map(|content| {
            let mut client = gateway.open();
            let body = STREAM.replace("\"x\"", &format!("\"{content}\""));
            client.write_all(&post("/v1/chat/completions", &format!("x-api-key: {KEY}\r\n"), body.as_bytes())).unwrap();
            std::thread::spawn(move || read_answer(&mut client))
        })
        .collect();
    while fake.seen().len() < 2 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(gateway.operator("/readyz").status, 200);
    gateway.begin_stop();
    until(|| gateway.operator("/readyz").status != 200, "it is still ready");
    let ready = gateway.operator("/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "stopping\n"));
    assert_eq!(gateway.operator("/livez").status, 200);
    go.send(()).unwrap();
    let answers: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert!(answers[0].body.ends_with("data: [DONE]\n\n"), "{}", answers[0].body);
    let last = answers[1].body.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.contains("the gateway is stopping") || last.contains("The gateway is stopping"), "{last}");
    gateway.finish();
    let outcomes: Vec<_> = gateway.records().iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.contains(&Outcome::Ok) && outcomes.contains(&Outcome::Cut), "{outcomes:?}");
}

#[test]
fn the_metrics_add_up_to_the_books() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let gateway = Gateway::before("openai", &fake.url(), "");
    for _ in 0..3 {
        gateway.post("/v1/chat/completions", r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#);
    }
    let records = gateway.records();
    let booked: u64 = records.iter().map(|record| record.input_tokens.unwrap() + record.output_tokens.unwrap()).sum();
    let metrics = gateway.operator("/metrics").body;
    let counted: f64 = metrics
        .lines()
        .filter(|line| line.starts_with("tidegate_tokens_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!((booked, counted as u64), (42, 42));
    for family in [
        "tidegate_requests_total",
        "tidegate_cost_total",
        "tidegate_overhead_seconds_count",
        "tidegate_in_flight",
        "tidegate_usage_source_total",
        "tidegate_build_info",
        "gen_ai_client_token_usage_sum",
        "gen_ai_server_request_duration_seconds_count",
    ] {
        assert!(metrics.contains(family), "{family}");
    }
    assert!(!metrics.contains(KEY) && !metrics.contains("web-1"), "keys are no labels");
    assert_eq!(gateway.operator("/v1/models").status, 404);
}

#[test]
fn what_served_a_request_and_the_day_say_its_price() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let gateway = Gateway::start(&format!(
        "[backends.b]\nkind = \"openai\"\nurl = \"{}\"\n[models.m]\ntargets = [{{ backend = \"b\" }}]\n\
         price = [{{ from = \"2999-01-01\", currency = \"USD\", input = 5 }}, {{ currency = \"USD\", input = 1 }}, {{ from = \"2020-01-01\", currency = \"USD\", input = 2 }}]\n\
         [models.own]\ntargets = [{{ backend = \"b\", price = {{ currency = \"EUR\", input = 10 }} }}]\nprice = {{ currency = \"USD\", input = 1 }}\n\
         [models.later]\ntargets = [{{ backend = \"b\" }}]\nprice = [{{ from = \"2999-01-01\", currency = \"USD\", input = 5 }}]\n",
        fake.url()
    ));
    for (model, price, currency) in
        [("m", Some(2.0), Some("USD")), ("own", Some(10.0), Some("EUR")), ("later", None, None)]
    {
        let body = format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"x"}}]}}"#);
        assert_eq!(gateway.post("/v1/chat/completions", &body).status, 200);
        let records = gateway.records();
        let record = records.iter().find(|record| record.model_requested == model).unwrap();
        let cost = price.map(|price: f64| price * record.input_tokens.unwrap() as f64 / 1e6);
        assert_eq!(cost.is_none(), record.cost.is_none(), "{record:?}");
        assert!((cost.unwrap_or(0.0) - record.cost.unwrap_or(0.0)).abs() < 1e-12, "{record:?}");
        assert_eq!(record.currency.as_deref(), currency);
    }
}

#[test]
fn requests_that_fail_or_are_given_up_took_time_of_the_gateway_too() {
    let fake = Fake::start(|seen| {
        if seen.body.contains("leaves") {
            return vec![Act::Wait(Duration::from_secs(8)), Act::Close];
        }
        [vec![Act::Wait(Duration::from_millis(300))], json(500, "", "{}")].concat()
    });
    let gateway = Gateway::before("openai", &fake.url(), "");
    let body = |content: &str| STREAM.replace(",\"stream\":true", "").replace("\"x\"", &format!("\"{content}\""));
    assert_eq!(gateway.post("/v1/chat/completions", &body("fails")).status, 502);
    let client = gateway.send("/v1/chat/completions", KEY, &body("leaves"));
    until(|| fake.seen().iter().any(|seen| seen.body.contains("leaves")), "it gets there");
    drop(client);
    for record in gateway.wait_for_records(2) {
        let waited = if record.outcome == Outcome::ClientGone { 0.0 } else { 300.0 };
        assert!(record.attempts > 0 && record.overhead_ms > 0.0, "{record:?}");
        assert!(record.overhead_ms <= record.duration_ms - waited, "waiting is not the gateway's own work: {record:?}");
    }
}

#[test]
fn a_model_file_that_is_none_does_not_take_the_gateway_down() {
    let file = tempfile::NamedTempFile::with_suffix(".gguf").unwrap();
    std::fs::write(&file, b"GGUF and then nothing").unwrap();
    let gateway = Gateway::start(&format!(
        "[backends.here]\nkind = \"local\"\nweights = \"{}\"\n[models.m]\ntargets = [{{ backend = \"here\" }}]\n",
        file.path().display()
    ));
    let answer = loop {
        let answer = gateway.post("/v1/messages", &STREAM.replace(",\"stream\":true", ""));
        if !answer.body.contains("being loaded") {
            break answer;
        }
    };
    assert!(answer.status == 503 && answer.body.contains("The model is not loaded"), "{answer:?}");
}

#[test]
fn readiness_tells_of_local_models_that_failed_to_load() {
    let local = |name: &str| format!("[backends.{name}]\nkind = \"local\"\nweights = \"no-such.gguf\"\n");
    let server = "[backends.b]\nkind = \"openai\"\nurl = \"http://127.0.0.1:9\"\n";
    for (sections, status, says) in [
        (String::new(), 200, "ok\n"),
        (local("here"), 503, "local model here failed to load\n"),
        (local("here") + server, 200, "degraded: local model here failed to load\n"),
        (local("z") + &local("a"), 503, "local model a failed to load, local model z failed to load\n"),
    ] {
        let gateway = Gateway::start(&sections);
        let began = std::time::Instant::now();
        let mut ready = gateway.operator("/readyz");
        while ready.body.contains("being loaded") && began.elapsed() < Duration::from_secs(10) {
            ready = gateway.operator("/readyz");
        }
        assert_eq!((ready.status, ready.body.as_str()), (status, says), "{sections}");
    }
}

#[test]
fn a_stop_does_not_wait_for_whole_replies_for_ever_and_books_them() {
    let fake = Fake::start(|_| vec![Act::Wait(Duration::from_secs(60)), Act::Close]);
    let mut gateway = Gateway::start_with("drain = \"200ms\"", &one_backend("openai", &fake.url(), ""));
    let mut client = gateway.open();
    let body = STREAM.replace(",\"stream\":true", "");
    client.write_all(&post("/v1/chat/completions", &format!("x-api-key: {KEY}\r\n"), body.as_bytes())).unwrap();
    while fake.seen().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let began = std::time::Instant::now();
    gateway.begin_stop();
    let answer = read_answer(&mut client);
    assert!(answer.status == 503 && answer.body.contains("stopping"), "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    gateway.finish();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!(gateway.records().len(), 1);
}

#[test]
fn a_client_that_reads_nothing_is_let_go() {
    let chunk = vec![b'x'; 1 << 16];
    let chunk = [b"data: {\"choices\":[{\"delta\":{\"content\":\"".as_slice(), &chunk, b"\"}}]}\n\n"].concat();
    let fake = Fake::start(move |_| vec![stream_head(), Act::Forever(chunk.clone())]);
    let gateway = Gateway::start_with("write_timeout = \"1s\"", &one_backend("openai", &fake.url(), ""));
    let mut client = gateway.open();
    client.write_all(&post("/v1/chat/completions", &format!("x-api-key: {KEY}\r\n"), STREAM.as_bytes())).unwrap();
    let record = gateway.wait_for_records(1).remove(0);
    assert_eq!(record.outcome, Outcome::ClientGone);
    assert!(record.output_tokens.unwrap() > 0, "what passed is charged: {record:?}");
    until(|| !fake.left().is_empty(), "the backend is told");
    drop(client);
}
