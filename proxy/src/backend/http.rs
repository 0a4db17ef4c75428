//! Requests to HTTP backends over connections that each worker thread keeps for itself.
//!
//! A pool of hyper connections per thread, on current-thread runtimes, costs a quarter less per request than a shared client
//! on a work-stealing runtime: nothing is locked, and nothing is woken across cores (docs/decisions/0003-threads.md).

use super::breaker::Rules;
use super::endpoint::Address;
use super::standing::now;
use crate::cork::Corked;
use bytes::{Bytes, BytesMut};
use foldhash::HashMap;
use http::{Request, Response};
use http_body::Body as _;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Idle connections kept per thread and address.
const KEEP: usize = 256;
/// How long a pooled connection may take to be ready for the next request.
const READY: Duration = Duration::from_millis(50);
/// A pooled connection that breaks later than this was not closed idle: the backend had the request.
const STALE: Duration = Duration::from_secs(1);
/// Bytes read ahead of a client that does not read.
const READ_AHEAD: usize = 32 << 10;

type Sender = http1::SendRequest<Full<Bytes>>;

struct Pool {
    of: Weak<Address>,
    idle: Vec<(Sender, Instant)>,
    shared: Option<http2::SendRequest<Full<Bytes>>>,
}

impl Pool {
    fn of(address: &Arc<Address>) -> Self {
        Self { of: Arc::downgrade(address), idle: Vec::new(), shared: None }
    }
}

thread_local! {
    static POOLS: RefCell<HashMap<usize, Pool>> = RefCell::default();
}

/// Closes this thread's idle connections to addresses that no configuration names any more.
pub(super) fn tidy() {
    let named = |pool: &Pool| pool.of.upgrade().is_some_and(|address| !address.gone.load(Ordering::Relaxed));
    // Dropped outside the borrow: what that sets off may want a pool.
    let unnamed: Vec<Pool> =
        POOLS.with_borrow_mut(|pools| pools.extract_if(|_, pool| !named(pool)).map(|(_, pool)| pool).collect());
    drop(unnamed);
}

/// Why a backend gave no reply.
#[derive(Debug)]
pub enum Failure {
    /// No connection could be made.
    Connect(std::io::Error),
    /// The connection broke before the reply's head.
    Broken(hyper::Error),
    /// The reply ended before it began.
    Empty,
    /// No reply within the time limit.
    Slow,
}

/// The reply's body, with the connection it comes over: handed back to the pool when it was read to its end, closed otherwise,
/// which is how a backend learns that nobody listens any more.
pub struct Body {
    incoming: Incoming,
    lease: Option<Sender>,
    /// Read already, and not given yet. Boxed: only streams have it.
    first: Option<Box<Bytes>>,
    busy: Busy,
    /// The reply of a request, not of a probe: how it goes on says something of the address.
    watched: Option<Arc<Rules>>,
    /// When a stream was asked for, until its first bytes have come; 0: nobody wants to know.
    began: u64,
}

/// Counts a request in flight at an address.
pub struct Busy(Arc<Address>);

impl Busy {
    /// Counts from now until it is dropped.
    pub fn new(address: &Arc<Address>) -> Self {
        address.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(address.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Body {
    /// The next bytes; `None` at the end.
    pub fn poll_data(
        &mut self,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Bytes, hyper::Error>>> {
        if let Some(first) = self.first.take() {
            return std::task::Poll::Ready(Some(Ok(*first)));
        }
        loop {
            match std::task::ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.saw();
                        return std::task::Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(error)) => {
                    if let Some(rules) = self.watched.take() {
                        self.busy.0.standing.breaker.cut(now(), &rules);
                    }
                    return std::task::Poll::Ready(Some(Err(error)));
                }
                None => {
                    self.hand_back();
                    return std::task::Poll::Ready(None);
                }
            }
        }
    }

    /// The next bytes; `None` at the end.
    pub async fn data(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// Waits for the first bytes. They are given once more when it is read.
    ///
    /// # Errors
    /// It broke off, or ended, before there were any.
    pub(super) async fn begin(&mut self) -> Result<&Bytes, Failure> {
        match self.data().await {
            Some(Ok(first)) => Ok(self.first.insert(Box::new(first))),
            Some(Err(error)) => Err(Failure::Broken(error)),
            None => Err(Failure::Empty),
        }
    }

    /// All of it; `None` where it is longer than `most` bytes. What comes in one piece is not copied.
    ///
    /// # Errors
    /// It broke off.
    pub async fn whole(&mut self, most: usize) -> Result<Option<Bytes>, hyper::Error> {
        let (mut whole, mut joined) = (Bytes::new(), BytesMut::new());
        while let Some(read) = self.data().await {
            let data = read?;
            if whole.len() + joined.len() + data.len() > most {
                return Ok(None);
            }
            if whole.is_empty() && joined.is_empty() {
                whole = data;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut whole));
                joined.extend_from_slice(&data);
            }
        }
        Ok(Some(if joined.is_empty() { whole } else { joined.freeze() }))
    }

    /// It is the reply of a request. `began`: when that was sent, if it is a stream's.
    pub(super) fn watch(&mut self, began: Option<u64>, rules: Arc<Rules>) {
        (self.watched, self.began) = (Some(rules), began.unwrap_or(0));
    }

    /// Something came.
    fn saw(&mut self) {
        let standing = &self.busy.0.standing;
        standing.heard();
        if self.began != 0 {
            let (began, now) = (std::mem::take(&mut self.began), now());
            standing.began(Duration::from_millis(now.saturating_sub(began)), now);
        }
    }

    /// The length the backend declared.
    pub fn declared(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    fn hand_back(&mut self) {
        let address = &self.busy.0;
        if let Some(sender) = self.lease.take()
            && !sender.is_closed()
            && !address.gone.load(Ordering::Relaxed)
        {
            POOLS.with_borrow_mut(|pools| {
                let idle = &mut pools.entry(address.id).or_insert_with(|| Pool::of(address)).idle;
                if idle.len() < KEEP {
                    idle.push((sender, Instant::now()));
                }
            });
        }
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        // The end may have been in the last read without having been asked for.
        if self.incoming.is_end_stream() {
            self.hand_back();
        }
    }
}

/// Sends a request and waits for the reply's head.
///
/// A connection from the pool may have been closed by the backend the moment it was used. If it breaks before any byte of a
/// reply, the request is written once more, for a new one: the backend cannot have begun to answer.
///
/// # Errors
/// See [`Failure`].
pub async fn send(
    address: &Arc<Address>,
    mut request: impl FnMut() -> Request<Full<Bytes>>,
    idle: Duration,
    connect: Duration,
) -> Result<(Response<()>, Body), Failure> {
    let busy = Busy::new(address);
    if address.http2 {
        return Box::pin(send_shared(address, request, connect, busy)).await;
    }
    if let Some(mut sender) = pooled(address, idle).await {
        let began = Instant::now();
        match sender.send_request(request()).await {
            Ok(response) => return Ok(split(response, Some(sender), busy)),
            Err(error) if error.is_user() || !was_idle(&error, began) => {
                return Err(Failure::Broken(error));
            }
            Err(_) => {}
        }
    }
    // Boxed, like everything seldom: the future of every request would be as large as a TLS handshake otherwise, and be copied.
    let mut sender = Box::pin(open(address, connect)).await?;
    let response = sender.send_request(request()).await.map_err(Failure::Broken)?;
    Ok(split(response, Some(sender), busy))
}

/// The connection had been closed while it lay in the pool: the backend cannot have begun to answer.
fn was_idle(error: &hyper::Error, sent: Instant) -> bool {
    error.is_canceled() || sent.elapsed() < STALE
}

async fn pooled(address: &Address, idle: Duration) -> Option<Sender> {
    loop {
        let (mut sender, since) = POOLS.with_borrow_mut(|pools| pools.get_mut(&address.id)?.idle.pop())?;
        if since.elapsed() > idle {
            // The newest is too old, so all are.
            POOLS.with_borrow_mut(|pools| pools.remove(&address.id));
            return None;
        }
        // A connection on which the last request is still being written is of no use now.
        if sender.is_ready() || matches!(tokio::time::timeout(READY, sender.ready()).await, Ok(Ok(()))) {
            return Some(sender);
        }
    }
}

async fn open(address: &Address, limit: Duration) -> Result<Sender, Failure> {
    // Where a name stands for something else now, this is when it is noticed here.
    tidy();
    let stream = address.connect(limit).await.map_err(Failure::Connect)?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(READ_AHEAD);
    let (sender, connection) = builder.handshake(TokioIo::new(Corked::new(stream))).await.map_err(Failure::Broken)?;
    drive(connection);
    Ok(sender)
}

/// Runs a connection on this thread until it ends; its errors surface at the request.
fn drive(connection: impl Future<Output = Result<(), hyper::Error>> + 'static) {
    tokio::task::spawn_local(async move {
        let _ = connection.await;
    });
}

async fn send_shared(
    address: &Arc<Address>,
    mut request: impl FnMut() -> Request<Full<Bytes>>,
    connect: Duration,
    busy: Busy,
) -> Result<(Response<()>, Body), Failure> {
    let shared = POOLS.with_borrow(|pools| pools.get(&address.id).and_then(|pool| pool.shared.clone()));
    if let Some(mut sender) = shared.filter(|sender| !sender.is_closed()) {
        let began = Instant::now();
        match sender.send_request(request()).await {
            Ok(response) => return Ok(split(response, None, busy)),
            Err(error) if !was_idle(&error, began) => return Err(Failure::Broken(error)),
            Err(_) => {}
        }
    }
    let mut sender = open_shared(address, connect).await?;
    Ok(split(sender.send_request(request()).await.map_err(Failure::Broken)?, None, busy))
}

async fn open_shared(address: &Arc<Address>, limit: Duration) -> Result<http2::SendRequest<Full<Bytes>>, Failure> {
    tidy();
    let stream = address.connect(limit).await.map_err(Failure::Connect)?;
    let mut builder = http2::Builder::new(LocalExecutor);
    // Pings notice a peer that is gone; windows bound what is read ahead of a slow client.
    builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(20)).initial_stream_window_size(64 << 10);
    let (sender, connection) = builder.handshake(TokioIo::new(Corked::new(stream))).await.map_err(Failure::Broken)?;
    drive(connection);
    let keep = |pools: &mut HashMap<usize, Pool>| {
        pools.entry(address.id).or_insert_with(|| Pool::of(address)).shared = Some(sender.clone());
    };
    if !address.gone.load(Ordering::Relaxed) {
        POOLS.with_borrow_mut(keep);
    }
    Ok(sender)
}

fn split(response: Response<Incoming>, lease: Option<Sender>, busy: Busy) -> (Response<()>, Body) {
    let (head, incoming) = response.into_parts();
    (Response::from_parts(head, ()), Body { incoming, lease, first: None, busy, watched: None, began: 0 })
}

/// Runs what HTTP/2 spawns on the thread it was spawned from.
#[derive(Clone, Copy, Debug)]
pub struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
