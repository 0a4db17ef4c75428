//! Whether backends answer, seen by asking each address every ten seconds where its kind has a place for that.
//!
//! It only informs: routing by health comes with pools.

use super::{Backend, Endpoint, http};
use ::http::{HeaderValue, Request, header};
use bytes::Bytes;
use http_body_util::Full;
use prometheus::IntGaugeVec;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(5);

/// Starts the thread that asks. It ends with the backends.
pub(super) fn watch(backends: Vec<Arc<Backend>>, up: IntGaugeVec, in_flight: IntGaugeVec) {
    let backends: Vec<Weak<Backend>> = backends.iter().map(Arc::downgrade).collect();
    let run = move || {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
        tokio::task::LocalSet::new().block_on(&runtime, async move {
            let mut round = 0_u64;
            loop {
                let alive: Vec<_> = backends.iter().filter_map(Weak::upgrade).collect();
                if alive.is_empty() {
                    return;
                }
                for backend in alive {
                    look(&backend, round.is_multiple_of(EVERY.as_secs()), &up, &in_flight).await;
                }
                round += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
    };
    if let Err(error) = std::thread::Builder::new().name("health".into()).spawn(run) {
        tracing::warn!(%error, "backends are not probed: the thread could not be started");
    }
}

async fn look(backend: &Arc<Backend>, probe: bool, up: &IntGaugeVec, in_flight: &IntGaugeVec) {
    if let Some(local) = &backend.local {
        up.with_label_values(&[&backend.name, &backend.name]).set(i64::from(local.is_ready()));
        in_flight.with_label_values(&[&backend.name, &backend.name]).set(local.in_flight() as i64);
    }
    for endpoint in &backend.endpoints {
        in_flight
            .with_label_values(&[&*backend.name, &*endpoint.label])
            .set(endpoint.in_flight.load(Ordering::Relaxed) as i64);
        let (true, Some(path)) = (probe, backend.traits.health) else { continue };
        let gauge = up.with_label_values(&[&*backend.name, &*endpoint.label]);
        let answers = tokio::time::timeout(LIMIT, ask(backend, endpoint, path)).await.unwrap_or(false);
        if (gauge.get() == 1) != answers {
            tracing::info!(target = &*endpoint.label, up = answers, "a backend's health changed");
        }
        gauge.set(i64::from(answers));
    }
}

async fn ask(backend: &Backend, endpoint: &Arc<Endpoint>, path: &'static str) -> bool {
    let Ok(mut request) = Request::get(endpoint.uri(path)).body(Full::new(Bytes::new())) else { return false };
    if !endpoint.http2 {
        request.headers_mut().insert(header::HOST, endpoint.host.clone());
    }
    request
        .headers_mut()
        .insert(header::USER_AGENT, HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION"))));
    if let Some((name, value)) = &backend.credentials {
        request.headers_mut().insert(name.clone(), value.clone());
    }
    match http::send(endpoint, || request.clone(), backend.traits.idle, backend.timeouts.connect.0).await {
        Ok((head, mut body)) => {
            while let Some(Ok(_)) = body.data().await {}
            head.status().is_success()
        }
        Err(_) => false,
    }
}
