//! Nothing that a stream needs grows with its length.

use crate::heap::live;
use bytes::{Bytes, BytesMut};
use tidegate::canon::{Delta, Event, Part, Usage};
use tidegate::wire::reply::Pipe;
use tidegate::wire::{Dialect, ReplyHead, Unasked};

/// A stream's first bytes, and one of its chunks, as a backend of this dialect writes them.
fn stream(backend: Dialect) -> (Bytes, Bytes) {
    let mut writer = backend.codec().writer(ReplyHead { id: "1".into(), model: "m".into(), ..ReplyHead::default() });
    let (mut first, mut chunk) = (BytesMut::new(), BytesMut::new());
    let usage = Usage { input: Some(9), ..Usage::default() };
    for event in [Event::Start { id: None, model: None }, Event::Usage(usage), Event::Open(Part::Text)] {
        writer.write(&event, &mut first);
    }
    writer.write(&Event::Delta(Delta::Text("first".into())), &mut first);
    writer.write(&Event::Delta(Delta::Text(" token".into())), &mut chunk);
    (first.freeze(), chunk.freeze())
}

/// Bytes held after a thousand chunks and after a hundred times as many.
fn held(mut pipe: Pipe, backend: Dialect) -> (isize, isize) {
    let (first, chunk) = stream(backend);
    let before = live();
    let mut pass = |bytes: &Bytes| {
        let passed = pipe.push(Bytes::copy_from_slice(bytes), &mut |_| {});
        assert!(!passed.end && passed.fault.is_none(), "{passed:?}");
    };
    pass(&first);
    (0..1_000).for_each(|_| pass(&chunk));
    let early = live() - before;
    (1_000..100_000).for_each(|_| pass(&chunk));
    (early, live() - before)
}

#[test]
fn a_long_stream_holds_no_more_than_a_short_one() {
    let head = || ReplyHead { id: "1".into(), model: "m".into(), ..ReplyHead::default() };
    for backend in Dialect::ALL {
        let (early, late) = held(Pipe::alike(backend, "m", Unasked::None), backend);
        assert_eq!(early, late, "{backend:?}, untouched");
        for client in Dialect::ALL {
            let (early, late) = held(Pipe::across(client, backend, head()), backend);
            // This protocol tells every text again at its end: the text is kept, and nothing else.
            let text = if client == Dialect::Responses { 6 * 99_000 * 3 } else { 0 };
            assert!((early..=early + text).contains(&late), "{backend:?} to {client:?}: {early} and then {late}");
        }
    }
}
