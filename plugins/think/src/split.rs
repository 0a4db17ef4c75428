//! One text part, split into reasoning and text as it comes.
//!
//! Parts open late: text when its first character is certain, reasoning when its first visible one is. So a reply of reasoning
//! alone has no empty text part, and `<think></think>` leaves nothing behind.

use tidegate_plugin::window::undecided;
use tidegate_plugin::{Delta, Event, Part};

use crate::{FOUND, Think};

/// What becomes of reasoning.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    Show,
    Hide,
}

/// A text part being split.
pub struct Split {
    mode: Mode,
    place: Place,
    /// What is not decided yet.
    held: String,
    /// The part open on the way out.
    open: Option<Part>,
}

#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// Before the first visible character: a tag may stand here.
    Beginning,
    /// Within the pair of this index; blanks at its beginning are not reasoning.
    Inside { pair: usize, begun: bool },
    /// Behind a closing tag: blanks are not text yet.
    Behind,
    /// In text.
    Text,
}

impl Split {
    pub fn new(mode: Mode, opened: bool) -> Self {
        let place = if opened { Place::Inside { pair: 0, begun: false } } else { Place::Beginning };
        Self { mode, place, held: String::new(), open: None }
    }

    /// Whether it turned out to be text, with nothing held: what follows passes.
    pub fn is_plain(&self) -> bool {
        self.place == Place::Text && self.held.is_empty()
    }

    /// More text.
    pub fn text(&mut self, think: &Think, text: &str, out: &mut Vec<Event>) {
        self.held.push_str(text);
        while self.step(think, false, out) {}
    }

    /// A citation, or whatever else may come in a text part.
    pub fn other(&mut self, delta: &Delta, out: &mut Vec<Event>) {
        match self.place {
            // It belongs to text: reasoning has none.
            Place::Inside { .. } => {}
            _ => {
                self.write(Part::Text, "", out);
                out.push(Event::Delta(delta.clone()));
            }
        }
    }

    /// The part ends.
    pub fn close(&mut self, think: &Think, out: &mut Vec<Event>) {
        while self.step(think, true, out) {}
        if self.place == Place::Beginning {
            self.write(Part::Text, "", out);
        }
        self.shut(out);
    }

    /// Decides over the beginning of what is held; false when more is needed.
    fn step(&mut self, think: &Think, last: bool, out: &mut Vec<Event>) -> bool {
        match self.place {
            Place::Beginning => self.beginning(think, last, out),
            Place::Inside { pair, begun } => self.inside(think, pair, begun, last, out),
            Place::Behind => self.behind(think, last, out),
            Place::Text => self.plain(think, last, out),
        }
    }

    fn beginning(&mut self, think: &Think, last: bool, out: &mut Vec<Event>) -> bool {
        let seen = self.held.trim_start();
        if let Some(pair) = think.tags.iter().position(|(open, _)| seen.starts_with(open.as_str())) {
            let blanks = self.held.len() - seen.len();
            self.held.drain(..blanks + think.tags[pair].0.len());
            self.place = Place::Inside { pair, begun: false };
            return true;
        }
        if !last && (seen.is_empty() || think.tags.iter().any(|(open, _)| open.starts_with(seen))) {
            return false;
        }
        self.place = Place::Text;
        if self.held.is_empty() {
            // An empty part stays one.
            self.write(Part::Text, "", out);
            return false;
        }
        // The first character is no tag's: it need not be looked at again.
        if !think.anywhere {
            let held = std::mem::take(&mut self.held);
            self.write(Part::Text, &held, out);
        }
        !self.held.is_empty()
    }

    fn inside(&mut self, think: &Think, pair: usize, begun: bool, last: bool, out: &mut Vec<Event>) -> bool {
        if !begun {
            let blanks = self.held.len() - self.held.trim_start().len();
            self.held.drain(..blanks);
        }
        if self.held.is_empty() {
            return false;
        }
        let close = think.tags[pair].1.as_str();
        let end = self.held.find(close);
        // Up to the tag or what may be one; blanks before it are not reasoning, and those at the end may stand before one.
        let sure = match end {
            Some(end) => self.held[..end].trim_end().len(),
            None if last => self.held.trim_end().len(),
            None => self.held[..undecided(&self.held, &[close])].trim_end().len(),
        };
        if sure > 0 {
            let text: String = self.held.drain(..sure).collect();
            if !begun {
                FOUND.count();
                self.place = Place::Inside { pair, begun: true };
            }
            if self.mode == Mode::Show {
                self.write(Part::Thinking, &text, out);
            }
        }
        match end {
            Some(end) => {
                self.held.drain(..end - sure + close.len());
                self.place = Place::Behind;
                if self.open == Some(Part::Thinking) {
                    self.shut(out);
                }
                true
            }
            None => {
                if last {
                    self.held.clear();
                }
                false
            }
        }
    }

    fn behind(&mut self, think: &Think, last: bool, out: &mut Vec<Event>) -> bool {
        let seen = self.held.trim_start();
        let blanks = self.held.len() - seen.len();
        if seen.is_empty() {
            self.held.clear();
            return false;
        }
        self.held.drain(..blanks);
        // A second pair may follow at once: as at the beginning.
        let tag =
            think.tags.iter().any(|(open, _)| self.held.starts_with(open.as_str()) || open.starts_with(&self.held));
        self.place = if tag { Place::Beginning } else { Place::Text };
        self.step(think, last, out)
    }

    fn plain(&mut self, think: &Think, last: bool, out: &mut Vec<Event>) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let opens: Vec<&str> = think.tags.iter().map(|(open, _)| open.as_str()).collect();
        let tag = if think.anywhere { first(&self.held, &opens) } else { None };
        let sure = match tag {
            Some((at, _)) => at,
            None if last || !think.anywhere => self.held.len(),
            None => undecided(&self.held, &opens),
        };
        let text: String = self.held.drain(..sure).collect();
        if !text.is_empty() {
            self.write(Part::Text, &text, out);
        }
        let Some((_, pair)) = tag else { return false };
        self.held.drain(..opens[pair].len());
        self.place = Place::Inside { pair, begun: false };
        true
    }

    /// Writes into a part of this kind, opening it where another is open.
    fn write(&mut self, part: Part, text: &str, out: &mut Vec<Event>) {
        if self.open.as_ref() != Some(&part) {
            self.shut(out);
            out.push(Event::Open(part.clone()));
            self.open = Some(part.clone());
        }
        match out.last_mut() {
            _ if text.is_empty() => {}
            Some(Event::Delta(Delta::Text(before) | Delta::Thinking(before))) => before.push_str(text),
            _ if part == Part::Thinking => out.push(Event::thinking(text)),
            _ => out.push(Event::text(text)),
        }
    }

    fn shut(&mut self, out: &mut Vec<Event>) {
        if self.open.take().is_some() {
            out.push(Event::Close);
        }
    }
}

/// The first of several needles, and which; the longest of those that begin there.
fn first(text: &str, needles: &[&str]) -> Option<(usize, usize)> {
    let found = needles.iter().enumerate().filter_map(|(which, needle)| Some((text.find(needle)?, which)));
    found.min_by_key(|(at, which)| (*at, usize::MAX - needles[*which].len()))
}
