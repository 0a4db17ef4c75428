//! Server-sent events, or lines of JSON, cut out of a byte stream, under any chunking.
//!
//! The decoder follows the WHATWG event-stream rules as far as model servers use them: LF, CR or CRLF, comments, a BOM,
//! several `data:` lines. U+2028 inside text is text. A frame keeps its own bytes, so that an untouched one can leave as it
//! came: cut from the read it arrived in without a copy, unless it straddles two reads.

use bytes::{Buf, Bytes, BytesMut};
use std::borrow::Cow;
use std::fmt;

/// The longest line a backend may send unless another limit is given: 8 MiB, enough for a page of image data, too little to be
/// a weapon.
pub const LINE_LIMIT: usize = 8 << 20;

/// How a dialect's streams are cut into frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Framing {
    /// Server-sent events.
    #[default]
    Events,
    /// JSON texts, one a line.
    Lines,
}

impl Framing {
    /// The media type of such streams.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Events => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }

    /// What a frame carries; `None` for comments and blank lines.
    pub fn data(self, frame: &Frame) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Events => frame.data(),
            Self::Lines => Some(frame.raw.trim_ascii()).filter(|line| !line.is_empty()).map(Cow::Borrowed),
        }
    }
}

/// One event of a stream, blank line included; or one line, with its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The bytes as they came. All frames of a stream together are the stream.
    pub raw: Bytes,
}

/// A line, or a run of lines without an end, beyond this many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong(pub usize);

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            limit if limit > 0 && limit.is_multiple_of(1 << 20) => write!(f, "a line of more than {} MiB", limit >> 20),
            limit => write!(f, "a line of more than {limit} bytes"),
        }
    }
}

impl Frame {
    /// The `event:` field, where there is one.
    pub fn event(&self) -> Option<&[u8]> {
        fields(&self.raw).find(|(name, _)| *name == b"event").map(|(_, value)| value)
    }

    /// The `data:` fields, joined by newlines as the rules say; `None` for comments and blank lines.
    pub fn data(&self) -> Option<Cow<'_, [u8]>> {
        let mut data = fields(&self.raw).filter(|(name, _)| *name == b"data").map(|(_, value)| value);
        let first = data.next()?;
        let Some(second) = data.next() else { return Some(Cow::Borrowed(first)) };
        let mut joined = first.to_vec();
        for line in std::iter::once(second).chain(data) {
            joined.push(b'\n');
            joined.extend_from_slice(line);
        }
        Some(Cow::Owned(joined))
    }

    /// The same frame around other data; event name, comments and line ends stay. The data is JSON: the ends of lines in it are
    /// space, and would end its field.
    #[must_use]
    pub fn with_data(&self, data: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(self.raw.len() + data.len());
        let mut written = false;
        let text = self.raw.strip_prefix(BOM).unwrap_or(&self.raw);
        out.extend_from_slice(&self.raw[..self.raw.len() - text.len()]);
        for line in lines(text) {
            match field(line) {
                Some((b"data", value)) => {
                    if !written {
                        out.extend_from_slice(b"data: ");
                        let start = out.len();
                        out.extend_from_slice(data);
                        for byte in &mut out[start..] {
                            if matches!(*byte, b'\n' | b'\r') {
                                *byte = b' ';
                            }
                        }
                        let tail = value.as_ptr() as usize - line.as_ptr() as usize + value.len();
                        out.extend_from_slice(&line[tail..]);
                        written = true;
                    }
                }
                _ => out.extend_from_slice(line),
            }
        }
        out.freeze()
    }
}

/// The lines of a frame with their ends.
fn lines(raw: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = raw;
    std::iter::from_fn(move || {
        let end = line_end(rest, true)?;
        let (line, tail) = rest.split_at(end);
        rest = tail;
        Some(line)
    })
}

/// Name and value of each field line.
fn fields(raw: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines(raw.strip_prefix(BOM).unwrap_or(raw)).filter_map(field)
}

const BOM: &[u8] = b"\xef\xbb\xbf";

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    if text.is_empty() || text[0] == b':' {
        return None;
    }
    // A line that is all name has an empty value at its end: where a value stands is asked, too.
    let Some(colon) = memchr::memchr(b':', text) else { return Some((text, &text[text.len()..])) };
    let value = &text[colon + 1..];
    Some((&text[..colon], value.strip_prefix(b" ").unwrap_or(value)))
}

/// Length of the first line with its end. A CR that is the last byte is an end only when `last`: an LF may follow it.
fn line_end(text: &[u8], last: bool) -> Option<usize> {
    match memchr::memchr2(b'\n', b'\r', text) {
        Some(at) if text[at] == b'\n' => Some(at + 1),
        Some(at) => match text.get(at + 1) {
            Some(b'\n') => Some(at + 2),
            Some(_) => Some(at + 1),
            None => last.then_some(at + 1),
        },
        None => (last && !text.is_empty()).then_some(text.len()),
    }
}

/// Cuts frames out of reads. Feed it, then take frames until there is none.
#[derive(Debug, Default)]
pub struct Frames {
    framing: Framing,
    limit: Limit,
    /// Unfinished text of earlier reads; empty while frames do not straddle reads.
    held: BytesMut,
    /// The current read, cut from the front.
    read: Bytes,
    /// Bytes at the front of the text that are complete lines of the frame in the making.
    seen: usize,
    /// Bytes behind these that were looked at and hold no end of a line: a line in many reads is looked at once.
    scanned: usize,
    /// Bytes looked at in vain.
    #[cfg(test)]
    looked_at: usize,
    /// A field line has been seen, so a blank line ends the frame.
    filled: bool,
    /// No more reads will come.
    last: bool,
    /// See [`Frames::broke_off`].
    broke_off: bool,
}

/// Bytes of a line.
#[derive(Debug, Clone, Copy)]
struct Limit(usize);

impl Default for Limit {
    fn default() -> Self {
        Self(LINE_LIMIT)
    }
}

impl Frames {
    /// For streams of this kind; server-sent events by default.
    pub fn of(framing: Framing) -> Self {
        Self { framing, ..Self::default() }
    }

    /// Takes lines of so many bytes at most, instead of [`LINE_LIMIT`].
    #[must_use]
    pub fn lines_up_to(mut self, limit: usize) -> Self {
        self.limit = Limit(limit);
        self
    }

    /// Takes the next read. Call [`Frames::next`] until it is empty before feeding again.
    pub fn feed(&mut self, read: Bytes) {
        if self.held.is_empty() && self.read.is_empty() {
            self.read = read;
        } else {
            let rest = std::mem::take(&mut self.read);
            self.held.extend_from_slice(&rest);
            self.held.extend_from_slice(&read);
        }
    }

    /// No more bytes will come: what is held may now end.
    pub fn finish(&mut self) {
        self.last = true;
    }

    /// The frame that was taken last has no proper end: the stream broke off inside it, or ends without a last newline.
    pub fn broke_off(&self) -> bool {
        self.broke_off
    }

    /// Bytes waiting for the rest of their frame.
    pub fn pending(&self) -> usize {
        self.held.len() + self.read.len()
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// [`TooLong`] when a line, or a frame without an end, outgrows the limit; the stream is of no use after that.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Frame>, TooLong> {
        loop {
            let text: &[u8] = if self.held.is_empty() { &self.read } else { &self.held };
            let from = self.seen + self.scanned;
            let new = &text[from..];
            let end = match self.framing {
                Framing::Events => line_end(new, self.last),
                Framing::Lines => memchr::memchr(b'\n', new).map(|at| at + 1),
            };
            let Some(length) = end else {
                // A CR at the end has to be looked at again: what follows decides.
                self.scanned += new.len() - usize::from(new.ends_with(b"\r"));
                #[cfg(test)]
                {
                    self.looked_at += new.len();
                }
                if text.len() > self.limit.0 {
                    return Err(TooLong(self.limit.0));
                }
                if self.last && !text.is_empty() {
                    self.broke_off = true;
                    return Ok(Some(self.cut(text.len())));
                }
                if self.held.is_empty() && !self.read.is_empty() {
                    self.held.extend_from_slice(&self.read);
                    self.read.clear();
                }
                return Ok(None);
            };
            let line = &text[self.seen..from + length];
            // It came in one read with its end.
            if line.len() > self.limit.0 {
                return Err(TooLong(self.limit.0));
            }
            let blank = matches!(line, b"\n" | b"\r" | b"\r\n");
            self.seen = from + length;
            self.scanned = 0;
            if self.framing == Framing::Lines || blank && self.filled {
                let end = self.seen;
                return Ok(Some(self.cut(end)));
            }
            // Comments alone and stray blank lines wait for the frame they precede; keep-alive comments end with a blank
            // line of their own and must not be held back.
            if blank {
                let end = self.seen;
                return Ok(Some(self.cut(end)));
            }
            self.filled |= line[0] != b':';
        }
    }

    fn cut(&mut self, length: usize) -> Frame {
        self.seen = 0;
        self.scanned = 0;
        self.filled = false;
        let raw = if self.held.is_empty() { self.read.split_to(length) } else { self.held.split_to(length).freeze() };
        if !self.held.has_remaining() {
            self.held = BytesMut::new();
        }
        Frame { raw }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &[u8], size: usize) -> Vec<Frame> {
        split_as(Framing::Events, text, size)
    }

    fn split_as(framing: Framing, text: &[u8], size: usize) -> Vec<Frame> {
        let mut frames = Frames::of(framing);
        let mut out = Vec::new();
        for read in text.chunks(size) {
            frames.feed(Bytes::copy_from_slice(read));
            while let Some(frame) = frames.next().unwrap() {
                out.push(frame);
            }
        }
        frames.finish();
        while let Some(frame) = frames.next().unwrap() {
            out.push(frame);
        }
        out
    }

    const STREAM: &str =
        "\u{feff}data: {\"a\":\"é\u{2028}\"}\r\n\r\n: ping\n\nevent: x\rdata: 1\rdata:2\r\rid: 7\ndata: [DONE]\n\n";

    #[test]
    fn frames_are_the_same_under_any_chunking() {
        let whole = split(STREAM.as_bytes(), STREAM.len());
        let data: Vec<_> =
            whole.iter().map(|frame| frame.data().map(|data| String::from_utf8(data.into_owned()).unwrap())).collect();
        assert_eq!(data, [Some("{\"a\":\"é\u{2028}\"}".into()), None, Some("1\n2".into()), Some("[DONE]".into())]);
        assert_eq!(whole[2].event(), Some(b"x".as_slice()));
        for size in 1..STREAM.len() {
            assert_eq!(split(STREAM.as_bytes(), size), whole, "reads of {size}");
        }
        assert_eq!(whole.iter().flat_map(|frame| frame.raw.to_vec()).collect::<Vec<_>>(), STREAM.as_bytes());
    }

    #[test]
    fn lines_are_the_same_under_any_chunking() {
        let text = "{\"a\":\"é\u{2028}\"}\r\n\n{\"b\":1}\n {\"c\":\r 2}";
        let whole = split_as(Framing::Lines, text.as_bytes(), text.len());
        let data: Vec<_> = whole.iter().map(|frame| Framing::Lines.data(frame).map(Cow::into_owned)).collect();
        let expect = ["{\"a\":\"é\u{2028}\"}", "", "{\"b\":1}", "{\"c\":\r 2}"];
        let expect = expect.map(|line| Some(line.as_bytes().to_vec()).filter(|line| !line.is_empty()));
        assert_eq!(data, expect);
        for size in 1..text.len() {
            assert_eq!(split_as(Framing::Lines, text.as_bytes(), size), whole, "reads of {size}");
        }
    }

    #[test]
    fn a_stream_that_ends_without_a_blank_line_gives_up_its_rest() {
        assert_eq!(split(b"data: 1\n\ndata: 2", 3).last().unwrap().data().unwrap().as_ref(), b"2");
    }

    #[test]
    fn data_is_exchanged_in_place() {
        let frame = Frame { raw: Bytes::from_static(b": c\r\nevent: m\r\ndata: {\"a\":1}\r\n\r\n") };
        assert_eq!(frame.with_data(b"{}"), b": c\r\nevent: m\r\ndata: {}\r\n\r\n".as_slice());
        assert_eq!(frame.with_data(b"{\n}"), b": c\r\nevent: m\r\ndata: { }\r\n\r\n".as_slice());
    }

    #[test]
    fn a_line_without_end_is_refused() {
        for framing in [Framing::Events, Framing::Lines] {
            let mut frames = Frames::of(framing);
            frames.feed(vec![b'x'; LINE_LIMIT + 1].into());
            let refused = frames.next().unwrap_err();
            assert_eq!((refused, &*refused.to_string()), (TooLong(LINE_LIMIT), "a line of more than 8 MiB"));
            for (text, limit, fits) in [("data: 12\n\n", 9, true), ("data: 12\n\n", 8, false), ("data: 12", 7, false)] {
                let mut frames = Frames::of(framing).lines_up_to(limit);
                frames.feed(Bytes::from_static(text.as_bytes()));
                assert_eq!(frames.next().is_ok(), fits, "{text:?} of {limit}");
            }
        }
    }

    #[test]
    fn a_long_line_in_small_reads_is_looked_at_once() {
        let line = [b"data: ".as_slice(), &vec![b'x'; 4 << 20], b"\r\n\r\n"].concat();
        let mut frames = Frames::default();
        let mut cut = Vec::new();
        for read in line.chunks(64) {
            frames.feed(Bytes::copy_from_slice(read));
            cut.extend(frames.next().unwrap());
        }
        assert_eq!(cut, [Frame { raw: line.clone().into() }]);
        assert!(frames.looked_at <= line.len() + 4, "{} for {}", frames.looked_at, line.len());
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_lost_whatever_comes(text in "(data: [a-z]{0,5}|:|event: x|\r|\n|\r\n|x){0,30}", size in 1..9_usize) {
            let frames = split(text.as_bytes(), size);
            proptest::prop_assert_eq!(&frames, &split(text.as_bytes(), text.len().max(1)));
            let raw: Vec<u8> = frames.iter().flat_map(|frame| frame.raw.to_vec()).collect();
            proptest::prop_assert_eq!(raw, text.as_bytes());
            let lines = split_as(Framing::Lines, text.as_bytes(), size);
            let expect: Vec<_> = text.as_bytes().split_inclusive(|byte| *byte == b'\n').collect();
            proptest::prop_assert_eq!(lines.iter().map(|frame| &frame.raw[..]).collect::<Vec<_>>(), expect);
        }
    }
}
