//! `tidegate usage` where the books cannot be brought up to date: it shows what is in them, and says that this is not all.

use crate::process::{may_have_files_of_its_own, unshared};
use std::process::Command;
use tempfile::TempDir;
use tidegate::canon::Record;
use tidegate::store::Store;

/// A folder with a ledger of one record, and a configuration that looks for it in another.
fn books(ledger: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("t.toml"), format!("[ledger]\npath = \"{ledger}\"\n")).unwrap();
    let record = Record { id: uuid::Uuid::now_v7(), organization: "acme".into(), ..Record::default() };
    let mut store = Store::open(&folder.path().join("t.db")).unwrap();
    let mut batch = store.batch().unwrap();
    batch.insert([&record]).unwrap();
    batch.commit().unwrap();
    folder
}

fn shows(mut command: Command, folder: &TempDir, because: &str) {
    let output = command.args(["usage", "--config", "t.toml"]).current_dir(folder).output().unwrap();
    let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // A script that makes bills of it must not take that for all there is.
    assert!(output.status.code() == Some(3) && shown.contains("acme"), "{shown}{said}");
    assert!(said.contains(because) && said.contains("not in these numbers"), "{said}");
}

#[test]
fn a_journal_that_cannot_be_read() {
    for (path, because) in [("t.db.spool", "Not a directory"), ("t.db.spool/0.jsonl/x", "Is a directory")] {
        let folder = books("t.db");
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        shows(Command::new(env!("CARGO_BIN_EXE_tidegate")), &folder, because);
    }
}

#[test]
fn a_journal_with_a_line_that_is_no_record() {
    let folder = books("t.db");
    std::fs::create_dir(folder.path().join("t.db.spool")).unwrap();
    std::fs::write(folder.path().join("t.db.spool/0.jsonl"), "no record\n").unwrap();
    let command = || Command::new(env!("CARGO_BIN_EXE_tidegate"));
    shows(command(), &folder, "1 of the journal's lines");
    let output = command().args(["usage", "--config", "t.toml"]).current_dir(&folder).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "it is set aside: {output:?}");
}

#[test]
fn a_file_system_that_is_read_only() {
    if !may_have_files_of_its_own() {
        return;
    }
    let folder = books("ro/t.db");
    std::fs::create_dir(folder.path().join("ro")).unwrap();
    let mounted = unshared("mount -t tmpfs none ro && cp t.db ro && mount -o remount,ro ro");
    shows(mounted, &folder, "cannot open the ledger");
}
