//! The tokens of all choices, where a server counts each of them by itself: llama.cpp once at the end, vLLM with every chunk.

use super::Glance;

/// The most that are told apart: as many as OpenAI gives.
const MOST: usize = 128;

/// What has been counted so far.
#[derive(Default)]
pub(super) struct Choices {
    /// Tokens of those that were counted once and for all.
    ended: u64,
    /// Numbers of those that are counted as they grow, with their tokens.
    running: Vec<(u64, u64)>,
}

impl Choices {
    /// Makes of a choice's count that of all so far. The prompt was one for all of them.
    pub fn add(&mut self, glance: &mut Glance) {
        let Some(output) = glance.usage.as_mut().and_then(|usage| usage.output.as_mut()) else { return };
        if glance.of_one_choice {
            self.ended = self.ended.saturating_add(*output);
            *output = self.ended;
        } else if let Some(number) = glance.choice {
            match self.running.iter().position(|(known, _)| *known == number) {
                Some(at) => self.running[at].1 = self.running[at].1.max(*output),
                None if self.running.len() < MOST => self.running.push((number, *output)),
                None => {}
            }
            *output = self.running.iter().fold(0, |sum, (_, tokens)| sum.saturating_add(*tokens));
        }
    }
}
