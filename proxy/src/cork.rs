//! Sends of a thread with much to do, held until all else that is ready has been done, so that they follow one another.
//!
//! A send wakes who waits for it. One by one, between pieces of other work, each finds the other side asleep again: it wakes a
//! core every time, and it is run by a processor that has forgotten the way. In a row the first one wakes, and the others find
//! everybody awake. What it costs is one more poll of the connection, so a thread with little to do does not hold anything.
//! (The idea of `TCP_CORK`, but over connections instead of over the pieces of one.)

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Sends in a turn from which on a thread has much to do.
const MUCH: u32 = 4;

thread_local! {
    /// Sends in this turn, and in the one before.
    static SENDS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// A turn ends: all that was ready has been done, and this thread asks what is ready now.
pub fn turn() {
    let (now, _) = SENDS.get();
    SENDS.set((0, now));
}

fn busy() -> bool {
    let (now, before) = SENDS.get();
    now.max(before) >= MUCH
}

/// A stream whose sends wait for each other.
pub struct Corked<S> {
    stream: S,
    /// All else has been done meanwhile.
    held: bool,
}

impl<S> Corked<S> {
    /// Sends of `stream` wait while this thread has much to do.
    pub fn new(stream: S) -> Self {
        Self { stream, held: false }
    }

    /// Whether this send has to wait.
    fn hold(&mut self, context: &Context<'_>) -> bool {
        if !self.held && busy() {
            self.held = true;
            // Behind all that is ready now.
            context.waker().wake_by_ref();
            return true;
        }
        self.held = false;
        let (now, before) = SENDS.get();
        SENDS.set((now.saturating_add(1), before));
        false
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.hold(context) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.hold(context) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
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
    use std::cell::RefCell;
    use std::rc::Rc;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    /// What tasks that send and work did, in order.
    async fn order(before: u32) -> Vec<String> {
        SENDS.set((0, before));
        let said = Rc::new(RefCell::new(Vec::new()));
        let (mut here, there) = tokio::io::duplex(64);
        let there = Rc::new(RefCell::new(Some(there)));
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let (sends, works) = (said.clone(), said.clone());
                let sender = tokio::task::spawn_local(async move {
                    let mut corked = Corked::new(there.take().unwrap());
                    corked.write_all(b"x").await.unwrap();
                    sends.borrow_mut().push("sent".to_owned());
                });
                let worker = tokio::task::spawn_local(async move { works.borrow_mut().push("worked".to_owned()) });
                sender.await.unwrap();
                worker.await.unwrap();
            })
            .await;
        let mut got = [0];
        here.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"x");
        said.take()
    }

    #[tokio::test]
    async fn a_busy_thread_does_all_else_first() {
        assert_eq!(order(MUCH).await, ["worked", "sent"]);
        assert_eq!(order(0).await, ["sent", "worked"]);
    }

    #[test]
    fn busy_is_who_sends_much_in_a_turn() {
        SENDS.set((0, 0));
        let mut corked = Corked::new(());
        let context = Context::from_waker(std::task::Waker::noop());
        for _ in 0..MUCH {
            assert!(!corked.hold(&context));
        }
        assert!(corked.hold(&context) && !corked.hold(&context), "held once, and then sent");
        turn();
        assert!(corked.hold(&context) && !corked.hold(&context), "it was busy up to now");
        turn();
        assert!(!corked.hold(&context));
    }
}
