//! `tidegate plugin new`: a folder that builds.

use super::From;
use clap::{Args, ValueEnum};
use std::path::Path;

/// The languages there is a template for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    Js,
    Python,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tidegate plugin new shout\n  tidegate plugin new shout --lang python")]
pub(super) struct New {
    /// Its name: letters, digits, `-` and `_`. A folder of this name is made here.
    name: String,
    /// What it is written in.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// Rust: where the SDK is, as a Cargo dependency says it.
    #[arg(long, value_name = "SPEC", default_value = "git = \"https://github.com/tidegate/tidegate\"")]
    sdk: String,
}

type File = (&'static str, &'static str);

macro_rules! files {
    ($folder:literal: $($file:literal)*) => {
        &[$(($file, include_str!(concat!("../../../../plugins/", $folder, "/", $file)))),*]
    };
}

const RUST: &[File] = files!("template": "Cargo.toml" "README.md" "src/lib.rs");
const JS: &[File] = files!("template-js": "plugin.js" "package.json" "build.sh" "README.md" ".gitignore");
const PYTHON: &[File] = files!("template-python": "plugin.py" "hooks.py" "build.sh" "README.md" ".gitignore");
/// The interface, for languages that have no crate to bring it.
const WIT: &[File] = &[
    ("wit/plugin.wit", include_str!("../../../../wit/plugin.wit")),
    ("wit/call.wit", include_str!("../../../../wit/call.wit")),
    ("wit/host.wit", include_str!("../../../../wit/host.wit")),
    ("wit/types.wit", include_str!("../../../../wit/types.wit")),
];

impl New {
    pub fn run(self, from: &From) -> Result<(), String> {
        let word = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        if self.name.is_empty()
            || !self.name.chars().all(word)
            || !self.name.starts_with(|letter: char| letter.is_ascii_alphabetic())
        {
            return Err(format!(
                "`{}` is no name for a plugin: begin with a letter, then letters, digits, `-` and `_`",
                self.name
            ));
        }
        let known = from.glance()?;
        let folder = Path::new(&self.name);
        if folder.exists() {
            return Err(format!("{} is there already", folder.display()));
        }
        let files: Vec<&File> = match self.lang {
            Language::Rust => RUST.iter().collect(),
            Language::Js => JS.iter().chain(WIT).collect(),
            Language::Python => PYTHON.iter().chain(WIT).collect(),
        };
        for (name, text) in files {
            let path = folder.join(name);
            let text = text.replace("{{name}}", &self.name).replace("{{sdk}}", &self.sdk);
            let written =
                path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, text));
            written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        super::super::print(&format!("{} is a plugin that builds; {}/README.md says how.\n", self.name, self.name));
        if let Some((file, _)) = known.filter(|(_, config)| config.plugins.contains_key(&*self.name)) {
            let (file, name) = (file.display(), &self.name);
            super::super::print(&format!("{file} has a plugin `{name}` already: attach this one by another name.\n"));
        }
        Ok(())
    }
}
