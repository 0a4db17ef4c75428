//! One answer on its way: what was computed of it, what was said, and what its reader has not taken yet.

use super::sampler::Sampler;
use super::text::{Said, Text};
use super::vocabulary::Vocabulary;
use super::{End, Piece};
use std::collections::VecDeque;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

/// A running or waiting sequence.
pub struct Sequence {
    outlet: Sender<Piece>,
    /// Pieces the reader had no room for; while there are any, the sequence pauses.
    outbox: VecDeque<Piece>,
    /// The prompt, then what was generated: all that has a position.
    tokens: Vec<u32>,
    prompt: usize,
    /// Positions already in the cache.
    computed: usize,
    /// Tokens that may be generated.
    limit: usize,
    sampler: Sampler,
    text: Text,
    finished: bool,
}

impl Sequence {
    /// A sequence whose `tokens` are its prompt, allowed to generate `limit` tokens.
    pub fn new(outlet: Sender<Piece>, tokens: Vec<u32>, limit: usize, sampler: Sampler, text: Text) -> Sequence {
        let prompt = tokens.len();
        Sequence { outlet, outbox: VecDeque::new(), tokens, prompt, computed: 0, limit, sampler, text, finished: false }
    }

    /// Whether nobody will read the answer.
    pub fn is_cancelled(&self) -> bool {
        self.outlet.is_closed()
    }

    /// Whether all that can be computed was; pieces may still wait for their reader.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Sends what waits. Returns whether nothing waits any more.
    pub fn flush(&mut self) -> bool {
        while let Some(piece) = self.outbox.pop_front() {
            match self.outlet.try_send(piece) {
                Ok(()) => {}
                Err(TrySendError::Full(piece)) => {
                    self.outbox.push_front(piece);
                    return false;
                }
                // Its reader has gone; the next look at `is_cancelled` ends it.
                Err(TrySendError::Closed(_)) => self.outbox.clear(),
            }
        }
        true
    }

    /// Whether its reader keeps up and there is something to compute.
    pub fn is_runnable(&self) -> bool {
        !self.finished && self.outbox.is_empty()
    }

    /// Tokens to be computed before the next one can be chosen: one while decoding, more in the prompt.
    pub fn due(&self) -> &[u32] {
        &self.tokens[self.computed..]
    }

    /// Whether the prompt is not yet computed.
    pub fn in_prompt(&self) -> bool {
        self.computed + 1 < self.prompt || self.computed == 0
    }

    /// The position of the first token due.
    pub fn position(&self) -> usize {
        self.computed
    }

    /// The first `count` tokens due are in the cache now.
    pub fn advance(&mut self, count: usize) {
        self.computed += count;
    }

    /// Chooses the next token from the scores of the last one due.
    pub fn answer(&mut self, scores: &mut [f32], vocabulary: &Vocabulary) {
        let token = self.sampler.pick(scores);
        self.tokens.push(token);
        let generated = self.tokens.len() - self.prompt;
        if vocabulary.ends(token) {
            let rest = self.text.finish();
            return self.end(rest, End::Stop);
        }
        match self.text.push(vocabulary.bytes(token)) {
            Said::Stopped(last, stop) => self.end(last, End::StopSequence(stop)),
            Said::More(text) if generated >= self.limit => {
                let rest = text + &self.text.finish();
                self.end(rest, End::Length);
            }
            Said::More(text) => {
                self.say(text);
                self.flush();
            }
        }
    }

    /// Ends it with a failure.
    pub fn fail(&mut self, failure: Piece) {
        self.finished = true;
        self.outbox.push_back(failure);
        self.flush();
    }

    fn end(&mut self, last: String, reason: End) {
        self.say(last);
        let completion_tokens = self.tokens.len() - self.prompt;
        self.outbox.push_back(Piece::End { reason, prompt_tokens: self.prompt, completion_tokens });
        self.finished = true;
        self.flush();
    }

    fn say(&mut self, text: String) {
        if !text.is_empty() {
            self.outbox.push_back(Piece::Text(text));
        }
    }
}
