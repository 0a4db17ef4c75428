//! Commands, each in a file of its own.

mod check;
mod health;
mod import;
mod keys;
mod log;
mod models;
mod plugin;
mod serve;
mod table;
mod usage;

use crate::config::{Config, Problem};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// A gateway for language models: one URL, any client, any backend, books you can bill from.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  tidegate serve --config tidegate.toml")]
pub struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve the API.
    Serve(serve::Serve),
    /// Check a configuration and print everything that is wrong with it.
    Check(check::Check),
    /// Ask the gateway that runs here whether it takes requests.
    Health(health::Health),
    /// Make a configuration from that of another gateway.
    Import(import::Import),
    /// Make keys.
    Keys(keys::Keys),
    /// List the configured models, or fetch one.
    Models(models::Models),
    /// Write, check, try and measure plugins.
    Plugin(plugin::Plugin),
    /// Show what was used, by whom and at what price.
    Usage(usage::Usage),
}

impl Command {
    /// Does what was asked, and says what to exit with.
    ///
    /// # Errors
    /// A message for people.
    pub fn run(self) -> Result<ExitCode, String> {
        let done = match self.verb {
            Verb::Serve(serve) => serve.run(),
            Verb::Check(check) => check.run(),
            Verb::Health(health) => health.run(),
            Verb::Import(import) => import.run(),
            Verb::Keys(keys) => keys.run(),
            Verb::Models(models) => models.run(),
            Verb::Plugin(plugin) => plugin.run(),
            Verb::Usage(usage) => return usage.run(),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// Which configuration.
#[derive(Debug, Args)]
struct From {
    /// The configuration file; without it ./tidegate.toml if there is one, else the built-in defaults.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

impl From {
    fn file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| Some(PathBuf::from("tidegate.toml")).filter(|path| path.exists()))
    }

    /// Its name for people.
    fn name(&self) -> String {
        self.file().map_or("the built-in configuration".to_owned(), |path| path.display().to_string())
    }

    /// The configuration for a command that can do without: one that was named has to be good, one that only happens to be here
    /// has not.
    fn glance(&self) -> Result<Option<(PathBuf, Config)>, String> {
        let Some(file) = self.file() else { return Ok(None) };
        match self.load(&[]) {
            Ok(config) => Ok(Some((file, config))),
            Err(_) if self.config.is_none() => Ok(None),
            Err(problems) => Err(problems),
        }
    }

    fn load(&self, overrides: &[(String, String)]) -> Result<Config, String> {
        crate::app::load(self.file().as_deref(), overrides).map_err(|problems| explain(&problems))
    }
}

fn explain(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(|problem| format!("  {problem}")).collect();
    format!(
        "the configuration has {}:\n{}",
        if lines.len() == 1 { "a problem".into() } else { format!("{} problems", lines.len()) },
        lines.join("\n")
    )
}

/// For commands that wait.
fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))
}

/// How to print data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Table,
    /// One JSON object a line.
    Json,
    /// Comma-separated values with a heading.
    Csv,
}

/// Prints, and takes a closed pipe (`| head`) for the end.
fn print(text: &str) {
    use std::io::Write as _;
    let _ = std::io::stdout().write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// All commands below this one: their words, and what their help ends with.
    fn below(command: &clap::Command, words: &str, found: &mut Vec<(String, String)>) {
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let words = format!("{words} {}", inner.get_name());
            let help = inner.get_after_help().map_or_else(String::new, ToString::to_string);
            found.push((words.clone(), help));
            below(inner, &words, found);
        }
    }

    #[test]
    fn every_command_shows_an_example() {
        let mut found = Vec::new();
        below(&Command::command(), "tidegate", &mut found);
        assert!(found.len() >= 14, "{found:?}");
        for (words, help) in found {
            assert!(help.starts_with("Example:\n") && help.contains(&words), "{words}: {help}");
        }
    }

    #[test]
    fn every_command_takes_a_configuration_and_a_format_where_it_prints_data() {
        for line in [
            "serve",
            "check",
            "health --live --admin 127.0.0.1:9090",
            "import litellm config.yaml",
            "models --format json",
            "models pull acme/m",
            "keys new --project acme/web --format csv",
            "usage --format csv",
            "plugin new shout",
            "plugin check redact --format json",
            "plugin run redact --call call.json",
            "plugin bench redact --format csv",
        ] {
            let words = || std::iter::once("tidegate").chain(line.split(' ')).chain(["--config", "t.toml"]);
            if let Err(error) = Command::try_parse_from(words()) {
                panic!("{line}: {error}");
            }
        }
    }
}
