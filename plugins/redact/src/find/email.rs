//! Mail addresses: around an `@`, what may stand there.

/// The addresses of a text.
pub fn find(text: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut from = 0;
    for (at, _) in text.match_indices('@') {
        if at < from {
            continue;
        }
        let mut start = at;
        while start > from && is_local(bytes[start - 1]) {
            start -= 1;
        }
        // `\nada@…` in text that is JSON: the letter belongs to the backslash.
        if start > 0 && bytes[start - 1] == b'\\' && start < at {
            start += 1;
        }
        while start < at && matches!(bytes[start], b'.' | b'-' | b'\'') {
            start += 1;
        }
        let mut end = at + 1;
        while end < bytes.len() && (bytes[end].is_ascii_alphanumeric() || matches!(bytes[end], b'-' | b'.')) {
            end += 1;
        }
        while end > at && matches!(bytes[end - 1], b'.' | b'-') {
            end -= 1;
        }
        let domain = &text[(at + 1).min(end)..end];
        if start < at && is_domain(domain) {
            found.push((start, end));
            from = end;
        }
    }
    found
}

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b".!#$%&'*+/=?^_`{|}~-".contains(&byte)
}

fn is_domain(domain: &str) -> bool {
    let Some((rest, last)) = domain.rsplit_once('.') else { return false };
    let top = last.len() >= 2 && last.bytes().all(|byte| byte.is_ascii_alphabetic());
    (top || last.starts_with("xn--")) && rest.split('.').all(|label| !label.is_empty() && !label.starts_with('-'))
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses() {
        super::super::check(
            super::find,
            &[
                ("mail ada@example.org.", &["ada@example.org"]),
                ("<ada.l+x@mail.example.co.uk>", &["ada.l+x@mail.example.co.uk"]),
                ("a@b.de,c@d.fr", &["a@b.de", "c@d.fr"]),
                ("请联系ada@example.org谢谢", &["ada@example.org"]),
                (r"line\nada@example.org", &["ada@example.org"]),
                ("ada@localhost", &[]),
                ("@decorator", &[]),
                ("a @ b.de", &[]),
                ("ada@example.1", &[]),
                ("ada@.de", &[]),
                ("a@@b.de", &[]),
                ("'ada@example.org'", &["ada@example.org"]),
            ],
        );
    }
}
