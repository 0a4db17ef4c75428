//! What outlives every configuration: addresses with their connections and how they stand, models in this process, what
//! backends can bear, probes and gauges.
//!
//! A configuration holds what it uses; here are only weak references to find it again, so that what nobody uses any more is
//! freed when its last request is done.

use super::budget::Budget;
use super::config::Settings;
use super::endpoint::{Address, Endpoint};
use super::endpoints::Endpoints;
use super::health::Watch;
use super::inprocess::Local;
use super::names::{Name, Source};
use super::series::Series;
use super::{Backend, Backends};
use crate::trust::Authorities;
use parking_lot::Mutex;
use prometheus::Registry;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

/// See the module.
#[derive(Default)]
pub struct Kept {
    addresses: Arc<Addresses>,
    names: Known<Place, Name>,
    models: Known<Model, Local>,
    budgets: Known<Arc<str>, Budget>,
    watch: Option<Arc<Watch>>,
}

type Known<K, V> = Mutex<Vec<(K, Weak<V>)>>;

/// The addresses of all backends.
#[derive(Default)]
pub(super) struct Addresses(Known<Place, Address>);

/// What makes an address, or a name, the same.
#[derive(PartialEq)]
pub(super) struct Place {
    pub backend: Arc<str>,
    pub url: String,
    pub http2: bool,
    /// SHA-256 of its file of authorities.
    pub authorities: Option<[u8; 32]>,
    /// One of those that its name stands for.
    pub at: Option<SocketAddr>,
    /// Who knows what a name stands for.
    pub source: Option<Source>,
}

impl Place {
    /// Of a backend's URL.
    pub fn of(backend: &Arc<str>, url: &str, http2: bool, authorities: Option<&Authorities>) -> Self {
        let authorities = authorities.map(|authorities| authorities.digest);
        Self { backend: backend.clone(), url: url.to_owned(), http2, authorities, at: None, source: None }
    }
}

impl Addresses {
    /// The address that is known, or the new one that this reads.
    pub fn find<E>(&self, place: Place, read: impl FnOnce(&Place) -> Result<Address, E>) -> Result<Arc<Address>, E> {
        let mut known = self.0.lock();
        if let Some(address) = find(&known, &place) {
            return Ok(address);
        }
        let address = Arc::new(read(&place)?);
        known.push((place, Arc::downgrade(&address)));
        Ok(address)
    }

    /// A name does not stand for those that `left` any more. Told after that is so, and like [`Self::settle`] one at a time:
    /// what is seen last is right.
    pub fn exchanged(&self, now: &[Endpoint], left: &[Endpoint]) {
        let mut one_at_a_time = self.0.lock();
        // Those that came and left since, and are of no use to anybody.
        one_at_a_time.retain(|(_, address)| address.strong_count() > 0);
        let mark = |of: &[Endpoint], gone| of.iter().for_each(|of| of.address.gone.store(gone, Ordering::Relaxed));
        mark(left, true);
        mark(now, false);
    }

    /// These backends are in use: for the addresses of others nothing is kept.
    fn settle(&self, now: &Backends) {
        let mut addresses = self.0.lock();
        addresses.retain(|(_, address)| address.strong_count() > 0);
        let targets: Vec<_> = now.by_name.values().map(|backend| backend.endpoints()).collect();
        for address in addresses.iter().filter_map(|(_, address)| address.upgrade()) {
            let named = targets.iter().flat_map(|of| &**of).any(|target| Arc::ptr_eq(&target.address, &address));
            address.gone.store(!named, Ordering::Relaxed);
        }
    }
}

/// What makes a model in this process the same.
#[derive(PartialEq)]
struct Model {
    backend: Arc<str>,
    weights: PathBuf,
    /// Inode, length and time of the file; `None`: there is none.
    file: Option<(u64, u64, Option<SystemTime>)>,
    threads: Option<usize>,
    context: Option<usize>,
    slots: Option<usize>,
    queue: Option<usize>,
}

impl Kept {
    /// Registers the gauges and starts the thread that probes.
    ///
    /// # Errors
    /// The metrics are registered already.
    pub fn register(registry: &Registry) -> Result<Self, String> {
        let series = Series::register(registry).map_err(|error| error.to_string())?;
        Ok(Self { watch: Some(Watch::start(series)), ..Self::default() })
    }

    /// These are the backends from now on: they are probed, their names looked up as they say, and for others nothing is kept.
    pub fn settle(&self, now: &Backends) {
        self.addresses.settle(now);
        for backend in now.by_name.values() {
            if let Endpoints::Named(name) = &backend.endpoints {
                name.refresh_every(backend.refresh);
            }
        }
        self.names.lock().retain(|(_, name)| name.strong_count() > 0);
        self.budgets.lock().retain(|(_, budget)| budget.strong_count() > 0);
        self.models.lock().retain(|(_, model)| model.strong_count() > 0);
        if let Some(watch) = &self.watch {
            watch.settle(now.by_name.values().cloned().collect::<Vec<Arc<Backend>>>());
        }
    }

    /// Where tries are counted, if anywhere.
    pub(super) fn watch(&self) -> Option<Arc<Watch>> {
        self.watch.clone()
    }

    /// The further tries of a backend of this name.
    pub(super) fn budget(&self, backend: &Arc<str>) -> Arc<Budget> {
        let mut known = self.budgets.lock();
        find(&known, backend).unwrap_or_else(|| {
            let budget = Arc::new(Budget::default());
            known.push((backend.clone(), Arc::downgrade(&budget)));
            budget
        })
    }

    /// The address that is known, or a new one.
    pub(super) fn address(
        &self,
        backend: &Arc<str>,
        url: &str,
        http2: bool,
        authorities: Option<&Authorities>,
    ) -> Result<Arc<Address>, String> {
        let place = Place::of(backend, url, http2, authorities);
        self.addresses.find(place, |_| Address::read(url, http2, authorities))
    }

    /// The name that is known, or one that is followed from now on.
    pub(super) fn name(
        &self,
        backend: &Arc<str>,
        url: &str,
        http2: bool,
        authorities: Option<Authorities>,
        source: Source,
    ) -> Result<Arc<Name>, String> {
        let place = Place { source: Some(source.clone()), ..Place::of(backend, url, http2, authorities.as_ref()) };
        let mut known = self.names.lock();
        if let Some(name) = find(&known, &place) {
            return Ok(name);
        }
        let name = Arc::new(Name::read(backend, url, http2, authorities, source, &self.addresses)?);
        if let Some(watch) = &self.watch {
            watch.follow(&name);
        }
        known.push((place, Arc::downgrade(&name)));
        Ok(name)
    }

    /// The model that is known, or one that is being loaded from now on: then true.
    pub(super) fn model(&self, backend: &Arc<str>, weights: &Path, settings: &Settings) -> (Arc<Local>, bool) {
        // A folder's own time does not tell of its files.
        let inside = weights.join("model.safetensors");
        let file = std::fs::metadata(if inside.is_file() { &inside } else { weights }).ok();
        let model = Model {
            backend: backend.clone(),
            weights: weights.to_owned(),
            file: file.map(|file| (file.ino(), file.len(), file.modified().ok())),
            threads: settings.threads,
            context: settings.context,
            slots: settings.slots,
            queue: settings.queue,
        };
        let mut known = self.models.lock();
        if let Some(local) = find(&known, &model) {
            return (local, false);
        }
        let local = Local::load(backend, weights, settings);
        known.push((model, Arc::downgrade(&local)));
        (local, true)
    }
}

fn find<K: PartialEq, V>(known: &[(K, Weak<V>)], key: &K) -> Option<Arc<V>> {
    known.iter().filter(|(other, _)| other == key).find_map(|(_, weak)| weak.upgrade())
}
