//! `tidegate plugin`: for who writes one.

mod bench;
mod new;
mod run;

use super::{Format, From, table};
use crate::plugin::{Facts, Folders, Host, Image, Isolation, Plugins, Settings};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Write, check, try and measure plugins.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate plugin new shout\n  tidegate plugin check shout.wasm --settings '{\"word\":\"x\"}'\n  tidegate plugin run shout.wasm --call call.json"
)]
pub(super) struct Plugin {
    #[command(flatten)]
    from: From,
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
            Verb::New(new) => new.run(&self.from),
            Verb::Check(check) => check.run(&self.from),
            Verb::Run(run) => run.run(&self.from),
            Verb::Bench(bench) => bench.run(&self.from),
        }
    }
}

/// Which component, with which configuration.
#[derive(Debug, Args)]
struct Component {
    /// The component: a file, registry/repository@sha256:…, or the name of a plugin in the configuration.
    #[arg(value_name = "FILE")]
    component: String,
    /// Its own configuration, as `[plugins.NAME.config]` would hold it.
    #[arg(long, value_name = "JSON")]
    settings: Option<String>,
}

/// A component that works.
struct Loaded {
    plugins: Plugins,
    facts: Facts,
    /// Where it came from.
    place: String,
}

impl Component {
    /// Where it is, as the configuration says it. No file has a digest in its name by accident.
    fn source(&self) -> Result<Option<Image>, String> {
        self.component.contains("@sha256:").then(|| Image::read(&self.component)).transpose()
    }

    /// It can only be meant as a name in the configuration.
    fn is_name(&self) -> bool {
        let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        self.component.chars().all(word) && !Path::new(&self.component).is_file()
    }

    fn name(&self) -> Result<String, String> {
        let name = match self.source()? {
            Some(image) => image.name().to_owned(),
            None => Path::new(&self.component).file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        Ok(name.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect())
    }

    /// The name and settings that load it: those of the configuration, or those of a component by itself, which is granted what
    /// can be granted without a gateway.
    fn settings(&self, from: &From) -> Result<(Arc<str>, Settings), String> {
        let own = self.settings.as_deref().map(serde_json::from_str::<Map<String, Value>>).transpose();
        let own = own.map_err(|error| format!("--settings is no JSON object: {error}"))?;
        if self.is_name() {
            let config = from.load(&[])?;
            let Some((name, settings)) = config.plugins.get_key_value(&*self.component) else {
                return Err(format!("there is no file `{0}`, and no plugin `{0}` in {1}", self.component, from.name()));
            };
            let mut settings = settings.clone();
            // It is to be seen at work here, whomever it is attached to.
            settings.attach = Default::default();
            if let Some(own) = own {
                settings.config = own;
            }
            return Ok((name.clone(), settings));
        }
        let key = if self.source()?.is_some() { "oci" } else { "path" };
        let settings = serde_json::json!({
            key: self.component, "config": own.unwrap_or_default(), "grants": { "kv": true, "model": ["*"] },
        });
        let settings = serde_json::from_value(settings).map_err(|error| error.to_string())?;
        Ok((self.name()?.into(), settings))
    }

    /// Loads it as a gateway would. `alone`: each request has an instance of its own.
    fn load(&self, from: &From, runtime: &tokio::runtime::Runtime, alone: bool) -> Result<Loaded, String> {
        let (name, mut settings) = self.settings(from)?;
        if alone {
            settings.isolation = Isolation::Request;
        }
        let host = Host::new(folders(), &prometheus::Registry::new())?;
        let (plugin, facts) =
            runtime.block_on(host.load(&name, &settings)).map_err(|problem| match &self.settings {
                None if problem.starts_with("config") && !self.is_name() => {
                    format!("{problem}; --settings gives it one")
                }
                _ => problem,
            })?;
        let place = match (&settings.path, &settings.oci) {
            (Some(path), _) => path.display().to_string(),
            (None, image) => image.as_ref().map_or_else(String::new, ToString::to_string),
        };
        Ok(Loaded { plugins: Plugins::of(plugin), facts, place })
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
    after_help = "Example:\n  tidegate plugin check redact.wasm\n  tidegate plugin check ghcr.io/acme/redact@sha256:…\n  tidegate plugin check redact --config tidegate.toml --format json"
)]
struct Check {
    #[command(flatten)]
    component: Component,
    /// Print the JSON Schema of its configuration instead.
    #[arg(long)]
    schema: bool,
    /// How to print what it is.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Check {
    fn run(self, from: &From) -> Result<(), String> {
        let Loaded { facts, place, .. } = self.component.load(from, &super::runtime()?, false)?;
        if self.schema {
            super::print(&format!("{}\n", facts.schema.as_deref().unwrap_or("{}")));
            return Ok(());
        }
        let wasi = facts.imports.iter().filter(|import| import.starts_with("wasi:")).count();
        let mut asks: Vec<&str> = facts
            .imports
            .iter()
            .filter_map(|import| import.strip_prefix("tidegate:plugin/")?.split('@').next())
            .filter(|interface| !matches!(*interface, "types" | "calls"))
            .collect();
        asks.sort_unstable();
        if self.format != Format::Table {
            let columns = ["name", "version", "file", "size", "hooks", "events", "asks", "wasi", "schema"];
            let row = vec![
                facts.name.into(),
                facts.version.into(),
                place.into(),
                facts.size.into(),
                facts.hooks.into(),
                facts.events.into(),
                asks.into(),
                wasi.into(),
                facts.schema.is_some().into(),
            ];
            return table::print(self.format, &columns, &[row]);
        }
        let list = |words: &[&str]| if words.is_empty() { "none".to_owned() } else { words.join(" ") };
        let wasi = match wasi {
            0 => "none".to_owned(),
            count => format!("{count} interfaces, with nothing behind them but clocks and randomness"),
        };
        super::print(&format!(
            "{} {}\n  file    {place}, {} bytes\n  hooks   {}\n  events  {}\n  asks    {}\n  WASI    {wasi}\n  schema  {}\nIt would be loaded.\n",
            facts.name,
            facts.version,
            facts.size,
            list(&facts.hooks),
            list(&facts.events),
            list(&asks),
            if facts.schema.is_some() { "yes (--schema prints it)" } else { "none" },
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_the_plugin_of_the_configuration_unless_it_is_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        let text = "[plugins.redact]\npath = \"there.wasm\"\nattach = { models = [\"x\"] }\nlimits = { memory = \"1MiB\" }\n\
                    config = { word = \"a\" }\n";
        std::fs::write(&file, text).unwrap();
        let from = From { config: Some(file.clone()) };
        let settings = |component: &str, settings: Option<&str>| {
            Component { component: component.to_owned(), settings: settings.map(str::to_owned) }.settings(&from)
        };
        for (component, own, path, memory, kv, word) in [
            ("redact", None, "there.wasm", 1 << 20, false, Some("a")),
            ("redact", Some(r#"{"word":"b"}"#), "there.wasm", 1 << 20, false, Some("b")),
            ("redact.wasm", Some(r#"{"word":"b"}"#), "redact.wasm", 64 << 20, true, Some("b")),
            ("./redact", None, "./redact", 64 << 20, true, None),
        ] {
            let (name, found) = settings(component, own).unwrap();
            assert_eq!((&*name, found.path.as_deref()), ("redact", Some(Path::new(path))));
            assert_eq!((found.limits.memory.0, found.grants.kv, found.attach.models), (memory, kv, None));
            assert_eq!(found.config.get("word").and_then(Value::as_str), word, "{component}");
        }
        let error = settings("redcat", None).unwrap_err();
        let says = format!("there is no file `redcat`, and no plugin `redcat` in {}", file.display());
        assert_eq!(error, says);
        assert!(settings("redact", Some("[]")).unwrap_err().starts_with("--settings is no JSON object"));
    }
}
