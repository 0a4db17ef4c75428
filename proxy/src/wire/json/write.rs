//! Writing JSON by hand, where serde would look at every byte for what cannot be there.

use bytes::BufMut;

/// Writes `text` as a JSON string, quotes included.
pub fn write_str(out: &mut impl BufMut, text: &str) {
    let plain = !text.bytes().fold(false, |found, byte| found | (byte < 0x20) | (byte == b'"') | (byte == b'\\'));
    if plain {
        out.put_u8(b'"');
        out.put_slice(text.as_bytes());
        out.put_u8(b'"');
        return;
    }
    // Writing to memory cannot fail, and a string has no shape that serde_json refuses.
    let _ = serde_json::to_writer(BufMut::writer(out), text);
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
        for text in ["", "plain é\u{2028}\u{7f}", "a\"b", "a\\b", "a\nb\u{1}"] {
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
