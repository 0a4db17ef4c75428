//! `tidegate plugin`: for who writes one.

mod bench;
mod new;
mod run;

use crate::plugin::{Config, Facts, Folders, Host, Image, Plugins};
use clap::{Args, Subcommand};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Write, check, try and measure plugins.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate plugin new shout\n  tidegate plugin check shout.wasm --settings '{\"word\":\"x\"}'\n  tidegate plugin run shout.wasm --call call.json"
)]
pub(super) struct Plugin {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Begin one: a folder with a plugin that builds, a test and what to do next.
    New(new::New),
    /// Say what a component is and asks for, or why it would not be loaded.
    Check(Check),
    /// Show it a call, and a reply, without a gateway; print what it made of them.
    Run(run::Run),
    /// Measure what it costs.
    Bench(bench::Bench),
}

impl Plugin {
    pub fn run(self) -> Result<(), String> {
        match self.verb {
            Verb::New(new) => new.run(),
            Verb::Check(check) => check.run(),
            Verb::Run(run) => run.run(),
            Verb::Bench(bench) => bench.run(),
        }
    }
}

/// Which component, with which configuration.
#[derive(Debug, Args)]
struct From {
    /// The component: a file, or registry/repository@sha256:….
    #[arg(value_name = "FILE")]
    component: String,
    /// Its own configuration, as `[plugins.NAME.config]` would hold it.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    settings: String,
}

impl From {
    /// Where it is, as the configuration says it. No file has a digest in its name by accident.
    fn source(&self) -> Result<Option<Image>, String> {
        self.component.contains("@sha256:").then(|| Image::read(&self.component)).transpose()
    }

    fn name(&self) -> Result<String, String> {
        let name = match self.source()? {
            Some(image) => image.name().to_owned(),
            None => Path::new(&self.component).file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        Ok(name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect())
    }

    /// The configuration that loads it; `more` overrides keys of the plugin.
    fn config(&self, more: &serde_json::Value) -> Result<Config, String> {
        let config: serde_json::Value =
            serde_json::from_str(&self.settings).map_err(|error| format!("--settings is no JSON: {error}"))?;
        let key = if self.source()?.is_some() { "oci" } else { "path" };
        let mut settings =
            serde_json::json!({ key: self.component, "config": config, "grants": { "kv": true, "model": ["*"] } });
        if let (Some(settings), Some(more)) = (settings.as_object_mut(), more.as_object()) {
            settings.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        serde_json::from_value(serde_json::json!({ self.name()?: settings })).map_err(|error| error.to_string())
    }

    /// Loads it as a gateway would.
    fn load(&self, runtime: &tokio::runtime::Runtime, more: &serde_json::Value) -> Result<(Plugins, Facts), String> {
        let config = self.config(more)?;
        let host = Host::new(folders(), &prometheus::Registry::new())?;
        let (name, settings) = config.iter().next().ok_or("there is no plugin")?;
        let name: &Arc<str> = name;
        let loaded = runtime.block_on(host.load(name, settings));
        let (plugin, facts) = loaded.map_err(|problem| match &*self.settings {
            "{}" if problem.starts_with("config") => format!("{problem}; --settings gives it one"),
            _ => problem,
        })?;
        Ok((Plugins::of(plugin), facts))
    }
}

/// Where things are kept between commands.
fn folders() -> Folders {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let folder = |name: &str| std::path::absolute(cache.as_ref()?.join("tidegate").join(name)).ok();
    Folders { compiled: folder("compiled-plugins"), pulled: folder("pulled-plugins") }
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate plugin check redact.wasm\n  tidegate plugin check ghcr.io/acme/redact@sha256:…"
)]
struct Check {
    #[command(flatten)]
    from: From,
    /// Print the JSON Schema of its configuration instead.
    #[arg(long)]
    schema: bool,
}

impl Check {
    fn run(self) -> Result<(), String> {
        let (_, facts) = self.from.load(&super::runtime()?, &serde_json::Value::Null)?;
        if self.schema {
            super::print(&format!("{}\n", facts.schema.as_deref().unwrap_or("{}")));
            return Ok(());
        }
        let size = facts.size;
        let list = |words: &[&str]| if words.is_empty() { "none".to_owned() } else { words.join(" ") };
        let wasi = facts.imports.iter().filter(|import| import.starts_with("wasi:")).count();
        let mut asks: Vec<&str> = facts
            .imports
            .iter()
            .filter_map(|import| import.strip_prefix("tidegate:plugin/")?.split('@').next())
            .filter(|interface| !matches!(*interface, "types" | "calls"))
            .collect();
        asks.sort_unstable();
        let wasi = match wasi {
            0 => "none".to_owned(),
            count => format!("{count} interfaces, with nothing behind them but clocks and randomness"),
        };
        super::print(&format!(
            "{} {}\n  file    {}, {size} bytes\n  hooks   {}\n  events  {}\n  asks    {}\n  WASI    {wasi}\n  schema  {}\nIt would be loaded.\n",
            facts.name,
            facts.version,
            self.from.component,
            list(&facts.hooks),
            list(&facts.events),
            list(&asks),
            if facts.schema.is_some() { "yes (--schema prints it)" } else { "none" },
        ));
        Ok(())
    }
}
