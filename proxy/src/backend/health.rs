//! Whether backends answer, seen by asking each address every ten seconds where its kind has a place for that.
//!
//! It only informs: routing by health comes with pools. One thread asks for all configurations, and it alone writes the
//! gauges: those of a backend that is no longer configured vanish, instead of alarming for ever.

use super::{Backend, Endpoint, http};
use ::http::{HeaderValue, Request, header};
use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use prometheus::{IntGaugeVec, Opts, Registry};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(5);

/// The backends that are asked, and what is told of them.
pub(super) struct Watch {
    now: Mutex<Vec<Arc<Backend>>>,
    up: IntGaugeVec,
    in_flight: IntGaugeVec,
}

/// Labels of a gauge: backend and target.
type Labels = HashSet<(Arc<str>, Arc<str>)>;

impl Watch {
    /// Starts the thread that asks. It ends with what this returns.
    pub fn start(registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let family = IntGaugeVec::new(Opts::new(name, help), &["backend", "target"])?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let up = gauge("tidegate_backend_up", "1 when the backend's last probe succeeded.")?;
        let in_flight = gauge("tidegate_backend_in_flight", "Requests a backend has and has not finished.")?;
        let watch = Arc::new(Self { now: Mutex::default(), up, in_flight });
        let weak = Arc::downgrade(&watch);
        let run = move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
            tokio::task::LocalSet::new().block_on(&runtime, rounds(weak));
        };
        if let Err(error) = std::thread::Builder::new().name("health".into()).spawn(run) {
            tracing::warn!(%error, "backends are not probed: the thread could not be started");
        }
        Ok(watch)
    }

    /// Asks these from now on.
    pub fn settle(&self, backends: Vec<Arc<Backend>>) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = backends;
    }
}

async fn rounds(watch: Weak<Watch>) {
    let (mut up, mut in_flight) = (Labels::new(), Labels::new());
    // When each address was asked last, by its id: a new one is asked at once.
    let mut asked = HashMap::<usize, Instant>::new();
    while let Some(watch) = watch.upgrade() {
        let backends = watch.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        forget(&watch.up, &mut up, backends.iter().filter(|backend| is_known(backend)));
        forget(&watch.in_flight, &mut in_flight, backends.iter());
        let mut probes = Vec::new();
        for (backend, endpoint) in
            backends.iter().flat_map(|of| of.endpoints.iter().map(move |endpoint| (of, endpoint)))
        {
            let id = endpoint.address.id;
            if let Some(path) = backend.traits.health
                && asked.get(&id).is_none_or(|last| last.elapsed() >= EVERY)
            {
                asked.insert(id, Instant::now());
                probes.push(probe(&watch, backend, endpoint, path));
            }
        }
        backends.iter().for_each(|backend| count(&watch, backend));
        join_all(probes).await;
        let named =
            |id: &usize| backends.iter().flat_map(|of| &of.endpoints).any(|endpoint| endpoint.address.id == *id);
        asked.retain(|id, _| named(id));
        http::tidy();
        drop((backends, watch));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Whether it can be said that it is up.
fn is_known(backend: &Backend) -> bool {
    backend.local.is_some() || backend.traits.health.is_some()
}

/// Takes away the gauges that are not of these backends.
fn forget<'a>(gauge: &IntGaugeVec, shown: &mut Labels, backends: impl Iterator<Item = &'a Arc<Backend>>) {
    let now: Labels =
        backends.flat_map(|backend| backend.targets().map(|target| (backend.name.clone(), target))).collect();
    for (backend, target) in shown.difference(&now) {
        let _ = gauge.remove_label_values(&[&**backend, &**target]);
    }
    *shown = now;
}

fn count(watch: &Watch, backend: &Backend) {
    if let Some(local) = &backend.local {
        watch.up.with_label_values(&[&backend.name, &backend.name]).set(i64::from(local.is_ready()));
        watch.in_flight.with_label_values(&[&backend.name, &backend.name]).set(local.in_flight() as i64);
    }
    for endpoint in &backend.endpoints {
        let busy = endpoint.address.in_flight.load(Ordering::Relaxed);
        watch.in_flight.with_label_values(&[&backend.name, &endpoint.label]).set(busy as i64);
    }
}

async fn probe(watch: &Watch, backend: &Backend, endpoint: &Endpoint, path: &'static str) {
    let gauge = watch.up.with_label_values(&[&backend.name, &endpoint.label]);
    let answers = tokio::time::timeout(LIMIT, ask(backend, endpoint, path)).await.unwrap_or(false);
    if (gauge.get() == 1) != answers {
        tracing::info!(target = &*endpoint.label, up = answers, "a backend's health changed");
    }
    gauge.set(i64::from(answers));
}

async fn ask(backend: &Backend, endpoint: &Endpoint, path: &'static str) -> bool {
    let address = &endpoint.address;
    let Ok(mut request) = Request::get(address.uri(path)).body(Full::new(Bytes::new())) else { return false };
    if !address.http2 {
        request.headers_mut().insert(header::HOST, address.host.clone());
    }
    request
        .headers_mut()
        .insert(header::USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
    if let Some((name, value)) = &backend.credentials {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    match http::send(address, || request.clone(), backend.traits.idle, backend.timeouts.connect.0).await {
        Ok((head, mut body)) => {
            while let Some(Ok(_)) = body.data().await {}
            head.status().is_success()
        }
        Err(_) => false,
    }
}
