//! The log: lines to standard error, gathered for a moment so that a line does not cost a system call.
//!
//! Warnings and errors go out at once, everything else within a tenth of a second. A process that is killed may lose the last
//! lines; the ledger loses nothing.

mod line;

use line::Line as Format;
use parking_lot::Mutex;
use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Libraries that say at every try what is said once here. They can still be asked to speak: `TIDEGATE_LOG=kube_client=debug`.
const QUIET: &str = "kube_client=off,kube_runtime=off";

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// What was written out last; it changes places with [`LINES`], so that neither grows anew each time. Held while writing, which
/// keeps the lines in order.
static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// Lines are written out at the latest when they are this many bytes.
const ENOUGH: usize = 32 << 10;

/// Starts logging. `TIDEGATE_LOG` holds a filter (`warn`, `tidegate=debug`); the default is one line per request.
pub(super) fn start(json: bool) {
    let wish = std::env::var_os("TIDEGATE_LOG").map(|wish| wish.to_string_lossy().trim().to_owned());
    let (filter, wrong) = filter(wish.as_deref());
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let format = if json { Format::Json } else { Format::Text { colour } };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines).with_ansi(colour).event_format(format).init();
    if let Some(wrong) = wrong {
        tracing::warn!(%wrong, "TIDEGATE_LOG is no filter; it counts as info");
    }
    let flusher = std::thread::Builder::new().name("log".into()).spawn(|| {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            flush();
        }
    });
    if flusher.is_err() {
        // Then lines wait until there are enough of them.
        tracing::warn!("the log's thread could not be started; lines may come late");
    }
}

/// The filter that is wished for, if it is one; else the default, and what is wrong with the wish.
fn filter(wish: Option<&str>) -> (EnvFilter, Option<String>) {
    let wrong = wish.and_then(wrong);
    let wish = match wish {
        // As the library has it.
        Some("") => "error",
        Some(wish) if wrong.is_none() => wish,
        _ => "info",
    };
    // What comes later counts more.
    (EnvFilter::new(format!("{QUIET},{wish}")), wrong)
}

/// Why a filter is none. A lone word that is no level would be taken for the name of a library, and nothing else would be logged:
/// `warning` is written by many.
fn wrong(wish: &str) -> Option<String> {
    let is_word = !wish.is_empty() && wish.bytes().all(|byte| byte.is_ascii_alphabetic());
    if is_word && wish != "tidegate" && wish.parse::<LevelFilter>().is_err() {
        return Some(format!("`{wish}` is none of off, error, warn, info, debug and trace"));
    }
    EnvFilter::try_new(wish).err().map(|error| error.to_string())
}

/// Writes out what was gathered.
pub(super) fn flush() {
    let mut out = WRITTEN.lock();
    out.clear();
    std::mem::swap(&mut *LINES.lock(), &mut *out);
    if !out.is_empty() {
        let _ = io::stderr().write_all(&out);
    }
}

struct Lines;

/// A line in the making.
struct Line {
    urgent: bool,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { urgent: true }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Line {
        Line { urgent: *of.level() <= Level::WARN }
    }
}

impl Write for Line {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let mut lines = LINES.lock();
        lines.extend_from_slice(text);
        let now = self.urgent || lines.len() > ENOUGH;
        drop(lines);
        if now {
            flush();
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_quiet_unless_they_are_asked_and_no_filter_is_info() {
        for (wish, says, is_wrong) in [
            (None, "kube_runtime=off,kube_client=off,info", false),
            (Some(""), "kube_runtime=off,kube_client=off,error", false),
            (Some("no=such=filter"), "kube_runtime=off,kube_client=off,info", true),
            (Some("tidegate=debgu"), "kube_runtime=off,kube_client=off,info", true),
            (Some("warning"), "kube_runtime=off,kube_client=off,info", true),
            (Some("WARN"), "kube_runtime=off,kube_client=off,warn", false),
            (Some("tidegate=debug"), "kube_runtime=off,kube_client=off,tidegate=debug", false),
            (Some("warn,kube_client=debug"), "kube_client=debug,kube_runtime=off,warn", false),
        ] {
            let (filter, wrong) = filter(wish);
            assert_eq!(wrong.is_some(), is_wrong, "{wish:?}: {wrong:?}");
            let mut found: Vec<_> = filter.to_string().split(',').map(str::to_owned).collect();
            let mut wanted: Vec<_> = says.split(',').map(str::to_owned).collect();
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{wish:?}");
        }
    }
}
