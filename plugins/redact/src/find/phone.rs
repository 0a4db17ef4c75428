//! Telephone numbers, where they are written as such: with a `+`, with a leading zero and groups, or the American way. A bare row
//! of digits is not taken for one: most are something else.

use super::{joined_after, joined_before, runs};

/// Characters of the longest number: 15 digits, and what people put between them.
const LONGEST: usize = 32;

/// Digits of a number, at least and at most (E.164).
const LEAST: usize = 8;
const MOST: usize = 15;

/// The telephone numbers of a text.
pub fn find(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let first = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'(');
    let part = |byte: u8| byte.is_ascii_digit() || b"+()-./ ".contains(&byte);
    for (start, end) in runs(text, first, part) {
        let mut from = start;
        // A number may stand beside others; each place where one can begin is tried.
        while from < end {
            let begins = first(text.as_bytes()[from]) && !joined_before(text, from) && !text[..from].ends_with('+');
            match begins.then(|| number(text, from, end)).flatten() {
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

/// Where the longest telephone number from `start` on ends.
fn number(text: &str, start: usize, end: usize) -> Option<usize> {
    let run = &text[start..end.min(start + LONGEST)];
    if !may_begin(run) {
        return None;
    }
    let mut best = None;
    let mut digits = 0;
    for (at, c) in run.char_indices() {
        // Two blanks in a row, or a second `+`, begin something else; and a table of numbers is not searched for ever.
        if run[..at].ends_with("  ") || (c == '+' && at > 0) || digits > MOST {
            break;
        }
        if !c.is_ascii_digit() {
            continue;
        }
        digits += 1;
        if digits >= LEAST && !joined_after(text, start + at + 1) && is_phone(&run[..=at]) {
            best = Some(start + at + 1);
        }
    }
    best
}

/// Whether the first groups can be a number's: a look that dismisses most numbers of a text.
fn may_begin(run: &str) -> bool {
    let mut groups = run.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).map(str::len);
    match run.as_bytes()[0] {
        b'+' | b'(' | b'0' => true,
        b'1' => groups.next() == Some(1) && groups.next() == Some(3),
        _ => groups.next() == Some(3) && groups.next() == Some(3),
    }
}

fn is_phone(number: &str) -> bool {
    let groups: Vec<&str> = number.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).collect();
    let digits: usize = groups.iter().map(|group| group.len()).sum();
    let balanced = number.matches('(').count() == number.matches(')').count();
    if digits > MOST || !balanced || groups.len() > 7 {
        return false;
    }
    match number.as_bytes()[0] {
        b'+' => !number.starts_with("+0"),
        _ if american(number, &groups) => true,
        // Dots and a leading zero are dates more often than not.
        b'0' | b'(' => {
            let zero = groups[0].starts_with('0') && groups[0].len() <= 6;
            zero && (groups.len() > 1 || number.starts_with("00")) && digits >= 9 && !number.contains('.')
        }
        _ => false,
    }
}

/// `415-555-0100`, `(415) 555-0100`, `1 415 555 0100`.
fn american(number: &str, groups: &[&str]) -> bool {
    let groups = match groups {
        ["1", rest @ ..] if number.starts_with('1') => rest,
        groups => groups,
    };
    let area = |group: &str| group.len() == 3 && matches!(group.as_bytes()[0], b'2'..=b'9');
    matches!(groups, [a, b, c] if area(a) && area(b) && c.len() == 4) && !number.contains('/')
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers() {
        super::super::check(
            super::find,
            &[
                ("call +49 30 1234567 now", &["+49 30 1234567"]),
                ("+1 (415) 555-0100.", &["+1 (415) 555-0100"]),
                ("(415) 555-0100", &["(415) 555-0100"]),
                ("415-555-0100", &["415-555-0100"]),
                ("1-415-555-0100", &["1-415-555-0100"]),
                ("030 1234567", &["030 1234567"]),
                ("0171/12 34 567", &["0171/12 34 567"]),
                ("0049 30 1234567", &["0049 30 1234567"]),
                ("+4930123456", &["+4930123456"]),
                ("5 times 415-555-0100", &["415-555-0100"]),
                ("3 415-555-0100", &["415-555-0100"]),
                ("2024-01-15 10:30", &[]),
                ("01.02.2024 10:30", &[]),
                ("1700000000", &[]),
                ("0123456789", &[]),
                ("1 + 2 = 3", &[]),
                ("v415-555-01001", &[]),
                ("115-555-0100", &[]),
                ("+0 123 456 789", &[]),
            ],
        );
    }
}
