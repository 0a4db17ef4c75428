//! A stream that somebody looks at on its way: events beside the bytes, and the step from bytes to events when they differ.
//!
//! As long as nothing is changed the bytes go out as they came. What has gone out so is kept in mind, shortly: the parts, and
//! of each the first piece of a kind (of arguments, all). When something is changed after all, the client's writer is told of that without being
//! listened to, and goes on from there.

use super::frame::Frame;
use super::{Dialect, ReadReply, ReplyHead, WriteReply};
use crate::canon::{Delta, Event, Fault};
use bytes::{Bytes, BytesMut};

/// See the module.
pub struct Watch {
    client: Dialect,
    head: ReplyHead,
    /// Where both sides speak alike the pipe reads no events by itself.
    reader: Option<Box<dyn ReadReply>>,
    /// What came since it was last asked.
    events: Vec<Event>,
    /// What has gone out as bytes, in short.
    history: Vec<Event>,
    /// The client's writer, once events go out and no bytes.
    writer: Option<Box<dyn WriteReply>>,
}

impl Watch {
    /// `backend`: what its frames are to be read as; `None` where the pipe reads them.
    pub fn new(client: Dialect, backend: Option<Dialect>, head: ReplyHead) -> Self {
        // Without a reader there never are bytes to let through.
        let writer = backend.is_none().then(|| client.codec().writer(head.clone()));
        let reader = backend.map(|dialect| dialect.codec().reader());
        Self { client, head, reader, events: Vec::new(), history: Vec::new(), writer }
    }

    /// Reads a frame that passes.
    pub(super) fn read(&mut self, frame: &Frame) {
        if let Some(reader) = &mut self.reader {
            reader.read(frame, &mut self.events);
        }
    }

    /// Takes events that the pipe read.
    pub(super) fn take_in(&mut self, events: &mut Vec<Event>) {
        self.events.append(events);
    }

    /// The reply is over, well or with this fault.
    pub(super) fn end(&mut self, fault: Option<&Fault>) {
        let ended = |events: &[Event]| matches!(events.last(), Some(Event::Stop(_) | Event::Fault(_)));
        if fault.is_none()
            && !ended(&self.events)
            && let Some(reader) = &mut self.reader
        {
            reader.end(&mut self.events);
        }
        if let Some(fault) = fault
            && !matches!(self.events.last(), Some(Event::Fault(_)))
        {
            self.events.push(Event::Fault(fault.clone()));
        }
    }

    /// What came since it was last asked.
    pub fn take(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Events go out from now on, or have from the beginning.
    pub fn is_written(&self) -> bool {
        self.writer.is_some()
    }

    /// These went out as the bytes they came in.
    pub fn passed(&mut self, events: &[Event]) {
        // This protocol tells all texts again at their ends, and numbers what it tells.
        let repeats = self.client == Dialect::Responses;
        for event in events {
            // Counts are cumulative, and may come behind each piece: one place is enough, which is mostly the second.
            if let Event::Usage(usage) = event
                && let Some(Event::Usage(first)) =
                    self.history.iter_mut().find(|event| matches!(event, Event::Usage(_)))
            {
                first.update(usage);
                continue;
            }
            match (self.history.last_mut(), event) {
                // Arguments are kept whole: some clients are shown them in one piece.
                (Some(Event::Delta(Delta::Arguments(last))), Event::Delta(Delta::Arguments(more))) if !repeats => {
                    last.push_str(more);
                }
                (Some(Event::Delta(last)), Event::Delta(delta))
                    if !repeats && std::mem::discriminant(last) == std::mem::discriminant(delta) => {}
                _ => {
                    if let Event::Start { id: Some(id), .. } = event {
                        // The client has seen the backend's id: the rest of the stream bears it, too.
                        let own =
                            ["chatcmpl-", "msg_", "resp_", "cmpl-"].iter().find_map(|prefix| id.strip_prefix(prefix));
                        self.head.id = own.unwrap_or(id).to_owned();
                    }
                    self.history.push(event.clone());
                }
            }
        }
    }

    /// The frame that ends the stream with this fault, from whoever wrote it so far.
    pub fn write_fault(&mut self, fault: &Fault) -> Option<Bytes> {
        let mut out = BytesMut::new();
        self.writer.as_mut()?.write_fault(fault, &mut out).then(|| out.freeze())
    }

    /// Writes events in the client's dialect. A fault among them is left to the caller.
    ///
    /// # Errors
    /// See [`WriteReply::fault`].
    pub fn write(&mut self, events: &[Event], out: &mut BytesMut) -> Result<(), Fault> {
        let history = std::mem::take(&mut self.history);
        let writer = self.writer.get_or_insert_with(|| {
            let mut writer = self.client.codec().writer(self.head.clone());
            let mut unheard = BytesMut::new();
            history.iter().for_each(|event| writer.write(event, &mut unheard));
            writer.settle(&mut unheard);
            writer
        });
        for event in events.iter().filter(|event| !matches!(event, Event::Fault(_))) {
            writer.write(event, out);
        }
        writer.fault().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::{Part, StopReason, Usage};

    #[test]
    fn running_counts_are_not_remembered_one_by_one() {
        let mut watch = Watch::new(Dialect::Chat, Some(Dialect::Chat), ReplyHead::default());
        watch.passed(&[Event::Start { id: None, model: None }, Event::Open(Part::Text)]);
        for output in 1..=100 {
            let count = Event::Usage(Usage { output: Some(output), ..Usage::default() });
            watch.passed(&[Event::Delta(Delta::Text("x".into())), count]);
        }
        let counts: Vec<_> = watch.history.iter().filter(|event| matches!(event, Event::Usage(_))).collect();
        assert_eq!(counts, [&Event::Usage(Usage { output: Some(100), ..Usage::default() })]);
        assert!(watch.history.len() < 6, "{:?}", watch.history);
    }

    /// Bytes up to here, events from here on: together they are what events alone would have been.
    #[test]
    fn the_step_from_bytes_to_events_leaves_no_mark() {
        let text = |text: &str| Event::Delta(Delta::Text(text.into()));
        let events = vec![
            Event::Start { id: Some("chatcmpl-7".into()), model: None },
            Event::Usage(Usage { input: Some(3), ..Usage::default() }),
            Event::Open(Part::Text),
            text("a"),
            text("b"),
            Event::Close,
            Event::Open(Part::ToolCall { id: "i".into(), name: "f".into() }),
            Event::Delta(Delta::Arguments("{\"x\":".into())),
            Event::Delta(Delta::Arguments("1}".into())),
            Event::Close,
            Event::Usage(Usage { output: Some(2), ..Usage::default() }),
            Event::Stop(StopReason::ToolUse),
        ];
        for client in Dialect::ALL {
            let head = ReplyHead { id: "7".into(), model: "m".into(), stream_usage: true, ..ReplyHead::default() };
            let written = |events: &[Event]| {
                let (mut writer, mut out) = (client.codec().writer(head.clone()), BytesMut::new());
                events.iter().for_each(|event| writer.write(event, &mut out));
                writer.settle(&mut out);
                out
            };
            let whole = written(&events);
            for at in 0..=events.len() {
                let mut watch = Watch::new(client, Some(client), ReplyHead { id: "other".into(), ..head.clone() });
                watch.passed(&events[..at]);
                let mut out = written(&events[..at]);
                watch.write(&events[at..], &mut out).unwrap();
                // Before the first event has passed the client has seen no id.
                let own = String::from_utf8_lossy(&out).replace("-other", "-7").replace("_other", "_7");
                assert_eq!(own, String::from_utf8_lossy(&whole), "{client:?} at {at}");
            }
        }
    }
}
