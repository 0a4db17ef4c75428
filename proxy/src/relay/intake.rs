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
use std::cell::Cell;
use std::error::Error as _;
use std::io::{self, Read};
use tokio_rustls::rustls;

/// Room made at once for a body that says how long it will be: whoever says much and sends little gets no more.
const AHEAD: usize = 1 << 20;
/// Of a compressed body at most so much is read in a turn, and so much is made of it: a millisecond or so.
const PACKED: usize = 32 << 10;
const UNPACKED: u64 = 256 << 10;

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
    decode(headers, if joined.is_empty() { whole } else { joined.freeze() }, limits).await
}

fn check_type(headers: &HeaderMap) -> Result<(), Fault> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    if essence(value.as_bytes()).eq_ignore_ascii_case(b"application/json") {
        return Ok(());
    }
    Err(Fault::new(FaultKind::MediaType, "The body must be JSON: send `Content-Type: application/json`.")
        .with_param("content-type"))
}

async fn decode(headers: &HeaderMap, body: Bytes, limits: Limits) -> Result<Bytes, Fault> {
    let Some(value) = headers.get(header::CONTENT_ENCODING) else { return Ok(body) };
    let encoding = value.as_bytes().trim_ascii().to_ascii_lowercase();
    if encoding == b"identity" {
        return Ok(body);
    }
    let wrong =
        |_: io::Error| Fault::invalid("The body is not what its Content-Encoding says.").with_param("content-encoding");
    let turn = Cell::new(PACKED);
    let packed = Packed { rest: &body, turn: &turn };
    let decoder: Box<dyn Read + '_> = match encoding.as_slice() {
        b"gzip" | b"x-gzip" => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        b"zstd" => Box::new(zstd::Decoder::new(packed).map_err(wrong)?),
        b"br" => Box::new(brotli::Decompressor::new(packed, 4096)),
        _ => {
            return Err(Fault::new(
                FaultKind::MediaType,
                "This Content-Encoding is not known here; use gzip, zstd or br.",
            )
            .with_param("content-encoding"));
        }
    };
    let text = unpack(decoder, &turn, limits.body).await.map_err(wrong)?;
    if text.len() > limits.body {
        return Err(too_large(limits));
    }
    Ok(text.into())
}

/// A body that has no end. What HTTP/1.1 cannot read as chunks is a mistake of its sender's. All else that can happen, an end too
/// early, a reset of the connection or of the stream, a record that TLS cannot read, leaves nobody who waits for an answer.
fn broken(error: &hyper::Error) -> Fault {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    // TLS has the same kinds for its errors as HTTP.
    let cause = cause.filter(|cause| !cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()));
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => {
            Fault::invalid("The body is not what its Transfer-Encoding says.").with_param("transfer-encoding")
        }
        _ => Fault::new(FaultKind::ClientGone, "The client left before it had sent the whole request body."),
    }
}

/// Reads to the end, or to somewhere beyond `most` bytes: a turn at a time, with those of the thread's other requests in between.
async fn unpack(mut decoder: Box<dyn Read + '_>, turn: &Cell<usize>, most: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    loop {
        turn.set(PACKED);
        let read = decoder.by_ref().take(UNPACKED).read_to_end(&mut text);
        match read {
            Ok(read) if (read as u64) < UNPACKED => return Ok(text),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ if text.len() > most => return Ok(text),
            _ => tokio::task::yield_now().await,
        }
    }
}

/// A compressed body, of which a turn is given so much. Not all that is read of one becomes text: there are empty parts.
struct Packed<'a> {
    rest: &'a [u8],
    /// What is left of the turn.
    turn: &'a Cell<usize>,
}

impl Read for Packed<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.turn.get() == 0 && !self.rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let length = into.len().min(self.turn.get()).min(self.rest.len());
        let (now, later) = self.rest.split_at(length);
        into[..length].copy_from_slice(now);
        self.rest = later;
        self.turn.set(self.turn.get() - length);
        Ok(length)
    }
}

fn too_large(limits: Limits) -> Fault {
    Fault::new(
        FaultKind::TooLarge,
        format!("The request body is larger than the {} bytes this gateway takes.", limits.body),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use std::io::Write as _;
    use std::time::Duration;

    fn pack(encoding: &str, text: &[u8]) -> Vec<u8> {
        let mut packed = Vec::new();
        match encoding {
            "gzip" => {
                let mut encoder = flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast());
                encoder.write_all(text).unwrap();
                encoder.finish().unwrap();
            }
            "zstd" => packed = zstd::encode_all(text, 1).unwrap(),
            _ => brotli::CompressorWriter::new(&mut packed, 4096, 1, 20).write_all(text).unwrap(),
        }
        packed
    }

    /// What comes of it, and whether others had a turn meanwhile.
    async fn unpacked(encoding: &'static str, packed: Vec<u8>) -> (Result<Bytes, Fault>, bool) {
        let limits = Limits { body: 2 << 20, body_idle: Duration::from_secs(1), keep_alive: None, line: 1 };
        let headers = HeaderMap::from_iter([(header::CONTENT_ENCODING, HeaderValue::from_static(encoding))]);
        let mut decoding = std::pin::pin!(decode(&headers, packed.into(), limits));
        let mut polls = 0;
        let done = std::future::poll_fn(|context| {
            polls += 1;
            decoding.as_mut().poll(context)
        });
        let done = done.await;
        (done, polls > 1)
    }

    #[tokio::test]
    async fn a_long_body_is_unpacked_in_turns() {
        let long: Vec<u8> = (0..3 << 20).map(|at: u32| (at / 7 % 251) as u8).collect();
        for encoding in ["gzip", "zstd", "br"] {
            for (length, in_turns) in [(0, false), (1000, false), (1 << 20, true)] {
                let (text, turns) = unpacked(encoding, pack(encoding, &long[..length])).await;
                assert!(text.unwrap() == long[..length] && turns == in_turns, "{encoding} {length}");
            }
            let (text, _) = unpacked(encoding, pack(encoding, &long)).await;
            assert_eq!(text.unwrap_err().status(), 413, "{encoding}");
        }
        let (text, turns) = unpacked("gzip", pack("gzip", b"").repeat(10_000)).await;
        assert!(text.unwrap().is_empty() && turns, "it is long before it is unpacked");
        let mut cut = pack("gzip", &long[..1 << 20]);
        cut.pop();
        assert_eq!(unpacked("gzip", cut).await.0.unwrap_err().status(), 400);
    }
}
