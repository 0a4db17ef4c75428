//! Events as response events, and an answer as a whole response.
//!
//! Each part of an answer is an item of its own. Thinking is told as a reasoning summary, the one place where all clients look
//! for it. A call of a function that stands for a custom tool is told when it is complete: its text is inside a JSON string.
//! The end of an item is told with the event behind it, for the stop reason says whether the item was cut.
//! Signatures, citations, redacted thinking and foreign blocks have no place here.

use super::item::{Item, Kind};
use super::shell::{RUNNING, Shell, State, ending, put_error};
use super::tools::begun_input;
use crate::canon::event::{Delta, Event};
use crate::canon::fold::Piece;
use crate::canon::{Answer, Fault, StopReason, Usage};
use crate::wire::put::{comma, key, put_raw, put_text};
use crate::wire::{ReplyHead, WriteReply};
use bytes::{Bytes, BytesMut};

/// The number of the event that ends a failed stream whose events were not counted. Numbers only grow, and nothing follows.
const LAST: u64 = i32::MAX as u64;

/// Writes one stream.
pub(super) struct Writer {
    shell: Shell,
    sequence: u64,
    open: Option<Item>,
    /// The open item has ended, which has not been told yet.
    ended: bool,
    /// Bytes of the text of a custom tool that the client has as they came.
    told: usize,
    /// Pieces of such texts that were heard and not told one by one.
    held: u64,
    items: usize,
    output: Vec<u8>,
    usage: Usage,
    estimate: u64,
}

impl Writer {
    pub fn new(head: &ReplyHead) -> Self {
        Self {
            shell: Shell::new(head),
            sequence: 0,
            open: None,
            ended: false,
            told: 0,
            held: 0,
            items: 0,
            output: Vec::new(),
            usage: Usage::default(),
            estimate: head.input_estimate,
        }
    }

    /// An event about the open item.
    fn told(&mut self, out: &mut BytesMut, name: &str, body: impl FnOnce(&Item, &mut Vec<u8>)) {
        let Some(item) = &self.open else { return };
        event(&mut self.sequence, out, name, |out| {
            put_text(out, "item_id", &item.id);
            put_raw(out, "output_index", self.items);
            body(item, out);
        });
    }

    fn open(&mut self, item: Item, out: &mut BytesMut) {
        self.item_event("added", &item, out);
        let words = item.words();
        self.open = Some(item);
        if !words.part.is_empty() {
            self.told(out, &format!("{}.added", words.part), |item, out| {
                put_raw(out, words.index, 0);
                key(out, "part");
                item.put_part(out, "");
            });
        }
    }

    fn item_event(&mut self, what: &str, item: &Item, out: &mut BytesMut) {
        let at = self.items;
        event(&mut self.sequence, out, &format!("output_item.{what}"), |out| {
            put_raw(out, "output_index", at);
            key(out, "item");
            item.put(out);
        });
    }

    fn delta(&mut self, text: &str, out: &mut BytesMut) {
        let Some(words) = self.open.as_ref().map(Item::words) else { return };
        let name = format!("{}.delta", words.text);
        self.told(out, &name, |item, out| {
            if !words.index.is_empty() {
                put_raw(out, words.index, 0);
            }
            put_text(out, "delta", text);
            if matches!(item.kind, Kind::Text) {
                put_raw(out, "logprobs", "[]");
            }
        });
    }

    fn more(&mut self, text: &str, out: &mut BytesMut) {
        let Some(item) = &mut self.open else { return };
        item.text.push_str(text);
        self.held += u64::from(matches!(item.kind, Kind::Custom(_)));
        // A custom tool's text is known when its arguments are whole, and a search's are told in one piece.
        if !text.is_empty() && !matches!(item.kind, Kind::Custom(_) | Kind::Search(_)) {
            self.delta(text, out);
        }
    }

    /// Tells the end of an item that has ended. `cut`: see [`Item::finish`].
    fn close(&mut self, cut: bool, out: &mut BytesMut) {
        let Some(item) = self.open.as_mut().filter(|_| std::mem::take(&mut self.ended)) else { return };
        let silent = item.text.trim_ascii().is_empty();
        item.finish(cut);
        let (words, text) = (item.words(), item.text.clone());
        let late = matches!(item.kind, Kind::Custom(_)) || (silent && matches!(item.kind, Kind::Call(_)));
        let rest = text.get(std::mem::take(&mut self.told)..).unwrap_or_default();
        if late && !rest.is_empty() {
            self.delta(rest, out);
        }
        if !words.text.is_empty() {
            self.told(out, &format!("{}.done", words.text), |item, out| {
                if !words.index.is_empty() {
                    put_raw(out, words.index, 0);
                }
                put_text(out, words.whole, &text);
                if matches!(item.kind, Kind::Text) {
                    put_raw(out, "logprobs", "[]");
                }
            });
        }
        if !words.part.is_empty() {
            self.told(out, &format!("{}.done", words.part), |item, out| {
                put_raw(out, words.index, 0);
                key(out, "part");
                item.put_part(out, &text);
            });
        }
        if let Some(item) = self.open.take() {
            self.item_event("done", &item, out);
            comma(&mut self.output);
            item.put(&mut self.output);
            self.items += 1;
        }
    }

    fn response(&mut self, out: &mut BytesMut, name: &str, state: &State<'_>) {
        let shell = &self.shell;
        event(&mut self.sequence, out, name, |out| {
            key(out, "response");
            shell.put(out, state);
        });
    }

    fn stop(&mut self, reason: &StopReason, out: &mut BytesMut) {
        let (status, incomplete) = ending(reason);
        self.close(incomplete.is_some(), out);
        let (output, usage) = (std::mem::take(&mut self.output), self.usage);
        let usage = Some((&usage, self.estimate));
        self.response(out, status, &State { status, error: None, incomplete, output: &output, usage });
    }
}

impl WriteReply for Writer {
    /// Events are numbered here, the last one too.
    fn write_fault(&mut self, fault: &Fault, out: &mut BytesMut) -> bool {
        self.write(&Event::Fault(fault.clone()), out);
        true
    }

    fn settle(&mut self, out: &mut BytesMut) {
        self.close(false, out);
        // The client has had an event for each. What they stood in may have been a piece of its own: numbers only have to grow.
        self.sequence += std::mem::take(&mut self.held);
        if let Some(item) = self.open.as_ref().filter(|item| matches!(item.kind, Kind::Custom(_))) {
            self.told = begun_input(&item.text).len();
        }
    }

    fn write(&mut self, event: &Event, out: &mut BytesMut) {
        match event {
            Event::Start { .. } => {
                self.response(out, "created", &RUNNING);
                self.response(out, "in_progress", &RUNNING);
            }
            Event::Open(part) => {
                self.close(false, out);
                if let Some(item) = Item::of(&self.shell, part, self.items) {
                    self.open(item, out);
                }
            }
            Event::Delta(Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text)) => self.more(text, out),
            Event::Delta(Delta::Signature(_) | Delta::Citation(_)) => {}
            Event::Close => self.ended = self.open.is_some(),
            Event::Usage(usage) => self.usage.update(usage),
            Event::Stop(reason) => self.stop(reason, out),
            Event::Fault(fault) => {
                self.close(true, out);
                let output = std::mem::take(&mut self.output);
                let failed = State { status: "failed", error: Some(fault), output: &output, ..RUNNING };
                self.response(out, "failed", &failed);
            }
        }
    }
}

fn event(sequence: &mut u64, out: &mut BytesMut, name: &str, body: impl FnOnce(&mut Vec<u8>)) {
    let mut data = Vec::with_capacity(256);
    data.push(b'{');
    put_text(&mut data, "type", &format!("response.{name}"));
    put_raw(&mut data, "sequence_number", *sequence);
    *sequence += 1;
    body(&mut data);
    out.reserve(data.len() + name.len() + 32);
    out.extend_from_slice(b"event: response.");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(&data);
    out.extend_from_slice(b"}\n\n");
}

/// The last event of a stream that fails outside its writer: who writes it knows neither the reply's model nor its events.
/// `id`: the reply's, since clients refuse an end that bears another.
pub(super) fn failed_frame(fault: &Fault, id: &str) -> Bytes {
    let (mut out, mut sequence) = (BytesMut::new(), LAST);
    event(&mut sequence, &mut out, "failed", |out| {
        key(out, "response");
        out.push(b'{');
        put_text(out, "id", id);
        put_text(out, "object", "response");
        put_text(out, "status", "failed");
        put_error(out, fault);
        put_raw(out, "incomplete_details", "null");
        put_raw(out, "output", "[]");
        put_raw(out, "usage", "null");
        out.push(b'}');
    });
    out.freeze()
}

/// Writes a whole response.
pub(super) fn answer(answer: &Answer, head: &ReplyHead) -> Bytes {
    let shell = Shell::new(head);
    let (status, incomplete) = ending(answer.stop.as_ref().unwrap_or(&StopReason::EndTurn));
    let mut output = Vec::new();
    let mut items = 0;
    for (at, Piece { part, text, .. }) in answer.parts.iter().enumerate() {
        let Some(mut item) = Item::of(&shell, part, items) else { continue };
        items += 1;
        item.text.clone_from(text);
        item.finish(incomplete.is_some() && at + 1 == answer.parts.len());
        comma(&mut output);
        item.put(&mut output);
    }
    let usage = Some((&answer.usage, head.input_estimate));
    let mut out = Vec::with_capacity(1024 + output.len());
    shell.put(&mut out, &State { status, error: None, incomplete, output: &output, usage });
    out.into()
}

#[cfg(test)]
mod tests;
