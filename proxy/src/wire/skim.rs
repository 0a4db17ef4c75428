//! The `usage` of a JSON reply that is only carried: found as its bytes pass, under any chunking, without keeping them.
//!
//! Pictures are megabytes of base64 in one string. Only the top level is looked at, and of it only that member is kept.

use super::check::count;
use super::json::{Json, Kind, validate};
use crate::canon::Usage;
use memchr::memchr2;

/// No usage is larger.
const MOST: usize = 4 << 10;
const KEY: &[u8] = b"usage";

/// See the module. Bytes that are no JSON object lead to nothing worse than no usage.
#[derive(Debug, Default)]
pub struct Skim {
    depth: usize,
    /// Within a string, and the byte before was a backslash.
    string: bool,
    escaped: bool,
    /// The last string at the top level, as far as it can be the key.
    key: Vec<u8>,
    /// The member's value so far, while it is being read.
    taken: Option<Vec<u8>>,
    usage: Option<Usage>,
}

impl Skim {
    /// The counts, once they have passed.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// More of the reply passes.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let length = if self.string { self.in_string(bytes) } else { self.step(bytes[0]) };
            let (passed, rest) = bytes.split_at(length);
            if let Some(taken) = &mut self.taken {
                taken.extend_from_slice(&passed[..passed.len().min(MOST)]);
                if taken.len() > MOST {
                    self.taken = None;
                }
            }
            bytes = rest;
        }
    }

    /// How many bytes of a string can be passed at once.
    fn in_string(&mut self, bytes: &[u8]) -> usize {
        if std::mem::take(&mut self.escaped) {
            return 1;
        }
        let end = memchr2(b'"', b'\\', bytes);
        let text = &bytes[..end.unwrap_or(bytes.len())];
        if self.depth == 1 {
            self.key.extend_from_slice(&text[..text.len().min(KEY.len() + 1)]);
            self.key.truncate(KEY.len() + 1);
        }
        match end.map(|end| bytes[end]) {
            Some(b'"') => self.string = false,
            Some(_) => {
                self.escaped = true;
                // Nobody writes this key with an escape. Below the top level there is none, and may be any number of these.
                if self.depth == 1 {
                    self.key.push(b'\\');
                }
            }
            None => {}
        }
        end.map_or(bytes.len(), |end| end + 1)
    }

    /// One byte outside strings.
    fn step(&mut self, byte: u8) -> usize {
        match byte {
            b'"' => {
                self.string = true;
                self.key.clear();
            }
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.read();
                }
            }
            b':' if self.depth == 1 && self.key == KEY => self.taken = Some(Vec::new()),
            b',' if self.depth == 1 => self.read(),
            _ => {}
        }
        1
    }

    /// The member is complete.
    fn read(&mut self) {
        let taken = self.taken.take().unwrap_or_default();
        // It begins with the colon.
        let value = taken.get(1..).and_then(|value| validate(value).ok());
        self.usage = value.filter(|value| value.kind() == Kind::Object).map(usage).or(self.usage);
    }
}

/// What these APIs call a usage. Where only a total is told, as for a ranking, nothing was generated.
fn usage(json: Json<'_>) -> Usage {
    let either = |names: [&str; 2]| names.iter().find_map(|name| count(json.get(name)));
    let total = count(json.get("total_tokens"));
    let (input, output) = (either(["input_tokens", "prompt_tokens"]), either(["output_tokens", "completion_tokens"]));
    let input = input.or_else(|| total.map(|total| total.saturating_sub(output.unwrap_or(0))));
    let output = output.or_else(|| total.zip(input).map(|(total, input)| total.saturating_sub(input)));
    let details = ["input_tokens_details", "prompt_tokens_details"].iter().find_map(|name| json.get(name));
    let cache_read = details.and_then(|details| count(details.get("cached_tokens")));
    Usage { input, output, cache_read, ..Usage::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skim(text: &str, size: usize) -> Option<Usage> {
        let mut skim = Skim::default();
        text.as_bytes().chunks(size).for_each(|piece| skim.push(piece));
        skim.usage()
    }

    #[test]
    fn usage_is_found_under_any_chunking() {
        let counts = |input, output| Some(Usage { input: Some(input), output: Some(output), ..Usage::default() });
        let cached = Some(Usage { input: Some(9), output: Some(2), cache_read: Some(4), ..Usage::default() });
        let long = format!("{{\"usage\":{{\"x\":\"{}\",\"total_tokens\":1}}}}", "a".repeat(MOST));
        for (text, expect) in [
            (r#"{"id":"x","usage":{"total_tokens":56},"results":[{"index":0}]}"#, counts(56, 0)),
            (r#"{"usage":{"prompt_tokens":5,"total_tokens":5}}"#, counts(5, 0)),
            (
                r#"{"data":[{"b64_json":"\"usage\":{"}] , "usage" : { "input_tokens":9,"output_tokens":2,"input_tokens_details":{"cached_tokens":4}} }"#,
                cached,
            ),
            (r#"{"text":"usage","usage":{"type":"duration","seconds":3}}"#, Some(Usage::default())),
            (r#"{"object":"usage","data":{"usage":{"total_tokens":1}}}"#, None),
            (r#"{"usage":null}"#, None),
            (r#"{"usage":"x"}"#, None),
            (r#"{"usage\\":{"total_tokens":1}}"#, None),
            (r#"{"my_usage":{"total_tokens":1},"usages":{"total_tokens":1}}"#, None),
            (r#"[{"usage":{"total_tokens":1}}]"#, None),
            (r#"{"usage":{"total_tokens":-1}}"#, Some(Usage::default())),
            (r#"{"usage":{"total_tokens":1"#, None),
            ("]]}}\",:\\", None),
            (&long, None),
        ] {
            for size in [1, 2, 3, 7, 1 << 20] {
                assert_eq!(skim(text, size), expect, "{text} in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_passes_is_not_kept() {
        for (before, after) in [(r#"{"data":""#, r#"""#), (r#"{"data":[{"b64_json":""#, r#""}]"#)] {
            let mut skim = Skim::default();
            skim.push(before.as_bytes());
            for _ in 0..100 {
                skim.push(&[b'a'; 10_000]);
                skim.push(r"\/".repeat(1000).as_bytes());
            }
            assert!(skim.key.capacity() < 64 && skim.taken.is_none(), "{before}");
            skim.push(after.as_bytes());
            skim.push(br#","usage":{"total_tokens":3}}"#);
            assert_eq!(skim.usage().and_then(|usage| usage.input), Some(3), "{before}");
        }
    }
}
