//! JSON text, edited where it stands.
//!
//! Arguments of tool calls are JSON text "with every digit the model wrote". Parsing and printing them would lose digits,
//! order and spacing; so strings are found by their quotes, read, offered, and only the changed ones written anew.

/// Offers every string of a JSON text, keys included, to `change`, and answers the text with the changed ones in place;
/// `None` if none was. Text that is no JSON is walked as far as its quotes make sense.
pub fn edit_strings(text: &str, mut change: impl FnMut(&str) -> Option<String>) -> Option<String> {
    let mut out = String::new();
    let mut kept = 0;
    let mut at = 0;
    while let Some(open) = text[at..].find('"').map(|found| at + found) {
        let Some(end) = string_end(text, open) else { break };
        if let Ok(value) = serde_json::from_str::<String>(&text[open..end])
            && let Some(changed) = change(&value)
        {
            out.push_str(&text[kept..open]);
            out.push('"');
            out.push_str(&escape(&changed));
            out.push('"');
            kept = end;
        }
        at = end;
    }
    (kept > 0).then(|| {
        out.push_str(&text[kept..]);
        out
    })
}

/// Text as it stands between the quotes of a JSON string.
pub fn escape(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The place after the quote that closes the string opened at `open`.
fn string_end(text: &str, open: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_edited_in_place() {
        let cases = [
            (r#"{"a": 1.50, "b": "x"}"#, Some(r#"{"a": 1.50, "b": "[x]"}"#)),
            (r#"["x", {"x":"\"x\""}]"#, Some(r#"["[x]", {"[x]":"[\"x\"]"}]"#)),
            (r#"{"n": "a\nx"}"#, Some(r#"{"n": "[a\nx]"}"#)),
            (r#"{"a":"b"}"#, None),
            ("", None),
            (r#"{"open": "x"#, None),
            (r#"{"e": "\u0078"}"#, Some(r#"{"e": "[x]"}"#)),
        ];
        for (text, expect) in cases {
            let changed = edit_strings(text, |value| value.contains('x').then(|| format!("[{value}]")));
            assert_eq!(changed.as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn escaping_is_what_json_reads_back() {
        for text in ["plain", "a\"b", "back\\slash", "line\nfeed", "tab\t", "é", "\u{1}"] {
            let quoted = format!("\"{}\"", escape(text));
            assert_eq!(serde_json::from_str::<String>(&quoted).ok().as_deref(), Some(text));
        }
    }
}
