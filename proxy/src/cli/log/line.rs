//! How a log line reads: as text for people, as JSON for collectors.
//!
//! Every request writes one. The subscriber's own formats cost as much as reading the request did, for they pass each field
//! through `fmt` letter by letter; here a field is a copy.

use crate::wire::json::{write_f64, write_int, write_str};
use std::cell::Cell;
use std::fmt::{self, Debug};
use std::io::Write as _;
use std::time::SystemTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The format of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// `2026-11-24T05:22:56.123456Z INFO request status=200`, strings as JSON writes them.
    Text {
        /// With the level in colour.
        colour: bool,
    },
    /// One object: `timestamp`, `level`, `message` and the fields.
    Json,
}

thread_local! { static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) }; }

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        // Taken, not borrowed: a field whose Debug logs something must find a buffer, too.
        let mut line = BUFFER.take();
        line.clear();
        self.write(&mut line, SystemTime::now(), event);
        let written = writer.write_str(simdutf8::basic::from_utf8(&line).map_err(|_| fmt::Error)?);
        BUFFER.set(line);
        written
    }
}

impl Line {
    fn write(self, line: &mut Vec<u8>, now: SystemTime, event: &Event<'_>) {
        let level = *event.metadata().level();
        let time = humantime::format_rfc3339_micros(now);
        // Writing to memory cannot fail.
        let _ = match self {
            Self::Json => write!(line, "{{\"timestamp\":\"{time}\",\"level\":\"{level}\""),
            Self::Text { colour: false } => write!(line, "{time} {level:>5}"),
            Self::Text { colour: true } => {
                write!(line, "\x1b[2m{time}\x1b[0m \x1b[{}m{level:>5}\x1b[0m", colour(level))
            }
        };
        event.record(&mut Fields { line, json: self == Self::Json });
        line.extend_from_slice(if self == Self::Json { b"}\n" } else { b"\n" });
    }
}

/// The colour of a level (ECMA-48, SGR): red, yellow, green, blue, magenta.
fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

struct Fields<'a> {
    line: &'a mut Vec<u8>,
    json: bool,
}

impl Fields<'_> {
    fn key(&mut self, field: &Field) {
        let (before, after): (&[u8], &[u8]) = if self.json { (b",\"", b"\":") } else { (b" ", b"=") };
        self.line.extend_from_slice(before);
        self.line.extend_from_slice(field.name().as_bytes());
        self.line.extend_from_slice(after);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.key(field);
        write_str(self.line, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.key(field);
        write_int(self.line, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.key(field);
        write_int(self.line, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.key(field);
        self.line.extend_from_slice(if value { b"true" } else { b"false" });
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.key(field);
        write_f64(self.line, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" && !self.json {
            self.line.push(b' ');
            // A line is one line, whatever a message says.
            self.line.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
            return;
        }
        self.record_str(field, &text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    struct Kept(Line, Arc<Mutex<Vec<u8>>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            self.0.write(&mut self.1.lock().unwrap(), SystemTime::UNIX_EPOCH + Duration::from_micros(1_500_000), event);
        }
    }

    #[test]
    fn lines() {
        let text = |line| {
            let kept = Arc::new(Mutex::new(Vec::new()));
            tracing::subscriber::with_default(tracing_subscriber::registry().with(Kept(line, kept.clone())), || {
                let error = std::io::Error::other("a\nb");
                tracing::info!(
                    id = "x \"y\"",
                    status = 200_u16,
                    took = 1.25,
                    input = Some(7_u64),
                    output = None::<u64>,
                    "request"
                );
                tracing::warn!(%error, ok = true, "two\nlines");
            });
            String::from_utf8(kept.lock().unwrap().clone()).unwrap()
        };
        assert_eq!(
            text(Line::Text { colour: false }),
            "1970-01-01T00:00:01.500000Z  INFO request id=\"x \\\"y\\\"\" status=200 took=1.25 input=7\n\
             1970-01-01T00:00:01.500000Z  WARN two lines error=\"a\\nb\" ok=true\n"
        );
        assert!(text(Line::Text { colour: true }).contains("\x1b[32m INFO\x1b[0m request"));
        let lines: Vec<serde_json::Value> =
            text(Line::Json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            lines[0],
            serde_json::json!({"timestamp": "1970-01-01T00:00:01.500000Z", "level": "INFO", "message": "request",
                "id": "x \"y\"", "status": 200, "took": 1.25, "input": 7})
        );
        assert_eq!((&lines[1]["message"], &lines[1]["error"]), (&"two\nlines".into(), &"a\nb".into()));
    }
}
