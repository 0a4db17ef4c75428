//! Addresses that come and go behind a name.

use crate::fake::{Act, CHAT, Fake, chat_stream, json, stream_head};
use crate::gateway::{Answer, Gateway, KEY, free_address, post, read_answer, until};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

/// A backend with this name, and a model on it.
fn named(url: &str, model: &str) -> String {
    format!(
        "[backends.b]\nkind = \"openai\"\ndns = \"{url}\"\nrefresh = \"100ms\"\n[models.m]\nretries = 2\ntargets = [{{ backend = \"b\" }}]\n{model}\n"
    )
}

#[test]
fn a_name_is_resolved_at_the_start_and_said_to_the_backend() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let port = fake.address.port();
    let gateway = Gateway::start(&named(&format!("http://localhost:{port}"), ""));
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("x-tidegate-backend"), Some("b"));
    assert!(fake.seen()[0].head.contains(&format!("host: localhost:{port}")), "{:?}", fake.seen());
    assert_eq!(&*gateway.record().target, "b/127.0.0.1");
    gateway.wait_for_metric("tidegate_discovered_addresses{backend=\"b\"} ", true);
    gateway.wait_for_metric("tidegate_backend_in_flight{backend=\"b\",target=\"b/127.0.0.1\"} 0", true);
    // Neither its connections nor how it stands are touched by a reload that changes how often it is looked up.
    gateway.rewrite(
        &named(&format!("http://localhost:{port}"), "").replace("100ms", "200ms").replace("models.m", "models.m2"),
    );
    gateway.wait_for_model("m2");
    assert_eq!(gateway.post("/v1/chat/completions", &CALL.replace("\"m\"", "\"m2\"")).status, 200);
    // A backend that is gone is told of no more.
    gateway
        .rewrite(&named("http://nothing.invalid:1", "").replace("backends.b", "backends.c").replace("\"b\"", "\"c\""));
    gateway.wait_for_metric("tidegate_discovered_addresses{backend=\"b\"}", false);
}

#[test]
fn a_gateway_starts_with_a_name_that_does_not_resolve_and_says_so() {
    let gateway = Gateway::start(&named("http://nothing.invalid:8000", ""));
    for path in ["/v1/chat/completions", "/v1/embeddings", "/v1/rerank"] {
        let body =
            r#"{"model":"m","input":"x","query":"x","documents":["x"],"messages":[{"role":"user","content":"x"}]}"#;
        let answer = gateway.post(path, body);
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert!(answer.body.contains("`b` has no address at the moment"), "{path}: {answer:?}");
        assert!(!answer.body.contains("nothing.invalid"), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
    }
    gateway.wait_for_metric("tidegate_discovered_addresses{backend=\"b\"} 0", true);
    gateway.wait_for_metric("tidegate_discovery_lookup_failures_total{backend=\"b\"} ", true);
}

#[test]
fn a_fallback_comes_before_a_name_without_addresses() {
    let fake = Fake::start(|_| json(200, "", CHAT));
    let other = format!(
        "fallbacks = [\"other\"]\n[backends.o]\nkind = \"openai\"\nurl = \"{}\"\n[models.other]\ntargets = [{{ backend = \"o\" }}]\n",
        fake.url()
    );
    let gateway = Gateway::start(&named("http://nothing.invalid:8000", &other));
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!((answer.status, answer.header("x-tidegate-attempts")), (200, Some("1")), "{answer:?}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_place() {
    for (backend, says) in [
        (
            "dns = \"http://x:1\"\nurl = \"http://y:1\"",
            "backends.b.dns: either a name in `dns`, or addresses in `url` and `urls`",
        ),
        ("dns = \"http://x\"", "backends.b.dns: `http://x` must say the port"),
        ("dns = \"x:1\"", "backends.b.dns: `x:1` must begin with http:// or https://"),
        ("dns = \"http://x:1/base\"", "backends.b.dns: `http://x:1/base` must end with the port"),
        ("dns = \"http://10.0.0.1:1\"", "backends.b.dns: `http://10.0.0.1:1` names an address already"),
        (
            "url = \"http://x:1\"\nrefresh = \"5s\"\ndiscover = false",
            "backends.b.refresh: `refresh` is for backends with `dns`, or",
        ),
        ("dns = \"http://x:1\"\nrefresh = \"1ms\"", "backends.b.refresh: between 100ms and an hour"),
        ("", "backends.b: a backend needs a `url` (or several `urls`, or a name in `dns`)"),
    ] {
        let file = std::env::temp_dir().join(format!("tidegate-dns-{}.toml", uuid::Uuid::now_v7()));
        std::fs::write(&file, format!("[backends.b]\nkind = \"vllm\"\n{backend}\n")).unwrap();
        let found = tidegate::app::load(Some(&file), &[]).unwrap_err();
        std::fs::remove_file(&file).unwrap();
        let text = found.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        assert!(text.contains(says), "{backend}: {text}");
    }
}

/// A gateway as a process that has a file of hosts of its own, which this host's resolver reads each time.
struct Process {
    folder: PathBuf,
    api: SocketAddr,
    admin: SocketAddr,
    child: Child,
}

impl Process {
    fn start(sections: &str, hosts: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tidegate-hosts-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir_all(&folder).unwrap();
        let (api, admin) = (free_address(), free_address());
        let config = format!(
            "[server]\nlisten = \"{api}\"\nworkers = 2\n[admin]\nlisten = \"{admin}\"\n[ledger]\npath = \"{}\"\n\
             [organizations.acme.projects.web]\nkeys = [{{ id = \"web-1\", hash = \"{}\" }}]\n{sections}",
            folder.join("t.db").display(),
            tidegate::gate::hash_of(KEY),
        );
        std::fs::write(folder.join("t.toml"), config).unwrap();
        std::fs::write(folder.join("hosts"), hosts).unwrap();
        // Only files: what else would answer for the names of a test must not be asked.
        std::fs::write(folder.join("nsswitch.conf"), "hosts: files\n").unwrap();
        let script = "mount --bind hosts /etc/hosts && mount --bind nsswitch.conf /etc/nsswitch.conf && exec \"$0\" serve --config t.toml";
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, env!("CARGO_BIN_EXE_tidegate")]);
        let log = std::fs::File::create(folder.join("log")).unwrap();
        command.current_dir(&folder).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap();
        let process = Self { folder, api, admin, child };
        let began = Instant::now();
        while !process.page("/readyz").contains(" 200 ") {
            assert!(began.elapsed() < Duration::from_secs(20), "it does not get ready: {}", process.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        process
    }

    /// What the name stands for from now on.
    fn hosts(&self, text: &str) {
        // In place: the file is what was mounted.
        std::fs::write(self.folder.join("hosts"), text).unwrap();
    }

    fn send(&self, body: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.api).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all(&post("/v1/chat/completions", &format!("x-api-key: {KEY}\r\n"), body.as_bytes())).unwrap();
        client
    }

    fn call(&self) -> Answer {
        read_answer(&mut self.send(CALL))
    }

    fn page(&self, path: &str) -> String {
        let mut text = String::new();
        if let Ok(mut stream) = TcpStream::connect(self.admin) {
            let _ = write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let _ = stream.read_to_string(&mut text);
        }
        text
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the gateway's words:\n{}", self.log());
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Two backends on one port of two addresses.
fn replicas(first: impl Fn(&crate::fake::Seen) -> Vec<Act> + Send + Sync + 'static) -> (Fake, Fake, u16) {
    let first_at = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = first_at.local_addr().unwrap().port();
    let second = TcpListener::bind(("127.0.0.3", port)).unwrap();
    (Fake::serve(first_at, first), Fake::serve(second, |_| json(200, "", CHAT)), port)
}

/// Whether a process may have files of its own here, which takes a user namespace.
fn may_have_files_of_its_own() -> bool {
    let tried = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "mount", "--bind", "/etc/hosts", "/etc/hosts"])
        .output();
    let may = tried.is_ok_and(|tried| tried.status.success());
    if !may {
        eprintln!("skipped: no user namespaces here, so a process cannot have an /etc/hosts of its own");
    }
    may
}

#[test]
fn addresses_come_and_leave_and_no_request_notices() {
    if !may_have_files_of_its_own() {
        return;
    }
    let (first, second, port) = replicas(|seen| {
        if !seen.body.contains("\"stream\":true") {
            return json(200, "", CHAT);
        }
        let mut acts = vec![stream_head()];
        for event in chat_stream("m").split_inclusive("\n\n") {
            acts.extend([Act::Chunk(event.into()), Act::Wait(Duration::from_millis(300))]);
        }
        acts.push(Act::Send(b"0\r\n\r\n".to_vec()));
        acts
    });
    let gateway =
        Process::start(&named(&format!("http://replicas:{port}"), "policy = \"round_robin\""), "127.0.0.2 replicas\n");
    let calls = |of: &Fake| of.seen().len();
    assert_eq!(gateway.call().status, 200);
    assert_eq!((calls(&first), calls(&second)), (1, 0));
    let mut long = gateway.send(STREAM);
    until(|| calls(&first) == 2, "the stream has begun");
    // It has moved: requests go to where it is now, and the stream goes on where it is.
    gateway.hosts("127.0.0.3 replicas\n");
    until(
        || {
            assert_eq!(gateway.call().status, 200);
            calls(&second) > 0
        },
        "the new address is asked",
    );
    let before = calls(&first);
    (0..20).for_each(|_| assert_eq!(gateway.call().status, 200));
    assert_eq!(calls(&first), before, "the old one is not");
    let answer = read_answer(&mut long);
    assert!(answer.whole && answer.body.ends_with("data: [DONE]\n\n"), "{answer:?}");
    until(|| first.open() == 0, "no connection is kept to an address that left");
    until(
        || {
            let gauges = gateway.page("/metrics");
            gauges.contains("target=\"b/127.0.0.3\"") && !gauges.contains("target=\"b/127.0.0.2\"")
        },
        "only the new one is told of",
    );
    // It does not resolve any more: what is known is kept.
    gateway.hosts("\n");
    until(
        || {
            !gateway.page("/metrics").contains("lookup_failures_total{backend=\"b\"} 0")
                && gateway.page("/metrics").contains("lookup_failures_total{backend=\"b\"}")
        },
        "it fails",
    );
    (0..20).for_each(|_| assert_eq!(gateway.call().status, 200));
    assert!(gateway.page("/metrics").contains("tidegate_discovered_addresses{backend=\"b\"} 1"));
    // Both.
    gateway.hosts("127.0.0.2 replicas\n127.0.0.3 replicas\n");
    until(
        || {
            assert_eq!(gateway.call().status, 200);
            calls(&first) > before
        },
        "the first is back",
    );
    assert_eq!(gateway.log().matches("does not resolve").count(), 1, "said once: {}", gateway.log());
}
