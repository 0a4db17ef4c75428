//! TLS handshakes of clients: within a time, no more than a number of them at once, and counted where they fail.
//!
//! They run where their connection will be served, so that whoever accepts is never held up by a slow client or by the
//! signature of a large key. What a client is shown is decided when its handshake begins; a connection keeps it.

use super::Papers;
use arc_swap::ArcSwapOption;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::Error;
use tokio_rustls::server::TlsStream;

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// The client left in the middle of it.
    Closed,
    /// It took too long.
    Timeout,
    /// It did not begin one: plain HTTP, mostly.
    NotTls,
    /// It sent no certificate, and has to.
    NoCertificate,
    /// Its certificate does not count here.
    BadCertificate,
    /// It did not like ours.
    Refused,
    /// The two have no version, cipher or protocol in common.
    Incompatible,
    /// There were too many at the same time.
    Overloaded,
    /// Something else.
    Other,
}

/// In the order of [`Reason`].
const REASONS: [&str; 9] = [
    "closed",
    "timeout",
    "not_tls",
    "no_certificate",
    "bad_certificate",
    "refused",
    "incompatible",
    "overloaded",
    "other",
];

/// The first byte of a TLS record that begins a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;
/// For who speaks plain HTTP to a listener with TLS.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 35\r\nconnection: close\r\n\r\n\
      This port speaks TLS: use https://\n";

/// The families of all listeners.
#[derive(Debug, Clone)]
pub struct Series {
    failures: IntCounterVec,
    expiry: IntGaugeVec,
}

impl Series {
    /// Registers them.
    ///
    /// # Errors
    /// They are registered already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let failures =
            Opts::new("tidegate_tls_handshake_failures_total", "TLS handshakes of clients that failed, by reason.");
        let expiry = Opts::new(
            "tidegate_certificate_expiry_timestamp_seconds",
            "When a listener's certificate, or the first of its issuers', expires, in seconds since 1970.",
        );
        let series = Self {
            failures: IntCounterVec::new(failures, &["listener", "reason"])?,
            expiry: IntGaugeVec::new(expiry, &["listener"])?,
        };
        registry.register(Box::new(series.failures.clone()))?;
        registry.register(Box::new(series.expiry.clone()))?;
        Ok(series)
    }
}

/// The handshakes of one listener.
pub struct Handshakes {
    listener: &'static str,
    series: Series,
    papers: ArcSwapOption<Papers>,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Handshakes {
    /// Of a listener that speaks plainly until it is given papers.
    pub fn new(listener: &'static str, series: Series) -> Self {
        Self {
            listener,
            series,
            papers: ArcSwapOption::empty(),
            under_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }
    }

    /// Shows these from now on, or nothing; `most` is how many clients may be at it at the same time. Returns whether the
    /// papers are others than before.
    pub fn settle(&self, papers: Option<Papers>, most: usize) -> bool {
        self.most.store(most, Ordering::Relaxed);
        let before = self.papers.load();
        if before.as_deref() == papers.as_ref() {
            // Sessions can be resumed with the one that began them only.
            return false;
        }
        if let Some(papers) = &papers {
            for reason in REASONS {
                self.failures(reason);
            }
            let expires = papers.expires().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.expiry().set(expires.as_secs() as i64);
        } else {
            let _ = self.series.expiry.remove_label_values(&[self.listener]);
        }
        self.papers.store(papers.map(Arc::new));
        true
    }

    /// What is shown now; `None`: this listener speaks plainly.
    pub fn papers(&self) -> Option<Arc<Papers>> {
        self.papers.load_full()
    }

    /// Makes TLS of a connection, within this time. Where that fails it is counted, and the connection closed.
    pub async fn take(&self, papers: &Papers, stream: TcpStream, limit: Duration) -> Option<TlsStream<TcpStream>> {
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        let _place = Place(&self.under_way);
        let taken = if before >= self.most.load(Ordering::Relaxed) {
            Err((Reason::Overloaded, None))
        } else {
            let shaken = tokio::time::timeout(limit, shake(papers, stream)).await;
            shaken.unwrap_or(Err((Reason::Timeout, None)))
        };
        match taken {
            Ok(stream) => stream,
            Err((reason, error)) => {
                let reason = REASONS[reason as usize];
                self.failures(reason).inc();
                let error = error.map(|error| error.to_string()).unwrap_or_default();
                tracing::debug!(listener = self.listener, reason, error, "a TLS handshake failed");
                None
            }
        }
    }

    fn failures(&self, reason: &str) -> IntCounter {
        self.series.failures.with_label_values(&[self.listener, reason])
    }

    fn expiry(&self) -> IntGauge {
        self.series.expiry.with_label_values(&[self.listener])
    }
}

/// One of those under way.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

type Failed = (Reason, Option<io::Error>);

/// `None`: the client has closed without a word, as probes of a port do. That is no handshake.
async fn shake(papers: &Papers, mut stream: TcpStream) -> Result<Option<TlsStream<TcpStream>>, Failed> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(0) | Err(_) => return Ok(None),
        Ok(_) if first != [HANDSHAKE] => {
            // Said plainly: a TLS alert would be noise to it.
            let _ = stream.write_all(NOT_TLS).await;
            let _ = stream.shutdown().await;
            read_out(&mut stream).await;
            return Err((Reason::NotTls, None));
        }
        Ok(_) => {}
    }
    // Boxed: it is large, and the connection's own future would be as large for its whole life.
    let shaken = Box::pin(TlsAcceptor::from(papers.tls.clone()).accept(stream)).await;
    shaken.map(Some).map_err(|error| (reason(&error), Some(error)))
}

/// Takes what still comes, so that closing is no reset, which could overtake the answer.
async fn read_out(stream: &mut TcpStream) {
    let read = async {
        let mut rest = [0; 4096];
        while matches!(tokio::io::AsyncReadExt::read(stream, &mut rest).await, Ok(read) if read > 0) {}
    };
    let _ = tokio::time::timeout(Duration::from_millis(500), read).await;
}

fn reason(error: &io::Error) -> Reason {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::NoCertificatesPresented) => Reason::NoCertificate,
        Some(Error::InvalidCertificate(_)) => Reason::BadCertificate,
        Some(Error::AlertReceived(_)) => Reason::Refused,
        Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => Reason::Incompatible,
        Some(_) => Reason::Other,
        None => Reason::Closed,
    }
}
