//! A request's body, within its bounds.

use super::Limits;
use crate::canon::header::essence;
use crate::canon::{Fault, FaultKind};
use crate::wire::Dialect;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt as _;
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::error::Error as _;
use std::io::{self, Read};

/// Room made at once for a body that says how long it will be: whoever says much and sends little gets no more.
const AHEAD: usize = 1 << 20;

/// Reads the whole body of a request in this dialect.
///
/// # Errors
/// 415 for another type, and those of [`whole`].
pub(super) async fn read(
    headers: &HeaderMap,
    body: Incoming,
    dialect: Dialect,
    limits: Limits,
) -> Result<Bytes, Fault> {
    // Ollama takes JSON of any type, and its documentation's own examples (curl -d) say it is a form.
    if !matches!(dialect, Dialect::OllamaChat | Dialect::OllamaGenerate) {
        check_type(headers)?;
    }
    whole(headers, body, limits).await
}

/// Reads the whole body, of whatever type, and undoes its encoding. A body that came in one piece is not copied.
///
/// # Errors
/// 415 for an encoding we do not read, 413 as soon as it is known to be too large, 408 for a client that stops sending; 499
/// where it has left.
pub(super) async fn whole(headers: &HeaderMap, mut body: Incoming, limits: Limits) -> Result<Bytes, Fault> {
    let declared = body.size_hint().lower();
    if declared > limits.body as u64 {
        return Err(too_large(limits));
    }
    let mut whole = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        // Mostly it is there already, and a timer costs more than a look.
        let frame = match body.frame().now_or_never() {
            Some(frame) => Ok(frame),
            None => tokio::time::timeout(limits.body_idle, body.frame()).await,
        };
        let frame = match frame {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(broken(&error)),
            Err(_) => return Err(Fault::new(FaultKind::RequestTimeout, "The request body did not arrive in time.")),
        };
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + joined.len() + data.len() > limits.body {
            return Err(too_large(limits));
        }
        if whole.is_empty() && joined.is_empty() {
            whole = data;
        } else {
            if joined.is_empty() {
                joined.reserve((declared as usize).min(AHEAD).max(2 * whole.len() + data.len()));
                joined.extend_from_slice(&std::mem::take(&mut whole));
            }
            joined.extend_from_slice(&data);
        }
    }
    decode(headers, if joined.is_empty() { whole } else { joined.freeze() }, limits)
}

fn check_type(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    if essence(value.as_bytes()).eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    Err(Fault::new(FaultKind::MediaType, "The body must be JSON: send `Content-Type: application/json`.")
        .with_param("content-type"))
}

fn decode(headers: &HeaderMap, body: Bytes, limits: Limits) -> Result<Bytes, Fault> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(body) };
    let encoding = value.as_bytes().trim_ascii().to_ascii_lowercase();
    let mut text = Vec::new();
    let room = limits.body as u64 + 1;
    let decoded = match encoding.as_slice() {
        b"identity" => return Ok(body),
        b"gzip" | b"x-gzip" => flate2::read::MultiGzDecoder::new(&body[..]).take(room).read_to_end(&mut text),
        b"zstd" => zstd::Decoder::new(&body[..]).and_then(|decoder| decoder.take(room).read_to_end(&mut text)),
        b"br" => brotli::Decompressor::new(&body[..], 4096).take(room).read_to_end(&mut text),
        _ => {
            return Err(Fault::new(
                FaultKind::MediaType,
                "This Content-Encoding is not known here; use gzip, zstd or br.",
            )
            .with_param("content-encoding"));
        }
    };
    decoded.map_err(|_| {
        Fault::invalid("The body is not what its Content-Encoding says.").with_param("content-encoding")
    })?;
    if text.len() > limits.body {
        return Err(too_large(limits));
    }
    Ok(text.into())
}

/// A body that has no end. What HTTP/1.1 cannot read as chunks is a mistake of its sender's. All else that can happen, an end too
/// early, a reset of the connection or of the stream, leaves nobody who waits for an answer.
fn broken(error: &hyper::Error) -> Fault {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            Fault::invalid("The body is not what its Transfer-Encoding says.").with_param("transfer-encoding")
        }
        _ => Fault::new(FaultKind::ClientGone, "The client left before it had sent the whole request body."),
    }
}

fn too_large(limits: Limits) -> Fault {
    Fault::new(
        FaultKind::TooLarge,
        format!("The request body is larger than the {} bytes this gateway takes.", limits.body),
    )
}
