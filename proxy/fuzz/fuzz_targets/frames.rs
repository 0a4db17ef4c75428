//! Framing: nothing is lost, and how the bytes arrive does not matter.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use tidegate_fuzz::reads;
use tidegate_fuzz::wire::frame::{Frame, Frames, Framing};

fuzz_target!(|data: &[u8]| {
    for framing in [Framing::Events, Framing::Lines] {
        let whole = split(framing, [Bytes::copy_from_slice(data)]);
        assert_eq!(split(framing, reads(data)), whole);
        assert_eq!(whole.iter().flat_map(|frame| frame.raw.to_vec()).collect::<Vec<_>>(), data);
        for frame in &whole {
            let had = framing.data(frame).is_some();
            let _ = frame.event();
            if framing == Framing::Events && had {
                let other = Frame { raw: frame.with_data(b"{}") };
                assert_eq!(other.data().as_deref(), Some(b"{}".as_slice()));
                assert_eq!(other.event(), frame.event());
            }
        }
    }
});

fn split(framing: Framing, reads: impl IntoIterator<Item = Bytes>) -> Vec<Frame> {
    let (mut frames, mut out) = (Frames::of(framing), Vec::new());
    for read in reads {
        frames.feed(read);
        while let Some(frame) = frames.next().expect("no input is that long") {
            out.push(frame);
        }
    }
    frames.finish();
    while let Some(frame) = frames.next().expect("no input is that long") {
        out.push(frame);
    }
    assert_eq!(frames.pending(), 0);
    out
}
