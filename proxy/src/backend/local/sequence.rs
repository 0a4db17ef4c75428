//! One answer on its way: what was computed of it, what was said, and what its reader has not taken yet.

use super::call::{Heard, Listener};
use super::grammar::Grammar;
use super::sampler::Sampler;
use super::text::{Said, Text};
use super::vocabulary::Vocabulary;
use super::{End, Piece};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

/// What an answer is held to.
pub struct Held {
    /// Tokens that may be generated.
    pub limit: usize,
    /// What may be said.
    pub grammar: Option<Grammar>,
    /// Tells calls of tools from text, if there are tools.
    pub listener: Option<Listener>,
    /// The first call ends the answer.
    pub one_call: bool,
}

/// A running or waiting sequence.
pub struct Sequence {
    /// Whose it is.
    pub owner: Arc<str>,
    outlet: Sender<Piece>,
    /// Pieces the reader had no room for; while there are any, the sequence pauses.
    outbox: VecDeque<Piece>,
    /// The prompt, then what was generated: all that has a position.
    tokens: Vec<u32>,
    prompt: usize,
    /// Positions already in the cache.
    computed: usize,
    /// Positions that were in the cache before it began.
    cached: usize,
    held: Held,
    sampler: Sampler,
    text: Text,
    finished: bool,
}

impl Sequence {
    /// A sequence whose `tokens` are its prompt.
    pub fn new(
        outlet: Sender<Piece>,
        owner: Arc<str>,
        tokens: Vec<u32>,
        held: Held,
        sampler: Sampler,
        text: Text,
    ) -> Sequence {
        let (prompt, outbox) = (tokens.len(), VecDeque::new());
        Sequence { owner, outlet, outbox, tokens, prompt, computed: 0, cached: 0, held, sampler, text, finished: false }
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

    /// The tokens whose keys and values are in its cache; it needs them no more.
    pub fn leave(&mut self) -> Vec<u32> {
        self.tokens.truncate(self.computed);
        std::mem::take(&mut self.tokens)
    }

    /// So many of `tokens` are the beginning of its prompt. At least one of that must be computed, for its scores.
    pub fn shared(&self, tokens: &[u32]) -> usize {
        let most = self.prompt - 1;
        self.tokens[..most].iter().zip(tokens).take_while(|(mine, theirs)| mine == theirs).count()
    }

    /// Its first `count` tokens are in its cache before it begins.
    pub fn begin_at(&mut self, count: usize) {
        (self.computed, self.cached) = (count, count);
    }

    /// The first `count` tokens due are in the cache now.
    pub fn advance(&mut self, count: usize) {
        self.computed += count;
    }

    /// Chooses the next token from the scores of the last one due.
    pub fn answer(&mut self, scores: &mut [f32], vocabulary: &Vocabulary) {
        match self.choose(scores, vocabulary) {
            Ok((token, complete)) => self.take(token, complete, vocabulary),
            Err(reason) => {
                self.fail(Piece::Failed(format!("The answer could not be held to what was asked for: {reason}")));
            }
        }
    }

    /// The next token, and whether the answer is complete with it.
    fn choose(&mut self, scores: &mut [f32], vocabulary: &Vocabulary) -> Result<(u32, bool), String> {
        let Some(grammar) = &mut self.held.grammar else {
            let token = self.sampler.pick(scores);
            return Ok((token, vocabulary.ends(token)));
        };
        grammar.mask(scores)?;
        let token = self.sampler.pick(scores);
        Ok((token, vocabulary.ends(token) || grammar.advance(token)?))
    }

    fn take(&mut self, token: u32, complete: bool, vocabulary: &Vocabulary) {
        self.tokens.push(token);
        let generated = self.tokens.len() - self.prompt;
        let bytes = if vocabulary.ends(token) { &[] } else { vocabulary.bytes(token) };
        match self.text.push(bytes) {
            Said::Stopped(last, stop) => self.end(last, End::StopSequence(stop)),
            Said::More(text) if complete || generated >= self.held.limit => {
                let rest = text + &self.text.finish();
                self.end(rest, if complete { End::Stop } else { End::Length });
            }
            Said::More(text) => {
                if self.say(text) {
                    self.end(String::new(), End::Stop);
                } else {
                    self.outbox.push_back(Piece::Token { completion_tokens: generated });
                }
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
        let over = self.say(last);
        if !over && let Some(listener) = &mut self.held.listener {
            let mut heard = Vec::new();
            listener.finish(&mut heard);
            self.put(heard);
        }
        let (prompt_tokens, cached_tokens) = (self.prompt, self.cached);
        let completion_tokens = self.tokens.len() - self.prompt;
        self.outbox.push_back(Piece::End { reason, prompt_tokens, cached_tokens, completion_tokens });
        self.finished = true;
        self.flush();
    }

    /// Returns whether the only call it may make was made.
    fn say(&mut self, text: String) -> bool {
        if text.is_empty() {
            return false;
        }
        let Some(listener) = &mut self.held.listener else {
            self.outbox.push_back(Piece::Text(text));
            return false;
        };
        let mut heard = Vec::new();
        listener.push(&text, &mut heard);
        self.put(heard)
    }

    fn put(&mut self, heard: Vec<Heard>) -> bool {
        for said in heard {
            match said {
                Heard::Text(text) => self.outbox.push_back(Piece::Text(text)),
                Heard::Call(call) => {
                    self.outbox.push_back(Piece::Call(call));
                    if self.held.one_call {
                        return true;
                    }
                }
            }
        }
        false
    }
}
