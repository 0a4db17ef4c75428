//! From a stream of bytes to pieces of text that can be sent: never half a character, never part of a stop sequence.

/// Holds back what may not be said yet.
pub struct Text {
    stops: Vec<String>,
    /// Bytes not yet known to be whole characters.
    bytes: Vec<u8>,
    /// Text that may turn out to begin a stop sequence.
    held: String,
}

/// What became of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// Text to send now, perhaps empty.
    More(String),
    /// The last text before a stop sequence, and that sequence.
    Stopped(String, String),
}

impl Text {
    /// Empty stop sequences are ignored: they would end every answer before it begins.
    pub fn new(stops: Vec<String>) -> Text {
        let stops = stops.into_iter().filter(|stop| !stop.is_empty()).collect();
        Text { stops, bytes: Vec::new(), held: String::new() }
    }

    /// Takes the bytes of the next token.
    pub fn push(&mut self, bytes: &[u8]) -> Said {
        self.bytes.extend_from_slice(bytes);
        self.take_characters();
        if let Some((at, stop)) = self.first_stop() {
            let stop = stop.to_owned();
            self.held.truncate(at);
            return Said::Stopped(std::mem::take(&mut self.held), stop);
        }
        let keep = self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        Said::More(std::mem::replace(&mut self.held, rest))
    }

    /// What was still held when the answer ended otherwise; an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let mut text = std::mem::take(&mut self.held);
        if !std::mem::take(&mut self.bytes).is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
        text
    }

    /// Moves whole characters over; bytes that can never become one are replaced at once.
    fn take_characters(&mut self) {
        loop {
            match std::str::from_utf8(&self.bytes) {
                Ok(text) => {
                    self.held.push_str(text);
                    self.bytes.clear();
                    return;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    self.held.push_str(&String::from_utf8_lossy(&self.bytes[..valid]));
                    let Some(wrong) = error.error_len() else {
                        self.bytes.drain(..valid);
                        return;
                    };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                    self.bytes.drain(..valid + wrong);
                }
            }
        }
    }

    fn first_stop(&self) -> Option<(usize, &str)> {
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.as_str())));
        found.min_by_key(|&(at, stop)| (at, std::cmp::Reverse(stop.len())))
    }
}

/// Length of the longest end of `text` that begins `stop` and is not all of it.
pub(super) fn overlap(text: &str, stop: &str) -> usize {
    (1..stop.len().min(text.len() + 1))
        .rev()
        .find(|&n| text.as_bytes().ends_with(&stop.as_bytes()[..n]) && text.is_char_boundary(text.len() - n))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `input` in pieces of `size` bytes; the pieces said, what stopped them, and what finish gave.
    fn say(input: &[u8], size: usize, stops: &[&str]) -> (Vec<String>, Option<String>) {
        let mut text = Text::new(stops.iter().map(|s| s.to_string()).collect());
        let mut said = Vec::new();
        for bytes in input.chunks(size) {
            match text.push(bytes) {
                Said::More(more) => said.push(more),
                Said::Stopped(last, stop) => {
                    said.push(last);
                    return (said, Some(stop));
                }
            }
        }
        said.push(text.finish());
        (said, None)
    }

    #[test]
    fn any_chunking_says_the_same() {
        let cases: &[(&str, &[&str], &str, Option<&str>)] = &[
            ("hello world", &[], "hello world", None),
            ("hello world", &["wor"], "hello ", Some("wor")),
            ("hello world", &["world!"], "hello world", None),
            ("aaab", &["aab"], "a", Some("aab")),
            ("one\n\nUser: two", &["\nUser:", "\n\n"], "one", Some("\n\n")),
            ("naïve 日本語 🎉!", &["語"], "naïve 日本", Some("語")),
            ("naïve 日本語 🎉!", &["語x"], "naïve 日本語 🎉!", None),
            ("é", &["è"], "é", None),
            ("abc", &[""], "abc", None),
            ("stop", &["stop"], "", Some("stop")),
        ];
        for &(input, stops, expect, stop) in cases {
            for size in 1..=input.len() {
                let (said, stopped) = say(input.as_bytes(), size, stops);
                assert_eq!(said.concat(), expect, "{input:?} by {size}");
                assert_eq!(stopped.as_deref(), stop, "{input:?} by {size}");
            }
        }
    }

    #[test]
    fn nothing_that_may_be_a_stop_is_said() {
        let mut text = Text::new(vec!["END.".into()]);
        assert_eq!(text.push(b"the E"), Said::More("the ".into()));
        assert_eq!(text.push(b"N"), Said::More(String::new()));
        assert_eq!(text.push(b"T"), Said::More("ENT".into()));
        assert_eq!(text.push(b"END"), Said::More(String::new()));
        assert_eq!(text.finish(), "END");
    }

    #[test]
    fn half_characters_wait() {
        let mut text = Text::new(vec![]);
        assert_eq!(text.push(&[0xf0, 0x9f]), Said::More(String::new()));
        assert_eq!(text.push(&[0x8e]), Said::More(String::new()));
        assert_eq!(text.push(&[0x89, b'!']), Said::More("🎉!".into()));
        assert_eq!(text.push(&[0xff, b'a', 0xe6]), Said::More("\u{fffd}a".into()));
        assert_eq!(text.finish(), "\u{fffd}");
    }
}
