//! Names whose addresses come and go, each of which is a target of its own: looked up again and again, or, where the name is
//! that of a Service of Kubernetes, told by its API (`kubernetes/`).
//!
//! The system's resolver is asked, so that what works for every other program on the host works here: files, search domains,
//! whatever stands in nsswitch.conf. It does not tell how long an answer holds; names that stand for replicas change sooner
//! than most answers say, and so they are asked for at a fixed pace (docs/decisions/0020-discovery.md).

use super::endpoint::{Address, Endpoint};
use super::health::{Watch, apart};
use super::kept::{Addresses, Place};
#[cfg(feature = "kubernetes")]
use super::kubernetes::{self, Service};
use crate::trust::Authorities;
use arc_swap::ArcSwap;
use http::Uri;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::time::Instant;

/// How often a name is looked up that no key says more of.
pub(super) const REFRESH: Duration = Duration::from_secs(10);
/// How often one is that has no address yet: nothing can be served there.
const SOON: Duration = Duration::from_secs(1);

/// Who knows what a name stands for.
#[derive(Clone, PartialEq)]
pub(super) enum Source {
    /// This host's resolver.
    Resolver,
    /// The API of Kubernetes, which tells what changes.
    #[cfg(feature = "kubernetes")]
    Kubernetes(Service),
}

/// A name, and what it stands for at the moment.
pub(super) struct Name {
    pub backend: Arc<str>,
    url: String,
    http2: bool,
    authorities: Option<Authorities>,
    host: String,
    /// Of each address, if nothing else is said.
    pub port: u16,
    source: Source,
    /// How often it is looked up, which may change while it is in use.
    refresh: watch::Sender<Duration>,
    /// Those of all backends: what comes back while something still uses it is what it was.
    addresses: Arc<Addresses>,
    found: ArcSwap<Vec<Endpoint>>,
    /// Its source was asked, whatever came of it.
    asked: AtomicBool,
    /// The source gave nothing when it was asked last.
    failing: AtomicBool,
}

impl Name {
    /// Reads it from the configuration; nobody is asked yet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(
        backend: &Arc<str>,
        url: &str,
        http2: bool,
        authorities: Option<Authorities>,
        source: Source,
        addresses: &Arc<Addresses>,
    ) -> Result<Self, String> {
        // What is wrong with every address is wrong with this one.
        Address::read(url, http2, authorities.as_ref())?;
        let uri: Uri = url.parse().map_err(|error| format!("`{url}` is no address: {error}"))?;
        let host = uri.host().unwrap_or_default().to_owned();
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return Err(format!("`{url}` names an address already; put it into `url`"));
        }
        let port = uri.port_u16().ok_or_else(|| format!("`{url}` must say the port: a name stands for hosts only"))?;
        if !matches!(uri.path(), "" | "/") {
            return Err(format!("`{url}` must end with the port; only `url` and `urls` may have a path"));
        }
        Ok(Self {
            backend: backend.clone(),
            url: url.to_owned(),
            http2,
            authorities,
            host,
            port,
            source,
            refresh: watch::Sender::new(REFRESH),
            addresses: addresses.clone(),
            found: ArcSwap::default(),
            asked: AtomicBool::new(false),
            failing: AtomicBool::new(false),
        })
    }

    /// It is looked up so often from now on.
    pub fn refresh_every(&self, refresh: Duration) {
        self.refresh.send_if_modified(|known| std::mem::replace(known, refresh) != refresh);
    }

    /// What it stands for at the moment.
    pub fn found(&self) -> Arc<Vec<Endpoint>> {
        self.found.load_full()
    }

    /// Its source was asked, whatever came of it.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    /// Why it stands for nothing, if it does, in words for clients.
    pub fn lacks(&self) -> &'static str {
        match self.source {
            Source::Resolver => "its name does not resolve",
            #[cfg(feature = "kubernetes")]
            Source::Kubernetes(_) => "Kubernetes names none that is ready",
        }
    }

    /// These are what it stands for, and nothing else.
    pub fn stands_for(&self, found: Vec<SocketAddr>) {
        self.exchange(found);
        self.asked.store(true, Ordering::Release);
    }

    /// Notes that its source works. True if it did not before.
    pub fn recovers(&self) -> bool {
        self.failing.swap(false, Ordering::Relaxed)
    }

    /// Notes that its source gave nothing. What is known stays: better addresses that may be old than none. True if it gave
    /// something before.
    pub fn fails(&self) -> bool {
        let is_new = !self.failing.swap(true, Ordering::Relaxed);
        self.asked.store(true, Ordering::Release);
        is_new
    }

    /// Takes an answer of the resolver; an empty one is none. True if there was one.
    fn take(&self, answer: io::Result<Vec<IpAddr>>) -> bool {
        let answer = answer.and_then(|found| if found.is_empty() { Err(nothing()) } else { Ok(found) });
        let (backend, host) = (&*self.backend, &*self.host);
        match answer {
            Ok(found) => {
                self.stands_for(found.into_iter().map(|ip| SocketAddr::new(ip, self.port)).collect());
                if self.recovers() {
                    tracing::info!(backend, host, "a backend's name resolves again");
                }
                true
            }
            Err(error) => {
                if self.fails() {
                    let kept = self.found.load().len();
                    tracing::warn!(backend, host, %error, kept, "a backend's name does not resolve; its addresses are kept");
                }
                false
            }
        }
    }

    /// Counts that its source gave nothing.
    pub fn count_failure(&self, watch: &Weak<Watch>) {
        if let Some(watch) = watch.upgrade() {
            watch.series.lookups_failed.with_label_values(&[&*self.backend]).inc();
        }
    }

    fn exchange(&self, mut found: Vec<SocketAddr>) {
        found.sort_unstable();
        found.dedup();
        let endpoints: Vec<Endpoint> = found.into_iter().filter_map(|at| self.endpoint(at)).collect();
        let before = self.found.load_full();
        let not_in = |these: &[Endpoint], those: &[Endpoint]| -> Vec<Endpoint> {
            let missing = |one: &&Endpoint| !those.iter().any(|other| other.label == one.label);
            these.iter().filter(missing).cloned().collect()
        };
        let (came, left) = (not_in(&endpoints, &before), not_in(&before, &endpoints));
        if came.is_empty() && left.is_empty() {
            return;
        }
        let labels = |of: &[Endpoint]| of.iter().map(|endpoint| &*endpoint.label).collect::<Vec<_>>().join(" ");
        tracing::info!(
            backend = &*self.backend,
            came = labels(&came),
            left = labels(&left),
            "a backend's addresses changed"
        );
        let now = Arc::new(endpoints);
        self.found.store(now.clone());
        self.addresses.exchanged(&now, &left);
    }

    fn endpoint(&self, at: SocketAddr) -> Option<Endpoint> {
        let authorities = self.authorities.as_ref();
        let called = if at.port() == self.port { at.ip().to_string() } else { at.to_string() };
        let place = Place { at: Some(at), ..Place::of(&self.backend, &self.url, self.http2, authorities) };
        let read = |_: &Place| Address::read(&self.url, self.http2, authorities).map(|address| address.at(at, &called));
        // It was read before.
        let address = self.addresses.find(place, read).ok()?;
        Some(Endpoint { label: format!("{}/{called}", self.backend).into(), address })
    }
}

fn nothing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "it has no address")
}

/// Asks about each name that comes, until the sender and the name are gone.
pub(super) async fn follow(mut names: UnboundedReceiver<Weak<Name>>, watch: Weak<Watch>) {
    while let Some(weak) = names.recv().await {
        let Some(name) = weak.upgrade() else { continue };
        match &name.source {
            Source::Resolver => tokio::task::spawn_local(look_up(weak, watch.clone(), system)),
            #[cfg(feature = "kubernetes")]
            Source::Kubernetes(service) => {
                tokio::task::spawn_local(kubernetes::follow(service.clone(), weak, watch.clone()))
            }
        };
    }
}

/// What this host's resolver says.
async fn system(host: String, port: u16) -> io::Result<Vec<IpAddr>> {
    Ok(tokio::net::lookup_host((host, port)).await?.map(|address| address.ip()).collect())
}

/// Looks up one name for as long as there is somebody who uses it.
async fn look_up(name: Weak<Name>, watch: Weak<Watch>, resolve: impl AsyncFn(String, u16) -> io::Result<Vec<IpAddr>>) {
    while let Some(name) = name.upgrade() {
        let mut refresh = name.refresh.subscribe();
        if !name.take(resolve(name.host.clone(), name.port).await) {
            name.count_failure(&watch);
        }
        let lacks = name.found.load().is_empty();
        drop(name);
        let (asked, share) = (Instant::now(), apart());
        loop {
            let pace = *refresh.borrow_and_update();
            let pace = if lacks { pace.min(SOON) } else { pace };
            match tokio::time::timeout_at(asked + pace.mul_f64(share), refresh.changed()).await {
                Ok(Ok(())) => {}
                // Nobody uses it any more.
                Ok(Err(_)) => return,
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::endpoints::Endpoints;
    use crate::backend::{Backends, Kept};
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;
    use std::rc::Rc;

    fn name(url: &str) -> Result<Name, String> {
        Name::read(&"gpu".into(), url, false, None, Source::Resolver, &Arc::default())
    }

    fn labels(of: &Name) -> String {
        of.found().iter().map(|endpoint| endpoint.label.to_string()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_name_is_a_scheme_a_host_and_a_port() {
        assert_eq!(name("http://vllm-headless:8000/").unwrap().host, "vllm-headless");
        for (url, why) in [
            ("vllm-headless:8000", "must begin with http:// or https://"),
            ("http://vllm-headless", "must say the port"),
            ("http://vllm-headless:8000/base", "must end with the port"),
            ("http://10.0.0.1:8000", "put it into `url`"),
            ("http://[::1]:8000", "put it into `url`"),
            ("http://u:p@x:1", "credentials"),
        ] {
            let error = name(url).err().unwrap();
            assert!(error.contains(why), "{url}: {error}");
        }
    }

    #[test]
    fn addresses_come_and_leave_and_those_that_stay_are_the_same() {
        let name = name("http://replicas:8000").unwrap();
        let ips = |of: &[u8]| Ok(of.iter().map(|&last| IpAddr::from([10, 0, 0, last])).collect::<Vec<_>>());
        assert!(!name.take(ips(&[])));
        assert!(name.is_asked() && labels(&name).is_empty());
        assert!(name.take(ips(&[2, 1, 2])));
        assert_eq!(labels(&name), "gpu/10.0.0.1 gpu/10.0.0.2");
        let before = name.found();
        assert!(name.take(ips(&[2, 3])));
        assert_eq!(labels(&name), "gpu/10.0.0.2 gpu/10.0.0.3");
        let now = name.found();
        assert!(Arc::ptr_eq(&before[1].address, &now[0].address), "with its connections and how it stands");
        assert!(before[0].address.gone.load(Ordering::Relaxed) && !now[0].address.gone.load(Ordering::Relaxed));
        assert_ne!(now[0].address.key, now[1].address.key, "prompts are spread over them");
        assert_eq!(now[0].address.host, "replicas:8000");
        // Nothing is worse than what was known.
        for failed in [ips(&[]), Err(io::Error::other("SERVFAIL"))] {
            assert!(!name.take(failed));
            assert_eq!(labels(&name), "gpu/10.0.0.2 gpu/10.0.0.3");
        }
        // Who says the port may say another one, and may say that there is none.
        let others = ["10.0.0.2:8000", "10.0.0.2:9000", "[fd00::1]:8000", "[fd00::1]:9000"];
        name.stands_for(others.map(|at| at.parse().unwrap()).into());
        assert_eq!(labels(&name), "gpu/10.0.0.2 gpu/10.0.0.2:9000 gpu/fd00::1 gpu/[fd00::1]:9000");
        assert_ne!(name.found()[0].address.key, name.found()[1].address.key);
        name.stands_for(Vec::new());
        assert!(labels(&name).is_empty());
        // It is still in use when it comes back.
        name.take(ips(&[1]));
        assert!(Arc::ptr_eq(&before[0].address, &name.found()[0].address));
        assert!(!before[0].address.gone.load(Ordering::Relaxed));
    }

    #[test]
    fn a_name_is_looked_up_until_nobody_uses_it() {
        let name = Arc::new(name("http://replicas:8000").unwrap());
        let answers: Rc<RefCell<VecDeque<_>>> =
            Rc::new(RefCell::new([Err(()), Ok([10, 0, 0, 1]), Err(()), Ok([10, 0, 0, 2])].into()));
        let left = answers.clone();
        let resolve = async move |host: String, port: u16| {
            assert_eq!((&*host, port), ("replicas", 8000));
            let answer = left.borrow_mut().pop_front().unwrap_or(Err(()));
            answer.map(|ip| vec![IpAddr::from(ip)]).map_err(|()| io::Error::other("SERVFAIL"))
        };
        name.refresh_every(Duration::from_millis(1));
        on_a_thread(async {
            let looking = tokio::task::spawn_local(look_up(Arc::downgrade(&name), Weak::new(), resolve));
            while !answers.borrow().is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(labels(&name), "gpu/10.0.0.2");
            drop(name);
            tokio::time::timeout(Duration::from_secs(10), looking).await.unwrap().unwrap();
        });
    }

    #[test]
    fn a_name_goes_by_another_pace_at_once() {
        let name = Arc::new(name("http://replicas:8000").unwrap());
        name.refresh_every(Duration::from_secs(3600));
        let lookups = Rc::new(Cell::new(0_u32));
        let counted = lookups.clone();
        let resolve = async move |_: String, _: u16| {
            counted.set(counted.get() + 1);
            Ok::<_, io::Error>(vec![IpAddr::from([10, 0, 0, 1])])
        };
        on_a_thread(async {
            tokio::task::spawn_local(look_up(Arc::downgrade(&name), Weak::new(), resolve));
            let until = async |count: u32| {
                while lookups.get() < count {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            until(1).await;
            name.refresh_every(Duration::from_millis(1));
            tokio::time::timeout(Duration::from_secs(10), until(3)).await.unwrap();
        });
    }

    #[test]
    fn another_pace_makes_no_other_name() {
        let kept = Kept::default();
        let build = |refresh: &str| {
            let backend = serde_json::json!({"kind": "vllm", "dns": "http://replicas:8000", "refresh": refresh});
            let config = serde_json::from_value(serde_json::json!({ "gpu": backend })).unwrap();
            Backends::build(&config, &kept).unwrap()
        };
        let named = |backends: &Backends| match &backends.by_name["gpu"].endpoints {
            Endpoints::Named(name) => name.clone(),
            Endpoints::Fixed(_) => panic!("it has a name"),
        };
        let before = build("20s");
        kept.settle(&before);
        named(&before).stands_for(vec![SocketAddr::from(([10, 0, 0, 1], 8000))]);
        let after = build("5s");
        let name = named(&after);
        assert!(Arc::ptr_eq(&named(&before), &name));
        assert_eq!(labels(&name), "gpu/10.0.0.1");
        // What is built may still be refused.
        assert_eq!(*name.refresh.borrow(), Duration::from_secs(20));
        kept.settle(&after);
        assert_eq!(*name.refresh.borrow(), Duration::from_secs(5));
    }

    fn on_a_thread(work: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, work);
    }
}
