//! Sends of a thread with much to do, held until all else that is ready has been done, so that they follow one another.
//!
//! A send wakes who waits for it. One by one, between pieces of other work, each finds the other side asleep again: it wakes a
//! core every time, and it is run by a processor that has forgotten the way. In a row the first one wakes, and the others find
//! everybody awake. What it costs is one more poll of the connection, so a thread with little to do does not hold anything.
//! (The idea of `TCP_CORK`, but over connections instead of over the pieces of one.)
//!
//! What has to be done before anything leaves the thread, [`first`], is so done once for all that leaves in a row.

use std::cell::{Cell, OnceCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Sends in a turn from which on a thread has much to do.
const MUCH: u32 = 4;

thread_local! {
    /// Sends in this turn, and in the one before.
    static SENDS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
    static FIRST: OnceCell<Box<dyn Fn()>> = const { OnceCell::new() };
}

/// Does this before each send of this thread, and at the end of each turn. Asked for once by a thread; it should know at a glance
/// whether there is anything to do.
pub fn first(duty: impl Fn() + 'static) {
    FIRST.with(|first| _ = first.set(Box::new(duty)));
}

/// A turn ends: all that was ready has been done, and this thread asks what is ready now. (A thread that never says so holds
/// each of its sends for one poll after the first few.)
pub fn turn() {
    let (now, _) = SENDS.get();
    SENDS.set((0, now));
    do_first();
}

fn do_first() {
    FIRST.with(|first| first.get().into_iter().for_each(|duty| duty()));
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
        do_first();
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
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                let (sends, works) = (said.clone(), said.clone());
                let sender = tokio::task::spawn_local(async move {
                    let mut corked = Corked::new(there);
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

    #[tokio::test]
    async fn what_comes_first_is_done_before_each_send_and_at_the_end_of_a_turn() {
        let done = Rc::new(Cell::new(0));
        let counts = done.clone();
        first(move || counts.set(counts.get() + 1));
        first(|| panic!("a thread asks once"));
        let (here, mut there) = tokio::io::duplex(64);
        let mut corked = Corked::new(here);
        // Held once, and sent then.
        SENDS.set((MUCH, 0));
        let mut writes = Box::pin(corked.write_all(b"x"));
        assert!(futures_util::poll!(&mut writes).is_pending());
        assert_eq!(done.get(), 0, "nothing has left yet");
        writes.await.unwrap();
        assert_eq!((done.get(), there.read_u8().await.unwrap()), (1, b'x'));
        turn();
        assert_eq!(done.get(), 2);
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
