//! A backend that does what a script says, byte by byte: what no real server does on demand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// One thing the backend does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Writes these bytes in one go.
    Send(Vec<u8>),
    /// Writes a chunk of a chunked body.
    Chunk(Vec<u8>),
    /// Does nothing for a while.
    Wait(Duration),
    /// Does nothing until it is told to go on, or nobody is there any more who could tell it.
    Hold(Arc<Mutex<mpsc::Receiver<()>>>),
    /// Resets the connection (RST).
    Reset,
    /// Closes it.
    Close,
    /// Goes on sending this chunk until the other side is gone.
    Forever(Vec<u8>),
}

/// A request as the backend saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub head: String,
    pub body: String,
    /// Which connection it came over, counted from 0.
    pub connection: usize,
}

/// A running fake.
pub struct Fake {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// When a connection was found closed by the gateway while something was being sent.
    left: Arc<Mutex<Vec<Instant>>>,
    open: Arc<AtomicUsize>,
}

impl Fake {
    /// Serves each request with the script that `answer` gives for it; the connection stays open unless the script ends it.
    pub fn start(answer: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    /// The same where somebody listens already.
    pub fn serve(listener: TcpListener, answer: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let (seen, left, open, answer) = (Arc::default(), Arc::default(), Arc::default(), Arc::new(answer));
        let fake = Self { address, seen, left, open };
        let (seen, left, open) = (fake.seen.clone(), fake.left.clone(), fake.open.clone());
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let (seen, left, open, answer) = (seen.clone(), left.clone(), open.clone(), answer.clone());
                std::thread::spawn(move || {
                    open.fetch_add(1, Ordering::SeqCst);
                    serve(stream, number, &seen, &left, &*answer);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        fake
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Connections that the gateway holds open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub fn left(&self) -> Vec<Instant> {
        self.left.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    seen: &Mutex<Vec<Seen>>,
    left: &Mutex<Vec<Instant>>,
    answer: &dyn Fn(&Seen) -> Vec<Act>,
) {
    stream.set_nodelay(true).unwrap();
    while let Some((head, body)) = read_request(&mut stream) {
        let request = Seen { head, body, connection };
        seen.lock().unwrap().push(request.clone());
        for act in answer(&request) {
            let written = match act {
                Act::Send(bytes) => stream.write_all(&bytes),
                Act::Chunk(bytes) => stream.write_all(&chunk(&bytes)),
                Act::Wait(time) => {
                    std::thread::sleep(time);
                    Ok(())
                }
                Act::Hold(go) => {
                    let _ = go.lock().unwrap().recv_timeout(Duration::from_secs(20));
                    Ok(())
                }
                Act::Close => return,
                Act::Reset => {
                    // Linger 0 makes closing a reset.
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                    return;
                }
                Act::Forever(bytes) => loop {
                    if let Err(error) = stream.write_all(&chunk(&bytes)) {
                        break Err(error);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                },
            };
            if written.is_err() {
                left.lock().unwrap().push(Instant::now());
                return;
            }
        }
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn read_request(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut text = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        if let Some(end) = text.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
            let length: usize = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .map_or(0, |length| length.parse().unwrap());
            if text.len() >= end + 4 + length {
                return Some((head, String::from_utf8_lossy(&text[end + 4..]).into_owned()));
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
        }
    }
}

/// A whole JSON reply.
pub fn json(status: u16, headers: &str, body: &str) -> Vec<Act> {
    vec![Act::Send(
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )]
}

/// Keys of a backend that is waited for no longer than this between two pieces of a reply. Only for scripts that are silent for longer:
/// on a busy machine any other may pause as well.
pub const IMPATIENT: &str = "timeouts = { idle = \"1s\" }";

/// The head of a stream.
pub fn stream_head() -> Act {
    Act::Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec())
}

/// A whole stream, its bytes cut into pieces of this size.
pub fn stream(text: &str, size: usize) -> Vec<Act> {
    let mut acts = vec![stream_head()];
    acts.extend(text.as_bytes().chunks(size).map(|piece| Act::Chunk(piece.to_vec())));
    acts.push(Act::Send(b"0\r\n\r\n".to_vec()));
    acts
}

/// A whole stream of events, with a pause behind each.
pub fn slowly(text: &str, pause: Duration) -> Vec<Act> {
    let mut acts = vec![stream_head()];
    for event in text.split_inclusive("\n\n") {
        acts.extend([Act::Chunk(event.into()), Act::Wait(pause)]);
    }
    acts.push(Act::Send(b"0\r\n\r\n".to_vec()));
    acts
}

/// The head of a stream of lines.
pub fn lines_head() -> Act {
    Act::Send(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n".to_vec())
}

/// A whole stream of lines, its bytes cut into pieces of this size.
pub fn lines(text: &str, size: usize) -> Vec<Act> {
    let mut acts = vec![lines_head()];
    acts.extend(text.as_bytes().chunks(size).map(|piece| Act::Chunk(piece.to_vec())));
    acts.push(Act::Send(b"0\r\n\r\n".to_vec()));
    acts
}

/// A chat answer of three tokens, whole.
pub const CHAT: &str = r#"{"id":"chatcmpl-b","object":"chat.completion","created":1,"model":"served","choices":[{"index":0,"message":{"role":"assistant","content":"Hi there"},"finish_reason":"stop"}],"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14},"vendor_extra":{"kept":true}}"#;

/// The same as a stream, with the usage chunk that was asked for.
pub fn chat_stream(model: &str) -> String {
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-b\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"{model}\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    [
        chunk(r#"{"role":"assistant","content":""}"#, "null"),
        chunk(r#"{"content":"Hé"}"#, "null"),
        chunk(r#"{"content":" th\u00e8re"}"#, "null"),
        chunk(r#"{"content":"!"}"#, "null"),
        chunk("{}", "\"stop\""),
        usage_chunk(model),
        "data: [DONE]\n\n".into(),
    ]
    .concat()
}

/// The chunk that exists only to carry usage.
pub fn usage_chunk(model: &str) -> String {
    format!(
        "data: {{\"id\":\"chatcmpl-b\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"{model}\",\"choices\":[],\"usage\":{{\"prompt_tokens\":11,\"completion_tokens\":3,\"total_tokens\":14}}}}\n\n"
    )
}

/// An Anthropic stream of two tokens.
pub const MESSAGES_STREAM: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_b\",\"type\":\"message\",\"role\":\"assistant\",\"content\":[],\"model\":\"served\",\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{\"input_tokens\":9,\"cache_read_input_tokens\":4,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"Hé\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"!\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":2}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
