//! Writing JSON by hand, where serde would look at every byte for what cannot be there.

use super::scan::plain;
use bytes::BufMut;

/// Writes `text` as a JSON string, quotes included.
pub fn write_str(out: &mut impl BufMut, text: &str) {
    out.put_u8(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (run, more) = rest.split_at(plain(rest));
        out.put_slice(run);
        let Some((byte, more)) = more.split_first() else { break };
        rest = more;
        match byte {
            b'"' => out.put_slice(b"\\\""),
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            8 => out.put_slice(b"\\b"),
            12 => out.put_slice(b"\\f"),
            control => {
                let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
                out.put_slice(&[b'\\', b'u', b'0', b'0', digit(control >> 4), digit(control & 15)]);
            }
        }
    }
    out.put_u8(b'"');
}

/// Writes a whole number.
pub fn write_int(out: &mut impl BufMut, number: impl itoa::Integer) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Writes a finite number. Milliseconds to the microsecond, which is what the books are full of, take the short way: at most
/// three decimals, which read back as the same number.
pub fn write_f64(out: &mut impl BufMut, number: f64) {
    let thousandths = number * 1e3;
    let short = (0.0..9e15).contains(&thousandths) && thousandths.round() / 1e3 == number;
    if !short {
        // Writing to memory cannot fail.
        let _ = serde_json::to_writer(BufMut::writer(out), &number);
        return;
    }
    let thousandths = thousandths.round() as u64;
    write_int(out, thousandths / 1000);
    let rest = thousandths % 1000;
    let digits = [b'.', b'0' + (rest / 100) as u8, b'0' + (rest / 10 % 10) as u8, b'0' + (rest % 10) as u8];
    let end = digits[1..].iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 2);
    out.put_slice(&digits[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_written_as_serde_json_writes_them() {
        let controls: String = (0..0x20_u8).map(char::from).collect();
        for text in ["", "plain é\u{2028}\u{7f}", "a\"b", "a\\b", "a\nb\u{1}", &format!("🌊{controls}\"")] {
            let mut out = Vec::new();
            write_str(&mut out, text);
            assert_eq!(String::from_utf8(out).unwrap(), serde_json::to_string(text).unwrap());
        }
    }

    #[test]
    fn numbers_read_back_as_they_were() {
        let text = |number| {
            let mut out = Vec::new();
            write_f64(&mut out, number);
            String::from_utf8(out).unwrap()
        };
        for (number, expect) in [
            (0.0, "0"),
            (0.1, "0.1"),
            (12.05, "12.05"),
            (7.0, "7"),
            (100.25, "100.25"),
            (0.001, "0.001"),
            (12345.678, "12345.678"),
            (6.9e-6, "6.9e-6"),
            (-1.5, "-1.5"),
        ] {
            assert_eq!(text(number), expect);
            assert_eq!(expect.parse::<f64>().unwrap(), number);
        }
        for micros in (0..40_000_000_u64).step_by(997) {
            let number = micros as f64 / 1e3;
            assert_eq!(text(number).parse::<f64>().unwrap(), number);
        }
    }
}
