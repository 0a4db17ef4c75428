//! Bank accounts: two letters, two check digits, up to 30 more, and the whole is 1 modulo 97.

use super::{joined_after, joined_before, runs};

/// The shortest there is (Norway) and the longest the standard allows.
const LENGTHS: std::ops::RangeInclusive<usize> = 15..=34;

/// The account numbers of a text.
pub fn find(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let part = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b' ';
    for (start, end) in runs(text, |byte| byte.is_ascii_uppercase(), part) {
        let mut from = start;
        while from < end {
            match account(text, from, end) {
                Some(last) => {
                    found.push((from, last));
                    from = last;
                }
                None => from += 1,
            }
        }
    }
    found
}

/// Where the longest account number from `start` on ends: a number in groups may be followed by words in capitals.
fn account(text: &str, start: usize, end: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let head = bytes.get(start..start + 4)?;
    let letters = head[..2].iter().all(u8::is_ascii_uppercase);
    if !letters || !head[2..].iter().all(u8::is_ascii_digit) || joined_before(text, start) {
        return None;
    }
    let mut digits = Vec::with_capacity(34);
    let mut best = None;
    for at in start..end {
        if bytes[at] == b' ' {
            if bytes.get(at + 1) == Some(&b' ') {
                break;
            }
            continue;
        }
        digits.push(bytes[at]);
        if digits.len() > *LENGTHS.end() {
            break;
        }
        if LENGTHS.contains(&digits.len()) && !joined_after(text, at + 1) && mod_97(&digits) == 1 {
            best = Some(at + 1);
        }
    }
    best
}

/// The number modulo 97, its first four characters moved to the end and letters read as 10 to 35.
fn mod_97(number: &[u8]) -> u32 {
    let (head, tail) = number.split_at(4);
    tail.iter().chain(head).fold(0, |sum, byte| match byte {
        b'0'..=b'9' => (sum * 10 + u32::from(byte - b'0')) % 97,
        _ => (sum * 100 + u32::from(byte - b'A') + 10) % 97,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn accounts() {
        super::super::check(
            super::find,
            &[
                ("IBAN DE89 3704 0044 0532 0130 00 please", &["DE89 3704 0044 0532 0130 00"]),
                ("to DE89370400440532013000", &["DE89370400440532013000"]),
                ("GB82 WEST 1234 5698 7654 32 IS MINE", &["GB82 WEST 1234 5698 7654 32"]),
                ("NO9386011117947", &["NO9386011117947"]),
                ("DE89 3704 0044 0532 0130 01", &[]),
                ("XDE89370400440532013000", &[]),
                ("AB12", &[]),
            ],
        );
    }
}
