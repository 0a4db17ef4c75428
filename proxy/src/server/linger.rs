//! The end of a connection of HTTP/1.1, so that a client that is still sending gets its answer.
//!
//! Most refusals are decided while the body is on its way: a key that is unknown, a length beyond the limit. When a socket is
//! closed with bytes in it that nobody has read, or when more come, the kernel answers with a reset: the client's next send
//! fails, and it tells of a broken connection instead of the refusal. So our side is closed first, and what still comes is
//! thrown away until the client has closed its own, says nothing for a moment, or has had long enough. hyper closes both at once.

use super::requests::{GRACE, Requests};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a client may go on sending to nobody. Those that look for an answer meanwhile stop at once.
const MOST: Duration = Duration::from_secs(10);

/// The stream of a connection with these requests.
pub(super) struct Lingering<S> {
    stream: S,
    requests: Rc<Requests>,
    /// Once our side is closed.
    end: Option<End>,
}

struct End {
    /// Fires when nothing has come for a moment.
    silence: Pin<Box<Sleep>>,
    latest: Instant,
}

impl<S> Lingering<S> {
    pub fn new(stream: S, requests: Rc<Requests>) -> Self {
        Self { stream, requests, end: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if this.requests.are_over() {
                // Nothing is on its way, and a gateway that stops should not wait for who keeps the connection open.
                return Poll::Ready(Ok(()));
            }
        }
        let begin = || End { silence: Box::pin(tokio::time::sleep(GRACE)), latest: Instant::now() + MOST };
        let end = this.end.get_or_insert_with(begin);
        let mut waste = [0; 16 << 10];
        while Instant::now() < end.latest {
            let mut some = ReadBuf::new(&mut waste);
            match Pin::new(&mut this.stream).poll_read(context, &mut some) {
                Poll::Ready(Ok(())) if !some.filled().is_empty() => {
                    end.silence.as_mut().reset(Instant::now() + GRACE);
                }
                // It has closed its side, or is gone.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return end.silence.as_mut().poll(context).map(Ok),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test]
    async fn what_still_comes_is_taken_for_a_while() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut near = Lingering::new(near, Rc::default());
        let both = async { tokio::join!(near.shutdown(), far.write_all(&[0; 10_000])) };
        let (ended, sent) = tokio::time::timeout(MOST, both).await.unwrap();
        assert!(ended.is_ok() && sent.is_ok(), "all of it, and then a moment of silence");

        let (near, far) = tokio::io::duplex(64);
        let mut near = Lingering::new(near, Rc::default());
        drop(far);
        assert!(near.shutdown().now_or_never().is_some(), "it has closed its side");

        let (near, _far) = tokio::io::duplex(64);
        let mut near = Lingering::new(near, Rc::default());
        tokio::time::sleep(2 * GRACE).await;
        assert!(near.shutdown().now_or_never().is_some(), "its last reply is long over");
    }
}
