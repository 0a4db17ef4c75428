//! The engine's thread: each step advances every sequence that can move.
//!
//! A step is one pass over the weights for the next token of all decoding sequences together with a bounded piece of
//! the prompts that wait. So a long prompt delays running streams by at most one such piece, and shares its cost.

use super::Piece;
use super::cache::{Cache, Spare};
use super::model::{Model, Row, Scratch};
use super::prompt::Prompts;
use super::queue::{Patience, Queue};
use super::remembered::Remembered;
use super::sequence::Sequence;
use std::time::Duration;

/// Prompt tokens per step when nobody is decoding: enough that weights are read seldom, few enough that a caller who
/// has gone is noticed soon.
const CHUNK: usize = 256;
/// Prompt tokens per step beside running streams: what they wait for each token.
const CHUNK_BESIDE: usize = 64;
/// How often readers who do not read are looked at when there is nothing else to do.
const GLANCE: Duration = Duration::from_millis(5);

/// The state of the engine's thread.
pub struct Worker<'a> {
    model: &'a Model,
    prompts: &'a Prompts,
    pool: &'a rayon::ThreadPool,
    slots: usize,
    /// Sequences in slots, and at the same index their caches.
    running: Vec<Sequence>,
    caches: Vec<Cache>,
    /// What finished sequences left in the slots that are free.
    remembered: Remembered,
    /// Finished, with pieces their reader has not taken.
    lingering: Vec<Sequence>,
    spare: Spare,
    scratch: Scratch,
    rows: Vec<Row>,
    /// Whose prompt goes first; moves on each step, so that prompts share the chunk fairly.
    turn: usize,
}

impl<'a> Worker<'a> {
    /// A worker with `slots` empty slots.
    pub fn new(model: &'a Model, prompts: &'a Prompts, pool: &'a rayon::ThreadPool, slots: usize) -> Worker<'a> {
        let slots = slots.max(1);
        Worker {
            model,
            prompts,
            pool,
            slots,
            running: Vec::new(),
            caches: Vec::new(),
            remembered: Remembered::default(),
            lingering: Vec::new(),
            // A few hundred positions per slot stay warm; the rest goes back to the system.
            spare: Spare::new(model.spec.shape(), slots * 4),
            scratch: Scratch::default(),
            rows: Vec::new(),
            turn: 0,
        }
    }

    /// Serves until the queue stops.
    pub fn serve(mut self, queue: &Queue) {
        loop {
            self.sweep();
            let room = self.slots - self.running.len();
            let Some(started) = queue.take(room, self.patience()) else { break };
            // Who left while waiting gets no slot: something remembered would be forgotten for nobody.
            started.into_iter().filter(|sequence| !sequence.is_cancelled()).for_each(|sequence| self.start(sequence));
            self.step();
        }
        for mut sequence in self.running.drain(..).chain(self.lingering.drain(..)) {
            sequence.fail(Piece::stopped());
        }
    }

    /// Gives a sequence a slot, with as much of its prompt as one of its owner's left there.
    fn start(&mut self, mut sequence: Sequence) {
        let room = self.slots - self.running.len();
        let found = self.remembered.take(&sequence, room, &mut self.spare);
        let (cache, count) = found.unwrap_or_else(|| (Cache::new(self.model.spec.shape()), 0));
        sequence.begin_at(count);
        self.running.push(sequence);
        self.caches.push(cache);
    }

    fn patience(&self) -> Patience {
        if self.running.iter().any(Sequence::is_runnable) {
            Patience::None
        } else if self.running.is_empty() && self.lingering.is_empty() {
            Patience::Forever
        } else {
            Patience::Until(GLANCE)
        }
    }

    /// Sends what readers have room for, and frees the slots of the finished and the abandoned.
    fn sweep(&mut self) {
        self.lingering.retain_mut(|sequence| !sequence.is_cancelled() && !sequence.flush());
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &mut self.running[at];
            let sent = sequence.flush();
            if !sequence.is_cancelled() && !sequence.is_finished() {
                at += 1;
                continue;
            }
            let mut sequence = self.running.swap_remove(at);
            self.remembered.keep(&mut sequence, self.caches.swap_remove(at));
            if !sent && !sequence.is_cancelled() {
                self.lingering.push(sequence);
            }
        }
    }

    fn step(&mut self) {
        self.plan();
        if self.rows.is_empty() {
            return;
        }
        let logits = self.pool.install(|| self.model.forward(&self.rows, &mut self.caches, &mut self.scratch));
        let width = self.model.logits_width();
        let known = self.prompts.vocabulary.len();
        let answers = self.rows.iter().filter(|row| row.answer);
        for (row, scores) in answers.zip(logits.chunks_exact_mut(width)) {
            self.running[row.sequence].answer(&mut scores[..known], &self.prompts.vocabulary);
        }
    }

    /// Chooses the rows of the next step, makes room for them and counts them as computed.
    fn plan(&mut self) {
        self.rows.clear();
        let decoding = |s: &Sequence| s.is_runnable() && !s.in_prompt();
        for at in 0..self.running.len() {
            if decoding(&self.running[at]) {
                self.schedule(at, 1);
            }
        }
        let mut budget = if self.rows.is_empty() { CHUNK } else { CHUNK_BESIDE };
        self.turn = self.turn.wrapping_add(1);
        for offset in 0..self.running.len() {
            let at = (self.turn + offset) % self.running.len();
            let sequence = &self.running[at];
            if budget > 0
                && sequence.is_runnable()
                && sequence.in_prompt()
                && !self.rows.iter().any(|r| r.sequence == at)
            {
                let count = budget.min(sequence.due().len());
                self.schedule(at, count);
                budget -= count;
            }
        }
    }

    fn schedule(&mut self, at: usize, count: usize) {
        let sequence = &mut self.running[at];
        let (position, due) = (sequence.position(), sequence.due());
        let last = due.len() - 1;
        self.rows.extend(due[..count].iter().enumerate().map(|(offset, &token)| Row {
            token,
            position: position + offset,
            sequence: at,
            answer: offset == last,
        }));
        sequence.advance(count);
        self.caches[at].reserve(position + count, &mut self.spare);
    }
}
