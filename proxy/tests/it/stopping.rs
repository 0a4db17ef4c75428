//! How connections end when a gateway stops: no request that it could have served is lost on one.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, stream_head};
use crate::gateway::{Answer, Gateway, KEY, one_backend, post, read_answer, until};
use crate::process::Process;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use tidegate::backend::http::LocalExecutor;
use tidegate::store::{Filter, Store};

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const HELD: &str = r#"{"model":"m","messages":[{"role":"user","content":"held"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

fn send(client: &mut TcpStream, body: &str) {
    let headers = format!("x-api-key: {KEY}\r\n");
    client.write_all(&post("/v1/chat/completions", &headers, body.as_bytes())).unwrap();
}

fn ask(client: &mut TcpStream) -> Answer {
    send(client, CALL);
    read_answer(client)
}

fn is_closed(client: &mut TcpStream) -> bool {
    client.read(&mut [0]).is_ok_and(|read| read == 0)
}

/// A backend that finishes streams, and begins replies to calls of `HELD`, when it is told to: once for each.
fn backend() -> (Fake, mpsc::Sender<()>) {
    let (go, gone) = mpsc::channel();
    let hold = Act::Hold(Arc::new(Mutex::new(gone)));
    let text = chat_stream("served");
    let (first, rest) = text.split_at(text.find("\n\n").unwrap() + 2);
    let (first, rest) = (Act::Chunk(first.into()), Act::Chunk(rest.into()));
    let fake = Fake::start(move |seen| {
        if seen.body.contains("\"stream\":true") {
            return vec![stream_head(), first.clone(), hold.clone(), rest.clone(), Act::Send(b"0\r\n\r\n".to_vec())];
        }
        let mut acts = json(200, "", CHAT);
        if seen.body.contains("held") {
            acts.insert(0, hold.clone());
        }
        acts
    });
    (fake, go)
}

/// Waits until the stop has come to the workers.
fn told(gateway: &Gateway) {
    until(|| gateway.operator("/readyz").body == "stopping\n", "it does not stop");
}

#[test]
fn kept_connections_are_told_with_their_next_reply() {
    let (fake, go) = backend();
    let mut gateway = Gateway::start(&one_backend("openai", &fake.url(), ""));
    let [mut busy, mut streams, mut idle] = [gateway.open(), gateway.open(), gateway.open()];
    for client in [&mut busy, &mut idle] {
        let answer = ask(client);
        assert_eq!((answer.status, answer.header("connection")), (200, None));
    }
    // Its head goes out before the stop, so it cannot say that the connection is over then.
    send(&mut streams, STREAM);
    let mut head = [0; 4096];
    while !String::from_utf8_lossy(&head).contains("\r\n\r\n") {
        assert!(streams.peek(&mut head).unwrap() > 0, "it ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    // This one's comes after it.
    send(&mut busy, HELD);
    until(|| fake.seen().len() == 4, "the backend has all of them");
    gateway.begin_stop();
    told(&gateway);
    assert!(is_closed(&mut idle));
    // What is sent right at the end of a stream is answered. Sent before it, so that no machine is too slow for that.
    send(&mut streams, CALL);
    (0..2).for_each(|_| go.send(()).unwrap());
    let answer = read_answer(&mut busy);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(is_closed(&mut busy));
    let mut both = String::new();
    streams.read_to_string(&mut both).unwrap();
    let (stream, last) = both.split_at(both.rfind("HTTP/1.1 ").unwrap());
    let answer = read_answer(&mut stream.as_bytes());
    assert!(answer.whole && answer.body.ends_with("data: [DONE]\n\n"), "{both}");
    assert_eq!(answer.header("connection"), None);
    let answer = read_answer(&mut last.as_bytes());
    assert_eq!((answer.status, answer.whole, answer.header("connection")), (200, true, Some("close")));
    let began = Instant::now();
    gateway.finish();
    assert!(began.elapsed() < Duration::from_secs(15), "nobody is waited for: {:?}", began.elapsed());
    assert_eq!(gateway.records().len(), 5);
}

#[test]
fn connections_that_wait_to_be_taken_are_served() {
    let (fake, _go) = backend();
    for keys in ["", "reuse_port = true"] {
        let mut gateway = Gateway::start_with(keys, &one_backend("openai", &fake.url(), ""));
        // All of these and their requests, before the gateway can have taken them all.
        let mut clients: Vec<_> = (0..100).map(|_| gateway.open()).collect();
        for client in &mut clients {
            send(client, CALL);
        }
        gateway.begin_stop();
        for client in &mut clients {
            let answer = read_answer(client);
            assert!(answer.status == 200 && answer.whole, "{answer:?}");
        }
        gateway.finish();
        assert!(TcpStream::connect(gateway.api).is_err());
    }
}

#[test]
fn http2_streams_finish_and_the_client_is_told_to_go() {
    let (fake, go) = backend();
    let mut gateway = Gateway::start(&one_backend("openai", &fake.url(), ""));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let socket = tokio::net::TcpStream::connect(gateway.api).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(LocalExecutor, TokioIo::new(socket)).await.unwrap();
        let connection = tokio::task::spawn_local(connection);
        let request = http::Request::post("http://x/v1/chat/completions").header("x-api-key", KEY);
        let response = sender.send_request(request.body(Full::new(Bytes::from(STREAM))).unwrap()).await.unwrap();
        gateway.begin_stop();
        told(&gateway);
        go.send(()).unwrap();
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(text.ends_with(b"[DONE]\n\n"), "{text:?}");
        connection.await.unwrap().expect("it ends without an error");
        assert!(sender.ready().await.is_err(), "it takes no more requests");
    });
    gateway.finish();
}

#[test]
fn a_second_signal_ends_it_at_once_and_keeps_what_is_written() {
    for second in [false, true] {
        let (fake, go) = backend();
        let command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let mut gateway = Process::start(&one_backend("openai", &fake.url(), ""), &[], command);
        assert_eq!(gateway.post(CALL).status, 200);
        let mut streams = gateway.send(STREAM);
        until(|| fake.seen().len() == 2, "the stream is asked for");
        gateway.signal("-TERM");
        until(|| gateway.page("/readyz").contains("stopping"), "it does not stop");
        if second {
            gateway.signal("-INT");
        } else {
            go.send(()).unwrap();
        }
        assert_eq!(gateway.ended(), Some(if second { 130 } else { 0 }), "{}", gateway.log());
        let answer = read_answer(&mut streams);
        assert_eq!(answer.body.ends_with("data: [DONE]\n\n"), !second, "{answer:?}");
        let path = gateway.folder.path().join("t.db");
        let mut store = Store::open(&path).unwrap();
        tidegate::ledger::ingest(&mut store, &path).unwrap();
        let records = store.records(&Filter::default()).unwrap();
        assert_eq!(records.len(), if second { 1 } else { 2 }, "{records:#?}");
    }
}

/// What takes long before a gateway serves must not keep the signal from it: the first process of a container has no other way to hear.
#[test]
fn a_gateway_that_does_not_serve_yet_stops_when_it_is_told() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[ledger]\npath = \"{}\"\n\
         [plugins.p]\noci = \"{}/acme/pass@sha256:{}\"\n",
        folder.path().join("t.db").display(),
        silent.local_addr().unwrap(),
        "0".repeat(64),
    );
    std::fs::write(folder.path().join("t.toml"), config).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(["serve", "--config", "t.toml"]).current_dir(&folder).env("XDG_CACHE_HOME", folder.path());
    let mut gateway = command.stderr(std::process::Stdio::null()).spawn().unwrap();
    // It waits for what nobody answers.
    let _asked = silent.accept().unwrap();
    assert!(std::process::Command::new("kill").arg(gateway.id().to_string()).status().unwrap().success());
    let began = Instant::now();
    while gateway.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(15) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = gateway.try_wait().unwrap();
    let _ = gateway.kill();
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}
