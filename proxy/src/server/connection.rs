//! One connection: which HTTP it speaks, its time limits, and the way from a path to a room.

use super::Config;
use super::cors::{Origins, Page};
use super::limit::{Connections, Full, InFlight};
use super::linger::Lingering;
use super::pace::{Paced, Streams};
use super::paths::{Path, endpoint, read};
use super::requests::{GRACE, Requests};
use super::timer::OneTimer;
use crate::canon::{Fault, FaultKind};
use crate::cork::Corked;
use crate::relay::{
    Asked, Body, Limits, Rooms, carry, count, embed, fault_response, list_models, list_running, open_tab,
    plain_response, refuse, relay, show_model, tell_of_model,
};
use crate::trust::Handshakes;
use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version, header};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::RefCell;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

/// Bytes held for a client that does not read (and the most a request's head may be).
const BUFFER: usize = 64 << 10;
/// How an HTTP/2 connection with prior knowledge begins (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The version of Ollama's API that is spoken: its clients ask before they use what older ones lack.
const OLLAMA_VERSION: &str = concat!("{\"version\":\"0.12.11\",\"tidegate\":\"", env!("CARGO_PKG_VERSION"), "\"}");
/// For error events and buffers on their way when the gateway stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What every connection is served with.
pub(super) struct Door {
    rooms: Arc<ArcSwap<Rooms>>,
    timeouts: ArcSwap<Timeouts>,
    pub connections: Connections,
    /// Whose pages may ask; nothing where none may.
    origins: ArcSwapOption<Origins>,
    in_flight: Arc<InFlight>,
    tls: Arc<Handshakes>,
    /// The gateway is stopping: clients should go elsewhere.
    leaving: AtomicBool,
}

/// Time limits of a connection, as they were when it was taken.
struct Timeouts {
    header: Duration,
    idle: Duration,
    write: Duration,
}

impl Timeouts {
    fn of(config: &Config) -> Self {
        Self { header: config.header_timeout.0, idle: config.idle_timeout.0, write: config.write_timeout.0 }
    }
}

impl Door {
    pub fn new(
        config: &Config,
        rooms: Arc<ArcSwap<Rooms>>,
        tls: Arc<Handshakes>,
        registry: &prometheus::Registry,
    ) -> Self {
        Self {
            rooms,
            timeouts: ArcSwap::from_pointee(Timeouts::of(config)),
            connections: Connections::new(config.connections(), registry),
            origins: ArcSwapOption::new(origins(config)),
            in_flight: Arc::new(InFlight::new(config.max_in_flight, registry)),
            tls,
            leaving: AtomicBool::new(false),
        }
    }

    /// Goes by these limits from now on; connections keep the time limits they began with.
    pub fn settle(&self, config: &Config) {
        self.timeouts.store(Arc::new(Timeouts::of(config)));
        self.connections.settle(config.connections());
        self.origins.store(origins(config));
        self.in_flight.settle(config.max_in_flight);
    }

    /// Replies of HTTP/1.1 are the last of their connection from now on.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }
}

fn origins(config: &Config) -> Option<Arc<Origins>> {
    Some(&config.cors).filter(|origins| !origins.is_empty()).cloned().map(Arc::new)
}

/// Serves a connection to its end. On `drain` it ends after the requests it has, see [`Requests`].
pub(super) async fn serve(stream: std::net::TcpStream, door: &Arc<Door>, drain: &CancellationToken) {
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let _ = stream.set_nodelay(true);
    let timeouts = door.timeouts.load_full();
    // A client that reads nothing holds a backend, and a place here; the kernel knows how long it has not. Streams of HTTP/2
    // are looked after in `pace`.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(timeouts.write));
    // One that was just taken may have its request on the way.
    let late = async {
        drain.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let Some(papers) = door.tls.papers() else {
        let speaks = tokio::select! {
            speaks = tokio::time::timeout(timeouts.header, speaks_http2(&stream)) => speaks,
            () = late => return,
        };
        let Ok(Ok(http2)) = speaks else { return };
        return converse(Either::Left(stream), http2, door, &timeouts, drain).await;
    };
    let stream = tokio::select! {
        stream = door.tls.take(&papers, stream, timeouts.header) => stream,
        () = late => return,
    };
    let Some(stream) = stream else { return };
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    converse(Either::Right(Box::new(stream)), http2, door, &timeouts, drain).await;
}

/// A connection to a client, plain or TLS. The latter in a box: it is larger, and the other should not take as much.
type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

async fn converse(stream: Stream, http2: bool, door: &Arc<Door>, timeouts: &Timeouts, drain: &CancellationToken) {
    let cut = door.rooms.load().cut.clone();
    let requests = Rc::new(Requests::default());
    let inner = door.clone();
    let service = move |request: Request<Incoming>| {
        let door = inner.clone();
        // Boxed once, here: it is large, and every layer around it would be as large and copy it. Made in its box, too: what
        // a future begins with is a fraction of what it has room for.
        Box::into_pin(Box::write(Box::new_uninit(), async move { Ok::<_, Infallible>(guarded(&door, request).await) }))
    };
    let service = door.in_flight.around(tower::service_fn(service), &requests);
    let service = Bridge(RefCell::new(service));
    let stream = Corked::new(stream);
    if http2 {
        let paced = service_fn(move |request: Request<Incoming>| {
            let only_head = request.method() == Method::HEAD;
            let answer = service.call(request);
            async move {
                let response = answer.await?;
                Ok::<_, Infallible>(if only_head { Paced::head(response) } else { response.map(Paced::new) })
            }
        });
        let mut builder = hyper::server::conn::http2::Builder::new(Streams { patience: timeouts.write });
        builder
            .timer(TokioTimer::new())
            .max_send_buf_size(BUFFER)
            .keep_alive_interval(Duration::from_secs(30))
            .max_header_list_size(BUFFER as u32);
        let connection = builder.serve_connection(TokioIo::new(stream), paced);
        // A client that is told to go (GOAWAY) finishes what it has begun, and knows what it has to ask elsewhere.
        let time = async {
            tokio::select! { () = drain.cancelled() => {}, () = requests.idle_for(timeouts.idle) => {} }
        };
        let deaf = requests.idle_for(timeouts.idle.saturating_add(timeouts.header));
        until_over(connection, |connection| connection.graceful_shutdown(), time, deaf, &cut).await;
    } else {
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(OneTimer::new(timeouts.header)).header_read_timeout(timeouts.header).max_buf_size(BUFFER);
        let stream = Lingering::new(stream, requests.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        let idle = async {
            drain.cancelled().await;
            tokio::select! { () = requests.idle() => {}, () = cut.cancelled() => {} }
        };
        until_over(connection, |connection| connection.graceful_shutdown(), idle, std::future::pending(), &cut).await;
    }
}

/// A tower service where hyper wants one of its own. hyper-util's bridge clones the whole stack for every request; ours is always
/// ready (what is too much is refused by an answer), so one is enough.
struct Bridge<S>(RefCell<S>);

impl<R, S: tower::Service<R>> hyper::service::Service<R> for Bridge<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: R) -> S::Future {
        let mut service = self.0.borrow_mut();
        debug_assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
        service.call(request)
    }
}

/// Runs a connection to its end. When it is `time` it is asked to finish what it has; one that is `deaf` to that is dropped. After
/// `cut` what is left gets a moment for its last words and is dropped, too, which writes its records.
async fn until_over<C: Future>(
    connection: C,
    finish: impl FnOnce(Pin<&mut C>),
    time: impl Future<Output = ()>,
    deaf: impl Future<Output = ()>,
    cut: &CancellationToken,
) {
    tokio::pin!(connection);
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = time => finish(connection.as_mut()),
    }
    // Not before: a token is looked at under a lock that all workers share, and this is polled with every piece of a reply.
    let over = async {
        cut.cancelled().await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! { _ = connection => {}, () = deaf => {}, () = over => {} }
}

/// Whether a connection begins as HTTP/2 with prior knowledge does. Looks without taking; a client may send it in pieces.
async fn speaks_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0; PREFACE.len()];
    loop {
        let seen = stream.peek(&mut first).await?;
        if seen == PREFACE.len() || seen == 0 || first[..seen] != PREFACE[..seen] {
            return Ok(first[..seen] == *PREFACE);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A request must not take its thread down: a panic is a 500 and a log line, and its tab has closed itself.
async fn guarded(door: &Door, request: Request<Incoming>) -> Response<Body> {
    let path = read(&request);
    let dialect = path.dialect();
    let http1 = request.version() <= Version::HTTP_11;
    let page = door.origins.load().as_ref().map(|origins| Page::of(request.headers(), origins));
    let preflight = page.as_ref().and_then(|page| page.preflight(&request));
    let mut response = match preflight {
        Some(response) => response,
        None => AssertUnwindSafe(answer(door, path, request)).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!("a request panicked; this is a bug in tidegate");
            fault_response(
                dialect,
                &Fault::internal("The gateway failed on this request. Its operator will find the reason in the log."),
                "",
            )
        }),
    };
    if let Some(page) = page {
        page.tell(response.headers_mut());
    }
    if http1 && door.leaving.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn answer(door: &Door, path: Path, request: Request<Incoming>) -> Response<Body> {
    let now = door.rooms.load_full();
    let (head, body) = request.into_parts();
    let endpoint = endpoint(&path);
    // The layer below only counts; how a refusal reads is decided here, where the dialect is known.
    if head.extensions.get::<Full>().is_some() {
        let fault = Fault {
            retry_after: Some(Duration::from_secs(1)),
            ..Fault::new(FaultKind::Overloaded, "The gateway has as many requests as it takes; try again in a moment.")
        };
        return refuse(path.dialect(), &fault, open_tab(&now, &head.headers, path.dialect(), &endpoint));
    }
    match path {
        Path::Generate(dialect) => relay(now, Asked { head, body, dialect, endpoint }).await,
        Path::Embed(api) => embed(now, Asked { head, body, dialect: api.dialect(), endpoint }, api).await,
        Path::Count(dialect) => count(now, Asked { head, body, dialect, endpoint }).await,
        Path::Carry(to) => {
            let dialect = path.dialect();
            carry(now, Asked { head, body, dialect, endpoint }, to).await
        }
        Path::Models(dialect) => list_models(&now, &head, dialect, &endpoint),
        Path::Model(dialect, id) => show_model(&now, &head, dialect, &endpoint, &id),
        Path::Tell(dialect) => tell_of_model(now, Asked { head, body, dialect, endpoint }).await,
        Path::Running(dialect) => list_running(&now, &head, dialect, &endpoint),
        Path::Root => root(&head.headers),
        Path::Version => plain_response(200, "application/json", Bytes::from_static(OLLAMA_VERSION.as_bytes())),
        Path::Withheld(dialect) => {
            let message = "The models of this gateway are its operator's: its API cannot pull, push, create, copy or delete them.";
            let fault = Fault::new(FaultKind::Forbidden, message);
            refuse(dialect, &fault, open_tab(&now, &head.headers, dialect, &endpoint))
        }
        Path::Method(dialect, allowed) => {
            let upgrade = head.headers.get(header::UPGRADE);
            let fault = if upgrade.is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")) {
                // Codex tries one first where it takes us for OpenAI, and goes on by HTTP at once after this status alone.
                let message = format!("There are no WebSockets here: this path takes {allowed}.");
                Fault::new(FaultKind::Method, message).with_status(426)
            } else {
                Fault::new(FaultKind::Method, format!("This path takes {allowed}, not {}.", head.method))
            };
            let mut response = refuse(dialect, &fault, open_tab(&now, &head.headers, dialect, &endpoint));
            response.headers_mut().insert(header::ALLOW, http::HeaderValue::from_static(allowed));
            response
        }
        Path::Unknown(dialect) => {
            let fault = Fault::new(
                FaultKind::PathNotFound,
                format!(
                    "There is nothing at {} {}. The API is below /v1: chat/completions, messages, messages/count_tokens, responses, responses/input_tokens, completions, embeddings, rerank, audio/…, images/…, moderations, models; and Ollama's below /api: chat, generate, embed, embeddings, tags, show, ps, version.",
                    head.method,
                    head.uri.path()
                ),
            );
            refuse(dialect, &fault, open_tab(&now, &head.headers, dialect, &endpoint))
        }
    }
}

/// What stands at `/`. Some of Ollama's clients compare it with the sentence Ollama answers; who asks for JSON gets ours.
fn root(headers: &HeaderMap) -> Response<Body> {
    let accept = headers.get(header::ACCEPT).map_or(b"".as_slice(), |value| value.as_bytes());
    if memchr::memmem::find(accept, b"application/json").is_none() {
        return plain_response(200, "text/plain; charset=utf-8", Bytes::from_static(b"Ollama is running"));
    }
    let name = concat!("{\"name\":\"tidegate\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n");
    plain_response(200, "application/json", Bytes::from_static(name.as_bytes()))
}

impl Limits {
    /// The server's bounds on what clients and backends send.
    pub fn of(config: &Config) -> Self {
        let keep_alive = Some(config.keep_alive.0).filter(|limit| !limit.is_zero());
        Self { body: config.body_limit.0, body_idle: config.body_timeout.0, keep_alive, line: config.line_limit.0 }
    }
}
