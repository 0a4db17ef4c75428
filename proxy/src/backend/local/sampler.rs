//! Choosing the next token from the model's scores.
//!
//! The order is vLLM's and Hugging Face's: penalties, temperature, then top-k, top-p and min-p cut what is left.
//! Repetition counts the prompt too; presence and frequency count only what was generated.

use std::collections::HashMap;

/// How one sequence wants its tokens chosen; see [`super::Job`].
#[derive(Clone, Debug)]
pub struct Taste {
    pub temperature: f32,
    pub top_p: f32,
    pub top_k: usize,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub presence_penalty: f32,
    pub frequency_penalty: f32,
}

/// The state of choosing: a random stream and what was said so far.
pub struct Sampler {
    taste: Taste,
    state: u64,
    /// Times each token was generated; zero for those that only the prompt has.
    seen: HashMap<u32, u32>,
    kept: Vec<(u32, f32)>,
}

/// Tokens this far below the best (in natural-log units) cannot be drawn in any answer's lifetime: 1e-9 of its weight.
const NEGLIGIBLE: f32 = 20.7;

impl Sampler {
    /// The same seed gives the same choices for the same scores.
    pub fn new(taste: Taste, seed: u64, prompt: &[u32]) -> Sampler {
        let repeats = taste.repetition_penalty > 0.0 && taste.repetition_penalty != 1.0;
        let seen = if repeats { prompt.iter().map(|&token| (token, 0)).collect() } else { HashMap::new() };
        Sampler { taste, state: seed ^ 0x9e37_79b9_7f4a_7c15, seen, kept: Vec::new() }
    }

    /// The next token; changes `scores` on the way.
    pub fn pick(&mut self, scores: &mut [f32]) -> u32 {
        self.penalize(scores);
        let (best, highest) = argmax(scores);
        // A temperature or scores that are not numbers fail these comparisons, and must not reach the divisions below.
        let warm = self.taste.temperature > 1e-5 && highest.is_finite();
        let token = if warm { self.draw(scores, highest).unwrap_or(best) } else { best };
        *self.seen.entry(token).or_insert(0) += 1;
        token
    }

    fn penalize(&self, scores: &mut [f32]) {
        let Taste { repetition_penalty, presence_penalty, frequency_penalty, .. } = self.taste;
        let repeats = repetition_penalty > 0.0 && repetition_penalty != 1.0;
        if !repeats && presence_penalty == 0.0 && frequency_penalty == 0.0 {
            return;
        }
        for (&token, &count) in &self.seen {
            let Some(score) = scores.get_mut(token as usize) else { continue };
            if repeats {
                *score = if *score > 0.0 { *score / repetition_penalty } else { *score * repetition_penalty };
            }
            if count > 0 {
                *score -= presence_penalty + frequency_penalty * count as f32;
            }
        }
    }

    fn draw(&mut self, scores: &[f32], highest: f32) -> Option<u32> {
        let Taste { temperature, top_p, top_k, min_p, .. } = self.taste;
        let mut floor = highest - NEGLIGIBLE * temperature;
        if min_p > 0.0 {
            floor = floor.max(highest + min_p.min(1.0).ln() * temperature);
        }
        self.kept.clear();
        self.kept.extend((0u32..).zip(scores.iter().copied()).filter(|&(_, score)| score >= floor));
        let down = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if top_k > 0 && top_k < self.kept.len() {
            self.kept.select_nth_unstable_by(top_k, down);
            self.kept.truncate(top_k);
        }
        // Only top-p needs an order, but with one the same seed also means the same token on every machine.
        let cut = top_p < 1.0;
        if cut || top_k > 0 {
            self.kept.sort_unstable_by(down);
        }
        let mut total = 0.0;
        for (_, score) in &mut self.kept {
            *score = ((*score - highest) / temperature).exp();
            total += *score;
        }
        if cut {
            let mut sum = 0.0;
            let enough = self.kept.iter().position(|(_, weight)| {
                sum += weight;
                sum >= top_p * total
            });
            if let Some(last) = enough {
                self.kept.truncate(last + 1);
                total = sum;
            }
        }
        let mut left = self.uniform() * total;
        for &(token, weight) in &self.kept {
            left -= weight;
            if left < 0.0 {
                return Some(token);
            }
        }
        self.kept.last().map(|&(token, _)| token)
    }

    /// From zero up to one, from splitmix64: tiny, seedable by any number, and nobody's secret depends on it.
    fn uniform(&mut self) -> f32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f32 / (1u64 << 24) as f32
    }
}

/// The first highest score and its place.
fn argmax(scores: &[f32]) -> (u32, f32) {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &score) in (0u32..).zip(scores) {
        if score > best.1 {
            best = (token, score);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taste() -> Taste {
        Taste {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
        }
    }

    fn draws(taste: Taste, seed: u64, scores: &[f32], times: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(taste, seed, &[]);
        (0..times).map(|_| sampler.pick(&mut scores.to_vec())).collect()
    }

    const SCORES: [f32; 6] = [0.0, 2.0, 1.0, -3.0, 1.9, -9.0];

    #[test]
    fn cold_is_argmax() {
        for temperature in [0.0, -1.0, f32::NAN] {
            assert!(draws(Taste { temperature, ..taste() }, 1, &SCORES, 50).iter().all(|&t| t == 1));
        }
    }

    #[test]
    fn cuts_leave_only_the_best() {
        let cases = [
            (Taste { top_k: 1, ..taste() }, vec![1]),
            (Taste { top_k: 2, ..taste() }, vec![1, 4]),
            (Taste { top_p: 0.05, ..taste() }, vec![1]),
            (Taste { top_p: 0.0, ..taste() }, vec![1]),
            (Taste { top_p: 0.7, ..taste() }, vec![1, 4]),
            (Taste { min_p: 0.85, ..taste() }, vec![1, 4]),
            (Taste { min_p: 0.3, ..taste() }, vec![1, 2, 4]),
            (Taste { top_k: 3, min_p: 0.85, ..taste() }, vec![1, 4]),
        ];
        for (taste, expect) in cases {
            let mut drawn = draws(taste.clone(), 5, &SCORES, 400);
            drawn.sort_unstable();
            drawn.dedup();
            assert_eq!(drawn, expect, "{taste:?}");
        }
    }

    #[test]
    fn draws_follow_the_weights() {
        let drawn = draws(taste(), 9, &[0.0, 3f32.ln()], 4000);
        let ones = drawn.iter().filter(|&&t| t == 1).count();
        assert!((2800..3200).contains(&ones), "three quarters of 4000, got {ones}");
        let hot = draws(Taste { temperature: 100.0, ..taste() }, 9, &SCORES, 4000);
        assert!((0..6).all(|token| hot.iter().filter(|&&t| t == token).count() > 500), "hot is nearly even");
    }

    #[test]
    fn a_seed_is_a_promise() {
        let of = |seed| draws(Taste { temperature: 3.0, top_p: 0.99, ..taste() }, seed, &SCORES, 64);
        assert_eq!(of(42), of(42));
        assert_ne!(of(42), of(43));
    }

    #[test]
    fn penalties_push_away() {
        let cold = Taste { temperature: 0.0, ..taste() };
        assert_eq!(draws(Taste { presence_penalty: 0.5, ..cold.clone() }, 0, &SCORES, 3), [1, 4, 1]);
        assert_eq!(draws(Taste { frequency_penalty: 0.5, ..cold.clone() }, 0, &SCORES, 4), [1, 4, 1, 4]);
        assert_eq!(draws(Taste { repetition_penalty: 1.2, ..cold.clone() }, 0, &SCORES, 2), [1, 4]);
        let mut sampler = Sampler::new(Taste { repetition_penalty: 2.0, ..cold }, 0, &[1]);
        assert_eq!(sampler.pick(&mut SCORES.to_vec()), 4, "repetition counts the prompt");
    }

    #[test]
    fn broken_scores_do_not_break_it() {
        for scores in [vec![f32::NAN; 4], vec![f32::NEG_INFINITY; 4], vec![]] {
            assert_eq!(draws(Taste { top_p: 0.5, top_k: 2, ..taste() }, 0, &scores, 1), [0]);
        }
    }
}
