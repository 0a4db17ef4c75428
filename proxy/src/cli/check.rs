//! `tidegate check`

use super::From;
use clap::Args;

/// Check a configuration and print everything that is wrong with it, with file, line and key.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate check --config tidegate.toml\n  tidegate check --schema > tidegate.schema.json"
)]
pub(super) struct Check {
    #[command(flatten)]
    from: From,
    /// Print the JSON Schema of the configuration instead.
    #[arg(long)]
    schema: bool,
}

impl Check {
    pub fn run(self) -> Result<(), String> {
        if self.schema {
            super::print(&format!("{:#}\n", crate::config::schema()));
            return Ok(());
        }
        let config = self.from.load(&[])?;
        let plugins = load_plugins(&config.plugins)?;
        let projects: usize = config.organizations.values().map(|organization| organization.projects.len()).sum();
        let name = self.from.file().map_or("the built-in configuration".to_owned(), |path| path.display().to_string());
        super::print(&format!(
            "{name} is good: {} backends, {} models, {} organizations, {projects} projects, {plugins} plugins\n",
            config.backends.len(),
            config.models.len(),
            config.organizations.len()
        ));
        Ok(())
    }
}

/// Loads the plugins as `serve` would: only then is known whether they fit.
fn load_plugins(config: &crate::plugin::Config) -> Result<usize, String> {
    if config.is_empty() {
        return Ok(0);
    }
    let host = crate::plugin::Host::new(None, &prometheus::Registry::new())?;
    super::runtime()?
        .block_on(crate::plugin::Plugins::load(config, &host))
        .map_err(|errors| super::explain(&crate::app::problems(errors)))?;
    Ok(config.len())
}
