//! Ids of tool calls as Anthropic takes them: of its own letters, and each call's its own in the whole conversation.
//!
//! Others take what it refuses: dots and colons (`functions.f:0`), a function's name instead of an id, `call_0` anew in each
//! turn. So calls change, and results alike: one answers the first call of its id, in the turn before it, that has none yet.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

/// Those of one conversation, in its order.
#[derive(Default)]
pub(super) struct Ids<'c> {
    /// Those that are taken, each with how often it was wanted.
    taken: HashMap<String, usize>,
    /// By the id they came with.
    calls: HashMap<&'c str, Calls>,
    /// The model's turns that call, so far.
    turn: usize,
}

/// The calls that came with one id.
#[derive(Default)]
struct Calls {
    /// The last turn that has one.
    turn: usize,
    /// What those of that turn are called now that have no result yet.
    open: VecDeque<String>,
    /// The same of the last one.
    last: String,
}

impl<'c> Ids<'c> {
    /// The id of a call that came with this one. `first`: it is its turn's first.
    pub fn call(&mut self, came: &'c str, first: bool) -> String {
        self.turn += usize::from(first);
        let plain = plain(came);
        let mut wanted = self.taken.get(&*plain).copied().unwrap_or(0);
        let id = loop {
            wanted += 1;
            let id = if wanted == 1 { plain.to_string() } else { format!("{plain}_{wanted}") };
            if !self.taken.contains_key(&id) {
                break id;
            }
        };
        self.taken.insert(plain.into_owned(), wanted);
        self.taken.entry(id.clone()).or_insert(1);
        let calls = self.calls.entry(came).or_default();
        if calls.turn < self.turn {
            calls.turn = self.turn;
            calls.open.clear();
        }
        calls.open.push_back(id.clone());
        calls.last.clone_from(&id);
        id
    }

    /// The id of the call that a result with this one answers.
    pub fn result(&mut self, came: &str) -> String {
        let Some(calls) = self.calls.get_mut(came) else { return plain(came).into_owned() };
        let open = if calls.turn == self.turn { calls.open.pop_front() } else { None };
        open.unwrap_or_else(|| calls.last.clone())
    }
}

/// An id in letters that Anthropic takes.
fn plain(id: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if id.is_empty() {
        "_".into()
    } else if id.chars().all(plain) {
        id.into()
    } else {
        id.chars().map(|c| if plain(c) { c } else { '_' }).collect::<String>().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Turns, each as its calls and the results behind: the ids they come with, and those they go out with.
    #[test]
    fn calls_have_ids_of_their_own_and_results_follow_them() {
        type Turn = (&'static [&'static str], &'static [&'static str]);
        let cases: &[(&[Turn], &str)] = &[
            (&[(&["a", "b"], &["b", "a"])], "a b | b a"),
            // The same in two turns, and answered once only.
            (&[(&["call_0"], &["call_0"]), (&["call_0"], &["call_0"])], "call_0 | call_0; call_0_2 | call_0_2"),
            (&[(&["f"], &[]), (&["f"], &["f"])], "f | ; f_2 | f_2"),
            // In one turn: in order, and a result too many is the last one's.
            (&[(&["f", "g", "f"], &["f", "f", "g", "f"])], "f g f_2 | f f_2 g f_2"),
            // Different ids that come to be alike.
            (&[(&["a.b", "a:b", ""], &["a:b", "a.b", ""]), (&[""], &[""])], "a_b a_b_2 _ | a_b_2 a_b _; __2 | __2"),
            // A number that another one has already, or wants later.
            (&[(&["f", "f_2", "f", "f_3"], &["f", "f", "f_3"])], "f f_2 f_3 f_3_2 | f f_3 f_3_2"),
            // Of an earlier turn, and of none.
            (&[(&["a"], &[]), (&["b"], &["a", "x.y"])], "a | ; b | a x_y"),
        ];
        for (turns, expect) in cases {
            let mut ids = Ids::default();
            let said: Vec<_> = turns
                .iter()
                .map(|(calls, results)| {
                    let calls: Vec<_> = calls.iter().enumerate().map(|(at, id)| ids.call(id, at == 0)).collect();
                    let results: Vec<_> = results.iter().map(|id| ids.result(id)).collect();
                    format!("{} | {}", calls.join(" "), results.join(" "))
                })
                .collect();
            assert_eq!(said.join("; "), *expect);
        }
    }
}
