//! The small arithmetic between two matrix products: norms, rotations, exponentials.
//!
//! Written over fixed-size lanes, so that the compiler vectorises it inside `kernel::vectorised`; floating-point sums
//! are otherwise kept in order, one at a time.

use super::kernel::Work;

/// Numbers handled side by side.
pub const LANES: usize = 16;

/// `exp`, to about two units in the last place, in arithmetic that vectorises (the library's does not).
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + MAGIC;
    let whole = shifted - MAGIC;
    // ln 2 in two parts: the first has few enough bits that its product with `whole` is exact.
    let rest = (x - whole * 0.693_359_4) + whole * 2.121_944_4e-4;
    let poly = 1.0 / 720.0;
    let poly = poly * rest + 1.0 / 120.0;
    let poly = poly * rest + 1.0 / 24.0;
    let poly = poly * rest + 1.0 / 6.0;
    let poly = poly * rest + 0.5;
    let poly = poly * rest + 1.0;
    let poly = poly * rest + 1.0;
    let power = (shifted.to_bits().wrapping_sub(MAGIC.to_bits()) as i32 + 127) << 23;
    poly * f32::from_bits(power as u32)
}

/// Root-mean-square norm of a row, times `weight`.
pub struct Norm<'a> {
    pub x: &'a [f32],
    pub weight: &'a [f32],
    pub epsilon: f32,
    pub out: &'a mut [f32],
}

impl Work for Norm<'_> {
    #[inline(always)]
    fn run(self) {
        let mut lanes = [0f32; LANES];
        let mut chunks = self.x.chunks_exact(LANES);
        for chunk in &mut chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += x * x;
            }
        }
        let square: f32 = lanes.iter().sum::<f32>() + chunks.remainder().iter().map(|x| x * x).sum::<f32>();
        let scale = 1.0 / (square / self.x.len() as f32 + self.epsilon).sqrt();
        for ((out, x), weight) in self.out.iter_mut().zip(self.x).zip(self.weight) {
            *out = x * scale * weight;
        }
    }
}

/// Adds `from` to `to`.
pub struct Add<'a> {
    pub from: &'a [f32],
    pub to: &'a mut [f32],
}

impl Work for Add<'_> {
    #[inline(always)]
    fn run(self) {
        for (to, from) in self.to.iter_mut().zip(self.from) {
            *to += from;
        }
    }
}

/// The gated activation of the feed-forward part: `silu(gate) * up`.
pub struct Gate<'a> {
    pub gate: &'a [f32],
    pub up: &'a [f32],
    pub out: &'a mut [f32],
}

impl Work for Gate<'_> {
    #[inline(always)]
    fn run(self) {
        for ((out, gate), up) in self.out.iter_mut().zip(self.gate).zip(self.up) {
            *out = gate / (1.0 + exp(-gate)) * up;
        }
    }
}

/// Scores to weights: `exp(score - highest)` in place; returns their sum.
#[inline(always)]
pub fn soften(scores: &mut [f32]) -> f32 {
    let mut highest = [f32::NEG_INFINITY; LANES];
    let mut chunks = scores.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (high, &x) in highest.iter_mut().zip(chunk) {
            *high = if x > *high { x } else { *high };
        }
    }
    let rest = chunks.remainder().iter().copied();
    let highest = highest.into_iter().chain(rest).fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0f32; LANES];
    let mut chunks = scores.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *x = exp(*x - highest);
            *sum += *x;
        }
    }
    let mut sum: f32 = sums.iter().sum();
    for x in chunks.into_remainder() {
        *x = exp(*x - highest);
        sum += *x;
    }
    sum
}

/// How a model pairs the numbers that are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairs {
    /// (0,1), (2,3), …: llama's files, whose weights were permuted for it.
    Neighbours,
    /// (0,n/2), (1,n/2+1), …: everyone else.
    Halves,
}

/// Rotates one head by the angles of its position, given as cosines and sines.
#[inline(always)]
pub fn rotate(head: &mut [f32], pairs: Pairs, cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    match pairs {
        Pairs::Neighbours => {
            for ((pair, cos), sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * cos - b * sin;
                pair[1] = a * sin + b * cos;
            }
        }
        Pairs::Halves => {
            let (low, high) = head[..2 * half].split_at_mut(half);
            for (((low, high), cos), sin) in low.iter_mut().zip(high).zip(cos).zip(sin) {
                let (a, b) = (*low, *high);
                *low = a * cos - b * sin;
                *high = a * sin + b * cos;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close() {
        for step in -8600..8700 {
            let x = step as f32 / 100.0;
            let expect = f64::from(x).exp();
            let error = (f64::from(exp(x)) - expect).abs() / expect;
            assert!(error < 1e-6, "exp({x}) is off by {error}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }

    #[test]
    fn softened_scores_sum_up() {
        let mut scores: Vec<f32> = (0..37).map(|x| x as f32 / 3.0).collect();
        let sum = soften(&mut scores);
        assert!((scores.iter().sum::<f32>() - sum).abs() < 1e-4);
        assert!((scores[36] - 1.0).abs() < 1e-6);
    }

    #[test]
    fn rotations_keep_length() {
        let (cos, sin) = ([0.6f32; 2], [0.8f32; 2]);
        for pairs in [Pairs::Neighbours, Pairs::Halves] {
            let mut head = [1.0f32, 0.0, 2.0, 0.0];
            rotate(&mut head, pairs, &cos, &sin);
            assert!((head.iter().map(|x| x * x).sum::<f32>() - 5.0).abs() < 1e-5);
        }
    }
}
