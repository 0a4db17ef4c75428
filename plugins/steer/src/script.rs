//! The script a text is mostly written in: as much of its language as shows without reading it.

use serde::Deserialize;

/// A script.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Script {
    Latin,
    Cyrillic,
    Greek,
    Han,
    /// Japanese: Han characters with kana among them.
    Kana,
    Hangul,
    Arabic,
    Hebrew,
    Devanagari,
    Thai,
    Other,
}

const ALL: [Script; 11] = [
    Script::Latin,
    Script::Cyrillic,
    Script::Greek,
    Script::Han,
    Script::Kana,
    Script::Hangul,
    Script::Arabic,
    Script::Hebrew,
    Script::Devanagari,
    Script::Thai,
    Script::Other,
];

/// Letters looked at: enough to tell, and a bound.
const ENOUGH: usize = 4096;

impl Script {
    /// The script of most letters; `None` for a text without any.
    pub fn of(text: &str) -> Option<Self> {
        let mut counts = [0_usize; ALL.len()];
        for c in text.chars().filter(|c| c.is_alphabetic()).take(ENOUGH) {
            counts[Self::of_letter(c) as usize] += 1;
        }
        // A Japanese text may have more Han than kana; a Chinese one has no kana.
        if counts[Self::Kana as usize] > 0 {
            counts[Self::Kana as usize] += std::mem::take(&mut counts[Self::Han as usize]);
        }
        let most = counts.iter().max().filter(|most| **most > 0)?;
        ALL.into_iter().find(|script| counts[*script as usize] == *most)
    }

    fn of_letter(c: char) -> Self {
        match c {
            'A'..='Z' | 'a'..='z' | '\u{C0}'..='\u{24F}' | '\u{1E00}'..='\u{1EFF}' => Self::Latin,
            '\u{370}'..='\u{3FF}' | '\u{1F00}'..='\u{1FFF}' => Self::Greek,
            '\u{400}'..='\u{52F}' => Self::Cyrillic,
            '\u{590}'..='\u{5FF}' => Self::Hebrew,
            '\u{600}'..='\u{6FF}' | '\u{750}'..='\u{77F}' | '\u{8A0}'..='\u{8FF}' => Self::Arabic,
            '\u{900}'..='\u{97F}' => Self::Devanagari,
            '\u{E00}'..='\u{E7F}' => Self::Thai,
            '\u{3040}'..='\u{30FF}' | '\u{31F0}'..='\u{31FF}' | '\u{FF66}'..='\u{FF9F}' => Self::Kana,
            '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}' => {
                Self::Han
            }
            '\u{1100}'..='\u{11FF}' | '\u{AC00}'..='\u{D7AF}' => Self::Hangul,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts() {
        for (text, expect) in [
            ("Hello, Wörld", Some(Script::Latin)),
            ("Привет, world", Some(Script::Cyrillic)),
            ("今日は良い天気", Some(Script::Kana)),
            ("今天天气很好", Some(Script::Han)),
            ("안녕하세요", Some(Script::Hangul)),
            ("مرحبا", Some(Script::Arabic)),
            ("שלום", Some(Script::Hebrew)),
            ("नमस्ते", Some(Script::Devanagari)),
            ("สวัสดี", Some(Script::Thai)),
            ("γειά", Some(Script::Greek)),
            ("გამარჯობა", Some(Script::Other)),
            ("1 + 2 = 3", None),
        ] {
            assert_eq!(Script::of(text), expect, "{text}");
        }
    }
}
