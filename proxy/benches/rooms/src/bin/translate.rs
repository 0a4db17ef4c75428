//! What translating costs beside passing on, for every pair of dialects: time and allocations of the codecs alone, without
//! sockets. `make translate`; docs/performance.md has the table and says what it means.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on has failed")]
#![allow(missing_docs)]

#[path = "../../../../tests/it/heap.rs"]
mod heap;

use bytes::{Bytes, BytesMut};
use std::hint::black_box;
use std::time::Instant;
use tidegate::canon::call::{Content, Role, Turn};
use tidegate::canon::{Call, Delta, Event, Part, StopReason, Usage};
use tidegate::wire::reply::Pipe;
use tidegate::wire::request::Request;
use tidegate::wire::{Dialect, ReplyHead, Target, Unasked};

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;

/// Chunks of a stream.
const CHUNKS: usize = 4_000;
/// The least of so many runs counts: what else the machine does only ever adds.
const RUNS: usize = 15;
/// Bytes of a request.
const REQUEST: usize = 100 << 10;

fn main() {
    println!("| stream from ↓ to → | untouched | {} |", Dialect::ALL.map(|client| format!("{client:?}")).join(" | "));
    println!("|---|{}", "---:|".repeat(7));
    for backend in Dialect::ALL {
        let reads = stream(backend);
        let cell = |make: &dyn Fn() -> Pipe| {
            let (ns, asked) = least(|| pass(make(), &reads));
            format!("{:.0} ns, {:.1}", ns / CHUNKS as f64, asked as f64 / CHUNKS as f64)
        };
        let alike = cell(&|| Pipe::alike(backend, "m", Unasked::None));
        let across = Dialect::ALL.map(|client| match client == backend {
            true => "–".to_owned(),
            false => cell(&|| Pipe::across(client, backend, head())),
        });
        println!("| {backend:?} | {alike} | {} |", across.join(" | "));
    }
    println!("\n| request of 100 KiB from ↓ to → | {} |", Dialect::ALL.map(|to| format!("{to:?}")).join(" | "));
    println!("|---|{}", "---:|".repeat(6));
    for client in Dialect::ALL {
        let body = request(client);
        let cells = Dialect::ALL.map(|backend| {
            let (ns, asked) = least(|| write(client, &body, backend));
            format!("{:.1} µs, {asked}", ns / 1e3)
        });
        println!("| {client:?} | {} |", cells.join(" | "));
    }
}

/// Nanoseconds and allocations of the quickest run.
fn least(run: impl Fn()) -> (f64, u64) {
    run();
    let runs = (0..RUNS).map(|_| {
        let (asked, began) = (heap::asked(), Instant::now());
        run();
        (began.elapsed().as_nanos() as f64, heap::asked() - asked)
    });
    runs.min_by(|one, other| one.0.total_cmp(&other.0)).unwrap()
}

fn pass(mut pipe: Pipe, reads: &[Bytes]) {
    let mut tokens = 0_u64;
    for read in reads {
        let passed = pipe.push(read.clone(), &mut |glance| tokens += u64::from(glance.token));
        assert!(passed.fault.is_none());
        black_box(passed.bytes);
    }
    black_box(tokens);
}

fn head() -> ReplyHead {
    ReplyHead { id: "1".into(), model: "m".into(), created: 1, stream_usage: true, ..ReplyHead::default() }
}

/// A long text as a backend of this dialect streams it, a read for each chunk.
fn stream(backend: Dialect) -> Vec<Bytes> {
    let mut writer = backend.codec().writer(head());
    let mut events = vec![Event::Start { id: None, model: None }, Event::Open(Part::Text)];
    events.extend((0..CHUNKS).map(|_| Event::Delta(Delta::Text(" token".into()))));
    let usage = Usage { input: Some(9), output: Some(CHUNKS as u64), ..Usage::default() };
    events.extend([Event::Close, Event::Usage(usage), Event::Stop(StopReason::EndTurn)]);
    let pieces = events.iter().map(|event| {
        let mut out = BytesMut::new();
        writer.write(event, &mut out);
        out.freeze()
    });
    pieces.filter(|piece| !piece.is_empty()).collect()
}

/// A conversation of one long text.
fn request(client: Dialect) -> Bytes {
    let text = "It was the best of times, it was the \"worst\" of times.\n".repeat(REQUEST / 56);
    let turn = Turn { role: Role::User, content: vec![Content::Text(text)] };
    let call = Call {
        model: "m".into(),
        turns: vec![turn],
        choices: 1,
        max_tokens: Some(64),
        stream: true,
        stream_usage: true,
        ..Call::default()
    };
    client.codec().write_call(&call, &target()).unwrap().body
}

fn target() -> Target {
    Target { model: "m".into(), ..Target::default() }
}

fn write(client: Dialect, body: &Bytes, backend: Dialect) {
    let request = Request::read(client, body.clone()).unwrap();
    black_box(request.write(&[backend], &target()).unwrap());
}
