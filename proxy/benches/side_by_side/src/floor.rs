//! The yardstick: what any gateway on hyper has to do, and nothing more. One thread, its own pool of connections to the
//! backend; it reads the model out of each request and the usage out of each reply, and passes all bytes on.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, Response, service::service_fn};
use hyper_util::rt::TokioIo;
use memchr::{memchr_iter, memmem};
use serde::Deserialize;
use std::borrow::Cow;
use std::cell::RefCell;
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::net::{TcpListener, TcpStream};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Lane = SendRequest<Full<Bytes>>;

thread_local! {
    /// Connections to the backend that no request has at the moment; the last one used is the first one taken.
    static IDLE: RefCell<Vec<Lane>> = const { RefCell::new(Vec::new()) };
}

#[derive(Deserialize)]
struct Asked<'a> {
    #[serde(borrow)]
    model: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Answered {
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    completion_tokens: u64,
}

fn note_usage(json: &[u8]) {
    if let Ok(Answered { usage: Some(usage) }) = serde_json::from_slice(json) {
        black_box(usage.prompt_tokens + usage.completion_tokens);
    }
}

/// Reads along with a reply.
struct Reader {
    stream: bool,
    /// Of a stream, the line that has not ended yet; else everything.
    held: Vec<u8>,
}

impl Reader {
    fn read(&mut self, data: &[u8]) {
        let mut rest = 0;
        if self.stream {
            for end in memchr_iter(b'\n', data) {
                if self.held.is_empty() {
                    Self::line(&data[rest..end]);
                } else {
                    self.held.extend_from_slice(&data[rest..end]);
                    Self::line(&self.held);
                    self.held.clear();
                }
                rest = end + 1;
            }
        }
        self.held.extend_from_slice(&data[rest..]);
    }

    fn line(line: &[u8]) {
        if let Some(json) = line.strip_prefix(b"data: ")
            && memmem::find(json, b"\"usage\":{").is_some()
        {
            note_usage(json);
        }
    }
}

/// A reply on its way through. Holds its connection to the backend until there is no more of it.
struct Passing {
    reply: Incoming,
    reader: Reader,
    lane: Option<Lane>,
}

impl Passing {
    fn end(&mut self) {
        if let Some(lane) = self.lane.take() {
            if !self.reader.stream {
                note_usage(&self.reader.held);
            }
            if !lane.is_closed() {
                IDLE.with_borrow_mut(|idle| idle.push(lane));
            }
        }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let next = ready!(Pin::new(&mut self.reply).poll_frame(context));
        match &next {
            Some(Ok(frame)) => frame.data_ref().into_iter().for_each(|data| self.reader.read(data)),
            Some(Err(_)) | None => self.end(),
        }
        Poll::Ready(next)
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}

impl Drop for Passing {
    /// hyper does not ask for the end of a body whose length it knows.
    fn drop(&mut self) {
        self.end();
    }
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    for name in [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

async fn lane(backend: SocketAddr) -> Result<Lane, Failure> {
    while let Some(mut lane) = IDLE.with_borrow_mut(Vec::pop) {
        if lane.ready().await.is_ok() {
            return Ok(lane);
        }
    }
    let stream = TcpStream::connect(backend).await?;
    stream.set_nodelay(true)?;
    let (lane, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(lane)
}

async fn forward(request: Request<Incoming>, backend: SocketAddr) -> Result<Response<Passing>, Failure> {
    let (mut head, body) = request.into_parts();
    drop_hop_by_hop(&mut head.headers);
    let body = body.collect().await?.to_bytes();
    black_box(serde_json::from_slice::<Asked>(&body)?.model.len());
    let mut lane = lane(backend).await?;
    let (mut head, reply) = lane.send_request(Request::from_parts(head, Full::new(body))).await?.into_parts();
    drop_hop_by_hop(&mut head.headers);
    let stream = head.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
    let reader = Reader { stream, held: Vec::new() };
    Ok(Response::from_parts(head, Passing { reply, reader, lane: Some(lane) }))
}

/// Listens on a free port, says which, and serves until it is killed.
pub async fn serve(backend: SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let service = service_fn(move |request| forward(request, backend));
        tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}
