//! One stream asked of two targets, because the first is slow to begin: whoever begins first has it, the other is left.
//!
//! The second is a further try like any other: it comes out of `retries` and of its backend's budget, so that slowness of all
//! targets at once does not double their load.

use super::ask::{Answer, ask};
use super::pick::Candidate;
use super::tries::{Step, Tries, Which};
use super::verdict::Verdict;
use crate::canon::Hedge;
use crate::wire::Target;
use crate::wire::request::Request;
use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::time::{Duration, Instant};

/// Asks the target that is to be tried, and another one if it has not begun when most would have. Says which of them answered.
pub(super) async fn race<'a>(
    tries: &mut Tries<'a>,
    first: (Candidate<'a>, &Target),
    request: &Request,
    hedge: &Hedge,
    note: &mut dyn FnMut(Step<'_>),
) -> (Candidate<'a>, Answer) {
    let (origin, began, note) = (tries.origin(), Instant::now(), RefCell::new(note));
    let handed = (Cell::new(false), Cell::new(false));
    let hand = |handed: &Cell<bool>| {
        handed.set(true);
        (note.borrow_mut())(Step::Handed);
    };
    let mut one = pin!(ask(first.0, request, first.1, origin, || hand(&handed.0)));
    let in_time = tokio::time::timeout(hedge.after().unwrap_or(Duration::MAX), &mut one).await;
    let beside = if in_time.is_err() { tries.beside(&mut **note.borrow_mut()) } else { None };
    let Some((second, target)) = beside else {
        let answer = match in_time {
            Ok(answer) => answer,
            Err(_) => one.await,
        };
        if answer.is_ok() {
            hedge.saw(began.elapsed());
        }
        return (first.0, answer);
    };
    if handed.0.get() {
        // Said of the first; the books have begun anew with the second.
        (note.borrow_mut())(Step::Handed);
    }
    let second_began = Instant::now();
    let mut two = pin!(ask(second, request, &target, origin, || hand(&handed.1)));
    let (ones, twos) = ((first.0, &handed.0), (second, &handed.1));
    let (which, answer) = tokio::select! {
        answer = &mut one => match answer {
            Err(verdict) if !verdict.is_final() => {
                drops_out(tries, ones, Some(verdict), twos, &mut **note.borrow_mut());
                (Which::Second, two.await)
            }
            answer => {
                drops_out(tries, twos, None, ones, &mut **note.borrow_mut());
                (Which::First, answer)
            }
        },
        answer = &mut two => match answer {
            Err(verdict) if !verdict.is_final() => {
                drops_out(tries, twos, Some(verdict), ones, &mut **note.borrow_mut());
                (Which::First, one.await)
            }
            answer => {
                drops_out(tries, ones, None, twos, &mut **note.borrow_mut());
                (Which::Second, answer)
            }
        },
    };
    if answer.is_ok() {
        // Where the second was faster, all that is known of the first is that it took longer.
        hedge.saw(began.elapsed());
    }
    let (winner, since) = match which {
        Which::First => (first.0, began),
        Which::Second => (second, second_began),
    };
    tries.won(since, which, answer.is_ok());
    (winner, answer)
}

/// One of the two, by its verdict or because the other has answered: the books go on with the other. Each with whether it has
/// the request.
fn drops_out<'a>(
    tries: &mut Tries<'a>,
    (one, handed): (Candidate<'a>, &Cell<bool>),
    verdict: Option<Verdict>,
    other: (Candidate<'a>, &Cell<bool>),
    note: &mut dyn FnMut(Step<'_>),
) {
    tries.turn_to(one, handed.get(), note);
    match verdict {
        Some(verdict) => drop(tries.failed(one, verdict, note)),
        None => note(Step::Over { worked: true }),
    }
    tries.turn_to(other.0, other.1.get(), note);
}
