//! Whether what a configuration names is there yet: models are loaded and names are looked up beside what is in use.

use super::endpoints::Endpoints;
use super::{Backend, Backends};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a model that is being loaded is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// How long a start, or a reload, waits for names to be looked up.
const RESOLVE: Duration = Duration::from_secs(2);

impl Backends {
    /// Waits until the models that were not loaded already are.
    ///
    /// # Errors
    /// Place and sentence of those that cannot be.
    pub async fn loaded(&self) -> Result<(), Vec<(String, String)>> {
        let mut errors = Vec::new();
        for backend in &self.loading {
            let Some(local) = &backend.local else { continue };
            while !local.settled() {
                tokio::time::sleep(LOOK).await;
            }
            if let Some(error) = local.error() {
                errors.push((format!("backends.{}.weights", backend.name), error));
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Waits until each name has been looked up, but not long: one that does not resolve must not keep the others from
    /// serving.
    pub async fn resolved(&self) {
        let asked = |backend: &Arc<Backend>| match &backend.endpoints {
            Endpoints::Named(name) => name.is_asked(),
            Endpoints::Fixed(_) => true,
        };
        let began = Instant::now();
        while !self.by_name.values().all(asked) && began.elapsed() < RESOLVE {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// True when every model of this process has been loaded, or has failed to.
    pub fn settled(&self) -> bool {
        self.by_name.values().filter_map(|backend| backend.local.as_ref()).all(|local| local.settled())
    }

    /// The backends whose model could not be loaded into this process, in order.
    pub fn failed(&self) -> Vec<&str> {
        let failed =
            |backend: &Arc<Backend>| backend.local.as_ref().is_some_and(|local| local.settled() && !local.is_ready());
        let mut names: Vec<&str> =
            self.by_name.values().filter(|backend| failed(backend)).map(|backend| &*backend.name).collect();
        names.sort_unstable();
        names
    }
}
