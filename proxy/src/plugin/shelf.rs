//! What was pulled, kept by its digest, so that a start needs no registry.
//!
//! A file is used only if its bytes have the digest it is named by, and that digest comes from the configuration or from a
//! manifest that was found this way. So the folder need not be trusted, and half a file is as good as none.

use sha2::{Digest as _, Sha256};
use std::path::PathBuf;

/// A folder of files named by what is in them; without one, nothing is kept.
#[derive(Debug, Default)]
pub(super) struct Shelf(Option<PathBuf>);

impl Shelf {
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self(folder)
    }

    /// What has this digest, if it is here and whole.
    pub fn get(&self, digest: &str) -> Option<Vec<u8>> {
        let file = self.file(digest)?;
        let bytes = std::fs::read(&file).ok()?;
        if matches(digest, &bytes) {
            return Some(bytes);
        }
        tracing::warn!(file = %file.display(), "a pulled file is not what its name says; it is pulled again");
        None
    }

    /// Keeps bytes that have this digest. A disk that is full costs the next start a pull, no more.
    pub fn put(&self, digest: &str, bytes: &[u8]) {
        let Some(file) = self.file(digest) else { return };
        // Under another name first: other processes may be reading, or doing the same.
        let half = file.with_extension(uuid::Uuid::now_v7().to_string());
        let written = std::fs::create_dir_all(file.parent().unwrap_or(&file))
            .and_then(|()| std::fs::write(&half, bytes))
            .and_then(|()| std::fs::rename(&half, &file));
        if let Err(error) = written {
            let _ = std::fs::remove_file(&half);
            tracing::warn!(%error, file = %file.display(), "what was pulled cannot be kept: the next start pulls it again");
        }
    }

    fn file(&self, digest: &str) -> Option<PathBuf> {
        let hex = hex_of(digest)?;
        Some(self.0.as_ref()?.join(format!("sha256-{hex}")))
    }
}

/// The digits of a SHA-256 digest. What a manifest says may be anything: it becomes a file's name only if it is one.
pub(super) fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let digits = hex.len() == 64 && hex.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    digits.then_some(hex)
}

/// Whether bytes have this digest.
pub(super) fn matches(digest: &str, bytes: &[u8]) -> bool {
    hex_of(digest).is_some_and(|hex| hex == sha256(bytes))
}

/// SHA-256 in hex.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_whole_is_found() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("deep");
        let shelf = Shelf::new(Some(folder.clone()));
        let digest = format!("sha256:{}", sha256(b"component"));
        assert_eq!(shelf.get(&digest), None);
        shelf.put(&digest, b"component");
        assert_eq!(shelf.get(&digest).as_deref(), Some(&b"component"[..]));
        let files: Vec<_> = std::fs::read_dir(&folder).unwrap().flatten().collect();
        assert_eq!(files.len(), 1);
        std::fs::write(files[0].path(), b"compo").unwrap();
        assert_eq!(shelf.get(&digest), None, "half a file");
        for digest in ["sha256:../../etc/passwd", "sha512:00", "", &format!("sha256:{}", "A".repeat(64))] {
            shelf.put(digest, b"x");
            assert_eq!(shelf.get(digest), None, "{digest}");
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
        Shelf::default().put(&digest, b"component");
        assert_eq!(Shelf::default().get(&digest), None);
    }
}
