//! Reads what a model meant by JSON and writes it as JSON.
//!
//! A reader that forgives: quotes of any kind or none, commas missing or too many, Python's words, comments, fences, closers missing
//! or too many, a text cut off. It writes while it reads, so numbers keep their digits. Whatever it wrote is read back by a
//! strict reader before it counts: the worst it can do is nothing.

use serde::de::IgnoredAny;
use tidegate_plugin::json;

/// Deeper than any tool's arguments; the stack of a guest is small.
const DEPTH: usize = 64;

/// Whether a text is one JSON object as it stands.
pub fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// The object a text was meant to be.
pub fn repair(text: &str) -> Option<String> {
    let text = unfence(text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}'));
    // An object in a string, or alone in a list: models that were taught either.
    if let Ok(inner) = serde_json::from_str::<String>(text) {
        return if is_object(&inner) { Some(inner) } else { object(unfence(inner.trim())) };
    }
    let text =
        text.strip_prefix('[').map_or(text, |inner| if inner.trim_start().starts_with('{') { inner } else { text });
    object(text)
}

fn object(text: &str) -> Option<String> {
    let start = text.find('{')?;
    // Words before it are said, not meant; anything else there is another shape than arguments have.
    if text[..start].contains(['[', '"', '}']) || text[..start].len() > 200 {
        return None;
    }
    let mut reader = Reader { text, at: start, out: String::with_capacity(text.len() + 8), depth: 0 };
    reader.value();
    let rest = reader.text[reader.at..].trim_start_matches(|c: char| c.is_whitespace() || "}])`;,".contains(c));
    // A second object is a second call, and which was meant nobody knows.
    (!rest.contains('{') && is_object(&reader.out)).then_some(reader.out)
}

/// What stands inside a code fence, if there is one.
fn unfence(text: &str) -> &str {
    let Some((_, inner)) = text.split_once("```").filter(|(before, _)| !before.contains('{')) else { return text };
    let inner = inner.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    inner.rsplit_once("```").map_or(inner, |(inner, _)| inner).trim()
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
    out: String,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) {
        self.at += self.peek().map_or(0, char::len_utf8);
    }

    /// Blanks and comments.
    fn skip(&mut self) {
        loop {
            let rest = self.rest().trim_start();
            self.at = self.text.len() - rest.len();
            let comment = if rest.starts_with("//") || rest.starts_with('#') {
                Some(rest.find('\n').unwrap_or(rest.len()))
            } else if rest.starts_with("/*") {
                Some(rest.find("*/").map_or(rest.len(), |end| end + 2))
            } else {
                None
            };
            match comment {
                Some(length) => self.at += length,
                None => return,
            }
        }
    }

    /// One value; false where there is none.
    fn value(&mut self) -> bool {
        self.skip();
        match self.peek() {
            None | Some('}' | ']' | ')' | ',' | ':') => false,
            Some('{') => self.nested(Self::members),
            Some('[' | '(') => self.nested(Self::items),
            Some(c) if quote(c).is_some() => {
                self.string(false);
                true
            }
            Some(_) => {
                self.bare();
                true
            }
        }
    }

    fn nested(&mut self, read: fn(&mut Self)) -> bool {
        if self.depth == DEPTH {
            // Give up: the strict reader will refuse what was written.
            self.at = self.text.len();
            self.out.push('{');
            return true;
        }
        self.depth += 1;
        self.bump();
        read(self);
        self.depth -= 1;
        true
    }

    fn members(&mut self) {
        self.out.push('{');
        let mut first = true;
        loop {
            self.skip();
            match self.peek() {
                None => break,
                Some('}') => {
                    self.bump();
                    break;
                }
                // A closer of what is around: this one is missing.
                Some(']' | ')') if self.depth > 1 => break,
                Some(',' | ':' | ';' | ']' | ')') => self.bump(),
                Some(c) => {
                    let before = self.out.len();
                    if !first {
                        self.out.push(',');
                    }
                    if quote(c).is_some() {
                        self.string(true)
                    } else {
                        self.bare_key()
                    }
                    self.skip();
                    let sign = self.rest();
                    let colon = [":", "=>", "="].iter().find(|colon| sign.starts_with(**colon));
                    self.at += colon.map_or(0, |colon| colon.len());
                    self.out.push(':');
                    // A name without a value: cut off, or nothing was meant by it.
                    if colon.is_some() && self.value() { first = false } else { self.out.truncate(before) }
                }
            }
        }
        self.out.push('}');
    }

    fn items(&mut self) {
        self.out.push('[');
        let mut first = true;
        loop {
            self.skip();
            match self.peek() {
                None => break,
                Some(']' | ')') => {
                    self.bump();
                    break;
                }
                Some('}') => break,
                Some(',' | ':' | ';') => self.bump(),
                Some(_) => {
                    if !first {
                        self.out.push(',');
                    }
                    first = false;
                    self.value();
                }
            }
        }
        self.out.push(']');
    }

    /// A quoted text.
    fn string(&mut self, key: bool) {
        let Some(close) = self.peek().and_then(quote) else { return };
        self.bump();
        // Python's and JavaScript's long strings.
        let long = self.rest().starts_with("\"\"") && close == '"' && !ends_value(&self.rest()[1..], key);
        if long {
            self.at += 2;
        }
        let mut value = String::new();
        while let Some(c) = self.peek() {
            self.bump();
            match c {
                '\\' => self.escape(&mut value),
                c if c == close && long => {
                    if self.rest().starts_with("\"\"") {
                        self.at += 2;
                        break;
                    }
                    value.push(c);
                }
                // The quote ends the text if what follows fits an end; else it is one the model forgot to escape.
                c if c == close && ends_value(self.rest(), key) => break,
                c => value.push(c),
            }
        }
        self.write(&value);
    }

    /// What a backslash says; one that says nothing is itself.
    fn escape(&mut self, value: &mut String) {
        let Some(c) = self.peek() else { return };
        self.bump();
        match c {
            'n' => value.push('\n'),
            't' => value.push('\t'),
            'r' => value.push('\r'),
            'b' => value.push('\u{8}'),
            'f' => value.push('\u{c}'),
            '"' | '\'' | '\\' | '/' | '`' => value.push(c),
            'u' => match self.hex(4) {
                Some(high @ 0xd800..=0xdbff) => {
                    let pair = self.low_half().map(|low| 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00));
                    value.push(pair.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER));
                }
                Some(code) => value.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)),
                None => value.push_str("\\u"),
            },
            'x' => match self.hex(2) {
                Some(code) => value.extend(char::from_u32(code)),
                None => value.push_str("\\x"),
            },
            // A line continued.
            '\n' => {}
            c => value.extend(['\\', c]),
        }
    }

    /// The second half of a character that is written as two escapes. Any other escape is left to be read for itself.
    fn low_half(&mut self) -> Option<u32> {
        let before = self.at;
        self.rest().strip_prefix("\\u")?;
        self.at += 2;
        let low = self.hex(4).filter(|code| (0xdc00..=0xdfff).contains(code));
        if low.is_none() {
            self.at = before;
        }
        low
    }

    fn hex(&mut self, digits: usize) -> Option<u32> {
        let text = self.rest().get(..digits).filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        self.at += digits;
        u32::from_str_radix(text, 16).ok()
    }

    /// A name without quotes.
    fn bare_key(&mut self) {
        let rest = self.rest();
        let end = rest.find(|c: char| ":=,}{\n".contains(c)).unwrap_or(rest.len());
        self.at += end;
        self.write(rest[..end].trim());
        // Something that is no name, and does not move on, would be read for ever.
        if end == 0 {
            self.bump();
        }
    }

    /// A value without quotes: a word, a number, or text somebody forgot to quote.
    fn bare(&mut self) {
        let rest = self.rest();
        let end = rest.find([',', '}', ']', ')', '\n']).unwrap_or(rest.len());
        let comment = [" //", " #", "/*"].iter().filter_map(|sign| rest[..end].find(sign)).min();
        let end = comment.unwrap_or(end);
        let word = rest[..end].trim();
        self.at += end.max(rest.chars().next().map_or(0, char::len_utf8));
        // At the very end a word may be cut off.
        let cut = self.at == self.text.len() && word.len() > 1;
        let is = |whole: &str| word.eq_ignore_ascii_case(whole) || (cut && whole.starts_with(word));
        if is("true") {
            self.out.push_str("true");
        } else if is("false") {
            self.out.push_str("false");
        } else if is("null") || ["None", "none", "undefined", "NaN", "Infinity", "-Infinity", "nil"].contains(&word) {
            self.out.push_str("null");
        } else if let Some(number) = number(word) {
            self.out.push_str(&number);
        } else {
            self.write(word);
        }
    }

    fn write(&mut self, value: &str) {
        self.out.push('"');
        self.out.push_str(&json::escape(value));
        self.out.push('"');
    }
}

/// The closing quote to an opening one.
fn quote(c: char) -> Option<char> {
    match c {
        '"' | '\'' | '`' => Some(c),
        '“' | '”' | '„' => Some('”'),
        '‘' | '’' => Some('’'),
        _ => None,
    }
}

/// Whether what follows a quote fits the end of a text: of a name a colon or the next member, of a value a comma before another name or
/// value, a closer, or nothing.
fn ends_value(rest: &str, key: bool) -> bool {
    let rest = rest.trim_start();
    if key {
        return rest.starts_with([':', '=', ',', '}']) || rest.is_empty();
    }
    match rest.chars().next() {
        None | Some('}' | ']' | ')') => true,
        Some('/') => rest.starts_with("//") || rest.starts_with("/*"),
        Some('#' | '`') => true,
        Some(',') => {
            let next = rest[1..].trim_start();
            let named = next.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && next.find([':', '"', ',', '}']).is_some_and(|at| next[at..].starts_with(':'));
            let word = ["true", "false", "null", "True", "False", "None"].iter().any(|word| next.starts_with(word));
            let opens = next
                .chars()
                .next()
                .is_none_or(|c| quote(c).is_some() || "{[(}]),/#-".contains(c) || c.is_ascii_digit());
            named || word || opens
        }
        // A comma forgotten before the next name: `"a" "b":`.
        Some(c) if quote(c).is_some() => {
            let inner = &rest[c.len_utf8()..];
            quote(c).and_then(|close| inner.find(close)).is_some_and(|end| inner[end..].chars().nth(1) == Some(':'))
        }
        Some(_) => false,
    }
}

/// A number as JSON writes it, if the word is one.
fn number(word: &str) -> Option<String> {
    let (sign, digits) = match word.as_bytes().first()? {
        b'-' => ("-", &word[1..]),
        b'+' => ("", &word[1..]),
        _ => ("", word),
    };
    if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return u64::from_str_radix(hex, 16).ok().map(|number| format!("{sign}{number}"));
    }
    let plain = digits.replace('_', "");
    let (mantissa, exponent) = plain.split_once(['e', 'E']).map_or((plain.as_str(), None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let some = !whole.is_empty() || fraction.is_some_and(|fraction| !fraction.is_empty());
    if !some || !all_digits(whole) || !fraction.is_none_or(all_digits) {
        return None;
    }
    let power = exponent.map(|exponent| exponent.trim_start_matches(['+', '-']));
    if power.is_some_and(|power| !all_digits(power)) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let mut out = format!("{sign}{}", if whole.is_empty() { "0" } else { whole });
    if let Some(fraction) = fraction {
        out.push('.');
        out.push_str(if fraction.is_empty() { "0" } else { fraction });
    }
    // An exponent that was cut off says nothing.
    if let Some(exponent) = exponent.filter(|_| power.is_some_and(|power| !power.is_empty())) {
        out.push('e');
        out.push_str(exponent);
    }
    Some(out)
}
