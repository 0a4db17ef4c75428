//! Clients over HTTP/2: those that do not read or ask nothing are let go, those that wait or are slow are not.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, stream_head};
use crate::gateway::{Gateway, KEY, one_backend};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tidegate::backend::http::LocalExecutor;
use tidegate::canon::Outcome;

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

/// Runs a client on a runtime of its own.
fn run<T>(client: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, client)
}

/// The body of a request.
type Sent = UnsyncBoxBody<Bytes, std::io::Error>;

/// A connection whose streams may be this far ahead of what is read of them.
async fn connect(to: SocketAddr, window: u32) -> SendRequest<Sent> {
    let socket = tokio::net::TcpStream::connect(to).await.unwrap();
    let (sender, connection) =
        Builder::new(LocalExecutor).initial_stream_window_size(window).handshake(TokioIo::new(socket)).await.unwrap();
    tokio::task::spawn_local(connection);
    sender
}

fn request(body: Sent) -> http::Request<Sent> {
    http::Request::post("http://x/v1/chat/completions").header("x-api-key", KEY).body(body).unwrap()
}

fn whole(body: &'static str) -> Sent {
    Full::<Bytes>::from(body).map_err(|never| match never {}).boxed_unsync()
}

async fn ask(sender: &mut SendRequest<Sent>, body: &'static str) -> Incoming {
    let response = sender.send_request(request(whole(body))).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body()
}

fn in_flight(gateway: &Gateway) -> bool {
    let metrics = gateway.operator("/metrics").body;
    metrics.lines().any(|line| line.starts_with("tidegate_in_flight{") && !line.ends_with(" 0"))
}

#[test]
fn a_client_that_reads_nothing_of_a_stream_is_let_go() {
    let chunk = chat_stream("served").split_inclusive("\n\n").nth(1).unwrap().to_owned();
    let fake = Fake::start(move |_| vec![stream_head(), Act::Forever(chunk.clone().into())]);
    let gateway = Gateway::start_with("write_timeout = \"1s\"", &one_backend("openai", &fake.url(), ""));
    run(async {
        let mut sender = connect(gateway.api, 1000).await;
        let began = Instant::now();
        let unread = ask(&mut sender, STREAM).await;
        while fake.left().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(10), "the backend was never told");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(began.elapsed() > Duration::from_millis(900), "it had its second: {:?}", began.elapsed());
        let error = unread.collect().await.expect_err("the stream was reset");
        assert!(format!("{error:?}").contains("CANCEL"), "{error:?}");
        assert!(!sender.is_closed(), "the connection's other streams go on");
    });
    let record = gateway.record();
    assert_eq!((record.outcome, record.status), (Outcome::ClientGone, 200));
    assert!(record.output_tokens.unwrap() > 0 && !in_flight(&gateway));
}

#[test]
fn a_client_that_reads_nothing_of_a_whole_reply_holds_no_place() {
    let long = CHAT.replace("Hi there", &"x".repeat(1 << 20));
    let fake = Fake::start(move |_| json(200, "", &long));
    let gateway = Gateway::start_with("write_timeout = \"3s\"", &one_backend("openai", &fake.url(), ""));
    run(async {
        let mut sender = connect(gateway.api, 1000).await;
        let unread = ask(&mut sender, CALL).await;
        assert!(in_flight(&gateway));
        let began = Instant::now();
        while in_flight(&gateway) {
            assert!(began.elapsed() < Duration::from_secs(10), "it holds its place for ever");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(unread.collect().await.is_err(), "the stream was reset");
    });
    assert_eq!(gateway.record().outcome, Outcome::Ok, "its last byte was ready for it");
}

#[test]
fn a_client_that_waits_for_its_backend_or_reads_slowly_is_served() {
    let fake = Fake::start(move |seen| {
        if seen.body.contains("\"stream\":true") {
            let text = chat_stream("served");
            let (first, rest) = text.split_at(text.find("\n\n").unwrap() + 2);
            let wait = Act::Wait(Duration::from_millis(2300));
            let last = Act::Send(b"0\r\n\r\n".to_vec());
            return vec![stream_head(), wait.clone(), Act::Chunk(first.into()), wait, Act::Chunk(rest.into()), last];
        }
        json(200, "", &CHAT.replace("Hi there", &"x".repeat(60_000)))
    });
    let gateway = Gateway::start_with("write_timeout = \"2s\"", &one_backend("openai", &fake.url(), ""));
    run(async {
        let mut sender = connect(gateway.api, 20_000).await;
        let silent = ask(&mut sender, STREAM).await.collect().await.unwrap().to_bytes();
        assert!(silent.ends_with(b"data: [DONE]\n\n"));
        let mut slow = ask(&mut sender, CALL).await;
        let (began, mut read) = (Instant::now(), 0);
        while let Some(frame) = slow.frame().await {
            read += frame.unwrap().into_data().unwrap().len();
            // Longer in all than it may take nothing, also where all comes in as few pieces as it can.
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        assert!(read > 60_000 && began.elapsed() > Duration::from_millis(2200), "{read} in {:?}", began.elapsed());
    });
    assert!(gateway.booked(2).iter().all(|record| record.outcome == Outcome::Ok));
}

#[test]
fn a_client_that_asks_nothing_is_told_to_go_but_not_while_it_waits() {
    let fake = Fake::start(|_| [vec![Act::Wait(Duration::from_millis(1500))], json(200, "", CHAT)].concat());
    let gateway = Gateway::start_with("idle_timeout = \"1s\"", &one_backend("openai", &fake.url(), ""));
    run(async {
        let began = Instant::now();
        let mut sender = connect(gateway.api, 20_000).await;
        let body = ask(&mut sender, CALL).await.collect().await.unwrap().to_bytes();
        assert!(!body.is_empty() && !sender.is_closed());
        while !sender.is_closed() {
            assert!(began.elapsed() < Duration::from_secs(20), "it stays for ever");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(began.elapsed() > Duration::from_millis(2400), "it had its second: {:?}", began.elapsed());
    });
    assert_eq!(gateway.record().outcome, Outcome::Ok);
}

#[test]
fn a_client_that_does_not_hear_that_it_should_go_is_let_go() {
    let settings = "idle_timeout = \"1s\"\nheader_timeout = \"1s\"";
    let gateway = Gateway::start_with(settings, &one_backend("openai", "http://127.0.0.1:9", ""));
    let began = Instant::now();
    let mut client = gateway.open();
    // How HTTP/2 begins, and settings without any. It answers nothing.
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut said = Vec::new();
    client.read_to_end(&mut said).unwrap();
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1500) && took < Duration::from_secs(10), "{took:?}");
    assert!(!said.is_empty());
}

#[test]
fn a_head_comes_without_its_body() {
    let gateway = Gateway::start(&one_backend("openai", "http://127.0.0.1:9", ""));
    run(async {
        let mut sender = connect(gateway.api, 20_000).await;
        for (path, status) in [("/", 200), ("/v1/models", 200), ("/v1/models/nope", 404), ("/v1/messages", 405)] {
            let request = http::Request::head(format!("http://x{path}")).header("x-api-key", KEY);
            let response = sender.send_request(request.body(whole("")).unwrap()).await.unwrap();
            let length = response.headers()["content-length"].to_str().unwrap().parse::<usize>().unwrap();
            assert!(response.status() == status && length > 0, "{path}: {response:?}");
            let body = response.into_body().collect().await;
            assert!(body.is_ok_and(|body| body.to_bytes().is_empty()), "{path}");
        }
    });
}

#[test]
fn a_client_that_resets_a_stream_while_it_sends_is_gone() {
    let gateway = Gateway::start(&one_backend("openai", "http://127.0.0.1:9", ""));
    run(async {
        let mut sender = connect(gateway.api, 1000).await;
        let begun = stream::once(async { Ok::<_, std::io::Error>(Frame::data(Bytes::from_static(b"{"))) });
        let given_up = stream::once(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Err(std::io::Error::other("nothing comes after it"))
        });
        let body = StreamBody::new(begun.chain(given_up)).boxed_unsync();
        let answer = tokio::time::timeout(Duration::from_secs(1), sender.send_request(request(body))).await;
        assert!(!matches!(answer, Ok(Ok(_))), "a stream that is reset has no answer");
        let began = Instant::now();
        while gateway.records().is_empty() {
            assert!(began.elapsed() < Duration::from_secs(10), "it is in no book");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let record = gateway.record();
    assert_eq!((record.outcome, record.status), (Outcome::ClientGone, 499));
}
