//! The clients: a fixed number of connections, each asking again when it has its reply, every reply checked.

use crate::mock::MARK;
use crate::process::Child;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use memchr::{memchr_iter, memmem};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// What the client speaks; the backend always speaks chat completions.
#[derive(Clone, Copy, PartialEq)]
pub enum Api {
    Chat,
    Messages,
}

/// A request, and how its reply is known to be right.
#[derive(Clone)]
pub struct Call {
    path: &'static str,
    body: Bytes,
    /// How often the mark is in the reply.
    marks: usize,
    /// What its last bytes contain.
    ending: &'static str,
}

impl Call {
    /// A request of so many bytes for a whole reply.
    pub fn whole(api: Api, bytes: usize) -> Self {
        Self::new(api, bytes, r#""max_tokens":256"#, 1, "}")
    }

    /// A request for a stream.
    pub fn stream(api: Api, chunks: usize, pause_ms: u64) -> Self {
        let fields = match api {
            Api::Chat => {
                format!(
                    r#""max_tokens":{chunks},"seed":{pause_ms},"stream":true,"stream_options":{{"include_usage":true}}"#
                )
            }
            Api::Messages => format!(r#""max_tokens":{chunks},"stream":true"#),
        };
        Self::new(api, 1 << 10, &fields, chunks, if api == Api::Chat { "[DONE]" } else { "message_stop" })
    }

    fn new(api: Api, bytes: usize, fields: &str, marks: usize, ending: &'static str) -> Self {
        let open = format!(r#"{{"model":"mock-model",{fields},"messages":[{{"role":"user","content":""#);
        let close = r#""}]}"#;
        let filler = "How high is the tide today? ".bytes().cycle().take(bytes - open.len() - close.len());
        let body = open.bytes().chain(filler).chain(close.bytes()).collect();
        let path = if api == Api::Chat { "/v1/chat/completions" } else { "/v1/messages" };
        Self { path, body, marks, ending }
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let request = Request::post(self.path).header("host", "localhost").header("content-type", "application/json");
        request.header("authorization", "Bearer dfproj_bench").body(Full::new(self.body.clone())).unwrap()
    }
}

/// Calls on many connections.
pub struct Load {
    pub call: Call,
    pub connections: usize,
    /// The time over which the connections begin.
    pub spread: Duration,
}

/// When to measure.
pub struct Window {
    pub before: Duration,
    pub length: Duration,
}

/// What was done in a window.
pub struct Seen {
    pub requests: u64,
    pub chunks: u64,
    pub cpu: Duration,
    /// At its end.
    pub resident_kib: u64,
    /// Before, in and after it.
    pub errors: Vec<String>,
}

#[derive(Default)]
struct Tally {
    requests: AtomicU64,
    chunks: AtomicU64,
    errors: Mutex<Vec<String>>,
    stop: AtomicBool,
}

async fn open(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (client, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(client)
}

async fn ask(client: &mut SendRequest<Full<Bytes>>, call: &Call, tally: &Tally) -> Result<(), String> {
    client.ready().await.map_err(|error| error.to_string())?;
    let reply = client.send_request(call.request()).await.map_err(|error| error.to_string())?;
    let status = reply.status();
    let mut body = reply.into_body();
    let (mut marks, mut end) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| error.to_string())?.into_data() else { continue };
        let here = memchr_iter(MARK, &data).count();
        tally.chunks.fetch_add(here as u64, Relaxed);
        marks += here;
        end.extend_from_slice(&data[data.len().saturating_sub(64)..]);
        end.drain(..end.len().saturating_sub(64));
    }
    if status != 200 || marks != call.marks || memmem::find(&end, call.ending.as_bytes()).is_none() {
        let end = String::from_utf8_lossy(&end);
        let (wanted, ending) = (call.marks, call.ending);
        return Err(format!(
            "status {status}, {marks} chunks of {wanted}, {ending:?} is not in the end, which is {end:?}"
        ));
    }
    tally.requests.fetch_add(1, Relaxed);
    Ok(())
}

/// One call on a connection of its own.
pub async fn once(address: SocketAddr, call: &Call) -> Result<(), String> {
    ask(&mut open(address).await?, call, &Tally::default()).await
}

/// Asks until it is told to stop, or until something goes wrong: one broken connection does not try for ever.
async fn client(address: SocketAddr, call: Call, late: Duration, tally: Arc<Tally>) {
    tokio::time::sleep(late).await;
    let work = async {
        let mut client = open(address).await?;
        while !tally.stop.load(Relaxed) {
            ask(&mut client, &call, &tally).await?;
        }
        Ok(())
    };
    if let Err(error) = work.await {
        tally.errors.lock().unwrap().push(error);
    }
}

/// Puts the load on `address` and measures the process behind it.
pub async fn run(address: SocketAddr, load: &Load, window: &Window, process: &Child) -> Seen {
    let tally = Arc::new(Tally::default());
    let mut clients = JoinSet::new();
    for number in 0..load.connections {
        let late = load.spread * number as u32 / load.connections as u32;
        clients.spawn(client(address, load.call.clone(), late, tally.clone()));
    }
    let done = || (tally.requests.load(Relaxed), tally.chunks.load(Relaxed), process.cpu());
    tokio::time::sleep(window.before).await;
    let before = done();
    tokio::time::sleep(window.length).await;
    let after = done();
    let resident_kib = process.resident_kib();
    tally.stop.store(true, Relaxed);
    let ended = tokio::time::timeout(Duration::from_secs(10), async { while clients.join_next().await.is_some() {} });
    if ended.await.is_err() {
        tally.errors.lock().unwrap().push(format!("{} connections without an end to their reply", clients.len()));
    }
    let errors = std::mem::take(&mut *tally.errors.lock().unwrap());
    Seen { requests: after.0 - before.0, chunks: after.1 - before.1, cpu: after.2 - before.2, resident_kib, errors }
}
