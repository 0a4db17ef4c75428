//! An API of Kubernetes that knows EndpointSlices only, behind TLS, and that fails as it is told.

use crate::certificates::{self, authority};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio_rustls::rustls::{ServerConnection, StreamOwned};

/// Who may ask, where, and about what.
pub const TOKEN: &str = "the-gateways-token";
const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/models/endpointslices?";
const SELECTOR: &str = "labelSelector=kubernetes.io%2Fservice-name%3Dvllm";

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    Well,
    /// Closes every connection.
    Away,
    /// Refuses everything with this status.
    Refuses(u16),
    /// Gives lists, and tells no changes.
    OnlyLists,
}

/// A running one.
pub struct Cluster {
    pub address: SocketAddr,
    /// The authority that vouches for it, as PEM.
    pub authority: String,
    state: Arc<Mutex<State>>,
}

struct State {
    mood: Mood,
    version: u64,
    slices: BTreeMap<String, Value>,
    /// What has happened, with the version that it led to.
    events: Vec<(u64, String)>,
    watches: Vec<Sender<String>>,
    lists: usize,
    /// Questions that were not about the slices of the Service, or by somebody else.
    wrong: Vec<String>,
}

impl Cluster {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let authority = authority();
        let tls = Arc::new(certificates::server("127.0.0.1", &authority));
        let state = Arc::new(Mutex::new(State {
            mood: Mood::Well,
            version: 100,
            slices: BTreeMap::new(),
            events: Vec::new(),
            watches: Vec::new(),
            lists: 0,
            wrong: Vec::new(),
        }));
        let cluster = Self { address, authority: authority.pem(), state: state.clone() };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (state, tls) = (state.clone(), tls.clone());
                std::thread::spawn(move || {
                    let plain = stream.try_clone().unwrap();
                    let mut stream = StreamOwned::new(ServerConnection::new(tls).unwrap(), stream);
                    while let Some(head) = read_head(&mut stream) {
                        if serve(&head, &mut stream, &plain, &state).is_none() {
                            break;
                        }
                    }
                    // Without a word: what a client gets that was cut off.
                    let _ = plain.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        cluster
    }

    /// Puts a slice of the Service `vllm` there, or another one in its place.
    pub fn set(&self, name: &str, port: u16, endpoints: &Value) {
        let mut state = self.state.lock().unwrap();
        let version = state.version + 1;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": name, "namespace": "models", "uid": format!("uid-{name}"), "resourceVersion": version.to_string(),
                "labels": { "kubernetes.io/service-name": "vllm" },
            },
            "ports": [{ "name": "http", "port": port, "protocol": "TCP" }], "endpoints": endpoints,
        });
        let kind = if state.slices.insert(name.to_owned(), slice.clone()).is_some() { "MODIFIED" } else { "ADDED" };
        state.happened(kind, &slice);
    }

    pub fn remove(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        let mut slice = state.slices.remove(name).unwrap();
        slice["metadata"]["resourceVersion"] = json!((state.version + 1).to_string());
        state.happened("DELETED", &slice);
    }

    /// Ends all watches in the middle.
    pub fn cut(&self) {
        self.state.lock().unwrap().watches.clear();
    }

    /// Says to all watches that where they are is too long ago, and forgets what has happened.
    pub fn forget(&self) {
        let mut state = self.state.lock().unwrap();
        let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired",
            "message": "too old resource version", "code": 410 });
        state.events.clear();
        let line = format!("{}\n", json!({ "type": "ERROR", "object": status }));
        state.watches.drain(..).for_each(|watch| watch.send(line.clone()).unwrap());
    }

    pub fn feel(&self, mood: Mood) {
        let mut state = self.state.lock().unwrap();
        state.mood = mood;
        state.watches.clear();
    }

    /// How often a list was given.
    pub fn lists(&self) -> usize {
        self.state.lock().unwrap().lists
    }

    /// How many watch.
    pub fn watches(&self) -> usize {
        // A sender without a receiver fails; a line that says nothing is no event.
        let mut state = self.state.lock().unwrap();
        state.watches.retain(|watch| watch.send("\n".into()).is_ok());
        state.watches.len()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let wrong = std::mem::take(&mut self.state.lock().unwrap().wrong);
            assert!(wrong.is_empty(), "{wrong:#?}");
        }
    }
}

impl State {
    fn happened(&mut self, kind: &str, slice: &Value) {
        self.version += 1;
        let line = format!("{}\n", json!({ "type": kind, "object": slice }));
        self.watches.retain(|watch| watch.send(line.clone()).is_ok());
        self.events.push((self.version, line));
    }
}

/// Answers one question. `None`: the connection ends.
fn serve(head: &str, stream: &mut impl Write, plain: &TcpStream, state: &Mutex<State>) -> Option<()> {
    let mut now = state.lock().unwrap();
    let target = head.split(' ').nth(1)?;
    let authorization = format!("authorization: bearer {TOKEN}");
    if !(target.starts_with(PATH) && target.contains(SELECTOR) && head.to_ascii_lowercase().contains(&authorization)) {
        now.wrong.push(head.to_owned());
        return None;
    }
    let is_watch = target.contains("watch=true");
    match now.mood {
        Mood::Away => return None,
        Mood::Refuses(status) => return answer(stream, status, &refusal(status)),
        Mood::OnlyLists if is_watch => return answer(stream, 403, &refusal(403)),
        Mood::OnlyLists | Mood::Well => {}
    }
    if !is_watch {
        now.lists += 1;
        let list = json!({ "kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
            "metadata": { "resourceVersion": now.version.to_string() }, "items": now.slices.values().collect::<Vec<_>>() });
        drop(now);
        return answer(stream, 200, &list);
    }
    let since: u64 = target.split("resourceVersion=").nth(1)?.split('&').next()?.parse().ok()?;
    let missed: Vec<String> =
        now.events.iter().filter(|(version, _)| *version > since).map(|(_, line)| line.clone()).collect();
    let (sender, happens) = channel();
    now.watches.push(sender);
    drop(now);
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        .ok()?;
    stream.flush().ok()?;
    for line in missed {
        chunk(stream, &line)?;
    }
    tell(stream, plain, &happens)
}

/// Tells what happens until either side has enough.
fn tell(stream: &mut impl Write, plain: &TcpStream, happens: &Receiver<String>) -> Option<()> {
    loop {
        match happens.recv_timeout(Duration::from_millis(20)) {
            Ok(line) if line == "\n" => {}
            Ok(line) => chunk(stream, &line)?,
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {}
        }
        // A client that watches says nothing more: what can be read is its leave.
        plain.set_nonblocking(true).ok()?;
        let left = plain.peek(&mut [0]).is_ok();
        plain.set_nonblocking(false).ok()?;
        if left {
            return None;
        }
    }
}

fn chunk(stream: &mut impl Write, line: &str) -> Option<()> {
    write!(stream, "{:x}\r\n{line}\r\n", line.len()).ok()?;
    stream.flush().ok()
}

fn answer(stream: &mut impl Write, status: u16, body: &Value) -> Option<()> {
    let body = body.to_string();
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .ok()?;
    stream.flush().ok()
}

fn refusal(status: u16) -> Value {
    let message = "endpointslices.discovery.k8s.io is forbidden: User \"system:serviceaccount:models:tidegate\" cannot list \
                   resource \"endpointslices\" in API group \"discovery.k8s.io\" in the namespace \"models\"";
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": "Forbidden", "code": status })
}

fn read_head(stream: &mut impl Read) -> Option<String> {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while !text.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        text.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8(text).ok()
}
