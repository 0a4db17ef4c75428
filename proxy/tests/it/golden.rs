//! Streams and bodies as servers send them, and what they mean: `golden/<dialect>/NAME.{sse,ndjson,json}` beside
//! `NAME.events`, one event a line. Those named `recorded_…` came out of a real server (`tests/clients/record.py` and
//! `record_vllm.py`); those named `seen_…` were written after recordings of vendors (`golden/seen_vendors.md`), the others after
//! servers' sources and documentation. `TIDEGATE_BLESS=1 cargo test golden` rewrites the expectations; read the diff before you
//! keep it.

use bytes::Bytes;
use std::path::{Path, PathBuf};
use tidegate::canon::event::Grammar;
use tidegate::canon::{Delta, Event, FaultKind, Usage};
use tidegate::wire::Dialect;
use tidegate::wire::frame::Frames;
use tidegate::wire::object::Object;

/// A recording.
pub struct Recording {
    pub dialect: Dialect,
    pub path: PathBuf,
    pub bytes: Bytes,
}

impl Recording {
    pub fn is_stream(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "sse" || extension == "ndjson")
    }

    /// What it means, read whole.
    pub fn events(&self) -> Vec<Event> {
        if self.is_stream() {
            return read_stream(self.dialect, [self.bytes.clone()]);
        }
        self.dialect.codec().read_answer(&self.bytes).unwrap_or_else(|fault| vec![Event::Fault(fault)])
    }
}

/// All recordings of replies, or of calls, in a fixed order.
pub fn recordings(calls: bool) -> Vec<Recording> {
    let mut found = Vec::new();
    for dialect in Dialect::ALL {
        let name = match dialect {
            Dialect::Chat => "chat",
            Dialect::Messages => "messages",
            Dialect::Responses => "responses",
            Dialect::Completions => "completions",
            Dialect::OllamaChat => "ollama_chat",
            Dialect::OllamaGenerate => "ollama_generate",
        };
        let mut folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name);
        if calls {
            folder.push("calls");
        }
        let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        let kinds = ["sse", "ndjson", "json"];
        paths.retain(|path| path.extension().is_some_and(|extension| kinds.iter().any(|kind| extension == *kind)));
        paths.sort();
        assert!(!paths.is_empty(), "{}", folder.display());
        found.extend(paths.into_iter().map(|path| Recording {
            dialect,
            bytes: std::fs::read(&path).unwrap().into(),
            path,
        }));
    }
    found
}

/// Reads a stream that arrives in these pieces.
pub fn read_stream(dialect: Dialect, reads: impl IntoIterator<Item = Bytes>) -> Vec<Event> {
    tidegate::wire::reply::read_stream(dialect, reads).unwrap()
}

#[test]
fn recordings_mean_what_they_meant() {
    let bless = std::env::var_os("TIDEGATE_BLESS").is_some();
    for recording in recordings(false) {
        let events = recording.events();
        let name = recording.path.display();
        Grammar::check(&events).unwrap_or_else(|rule| panic!("{name}: {rule}"));
        let text: String = events.iter().map(|event| format!("{event:?}\n")).collect();
        let expected = recording.path.with_extension("events");
        if bless {
            std::fs::write(&expected, &text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&expected).unwrap_or_default(), "{name}");
    }
}

/// The books are kept from glances; they must come to what a real reading says.
#[test]
fn glances_agree_with_readings() {
    for recording in recordings(false) {
        let name = recording.path.display();
        let codec = recording.dialect.codec();
        let events = recording.events();
        let mut glances = Vec::new();
        if recording.is_stream() {
            let mut frames = Frames::of(recording.dialect.framing());
            frames.feed(recording.bytes.clone());
            frames.finish();
            while let Some(frame) = frames.next().unwrap() {
                glances.push(codec.glance(&frame));
            }
        } else {
            glances.push(codec.glance_answer(&Object::read(recording.bytes.clone()).unwrap()));
        }
        let (mut seen, mut read) = (Usage::default(), Usage::default());
        glances.iter().filter_map(|glance| glance.usage).for_each(|usage| seen.update(&usage));
        for event in &events {
            if let Event::Usage(usage) = event {
                read.update(usage);
            }
        }
        assert_eq!(seen, read, "{name}");
        let spoken = events
            .iter()
            .any(|event| matches!(event, Event::Delta(Delta::Text(_) | Delta::Thinking(_) | Delta::Arguments(_))));
        assert!(!spoken || glances.iter().any(|glance| glance.token), "{name}");
        let stopped = matches!(events.last(), Some(Event::Stop(_)));
        assert!(!stopped || glances.iter().any(|glance| glance.stop.is_some()), "{name}");
        let faulted =
            events.iter().any(|event| matches!(event, Event::Fault(fault) if fault.kind != FaultKind::BackendCut));
        assert_eq!(faulted, glances.iter().any(|glance| glance.fault.is_some()), "{name}");
    }
}
