//! The operator's listener, apart from the API: `/metrics`, `/livez`, `/readyz`, and what a token opens: `POST /admin/reload`.

use crate::canon::Secret;
use crate::canon::header::bearer;
use crate::trust::{self, Handshakes};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Encoder, Registry, TextEncoder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// `[admin]`
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "Admin")]
pub struct Config {
    /// Its address.
    pub listen: SocketAddr,
    /// Certificate and key of this listener. Plain HTTP where absent.
    pub tls: Option<trust::Files>,
    /// For the admin API; without one it stays closed and only `/livez`, `/readyz` and `/metrics` answer.
    pub token: Option<Secret>,
    /// How many projects have labels of their own in metrics, in the order of their organizations' ids and their own; the
    /// others are `other`.
    pub metric_projects: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)), tls: None, token: None, metric_projects: 1000 }
    }
}

/// What this listener tells of.
pub struct Admin {
    /// Every metric family.
    pub registry: Registry,
    /// Asked whenever somebody wants to know.
    pub readiness: Box<dyn Fn() -> Readiness>,
    /// The handshakes of this listener.
    pub tls: Arc<Handshakes>,
    /// What opens the admin API, if anything does at the moment.
    pub token: Box<dyn Fn() -> Option<Secret>>,
    /// Has the configuration read again.
    pub reload: Box<dyn Fn() -> oneshot::Receiver<Reloaded>>,
}

/// What came of reading the configuration again; in names and places, never in values.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
pub enum Reloaded {
    /// It is in use.
    Done {
        /// What differs from the one before.
        changed: Vec<String>,
        /// Keys that were changed and are read at start only.
        waiting: Vec<&'static str>,
    },
    /// It cannot be used; the one before still is.
    Refused {
        /// What is wrong, each with its place.
        problems: Vec<String>,
    },
}

/// A handshake and a request's head must be done within this.
const HEAD: Duration = Duration::from_secs(10);

/// Whether new requests should come here.
pub enum Readiness {
    /// They should.
    Ready,
    /// They should, but something that was configured is not there.
    Degraded(String),
    /// They should go elsewhere, for this reason.
    Unready(String),
}

/// Serves the operator. Ends only with its runtime. `next` is the next connection, or why there is none.
pub async fn serve(next: impl AsyncFn() -> io::Result<TcpStream>, admin: Rc<Admin>) {
    loop {
        let Ok(stream) = next().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let admin = admin.clone();
        tokio::task::spawn_local(async move {
            let Some(papers) = admin.tls.papers() else { return converse(stream, &admin).await };
            if let Some(stream) = admin.tls.take(&papers, stream, HEAD).await {
                converse(stream, &admin).await;
            }
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin, admin: &Admin) {
    let service =
        hyper::service::service_fn(move |request| async move { Ok::<_, Infallible>(answer(admin, &request).await) });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer<B>(admin: &Admin, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.uri().path() == "/admin/reload" {
        return reload(admin, request).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "this path is for reading\n");
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" => match (admin.readiness)() {
            Readiness::Ready => text(StatusCode::OK, "ok\n"),
            Readiness::Degraded(why) => text(StatusCode::OK, &format!("degraded: {why}\n")),
            Readiness::Unready(why) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
        },
        "/metrics" => {
            let mut page = Vec::new();
            match TextEncoder::new().encode(&admin.registry.gather(), &mut page) {
                Ok(()) => {
                    let mut response = Response::new(Full::from(page));
                    response
                        .headers_mut()
                        .insert(header::CONTENT_TYPE, HeaderValue::from_static(prometheus::TEXT_FORMAT));
                    response
                }
                Err(error) => {
                    text(StatusCode::INTERNAL_SERVER_ERROR, &format!("the metrics could not be written: {error}\n"))
                }
            }
        }
        _ => text(StatusCode::NOT_FOUND, "there is /metrics, /livez, /readyz and POST /admin/reload\n"),
    }
}

async fn reload<B>(admin: &Admin, request: &Request<B>) -> Response<Full<Bytes>> {
    let Some(token) = (admin.token)() else {
        return text(StatusCode::FORBIDDEN, "the admin API is closed: set `token` in [admin]\n");
    };
    if !is_opened_by(request, &token) {
        let mut response = text(StatusCode::UNAUTHORIZED, "send the token of [admin] as Authorization: Bearer TOKEN\n");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    if request.method() != Method::POST {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "reload with POST\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let Ok(reloaded) = (admin.reload)().await else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the reload did not come to an end; the log says why\n");
    };
    let status = match reloaded {
        Reloaded::Done { .. } => StatusCode::OK,
        Reloaded::Refused { .. } => StatusCode::UNPROCESSABLE_ENTITY,
    };
    let mut response = text(status, &serde_json::to_string(&reloaded).unwrap_or_default());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Compared as hashes, so that the time it takes tells nothing of the token, its length neither.
fn is_opened_by<B>(request: &Request<B>, token: &Secret) -> bool {
    let said = request.headers().get(header::AUTHORIZATION).and_then(|value| bearer(value.as_bytes()));
    said.is_some_and(|said| Sha256::digest(said).ct_eq(&Sha256::digest(token.reveal())).into())
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
