//! The engine's pieces as canonical events.

use super::Local;
use crate::backend::local::{End, Piece, Refusal};
use crate::canon::{Delta, Event, Fault, FaultKind, Part, StopReason, Usage};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The engine's pieces as canonical events. Dropping the receiver ends the job: nobody listens.
pub(super) async fn translate(mut pieces: mpsc::Receiver<Piece>, events: mpsc::Sender<Event>, local: Arc<Local>) {
    let _busy = local.busy();
    let mut answer = Writing { seed: fastrand::u64(..), open: false, calls: 0 };
    let mut ended = false;
    while !ended {
        let piece = tokio::select! {
            piece = pieces.recv() => piece,
            () = events.closed() => break,
        };
        let mut out = Vec::new();
        ended = answer.write(piece, &mut out);
        for event in out {
            if events.send(event).await.is_err() {
                ended = true;
            }
        }
    }
}

/// An answer on its way into events.
struct Writing {
    /// Makes the ids of calls unlike those of other answers.
    seed: u64,
    /// A text part is open.
    open: bool,
    calls: usize,
}

impl Writing {
    /// Writes a piece, and says whether it was the last.
    fn write(&mut self, piece: Option<Piece>, out: &mut Vec<Event>) -> bool {
        match piece {
            Some(Piece::Start { prompt_tokens }) => {
                out.push(Event::Start { id: None, model: None });
                out.push(Event::Usage(Usage { input: Some(prompt_tokens as u64), ..Usage::default() }));
            }
            Some(Piece::Text(text)) => {
                if !std::mem::replace(&mut self.open, true) {
                    out.push(Event::Open(Part::Text));
                }
                out.push(Event::Delta(Delta::Text(text)));
            }
            Some(Piece::Call(call)) => {
                self.close(out);
                let id = format!("call_{:016x}{}", self.seed, self.calls);
                self.calls += 1;
                out.push(Event::Open(Part::ToolCall { id, name: call.name }));
                out.push(Event::Delta(Delta::Arguments(call.arguments)));
                out.push(Event::Close);
            }
            Some(Piece::Token { completion_tokens }) => {
                out.push(Event::Usage(Usage { output: Some(completion_tokens as u64), ..Usage::default() }));
            }
            Some(Piece::End { reason, prompt_tokens, cached_tokens, completion_tokens }) => {
                self.close(out);
                out.push(Event::Usage(Usage {
                    input: Some(prompt_tokens as u64),
                    cache_read: Some(cached_tokens as u64),
                    output: Some(completion_tokens as u64),
                    ..Usage::default()
                }));
                out.push(Event::Stop(match reason {
                    End::Stop if self.calls > 0 => StopReason::ToolUse,
                    End::Stop => StopReason::EndTurn,
                    End::StopSequence(text) => StopReason::StopSequence(Some(text)),
                    End::Length => StopReason::MaxTokens,
                }));
                return true;
            }
            Some(Piece::Refused(refusal)) => {
                out.push(Event::Fault(refused(refusal)));
                return true;
            }
            Some(Piece::Failed(message)) => {
                out.push(Event::Fault(Fault::new(FaultKind::BackendError, message)));
                return true;
            }
            None => {
                let message = "The model stopped in the middle of its answer.";
                out.push(Event::Fault(Fault::new(FaultKind::BackendError, message)));
                return true;
            }
        }
        false
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        if std::mem::take(&mut self.open) {
            out.push(Event::Close);
        }
    }
}

/// The model will not do what was asked.
pub(super) fn refused(Refusal { place, message }: Refusal) -> Fault {
    Fault { param: place.map(Into::into), ..Fault::invalid(message) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::local::ToolCall;
    use crate::canon::event::Grammar;

    #[test]
    fn each_token_is_told_with_what_is_said_or_without() {
        let call = ToolCall { name: "f".into(), arguments: "{}".into() };
        let end = Piece::End { reason: End::Stop, prompt_tokens: 9, cached_tokens: 0, completion_tokens: 4 };
        let token = |completion_tokens| Piece::Token { completion_tokens };
        let (mut answer, mut events) = (Writing { seed: 0, open: false, calls: 0 }, Vec::new());
        let said = [Piece::Text("Hi".into()), token(1), token(2), token(3), Piece::Call(call), end];
        for piece in [Piece::Start { prompt_tokens: 9 }].into_iter().chain(said) {
            answer.write(Some(piece), &mut events);
        }
        Grammar::check(&events).unwrap();
        // Start and its count; a part of text, a piece of it and three tokens; its end, a call of three events, the last count and
        // the end.
        let told: Vec<bool> = events.iter().map(Event::tells_of_output).collect();
        let [t, f] = [true, false];
        assert_eq!(told, [f, f, f, t, t, t, t, f, f, t, f, t, f], "{events:?}");
    }
}
