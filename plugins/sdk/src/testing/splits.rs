//! All the ways a reply can arrive that a plugin must not tell apart.

use crate::{Delta, Event};

/// The reply as one batch, as a batch for each character, in batches of a few characters, and cut in two at every place.
pub fn splits(events: &[Event]) -> Vec<Vec<Vec<Event>>> {
    let atoms: Vec<Event> = events.iter().flat_map(atoms).collect();
    let mut ways = vec![vec![join(&atoms)]];
    for size in [1, 2, 3, 7] {
        ways.push(atoms.chunks(size).map(join).collect());
    }
    ways.extend((1..atoms.len()).map(|at| vec![join(&atoms[..at]), join(&atoms[at..])]));
    ways
}

/// An event of one character each.
fn atoms(event: &Event) -> Vec<Event> {
    let each = |text: &str, make: fn(String) -> Delta| text.chars().map(|c| Event::Delta(make(c.into()))).collect();
    match event {
        Event::Delta(Delta::Text(text)) => each(text, Delta::Text),
        Event::Delta(Delta::Thinking(text)) => each(text, Delta::Thinking),
        Event::Delta(Delta::Arguments(text)) => each(text, Delta::Arguments),
        other => vec![other.clone()],
    }
}

/// Neighbouring deltas of one kind come as one, as the host promises.
fn join(atoms: &[Event]) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for atom in atoms {
        match (events.last_mut(), atom) {
            (Some(Event::Delta(Delta::Text(text))), Event::Delta(Delta::Text(more)))
            | (Some(Event::Delta(Delta::Thinking(text))), Event::Delta(Delta::Thinking(more)))
            | (Some(Event::Delta(Delta::Arguments(text))), Event::Delta(Delta::Arguments(more))) => text.push_str(more),
            _ => events.push(atom.clone()),
        }
    }
    events
}
