//! A string's text, where it holds escapes: prompts do in every line.

use super::scan::plain;

/// The text between the quotes of a string. `None`: it is none, or its surrogates stand alone.
pub(super) fn unescape(inner: &[u8]) -> Option<String> {
    let (mut out, mut rest) = (Vec::with_capacity(inner.len()), inner);
    loop {
        let (run, more) = rest.split_at(plain(rest));
        out.extend_from_slice(run);
        let Some((first, more)) = more.split_first() else { break };
        if *first != b'\\' {
            return None;
        }
        let (escape, more) = more.split_first()?;
        rest = more;
        out.push(match escape {
            b'"' | b'\\' | b'/' => *escape,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 8,
            b'f' => 12,
            b'u' => {
                let letter = letter(&mut rest)?;
                out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            _ => return None,
        });
    }
    String::from_utf8(out).ok()
}

/// What stands behind `\u`, both halves of it.
fn letter(rest: &mut &[u8]) -> Option<char> {
    let first = unit(rest)?;
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first);
    }
    *rest = rest.strip_prefix(b"\\u")?;
    let second = unit(rest)?.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second)
}

fn unit(rest: &mut &[u8]) -> Option<u32> {
    let (digits, more) = rest.split_first_chunk::<4>()?;
    *rest = more;
    digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agrees(inner: &str) {
        let expect = serde_json::from_str::<String>(&format!("\"{inner}\"")).ok();
        assert_eq!(unescape(inner.as_bytes()), expect, "{inner}");
    }

    #[test]
    fn texts_are_what_serde_json_reads_in_them() {
        for inner in [
            "",
            "é\u{2028}🌊",
            r#"a\"b\\c\/d\n\r\t\b\f"#,
            r"\u00e9\u2028\ud83c\udf0a",
            r"\ud83c",
            r"\ud83cx",
            r"\ud83c\n",
            r"\ud83c\ud83c",
            r"\udf0a",
            r"\u00",
            r"\u00g0",
            r"\u+123",
            r"\x",
            "\\",
            "a\nb",
        ] {
            agrees(inner);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_escapes_are(inner in r#"([a-zé🌊 ]{0,20}|\\["\\/bfnrtux]|\\u(d8|dc|00|20)[0-9a-f]{2}){0,12}"#) {
            agrees(&inner);
        }
    }
}
