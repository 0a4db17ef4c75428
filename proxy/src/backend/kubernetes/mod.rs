//! Backends behind a Service of Kubernetes, whose EndpointSlices its API lists and then tells the changes of.
//!
//! What goes wrong ends a watch, and the next begins with a list. That costs more than to go on where the last one ended, but
//! slices of one Service are few; and it is how one knows that the API answers, since a watch may be silent for hours
//! (docs/decisions/0020-discovery.md).

mod slices;

use super::endpoint::shown;
use super::health;
use super::names::Name;
use crate::trust;
use futures_util::StreamExt as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::Status;
use kube::runtime::reflector;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use std::error::Error;
use std::pin::pin;
use std::sync::Weak;
use std::time::Duration;

/// The label by which slices say whose they are.
const OF_SERVICE: &str = "kubernetes.io/service-name";
/// The pause behind a watch that failed: the first one, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// A watch that has not failed for so long works: one that is refused is refused at once.
const HOLDS: Duration = Duration::from_secs(2);
/// After so many seconds the API ends a watch, and a new one goes on where it was.
const WATCH: u32 = 60;
/// An API that is silent for longer is gone, as it would have ended the watch.
const SILENCE: Duration = Duration::from_secs(75);
const CONNECT: Duration = Duration::from_secs(5);

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    name: String,
    /// `None`: the gateway's own.
    namespace: Option<String>,
}

impl Service {
    /// Reads it from a URL whose host is `NAME`, `NAME.NAMESPACE` or what DNS calls it: `NAME.NAMESPACE.svc`, and whatever the
    /// cluster is called behind that.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(url: &str) -> Result<Self, String> {
        let shown = shown(url);
        let uri: http::Uri = url.parse().map_err(|error| format!("{shown} is no URL: {error}"))?;
        let mut labels = uri.host().unwrap_or_default().split('.');
        let (name, namespace, svc) = (labels.next().unwrap_or_default(), labels.next(), labels.next());
        let is_label = |label: &str| {
            let inside = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'-';
            (1..=63).contains(&label.len())
                && label.bytes().all(inside)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if !is_label(name) || !namespace.is_none_or(is_label) || svc.is_some_and(|svc| svc != "svc") {
            return Err(format!("{shown} must name a Service: http://SERVICE:PORT, http://SERVICE.NAMESPACE:PORT"));
        }
        Ok(Self { name: name.to_owned(), namespace: namespace.map(str::to_owned) })
    }
}

/// How a watch ended.
enum Ended {
    /// Nobody uses the name any more.
    Unused,
    /// The API has forgotten where it was, which is nothing wrong: it wants to be asked for a list.
    Gone,
    Failed(String),
}

/// What outlives a watch.
struct Course {
    /// Until the next one begins.
    pause: Duration,
    /// What of the Service was last said to be of no use.
    unusable: Option<String>,
}

/// Keeps a name at the endpoints of a Service, for as long as there is somebody who uses it.
pub(super) async fn follow(service: Service, name: Weak<Name>, watch: Weak<health::Watch>) {
    let mut course = Course { pause: PAUSES.0, unusable: None };
    loop {
        let ended = follow_once(&service, &name, &mut course).await;
        let Some(name) = name.upgrade() else { return };
        if let Ended::Failed(error) = ended {
            name.count_failure(&watch);
            if name.fails() {
                let (backend, service, kept) = (&*name.backend, &*service.name, name.found().len());
                tracing::warn!(
                    backend,
                    service,
                    error,
                    kept,
                    "Kubernetes does not say where a backend is; its addresses are kept"
                );
            }
        }
        drop(name);
        // Those that lost the API together do not come back together, either.
        tokio::time::sleep(course.pause.mul_f64(health::apart())).await;
        course.pause = (course.pause * 2).min(PAUSES.1);
    }
}

/// One list, and what changes after it.
async fn follow_once(service: &Service, name: &Weak<Name>, course: &mut Course) -> Ended {
    let api = match slices_of(service).await {
        Ok(api) => api,
        Err(error) => return Ended::Failed(error),
    };
    let wanted = watcher::Config::default().labels(&format!("{OF_SERVICE}={}", service.name)).timeout(WATCH);
    let (known, mut writer) = reflector::store();
    let mut listed = false;
    let mut events = pin!(watcher(api, wanted));
    loop {
        let next = tokio::time::timeout(HOLDS, events.next()).await;
        let Some(name) = name.upgrade() else { return Ended::Unused };
        match next {
            Ok(Some(Ok(event))) => {
                writer.apply_watcher_event(&event);
                if matches!(event, Event::Init | Event::InitApply(_)) {
                    continue;
                }
                let found = slices::read(&known.state(), name.port);
                name.stands_for(found.addresses);
                course.note(&name, service, found.unusable);
                // A list alone is no proof: who may list need not be allowed to watch.
                if std::mem::replace(&mut listed, true) {
                    course.holds(&name, service);
                }
            }
            Ok(Some(Err(error))) => return ended(&error),
            Ok(None) => return Ended::Failed("the watch ended".into()),
            Err(_) if listed => course.holds(&name, service),
            Err(_) => {}
        }
    }
}

impl Course {
    /// The watch works.
    fn holds(&mut self, name: &Name, service: &Service) {
        self.pause = PAUSES.0;
        if name.recovers() {
            let (backend, service) = (&*name.backend, &*service.name);
            tracing::info!(backend, service, "Kubernetes says where a backend is again");
        }
    }

    /// Says what of a Service is of no use, once.
    fn note(&mut self, name: &Name, service: &Service, unusable: Option<String>) {
        if unusable == self.unusable {
            return;
        }
        if let Some(why) = &unusable {
            let (backend, service) = (&*name.backend, &*service.name);
            tracing::warn!(backend, service, why, "a Service has nothing that could be used, or not all of it");
        }
        self.unusable = unusable;
    }
}

/// The API, as this pod or, outside of a cluster, this user may use it.
async fn slices_of(service: &Service) -> Result<Api<EndpointSlice>, String> {
    trust::share_cryptography();
    let mut config = Config::infer().await.map_err(|error| chain(&error))?;
    (config.connect_timeout, config.read_timeout) = (Some(CONNECT), Some(SILENCE));
    // From what is asked on, and not from where a connection had nothing to do.
    config.reset_reader_on_write = true;
    let namespace = service.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|error| chain(&error))?;
    Ok(Api::namespaced(client, &namespace))
}

fn ended(error: &watcher::Error) -> Ended {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    let status: Option<&Status> = match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => Some(status),
        _ => None,
    };
    match status {
        Some(status) if status.code == 410 => Ended::Gone,
        Some(status) if status.code == 403 => Ended::Failed(format!(
            "{}; the gateway's account needs the verbs `list` and `watch` for `endpointslices` of `discovery.k8s.io` there",
            status.message
        )),
        Some(status) => Ended::Failed(format!("{} ({} {})", status.message, status.code, status.reason)),
        None => Ended::Failed(chain(error)),
    }
}

/// An error and what is behind it: the outermost often says no more than that there was one.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut inner = error.source();
    while let Some(error) = inner {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        inner = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_as_dns_names_it() {
        for (url, service) in [
            ("http://vllm:8000", Some(("vllm", None))),
            ("https://vllm.models:8000/", Some(("vllm", Some("models")))),
            ("http://vllm.models.svc:8000", Some(("vllm", Some("models")))),
            ("http://vllm.models.svc.cluster.local:8000", Some(("vllm", Some("models")))),
            ("http://vllm.models.example.com:8000", None),
            ("http://vllm..svc:8000", None),
            ("http://VLLM:8000", None),
            ("http://vllm,app:8000", None),
            ("http://-vllm:8000", None),
            ("http://10.0.0.1:8000", None),
            ("http://[::1]:8000", None),
            ("http:///x", None),
        ] {
            let read = Service::read(url);
            let found = read.as_ref().ok().map(|service| (&*service.name, service.namespace.as_deref()));
            assert_eq!(found, service, "{url}: {read:?}");
        }
    }
}
