//! How much a plugin may write into the gateway's log: so many lines a second, over all its instances together.
//!
//! One that counted for itself would let a plugin with a thousand instances write a thousand times as much.

use super::bindings::log::Level;
use super::load::Plugin;
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Lines in a second.
const LINES: u32 = 50;
/// Bytes of a line, and of its fields.
const LINE: usize = 4096;

/// Writes a line of a plugin's. Those of a level that is not written leave their room to others.
pub(super) fn write(plugin: &Plugin, request_id: &str, level: Level, message: &str, fields: &[(String, String)]) {
    let written = match level {
        Level::Debug => tracing::enabled!(tracing::Level::DEBUG),
        Level::Info => tracing::enabled!(tracing::Level::INFO),
        Level::Warn => tracing::enabled!(tracing::Level::WARN),
        Level::Error => tracing::enabled!(tracing::Level::ERROR),
    };
    if !written || !plugin.lines.take(Instant::now()) {
        return;
    }
    let mut text: String = fields.iter().map(|(name, value)| format!("{name}={value:?} ")).collect();
    text.truncate(text.floor_char_boundary(LINE));
    let message = &message[..message.floor_char_boundary(LINE)];
    let (plugin, fields) = (&*plugin.name, text.trim_end());
    match level {
        Level::Debug => tracing::debug!(plugin, request_id, text = message, fields, "a plugin says"),
        Level::Info => tracing::info!(plugin, request_id, text = message, fields, "a plugin says"),
        Level::Warn => tracing::warn!(plugin, request_id, text = message, fields, "a plugin says"),
        Level::Error => tracing::error!(plugin, request_id, text = message, fields, "a plugin says"),
    }
}

/// What is left of this second's lines.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<Option<(Instant, u32)>>);

impl Lines {
    /// Whether one more may be written.
    pub fn take(&self, now: Instant) -> bool {
        let mut second = self.0.lock();
        let (began, written) = second.get_or_insert((now, 0));
        if now.saturating_duration_since(*began) >= Duration::from_secs(1) {
            (*began, *written) = (now, 0);
        }
        *written = written.saturating_add(1);
        *written <= LINES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_writes_takes_from_one_allowance() {
        let (lines, now) = (Lines::default(), Instant::now());
        let written = |after: u64| (0..60).filter(|_| lines.take(now + Duration::from_millis(after))).count();
        assert_eq!((written(0), written(999), written(1000), written(1500), written(2100)), (50, 0, 50, 0, 50));
    }
}
