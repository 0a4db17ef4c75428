//! What is said to a server: a request over HTTP, the same for every try.

use super::endpoint::Address;
use crate::canon::header::{ANTHROPIC_BETA, ANTHROPIC_VERSION, X_REQUEST_ID};
use crate::wire::Dialect;
use crate::wire::count::Counter;
use crate::wire::embed::EmbedApi;
use crate::wire::opaque::Parcel;
use crate::wire::request::{Outgoing, Request};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
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
    pub body: Bytes,
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// So that the books of a gateway behind this one can be joined with ours.
    pub request_id: &'a str,
}

impl<'a> Said<'a> {
    /// A request to generate text.
    pub fn generate(outgoing: &Outgoing, request: &Request, headers: &'a HeaderMap, request_id: &'a str) -> Self {
        Self {
            path: outgoing.dialect.path(),
            dialect: outgoing.dialect,
            stream: request.stream,
            content_type: HeaderValue::from_static("application/json"),
            body: outgoing.written.body.clone(),
            headers,
            request_id,
        }
    }

    /// A request for vectors.
    pub fn embed(api: EmbedApi, body: Bytes, headers: &'a HeaderMap, request_id: &'a str) -> Self {
        Self {
            path: api.path(),
            dialect: api.dialect(),
            stream: false,
            content_type: HeaderValue::from_static("application/json"),
            body,
            headers,
            request_id,
        }
    }

    /// A question for the length of a prompt.
    pub fn count(counter: Counter, body: Bytes, headers: &'a HeaderMap, request_id: &'a str) -> Self {
        Self {
            path: counter.path(),
            dialect: counter.dialect(),
            stream: false,
            content_type: HeaderValue::from_static("application/json"),
            body,
            headers,
            request_id,
        }
    }

    /// Something that is only carried. Its errors are OpenAI's, or like them.
    pub fn carry(parcel: &Parcel, model: &str, headers: &'a HeaderMap, request_id: &'a str) -> Self {
        Self {
            path: parcel.to.path,
            dialect: Dialect::Chat,
            stream: parcel.stream,
            content_type: parcel.content_type.clone(),
            body: parcel.body(model),
            headers,
            request_id,
        }
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
        if let Ok(id) = HeaderValue::from_str(self.request_id) {
            out.insert(X_REQUEST_ID, id);
        }
        if self.dialect == Dialect::Messages {
            for name in [ANTHROPIC_BETA, ANTHROPIC_VERSION] {
                for value in self.headers.get_all(&name) {
                    out.append(name.clone(), value.clone());
                }
            }
            out.entry(ANTHROPIC_VERSION).or_insert(HeaderValue::from_static("2023-06-01"));
        }
        message
    }
}
