//! Clients over TLS: HTTP/1.1 and HTTP/2, with and without certificates of their own, and what goes wrong.

use crate::certificates::{Authority, authority, pair};
use crate::fake::{CHAT, Fake, chat_stream, json, stream};
use crate::gateway::{Answer, Gateway, KEY, one_backend, post, read_answer, until};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tidegate::backend::http::LocalExecutor;
use tidegate::canon::Outcome;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, crypto::ring,
};

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;
const FAILURES: &str = "tidegate_tls_handshake_failures_total{listener=\"api\",reason=";

/// This machine, in certificates.
const HERE: &str = "127.0.0.1";

type Connection = StreamOwned<ClientConnection, TcpStream>;

/// The files of a listener.
struct Files(TempDir);

impl Files {
    fn new(by: &Authority) -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write(files.0.path(), by);
        files
    }

    fn write(&self, folder: &Path, by: &Authority) {
        let (certificate, key) = pair(HERE, by);
        std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
        std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    }

    /// The section, as one line.
    fn section(&self, more: &str) -> String {
        let name = |name| self.0.path().join(name).display().to_string();
        format!("tls = {{ cert = \"{}\", key = \"{}\"{more} }}", name("tls.crt"), name("tls.key"))
    }
}

/// How a client sets up TLS: who it believes, what it offers, and who it is.
fn client(
    believes: &Authority,
    offers: &[&str],
    versions: &[&'static SupportedProtocolVersion],
    is: Option<(rcgen::Certificate, KeyPair)>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem(believes.pem())).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match is {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
            builder.with_client_auth_cert(vec![certificate.der().clone()], key).unwrap()
        }
    };
    config.alpn_protocols = offers.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

trait FromPem {
    fn from_pem(text: String) -> CertificateDer<'static>;
}

impl FromPem for CertificateDer<'_> {
    fn from_pem(text: String) -> CertificateDer<'static> {
        use tokio_rustls::rustls::pki_types::pem::PemObject;
        CertificateDer::from_pem_slice(text.as_bytes()).unwrap()
    }
}

/// The usual client.
fn modern(believes: &Authority) -> Arc<ClientConfig> {
    client(believes, &["http/1.1"], &[&TLS13], None)
}

fn connect(to: SocketAddr, config: &Arc<ClientConfig>) -> Result<Connection, std::io::Error> {
    let mut socket = TcpStream::connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut session = ClientConnection::new(config.clone(), "127.0.0.1".try_into().unwrap()).unwrap();
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}

fn ask(connection: &mut Connection, body: &str) -> Answer {
    let request = post("/v1/chat/completions", &format!("authorization: Bearer {KEY}\r\n"), body.as_bytes());
    let _ = connection.write_all(&request);
    read_answer(connection)
}

fn served(gateway: &Gateway, config: &Arc<ClientConfig>) -> bool {
    connect(gateway.api, config).is_ok_and(|mut connection| ask(&mut connection, CALL).status == 200)
}

fn backend() -> Fake {
    Fake::start(|seen| {
        if seen.body.contains("\"stream\":true") { stream(&chat_stream("served"), 40) } else { json(200, "", CHAT) }
    })
}

fn wait_for_failure(gateway: &Gateway, reason: &str, count: usize) {
    gateway.wait_for_metric(&format!("{FAILURES}\"{reason}\"}} {count}"), true);
}

#[test]
fn http1_and_http2_over_tls_as_the_client_offers() {
    let (ours, other, fake) = (authority(), authority(), backend());
    let files = Files::new(&ours);
    let gateway = Gateway::start_with(&files.section(""), &one_backend("openai", &fake.url(), ""));
    for (offers, version, speaks) in [
        (&["http/1.1"][..], &TLS13, Some("http/1.1")),
        (&["http/1.1"], &TLS12, Some("http/1.1")),
        (&[], &TLS13, None),
        (&["http/1.1", "h2"], &TLS12, Some("h2")),
    ] {
        let mut connection = connect(gateway.api, &client(&ours, offers, &[version], None)).unwrap();
        assert_eq!(connection.conn.alpn_protocol(), speaks.map(str::as_bytes));
        if speaks == Some("h2") {
            continue;
        }
        // Kept alive, whole and streamed.
        for (body, end) in [(CALL, "}"), (STREAM, "data: [DONE]\n\n"), (CALL, "}")] {
            let answer = ask(&mut connection, body);
            assert!(answer.status == 200 && answer.whole && answer.body.ends_with(end), "{answer:?}");
            assert_eq!(answer.header("connection"), None);
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let tls = tokio_rustls::TlsConnector::from(client(&ours, &["h2"], &[&TLS13], None));
        let socket = tokio::net::TcpStream::connect(gateway.api).await.unwrap();
        let stream = tls.connect("127.0.0.1".try_into().unwrap(), socket).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(LocalExecutor, TokioIo::new(stream)).await.unwrap();
        tokio::task::spawn_local(connection);
        let calls = [CALL, STREAM, STREAM].map(|body| {
            let request = http::Request::post("https://127.0.0.1/v1/chat/completions").header("x-api-key", KEY);
            sender.send_request(request.body(Full::new(Bytes::from(body))).unwrap())
        });
        for (call, end) in calls.into_iter().zip(["}", "[DONE]\n\n", "[DONE]\n\n"]) {
            let response = call.await.unwrap();
            assert_eq!(response.status(), 200);
            let text = response.into_body().collect().await.unwrap().to_bytes();
            assert!(text.ends_with(end.as_bytes()), "{text:?}");
        }
    });
    assert_eq!(gateway.records().len(), 12);
    gateway.wait_for_metric("tidegate_certificate_expiry_timestamp_seconds{listener=\"api\"} ", true);
    wait_for_failure(&gateway, "refused", 0);
    assert!(!served(&gateway, &client(&ours, &["spdy/3"], &[&TLS13], None)));
    wait_for_failure(&gateway, "incompatible", 1);
    assert!(!served(&gateway, &modern(&other)), "a client that does not believe us");
    wait_for_failure(&gateway, "refused", 1);
}

#[test]
fn who_speaks_plainly_is_told_and_who_says_nothing_is_let_go() {
    let (ours, fake) = (authority(), backend());
    let files = Files::new(&ours);
    let keys = format!("header_timeout = \"3s\"\nmax_in_flight = 2\n{}", files.section(""));
    let gateway = Gateway::start_with(&keys, &one_backend("openai", &fake.url(), ""));
    let answer = gateway.post("/v1/chat/completions", CALL);
    assert_eq!((answer.status, answer.body.as_str()), (400, "This port speaks TLS: use https://\n"));
    wait_for_failure(&gateway, "not_tls", 1);
    // Two who say nothing fill it, once a worker has come to each: on a busy machine a third may have come before one of them.
    let (mut before, mut began, mut slow) = (0, Instant::now(), [gateway.open(), gateway.open()]);
    std::thread::sleep(Duration::from_millis(200));
    while served(&gateway, &modern(&ours)) {
        before += 1;
        assert!(before < 20, "more than are taken at once");
        (began, slow) = (Instant::now(), [gateway.open(), gateway.open()]);
        std::thread::sleep(Duration::from_millis(200));
    }
    gateway.wait_for_metric(&format!("{FAILURES}\"overloaded\"}} 0"), false);
    // One begins and stops in the middle.
    slow[1].write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    for stream in &mut slow {
        assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
    }
    assert!((2900..20_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
    wait_for_failure(&gateway, "timeout", 2);
    assert!(served(&gateway, &modern(&ours)));
    let mut half = gateway.open();
    half.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    drop(half);
    wait_for_failure(&gateway, "closed", 1);
    // A probe of the port is no failure.
    drop(gateway.open());
    assert!(served(&gateway, &modern(&ours)));
    wait_for_failure(&gateway, "closed", 1);
    assert_eq!(gateway.records().len(), before + 2, "a handshake that fails is no request");
}

#[test]
fn clients_show_a_certificate_where_they_must() {
    let (ours, theirs, other, fake) = (authority(), authority(), authority(), backend());
    let files = Files::new(&ours);
    let ca = files.0.path().join("clients.pem");
    std::fs::write(&ca, theirs.pem()).unwrap();
    let section = files.section(&format!(", client_ca = \"{}\"", ca.display()));
    let gateway = Gateway::start_with(&section, &one_backend("openai", &fake.url(), ""));
    for version in [&TLS13, &TLS12] {
        let with = |by: &Authority| client(&ours, &["http/1.1"], &[version], Some(pair(HERE, by)));
        assert!(served(&gateway, &with(&theirs)));
        assert!(!served(&gateway, &with(&other)));
        assert!(!served(&gateway, &client(&ours, &["http/1.1"], &[version], None)));
    }
    wait_for_failure(&gateway, "no_certificate", 2);
    wait_for_failure(&gateway, "bad_certificate", 2);
    assert_eq!(fake.seen().len(), 2);
}

#[test]
fn certificates_are_exchanged_under_connections_that_go_on() {
    let (first, second, fake) = (authority(), authority(), backend());
    let files = Files::new(&first);
    // As Kubernetes mounts a Secret: files behind a link to a folder, which is exchanged.
    for (folder, by) in [("one", &first), ("two", &second)] {
        std::fs::create_dir(files.0.path().join(folder)).unwrap();
        files.write(&files.0.path().join(folder), by);
    }
    let link = |to: &str| {
        std::os::unix::fs::symlink(to, files.0.path().join("..tmp")).unwrap();
        std::fs::rename(files.0.path().join("..tmp"), files.0.path().join("..data")).unwrap();
    };
    link("one");
    for name in ["tls.crt", "tls.key"] {
        std::fs::remove_file(files.0.path().join(name)).unwrap();
        std::os::unix::fs::symlink(format!("..data/{name}"), files.0.path().join(name)).unwrap();
    }
    let gateway = Gateway::start_with(&files.section(""), &one_backend("openai", &fake.url(), ""));
    let mut kept = connect(gateway.api, &modern(&first)).unwrap();
    assert_eq!(ask(&mut kept, CALL).status, 200);
    let until_served = |by: &Authority| until(|| served(&gateway, &modern(by)), "the new certificate was not taken up");
    link("two");
    until_served(&second);
    assert!(!served(&gateway, &modern(&first)));
    assert_eq!(ask(&mut kept, CALL).status, 200, "a connection goes on with what it began with");
    // Half of a renewal: nothing changes but the metric, until the other half is there.
    let key = files.0.path().join("two/tls.key");
    std::fs::write(files.0.path().join("two/tls.crt"), pair(HERE, &first).0.pem()).unwrap();
    gateway.wait_for_metric("tidegate_config_reload_success 0", true);
    assert!(served(&gateway, &modern(&second)));
    std::fs::write(&key, "no key").unwrap();
    std::thread::sleep(Duration::from_millis(1200));
    assert!(served(&gateway, &modern(&second)));
    files.write(&files.0.path().join("two"), &first);
    until_served(&first);
    gateway.wait_for_metric("tidegate_config_reload_success 1", true);
    assert_eq!(ask(&mut kept, CALL).status, 200);
}

#[test]
fn who_sends_what_tls_cannot_read_for_a_body_is_gone() {
    let (ours, fake) = (authority(), backend());
    let files = Files::new(&ours);
    let gateway = Gateway::start_with(&files.section(""), &one_backend("openai", &fake.url(), ""));
    let mut connection = connect(gateway.api, &modern(&ours)).unwrap();
    let more = format!("x-api-key: {KEY}\r\nexpect: 100-continue\r\ncontent-length: 10");
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n{more}\r\n\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    let mut go_on = [0; 25];
    connection.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    // A record of data that is sealed with no key of this connection's.
    let mut sealed = [0_u8; 37];
    sealed[..5].copy_from_slice(&[23, 3, 3, 0, 32]);
    connection.sock.write_all(&sealed).unwrap();
    let records = gateway.wait_for_records(1);
    assert_eq!((records[0].outcome, records[0].status), (Outcome::ClientGone, 499));
}

#[test]
fn the_operator_s_listener_over_tls() {
    let ours = authority();
    let files = Files::new(&ours);
    let gateway = Gateway::start(&format!(
        "[admin.{}\n",
        files.section("").replacen("tls = {", "tls]\n", 1).replace(", key", "\nkey").replace(" }", "")
    ));
    let mut connection = connect(gateway.admin, &modern(&ours)).unwrap();
    connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let answer = read_answer(&mut connection);
    assert!(answer.body.contains("tidegate_certificate_expiry_timestamp_seconds{listener=\"admin\"} "), "{answer:?}");
    assert_eq!(gateway.operator("/readyz").status, 400);
    assert_eq!(gateway.get("/v1/models", "").status, 200, "the API goes by its own section");
}

#[test]
fn what_is_wrong_with_the_files_is_told_with_its_line() {
    let files = Files::new(&authority());
    files.write(files.0.path(), &authority());
    let key = files.0.path().join("tls.key");
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let file = files.0.path().join("t.toml");
    let section = files.section(", client_ca = \"no.pem\"").replacen("tls = {", "[server.tls]\n", 1);
    let section = section.replace(", ", "\n").replace(" }", "\n");
    std::fs::write(&file, &section).unwrap();
    let told = |text: &str| {
        std::fs::write(&file, text).unwrap();
        tidegate::app::load(Some(&file), &[]).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let found = told(&section);
    assert!(found.len() == 1 && found[0].contains("t.toml:4: server.tls.client_ca: cannot read"), "{found:?}");
    let found = told(&section.replace("client_ca = \"no.pem\"", ""));
    assert!(found.len() == 1 && found[0].contains("t.toml:3: server.tls.key: the key in"), "{found:?}");
    let found = told(&section.replace("key = ", "keys = "));
    assert!(found.iter().any(|line| line.contains("did you mean `key`?")), "{found:?}");
}
