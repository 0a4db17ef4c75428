//! A backend that fails in every way a backend can, each request by a fate of its own.
//!
//! It speaks chat and messages, whole and streamed, and says the words it was asked for: the client that asked can tell
//! whether a reply is its own, and whether all of it is there.

use crate::gateway::free_address;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// A reply as it should be.
    Good,
    /// The same, a few bytes at a time.
    Trickle,
    /// The same, after a while.
    Slow,
    /// No answer, and the connection stays.
    Hang,
    /// A reset at any byte of the reply.
    Reset,
    /// A close at any byte of the reply.
    Cut,
    /// A good reply on a connection that is closed right behind it without having said so.
    Early,
    /// An error of this status.
    Status(u16),
    /// Fewer bytes than the declared length.
    TooLong,
    /// More bytes than the declared length.
    TooShort,
    /// A head without end.
    Headers,
    /// Something that is no HTTP.
    Garbage,
    /// 200 with a body that is no reply.
    NoJson,
    /// A stream that ends cleanly before it says why; whole replies are closed without a word.
    Silent,
}

/// A running backend.
pub struct Chaos {
    pub address: SocketAddr,
    open: Arc<AtomicUsize>,
    good: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

impl Chaos {
    /// Serves each request with a fate drawn by weight.
    pub fn start(temper: &[(Fate, u32)]) -> Self {
        Self::run(temper, None)
    }

    /// Is there for as long as it then is not.
    pub fn flapping(temper: &[(Fate, u32)], pace: Duration) -> Self {
        Self::run(temper, Some(pace))
    }

    fn run(temper: &[(Fate, u32)], pace: Option<Duration>) -> Self {
        // One that flaps comes back to the same address.
        let listener = std::net::TcpListener::bind(free_address()).unwrap();
        let address = listener.local_addr().unwrap();
        let (open, good, asked) = <(Arc<_>, Arc<_>, Arc<_>)>::default();
        let chaos = Self { address, open, good, asked };
        let serving = Serving {
            temper: temper.into(),
            open: chaos.open.clone(),
            good: chaos.good.clone(),
            asked: chaos.asked.clone(),
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, serving.forever(listener, address, pace));
        });
        chaos
    }

    /// Connections that the gateway holds open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Requests it had, and how many of them it answered well.
    pub fn served(&self) -> (usize, usize) {
        (self.asked.load(Ordering::SeqCst), self.good.load(Ordering::SeqCst))
    }
}

#[derive(Clone)]
struct Serving {
    temper: Arc<[(Fate, u32)]>,
    open: Arc<AtomicUsize>,
    good: Arc<AtomicUsize>,
    asked: Arc<AtomicUsize>,
}

impl Serving {
    async fn forever(self, listener: std::net::TcpListener, address: SocketAddr, pace: Option<Duration>) {
        listener.set_nonblocking(true).unwrap();
        let mut listener = TcpListener::from_std(listener).unwrap();
        loop {
            let accepting = async {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(self.clone().connection(stream, pace));
                }
            };
            let Some(pace) = pace else { return accepting.await };
            let _ = tokio::time::timeout(pace, accepting).await;
            drop(listener);
            tokio::time::sleep(pace).await;
            listener = TcpListener::bind(address).await.unwrap();
        }
    }

    async fn connection(self, stream: TcpStream, pace: Option<Duration>) {
        self.open.fetch_add(1, Ordering::SeqCst);
        let _ = stream.set_nodelay(true);
        let serving = self.requests(stream);
        // Who is not there takes its connections along, whatever is on them.
        let _ = tokio::time::timeout(pace.unwrap_or(Duration::MAX), serving).await;
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    async fn requests(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut buffer = Vec::new();
        while let Some(asked) = Asked::read(&mut stream, &mut buffer).await? {
            if asked.probe {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
                continue;
            }
            self.asked.fetch_add(1, Ordering::SeqCst);
            let fate = draw(&self.temper);
            if matches!(fate, Fate::Good | Fate::Trickle | Fate::Slow | Fate::Early) {
                self.good.fetch_add(1, Ordering::SeqCst);
            }
            if !meet(fate, &asked, &mut stream).await? {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn draw(temper: &[(Fate, u32)]) -> Fate {
    let total: u32 = temper.iter().map(|(_, weight)| weight).sum();
    let mut left = fastrand::u32(..total);
    for (fate, weight) in temper {
        if left < *weight {
            return *fate;
        }
        left -= weight;
    }
    Fate::Good
}

/// Plays a fate; whether the connection may be used again.
async fn meet(fate: Fate, asked: &Asked, stream: &mut TcpStream) -> std::io::Result<bool> {
    let reply = asked.reply();
    match fate {
        Fate::Good => stream.write_all(&reply).await?,
        Fate::Early => {
            stream.write_all(&reply).await?;
            return Ok(false);
        }
        Fate::Slow => {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(50..250))).await;
            stream.write_all(&reply).await?;
        }
        Fate::Trickle => {
            let mut rest = &reply[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(fastrand::usize(1..400)));
                stream.write_all(now).await?;
                tokio::task::yield_now().await;
                rest = later;
            }
        }
        Fate::Hang => {
            // Until the gateway leaves.
            let _ = stream.read(&mut [0; 1]).await;
            return Ok(false);
        }
        Fate::Reset | Fate::Cut => {
            stream.write_all(&reply[..fastrand::usize(..reply.len())]).await?;
            // So that some of it is read before the end of it comes.
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..3))).await;
            if fate == Fate::Reset {
                socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
            }
            return Ok(false);
        }
        Fate::Status(status) => {
            let body = format!("{{\"error\":{{\"message\":\"fate {status}\",\"type\":\"chaos\"}}}}");
            stream.write_all(&whole(status, "retry-after: 0\r\n", &body)).await?;
        }
        Fate::TooLong => {
            let text = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{}",
                asked.whole()
            );
            stream.write_all(text.as_bytes()).await?;
            return Ok(false);
        }
        Fate::TooShort => {
            let mut text = whole(200, "", &asked.whole());
            text.extend_from_slice(b"{\"and\":\"more\"}\r\n\r\n");
            stream.write_all(&text).await?;
            return Ok(false);
        }
        Fate::Headers => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            while stream.write_all(format!("x-{}: {}\r\n", fastrand::u32(..), "y".repeat(200)).as_bytes()).await.is_ok()
            {
                tokio::task::yield_now().await;
            }
            return Ok(false);
        }
        Fate::Garbage => {
            stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n\0\x01\x02 no HTTP at all\r\n\r\n").await?;
            return Ok(false);
        }
        Fate::NoJson => stream.write_all(&whole(200, "", "<html>It works!</html>")).await?,
        Fate::Silent => {
            if asked.stream {
                let pieces = asked.pieces();
                let said = pieces[..fastrand::usize(1..pieces.len().max(3) - 1)].concat();
                stream.write_all(&streamed(&said)).await?;
            }
            return Ok(false);
        }
    }
    Ok(true)
}

fn whole(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}")
        .into()
}

/// One chunk an event would be kinder; all in one chunk is as legal.
fn streamed(text: &str) -> Vec<u8> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut out = head.as_bytes().to_vec();
    for event in text.split_inclusive("\n\n") {
        out.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

/// A request, as far as it matters.
struct Asked {
    probe: bool,
    messages: bool,
    stream: bool,
    /// What is to be said: see [`super::client::text`].
    text: String,
    words: usize,
}

impl Asked {
    async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Self>> {
        loop {
            if let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                let all = end + 4 + length.unwrap_or(0);
                if buffer.len() >= all {
                    let body = String::from_utf8_lossy(&buffer[end + 4..all]).into_owned();
                    buffer.drain(..all);
                    return Ok(Some(Self::of(&head, &body)));
                }
            }
            if stream.read_buf(buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn of(head: &str, body: &str) -> Self {
        let order = body.find("say<").and_then(|at| body[at + 4..].split('>').next()).unwrap_or_default();
        let words = order.rsplit('-').next().and_then(|words| words.parse().ok()).unwrap_or(0);
        Self {
            probe: head.starts_with("get "),
            messages: head.starts_with("post /v1/messages"),
            stream: body.contains("\"stream\":true"),
            text: super::client::text(order, words),
            words,
        }
    }

    fn reply(&self) -> Vec<u8> {
        if self.stream { streamed(&self.pieces().concat()) } else { whole(200, "", &self.whole()) }
    }

    /// Input and output tokens: what the books must say.
    fn usage(&self) -> (usize, usize) {
        (11, self.words + 1)
    }

    fn whole(&self) -> String {
        let ((input, output), text) = (self.usage(), &self.text);
        if self.messages {
            format!(
                r#"{{"id":"msg_c","type":"message","role":"assistant","model":"m","content":[{{"type":"text","text":"{text}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":{input},"output_tokens":{output}}}}}"#
            )
        } else {
            format!(
                r#"{{"id":"chatcmpl-c","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}}}}}"#,
                input + output
            )
        }
    }

    /// The events of a stream.
    fn pieces(&self) -> Vec<String> {
        let (input, output) = self.usage();
        let words = self.text.split_inclusive(' ');
        if self.messages {
            let event = |name: &str, rest: &str| format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n");
            let mut all = vec![
                event(
                    "message_start",
                    &format!(
                        r#","message":{{"id":"msg_c","type":"message","role":"assistant","content":[],"model":"m","stop_reason":null,"stop_sequence":null,"usage":{{"input_tokens":{input},"output_tokens":1}}}}"#
                    ),
                ),
                event("content_block_start", r#","index":0,"content_block":{"type":"text","text":""}"#),
            ];
            all.extend(words.map(|word| {
                event("content_block_delta", &format!(r#","index":0,"delta":{{"type":"text_delta","text":"{word}"}}"#))
            }));
            all.push(event("content_block_stop", r#","index":0"#));
            all.push(event(
                "message_delta",
                &format!(
                    r#","delta":{{"stop_reason":"end_turn","stop_sequence":null}},"usage":{{"output_tokens":{output}}}"#
                ),
            ));
            all.push(event("message_stop", ""));
            return all;
        }
        let chunk = |choices: &str, rest: &str| {
            format!(
                "data: {{\"id\":\"chatcmpl-c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{choices}]{rest}}}\n\n"
            )
        };
        let mut all: Vec<String> = words
            .map(|word| chunk(&format!(r#"{{"index":0,"delta":{{"content":"{word}"}},"finish_reason":null}}"#), ""))
            .collect();
        all.push(chunk(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#, ""));
        all.push(chunk(
            "",
            &format!(
                r#","usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}}}"#,
                input + output
            ),
        ));
        all.push("data: [DONE]\n\n".into());
        all
    }
}
