//! Walking JSON text: the grammar of RFC 8259 and where things end.

use super::{CARRY_DEPTH, Json, Syntax};
use wide::u8x16;

/// Walks JSON text. `at` is always inside or just past it.
pub(in crate::wire) struct Scan<'a> {
    text: &'a [u8],
    pub(in crate::wire) at: usize,
    /// The text was validated: of a string nothing is wanted but its end.
    trusted: bool,
}

impl<'a> Scan<'a> {
    pub(in crate::wire) fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, trusted: false }
    }

    /// Walks text that was validated.
    pub(super) fn again(text: &'a [u8], at: usize) -> Self {
        Self { text, at, trusted: true }
    }

    /// What was walked since then.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.text[start..self.at]
    }

    pub(in crate::wire) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(in crate::wire) fn fail<T>(&self, what: &'static str) -> Result<T, Syntax> {
        Err(Syntax { at: self.at, what })
    }

    pub(in crate::wire) fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    pub(super) fn take_value(&mut self) -> Option<Json<'a>> {
        let start = self.at;
        self.value().ok()?;
        Some(Json(&self.text[start..self.at]))
    }

    /// One value of any kind. Not recursive: a bit per level says object or array.
    pub(in crate::wire) fn value(&mut self) -> Result<(), Syntax> {
        let mut levels = Levels::default();
        loop {
            match self.peek() {
                Some(b'{') => {
                    levels.push(true, self)?;
                    self.at += 1;
                    self.space();
                    if self.peek() != Some(b'}') {
                        self.key()?;
                        self.space();
                        continue;
                    }
                }
                Some(b'[') => {
                    levels.push(false, self)?;
                    self.at += 1;
                    self.space();
                    if self.peek() != Some(b']') {
                        continue;
                    }
                }
                Some(b'"') => {
                    self.at += 1;
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.word(b"true")?,
                Some(b'f') => self.word(b"false")?,
                Some(b'n') => self.word(b"null")?,
                Some(_) => return self.fail("expected a value"),
                None => return self.fail("unexpected end, a value is missing"),
            }
            // A value ended: close what it completes, then go on behind the next comma.
            loop {
                let Some(object) = levels.top() else { return Ok(()) };
                self.space();
                match self.peek() {
                    Some(b',') => {
                        self.at += 1;
                        self.space();
                        if object {
                            self.key()?;
                            self.space();
                        }
                        break;
                    }
                    Some(b'}') if object => levels.pop(),
                    Some(b']') if !object => levels.pop(),
                    Some(_) => return self.fail(if object { "expected `,` or `}`" } else { "expected `,` or `]`" }),
                    None => {
                        return self.fail(if object {
                            "unexpected end, an object is not closed"
                        } else {
                            "unexpected end, an array is not closed"
                        });
                    }
                }
                self.at += 1;
            }
        }
    }

    /// A key and its colon.
    pub(in crate::wire) fn key(&mut self) -> Result<(), Syntax> {
        if self.peek() != Some(b'"') {
            return self.fail("expected a key in quotes");
        }
        self.at += 1;
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return self.fail("expected `:`");
        }
        self.at += 1;
        Ok(())
    }

    /// The rest of a string whose opening quote has been read.
    pub(super) fn string(&mut self) -> Result<(), Syntax> {
        self.at += plain(&self.text[self.at..]);
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(())
            }
            Some(b'\\') => self.skip(),
            _ => self.step(),
        }
    }

    /// The same, run by run: what stands between two escapes, and an escape.
    fn step(&mut self) -> Result<(), Syntax> {
        loop {
            self.at += plain(&self.text[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => return self.fail("a control character inside a string"),
                None => return self.fail("unexpected end, a string is not closed"),
            }
        }
    }

    /// The rest of a string from its first escape on, 64 bytes at a time however many escapes there are: where the next one
    /// stands no processor can guess, so asking at each is dear. What needs a closer look is walked in steps.
    fn skip(&mut self) -> Result<(), Syntax> {
        let (blocks, rest) = self.text[self.at..].as_chunks::<64>();
        let mut carry = 0;
        for block in blocks {
            let (before, backslashes, quotes) = (carry, equal(block, b'\\'), equal(block, b'"'));
            let escaped = escaped(backslashes, &mut carry);
            let ends = quotes & !escaped;
            if !self.trusted {
                let inside = (ends & ends.wrapping_neg()).wrapping_sub(1);
                let wrong = mask(block, is_control) | escaped & !(quotes | backslashes | mask(block, is_short_escape));
                if wrong & inside != 0 {
                    self.at -= before as usize;
                    return self.step();
                }
            }
            if ends != 0 {
                self.at += ends.trailing_zeros() as usize + 1;
                return Ok(());
            }
            self.at += 64;
        }
        if !self.trusted {
            self.at -= carry as usize;
            return self.step();
        }
        let mut escaped = carry != 0;
        for byte in rest {
            self.at += 1;
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return Ok(()),
                _ => {}
            }
        }
        self.fail("unexpected end, a string is not closed")
    }

    fn escape(&mut self) -> Result<(), Syntax> {
        match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.at += 2,
            Some(b'u')
                if self.text.get(self.at + 2..self.at + 6).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) =>
            {
                self.at += 6
            }
            _ => return self.fail("an invalid escape"),
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), Syntax> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            _ => return self.fail("an invalid number"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Syntax> {
        if !self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.fail("an invalid number");
        }
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        Ok(())
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), Syntax> {
        if !self.text[self.at..].starts_with(word) {
            return self.fail("expected a value");
        }
        self.at += word.len();
        Ok(())
    }
}

/// How many bytes stand before the first quote, backslash or control character.
///
/// One loop for keys of five bytes and prompts of a hundred thousand, and for text where every line ends in an escape: there a
/// faster search with a longer start loses.
pub(super) fn plain(text: &[u8]) -> usize {
    let (blocks, rest) = text.as_chunks::<16>();
    for (at, block) in blocks.iter().enumerate() {
        let bytes = u8x16::new(*block);
        let ends = bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\')) | is_control(bytes);
        let ends = ends.to_bitmask();
        if ends != 0 {
            return at * 16 + ends.trailing_zeros() as usize;
        }
    }
    let end = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
    text.len() - rest.len() + end.unwrap_or(rest.len())
}

/// Where bytes stand that are so.
fn mask(block: &[u8; 64], are: impl Fn(u8x16) -> u8x16) -> u64 {
    let (parts, _) = block.as_chunks::<16>();
    let found = |part: &[u8; 16]| u64::from(are(u8x16::new(*part)).to_bitmask() as u16);
    parts.iter().rev().fold(0, |mask, part| mask << 16 | found(part))
}

fn equal(block: &[u8; 64], byte: u8) -> u64 {
    mask(block, |bytes| bytes.simd_eq(u8x16::splat(byte)))
}

fn is_control(bytes: u8x16) -> u8x16 {
    bytes.min(u8x16::splat(0x1f)).simd_eq(bytes)
}

/// One that makes an escape of two bytes, quotes and backslashes apart.
fn is_short_escape(bytes: u8x16) -> u8x16 {
    // `b` and `f` differ in one bit.
    (bytes | u8x16::splat(b'b' ^ b'f')).simd_eq(u8x16::splat(b'f'))
        | bytes.simd_eq(u8x16::splat(b'n'))
        | bytes.simd_eq(u8x16::splat(b'r'))
        | bytes.simd_eq(u8x16::splat(b't'))
        | bytes.simd_eq(u8x16::splat(b'/'))
}

/// Which bytes a backslash stands before that is not itself behind one. `carry`: the next block's first byte is such a one.
/// (Langdale and Lemire, "Parsing gigabytes of JSON per second"; the form is that of simdjson's `json_escape_scanner`.)
fn escaped(backslashes: u64, carry: &mut u64) -> u64 {
    const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
    let first = backslashes & !*carry;
    let codes = ((first << 1 | ODD).wrapping_sub(first)) ^ ODD;
    let escaped = codes ^ (backslashes | *carry);
    *carry = (codes & backslashes) >> 63;
    escaped
}

/// The open brackets: one bit each.
#[derive(Default)]
struct Levels {
    bits: [u64; CARRY_DEPTH / 64],
    depth: usize,
}

impl Levels {
    fn push(&mut self, object: bool, scan: &Scan<'_>) -> Result<(), Syntax> {
        if self.depth == CARRY_DEPTH {
            return scan.fail("nested more than 512 deep");
        }
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        if object {
            self.bits[word] |= bit;
        } else {
            self.bits[word] &= !bit;
        }
        self.depth += 1;
        Ok(())
    }

    fn top(&self) -> Option<bool> {
        let at = self.depth.checked_sub(1)?;
        Some(self.bits[at / 64] & (1 << (at % 64)) != 0)
    }

    fn pop(&mut self) {
        self.depth -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_string_read_again_ends_where_it_ended(text in r#"([a-z]{0,70}|(\\\\){0,40}|\\["nt]|é){0,20}"#, behind in r#"["\\a,]{0,90}"#) {
            let text = format!("{text}\"{behind}");
            let (mut once, mut again) = (Scan::new(text.as_bytes()), Scan::again(text.as_bytes(), 0));
            once.string().unwrap();
            again.string().unwrap();
            proptest::prop_assert_eq!((once.at, again.at), (text.len() - behind.len(), text.len() - behind.len()));
        }

        #[test]
        fn blocks_and_steps_agree(text in r#"([a-z]{0,70}|\\["\\/bfnrtuxj\n]|\\u[0-9a-g]{4}|[\x00-\x20]|é){0,40}"#, behind in r#"["\\a,]{0,90}"#) {
            let text = format!("\\n{text}\"{behind}");
            let (mut blocks, mut steps) = (Scan::new(text.as_bytes()), Scan::new(text.as_bytes()));
            let (one, other) = (blocks.string(), steps.step());
            proptest::prop_assert_eq!(one.map_err(|error| (error.at, error.what)), other.map_err(|error| (error.at, error.what)));
            proptest::prop_assert_eq!(blocks.at, steps.at);
        }

        #[test]
        fn plain_text_ends_where_a_loop_finds_it(text in proptest::collection::vec(
            proptest::prop_oneof![8 => b' '..=b'!', 8 => b'#'..=b'~', 4 => 0x7f_u8..=0xff, 1 => 0_u8..0x20, 1 => b'"'..=b'"', 1 => b'\\'..=b'\\'], 0..80)) {
            let expect = text.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(text.len());
            proptest::prop_assert_eq!(plain(&text), expect);
        }
    }
}
