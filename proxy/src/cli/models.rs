//! `tidegate models`

use super::table;
use super::{Format, From};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// List the configured models, or fetch one.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate models\n  tidegate models pull HuggingFaceTB/SmolLM2-135M-Instruct-GGUF --to models"
)]
pub(super) struct Models {
    #[command(flatten)]
    from: From,
    /// How to print the list.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetch a GGUF file from a Hugging Face repository; goes on where an earlier try stopped, and checks its SHA-256.
    Pull(Pull),
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate models pull HuggingFaceTB/SmolLM2-135M-Instruct-GGUF --file SmolLM2-135M-Instruct.Q4_1.gguf --to models"
)]
struct Pull {
    /// OWNER/NAME
    repository: String,
    /// Which of its files; needed when there are several.
    #[arg(long)]
    file: Option<String>,
    /// Branch, tag or commit.
    #[arg(long, default_value = "main")]
    revision: String,
    /// Folder to put it in.
    #[arg(long, default_value = "models")]
    to: PathBuf,
    /// Address of the hub.
    #[arg(long, env = "HF_ENDPOINT", default_value = "https://huggingface.co")]
    endpoint: String,
}

impl Models {
    pub fn run(self) -> Result<(), String> {
        if let Some(Verb::Pull(pull)) = self.verb {
            return pull.run();
        }
        let config = self.from.load(&[])?;
        let rows: Vec<_> = config
            .models
            .iter()
            .map(|(name, model)| {
                let targets = model
                    .targets
                    .iter()
                    .map(|target| format!("{}:{}", target.backend, target.model.as_ref().unwrap_or(name)))
                    .collect::<Vec<_>>()
                    .join(" ");
                vec![name.to_string().into(), targets.into(), model.fallbacks.join(" ").into()]
            })
            .collect();
        table::print(self.format, &["model", "targets", "fallbacks"], &rows)
    }
}

/// A file as the hub lists it (`GET /api/models/REPO/tree/REVISION`).
#[derive(Debug, Deserialize)]
struct Listed {
    path: String,
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    /// SHA-256 of the content.
    oid: String,
}

impl Pull {
    fn run(self) -> Result<(), String> {
        let file = self.choose()?;
        std::fs::create_dir_all(&self.to).map_err(|error| format!("cannot make {}: {error}", self.to.display()))?;
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        let target = self.to.join(name);
        if target.exists() {
            self.verify(&file, &target)?;
            super::print(&format!("{} is there already\n", target.display()));
            return Ok(());
        }
        let part = self.to.join(format!("{name}.part"));
        self.fetch(&file, &part)?;
        self.verify(&file, &part)?;
        std::fs::rename(&part, &target).map_err(|error| format!("cannot rename {}: {error}", part.display()))?;
        super::print(&format!(
            "{}\n\nPut it into the configuration:\n\n  [backends.here]\n  kind = \"local\"\n  weights = \"{}\"\n",
            target.display(),
            target.display()
        ));
        Ok(())
    }

    /// The file that was asked for, or the only GGUF there is.
    fn choose(&self) -> Result<Listed, String> {
        let address = format!("{}/api/models/{}/tree/{}?recursive=true", self.endpoint, self.repository, self.revision);
        let mut answer = self.get(&address, 0)?;
        let listed: Vec<Listed> = serde_json::from_reader(answer.body_mut().as_reader())
            .map_err(|error| format!("{address} gave no list of files: {error}"))?;
        let mut files: Vec<Listed> = listed
            .into_iter()
            .filter(|file| file.path.ends_with(".gguf") && self.file.as_ref().is_none_or(|name| file.path == *name))
            .collect();
        match files.len() {
            1 => Ok(files.remove(0)),
            0 => Err(format!(
                "{} has no GGUF file{}",
                self.repository,
                self.file.as_ref().map_or(String::new(), |name| format!(" `{name}`"))
            )),
            _ => Err(format!(
                "{} has several GGUF files; choose one with --file:\n{}",
                self.repository,
                files
                    .iter()
                    .map(|file| format!("  {} ({} MB)", file.path, file.size / 1_000_000))
                    .collect::<Vec<_>>()
                    .join("\n")
            )),
        }
    }

    fn get(&self, address: &str, from: u64) -> Result<ureq::http::Response<ureq::Body>, String> {
        let mut request = ureq::get(address);
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        if let Some(token) = std::env::var("HF_TOKEN").ok().filter(|token| !token.is_empty()) {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|error| format!("cannot fetch {address}: {error}"))
    }

    fn fetch(&self, file: &Listed, part: &Path) -> Result<(), String> {
        let fail = |error: std::io::Error| {
            format!("cannot write {}: {error}; run the same command again to go on", part.display())
        };
        let have = std::fs::metadata(part).map_or(0, |meta| meta.len());
        if have == file.size {
            return Ok(());
        }
        let address = format!("{}/{}/resolve/{}/{}", self.endpoint, self.repository, self.revision, file.path);
        let mut answer = self.get(&address, have)?;
        // A server that does not know ranges sends all of it again.
        let resumes = answer.status().as_u16() == 206;
        let mut out =
            OpenOptions::new().create(true).write(true).append(resumes).truncate(!resumes).open(part).map_err(fail)?;
        let bar = ProgressBar::new(file.size).with_position(if resumes { have } else { 0 });
        bar.set_style(
            ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        let mut reader = bar.wrap_read(answer.body_mut().as_reader());
        let mut buffer = vec![0; 1 << 20];
        loop {
            match reader.read(&mut buffer).map_err(fail)? {
                0 => break,
                read => out.write_all(&buffer[..read]).map_err(fail)?,
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn verify(&self, file: &Listed, path: &Path) -> Result<(), String> {
        let fail = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
        let mut text = File::open(path).map_err(fail)?;
        let (mut hash, mut length, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
        loop {
            match text.read(&mut buffer).map_err(fail)? {
                0 => break,
                read => {
                    hash.update(&buffer[..read]);
                    length += read as u64;
                }
            }
        }
        if length != file.size {
            return Err(format!(
                "{} has {length} of {} bytes; run the same command again to go on",
                path.display(),
                file.size
            ));
        }
        let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        match &file.lfs {
            Some(lfs) if lfs.oid != found => Err(format!(
                "{} is damaged: its SHA-256 is {found}, the hub says {}; delete it and fetch it again",
                path.display(),
                lfs.oid
            )),
            Some(_) => Ok(()),
            None => Err(format!("the hub gives no checksum for {}; not keeping what cannot be checked", file.path)),
        }
    }
}
