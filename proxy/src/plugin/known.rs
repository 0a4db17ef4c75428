//! Plugins that are in use, to be found again by the next configuration: one of which nothing changed goes on with its warm
//! instances, and one of which only its settings changed is not compiled anew.

use super::config::Settings;
use super::load::Plugin;
use super::series::Series;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use wasmtime::component::Component;

/// What a plugin was made of.
#[derive(PartialEq)]
pub(super) struct Origin {
    pub name: Arc<str>,
    pub settings: Settings,
    /// SHA-256 of its file.
    pub digest: [u8; 32],
}

/// See the module. Holds none of them.
#[derive(Default)]
pub(super) struct Known {
    plugins: Mutex<Vec<Weak<Plugin>>>,
    /// Names that have metrics.
    names: Mutex<HashSet<Arc<str>>>,
}

impl Known {
    pub fn add(&self, plugin: &Arc<Plugin>) {
        self.plugins.lock().push(Arc::downgrade(plugin));
        self.names.lock().insert(plugin.name.clone());
    }

    /// The one that was made of this, if it is in use. `config`: with its secrets, which may have changed.
    pub fn plugin(&self, made: &Origin, config: &str) -> Option<Arc<Plugin>> {
        self.alive().into_iter().find(|plugin| plugin.made == *made && plugin.config == config)
    }

    /// The compiled file of this digest, if a plugin uses it.
    pub fn component(&self, digest: &[u8; 32]) -> Option<Component> {
        let user = self.alive().into_iter().find(|plugin| plugin.made.digest == *digest)?;
        Some(user.pre.instance_pre().component().clone())
    }

    /// These are the plugins from now on: their own metrics are shown, instances of others are not kept, and the others' gauges
    /// vanish.
    pub fn settle(&self, now: &[Arc<Plugin>], series: &Series) {
        now.iter().filter_map(|plugin| plugin.series()).for_each(|handles| series.show(handles));
        for plugin in self.alive() {
            let stays = now.iter().any(|other| Arc::ptr_eq(other, &plugin));
            plugin.gone.store(!stays, Ordering::Relaxed);
        }
        self.names.lock().retain(|name| {
            let stays = now.iter().any(|plugin| plugin.name == *name);
            if !stays {
                series.forget(name);
            }
            stays
        });
        self.plugins.lock().retain(|plugin| plugin.strong_count() > 0);
    }

    fn alive(&self) -> Vec<Arc<Plugin>> {
        self.plugins.lock().iter().filter_map(Weak::upgrade).collect()
    }
}
