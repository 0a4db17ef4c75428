//! What is said to a server: a request over HTTP, the same for every try.

use super::Origin;
use super::endpoint::Address;
use crate::canon::header::{ANTHROPIC_BETA, ANTHROPIC_VERSION, X_REQUEST_ID, X_STAINLESS_TIMEOUT};
use crate::wire::Dialect;
use crate::wire::opaque::Parcel;
use crate::wire::request::Outgoing;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use http_body_util::Full;

/// See the module.
pub(super) struct Said<'a> {
    /// Below the backend's base address.
    pub path: &'static str,
    /// Whose errors it answers with.
    pub dialect: Dialect,
    /// A stream is wanted: its first byte has a time limit.
    pub stream: bool,
    /// Of the body.
    pub content_type: HeaderValue,
    /// The body.
    pub body: &'a Bytes,
    /// Whose request it is.
    pub origin: Origin<'a>,
}

impl<'a> Said<'a> {
    /// A question in JSON whose reply comes whole. `dialect`: whose errors are read.
    pub fn json(path: &'static str, dialect: Dialect, body: &'a Bytes, origin: Origin<'a>) -> Self {
        let content_type = HeaderValue::from_static("application/json");
        Self { path, dialect, stream: false, content_type, body, origin }
    }

    /// A request to generate text.
    pub fn generate(outgoing: &'a Outgoing, stream: bool, origin: Origin<'a>) -> Self {
        let Outgoing { dialect, written, .. } = outgoing;
        Self { stream, ..Self::json(dialect.path(), *dialect, &written.body, origin) }
    }

    /// Something that is only carried. Its errors are OpenAI's, or like them.
    pub fn carry(parcel: &Parcel, body: &'a Bytes, origin: Origin<'a>) -> Self {
        let content_type = parcel.content_type.clone();
        let json = Self::json(parcel.to.path, Dialect::Chat, body, origin);
        Self { stream: parcel.stream, content_type, ..json }
    }

    /// As it goes out. `credentials`: the header that carries the gateway's key there.
    pub fn message(
        &self,
        address: &Address,
        credentials: Option<&(HeaderName, HeaderValue)>,
    ) -> http::Request<Full<Bytes>> {
        let mut message = http::Request::new(Full::new(self.body.clone()));
        *message.method_mut() = Method::POST;
        *message.uri_mut() = address.uri(self.path);
        let out = message.headers_mut();
        if !address.http2 {
            out.insert(header::HOST, address.host.clone());
        }
        out.insert(header::CONTENT_TYPE, self.content_type.clone());
        if let Some((name, value)) = credentials {
            out.insert(name.clone(), value.clone());
        }
        // So that the books of a gateway behind this one can be joined with ours.
        if let Ok(id) = HeaderValue::from_str(self.origin.request_id) {
            out.insert(X_REQUEST_ID, id);
        }
        if let Some(left) = self.origin.time_left()
            && let Ok(seconds) = HeaderValue::from_str(&format!("{:.3}", left.as_secs_f64()))
        {
            out.insert(X_STAINLESS_TIMEOUT, seconds);
        }
        if self.dialect == Dialect::Messages {
            for name in [ANTHROPIC_BETA, ANTHROPIC_VERSION] {
                for value in self.origin.headers.get_all(&name) {
                    out.append(name.clone(), value.clone());
                }
            }
            out.entry(ANTHROPIC_VERSION).or_insert(HeaderValue::from_static("2023-06-01"));
        }
        message
    }
}
