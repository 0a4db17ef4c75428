//! How connections end when a gateway stops: no request that it could have served is lost on one.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, stream_head};
use crate::gateway::{Answer, Gateway, KEY, one_backend, post, read_answer};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use tidegate::backend::http::LocalExecutor;

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
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

/// Streams take this long.
fn backend(wait: Duration) -> Fake {
    Fake::start(move |seen| {
        if !seen.body.contains("\"stream\":true") {
            return json(200, "", CHAT);
        }
        vec![stream_head(), Act::Wait(wait), Act::Chunk(chat_stream("served").into()), Act::Send(b"0\r\n\r\n".to_vec())]
    })
}

#[test]
fn kept_connections_are_told_with_their_next_reply() {
    let fake = backend(Duration::from_secs(4));
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
    // `idle` has been so for long enough to be closed.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(ask(&mut busy).header("connection"), None);
    gateway.begin_stop();
    // This one is never idle for long enough, and is told as soon as the stop has come to its worker.
    let (began, mut more) = (Instant::now(), 0);
    let answer = loop {
        let answer = ask(&mut busy);
        if answer.status != 200 || answer.header("connection").is_some() {
            break answer;
        }
        more += 1;
        assert!(began.elapsed() < Duration::from_secs(3), "it is not told");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(is_closed(&mut busy));
    let answer = read_answer(&mut streams);
    assert!(answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    assert_eq!(answer.header("connection"), None);
    let answer = ask(&mut streams);
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert!(is_closed(&mut idle));
    let began = Instant::now();
    gateway.finish();
    assert!(began.elapsed() < Duration::from_secs(5), "nobody is waited for: {:?}", began.elapsed());
    assert_eq!(gateway.records().len(), 6 + more);
}

#[test]
fn connections_that_wait_to_be_taken_are_served() {
    let fake = backend(Duration::ZERO);
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
    let fake = backend(Duration::from_millis(400));
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
        let text = response.into_body().collect().await.unwrap().to_bytes();
        assert!(text.ends_with(b"[DONE]\n\n"), "{text:?}");
        connection.await.unwrap().expect("it ends without an error");
        assert!(sender.ready().await.is_err(), "it takes no more requests");
    });
    gateway.finish();
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
    while gateway.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let ended = gateway.try_wait().unwrap();
    let _ = gateway.kill();
    assert_eq!(ended.and_then(|status| status.code()), Some(0));
}
