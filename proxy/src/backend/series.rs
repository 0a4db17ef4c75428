//! What is told of backends and of tries, as metrics.

use super::endpoints::{Endpoints, Now};
use super::standing::{Aside, now};
use super::{Backend, Endpoint};
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Their families.
pub(super) struct Series {
    pub up: IntGaugeVec,
    in_flight: IntGaugeVec,
    breaker: IntGaugeVec,
    aside: IntGaugeVec,
    first_token: GaugeVec,
    /// Further tries: model, backend that failed before, why.
    pub retries: IntCounterVec,
    /// Tries at a fallback: model, backend that is tried, why.
    pub fallbacks: IntCounterVec,
    /// Streams that two targets were asked for: model, which of them answered.
    pub hedges: IntCounterVec,
    /// Further tries that were not made because the backend cannot bear more.
    pub exhausted: IntCounterVec,
    addresses: IntGaugeVec,
    models: IntGaugeVec,
    /// Lists of models that an address did not give.
    pub lists_failed: IntCounterVec,
    /// Lookups of a backend's name that gave nothing, and watches of its Service that failed.
    pub lookups_failed: IntCounterVec,
}

/// A backend and its addresses as a round sees them. All of it goes by one look: of an address that came after it and has gone
/// before the next, nobody would know that its gauges must go.
pub(super) type Seen<'a> = (&'a Arc<Backend>, Now<'a>);

/// Labels of gauges that are shown: backend and target.
pub(super) type Labels = HashSet<(Arc<str>, Arc<str>)>;

/// Whether a model is in memory, as a label.
const STATES: [&str; 2] = ["loaded", "cold"];

/// Why a target goes last, as a label.
const REASONS: [(Aside, &str); 4] =
    [(Aside::Failing, "failing"), (Aside::Down, "down"), (Aside::NotReady, "not_ready"), (Aside::Full, "full")];

impl Series {
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let target = ["backend", "target"];
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        Ok(Self {
            up: gauge("tidegate_backend_up", "1 when the backend's last probe succeeded.", &target)?,
            in_flight: gauge("tidegate_backend_in_flight", "Requests a backend has and has not finished.", &target)?,
            breaker: gauge(
                "tidegate_breaker_state",
                "0 closed, 1 half open: a trial is due or under way, 2 open.",
                &target,
            )?,
            aside: gauge(
                "tidegate_backend_set_aside",
                "1 for the reason why a target is tried after all others.",
                &["backend", "target", "reason"],
            )?,
            first_token: {
                let help = "Seconds to the first token of late: a fading average over streams.";
                register(registry, GaugeVec::new(Opts::new("tidegate_backend_latency_ewma_seconds", help), &target)?)?
            },
            retries: counter(
                "tidegate_retries_total",
                "Tries at another target of the model, by the backend that failed before and why.",
                &["model", "backend", "reason"],
            )?,
            fallbacks: counter(
                "tidegate_fallbacks_total",
                "Tries at a fallback of the model, by the backend that is tried and why.",
                &["model", "backend", "reason"],
            )?,
            hedges: counter(
                "tidegate_hedges_total",
                "Streams that a second target was asked for while the first had not begun, by which of them was faster.",
                &["model", "winner"],
            )?,
            exhausted: counter(
                "tidegate_retry_budget_exhausted_total",
                "Further tries that were not made, because the backend had enough of them.",
                &["backend"],
            )?,
            addresses: gauge(
                "tidegate_discovered_addresses",
                "Addresses that a backend's name stands for.",
                &["backend"],
            )?,
            models: gauge(
                "tidegate_discovered_models",
                "Models that an address lists, by whether they are in its memory.",
                &["backend", "target", "state"],
            )?,
            lists_failed: counter(
                "tidegate_discovery_list_failures_total",
                "Questions for the list of models that an address did not answer; the list it gave before is kept.",
                &["backend"],
            )?,
            lookups_failed: counter(
                "tidegate_discovery_lookup_failures_total",
                "Lookups of a backend's name that gave no address, and watches of its Service that failed; the addresses known \
                 before are kept.",
                &["backend"],
            )?,
        })
    }

    /// Takes away the gauges of targets that are not there any more.
    pub fn forget(&self, shown: &mut Labels, seen: &[Seen<'_>]) {
        let targets = |(backend, endpoints): &Seen<'_>| {
            // Its own name where it is this process, or where no address is known.
            let own = endpoints.is_empty().then(|| backend.name.clone());
            let labels = own.into_iter().chain(endpoints.iter().map(|endpoint| endpoint.label.clone()));
            labels.map(|target| (backend.name.clone(), target)).collect::<Vec<_>>()
        };
        let now: Labels = seen.iter().flat_map(targets).collect();
        for (backend, target) in shown.difference(&now) {
            if !now.iter().any(|(other, _)| other == backend) {
                let _ = self.addresses.remove_label_values(&[&**backend]);
            }
            let labels = [&**backend, &**target];
            for gauge in [&self.up, &self.in_flight, &self.breaker] {
                let _ = gauge.remove_label_values(&labels);
            }
            let _ = self.first_token.remove_label_values(&labels);
            for state in STATES {
                let _ = self.models.remove_label_values(&[labels[0], labels[1], state]);
            }
            for (_, reason) in REASONS {
                let _ = self.aside.remove_label_values(&[labels[0], labels[1], reason]);
            }
        }
        *shown = now;
    }

    /// Says how these addresses of a backend stand.
    pub fn show(&self, backend: &Backend, endpoints: &[Endpoint]) {
        let name = &*backend.name;
        if let Some(local) = &backend.local {
            self.up.with_label_values(&[name, name]).set(i64::from(local.is_ready()));
            self.in_flight.with_label_values(&[name, name]).set(local.in_flight() as i64);
        }
        let now = now();
        if matches!(backend.endpoints, Endpoints::Named(_)) {
            self.addresses.with_label_values(&[name]).set(endpoints.len() as i64);
        } else {
            let _ = self.addresses.remove_label_values(&[name]);
        }
        for endpoint in endpoints {
            let (labels, standing) = ([name, &*endpoint.label], &endpoint.address.standing);
            self.in_flight.with_label_values(&labels).set(endpoint.address.in_flight.load(Ordering::Relaxed) as i64);
            self.breaker.with_label_values(&labels).set(standing.breaker.state(now) as i64);
            self.first_token.with_label_values(&labels).set(standing.first_token(now));
            let aside = standing.aside(now);
            for (why, reason) in REASONS {
                self.aside.with_label_values(&[labels[0], labels[1], reason]).set(i64::from(aside == Some(why)));
            }
        }
    }

    /// Says how many models these addresses of a backend list.
    pub fn stock(&self, backend: &Backend, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            let list = endpoint.address.list.load().clone().filter(|_| backend.lists.is_some());
            for (loaded, state) in [true, false].into_iter().zip(STATES) {
                let labels = [&*backend.name, &*endpoint.label, state];
                match &list {
                    Some(list) => {
                        let models = list.iter().filter(|listed| listed.loaded == loaded).count();
                        self.models.with_label_values(&labels).set(models as i64);
                    }
                    None => {
                        let _ = self.models.remove_label_values(&labels);
                    }
                }
            }
        }
    }

    /// These addresses of a backend are not probed any more.
    pub fn unknown(&self, backend: &Backend, endpoints: &[Endpoint]) {
        for endpoint in endpoints {
            let _ = self.up.remove_label_values(&[&*backend.name, &*endpoint.label]);
        }
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, family: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Backends, Kept};
    use std::net::SocketAddr;

    #[test]
    fn an_address_that_comes_and_goes_within_a_round_leaves_nothing() {
        let config = serde_json::json!({ "gpu": {"kind": "vllm", "dns": "http://replicas:8000"} });
        let config = serde_json::from_value(config).unwrap();
        let backends = Backends::build(&config, &Kept::default()).unwrap();
        let backend = &backends.by_name["gpu"];
        let Endpoints::Named(name) = &backend.endpoints else { panic!("it has a name") };
        let registry = Registry::new();
        let series = Series::register(&registry).unwrap();
        let mut shown = Labels::new();
        // What a round finds, and what comes meanwhile.
        for (found, then) in [(1, 2), (3, 4), (3, 3)] {
            let stands_for = |last: u8| name.stands_for(vec![SocketAddr::from(([10, 0, 0, last], 8000))]);
            stands_for(found);
            let seen = [(backend, backend.endpoints())];
            series.forget(&mut shown, &seen);
            stands_for(then);
            series.show(backend, &seen[0].1);
            series.stock(backend, &seen[0].1);
        }
        let told = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let count = |target: &str| told.matches(&format!("target=\"gpu/{target}\"")).count();
        assert!(count("10.0.0.3") > 0, "{told}");
        assert_eq!(count("10.0.0.1") + count("10.0.0.2") + count("10.0.0.4"), 0, "{told}");
    }
}
