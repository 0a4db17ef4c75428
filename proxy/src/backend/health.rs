//! Whether backends answer, seen by asking each address every ten seconds where its kind has a place for that, and every
//! second one that does not; models of this process are loaded anew when they have stopped.
//!
//! What is found goes to the address's standing, which routing looks at. One thread asks for all configurations, and it alone
//! writes the gauges: those of a backend that is no longer configured vanish, instead of alarming for ever.

use super::names::{self, Name};
use super::series::{Labels, Seen, Series};
use super::standing::{Probe, now};
use super::{Backend, Endpoint, http, listing};
use ::http::{HeaderValue, Request, Response, header};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// How often an address is asked that answered last time.
const EVERY: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(5);

/// The backends that are asked, and what is told of them.
pub(super) struct Watch {
    now: Mutex<Vec<Arc<Backend>>>,
    names: UnboundedSender<Weak<Name>>,
    pub series: Series,
}

impl Watch {
    /// Starts the thread that asks. It ends with what this returns.
    pub fn start(series: Series) -> Arc<Self> {
        let (names, named) = unbounded_channel();
        let watch = Arc::new(Self { now: Mutex::default(), names, series });
        let weak = Arc::downgrade(&watch);
        let failed = |error: std::io::Error| {
            tracing::warn!(%error, "backends are not probed: the thread could not be started");
        };
        let run = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return failed(error),
            };
            let work = async {
                tokio::join!(rounds(weak.clone()), listing::rounds(weak.clone()), names::follow(named, weak.clone()))
            };
            tokio::task::LocalSet::new().block_on(&runtime, work);
        };
        if let Err(error) = std::thread::Builder::new().name("health".into()).spawn(run) {
            failed(error);
        }
        watch
    }

    /// Looks up this name from now on.
    pub fn follow(&self, name: &Arc<Name>) {
        // It fails where the thread could not be started, which was said then.
        let _ = self.names.send(Arc::downgrade(name));
    }

    /// Those that are asked now.
    pub fn backends(&self) -> Vec<Arc<Backend>> {
        self.now.lock().clone()
    }

    /// Asks these from now on.
    pub fn settle(&self, backends: Vec<Arc<Backend>>) {
        *self.now.lock() = backends;
    }
}

/// When an address was asked last, and whether it answered.
type Asked = HashMap<usize, (Instant, bool)>;

async fn rounds(watch: Weak<Watch>) {
    let (mut shown, mut asked) = (Labels::new(), Asked::new());
    while let Some(watch) = watch.upgrade() {
        let backends = watch.backends();
        let targets: Vec<Seen<'_>> = backends.iter().map(|backend| (backend, backend.endpoints())).collect();
        watch.series.forget(&mut shown, &targets);
        for (backend, endpoints) in &targets {
            if backend.local.is_none() && backend.probe().is_none() {
                watch.series.unknown(backend, endpoints);
                endpoints.iter().for_each(|endpoint| endpoint.address.standing.unprobed());
            }
        }
        // A new address is asked at once.
        let is_due = |id| asked.get(&id).is_none_or(|(last, up)| last.elapsed() >= EVERY || !up);
        let endpoints = targets.iter().flat_map(|(of, endpoints)| endpoints.iter().map(move |endpoint| (of, endpoint)));
        let due = endpoints.filter_map(|(backend, endpoint)| Some((backend, endpoint, backend.probe()?)));
        let probes: Vec<_> = due
            .filter(|(_, endpoint, _)| is_due(endpoint.address.id))
            .map(|(backend, endpoint, path)| probe(&watch, backend, endpoint, path))
            .collect();
        let found = join_all(probes).await;
        asked.extend(found);
        for (backend, endpoints) in &targets {
            if let Some(local) = &backend.local {
                local.revive(Instant::now());
            }
            watch.series.show(backend, endpoints);
            watch.series.stock(backend, endpoints);
        }
        let named = |id: &usize| targets.iter().flat_map(|(_, of)| &**of).any(|endpoint| endpoint.address.id == *id);
        asked.retain(|id, _| named(id));
        http::tidy();
        drop(targets);
        drop((backends, watch));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

async fn probe(watch: &Watch, backend: &Backend, endpoint: &Endpoint, path: &'static str) -> (usize, (Instant, bool)) {
    let gauge = watch.series.up.with_label_values(&[&*backend.name, &*endpoint.label]);
    let began = Instant::now();
    let found = tokio::time::timeout(LIMIT, ask(backend, endpoint, path)).await.unwrap_or(Probe::Silent);
    let (address, up) = (&endpoint.address, found == Probe::Up);
    let before = address.standing.aside(now());
    address.standing.probed(found, now());
    if (gauge.get() == 1) != up || before != address.standing.aside(now()) {
        tracing::info!(target = &*endpoint.label, up, ?found, "a backend's health changed");
    }
    gauge.set(i64::from(up));
    (address.id, (began, up))
}

async fn ask(backend: &Backend, endpoint: &Endpoint, path: &'static str) -> Probe {
    match get(backend, endpoint, path).await {
        Ok((head, mut body)) => {
            while let Some(Ok(_)) = body.data().await {}
            match head.status().as_u16() {
                503 => Probe::NotReady,
                500.. => Probe::Down,
                // A server that does not have this path is there all the same.
                _ => Probe::Up,
            }
        }
        Err(http::Failure::Connect(error)) if error.kind() == std::io::ErrorKind::TimedOut => Probe::Silent,
        Err(http::Failure::Slow) => Probe::Silent,
        Err(_) => Probe::Down,
    }
}

/// What a pause is multiplied by: gateways that began together do not ask together for ever.
pub(super) fn apart() -> f64 {
    0.9 + 0.2 * fastrand::f64()
}

/// Asks an address for what is at this path.
pub(super) async fn get(
    backend: &Backend,
    endpoint: &Endpoint,
    path: &'static str,
) -> Result<(Response<()>, http::Body), http::Failure> {
    let address = &endpoint.address;
    let mut request = Request::new(Full::new(Bytes::new()));
    *request.uri_mut() = address.uri(path);
    if !address.http2 {
        request.headers_mut().insert(header::HOST, address.host.clone());
    }
    request
        .headers_mut()
        .insert(header::USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
    if let Some((name, value)) = &backend.credentials {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    http::send(address, || request.clone(), backend.traits.idle, backend.timeouts.connect.0).await
}
