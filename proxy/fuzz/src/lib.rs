//! What the fuzz targets share: the rooms under test, the dialect of this run, and how a stream is cut into reads.
//!
//! The three rooms that touch strangers' bytes are compiled in here from their own files. The gateway around them would be
//! ten minutes of instrumented build and would tell the fuzzer nothing.

#![allow(dead_code, missing_docs, unused_imports)]

#[path = "../../src/canon/mod.rs"]
pub mod canon;
#[path = "../../src/gate/mod.rs"]
pub mod gate;
#[path = "../../src/wire/mod.rs"]
pub mod wire;

mod mutate;

pub use mutate::mutate;

use bytes::{Bytes, BytesMut};
use canon::{Answer, Event, Fault};
use std::sync::OnceLock;
use wire::frame::Frames;
use wire::{Dialect, ReplyHead, Target};

/// The dialect of this run: `FUZZ_DIALECT`, in the words of the golden folders.
pub fn dialect() -> Dialect {
    static DIALECT: OnceLock<Dialect> = OnceLock::new();
    *DIALECT.get_or_init(|| match std::env::var("FUZZ_DIALECT").unwrap_or_default().as_str() {
        "chat" => Dialect::Chat,
        "messages" => Dialect::Messages,
        "responses" => Dialect::Responses,
        "completions" => Dialect::Completions,
        "ollama_chat" => Dialect::OllamaChat,
        "ollama_generate" => Dialect::OllamaGenerate,
        other => panic!(
            "FUZZ_DIALECT is `{other}`; set it to chat, messages, responses, completions, ollama_chat or ollama_generate"
        ),
    })
}

/// A head as the relay would make it.
pub fn head() -> ReplyHead {
    ReplyHead {
        id: "1".into(),
        model: "asked".into(),
        created: 1,
        stream_usage: true,
        deepfellow: true,
        ..ReplyHead::default()
    }
}

/// A target that takes everything its dialect can say.
pub fn target() -> Target {
    Target {
        model: "there".into(),
        system_first: true,
        thinking_kwargs: true,
        extended_sampling: true,
        reasoning_effort: true,
        ..Target::default()
    }
}

/// The input as reads of sizes that follow from its own bytes: the same input is cut the same way again.
pub fn reads(data: &[u8]) -> Vec<Bytes> {
    let mut state = data
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    let most = [1, 3, 17, 120][(state >> 60) as usize % 4];
    let (mut rest, mut reads) = (Bytes::copy_from_slice(data), Vec::new());
    while !rest.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let size = 1 + (state >> 33) as usize % most;
        reads.push(rest.split_to(size.min(rest.len())));
    }
    reads
}

/// Reads a stream that arrives in these pieces.
pub fn read_stream(dialect: Dialect, reads: impl IntoIterator<Item = Bytes>) -> Vec<Event> {
    wire::reply::read_stream(dialect, reads).expect("no input is that long")
}

/// Writes events as a stream; a fault among them as the frame that ends it.
pub fn write_stream(dialect: Dialect, events: &[Event]) -> Bytes {
    let mut writer = dialect.codec().writer(head());
    let mut out = BytesMut::new();
    for event in events {
        match event {
            Event::Fault(fault) => out.extend_from_slice(&dialect.codec().write_fault_frame(fault, "req_1", None)),
            event => writer.write(event, &mut out),
        }
    }
    out.freeze()
}

/// Folds events that end in a stop.
pub fn fold(events: &[Event]) -> Result<Answer, Fault> {
    wire::reply::fold(events.iter().cloned())
}

/// Everything the answer says to a reader, in one text.
pub fn said(answer: &Answer) -> String {
    answer.parts.iter().filter(|piece| piece.part == canon::Part::Text).map(|piece| piece.text.as_str()).collect()
}

/// Counts that do not contradict each other. Of nonsense one may know less than the other; that neither loses what servers
/// write is what the golden files hold.
pub fn alike(one: &canon::Usage, other: &canon::Usage) -> bool {
    let pairs = [(one.input, other.input), (one.output, other.output), (one.reasoning, other.reasoning)];
    pairs.iter().all(|(one, other)| one.is_none() || other.is_none() || one == other)
}
