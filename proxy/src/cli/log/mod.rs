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
use tracing_subscriber::fmt::MakeWriter;

static LINES: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// What was written out last; it changes places with [`LINES`], so that neither grows anew each time. Held while writing, which
/// keeps the lines in order.
static WRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());
/// Lines are written out at the latest when they are this many bytes.
const ENOUGH: usize = 32 << 10;

/// Starts logging. `TIDEGATE_LOG` holds a filter (`warn`, `tidegate=debug`); the default is one line per request.
pub(super) fn start(json: bool) {
    let filter = EnvFilter::try_from_env("TIDEGATE_LOG").unwrap_or_else(|_| "info".into());
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let format = if json { Format::Json } else { Format::Text { colour } };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(Lines).with_ansi(colour).event_format(format).init();
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
