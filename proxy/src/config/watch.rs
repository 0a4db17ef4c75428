//! Whether the files of a configuration have changed, by looking at them.
//!
//! Looking twice a second costs some microseconds and finds what notifications of the kernel miss or make hard: a link that
//! is set to another folder (ConfigMaps of Kubernetes), an editor that renames a new file over the old, a file that does
//! not exist yet, file systems of the network.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Files, and what they were when somebody looked last.
#[derive(Debug, Default)]
pub struct Watch {
    files: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
    /// What they have changed to, if they have not been still since.
    moving: Option<Vec<Option<Stamp>>>,
}

/// What cannot stay the same when a file is another or has been written. The time of change (`ctime`) is there because a copy
/// may keep the time of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    file: (u64, u64),
    length: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: there is no such file.
    fn of(path: &Path) -> Option<Self> {
        let at = std::fs::metadata(path).ok()?;
        Some(Self {
            file: (at.dev(), at.ino()),
            length: at.len(),
            written: (at.mtime(), at.mtime_nsec()),
            changed: (at.ctime(), at.ctime_nsec()),
        })
    }
}

impl Watch {
    /// Begins to watch: from what the files are now.
    pub fn of(files: Vec<PathBuf>) -> Self {
        let seen = look(&files);
        Self { files, seen, moving: None }
    }

    /// Looks again. True once they have changed and then stayed the same from one look to the next: nobody is writing them
    /// any more.
    pub fn changed(&mut self) -> bool {
        let now = look(&self.files);
        if now == self.seen {
            self.moving = None;
            return false;
        }
        if self.moving.as_ref() == Some(&now) {
            self.seen = now;
            self.moving = None;
            return true;
        }
        self.moving = Some(now);
        false
    }
}

fn look(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    files.iter().map(|path| Stamp::of(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_change_a_file_is_seen_once_it_is_over() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path();
        std::fs::create_dir_all(folder.join("one")).unwrap();
        std::fs::create_dir_all(folder.join("two")).unwrap();
        for place in ["one", "two"] {
            std::fs::write(folder.join(place).join("config"), "same").unwrap();
        }
        let (data, written, late) = (folder.join("..data"), folder.join("written"), folder.join("late"));
        std::os::unix::fs::symlink("one", &data).unwrap();
        std::fs::write(&written, "a").unwrap();
        let mut watch = Watch::of(vec![data.join("config"), written.clone(), late.clone()]);
        assert!(!watch.changed() && !watch.changed());
        // A ConfigMap: the link is exchanged in one step, for a file of the same length.
        std::os::unix::fs::symlink("two", folder.join("..tmp")).unwrap();
        std::fs::rename(folder.join("..tmp"), &data).unwrap();
        assert_eq!([watch.changed(), watch.changed(), watch.changed()], [false, true, false]);
        // A writer at work: not before it is done.
        std::fs::write(&written, "ab").unwrap();
        assert!(!watch.changed());
        std::fs::write(&written, "abc").unwrap();
        assert_eq!([watch.changed(), watch.changed(), watch.changed()], [false, true, false]);
        // An editor: a new file over the old.
        std::fs::write(folder.join("new"), "abc").unwrap();
        std::fs::rename(folder.join("new"), &written).unwrap();
        assert_eq!([watch.changed(), watch.changed(), watch.changed()], [false, true, false]);
        // One that was not there; and one that is no more, and back before anybody minded.
        std::fs::write(&late, "").unwrap();
        assert_eq!([watch.changed(), watch.changed(), watch.changed()], [false, true, false]);
        std::fs::rename(&late, folder.join("away")).unwrap();
        assert!(!watch.changed());
        root.close().unwrap();
        assert_eq!([watch.changed(), watch.changed(), watch.changed()], [false, true, false]);
    }
}
