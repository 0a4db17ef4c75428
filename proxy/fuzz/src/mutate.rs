//! Mutations that keep JSON whole: bytes flipped at random seldom get past the first brace.
//!
//! Half of the mutations are libFuzzer's own. The others change a tree: a value is exchanged, copied to another place, given a
//! member of another name, or taken out; in a stream that is done to one line, or lines are lost, doubled and swapped. The names
//! come from the dialects' own sources (`FUZZ_WORDS`, one a line, written by run.py).

use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// One mutation of `data[..size]` in place; the new size. `lines`: a stream of JSON texts instead of one.
pub fn mutate(data: &mut [u8], size: usize, most: usize, seed: u32, lines: bool) -> usize {
    let mut dice = Dice(u64::from(seed) << 8 | 1);
    let made = match dice.below(2) {
        0 => None,
        _ if lines => mutate_lines(&data[..size], &mut dice),
        _ => mutate_text(&data[..size], &mut dice),
    };
    match made.filter(|made| made.len() <= most.min(data.len())) {
        Some(made) => {
            data[..made.len()].copy_from_slice(&made);
            made.len()
        }
        None => libfuzzer_sys::fuzzer_mutate(data, size, most),
    }
}

fn mutate_lines(data: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = data.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let (a, b) = (dice.below(lines.len()), dice.below(lines.len()));
    match dice.below(8) {
        0 => drop(lines.get(a).is_some().then(|| lines.remove(a))),
        1 => lines.insert(b.min(lines.len()), lines.get(a)?.clone()),
        2 if !lines.is_empty() => lines.swap(a, b),
        _ => {
            // The line, or the next one that holds an object.
            let at = (a..lines.len()).find(|at| lines[*at].contains(&b'{'))?;
            let start = lines[at].iter().position(|byte| *byte == b'{')?;
            let made = mutate_text(lines[at][start..].trim_ascii_end(), dice)?;
            lines[at].truncate(start);
            lines[at].extend_from_slice(&made);
            lines[at].push(b'\n');
        }
    }
    Some(lines.concat())
}

fn mutate_text(text: &[u8], dice: &mut Dice) -> Option<Vec<u8>> {
    let mut tree: Value = serde_json::from_slice(text).ok()?;
    for _ in 0..=dice.below(3) {
        let nodes = count(&tree);
        let (a, b) = (dice.below(nodes), dice.below(nodes));
        let other = node(&mut tree, &mut { b })?.clone();
        let place = node(&mut tree, &mut { a })?;
        match (dice.below(6), place) {
            (0, place) => *place = other,
            (1, place) => *place = scalar(dice),
            (2, Value::Array(list)) if !list.is_empty() => drop(list.remove(dice.below(list.len()))),
            (3, Value::Array(list)) => list.push(other),
            (2, Value::Object(members)) if !members.is_empty() => {
                let key = members.keys().nth(dice.below(members.len()))?.clone();
                members.shift_remove(&key);
            }
            (3..=4, Value::Object(members)) => {
                drop(members.insert(dice.word(), if dice.below(2) == 0 { other } else { scalar(dice) }))
            }
            (_, Value::String(text)) => *text = dice.word(),
            (_, place) => *place = scalar(dice),
        }
    }
    let made = serde_json::to_vec(&tree).ok()?;
    (made.len() < 1 << 16).then_some(made)
}

fn scalar(dice: &mut Dice) -> Value {
    match dice.below(16) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(0),
        4 => json!(-1),
        5 => json!(1),
        6 => json!(0.5),
        7 => json!(u64::MAX),
        8 => json!(1e300),
        9 => json!(""),
        10 => json!([]),
        11 => json!({}),
        12 => json!("a\n\u{2028}\"\\é🌊data: x\r\n"),
        13 => json!("{\"a\":[1,{}]}"),
        14 => json!(dice.below(100)),
        _ => json!(dice.word()),
    }
}

fn count(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// The node of this number, the root being 0.
fn node<'t>(tree: &'t mut Value, at: &mut usize) -> Option<&'t mut Value> {
    if *at == 0 {
        return Some(tree);
    }
    *at -= 1;
    let step = |at: &mut usize, value: &'t mut Value| {
        let nodes = count(value);
        if *at < nodes {
            node(value, at)
        } else {
            *at -= nodes;
            None
        }
    };
    match tree {
        Value::Array(list) => list.iter_mut().find_map(|value| step(at, value)),
        Value::Object(members) => Map::iter_mut(members).find_map(|(_, value)| step(at, value)),
        _ => None,
    }
}

struct Dice(u64);

impl Dice {
    /// A number below `end`; 0 where there is none.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }

    fn word(&mut self) -> String {
        static WORDS: OnceLock<Vec<String>> = OnceLock::new();
        let words = WORDS.get_or_init(|| {
            let path = std::env::var("FUZZ_WORDS").unwrap_or_default();
            std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
        });
        words.get(self.below(words.len())).cloned().unwrap_or_else(|| "x".into())
    }
}
