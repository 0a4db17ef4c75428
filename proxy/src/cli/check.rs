//! `tidegate check`

use super::From;
use crate::config::Config;
use crate::plugin::{Folders, Host, Image, Plugins};
use clap::Args;
use std::path::Path;
use std::sync::Arc;

/// Check a configuration and print everything that is wrong with it, with file, line and key.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate check --config tidegate.toml\n  tidegate check --pull\n  tidegate check --schema > tidegate.schema.json"
)]
pub(super) struct Check {
    #[command(flatten)]
    from: From,
    /// Print the JSON Schema of the configuration instead.
    #[arg(long)]
    schema: bool,
    /// Pull what plugins need from registries, and keep it beside the ledger, as `serve` would.
    #[arg(long)]
    pull: bool,
}

impl Check {
    pub fn run(self) -> Result<(), String> {
        if self.schema {
            super::print(&format!("{:#}\n", crate::config::schema()));
            return Ok(());
        }
        let config = self.from.load(&[])?;
        let missing = super::runtime()?.block_on(load_plugins(&config, self.from.file().as_deref(), self.pull))?;
        let plugins = config.plugins.len();
        let projects: usize = config.organizations.values().map(|organization| organization.projects.len()).sum();
        super::print(&format!(
            "{} is good: {} backends, {} models, {} organizations, {projects} projects, {plugins} plugins\n",
            self.from.name(),
            config.backends.len(),
            config.models.len(),
            config.organizations.len()
        ));
        for (section, warning) in crate::app::warnings(&config) {
            super::print(&format!("{section}: {warning}\n"));
        }
        for (name, image) in missing {
            super::print(&format!(
                "plugins.{name} was not looked into: {image} has not been pulled yet. `serve` does, or `tidegate check --pull`\n"
            ));
        }
        Ok(())
    }
}

/// Loads the plugins as `serve` would: only then is known whether they fit. What a registry would have to be asked for is
/// left out and returned, unless it is to be pulled: a check is made where there may be no network.
async fn load_plugins(config: &Config, file: Option<&Path>, pull: bool) -> Result<Vec<(Arc<str>, Image)>, String> {
    if config.plugins.is_empty() {
        return Ok(Vec::new());
    }
    let folders = Folders { compiled: None, ..Folders::beside(&config.ledger.path) };
    let host = Host::new(folders, &prometheus::Registry::new())?;
    let (mut here, mut missing) = (config.plugins.clone(), Vec::new());
    for (name, settings) in config.plugins.iter().filter(|_| !pull) {
        if let Some(image) = &settings.oci
            && !host.is_here(settings).await
        {
            here.remove(name);
            missing.push((name.clone(), image.clone()));
        }
    }
    Plugins::load(&here, &host).await.map_err(|errors| {
        let mut problems = crate::app::problems(errors);
        crate::config::place(file, &mut problems);
        super::explain(&problems)
    })?;
    Ok(missing)
}
