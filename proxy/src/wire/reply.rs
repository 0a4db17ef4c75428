//! The backend's frames into the client's bytes: verbatim until something must differ.
//!
//! Both ways of going through share one loop. Where the two sides speak alike, a frame is glanced at for the books and leaves
//! as the bytes it came in, neighbours of one read in one piece. Where they do not, it is read into events and written anew.

use super::choices::Choices;
use super::frame::{Frame, Frames, LINE_LIMIT, TooLong};
use super::object::Object;
use super::openai;
use super::rename::Rename;
use super::watch::Watch;
use super::{Dialect, Glance, ReadReply, ReplyHead, Unasked, WriteReply};
use crate::canon::{Answer, Event, Fault, FaultKind, StopReason, Usage};
use bytes::{Bytes, BytesMut};
use std::cell::OnceCell;

/// One stream on its way from a backend to a client.
pub struct Pipe {
    frames: Frames,
    way: Way,
    stop: Option<StopReason>,
    /// A tool was called.
    called: bool,
    choices: Choices,
    over: bool,
    /// Somebody looks at the reply on its way.
    watch: Option<Box<Watch>>,
}

enum Way {
    /// Same dialect on both sides. `id`: what the first frame calls the reply; `told`: what the reports came to so far.
    Alike { dialect: Dialect, rename: Rename, unasked: Unasked, id: OnceCell<Option<String>>, told: Usage },
    /// Through the canon.
    Across { backend: Dialect, reader: Box<dyn ReadReply>, writer: Box<dyn WriteReply>, events: Vec<Event> },
}

/// What came of a read.
#[derive(Debug, Default)]
pub struct Passed {
    /// Bytes for the client.
    pub bytes: Bytes,
    /// The reply is complete: these are its last bytes.
    pub end: bool,
    /// The reply has failed: the caller ends it with an error frame after these bytes.
    pub fault: Option<Fault>,
}

impl Pipe {
    /// For a backend that speaks the client's dialect. `model`: the name the client must see.
    pub fn alike(dialect: Dialect, model: &str, unasked: Unasked) -> Self {
        let (rename, told) = (Rename::new(model), Usage::default());
        let way = Way::Alike { dialect, rename, unasked, id: OnceCell::new(), told };
        Self::of(dialect, way)
    }

    /// For a backend of another dialect.
    pub fn across(client: Dialect, backend: Dialect, head: ReplyHead) -> Self {
        let (reader, writer) = (backend.codec().reader(), client.codec().writer(head));
        let way = Way::Across { backend, reader, writer, events: Vec::new() };
        Self::of(backend, way)
    }

    fn of(backend: Dialect, way: Way) -> Self {
        let frames = Frames::of(backend.framing());
        Self { frames, way, stop: None, called: false, choices: Choices::default(), over: false, watch: None }
    }

    /// Has the events of the reply kept beside its bytes; [`Pipe::watch`] then gives them. `head` is the head of what is
    /// written where they are changed.
    #[must_use]
    pub fn watched(mut self, client: Dialect, head: ReplyHead) -> Self {
        let backend = match &self.way {
            Way::Alike { dialect, .. } => Some(*dialect),
            Way::Across { .. } => None,
        };
        self.watch = Some(Box::new(Watch::new(client, backend, head)));
        self
    }

    /// Takes lines of so many bytes at most from the backend.
    #[must_use]
    pub fn lines_up_to(self, limit: usize) -> Self {
        Self { frames: self.frames.lines_up_to(limit), ..self }
    }

    /// Who looks at the reply.
    pub fn watch(&mut self) -> Option<&mut Watch> {
        self.watch.as_deref_mut()
    }

    /// The id that the backend gave the reply, where it went on to the client and an error frame must bear it.
    pub fn reply_id(&self) -> Option<&str> {
        match &self.way {
            Way::Alike { id, .. } => id.get()?.as_deref(),
            Way::Across { .. } => None,
        }
    }

    /// The frame that ends the stream with this fault, from whoever wrote it so far; `None` where nobody did who counts.
    pub fn write_fault(&mut self, fault: &Fault) -> Option<Bytes> {
        match (&mut self.watch, &mut self.way) {
            (Some(watch), _) => watch.write_fault(fault),
            (None, Way::Alike { .. }) => None,
            (None, Way::Across { writer, .. }) => {
                let mut out = BytesMut::new();
                writer.write_fault(fault, &mut out).then(|| out.freeze())
            }
        }
    }

    /// Takes what the backend sent; `see` is told what each frame means to the books, before anything is written.
    pub fn push(&mut self, read: Bytes, see: &mut dyn FnMut(&Glance)) -> Passed {
        self.frames.feed(read);
        self.drain(see)
    }

    /// The backend's bytes ended.
    pub fn finish(&mut self, see: &mut dyn FnMut(&Glance)) -> Passed {
        self.frames.finish();
        let mut passed = self.drain(see);
        if self.over {
            return passed;
        }
        self.over = true;
        match &mut self.way {
            Way::Across { reader, writer, events, .. } => {
                reader.end(events);
                let mut out = BytesMut::from(&passed.bytes[..]);
                match &mut self.watch {
                    Some(watch) => see_events(events, see, &mut passed, watch),
                    None => write_events(events, writer.as_mut(), see, &mut out, &mut passed),
                }
                passed.bytes = out.freeze();
            }
            Way::Alike { dialect, .. } if dialect.ends_by_stop() && self.stop.is_some() => {
                // All is said; only the word that says so is missing, for which some clients wait.
                passed.bytes = [&passed.bytes[..], openai::DONE].concat().into();
                passed.end = true;
            }
            Way::Alike { .. } => passed.fault = Some(Fault::cut()),
        }
        self.tell_end(&passed);
        passed
    }

    fn tell_end(&mut self, passed: &Passed) {
        if let Some(watch) = self.watch.as_mut().filter(|_| passed.end || passed.fault.is_some()) {
            watch.end(passed.fault.as_ref());
        }
    }

    fn drain(&mut self, see: &mut dyn FnMut(&Glance)) -> Passed {
        let mut passed = Passed::default();
        let mut run = Run::default();
        while !self.over {
            match self.frames.next() {
                Ok(Some(frame)) => self.pass(&frame, see, &mut run, &mut passed),
                Ok(None) => break,
                Err(too_long) => {
                    let message = format!("The backend sent {too_long} inside its stream.");
                    passed.fault = Some(Fault::new(FaultKind::BackendError, message));
                }
            }
            self.over = passed.end || passed.fault.is_some();
        }
        passed.bytes = run.take();
        self.tell_end(&passed);
        passed
    }

    fn pass(&mut self, frame: &Frame, see: &mut dyn FnMut(&Glance), run: &mut Run, passed: &mut Passed) {
        match &mut self.way {
            Way::Alike { dialect, rename, unasked, id, told } => {
                id.get_or_init(|| dialect.codec().reply_id(frame));
                let mut glance = dialect.codec().glance(frame);
                self.called |= glance.called || glance.stop == Some(StopReason::ToolUse);
                if self.called && matches!(glance.stop, Some(StopReason::EndTurn | StopReason::StopSequence(_))) {
                    // A plain stop after calls means the calls, and need not say that there were calls before it.
                    glance.stop = Some(StopReason::ToolUse);
                }
                self.choices.add(&mut glance);
                if let Some(usage) = &mut glance.usage {
                    dialect.codec().add_earlier(usage, told);
                    told.update(usage);
                }
                see(&glance);
                if let Some(watch) = &mut self.watch {
                    watch.read(frame);
                }
                if glance.stop.is_some() {
                    self.stop.clone_from(&glance.stop);
                }
                passed.end = glance.end;
                // Where the end is a frame of its own, it is the end even if no word was said why.
                let unfinished = (glance.end && self.stop.is_none() && dialect.ends_by_stop()).then(Fault::cut);
                if let Some(fault) = glance.fault.or(unfinished) {
                    passed.end = false;
                    passed.fault = Some(fault);
                    return;
                }
                if glance.usage_only && *unasked == Unasked::All {
                    return;
                }
                let broke_off = self.frames.broke_off() && !glance.end;
                if broke_off && !(dialect.ends_by_stop() && self.stop.is_some() && is_whole(frame)) {
                    // Half a frame is of no use to anybody, and the error that follows would be appended to its line.
                    return;
                }
                let bare = (glance.usage_beside && *unasked != Unasked::None).then(|| without_usage(frame)).flatten();
                let named = rename.apply(*dialect, bare.as_ref().unwrap_or(frame));
                run.add(named.or(bare.map(|frame| frame.raw)).unwrap_or_else(|| frame.raw.clone()));
                if broke_off {
                    run.add(Bytes::from_static(b"\n\n"));
                }
            }
            Way::Across { backend, reader, writer, events } => {
                reader.read(frame, events);
                if matches!(events.last(), Some(Event::Stop(_)))
                    && let Some(times) = backend.codec().times(&frame.raw)
                {
                    see(&Glance { times: Some(times), ..Glance::default() });
                }
                if let Some(watch) = &mut self.watch {
                    return see_events(events, see, passed, watch);
                }
                let mut out = BytesMut::new();
                write_events(events, writer.as_mut(), see, &mut out, passed);
                run.add(out.freeze());
            }
        }
    }
}

/// Tells the books what an event means, as a frame of the same dialect would have.
pub fn glance_event(event: &Event) -> Glance {
    match event {
        Event::Delta(_) => Glance { token: true, ..Glance::default() },
        Event::Usage(usage) => Glance { usage: Some(*usage), ..Glance::default() },
        Event::Stop(reason) => Glance { stop: Some(reason.clone()), end: true, ..Glance::default() },
        Event::Fault(fault) => Glance { fault: Some(fault.clone()), ..Glance::default() },
        Event::Start { .. } | Event::Open(_) | Event::Close => Glance::default(),
    }
}

/// Writes events for the client; a fault is left to the caller, who knows the request's id.
pub fn write_events(
    events: &mut Vec<Event>,
    writer: &mut dyn WriteReply,
    see: &mut dyn FnMut(&Glance),
    out: &mut BytesMut,
    passed: &mut Passed,
) {
    for event in events.drain(..) {
        see(&glance_event(&event));
        match event {
            Event::Fault(fault) => {
                passed.fault = Some(fault);
                return;
            }
            event => {
                passed.end |= matches!(event, Event::Stop(_));
                writer.write(&event, out);
            }
        }
    }
    if let Some(fault) = writer.fault() {
        passed.end = false;
        passed.fault = Some(fault);
    }
}

/// Tells the books of events and keeps them for who looks at the reply; nothing is written.
pub fn see_events(events: &mut Vec<Event>, see: &mut dyn FnMut(&Glance), passed: &mut Passed, watch: &mut Watch) {
    for event in events.iter() {
        see(&glance_event(event));
        passed.end |= matches!(event, Event::Stop(_));
        if let Event::Fault(fault) = event {
            passed.fault = Some(fault.clone());
        }
    }
    watch.take_in(events);
}

/// A whole body under the name the client asked for, untouched where it already stands there.
pub fn rename_answer(answer: &Object, model: &str) -> Bytes {
    if answer.get("model").and_then(super::json::Json::as_str).is_none_or(|name| name == model) {
        return answer.source().clone();
    }
    let mut name = Vec::new();
    super::json::write_str(&mut name, model);
    answer.splice(&[("model", Some(&name))])
}

/// Reads a stream that is all there, in the pieces it came in.
///
/// # Errors
/// A line of it is too long. A stream that stops short ends in a fault among the events.
pub fn read_stream(dialect: Dialect, reads: impl IntoIterator<Item = Bytes>) -> Result<Vec<Event>, Fault> {
    read_lines_up_to(LINE_LIMIT, dialect, reads)
}

/// The same with lines of so many bytes at most.
///
/// # Errors
/// As [`read_stream`].
pub fn read_lines_up_to(
    limit: usize,
    dialect: Dialect,
    reads: impl IntoIterator<Item = Bytes>,
) -> Result<Vec<Event>, Fault> {
    let (mut reader, mut events) = (dialect.codec().reader(), Vec::new());
    let mut frames = Frames::of(dialect.framing()).lines_up_to(limit);
    let too_long = |line: TooLong| Fault::new(FaultKind::BackendError, format!("The backend sent {line}."));
    let mut drain = |frames: &mut Frames| -> Result<(), Fault> {
        while let Some(frame) = frames.next().map_err(too_long)? {
            reader.read(&frame, &mut events);
        }
        Ok(())
    };
    for read in reads {
        frames.feed(read);
        drain(&mut frames)?;
    }
    frames.finish();
    drain(&mut frames)?;
    reader.end(&mut events);
    Ok(events)
}

/// The events of a whole body.
///
/// # Errors
/// The fault they end in.
pub(super) fn whole(events: Vec<Event>) -> Result<Vec<Event>, Fault> {
    match events.last() {
        Some(Event::Fault(fault)) => Err(fault.clone()),
        _ => Ok(events),
    }
}

/// Folds events into an answer.
///
/// # Errors
/// The fault they end in, or that they have no end.
pub fn fold(events: impl IntoIterator<Item = Event>) -> Result<Answer, Fault> {
    let mut answer = Answer::default();
    for event in events {
        answer.fold(event)?;
    }
    if answer.stop.is_none() { Err(Fault::cut()) } else { Ok(answer) }
}

/// The fault that a stream begins with, if its first bytes are one.
pub fn begins_with_fault(dialect: Dialect, first: &Bytes) -> Option<Fault> {
    memchr::memmem::find(first, b"error")?;
    let mut frames = Frames::of(dialect.framing());
    frames.feed(first.clone());
    dialect.codec().glance(&frames.next().ok()??).fault
}

/// Nothing but its last newline is missing.
fn is_whole(frame: &Frame) -> bool {
    frame.data().is_some_and(|data| Object::read(Bytes::copy_from_slice(&data)).is_ok())
}

/// The same frame without its `usage` member.
fn without_usage(frame: &Frame) -> Option<Frame> {
    let data = frame.data()?;
    let object = Object::read(Bytes::copy_from_slice(&data)).ok()?;
    Some(Frame { raw: frame.with_data(&object.splice(&[("usage", None)])) })
}

/// Gathers the pieces of one read, so that one read costs one write. A single piece stays the slice it is.
#[derive(Default)]
struct Run {
    only: Bytes,
    many: BytesMut,
}

impl Run {
    fn add(&mut self, piece: Bytes) {
        if self.only.is_empty() && self.many.is_empty() {
            self.only = piece;
        } else if !piece.is_empty() {
            if !self.only.is_empty() {
                self.many.reserve(self.only.len() + piece.len());
                self.many.extend_from_slice(&std::mem::take(&mut self.only));
            }
            self.many.extend_from_slice(&piece);
        }
    }

    fn take(self) -> Bytes {
        if self.many.is_empty() { self.only } else { self.many.freeze() }
    }
}
