//! On which line of a YAML file something stands. The reader of YAML does not say; but files that people write have a key a
//! line, and their indentation tells what is in what. Where it does not (flow style, aliases), the line is that of the nearest
//! thing around.

use super::section::Step;

/// What begins on a line, or behind the dash of an item.
struct Entry<'a> {
    line: usize,
    indent: usize,
    what: What<'a>,
}

#[derive(PartialEq, Eq)]
enum What<'a> {
    Item,
    Key(&'a str),
    Other,
}

/// The line, from 1, of what stands there, or of the nearest thing around it.
pub(super) fn line(text: &str, place: &[Step]) -> usize {
    let entries = entries(text);
    let mut inside: &[Entry] = &entries;
    let mut line = 1;
    for step in place {
        let Some(indent) = inside.first().map(|entry| entry.indent) else { break };
        let is_next = |entry: &Entry| match step {
            // A list may stand at the indentation of its key.
            Step::Key(_) => entry.indent < indent || entry.indent == indent && entry.what != What::Item,
            Step::Item(_) => entry.indent <= indent,
        };
        let found = match step {
            Step::Key(key) => inside.iter().position(|entry| entry.indent == indent && entry.what == What::Key(key)),
            Step::Item(at) => {
                let is_item = |(_, entry): &(usize, &Entry)| entry.indent == indent && entry.what == What::Item;
                inside.iter().enumerate().filter(is_item).nth(*at).map(|(found, _)| found)
            }
        };
        let Some(found) = found else { break };
        line = inside[found].line;
        inside = &inside[found + 1..];
        let end = inside.iter().position(is_next).unwrap_or(inside.len());
        inside = &inside[..end];
    }
    line
}

fn entries(text: &str) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    for (line, text) in text.lines().enumerate() {
        let mut rest = text.trim_start_matches(' ');
        let mut indent = text.len() - rest.len();
        let mut add = |indent, what| entries.push(Entry { line: line + 1, indent, what });
        if rest.starts_with('#') || rest.starts_with("---") {
            continue;
        }
        while let Some(inner) = rest.strip_prefix('-').filter(|inner| inner.is_empty() || inner.starts_with(' ')) {
            add(indent, What::Item);
            let inner = inner.trim_start_matches(' ');
            indent += rest.len() - inner.len();
            rest = inner;
        }
        if !rest.trim_end().is_empty() {
            add(indent, key(rest).map_or(What::Other, What::Key));
        }
    }
    entries
}

/// The key that this begins with.
fn key(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|letter| matches!(letter, '"' | '\''));
    if let Some(quote) = quote {
        let (key, rest) = text[1..].split_once(quote)?;
        return rest.trim_start().starts_with(':').then_some(key);
    }
    let end = text.find(": ").or_else(|| text.trim_end().strip_suffix(':').map(str::len))?;
    Some(text[..end].trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_by_indentation() {
        let text = "# a: 1\n---\nlist:\n  - name: x\n    inner:\n      \"a:b\": 1\n\n  -\n    name: y\n    text: |\n      name: z\n  - [1]\n\
                    flat:\n- name: x\n- name: y\n  inner: {a: 1}\nlast: 1\n";
        let (key, item) = (|key: &str| Step::Key(key.into()), Step::Item);
        for (place, expect) in [
            (vec![key("list")], 3),
            (vec![key("list"), item(0), key("name")], 4),
            (vec![key("list"), item(0), key("inner"), key("a:b")], 6),
            (vec![key("list"), item(1)], 8),
            (vec![key("list"), item(1), key("name")], 9),
            (vec![key("list"), item(2), item(0)], 12),
            (vec![key("list"), item(7)], 3),
            (vec![key("flat"), item(1), key("name")], 15),
            (vec![key("flat"), item(1), key("inner"), key("a")], 16),
            (vec![key("last")], 17),
            (vec![key("nowhere")], 1),
        ] {
            assert_eq!(line(text, &place), expect, "{place:?}");
        }
    }
}
