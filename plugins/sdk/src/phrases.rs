//! Phrases found in running text: whole words, whatever the case and whatever stands between them.
//!
//! A phrase is a row of words. `a|b` is either, `word?` may be missing, `word*` is any word that begins so:
//! `ignore|disregard all? previous|prior instruction*`. Written in a script without spaces (Chinese, Japanese, Thai), each
//! character is a word, so a phrase is found inside a sentence. A search costs one look per word of the text, however many
//! phrases there are, and says when a phrase may have begun that the text does not finish.

use std::collections::{HashMap, HashSet};

/// A set of phrases.
#[derive(Debug, Default)]
pub struct Phrases {
    phrases: Vec<Vec<Element>>,
    /// Phrases by their first word, where that is a plain one.
    by_word: HashMap<String, Vec<usize>>,
    /// The others: those whose first word is only begun.
    by_prefix: Vec<(String, usize)>,
    /// How a first word can begin: most words of a text are dismissed by their first letter.
    letters: HashSet<char>,
}

/// What a search came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// A phrase, by its index, from byte to byte.
    Phrase {
        /// Which one.
        index: usize,
        /// Where it begins.
        start: usize,
        /// Where it ends.
        end: usize,
    },
    /// A phrase may have begun here; what follows will tell.
    Perhaps(usize),
    /// None, and none begun.
    Nothing,
}

#[derive(Debug)]
struct Element {
    /// Either of these rows of words.
    either: Vec<Vec<Word>>,
    optional: bool,
}

#[derive(Debug)]
struct Word {
    /// In lower case.
    text: String,
    /// Any word that begins so.
    open: bool,
}

/// Characters between two words of a phrase, at most: more is not one phrase, and a stream would be held back by them.
const GAP: usize = 8;

/// A word that begins as wanted is taken for complete when it is longer by so much: nobody's word, and not worth waiting for.
const LONG: usize = 64;

impl Phrases {
    /// Reads phrases.
    ///
    /// # Errors
    /// Which one holds no word, or begins with an optional one.
    pub fn new<S: AsRef<str>>(phrases: impl IntoIterator<Item = S>) -> Result<Self, String> {
        let mut all = Self::default();
        for phrase in phrases {
            let phrase = phrase.as_ref();
            let elements: Vec<Element> =
                phrase.split_whitespace().map(element).filter(|e| !e.either.is_empty()).collect();
            let first = elements.first().ok_or_else(|| format!("`{phrase}` holds no word"))?;
            if first.optional {
                return Err(format!("`{phrase}` begins with a word that may be missing"));
            }
            let index = all.phrases.len();
            for word in first.either.iter().filter_map(|row| row.first()) {
                all.letters.extend(word.text.chars().next());
                if word.open {
                    all.by_prefix.push((word.text.clone(), index));
                } else {
                    let indices = all.by_word.entry(word.text.clone()).or_default();
                    if !indices.contains(&index) {
                        indices.push(index);
                    }
                }
            }
            all.phrases.push(elements);
        }
        Ok(all)
    }

    /// Whether there is nothing to find.
    pub fn is_empty(&self) -> bool {
        self.phrases.is_empty()
    }

    /// The first phrase at or after `from`; the longest of those that begin there. Unless `last`, more text may follow.
    pub fn next(&self, text: &str, from: usize, last: bool) -> Found {
        let mut at = from;
        // Inside a word whose beginning is gone: it cannot begin a phrase.
        if text[..from].chars().next_back().is_some_and(joins) {
            at += text[from..].find(|c| !joins(c)).unwrap_or(text.len() - from);
        }
        while let Some((start, end)) = word(text, at, usize::MAX) {
            let first = text[start..].chars().next().and_then(|c| c.to_lowercase().next());
            if first.is_some_and(|first| self.letters.contains(&first)) {
                let seen = text[start..end].to_lowercase();
                let unfinished = !last && end == text.len() && seen.chars().next_back().is_some_and(joins);
                match self.at(text, start, &seen, unfinished, last) {
                    Found::Nothing => {}
                    found => return found,
                }
            }
            at = end;
        }
        Found::Nothing
    }

    /// The longest phrase that begins with the word seen at `start`.
    fn at(&self, text: &str, start: usize, seen: &str, unfinished: bool, last: bool) -> Found {
        if unfinished && self.may_become(seen) {
            return Found::Perhaps(start);
        }
        let plain = self.by_word.get(seen).into_iter().flatten().copied();
        let begun =
            self.by_prefix.iter().filter(|(prefix, _)| seen.starts_with(prefix.as_str())).map(|(_, index)| *index);
        let mut longest: Option<(usize, usize)> = None;
        for index in plain.chain(begun) {
            let mut walk = Walk { text, last, end: None, unsure: false };
            walk.elements(&self.phrases[index], start, true);
            if walk.unsure {
                return Found::Perhaps(start);
            }
            longest = longest.max(walk.end.map(|end| (end, index)));
        }
        longest.map_or(Found::Nothing, |(end, index)| Found::Phrase { index, start, end })
    }

    fn may_become(&self, seen: &str) -> bool {
        self.by_word.keys().any(|word| word.starts_with(seen))
            || self.by_prefix.iter().any(|(prefix, _)| {
                prefix.starts_with(seen) || (seen.starts_with(prefix.as_str()) && seen.len() < prefix.len() + LONG)
            })
    }
}

/// One phrase against one place in the text.
struct Walk<'t> {
    text: &'t str,
    last: bool,
    /// The farthest end found.
    end: Option<usize>,
    /// The text ended where the phrase could have gone on.
    unsure: bool,
}

impl Walk<'_> {
    fn elements(&mut self, elements: &[Element], at: usize, first: bool) {
        let Some((element, rest)) = elements.split_first() else {
            self.end = self.end.max(Some(at));
            return;
        };
        for row in &element.either {
            if let Some(after) = self.row(row, at, first) {
                self.elements(rest, after, false);
            }
        }
        if element.optional {
            self.elements(rest, at, first);
        }
    }

    /// Where a row of words ends, if it stands here.
    fn row(&mut self, row: &[Word], mut at: usize, mut first: bool) -> Option<usize> {
        for wanted in row {
            let gap = if first { 0 } else { GAP };
            first = false;
            let Some((start, end)) = word(self.text, at, gap) else {
                // Only a gap so far: a word may follow.
                self.unsure |= !self.last && self.text[at..].chars().count() <= gap;
                return None;
            };
            let seen = self.text[start..end].to_lowercase();
            let unfinished = !self.last && end == self.text.len() && seen.chars().next_back().is_some_and(joins);
            let fits = if wanted.open { seen.starts_with(&wanted.text) } else { seen == wanted.text };
            if unfinished && (fits || wanted.text.starts_with(&seen)) && seen.len() < wanted.text.len() + LONG {
                self.unsure = true;
                return None;
            }
            if !fits {
                return None;
            }
            at = end;
        }
        Some(at)
    }
}

fn element(text: &str) -> Element {
    let (text, optional) = text.strip_suffix('?').map_or((text, false), |text| (text, true));
    let row = |text: &str| {
        let (text, open) = text.strip_suffix('*').map_or((text, false), |text| (text, true));
        let mut words = Vec::new();
        let mut at = 0;
        while let Some((start, end)) = word(text, at, usize::MAX) {
            words.push(Word { text: text[start..end].to_lowercase(), open: open && end == text.len() });
            at = end;
        }
        words
    };
    Element { either: text.split('|').map(row).filter(|row| !row.is_empty()).collect(), optional }
}

/// The next word from `at` on, if no more than `gap` other characters come before it.
fn word(text: &str, at: usize, gap: usize) -> Option<(usize, usize)> {
    let mut chars = text[at..].char_indices();
    let (start, first) = chars
        .by_ref()
        .enumerate()
        .take_while(|(skipped, _)| *skipped <= gap)
        .find_map(|(_, (offset, c))| (c.is_alphanumeric() || c == '_').then_some((at + offset, c)))?;
    if !joins(first) {
        return Some((start, start + first.len_utf8()));
    }
    let length = text[start..].find(|c| !joins(c)).unwrap_or(text.len() - start);
    Some((start, start + length))
}

/// Whether a character is part of a longer word. Scripts without spaces have none.
fn joins(c: char) -> bool {
    (c.is_alphanumeric() || c == '_') && !stands_alone(c)
}

/// Scripts written without spaces between words: Thai to Khmer, kana, Han.
fn stands_alone(c: char) -> bool {
    matches!(c, '\u{0E00}'..='\u{0EFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17FF}' | '\u{3040}'..='\u{30FF}'
        | '\u{31F0}'..='\u{31FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}'
        | '\u{FF66}'..='\u{FF9F}' | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(phrases: &[&str], text: &str) -> Option<String> {
        match Phrases::new(phrases).unwrap().next(text, 0, true) {
            Found::Phrase { start, end, .. } => Some(text[start..end].to_owned()),
            _ => None,
        }
    }

    #[test]
    fn phrases_are_whole_words() {
        let rule = "ignore|disregard all? of? the|your? previous|prior instruction*";
        let cases: &[(&[&str], &str, Option<&str>)] = &[
            (&["secret"], "a Secret.", Some("Secret")),
            (&["secret"], "secretary", None),
            (&["secret"], "topsecret", None),
            (&["ada lovelace"], "by ADA\n  Lovelace!", Some("ADA\n  Lovelace")),
            (&["ada lovelace"], "ada ......... lovelace", None),
            (&["ada", "ada lovelace"], "ada lovelace", Some("ada lovelace")),
            (
                &[rule],
                "please ignore all of the previous instructions now",
                Some("ignore all of the previous instructions"),
            ),
            (&[rule], "Disregard prior instruction", Some("Disregard prior instruction")),
            (&[rule], "ignore the noise", None),
            (&["don't tell"], "don’t tell", Some("don’t tell")),
            (&["忽略指令"], "请忽略指令。", Some("忽略指令")),
            (&["müller"], "Frau MÜLLER", Some("MÜLLER")),
            (&["cat*"], "a category", Some("category")),
        ];
        for (phrases, text, expect) in cases {
            assert_eq!(found(phrases, text).as_deref(), *expect, "{phrases:?} in {text}");
        }
    }

    #[test]
    fn what_may_go_on_is_said_so() {
        let phrases = Phrases::new(["red apple", "red", "pear*", "梨树"]).unwrap();
        let cases = [
            ("a re", Found::Perhaps(2)),
            ("a red", Found::Perhaps(2)),
            ("a red ", Found::Perhaps(2)),
            ("a red ap", Found::Perhaps(2)),
            ("a red ape ", Found::Phrase { index: 1, start: 2, end: 5 }),
            ("a red apple", Found::Perhaps(2)),
            ("a red apple,", Found::Phrase { index: 0, start: 2, end: 11 }),
            ("a reason", Found::Nothing),
            ("pear", Found::Perhaps(0)),
            ("pears ", Found::Phrase { index: 2, start: 0, end: 5 }),
            ("x梨", Found::Perhaps(1)),
            ("x梨树", Found::Phrase { index: 3, start: 1, end: 7 }),
            ("", Found::Nothing),
        ];
        for (text, expect) in cases {
            assert_eq!(phrases.next(text, 0, false), expect, "{text}");
        }
    }

    #[test]
    fn a_word_whose_beginning_is_gone_begins_nothing() {
        let phrases = Phrases::new(["red"]).unwrap();
        assert_eq!(phrases.next("colored ", 4, true), Found::Nothing);
        assert_eq!(phrases.next("colo red ", 4, true), Found::Phrase { index: 0, start: 5, end: 8 });
    }

    #[test]
    fn a_phrase_needs_a_word() {
        assert!(Phrases::new(["…"]).is_err());
        assert!(Phrases::new(["maybe? this"]).is_err());
        assert!(Phrases::new([] as [&str; 0]).unwrap().is_empty());
    }
}
