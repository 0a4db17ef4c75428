//! Backends behind TLS and behind HTTP/2: connections that the scripted fake cannot speak.

use crate::certificates::{self, Authority, authority};
use crate::fake::{CHAT, chat_stream};
use crate::gateway::{Gateway, one_backend};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tempfile::{NamedTempFile, TempPath};
use tidegate::backend::http::LocalExecutor;
use tidegate::canon::Outcome;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

const CALL: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}]}"#;
const STREAM: &str = r#"{"model":"m","messages":[{"role":"user","content":"x"}],"stream":true}"#;

/// What was seen of a request: the protocol it came by, and its address as HTTP/2 says it.
type Seen = (Version, Option<String>);

/// A PEM file of these authorities.
fn bundle(authorities: &[&Authority]) -> TempPath {
    let file = NamedTempFile::with_suffix(".pem").unwrap();
    let text: String = authorities.iter().map(|authority| authority.pem()).collect();
    std::fs::write(&file, format!("An authority of our own\n{text}")).unwrap();
    file.into_temp_path()
}

/// A backend that answers every chat request. `by`: who signed its certificate; without one it speaks plainly.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    fn start(by: Option<&Authority>) -> Self {
        Self::named("127.0.0.1", by)
    }

    /// The name is in its certificate.
    fn named(name: &str, by: Option<&Authority>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (tls, told) = (by.map(|by| acceptor(name, by)), seen.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            tokio::task::LocalSet::new().block_on(&runtime, async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (tls, told) = (tls.clone(), told.clone());
                    tokio::task::spawn_local(async move {
                        let Some(tls) = tls else { return serve(stream, true, told).await };
                        // A gateway that does not trust us leaves in the middle.
                        let Ok(stream) = tls.accept(stream).await else { return };
                        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        serve(stream, http2, told).await;
                    });
                }
            });
        });
        Self { address, seen }
    }
}

fn acceptor(name: &str, by: &Authority) -> TlsAcceptor {
    let mut config = certificates::server(name, by);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + 'static, http2: bool, seen: Arc<Mutex<Vec<Seen>>>) {
    let service = hyper::service::service_fn(move |request| answer(request, seen.clone()));
    let io = TokioIo::new(stream);
    // How the gateway ends a connection is not what is tested here.
    if http2 {
        let _ = hyper::server::conn::http2::Builder::new(LocalExecutor).serve_connection(io, service).await;
    } else {
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    }
}

async fn answer(request: Request<Incoming>, seen: Arc<Mutex<Vec<Seen>>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let address = request.uri().authority().map(|_| request.uri().to_string());
    seen.lock().unwrap().push((request.version(), address));
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let streamed = memchr::memmem::find(&body, b"\"stream\":true").is_some();
    let (kind, text) =
        if streamed { ("text/event-stream", chat_stream("served")) } else { ("application/json", CHAT.to_owned()) };
    Ok(Response::builder().header("content-type", kind).body(Full::from(text)).unwrap())
}

#[test]
fn backends_over_tls_and_http2() {
    let (ours, other) = (authority(), authority());
    for (tls, http2, version) in
        [(true, false, Version::HTTP_11), (true, true, Version::HTTP_2), (false, true, Version::HTTP_2)]
    {
        let server = Server::start(tls.then_some(&ours));
        let file = bundle(&[&other, &ours]);
        let trust = if tls { format!("ca = \"{}\"\n", file.display()) } else { String::new() };
        let base = format!("{}://{}", if tls { "https" } else { "http" }, server.address);
        let gateway = Gateway::before("openai", &base, &format!("{trust}http2 = {http2}"));
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let whole = gateway.post(path, CALL);
            assert!(whole.status == 200 && whole.body.contains("Hi there"), "{base} {http2}: {whole:?}");
            let streamed = gateway.post(path, STREAM);
            assert_eq!(streamed.header("content-type"), Some("text/event-stream"), "{base} {http2}");
            assert!(streamed.whole && streamed.body.contains("Hé"), "{base} {http2}: {streamed:?}");
        }
        let address = http2.then(|| format!("{base}/v1/chat/completions"));
        let seen = server.seen.lock().unwrap().clone();
        assert_eq!(seen, vec![(version, address); 4], "{base}");
        assert!(gateway.booked(4).iter().all(|record| record.outcome == Outcome::Ok));
    }
}

#[test]
fn where_a_backend_has_a_name_that_must_be_in_its_certificate() {
    let ours = authority();
    let file = bundle(&[&ours]);
    for (holds, http2, status) in [("localhost", false, 200), ("localhost", true, 200), ("127.0.0.1", false, 502)] {
        let server = Server::named(holds, Some(&ours));
        let more = format!("ca = \"{}\"\nhttp2 = {http2}", file.display());
        let name = format!("https://localhost:{}", server.address.port());
        let gateway = Gateway::start(&one_backend("openai", &name, &more).replace("\nurl =", "\ndns ="));
        let answer = gateway.post("/v1/chat/completions", CALL);
        assert_eq!(answer.status, status, "{holds}: {answer:?}");
        let seen = server.seen.lock().unwrap().first().cloned();
        let address = http2.then(|| format!("{name}/v1/chat/completions"));
        assert_eq!(seen.map(|(_, address)| address), (status == 200).then_some(address), "{holds}");
    }
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_a_backend_out_of_reach() {
    let (ours, other) = (authority(), authority());
    let server = Server::start(Some(&ours));
    let (file, right) = (bundle(&[&other]), bundle(&[&ours]));
    let base = format!("https://{}", server.address);
    // An authority that did not sign it; only the public ones; the right authority, but a name that is not in it.
    for (url, more) in [
        (base.clone(), format!("ca = \"{}\"", file.display())),
        (base.clone(), String::new()),
        (base.replace("127.0.0.1", "localhost"), format!("ca = \"{}\"\nhttp2 = true", right.display())),
    ] {
        // Or the breaker opens, and says 503 with the same words.
        let gateway = Gateway::before("openai", &url, &format!("{more}\nhealth = {{ failures = 9 }}"));
        for (path, shape) in [("/v1/chat/completions", "server_error"), ("/v1/messages", "api_error")] {
            for body in [CALL, STREAM] {
                let answer = gateway.post(path, body);
                assert_eq!((answer.status, answer.json()["error"]["type"].as_str()), (502, Some(shape)), "{answer:?}");
                assert!(answer.body.contains("could not be reached"), "{}", answer.body);
                for secret in ["127.0.0.1", "localhost", &server.address.port().to_string(), "backend-key", ".pem"] {
                    assert!(!answer.head.contains(secret) && !answer.body.contains(secret), "{answer:?}");
                }
            }
        }
        assert!(gateway.booked(4).iter().all(|record| record.outcome == Outcome::BackendError));
    }
    assert!(server.seen.lock().unwrap().is_empty(), "no request goes to whom we do not trust");
}
