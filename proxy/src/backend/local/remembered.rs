//! What finished sequences leave behind: keys and values that the next prompt of the same owner may begin with.
//!
//! A conversation's next turn repeats all that was said before; only what is new has to be computed. One owner's are never
//! used for another's, or the time a prompt takes would tell what others have asked.

use super::cache::{Cache, Spare};
use super::sequence::Sequence;
use std::sync::Arc;

/// Caches in free slots, the one used longest ago first.
#[derive(Default)]
pub struct Remembered {
    memories: Vec<Memory>,
}

struct Memory {
    owner: Arc<str>,
    /// What the cache holds, token by token.
    tokens: Vec<u32>,
    cache: Cache,
}

impl Remembered {
    /// Keeps what a finished sequence computed.
    pub fn keep(&mut self, sequence: &mut Sequence, cache: Cache) {
        self.memories.push(Memory { owner: sequence.owner.clone(), tokens: sequence.leave(), cache });
    }

    /// The cache that a sequence can begin with, and how many of its positions are right. Afterwards there are fewer than
    /// `room` memories left: the sequence needs one of the free slots.
    pub fn take(&mut self, sequence: &Sequence, room: usize, spare: &mut Spare) -> Option<(Cache, usize)> {
        let alike = self.memories.iter().enumerate().filter(|(_, memory)| memory.owner == sequence.owner);
        let best = alike.map(|(at, memory)| (at, sequence.shared(&memory.tokens))).max_by_key(|&(_, count)| count);
        let found = best.filter(|&(_, count)| count > 0).map(|(at, count)| {
            // Whoever shares only the beginning of a longer conversation gets a copy of it, unless that one had to go anyway.
            let longer = self.memories[at].tokens.len() / 2 > count;
            if longer && (self.memories.len() < room || at > 0) {
                return (self.memories[at].cache.copy(count, spare), count);
            }
            let mut cache = self.memories.remove(at).cache;
            cache.truncate(count, spare);
            (cache, count)
        });
        while self.memories.len() >= room.max(1) {
            spare.reclaim(self.memories.remove(0).cache);
        }
        found
    }
}
