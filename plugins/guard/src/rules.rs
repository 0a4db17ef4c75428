//! Rules of one side, searched together, from left to right.
//!
//! After a find, the search goes on behind it for all rules. So what is found in a text does not depend on where the text was
//! cut before, as long as each cut comes behind everything that was decided.

use regex_lite::Regex;
use tidegate_plugin::phrases::{Found, Phrases};
use tidegate_plugin::{Refusal, log};

/// One rule.
pub struct Rule {
    pub name: String,
    pub phrases: Vec<String>,
    pub pattern: Option<Regex>,
    pub action: Action,
}

/// What happens to a text that a rule finds.
pub enum Action {
    Refuse(Refusal),
    Mask(String),
}

/// All rules of a side.
pub struct Rules {
    rules: Vec<Rule>,
    phrases: Phrases,
    /// The rule of each phrase.
    owners: Vec<usize>,
}

/// A place that a rule found.
#[derive(Clone, Copy)]
struct Hit {
    start: usize,
    end: usize,
    rule: usize,
}

/// What a search came to.
pub struct Look {
    /// The text up to `until`, with what is masked; `None` if nothing is.
    pub masked: Option<String>,
    /// So far the text is decided.
    pub until: usize,
}

impl Rules {
    pub fn new(rules: Vec<Rule>) -> Result<Self, String> {
        let owned = |(index, rule): (usize, &Rule)| vec![index; rule.phrases.len()];
        let owners = rules.iter().enumerate().flat_map(owned).collect();
        let phrases = Phrases::new(rules.iter().flat_map(|rule| &rule.phrases))?;
        Ok(Self { rules, phrases, owners })
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn has_patterns(&self) -> bool {
        self.rules.iter().any(|rule| rule.pattern.is_some())
    }

    /// A whole text with what is masked in it, if anything is.
    pub fn rewrite(&self, text: &str) -> Result<Option<String>, Refusal> {
        Ok(self.look(text, 0, true, 0)?.masked)
    }

    /// Looks at the text from `from` on. Unless `last`, more may follow: then a phrase that may have begun is left undecided, and
    /// so are the last `window` bytes for patterns.
    pub fn look(&self, text: &str, from: usize, last: bool, window: usize) -> Result<Look, Refusal> {
        let held = if last || !self.has_patterns() { 0 } else { window };
        let sure = text.floor_char_boundary(text.len().saturating_sub(held));
        // One search for the phrases, one for each pattern; each goes on from behind the last find.
        let mut searches: Vec<Option<Search>> = vec![None; self.rules.len() + 1];
        let mut masked: Option<String> = None;
        let mut at = from;
        let until = loop {
            let mut until = sure;
            let mut first: Option<Hit> = None;
            for (source, search) in searches.iter_mut().enumerate() {
                let behind = search.as_ref().and_then(Search::start).is_some_and(|start| start < at);
                if search.is_none() || behind {
                    *search = Some(self.search(source, text, at, last, window));
                }
                match search {
                    Some(Search::Perhaps(start)) => until = until.min(*start),
                    Some(Search::Hit(hit)) if first.is_none_or(|first| hit.goes_before(&first)) => first = Some(*hit),
                    _ => {}
                }
            }
            let until = until.max(at);
            let Some(hit) = first.filter(|hit| hit.start < until) else { break until };
            match &self.rules[hit.rule].action {
                Action::Refuse(refusal) => {
                    log::info("refused", &[("rule", &self.rules[hit.rule].name)]);
                    return Err(refusal.clone());
                }
                Action::Mask(mask) => {
                    let out = masked.get_or_insert_default();
                    out.push_str(&text[at..hit.start]);
                    out.push_str(mask);
                }
            }
            at = hit.end;
        };
        if let Some(out) = &mut masked {
            out.push_str(&text[at..until]);
        }
        Ok(Look { masked, until })
    }

    /// The first find at or after `at`: of the phrases (source 0) or of a rule's pattern.
    fn search(&self, source: usize, text: &str, at: usize, last: bool, window: usize) -> Search {
        let Some(rule) = source.checked_sub(1) else {
            return match self.phrases.next(text, at, last) {
                Found::Phrase { index, start, end } => Search::Hit(Hit { start, end, rule: self.owners[index] }),
                Found::Perhaps(start) => Search::Perhaps(start),
                Found::Nothing => Search::Nothing,
            };
        };
        match self.rules[rule].pattern.as_ref().and_then(|pattern| pattern.find_at(text, at)) {
            Some(found) if !found.is_empty() => {
                // What touches the end may grow. Waiting for it has an end, too.
                let grows = !last && found.end() == text.len() && found.len() < 4 * window;
                let hit = Hit { start: found.start(), end: found.end(), rule };
                if grows { Search::Perhaps(hit.start) } else { Search::Hit(hit) }
            }
            _ => Search::Nothing,
        }
    }
}

#[derive(Clone)]
enum Search {
    Hit(Hit),
    Perhaps(usize),
    Nothing,
}

impl Search {
    fn start(&self) -> Option<usize> {
        match self {
            Self::Hit(hit) => Some(hit.start),
            Self::Perhaps(start) => Some(*start),
            Self::Nothing => None,
        }
    }
}

impl Hit {
    /// Left goes before right, and the longer before the shorter.
    fn goes_before(&self, other: &Self) -> bool {
        (self.start, other.end) < (other.start, self.end)
    }
}
