//! What outlives every configuration: addresses with their connections and how they stand, models in this process, what
//! backends can bear, probes and gauges.
//!
//! A configuration holds what it uses; here are only weak references to find it again, so that what nobody uses any more is
//! freed when its last request is done.

use super::budget::Budget;
use super::config::Settings;
use super::endpoint::Address;
use super::health::Watch;
use super::inprocess::Local;
use super::series::Series;
use super::{Backend, Backends};
use crate::trust::Authorities;
use parking_lot::Mutex;
use prometheus::Registry;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::SystemTime;

/// See the module.
#[derive(Default)]
pub struct Kept {
    addresses: Known<Place, Address>,
    models: Known<Model, Local>,
    budgets: Known<Arc<str>, Budget>,
    watch: Option<Arc<Watch>>,
}

type Known<K, V> = Mutex<Vec<(K, Weak<V>)>>;

/// What makes an address the same.
#[derive(PartialEq)]
struct Place {
    backend: Arc<str>,
    url: String,
    http2: bool,
    /// SHA-256 of its file of authorities.
    authorities: Option<[u8; 32]>,
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

    /// These are the backends from now on: they are probed, and for others nothing is kept.
    pub fn settle(&self, now: &Backends) {
        let mut addresses = self.addresses.lock();
        addresses.retain(|(_, address)| address.strong_count() > 0);
        for address in addresses.iter().filter_map(|(_, address)| address.upgrade()) {
            let mut targets = now.by_name.values().flat_map(|backend| &backend.endpoints);
            let named = targets.any(|target| Arc::ptr_eq(&target.address, &address));
            address.gone.store(!named, Ordering::Relaxed);
        }
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
        let digest = authorities.map(|authorities| authorities.digest);
        let place = Place { backend: backend.clone(), url: url.to_owned(), http2, authorities: digest };
        let mut known = self.addresses.lock();
        if let Some(address) = find(&known, &place) {
            return Ok(address);
        }
        let address = Arc::new(Address::read(url, http2, authorities)?);
        known.push((place, Arc::downgrade(&address)));
        Ok(address)
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
