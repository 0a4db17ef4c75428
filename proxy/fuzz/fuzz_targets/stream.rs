//! Streams: the reader, the pipe verbatim and the pipe across, under any chunking.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use tidegate_fuzz::canon::event::Grammar;
use tidegate_fuzz::canon::{Event, Fault, Usage};
use tidegate_fuzz::wire::frame::Frames;
use tidegate_fuzz::wire::json::validate;
use tidegate_fuzz::wire::reply::Pipe;
use tidegate_fuzz::wire::{Dialect, Glance, Unasked};
use tidegate_fuzz::{alike, dialect, head, mutate, read_stream, reads};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| { mutate(data, size, max_size, seed, true) });

fuzz_target!(|data: &[u8]| {
    let (dialect, whole) = (dialect(), Bytes::copy_from_slice(data));
    let events = read_stream(dialect, [whole.clone()]);
    Grammar::check(&events).unwrap_or_else(|rule| panic!("{rule}: {events:#?}"));
    assert_eq!(read_stream(dialect, reads(data)), events, "chunking");
    let failed = matches!(events.last(), Some(Event::Fault(_)));

    let all_at_once = run(Pipe::alike(dialect, "asked", Unasked::None), [whole.clone()]);
    assert_eq!(run(Pipe::alike(dialect, "asked", Unasked::None), reads(data)), all_at_once, "chunking, verbatim");
    if !failed && names_agree(dialect, whole.clone()) {
        books_agree(dialect, whole.clone(), &events);
        assert!(all_at_once.fault.is_none() && all_at_once.end, "{all_at_once:?} for {events:#?}");
    }
    for client in Dialect::ALL {
        let across = run(Pipe::across(client, dialect, head()), [whole.clone()]);
        assert_eq!(run(Pipe::across(client, dialect, head()), reads(data)), across, "chunking, for {client:?}");
        // Its calls hold objects: one with other arguments cannot be told.
        let objects = matches!(client, Dialect::OllamaChat | Dialect::OllamaGenerate);
        let failed = failed || objects && across.fault.is_some();
        assert_eq!((across.fault.is_some(), across.end), (failed, !failed), "{client:?}");
        let mut bytes = across.bytes.to_vec();
        if let Some(fault) = &across.fault {
            bytes.extend_from_slice(&client.codec().write_fault_frame(fault, "req_1", None));
        }
        let heard = read_stream(client, [Bytes::from(bytes)]);
        Grammar::check(&heard).unwrap_or_else(|rule| panic!("{client:?}: {rule}"));
        assert_eq!(matches!(heard.last(), Some(Event::Fault(_))), failed, "{client:?}: {heard:#?} for {events:#?}");
    }
});

#[derive(Debug, PartialEq)]
struct Ran {
    bytes: Bytes,
    end: bool,
    fault: Option<Fault>,
}

fn run(mut pipe: Pipe, reads: impl IntoIterator<Item = Bytes>) -> Ran {
    let (mut out, mut see) = (Vec::new(), |_: &Glance| {});
    for read in reads {
        let passed = pipe.push(read, &mut see);
        out.extend_from_slice(&passed.bytes);
        if passed.end || passed.fault.is_some() {
            return Ran { bytes: out.into(), end: passed.end, fault: passed.fault };
        }
    }
    let passed = pipe.finish(&mut see);
    out.extend_from_slice(&passed.bytes);
    Ran { bytes: out.into(), end: passed.end, fault: passed.fault }
}

/// Every event is what its name says. A glance trusts the name, so that it need not read what follows; the reader does not.
fn names_agree(dialect: Dialect, whole: Bytes) -> bool {
    let mut frames = Frames::of(dialect.framing());
    frames.feed(whole);
    frames.finish();
    std::iter::from_fn(|| frames.next().ok().flatten()).all(|frame| {
        let Some(name) = frame.event() else { return true };
        let data = frame.data().unwrap_or_default();
        let kind =
            validate(data.trim_ascii()).ok().and_then(|json| json.get("type")?.as_str().map(|kind| kind.into_owned()));
        kind.is_none_or(|kind| kind.as_bytes() == name)
    })
}

/// The books are kept from glances; they must come to what a real reading says.
fn books_agree(dialect: Dialect, whole: Bytes, events: &[Event]) {
    let mut frames = Frames::of(dialect.framing());
    frames.feed(whole);
    frames.finish();
    let (mut seen, mut read) = (Usage::default(), Usage::default());
    let stopped = events.iter().any(|event| matches!(event, Event::Stop(_)));
    while let Ok(Some(frame)) = frames.next() {
        // Behind a stop the reader takes what is no JSON for the end; a glance passes over it.
        let data = frame.data().unwrap_or_default();
        if stopped && !data.trim_ascii().is_empty() && &*data != b"[DONE]" && validate(data.trim_ascii()).is_err() {
            break;
        }
        let mut glance = dialect.codec().glance(&frame);
        assert!(glance.fault.is_none(), "the books see a fault where the reader sees none: {glance:?}");
        // As the pipe does it, but for several choices, of which the reader knows the first.
        if let Some(usage) = &mut glance.usage {
            dialect.codec().add_earlier(usage, &seen);
            seen.update(usage);
        }
        if glance.end {
            break;
        }
    }
    events.iter().for_each(|event| {
        if let Event::Usage(usage) = event {
            read.update(usage)
        }
    });
    assert!(alike(&seen, &read), "the books and the reader count alike: {seen:?} {events:#?}");
}
