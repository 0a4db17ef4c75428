//! The methods of Python's strings and dictionaries that chat templates call.
//!
//! Templates are written for Jinja in Python and say `content.strip()` where Jinja alone has a filter. These are the
//! ones that published templates of the supported families use; anything else fails with the method's name.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, State, Value};

/// What minijinja calls for a method it does not know.
pub fn method(_: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let unknown = || Error::new(ErrorKind::UnknownMethod, format!("{} has no method {name}", value.kind()));
    if let Some(text) = value.as_str() {
        return string(text, name, arguments)?.ok_or_else(unknown);
    }
    if value.kind() == ValueKind::Map {
        return dictionary(value, name, arguments)?.ok_or_else(unknown);
    }
    Err(unknown())
}

fn string(text: &str, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let wrong = || Error::new(ErrorKind::InvalidOperation, format!("{name} needs a string here"));
    let argument = |at: usize| match arguments.get(at) {
        None => Ok(None),
        Some(value) if value.is_none() => Ok(None),
        Some(value) => value.as_str().map(Some).ok_or_else(wrong),
    };
    let (first, second) = (argument(0), argument(1));
    // How many times at most, by place or by name; absent or negative: always.
    let count = |at: usize, word: &str| -> Result<Option<usize>, Error> {
        let said = match arguments.get(at) {
            None => return Ok(None),
            Some(named) if named.is_kwargs() => named.get_attr(word)?,
            Some(value) => value.clone(),
        };
        if said.is_undefined() {
            return Ok(None);
        }
        let wrong = || Error::new(ErrorKind::InvalidOperation, format!("{name} needs a whole number here"));
        said.as_i64().map(|count| usize::try_from(count).ok()).ok_or_else(wrong)
    };
    // Python's argument is a set of characters; its default is white space.
    let stripped = |set: Option<&str>, letter: char| set.map_or(letter.is_whitespace(), |set| set.contains(letter));
    Ok(Some(match name {
        "strip" => first.map(|set| text.trim_matches(|letter| stripped(set, letter)).into())?,
        "lstrip" => first.map(|set| text.trim_start_matches(|letter| stripped(set, letter)).into())?,
        "rstrip" => first.map(|set| text.trim_end_matches(|letter| stripped(set, letter)).into())?,
        "startswith" => text.starts_with(first?.ok_or_else(wrong)?).into(),
        "endswith" => text.ends_with(first?.ok_or_else(wrong)?).into(),
        "replace" => {
            let (from, to) = (first?.ok_or_else(wrong)?, second?.ok_or_else(wrong)?);
            count(2, "count")?.map_or_else(|| text.replace(from, to), |most| text.replacen(from, to, most)).into()
        }
        "find" => {
            let at = text.find(first?.ok_or_else(wrong)?);
            at.map_or(-1, |at| text[..at].chars().count() as i64).into()
        }
        "split" => {
            let most = count(1, "maxsplit")?.unwrap_or(usize::MAX);
            match first? {
                None => words(text, most).into_iter().map(Value::from).collect::<Vec<_>>().into(),
                Some("") => return Err(Error::new(ErrorKind::InvalidOperation, "split at an empty separator")),
                Some(separator) => {
                    text.splitn(most.saturating_add(1), separator).map(Value::from).collect::<Vec<_>>().into()
                }
            }
        }
        "upper" => text.to_uppercase().into(),
        "lower" => text.to_lowercase().into(),
        "title" | "capitalize" => {
            let mut letters = text.chars();
            let head = letters.next().map(|letter| letter.to_uppercase().to_string()).unwrap_or_default();
            (head + &letters.as_str().to_lowercase()).into()
        }
        _ => return Ok(None),
    }))
}

/// The words of a text, and after `most` of them all the rest as it is.
fn words(text: &str, most: usize) -> Vec<&str> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start());
    while words.len() < most
        && let Some(at) = rest.find(char::is_whitespace)
    {
        words.push(&rest[..at]);
        rest = rest[at..].trim_start();
    }
    words.extend(Some(rest).filter(|rest| !rest.is_empty()));
    words
}

fn dictionary(value: &Value, name: &str, arguments: &[Value]) -> Result<Option<Value>, Error> {
    let pair = |key: Value| value.get_item(&key).map(|item| Value::from(vec![key, item]));
    Ok(Some(match name {
        "keys" => value.try_iter()?.collect::<Vec<_>>().into(),
        "values" => value.try_iter()?.map(|key| value.get_item(&key)).collect::<Result<Vec<_>, _>>()?.into(),
        "items" => value.try_iter()?.map(pair).collect::<Result<Vec<_>, _>>()?.into(),
        "get" => {
            let key = arguments.first().ok_or_else(|| Error::from(ErrorKind::MissingArgument))?;
            match value.get_item(key)? {
                found if !found.is_undefined() => found,
                _ => arguments.get(1).cloned().unwrap_or_else(|| Value::from(())),
            }
        }
        _ => return Ok(None),
    }))
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    #[test]
    fn methods_are_pythons() {
        let mut environment = Environment::new();
        environment.set_unknown_method_callback(super::method);
        let map = minijinja::Value::from_pairs([("a", 1), ("b", 2)]);
        for (source, expect) in [
            ("{{ ' x '.strip() }}|", "x|"),
            ("{{ '\\n\\nx\\n'.lstrip('\\n').rstrip('\\n') }}|", "x|"),
            ("{{ 'xxaxx'.strip('x') }}", "a"),
            ("{{ '<think>a</think>b'.split('</think>')[-1] }}", "b"),
            ("{{ ' a  b '.split() | join('+') }}", "a+b"),
            ("{{ ' a  b c '.split(none, 1) | join('+') }}|", "a+b c |"),
            ("{{ 'a,b,c'.split(',', 1) | join('+') }} {{ 'a,b,c'.split(',', -1) | join('+') }}", "a+b,c a+b+c"),
            ("{{ 'a,b,c'.split(',', maxsplit=1)[1] }} {{ 'a,b'.split(',', 0) | length }}", "b,c 1"),
            ("{{ 'aaa'.replace('a', 'b', 2) }} {{ 'aaa'.replace('a', 'b', count=1) }}", "bba baa"),
            ("{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('ab') }}", "True False"),
            ("{{ 'aba'.replace('a', 'c') }} {{ 'éab'.find('b') }} {{ 'a'.find('b') }}", "cbc 2 -1"),
            ("{{ 'user'.upper() }} {{ 'USER'.lower() }} {{ 'user'.title() }}", "USER user User"),
            ("{% for k, v in map.items() %}{{ k }}{{ v }}{% endfor %}", "a1b2"),
            ("{{ map.keys() | join }} {{ map.values() | join }}", "ab 12"),
            ("{{ map.get('a') }} {{ map.get('c', 3) }} {{ map.get('c') is none }}", "1 3 True"),
        ] {
            assert_eq!(environment.render_str(source, context! { map => map.clone() }).unwrap(), expect, "{source}");
        }
        for source in [
            "{{ 'a'.encode() }}",
            "{{ map.pop() }}",
            "{{ 'a'.startswith(1) }}",
            "{{ 'a'.split('') }}",
            "{{ 'a'.split('b', 'c') }}",
        ] {
            assert!(environment.render_str(source, context! { map => map.clone() }).is_err(), "{source}");
        }
    }
}
