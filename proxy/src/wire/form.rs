//! A form (`multipart/form-data`, RFC 7578) read for the places of its parts, so that one can be changed and all else keeps its
//! bytes.
//!
//! Readers of forms differ in what they forgive, and what one takes for content another may take for a part: then one `model`
//! would be authorised and another be used. So nothing is forgiven here. Wherever the boundary's text occurs it must be a
//! boundary; heads that can be read in two ways are refused. What clients and browsers write passes. A crate that reads forms
//! would not say where in the bytes a part is, and would have to be trusted to forgive no more than every backend.

use memchr::memmem;
use std::ops::Range;

/// A part's head is short; what is longer is none.
const HEAD: usize = 8 << 10;
/// More parts than any of these APIs has fields for.
const PARTS: usize = 1000;

/// One part of a form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The field's name.
    pub name: String,
    /// It is a file.
    pub file: bool,
    /// Its content is its value as it stands: text, not encoded once more.
    pub plain: bool,
    /// Where its content is.
    pub content: Range<usize>,
    /// All of it, from its boundary up to the next.
    pub whole: Range<usize>,
}

/// The boundary that a `Content-Type` of `multipart/form-data` names.
///
/// # Errors
/// It names none, or not one that all would read alike.
pub fn boundary(content_type: &[u8]) -> Result<String, &'static str> {
    let text = std::str::from_utf8(content_type).map_err(|_| "its Content-Type is no text")?;
    let (_, rest) = text.split_once(';').ok_or("its Content-Type names no boundary")?;
    let mut found = None;
    for (name, value) in parameters(rest)? {
        if name == "boundary" && found.replace(value).is_some() {
            return Err("its Content-Type names two boundaries");
        }
    }
    let boundary = found.ok_or("its Content-Type names no boundary")?;
    // RFC 2046 §5.1.1.
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte);
    if (1..=70).contains(&boundary.len()) && boundary.bytes().all(good) && !boundary.ends_with(' ') {
        return Ok(boundary);
    }
    Err("its boundary must be 1 to 70 letters, digits or marks")
}

/// The parts of a form, in order.
///
/// # Errors
/// Why it is no form that all would read alike.
pub fn parts(body: &[u8], boundary: &str) -> Result<Vec<Part>, &'static str> {
    let line = format!("--{boundary}");
    let mut bounds = memmem::find_iter(body, line.as_bytes()).peekable();
    let first = bounds.next().ok_or("it does not hold its boundary")?;
    if !(first == 0 || body.starts_with(b"\r\n") && first == 2) {
        return Err("it must begin with its boundary");
    }
    let (mut parts, mut start) = (Vec::new(), first);
    loop {
        let after = start + line.len();
        match body.get(after..after + 2) {
            Some(b"\r\n") => {}
            Some(b"--") => {
                let over = bounds.next().is_none() && body[after + 2..].iter().all(u8::is_ascii_whitespace);
                return if over { Ok(parts) } else { Err("something follows its last boundary") };
            }
            _ => return Err("its boundary occurs where none is"),
        }
        let next = bounds.next().ok_or("it breaks off")?;
        if !body[after + 2..next].ends_with(b"\r\n") {
            return Err("its boundary occurs where none is");
        }
        if parts.len() == PARTS {
            return Err("it has more than 1000 parts");
        }
        parts.push(part(body, start..next, after + 2..next - 2)?);
        start = next;
    }
}

/// A part, of its head and content.
fn part(body: &[u8], whole: Range<usize>, inside: Range<usize>) -> Result<Part, &'static str> {
    let text = &body[inside.clone()];
    let head = memmem::find(&text[..text.len().min(HEAD)], b"\r\n\r\n").ok_or("the head of a part has no end")?;
    let lines = std::str::from_utf8(&text[..head]).map_err(|_| "the head of a part is no text")?;
    let (mut disposition, mut plain) = (None, true);
    for line in lines.split("\r\n") {
        if line.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err("the head of a part holds a control character");
        }
        let (name, value) = line.split_once(':').ok_or("a line in the head of a part is no header")?;
        if name.is_empty() || name.bytes().any(|byte| byte.is_ascii_whitespace()) {
            return Err("a line in the head of a part is no header");
        }
        match name.to_ascii_lowercase().as_str() {
            "content-disposition" if disposition.replace(value).is_some() => {
                return Err("a part has two Content-Disposition headers");
            }
            "content-transfer-encoding" => plain &= ["7bit", "8bit", "binary"].iter().any(|word| is(value, word)),
            "content-type" => plain &= is(value.split(';').next().unwrap_or_default(), "text/plain"),
            _ => {}
        }
    }
    let disposition = disposition.ok_or("a part has no Content-Disposition")?;
    let (kind, rest) = disposition.split_once(';').ok_or("a part has no name")?;
    if !is(kind, "form-data") {
        return Err("the Content-Disposition of a part is not form-data");
    }
    let (mut name, mut file) = (None, false);
    for (key, value) in parameters(rest)? {
        match key.as_str() {
            "name" if name.replace(value).is_some() => return Err("a part has two names"),
            // RFC 7578 §4.2 has no such name; who decodes it would see another.
            "name*" => return Err("a part has a name of another encoding"),
            "filename" | "filename*" => file = true,
            _ => {}
        }
    }
    let name = name.ok_or("a part has no name")?;
    Ok(Part { name, file, plain, content: inside.start + head + 4..inside.end, whole })
}

fn is(value: &str, word: &str) -> bool {
    value.trim().eq_ignore_ascii_case(word)
}

/// `; a=b; c="d"`, names in lower case.
fn parameters(mut text: &str) -> Result<Vec<(String, String)>, &'static str> {
    const WRONG: &str = "a header of it has parameters that are none";
    let mut found = Vec::new();
    loop {
        text = text.trim_start();
        if text.is_empty() {
            return Ok(found);
        }
        let (name, rest) = text.split_once('=').ok_or(WRONG)?;
        let name = name.trim_end();
        if name.is_empty() || name.contains([';', '"', ' ', '\t']) {
            return Err(WRONG);
        }
        let rest = rest.trim_start();
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (value, rest) = quoted.split_once('"').ok_or(WRONG)?;
                // To some the quote ends here, to others it goes on.
                if value.ends_with('\\') {
                    return Err("a header of it holds an escaped quote; write `%22`");
                }
                (value, rest.trim_start())
            }
            None => {
                let (value, rest) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
                let value = value.trim_end();
                if value.contains(['"', ' ', '\t']) {
                    return Err(WRONG);
                }
                (value, rest)
            }
        };
        found.push((name.to_ascii_lowercase(), value.to_owned()));
        text = match rest.strip_prefix(';') {
            Some(rest) => rest,
            None if rest.is_empty() => "",
            None => return Err(WRONG),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(body: &str) -> Result<Vec<(String, String)>, &'static str> {
        let parts = parts(body.as_bytes(), "B")?;
        Ok(parts.into_iter().map(|part| (part.name, body[part.content].to_owned())).collect())
    }

    fn field(name: &str, content: &str) -> String {
        format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{content}\r\n")
    }

    #[test]
    fn parts_are_found_where_they_are() {
        let own = |name: &str, text: &str| (name.to_owned(), text.to_owned());
        let a = field("a", "1\r\n2");
        for (body, expect) in [
            (format!("{a}{}--B--\r\n", field("b", "")), vec![own("a", "1\r\n2"), own("b", "")]),
            (format!("\r\n{a}--B--"), vec![own("a", "1\r\n2")]),
            ("--B--".into(), vec![]),
            (format!("{}--B--", field("a", "-- B\r\n--\r\n-")), vec![own("a", "-- B\r\n--\r\n-")]),
            (
                "--B\r\ncontent-type: text/plain; charset=utf-8\r\nCONTENT-DISPOSITION: Form-Data ; NAME=a ;filename*=UTF-8''x\r\n\r\n1\r\n--B--".into(),
                vec![own("a", "1")],
            ),
        ] {
            assert_eq!(named(&body), Ok(expect), "{body}");
        }
        let text = format!("{a}{}--B--", field("b", "x"));
        let found = parts(text.as_bytes(), "B").unwrap();
        assert_eq!((&text[found[0].whole.clone()], found[1].whole.start), (a.as_str(), a.len()));
    }

    #[test]
    fn what_two_readers_would_read_differently_is_refused() {
        let head = |head: &str| format!("--B\r\n{head}\r\n\r\n1\r\n--B--");
        let disposition = |rest: &str| head(&format!("Content-Disposition: form-data; {rest}"));
        let a = field("a", "1");
        for body in [
            String::new(),
            "x".into(),
            format!("preamble\r\n{a}--B--"),
            a.clone(),
            format!("{a}--B"),
            format!("{a}--B-"),
            format!("{a}--B \r\n"),
            format!("{a}--B--\r\n{a}"),
            format!("{a}--B--x"),
            field("a", "1\n--B\nContent-Disposition: form-data; name=\"model\"\n\nx") + "--B--",
            field("a", "x--B") + "--B--",
            field("a", "1\r\n--Bx") + "--B--",
            "--B\r\n\r\n1\r\n--B--".into(),
            "--B\r\nContent-Disposition: form-data; name=\"a\"\r\n--B--".into(),
            head("Content-Disposition: attachment; name=\"a\""),
            head("Content-Disposition: form-data"),
            head("Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=model"),
            head("Content-Disposition: form-data; name=a\r\n name=model"),
            head("Content-Disposition: form-data; name=a\nX: y"),
            head("Content-Disposition : form-data; name=a"),
            disposition("name=a; name=model"),
            disposition("name=\"a\"; name*=UTF-8''model"),
            disposition("name=\"a"),
            disposition("name=\"a\" x"),
            disposition("filename=\"x\\\"; name=\"model\""),
            disposition("name"),
            disposition("=a"),
            disposition("name=a\"b"),
            disposition("name=a b"),
        ] {
            assert!(named(&body).is_err(), "{body}");
        }
    }

    #[test]
    fn boundaries() {
        for (text, expect) in [
            ("multipart/form-data; boundary=abc", Some("abc")),
            ("multipart/form-data; charset=utf-8; Boundary=\"a b'c\"", Some("a b'c")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=a; boundary=b", None),
            ("multipart/form-data; boundary=\"a\r\nb\"", None),
            ("multipart/form-data; boundary=\"a \"", None),
        ] {
            assert_eq!(boundary(text.as_bytes()).ok().as_deref(), expect, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_content_without_the_boundary_is_kept(content in "[-B\r\n a]{0,40}") {
            proptest::prop_assume!(!content.contains("--B"));
            let body = field("x", &content) + &field("model", "m") + "--B--\r\n";
            proptest::prop_assert_eq!(named(&body).unwrap(), [("x".to_owned(), content), ("model".to_owned(), "m".to_owned())]);
        }

        #[test]
        fn nothing_makes_it_panic(body in proptest::collection::vec(proptest::sample::select(b"-B\r\n:;=\"a nmeContent-Disposition: form-data; name=".to_vec()), 0..200)) {
            let _ = parts(&body, "B");
        }
    }
}
