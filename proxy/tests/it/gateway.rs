//! A whole gateway in this process, on loopback, with a client that speaks plain HTTP/1.1.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate::canon::Record;
use tidegate::store::{Filter, Store};

/// The key of project `acme/web` in every test configuration.
pub const KEY: &str = "dfproj_test";
/// How long what must happen may take: on two cores that all tests share, anything may take seconds.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Gateway {
    pub api: SocketAddr,
    pub admin: SocketAddr,
    /// What stands before the sections of a test.
    common: String,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Result<(), String>>>,
    folder: TempDir,
}

impl Gateway {
    /// Starts a gateway with these sections; listeners, ledger and the project `acme/web` are added.
    pub fn start(sections: &str) -> Self {
        Self::start_with("", sections)
    }

    /// With more keys for `[server]`.
    pub fn start_with(server: &str, sections: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let common = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nworkers = 2\ndrain_delay = \"0ms\"\n{server}\n[admin]\nlisten = \"127.0.0.1:0\"\n[ledger]\npath = \"{}\"\n\
             [organizations.acme]\nkeys = [{{ id = \"ops\", hash = \"{}\" }}]\n[organizations.acme.projects.web]\nkeys = [{{ id = \"web-1\", hash = \"{}\" }}]\n\
             [organizations.acme.projects.small]\nmodels = [\"m\"]\nkeys = [{{ id = \"small-1\", hash = \"{}\" }}]\n",
            folder.path().join("t.db").display(),
            tidegate::gate::hash_of("dforg_test"),
            tidegate::gate::hash_of(KEY),
            tidegate::gate::hash_of("dfproj_small"),
        );
        let file = folder.path().join("t.toml");
        std::fs::write(&file, format!("{common}{sections}")).unwrap();
        let config = tidegate::app::load(Some(&file), &[]).unwrap_or_else(|problems| {
            panic!("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let until = async {
                let _ = stopped.await;
            };
            let source = tidegate::app::Source { file: Some(file), overrides: Vec::new() };
            let none = tidegate::server::Inherited::default();
            tidegate::app::run(source, config, none, until, |running| ready.send((running.api, running.admin)).unwrap())
        });
        let (api, admin) = started.recv_timeout(PATIENCE).expect("the gateway starts");
        Self { api, admin, common, stop: Some(stop), thread: Some(thread), folder }
    }

    /// The configuration file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("t.toml")
    }

    /// What stands before the sections of a test.
    pub fn common(&self) -> &str {
        &self.common
    }

    /// Puts other sections into the file and says so by SIGHUP. All gateways of this process hear it.
    pub fn rewrite(&self, sections: &str) {
        self.replace(&format!("{}{sections}", self.common));
        let process = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-HUP", &process]).status().unwrap().success());
    }

    /// Puts another text into the file, in one step.
    pub fn replace(&self, text: &str) {
        let new = self.folder.path().join("new.toml");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    /// Waits until a line of the operator's page of metrics begins so, or none does.
    pub fn wait_for_metric(&self, line: &str, there: bool) {
        let began = Instant::now();
        loop {
            let page = self.operator("/metrics").body;
            if page.lines().any(|other| other.starts_with(line)) == there {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "`{line}` there: {there} in {page}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a model of this name is in the list.
    pub fn wait_for_model(&self, name: &str) {
        let began = Instant::now();
        while !self.get("/v1/models", "").body.contains(&format!("\"{name}\"")) {
            assert!(began.elapsed() < PATIENCE, "no model {name}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// One backend of this kind for the models `m` and, under the name `served`, `alias`.
    pub fn before(kind: &str, url: &str, more: &str) -> Self {
        Self::start(&one_backend(kind, url, more))
    }

    pub fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(self.api).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends a request under a key and leaves the connection open.
    pub fn send(&self, path: &str, key: &str, body: &str) -> TcpStream {
        let mut client = self.open();
        client.write_all(&post(path, &format!("x-api-key: {key}\r\n"), body.as_bytes())).unwrap();
        client
    }

    /// Sends raw bytes and reads until the gateway closes or a whole reply is there.
    pub fn raw(&self, request: &[u8]) -> Answer {
        let mut stream = self.open();
        // A gateway that refuses early may close before all is written.
        let _ = stream.write_all(request);
        read_answer(&mut stream)
    }

    /// A POST of JSON as `acme/web`.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.raw(&post(
            path,
            &format!("authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"),
            body.as_bytes(),
        ))
    }

    pub fn get(&self, path: &str, headers: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n{headers}\r\n").as_bytes())
    }

    /// A page of the operator's listener.
    pub fn operator(&self, path: &str) -> Answer {
        self.operate(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
    }

    /// A request to the operator's listener.
    pub fn operate(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        stream.write_all(request).unwrap();
        read_answer(&mut stream)
    }

    /// All records so far, the journal's included.
    pub fn records(&self) -> Vec<Record> {
        let path = self.folder.path().join("t.db");
        let mut store = Store::open(&path).unwrap();
        tidegate::ledger::ingest(&mut store, &path).unwrap();
        store.records(&Filter::default()).unwrap()
    }

    /// All records so far, which are this many.
    pub fn booked(&self, count: usize) -> Vec<Record> {
        let records = self.records();
        assert_eq!(records.len(), count, "{records:#?}");
        records
    }

    /// The only record there is.
    pub fn record(&self) -> Record {
        self.booked(1).remove(0)
    }

    /// Waits for this many records: for requests whose end the client does not see.
    pub fn wait_for_records(&self, count: usize) -> Vec<Record> {
        let began = Instant::now();
        loop {
            let records = self.records();
            if records.len() >= count || began.elapsed() > PATIENCE {
                assert_eq!(records.len(), count, "{records:#?}");
                return records;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Tells it to stop, as SIGTERM does.
    pub fn begin_stop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
    }

    /// Waits until it has stopped.
    pub fn finish(&mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap().unwrap();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The thread is left to itself, and what it writes to with it.
            self.folder.disable_cleanup(true);
            return;
        }
        self.finish();
    }
}

/// An address where nobody listens, and where nobody else will: of a network that is this process's own. On 127.0.0.1 its port
/// could be given to whoever asks for one next, in any of the tests that run beside this one.
pub fn free_address() -> SocketAddr {
    let [_, a, b, c] = std::process::id().to_be_bytes();
    TcpListener::bind(SocketAddr::from(([127, 128 | a, b, c], 0))).unwrap().local_addr().unwrap()
}

/// Waits until something holds.
pub fn until(holds: impl Fn() -> bool, otherwise: &str) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{otherwise}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn one_backend(kind: &str, url: &str, more: &str) -> String {
    format!(
        "[backends.b]\nkind = \"{kind}\"\nurl = \"{url}\"\nkey = \"backend-key\"\n{more}\n[models.m]\ntargets = [{{ backend = \"b\", model = \"served\" }}]\n\
         price = {{ currency = \"USD\", input = 1, output = 10 }}\n[models.served]\ntargets = [{{ backend = \"b\" }}]\n"
    )
}

/// A POST with a declared length.
pub fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n", body.len()).as_bytes(), body]
        .concat()
}

/// A reply as the client sees it.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// The body's end was reached as the protocol says.
    pub whole: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        })
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// Reads one reply.
pub fn read_answer(stream: &mut impl Read) -> Answer {
    let mut text = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        if let Some(answer) = parse(&text).filter(|answer| answer.whole) {
            return answer;
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => {
                return parse(&text).unwrap_or(Answer {
                    status: 0,
                    head: String::new(),
                    body: String::from_utf8_lossy(&text).into_owned(),
                    whole: false,
                });
            }
            Ok(read) => text.extend_from_slice(&buffer[..read]),
        }
    }
}

fn parse(text: &[u8]) -> Option<Answer> {
    let end = text.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&text[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let rest = &text[end + 4..];
    let mut answer = Answer { status, head, body: String::new(), whole: false };
    if let Some(length) = answer.header("content-length").and_then(|length| length.parse::<usize>().ok()) {
        answer.whole = rest.len() >= length;
        answer.body = String::from_utf8_lossy(rest).into_owned();
    } else {
        let (body, whole) = unchunk(rest);
        answer.body = String::from_utf8_lossy(&body).into_owned();
        answer.whole = whole;
    }
    Some(answer)
}

fn unchunk(mut text: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Some(end) = text.windows(2).position(|window| window == b"\r\n") {
        let Ok(length) = usize::from_str_radix(std::str::from_utf8(&text[..end]).unwrap_or("x"), 16) else { break };
        if length == 0 {
            return (body, true);
        }
        let Some(data) = text.get(end + 2..end + 2 + length) else { break };
        body.extend_from_slice(data);
        text = text.get(end + 4 + length..).unwrap_or_default();
    }
    (body, false)
}
