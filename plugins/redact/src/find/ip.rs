//! Internet addresses, both kinds. A version of four numbers looks like one and is taken for one.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{joined_after, joined_before, runs};

/// The addresses of a text.
pub fn find(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let first = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
    let part = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    for (start, end) in runs(text, first, part) {
        // What ends a sentence is no part of an address, and `host:port` in numbers is one with a port.
        let run = text[start..end].trim_end_matches('.');
        let run = if run.ends_with("::") { run } else { run.trim_end_matches(':') };
        let end = start + run.len();
        if joined_before(text, start) || joined_after(text, end) {
            continue;
        }
        let host = run.rsplit_once(':').map_or(run, |(host, _)| host);
        if is_v6(run) || run.parse::<Ipv4Addr>().is_ok() {
            found.push((start, end));
        } else if host.parse::<Ipv4Addr>().is_ok() {
            found.push((start, start + host.len()));
        }
    }
    found
}

/// Long enough to be somebody's: `::1` and a bare `::` are not.
fn is_v6(run: &str) -> bool {
    run.len() >= 6 && run.parse::<Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn addresses() {
        super::super::check(
            super::find,
            &[
                ("from 192.168.0.1.", &["192.168.0.1"]),
                ("10.0.0.1:8080", &["10.0.0.1"]),
                ("at 2001:db8::8a2e:370:7334, yes", &["2001:db8::8a2e:370:7334"]),
                ("[fe80::1]", &["fe80::1"]),
                ("300.1.1.1", &[]),
                ("1.2.3", &[]),
                ("1.2.3.4.5", &[]),
                ("std::fs and a::b", &[]),
                ("12:30:45", &[]),
                ("::1", &[]),
            ],
        );
    }
}
