//! How many requests are served at the same time, as a tower service: a stream counts until its last byte. And how many
//! connections there may be.
//!
//! What is too much of them is met in two ways. A request is refused, so that its client can go elsewhere. A connection is left
//! in the kernel's queue until another ends: it cannot be told why it would be closed, most that are open are idle and end by
//! themselves within seconds, and who gives up waiting leaves nothing here.

use super::paths;
use super::requests::Requests;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use prometheus::{IntGauge, IntGaugeVec, Opts, Registry};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tower::Service;

/// More than so many are for the operator to allow: each connection may hold a hundred kilobytes.
const MANY_FILES: u64 = 65_536;
/// Files that the gateway has open for itself: listeners, books, journals, runtimes.
const OWN_FILES: usize = 100;

/// Connections of clients, of all workers.
pub(super) struct Connections {
    open: IntGauge,
    most: AtomicUsize,
}

impl Connections {
    pub fn new(most: usize, registry: &Registry) -> Self {
        let open = IntGauge::new("tidegate_connections", "Connections of clients to the API, idle ones included.")
            .expect("the name is a constant");
        let _ = registry.register(Box::new(open.clone()));
        Self { open, most: AtomicUsize::new(most) }
    }

    /// Another one has been taken.
    pub fn begin(&self) {
        self.open.inc();
    }

    /// One is closed.
    pub fn end(&self) {
        self.open.dec();
    }

    /// No other one may be taken.
    pub fn are_full(&self) -> bool {
        usize::try_from(self.open.get()).unwrap_or(0) >= self.most.load(Ordering::Relaxed)
    }

    /// There may be so many from now on.
    pub fn settle(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }
}

/// Lets this process open as many files as it may, up to 65,536. The 1,024 that most systems begin with are for programs
/// that break with more (`select(2)`); who is not one is meant to ask.
pub fn raise_open_files() {
    let limits = getrlimit(Resource::Nofile);
    let most = limits.maximum.unwrap_or(MANY_FILES).min(MANY_FILES);
    if limits.current.is_some_and(|files| files < most) {
        // Refused by a sandbox, it is as it was: `server.max_connections` goes by what is in force.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(most), ..limits });
    }
}

/// As many connections as the files allow that this process may open.
pub(super) fn connections_by_files() -> usize {
    // Where there is no limit, the system says when it is too much.
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |files| connections(usize::try_from(files).unwrap_or(usize::MAX)))
}

/// Each may need another file, for a connection to a backend.
fn connections(files: usize) -> usize {
    (files.saturating_sub(OWN_FILES).max(files / 2) / 2).max(1)
}

/// Marks a request beyond the limit; the service below answers it in the caller's dialect.
#[derive(Debug, Clone, Copy)]
pub(super) struct Full;

/// Counts requests and marks those beyond the limit.
pub(super) struct InFlight {
    count: AtomicUsize,
    limit: AtomicUsize,
    /// One for each class of paths.
    gauges: [IntGauge; paths::CLASSES.len()],
}

impl InFlight {
    pub fn new(limit: usize, registry: &Registry) -> Self {
        let gauge = IntGaugeVec::new(
            Opts::new("tidegate_in_flight", "Requests being served, streams included."),
            &["endpoint"],
        )
        .expect("the name and labels are constants");
        let _ = registry.register(Box::new(gauge.clone()));
        let gauges = paths::CLASSES.map(|class| gauge.with_label_values(&[class]));
        Self { count: AtomicUsize::new(0), limit: AtomicUsize::new(limit), gauges }
    }

    /// Around the service of one connection: notes in `requests` whether it has requests.
    pub fn around<S>(self: &Arc<Self>, inner: S, requests: &Rc<Requests>) -> Counted<S> {
        Counted { inner, limit: self.clone(), requests: requests.clone() }
    }

    /// Takes so many from now on.
    pub fn settle(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }
}

/// See [`InFlight::around`].
pub(super) struct Counted<S> {
    inner: S,
    limit: Arc<InFlight>,
    requests: Rc<Requests>,
}

impl<S, In, Out> Service<Request<In>> for Counted<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
{
    type Response = Response<Guarded<Out>>;
    type Error = S::Error;
    type Future = Counting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<In>) -> Self::Future {
        let limit = &self.limit;
        let before = limit.count.fetch_add(1, Ordering::Relaxed);
        if before >= limit.limit.load(Ordering::Relaxed) {
            request.extensions_mut().insert(Full);
        }
        let class = paths::class(&paths::read(&request));
        limit.gauges[class].inc();
        self.requests.begin();
        let guard = Guard { limit: limit.clone(), class, requests: self.requests.clone() };
        Counting { inner: self.inner.call(request), guard: Some(guard) }
    }
}

/// A place among the requests that are served.
pub(super) struct Guard {
    limit: Arc<InFlight>,
    class: usize,
    requests: Rc<Requests>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.limit.count.fetch_sub(1, Ordering::Relaxed);
        self.limit.gauges[self.class].dec();
        self.requests.end();
    }
}

pin_project_lite::pin_project! {
    /// A request being answered.
    pub(super) struct Counting<F> {
        #[pin]
        inner: F,
        guard: Option<Guard>,
    }
}

impl<F, Out, E> Future for Counting<F>
where
    F: Future<Output = Result<Response<Out>, E>>,
{
    type Output = Result<Response<Guarded<Out>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = std::task::ready!(this.inner.poll(cx));
        let guard = this.guard.take();
        Poll::Ready(response.map(|response| response.map(|body| Guarded { body, _guard: guard })))
    }
}

/// A body that counts as long as it lives.
pub(super) struct Guarded<B> {
    body: B,
    _guard: Option<Guard>,
}

impl<B: Body<Data = Bytes> + Unpin> Body for Guarded<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_backends() {
        for (files, expect) in [(1, 1), (64, 16), (1_024, 462), (65_536, 32_718)] {
            assert_eq!(connections(files), expect, "{files}");
        }
    }
}
