//! A backend that answers at once. What to answer is in the request, so that it has no state to set and to forget.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Request, Response, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Interval, interval};

/// In the text of every whole reply and of every chunk once, and nowhere else: who counts it has counted chunks.
pub const MARK: u8 = b'~';

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    stream: bool,
    /// How many chunks.
    #[serde(default, alias = "max_completion_tokens")]
    max_tokens: usize,
    /// Milliseconds between two chunks: a field that means nothing here and that every proxy passes on.
    #[serde(default)]
    seed: u64,
}

fn chunk(delta: &str, finish: &str) -> String {
    format!(
        r#"data: {{"id":"chatcmpl-0000","object":"chat.completion.chunk","created":1700000000,"model":"mock-model","system_fingerprint":"fp_0","choices":[{{"index":0,"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish}}}]}}"#
    ) + "\n\n"
}

fn usage(tokens: usize) -> String {
    format!(r#""usage":{{"prompt_tokens":200,"completion_tokens":{tokens},"total_tokens":{}}}"#, tokens + 200)
}

fn whole() -> Bytes {
    let text = "The tide comes in and goes out. ".repeat(19) + "~";
    let usage = usage(120);
    format!(
        r#"{{"id":"chatcmpl-0000","object":"chat.completion","created":1700000000,"model":"mock-model","system_fingerprint":"fp_0","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"logprobs":null,"finish_reason":"stop"}}],{usage}}}"#
    )
    .into()
}

struct Stream {
    chunk: Bytes,
    sent: usize,
    chunks: usize,
    pace: Option<Interval>,
    rested: bool,
}

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.sent > self.chunks {
            return Poll::Ready(None);
        }
        if let Some(pace) = &mut self.pace {
            ready!(pace.poll_tick(context));
        } else {
            // hyper writes when a body has nothing to give; without a rest it would send many chunks in one write,
            // which no model does.
            self.rested = !self.rested;
            if self.rested {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        self.sent += 1;
        let data = match self.sent {
            1 => chunk(r#""role":"assistant","content":"~""#, "null").into(),
            sent if sent > self.chunks => Bytes::from(format!(
                "{}data: {{\"id\":\"chatcmpl-0000\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
                 \"model\":\"mock-model\",\"choices\":[],{}}}\n\ndata: [DONE]\n\n",
                chunk("", r#""stop""#),
                usage(self.chunks)
            )),
            _ => self.chunk.clone(),
        };
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Either<Full<Bytes>, Stream>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let Ok(asked) = serde_json::from_slice::<Asked>(&body) else {
        // A gateway may also ask for the models; the benchmark itself counts every status but 200 as an error.
        return Ok(Response::builder().status(400).body(Either::Left(Full::default())).unwrap());
    };
    let (kind, body) = if asked.stream {
        let pace = (asked.seed > 0).then(|| interval(Duration::from_millis(asked.seed)));
        let chunk = chunk(r#""content":" tide~""#, "null").into();
        let stream = Stream { chunk, sent: 0, chunks: asked.max_tokens, pace, rested: false };
        ("text/event-stream", Either::Right(stream))
    } else {
        ("application/json", Either::Left(Full::new(whole())))
    };
    Ok(Response::builder().header("content-type", kind).body(body).unwrap())
}

/// Listens on a free port, says which, and serves until it is killed.
pub async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)),
        );
    }
}
