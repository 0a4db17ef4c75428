//! Payment cards: 13 to 19 digits, in groups or not, that pass Luhn's check and begin as issuers' numbers do.

use super::{joined_after, joined_before, runs};

/// The card numbers of a text.
pub fn find(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let part = |byte: u8| byte.is_ascii_digit() || matches!(byte, b' ' | b'-');
    for (start, end) in runs(text, |byte| byte.is_ascii_digit(), part) {
        let end = start + text[start..end].trim_end_matches([' ', '-']).len();
        // A number may stand beside others (`12 4111 …`): try from the beginning of each group, the longest first.
        let mut from = start;
        while from < end {
            match card(text, from, end) {
                Some(last) => {
                    found.push((from, last));
                    from = last;
                }
                None => from += text[from..end].find([' ', '-']).unwrap_or(end - from),
            }
            from += text[from..end].find(|c: char| c.is_ascii_digit()).unwrap_or(end - from);
        }
    }
    found
}

/// Where the longest card number from `start` on ends.
fn card(text: &str, start: usize, end: usize) -> Option<usize> {
    if joined_before(text, start) || !matches!(text.as_bytes()[start], b'2'..=b'6') {
        return None;
    }
    let mut digits = Vec::with_capacity(19);
    let mut best = None;
    let mut gap = false;
    for (at, byte) in text.bytes().enumerate().take(end).skip(start) {
        if !byte.is_ascii_digit() {
            if gap {
                break; // two separators in a row are no grouping
            }
            gap = true;
            continue;
        }
        gap = false;
        digits.push(byte - b'0');
        if digits.len() > 19 {
            break;
        }
        if digits.len() >= 13 && !joined_after(text, at + 1) && luhn(&digits) {
            best = Some(at + 1);
        }
    }
    best
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let digit = u32::from(*digit);
            if at % 2 == 0 { digit } else { digit * 2 / 10 + digit * 2 % 10 }
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cards() {
        super::super::check(
            super::find,
            &[
                ("pay 4111 1111 1111 1111 now", &["4111 1111 1111 1111"]),
                ("4111111111111111", &["4111111111111111"]),
                ("5500-0000-0000-0004", &["5500-0000-0000-0004"]),
                ("amex 378282246310005.", &["378282246310005"]),
                ("12 4111 1111 1111 1111", &["4111 1111 1111 1111"]),
                ("4111 1111 1111 1111 12/29", &["4111 1111 1111 1111"]),
                ("4111 1111 1111 1112", &[]),
                ("411111111111", &[]),
                ("x4111111111111111", &[]),
                ("41111111111111111111111", &[]),
                ("4111  1111  1111  1111", &[]),
                ("1700000000000000", &[]),
            ],
        );
    }
}
