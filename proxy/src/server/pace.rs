//! HTTP/2 clients that do not read: their streams are closed after the same time as HTTP/1.1 connections are.
//!
//! There the kernel knows for how long a client has taken nothing. Here the client's machine takes everything and only its
//! window for the one stream stays closed, which is seen from the body alone: hyper asks it for the next piece when the last
//! one has found room. So the body notes when it gave a piece, and what runs the stream looks, now and then, whether that was
//! too long ago. The two meet in a task's own variable, since hyper makes the task and shows neither to the other.

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body::{Body, Frame, SizeHint};
use std::cell::Cell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// The most that is handed over at once. A client shows that it reads by making room for a piece, so a slow one must not be
/// given more than it can take in the time it has.
const PIECE: usize = 16 << 10;

tokio::task_local! {
    /// Since when a piece waits for the client; `None` while the client waits for us.
    static GIVEN: Cell<Option<Instant>>;
}

/// Runs the streams of a connection on this thread, each until its client has let a piece lie for too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    pub patience: Duration,
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let patience = self.patience;
        tokio::task::spawn_local(GIVEN.scope(Cell::new(None), async move {
            tokio::select! {
                biased;
                () = stream => {}
                // Dropped: the client gets a reset, the backend's connection is closed, the record is written.
                () = unread(patience) => tracing::debug!("an HTTP/2 client reads nothing; its stream is closed"),
            }
        }));
    }
}

/// Ends when the client has let a piece lie for so long. One timer, set anew when it fires: a request seldom sees it do so.
async fn unread(patience: Duration) {
    if patience.is_zero() {
        // As for a connection of HTTP/1.1, where the kernel takes it for no limit of ours.
        return std::future::pending().await;
    }
    loop {
        let waited = GIVEN.with(Cell::get).map_or(Duration::ZERO, |since| since.elapsed());
        match patience.checked_sub(waited).filter(|left| !left.is_zero()) {
            Some(left) => tokio::time::sleep(left).await,
            None => return,
        }
    }
}

/// A body that notes whose turn it is, and gives no more than a piece at a time.
pub(super) struct Paced<B> {
    body: B,
    rest: Bytes,
    /// Nothing of it is given.
    unsaid: bool,
}

impl<B: Body> Paced<B> {
    pub fn new(body: B) -> Self {
        Self { body, rest: Bytes::new(), unsaid: false }
    }

    /// The reply to HEAD, whose head tells of a body that does not come. hyper sees to that in HTTP/1.1 only, and to clients of
    /// HTTP/2 a body there is an error of the stream.
    pub fn head(response: Response<B>) -> Response<Self> {
        let mut response = response.map(|body| Self { unsaid: true, ..Self::new(body) });
        if let Some(length) = response.body().body.size_hint().exact() {
            response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
        }
        response
    }
}

impl<B: Body<Data = Bytes> + Unpin> Paced<B> {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if self.unsaid {
            return Poll::Ready(None);
        }
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let piece = self.poll_piece(cx);
        let _ = GIVEN.try_with(|given| given.set(piece.is_ready().then(Instant::now)));
        piece
    }

    fn is_end_stream(&self) -> bool {
        self.unsaid || self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.unsaid {
            return SizeHint::with_exact(0);
        }
        // Asked for before the first piece is taken: hyper makes the declared length of it.
        self.body.size_hint()
    }
}
