//! Slow clients, silent backends and those who leave: what is held for them, what they hear, and when the backend is told.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, stream_head};
use crate::gateway::{Gateway, KEY, one_backend, read_answer};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidegate::canon::Outcome;

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;
const MESSAGES: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"x"}],"stream":true}"#;

/// A stream of this text whose second event comes in two halves, with silences before and within it.
fn silent(text: &str, silence: Duration) -> Vec<Act> {
    let first = text.find("\n\n").unwrap() + 2;
    let half = first + 20;
    let wait = Act::Wait(silence);
    let piece = |text: &str| Act::Chunk(text.into());
    let mut acts = vec![stream_head(), wait.clone(), piece(&text[..first]), wait.clone(), piece(&text[first..half])];
    acts.extend([wait, piece(&text[half..]), Act::Send(b"0\r\n\r\n".to_vec())]);
    acts
}

#[test]
fn silence_in_a_stream_is_filled_with_signs_of_life_between_its_frames() {
    let silence = Duration::from_secs(1);
    let fake = Fake::start(move |_| silent(&chat_stream("m"), silence));
    let calls = [("/v1/chat/completions", STREAM), ("/v1/messages", MESSAGES), ("/api/chat", CALL)];
    // All at once, since silence takes its time.
    let all = [("keep_alive = \"150ms\"", true), ("keep_alive = \"0s\"", false), ("", false)].map(|(server, signs)| {
        let gateway = Gateway::start_with(server, &one_backend("openai", &fake.url(), ""));
        let clients = calls.map(|(path, body)| gateway.send(path, KEY, body));
        (server, signs, gateway, clients)
    });
    for (server, signs, gateway, mut clients) in all {
        let [chat, messages, ollama] = clients.each_mut().map(|client| read_answer(client).body);
        let without = chat.replace(": keep-alive\n\n", "");
        assert!(without.ends_with("data: [DONE]\n\n") && without.matches("data: ").count() >= 6, "{chat}");
        assert!(without.split_terminator("\n\n").all(|frame| frame.starts_with("data: ")), "{chat}");
        let count = chat.matches(": keep-alive\n\n").count();
        assert!((count > 0) == signs && count <= 100, "{server}: {count} in {chat}");
        assert_eq!(chat.starts_with(": keep-alive\n\n"), signs, "before the first frame, too: {chat}");
        let ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
        assert!(messages.trim_end().ends_with("{\"type\":\"message_stop\"}"), "{messages}");
        assert_eq!(messages.contains(ping), signs, "{messages}");
        assert!(ollama.lines().all(|line| line.starts_with('{')), "nothing but JSON on a line: {ollama}");
        assert!(gateway.booked(3).iter().all(|record| record.outcome == Outcome::Ok));
    }
}

#[test]
fn connections_beyond_the_most_there_may_be_wait_until_one_ends() {
    let gateway = Gateway::start_with("max_connections = 2", &one_backend("openai", "http://127.0.0.1:9", ""));
    let held = [gateway.open(), gateway.open()];
    gateway.wait_for_metric("tidegate_connections 2", true);
    let mut third = gateway.open();
    third.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    assert!(third.read(&mut [0; 16]).is_err(), "nobody has taken it");
    drop(held);
    third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(read_answer(&mut third).status, 200);
    drop(third);
    gateway.wait_for_metric("tidegate_connections 0", true);
}

#[test]
fn a_reply_that_takes_longer_than_it_may_in_all_is_ended() {
    let chunk = chat_stream("served").split_inclusive("\n\n").nth(1).unwrap().to_owned();
    let fake = Fake::start(move |seen| {
        if seen.body.contains("\"stream\":true") {
            return vec![stream_head(), Act::Forever(chunk.clone().into())];
        }
        let head =
            format!("HTTP/1.1 200 X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", CHAT.len());
        vec![Act::Send(head.into_bytes()), Act::Wait(Duration::from_secs(60)), Act::Close]
    });
    let gateway = Gateway::before("openai", &fake.url(), "timeouts = { total = \"1s\" }");
    let began = Instant::now();
    let stream = gateway.post("/v1/chat/completions", STREAM);
    assert!(stream.body.contains("did not finish its reply in the time it has"), "{}", stream.body);
    assert!(stream.status == 200 && !stream.body.contains("[DONE]"), "{stream:?}");
    assert_eq!(gateway.post("/v1/chat/completions", CALL).status, 504);
    assert!((1900..15_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    let outcomes: Vec<_> = gateway.records().iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes, [Outcome::Cut, Outcome::BackendError]);
}

/// A backend that never answers, and says when its connection ended.
fn deaf() -> (String, std::sync::mpsc::Receiver<()>, std::sync::mpsc::Receiver<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let ((asked, was_asked), (ended, has_ended)) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (mut stream, asked, ended) = (stream, asked.clone(), ended.clone());
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer) {
                    let _ = asked.send(());
                }
                let _ = ended.send(Instant::now());
            });
        }
    });
    (url, was_asked, has_ended)
}

#[test]
fn a_backend_is_told_at_once_when_a_client_leaves() {
    let (url, asked, ended) = deaf();
    let plain = Gateway::before("openai", &url, "");
    let soon = Duration::from_millis(100);
    // Bytes that are no TLS are waited for: it is being connected to.
    let connecting = Gateway::before("openai", &url.replace("http:", "https:"), "timeouts = { connect = \"20s\" }");
    for gateway in [&plain, &connecting] {
        for (path, body) in [
            ("/v1/chat/completions", CALL),
            ("/v1/chat/completions", STREAM),
            ("/v1/messages", MESSAGES),
            ("/api/chat", CALL),
        ] {
            let mut delays: Vec<Duration> = Vec::new();
            // Any may be told late by a busy machine, but not each time.
            while delays.last().is_none_or(|delay| *delay > soon) {
                assert!(delays.len() < 6, "{path} {body}: {delays:?}");
                let client = gateway.send(path, KEY, body);
                asked.recv_timeout(Duration::from_secs(20)).unwrap();
                let gone = Instant::now();
                drop(client);
                let told = ended.recv_timeout(Duration::from_secs(20)).expect("the backend is told");
                delays.push(told - gone);
                while asked.try_recv().is_ok() {}
            }
        }
    }
}

/// A backend that writes a stream as fast as it can, and counts the bytes.
fn firehose() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let written = Arc::new(AtomicUsize::new(0));
    let count = written.clone();
    let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(16_000));
    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (chunk, count) = (chunk.clone(), count.clone());
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
                let mut more = stream.write_all(head.as_bytes());
                while more.is_ok() {
                    more = stream.write_all(chunk.as_bytes());
                    count.fetch_add(chunk.len(), Ordering::Relaxed);
                }
            });
        }
    });
    (url, written)
}

/// What has been written when no more is.
fn stalled(written: &AtomicUsize) -> usize {
    let began = Instant::now();
    loop {
        let before = written.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(500));
        if before > 0 && written.load(Ordering::Relaxed) == before {
            return before;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "the backend is read for ever: {before}");
    }
}

/// What the kernel holds in its own buffers between the three of them, at most.
const KERNEL: usize = 24 << 20;

#[test]
fn a_client_that_does_not_read_makes_the_backend_wait() {
    let (url, written) = firehose();
    let gateway = Gateway::before("openai", &url, "");
    let before = resident();
    let client = gateway.send("/v1/chat/completions", KEY, STREAM);
    let stopped = stalled(&written);
    assert!(stopped < KERNEL, "{stopped}");
    assert!(resident().saturating_sub(before) < 4 << 20, "{before} bytes before it, {} with it", resident());
    drop(client);
    assert_eq!(gateway.wait_for_records(1)[0].outcome, Outcome::ClientGone);
}

#[test]
fn a_client_that_does_not_read_makes_the_backend_wait_over_http2() {
    let (url, written) = firehose();
    let gateway = Gateway::before("openai", &url, "");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let socket = tokio::net::TcpStream::connect(gateway.api).await.unwrap();
        let executor = tidegate::backend::http::LocalExecutor;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(executor, TokioIo::new(socket)).await.unwrap();
        tokio::task::spawn_local(connection);
        let before = resident();
        let request = http::Request::post("http://x/v1/chat/completions").header("x-api-key", KEY);
        let response = sender.send_request(request.body(Full::new(Bytes::from(STREAM))).unwrap()).await.unwrap();
        let written = written.clone();
        let stopped = tokio::task::spawn_blocking(move || stalled(&written)).await.unwrap();
        assert!(stopped < KERNEL, "{stopped}");
        assert!(resident().saturating_sub(before) < 8 << 20, "{before} bytes before it, {} with it", resident());
        let mut body = response.into_body();
        assert!(body.frame().await.unwrap().is_ok(), "it goes on when the client does");
    });
}

/// A line of /proc/self/status, in bytes.
fn memory(key: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

fn resident() -> usize {
    memory("VmRSS:")
}

#[test]
fn a_client_that_does_not_send_its_head_is_let_go() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let gateway = Gateway::start_with("header_timeout = \"1s\"", &one_backend("openai", &fake.url(), ""));
    let began = Instant::now();
    // Nothing; what may become either HTTP; what may become HTTP/2; half of a head.
    let clients = ["", "P", "PRI * HTTP/2.0\r\n", "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"].map(|said| {
        let mut client = gateway.open();
        client.write_all(said.as_bytes()).unwrap();
        (said, client)
    });
    for (said, mut client) in clients {
        let end = client.read(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(end, Ok(0) | Err(ErrorKind::ConnectionReset)), "{said:?}: {end:?}");
    }
    assert!(began.elapsed() > Duration::from_millis(900), "they had their second: {:?}", began.elapsed());
    // A letter now and then does not help.
    let mut slow = gateway.open();
    slow.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nx: ").unwrap();
    let letters = (0..400).take_while(|_| {
        std::thread::sleep(Duration::from_millis(50));
        slow.write_all(b"x").is_ok()
    });
    assert!(letters.count() < 400, "it is waited for");
    assert_eq!(gateway.post("/v1/chat/completions", CALL).status, 200);
    assert_eq!(gateway.records().len(), 1, "who has not asked has no record");
}

#[test]
fn a_client_that_says_much_and_sends_little_holds_little() {
    let (url, ..) = deaf();
    let gateway = Gateway::before("openai", &url, "");
    let before = memory("VmSize:");
    let mut clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = gateway.open();
            let head = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-api-key: {KEY}\r\ncontent-length: 30000000\r\n\r\n"
            );
            client.write_all(head.as_bytes()).unwrap();
            client
        })
        .collect();
    for piece in [b"{", b" "] {
        std::thread::sleep(Duration::from_millis(300));
        clients.iter_mut().for_each(|client| client.write_all(piece).unwrap());
    }
    std::thread::sleep(Duration::from_millis(300));
    let grown = memory("VmSize:").saturating_sub(before);
    assert!(grown < 300 << 20, "{grown} bytes for 80 that were sent");
    clients[0].set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert_eq!(clients[0].read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "it is still waited for");
}
