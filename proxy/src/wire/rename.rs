//! Puts the client's model name where the backend wrote another.
//!
//! Every frame of a stream begins with the same bytes up to the name, so once found the place is only compared.

use super::Dialect;
use super::frame::Frame;
use super::json::write_str;
use bytes::{Bytes, BytesMut};
use std::borrow::Cow;

/// See the module.
pub(super) struct Rename {
    name: Vec<u8>,
    /// The backend writes the right name by itself: nothing to do.
    idle: bool,
    /// The frame's bytes up to and including the backend's name, as last seen.
    prefix: Vec<u8>,
    /// Where the name stands in it.
    at: usize,
}

impl Rename {
    pub fn new(model: &str) -> Self {
        let mut name = Vec::new();
        write_str(&mut name, model);
        Self { name, idle: false, prefix: Vec::new(), at: 0 }
    }

    /// The frame's bytes under the client's name; `None` where they need no change.
    pub fn apply(&mut self, dialect: Dialect, frame: &Frame) -> Option<Bytes> {
        if self.idle {
            return None;
        }
        if self.prefix.is_empty() || !frame.raw.starts_with(&self.prefix) {
            let data = dialect.framing().data(frame)?;
            let span = dialect.codec().model_span(&Bytes::copy_from_slice(&data))?;
            self.idle = data[span.clone()] == self.name[..];
            if self.idle {
                return None;
            }
            if let Cow::Owned(joined) = &data {
                // It stood in several lines: its offsets are not the frame's.
                return Some(frame.with_data(&[&joined[..span.start], &self.name[..], &joined[span.end..]].concat()));
            }
            let start = memchr::memmem::find(&frame.raw, &data)?;
            self.at = start + span.start;
            self.prefix = frame.raw[..start + span.end].to_vec();
        }
        let mut out = BytesMut::with_capacity(frame.raw.len() + self.name.len());
        out.extend_from_slice(&self.prefix[..self.at]);
        out.extend_from_slice(&self.name);
        out.extend_from_slice(&frame.raw[self.prefix.len()..]);
        Some(out.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One stream: what is known of a frame must not mislead in the next.
    #[test]
    fn the_name_is_the_clients_however_a_frame_is_written() {
        let mut rename = Rename::new("asked");
        for (raw, expect) in [
            ("data: {\"model\":\"there\",\"n\":1}\n\n", Some("data: {\"model\":\"asked\",\"n\":1}\n\n")),
            (": ping\n\n", None),
            (
                "event: m\r\ndata: {\r\ndata:\"model\":\r\ndata: \"there\"}\r\n\r\n",
                Some("event: m\r\ndata: { \"model\": \"asked\"}\r\n\r\n"),
            ),
            (
                "data: {\"model\":\"there\",\ndata: \"n\":2}\n\n",
                Some("data: {\"model\":\"asked\",\ndata: \"n\":2}\n\n"),
            ),
            ("data: {\ndata: \"n\":3}\n\n", None),
            ("data: {\"model\":\"there\",\"n\":4}\n\n", Some("data: {\"model\":\"asked\",\"n\":4}\n\n")),
            ("data: {\ndata: \"model\":\"asked\"}\n\n", None),
        ] {
            let frame = Frame { raw: Bytes::from_static(raw.as_bytes()) };
            assert_eq!(rename.apply(Dialect::Chat, &frame).as_deref(), expect.map(str::as_bytes), "{raw}");
        }
    }
}
