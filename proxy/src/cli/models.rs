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
        let Self { repository, revision, .. } = self;
        let address = format!("{}/api/models/{repository}/tree/{revision}?recursive=true", self.hub());
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

    /// The hub's own programs take `HF_ENDPOINT` with a slash at its end, too.
    fn hub(&self) -> &str {
        self.endpoint.trim_end_matches('/')
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
        // What is longer than the file is no beginning of it.
        let have = if have < file.size { have } else { 0 };
        let address = format!("{}/{}/resolve/{}/{}", self.hub(), self.repository, self.revision, file.path);
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
            let read = reader.read(&mut buffer);
            match read.map_err(|error| format!("{address} broke off: {error}; run the same command again to go on"))? {
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
        let found = hex::encode(hash.finalize());
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::net::TcpListener;

    const CONTENT: &[u8] = b"GGUF and all that follows";
    const NOTHING: &[u8] = b"";

    /// The address of a hub with one file. It knows ranges; its first reply with the file breaks off after `cut` bytes.
    fn hub(mut cut: Option<usize>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut socket in listener.incoming().map_while(Result::ok) {
                let lines = BufReader::new(&socket).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let from: Option<usize> = head.iter().find_map(|line| {
                    line.to_lowercase().strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok()
                });
                let rest = from.map(|from| CONTENT.get(from..).unwrap_or_default());
                let oid = hex::encode(Sha256::digest(CONTENT));
                let list = format!(r#"[{{"path":"m.gguf","size":{},"lfs":{{"oid":"{oid}"}}}}]"#, CONTENT.len());
                let asked = head.first().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
                let (status, body) = match (asked, rest) {
                    ("/api/models/o/m/tree/main?recursive=true", _) => (200, list.as_bytes()),
                    ("/o/m/resolve/main/m.gguf", None) => (200, CONTENT),
                    ("/o/m/resolve/main/m.gguf", Some([])) => (416, NOTHING),
                    ("/o/m/resolve/main/m.gguf", Some(rest)) => (206, rest),
                    _ => (404, NOTHING),
                };
                let whole = body.len();
                let sent = if asked.starts_with("/o/") { cut.take().unwrap_or(whole) } else { whole };
                let _ = write!(socket, "HTTP/1.1 {status} \r\ncontent-length: {whole}\r\nconnection: close\r\n\r\n");
                let _ = socket.write_all(&body[..sent]);
            }
        });
        address
    }

    fn pull(endpoint: &str, to: &Path) -> Result<(), String> {
        let (repository, revision) = ("o/m".to_owned(), "main".to_owned());
        Pull { repository, file: None, revision, to: to.to_owned(), endpoint: endpoint.to_owned() }.run()
    }

    #[test]
    fn whatever_is_there_already_the_file_is_whole() {
        let hub = hub(None);
        let longer = [CONTENT, CONTENT].concat();
        for there in [None, Some(&CONTENT[..0]), Some(&CONTENT[..7]), Some(CONTENT), Some(&longer[..])] {
            let folder = tempfile::tempdir().unwrap();
            if let Some(there) = there {
                std::fs::write(folder.path().join("m.gguf.part"), there).unwrap();
            }
            pull(&hub, folder.path()).unwrap();
            assert_eq!(std::fs::read(folder.path().join("m.gguf")).unwrap(), CONTENT, "{:?}", there.map(<[u8]>::len));
        }
    }

    #[test]
    fn what_breaks_off_is_gone_on_with() {
        let (hub, folder) = (hub(Some(7)), tempfile::tempdir().unwrap());
        let error = pull(&hub, folder.path()).unwrap_err();
        assert!(error.contains("run the same command again") && !error.contains("cannot write"), "{error}");
        assert_eq!(std::fs::read(folder.path().join("m.gguf.part")).unwrap(), &CONTENT[..7]);
        pull(&hub, folder.path()).unwrap();
        assert_eq!(std::fs::read(folder.path().join("m.gguf")).unwrap(), CONTENT);
    }
}
