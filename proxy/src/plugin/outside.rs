//! HTTP for plugins: to the origins their grant lists, and nowhere else.
//!
//! Redirects are answers, so a granted host cannot hand a plugin on. A connection is made for each request: what a plugin
//! sends is seldom and small, and a pool would let one plugin's connection be another's.

use super::bindings::{http, types as wit};
use super::load::Plugin;
use crate::trust;
use ::http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;

/// Headers that are the gateway's to write.
const OURS: [&str; 7] =
    ["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "proxy-authorization"];
/// Longest a request may take where the plugin says nothing.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a granted origin is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    tls: bool,
    host: String,
    port: u16,
}

impl Origin {
    /// Reads `https://host` or `http://host:port`, with or without a path behind it.
    ///
    /// # Errors
    /// What is wrong with it, without the address itself: secrets may be in it.
    pub fn read(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("this is no address: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("an address must begin with https:// or http://".to_owned()),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("an address must hold no credentials".to_owned());
        }
        let host = uri.host().ok_or_else(|| "the address names no host".to_owned())?;
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        Ok(Self { tls, host, port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }) })
    }

    /// What `Host` says: without the port where it is the scheme's own.
    fn authority(&self) -> String {
        let bare = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let standard = if self.tls { 443 } else { 80 };
        if self.port == standard { bare } else { format!("{bare}:{}", self.port) }
    }
}

impl std::fmt::Display for Origin {
    /// As a grant writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// Sends a plugin's request, if it may; it takes no longer than `patience`.
pub(super) async fn send(
    plugin: &Arc<Plugin>,
    request: http::Request,
    patience: Duration,
) -> Result<http::Response, wit::Error> {
    let origin = Origin::read(&request.url).map_err(wit::Error::Invalid)?;
    if !plugin.origins.contains(&origin) {
        // Not the whole address: plugins log what they are told, and a path or a query may be secret.
        return Err(wit::Error::Denied(format!("`{origin}` is not among grants.http of [plugins.{}]", plugin.name)));
    }
    let limit = request.timeout.map_or(PATIENCE, |millis| Duration::from_millis(millis.into()));
    let size = plugin.limits.output.0;
    tokio::time::timeout(limit.min(patience), exchange(origin, request, size)).await.unwrap_or(Err(wit::Error::Timeout))
}

async fn exchange(origin: Origin, request: http::Request, size: usize) -> Result<http::Response, wit::Error> {
    let failed = |error: &dyn std::fmt::Display| wit::Error::Failed(error.to_string());
    let message = message(&origin, request)?;
    let stream = TcpStream::connect((origin.host.as_str(), origin.port)).await.map_err(|error| failed(&error))?;
    if !origin.tls {
        return over(TokioIo::new(stream), message, size).await;
    }
    let name = ServerName::try_from(origin.host).map_err(|error| failed(&error))?;
    let stream = tokio_rustls::TlsConnector::from(trust::public(false))
        .connect(name, stream)
        .await
        .map_err(|error| failed(&error))?;
    over(TokioIo::new(stream), message, size).await
}

fn message(origin: &Origin, request: http::Request) -> Result<Request<Full<Bytes>>, wit::Error> {
    let invalid = |what: String| wit::Error::Invalid(what);
    let uri: Uri = request.url.parse().map_err(|error| invalid(format!("the address: {error}")))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let mut message = Request::new(Full::new(Bytes::from(request.body)));
    *message.method_mut() =
        Method::from_bytes(request.method.as_bytes()).map_err(|_| invalid("the method".to_owned()))?;
    *message.uri_mut() = path.parse().map_err(|error| invalid(format!("the path: {error}")))?;
    for (name, value) in request.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| invalid(format!("the header name `{name}`")))?;
        if OURS.contains(&name.as_str()) {
            continue;
        }
        let value = HeaderValue::try_from(value).map_err(|_| invalid(format!("the value of `{name}`")))?;
        message.headers_mut().append(name, value);
    }
    let host = HeaderValue::try_from(origin.authority()).map_err(|_| invalid("the host".to_owned()))?;
    message.headers_mut().insert(header::HOST, host);
    Ok(message)
}

async fn over<S>(io: TokioIo<S>, message: Request<Full<Bytes>>, size: usize) -> Result<http::Response, wit::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: &dyn std::fmt::Display| wit::Error::Failed(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(|error| failed(&error))?;
    let asked = async {
        let (head, body) = sender.send_request(message).await.map_err(|error| failed(&error))?.into_parts();
        let body = Limited::new(body, size).collect().await.map_err(|error| match error.is::<LengthLimitError>() {
            true => wit::Error::TooLarge,
            false => failed(&error),
        })?;
        let body = body.to_bytes();
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        Ok(http::Response { status: head.status.as_u16(), headers, body: body.into() })
    };
    tokio::pin!(connection, asked);
    let mut open = true;
    loop {
        tokio::select! {
            answer = &mut asked => return answer,
            _ = &mut connection, if open => open = false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_whole() {
        let same = |one: &str, other: &str| Origin::read(one) == Origin::read(other);
        assert!(same("https://Sink.internal", "https://sink.internal:443/a?b"));
        assert!(!same("https://sink.internal", "http://sink.internal:443"));
        assert!(!same("https://sink.internal", "https://sink.internal.evil"));
        assert!(!same("http://127.0.0.1:1", "http://127.0.0.1:2"));
        for (text, why) in [("ftp://x", "begin with"), ("https://u@x", "credentials"), ("sink", "begin with")] {
            assert!(Origin::read(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn of_an_address_only_the_origin_is_told() {
        for (text, told) in [
            ("https://Sink.internal/T0/s3cret?key=s3cret", "https://sink.internal"),
            ("http://sink:8080/s3cret", "http://sink:8080"),
            ("https://[::1]:80/s3cret", "https://[::1]:80"),
        ] {
            assert_eq!(Origin::read(text).unwrap().to_string(), told);
        }
        for text in ["ftp://sink/s3cret", "https://u:s3cret@sink", "s3cret", "https://sink/s3cret s3cret"] {
            assert!(!Origin::read(text).unwrap_err().contains("s3cret"), "{text}");
        }
    }
}
