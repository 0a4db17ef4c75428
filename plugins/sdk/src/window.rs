//! Text of a reply, seen through a window that no chunk boundary cuts.
//!
//! A pattern may begin in one batch and end in the next. The window keeps what its [`Scan`] has not decided yet, and shows it
//! again with what follows. It knows the grammar: held text leaves as a delta before its part closes, a signature over text
//! that was changed is dropped, and a batch that leaves as it came is answered with `pass`, so that its bytes may pass too.
//! What is held when the reply fails is lost.

use crate::{Delta, Event, Part, Refusal, Rewrite};

/// What the text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Visible text.
    Text,
    /// Reasoning.
    Thinking,
    /// A refusal of the model's.
    Refusal,
    /// The arguments of a tool call: JSON text.
    Arguments,
}

/// Text that waits for a decision.
#[derive(Debug, Clone, Copy)]
pub struct Held<'a> {
    /// What it is.
    pub kind: Kind,
    /// The text, with a little of what left before it, for rules that look behind (`\b`).
    pub text: &'a str,
    /// Where the undecided text begins.
    pub from: usize,
    /// Nothing follows: all of it must be decided now.
    pub last: bool,
}

impl Held<'_> {
    /// The undecided text.
    pub fn rest(&self) -> &str {
        &self.text[self.from..]
    }
}

/// What becomes of the beginning of held text. Lengths are bytes from `from` on, at a character's boundary.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// So much leaves as it is. None of it: wait for more; of the last text, all that is left leaves.
    Keep(usize),
    /// So much is replaced.
    Replace(usize, String),
    /// The reply ends here; nothing that is still held leaves.
    Refuse(Refusal),
}

/// Decides over text.
pub trait Scan {
    /// Whether text of this kind is held at all.
    fn reads(&self, kind: Kind) -> bool {
        let _ = kind;
        true
    }

    /// A part that is held begins.
    fn open(&mut self, kind: Kind) {
        let _ = kind;
    }

    /// Looks at held text; called again for what it leaves, until it keeps nothing.
    fn scan(&mut self, held: Held) -> Step;
}

impl<F: FnMut(Held) -> Step> Scan for F {
    fn scan(&mut self, held: Held) -> Step {
        self(held)
    }
}

/// The held text of one reply.
#[derive(Debug, Default)]
pub struct Window {
    /// The open part, if its text is read.
    open: Option<Kind>,
    /// A little of what left, then what is held.
    text: String,
    /// Where the held text begins.
    from: usize,
    /// The open part's text was changed: its signature is void.
    changed: bool,
}

/// Bytes kept behind the held text: a word boundary looks back one character.
const BEHIND: usize = 8;

impl Window {
    /// Shows a batch to the scan, with what was held before, and answers what leaves.
    pub fn rewrite(&mut self, events: Vec<Event>, scan: &mut dyn Scan) -> Rewrite {
        let mut out = Vec::with_capacity(events.len());
        let mut touched = self.is_holding();
        for event in events {
            match event {
                Event::Open(part) => {
                    self.open = kind(&part).filter(|kind| scan.reads(*kind));
                    if let Some(kind) = self.open {
                        scan.open(kind);
                    }
                    out.push(Event::Open(part));
                }
                Event::Delta(Delta::Signature(text)) => {
                    // It is over all of the part's text, so that must be decided.
                    if let Some(kind) = self.open
                        && let Err(refusal) = self.decide(kind, true, scan, &mut out, &mut touched)
                    {
                        return Rewrite::Refuse(refusal);
                    }
                    if self.changed {
                        touched = true;
                    } else {
                        out.push(Event::Delta(Delta::Signature(text)));
                    }
                }
                Event::Delta(delta) => match (self.open, text_of(&delta)) {
                    (Some(kind), Some(text)) => {
                        self.text.push_str(text);
                        if let Err(refusal) = self.decide(kind, false, scan, &mut out, &mut touched) {
                            return Rewrite::Refuse(refusal);
                        }
                    }
                    _ => out.push(Event::Delta(delta)),
                },
                Event::Close => {
                    if let Some(kind) = self.open.take()
                        && let Err(refusal) = self.decide(kind, true, scan, &mut out, &mut touched)
                    {
                        return Rewrite::Refuse(refusal);
                    }
                    *self = Self::default();
                    out.push(Event::Close);
                }
                other => {
                    if matches!(other, Event::Fault(_)) {
                        touched |= self.is_holding();
                        *self = Self::default();
                    }
                    out.push(other);
                }
            }
        }
        if touched || self.is_holding() { Rewrite::Change(out) } else { Rewrite::Pass }
    }

    /// Whether text is being held back.
    pub fn is_holding(&self) -> bool {
        self.from < self.text.len()
    }

    fn decide(
        &mut self,
        kind: Kind,
        last: bool,
        scan: &mut dyn Scan,
        out: &mut Vec<Event>,
        touched: &mut bool,
    ) -> Result<(), Refusal> {
        while self.is_holding() {
            match scan.scan(Held { kind, text: &self.text, from: self.from, last }) {
                Step::Keep(0) if !last => break,
                Step::Keep(length) => {
                    let length = if length == 0 { self.text.len() - self.from } else { length };
                    push(out, kind, &self.text[self.from..self.from + length]);
                    self.from += length;
                }
                Step::Replace(length, text) => {
                    push(out, kind, &text);
                    self.from += length;
                    self.changed = true;
                    *touched = true;
                    if length == 0 {
                        break;
                    }
                }
                Step::Refuse(refusal) => return Err(refusal),
            }
        }
        let behind = self.text.floor_char_boundary(self.from.saturating_sub(BEHIND));
        self.text.drain(..behind);
        self.from -= behind;
        Ok(())
    }
}

fn kind(part: &Part) -> Option<Kind> {
    match part {
        Part::Text => Some(Kind::Text),
        Part::Thinking => Some(Kind::Thinking),
        Part::Refusal => Some(Kind::Refusal),
        Part::ToolCall(_) => Some(Kind::Arguments),
        Part::RedactedThinking(_) | Part::Other(_) => None,
    }
}

fn text_of(delta: &Delta) -> Option<&str> {
    match delta {
        Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text) => Some(text),
        Delta::Signature(_) | Delta::Citation(_) => None,
    }
}

/// Adds text to the open part, in one delta with what already leaves of it.
fn push(out: &mut Vec<Event>, kind: Kind, more: &str) {
    if more.is_empty() {
        return;
    }
    if let Some(Event::Delta(Delta::Text(text) | Delta::Thinking(text) | Delta::Arguments(text))) = out.last_mut() {
        return text.push_str(more);
    }
    out.push(Event::Delta(match kind {
        Kind::Text | Kind::Refusal => Delta::Text(more.into()),
        Kind::Thinking => Delta::Thinking(more.into()),
        Kind::Arguments => Delta::Arguments(more.into()),
    }));
}

/// Where the longest end of `text` begins that is the beginning of one of `needles`; its length if there is none. What
/// comes before cannot become part of a needle any more.
pub fn undecided(text: &str, needles: &[&str]) -> usize {
    let longest = needles.iter().map(|needle| needle.len()).max().unwrap_or(0);
    let start = text.ceil_char_boundary((text.len() + 1).saturating_sub(longest));
    (start..text.len())
        .filter(|at| text.is_char_boundary(*at))
        .find(|at| needles.iter().any(|needle| needle.starts_with(&text[*at..])))
        .unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use crate::{Fault, Reply, Start, StopReason};

    /// Replaces `<secret>`, refuses `!`.
    fn scan(held: Held) -> Step {
        let rest = held.rest();
        if rest.starts_with('!') {
            return Step::Refuse(Refusal::new("shouted", "no shouting"));
        }
        match rest.find("<secret>") {
            Some(0) => Step::Replace(8, "[hidden]".into()),
            Some(at) => Step::Keep(at),
            None => match undecided(rest, &["<secret>"]).min(rest.find('!').unwrap_or(usize::MAX)) {
                0 if held.last => Step::Keep(rest.len()),
                at => Step::Keep(at),
            },
        }
    }

    fn start() -> Event {
        Event::Start(Start { id: None, model: None })
    }

    fn run(batches: Vec<Vec<Event>>) -> (Vec<Event>, Vec<bool>, Option<Refusal>) {
        let mut window = Window::default();
        let (mut out, mut passed) = (Vec::new(), Vec::new());
        for batch in batches {
            match window.rewrite(batch.clone(), &mut scan) {
                Rewrite::Pass => {
                    passed.push(true);
                    out.extend(batch);
                }
                Rewrite::Change(events) => {
                    passed.push(false);
                    out.extend(events);
                }
                Rewrite::Refuse(refusal) => return (out, passed, Some(refusal)),
            }
        }
        (out, passed, None)
    }

    #[test]
    fn no_boundary_matters() {
        for text in ["a <secret> b", "<secret><secret>", "<<secret>", "<secre", "x <sec", "", "né <secret>é"] {
            let expect = text.replace("<secret>", "[hidden]");
            for batches in testing::splits(&Reply::say(text).into_events()) {
                let (out, _, _) = run(batches.clone());
                testing::Grammar::check(&out).unwrap();
                assert_eq!(Reply::of(&out).text(), expect, "{batches:?}");
            }
        }
    }

    #[test]
    fn what_needs_no_decision_passes() {
        let batches = vec![
            vec![start(), Event::Open(Part::Text)],
            vec![Event::text("plain")],
            vec![Event::text("a <sec")],
            vec![Event::text("ond> b")],
            vec![Event::text("plain")],
            vec![Event::Close, Event::Stop(StopReason::EndTurn)],
        ];
        assert_eq!(run(batches).1, [true, true, false, false, true, true]);
    }

    #[test]
    fn nothing_refused_or_cut_leaves() {
        let text = |text: &str| vec![Event::text(text)];
        let (out, _, refusal) = run(vec![vec![start(), Event::Open(Part::Text)], text("a <sec"), text("!"), text("b")]);
        assert_eq!((Reply::of(&out).text().as_str(), refusal.is_some()), ("a ", true));

        let fault = Event::Fault(Fault { kind: "backend_cut".into(), status: 502, message: String::new() });
        let (out, passed, _) = run(vec![vec![start(), Event::Open(Part::Text), Event::text("a <sec"), fault]]);
        assert_eq!((Reply::of(&out).text().as_str(), passed), ("a ", vec![false]));
    }

    #[test]
    fn a_changed_thought_loses_its_signature() {
        for (text, kept) in [("a thought", true), ("a <secret>", false)] {
            let events = vec![
                start(),
                Event::Open(Part::Thinking),
                Event::thinking(text),
                Event::Delta(Delta::Signature("s".into())),
                Event::Close,
                Event::Stop(StopReason::EndTurn),
            ];
            for batches in testing::splits(&events) {
                assert_eq!(Reply::of(&run(batches).0).parts[0].signature.is_some(), kept, "{text}");
            }
        }
    }

    #[test]
    fn undecided_is_the_longest_end_that_may_go_on() {
        for (text, expect) in
            [("abc", 3), ("ab<", 2), ("a<sec", 1), ("<secret", 0), ("<secret>", 8), ("é<", 2), ("", 0)]
        {
            assert_eq!(undecided(text, &["<secret>"]), expect, "{text}");
        }
    }
}
