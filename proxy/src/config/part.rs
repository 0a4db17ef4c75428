//! What others than the gateway need of its configuration: who reads the books, and who asks a gateway that runs.
//!
//! Nothing else of it is looked at: it may need secrets that nobody but the gateway has, and it may be bad by now, while the
//! gateway goes on with the one before.

use super::Config;
use super::place::Problem;
use super::read::{layers, place, read, tree};
use crate::{admin, ledger};
use figment::value::Value;
use std::path::Path;

/// `[ledger]`.
///
/// # Errors
/// The file cannot be read; else every problem of that section.
pub fn books(file: Option<&Path>) -> Result<ledger::Config, Vec<Problem>> {
    part(file, &[], "ledger", |_| true).map(|config| config.ledger)
}

/// Of `[admin]` what a client of that listener has to know, its address and TLS; all else is as by default.
///
/// # Errors
/// The file cannot be read; else every problem of these two.
pub fn operator(file: Option<&Path>, overrides: &[(String, String)]) -> Result<admin::Config, Vec<Problem>> {
    part(file, overrides, "admin", |key| matches!(key, "listen" | "tls")).map(|config| config.admin)
}

/// A configuration of this section alone, and in it of the keys that are `asked` for.
fn part(
    file: Option<&Path>,
    overrides: &[(String, String)],
    section: &str,
    asked: impl Fn(&str) -> bool,
) -> Result<Config, Vec<Problem>> {
    let mut tree = tree(&layers(file, overrides)?.0)?;
    tree.retain(|name, _| name == section);
    if let Some(Value::Dict(_, keys)) = tree.get_mut(section) {
        keys.retain(|key, _| asked(key));
    }
    let (config, mut problems) = read(tree);
    match config {
        Some(config) if problems.is_empty() => Ok(config),
        _ => {
            place(file, &mut problems);
            Err(problems)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn who_reads_the_books_needs_nothing_else() {
        let read = |text: &str| books(Some(written(text).path())).map_err(|problems| problems[0].to_string());
        let text = "[admin]\ntoken = \"env:TIDEGATE_NO_SUCH\"\n[nothing]\n[ledger]\n";
        assert_eq!(read(&format!("{text}path = \"x.db\"\n")).unwrap().path, Path::new("x.db"));
        assert!(read(&format!("{text}pth = \"x.db\"\n")).unwrap_err().contains(":5: ledger.pth: unknown key"));
        assert!(read("[ledger\n").unwrap_err().contains("this is no TOML"));
    }

    #[test]
    fn who_asks_the_operator_s_listener_needs_its_address_and_tls() {
        let read = |text: &str| operator(Some(written(text).path()), &[]).map_err(|problems| problems[0].to_string());
        let bad = "[server]\nlistn = 1\n[admin]\ntoken = \"env:TIDEGATE_NO_SUCH\"\nnothing = 1\n";
        let found = read(&format!("{bad}listen = \"127.0.0.1:7\"\n")).unwrap();
        assert_eq!((found.listen.port(), found.tls), (7, None));
        let says = read(&format!("{bad}tls = \"hunter2\"\n")).unwrap_err();
        assert!(says.contains(":6: admin.tls: wrong type") && !says.contains("hunter2"), "{says}");
    }
}
