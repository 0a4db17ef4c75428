//! What attention remembers of one sequence, and attention itself.
//!
//! Memory comes in pages of 128 positions for all layers, so an idle slot costs nothing and a growing one never
//! copies. Keys are kept in blocks of sixteen positions with the positions side by side: a score is then a sum down a
//! column, sixteen at once, and a query's heads that share a key/value head are served from one reading of it.
//! Numbers are bfloat16, as the models were trained in: half of f32's memory, and widening it is a shift.

use super::kernel::{self, Isa, Work};
use super::math::{self, LANES};
use std::cell::RefCell;

/// Positions per page.
pub const PAGE: usize = 128;

/// The sizes of a model's memory.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub layers: usize,
    /// Key/value heads.
    pub heads: usize,
    /// Numbers per head, a multiple of [`LANES`].
    pub width: usize,
}

type Page = Box<[u16]>;

/// Pages that no sequence uses now, kept because fresh ones must be faulted in by the kernel.
pub struct Spare {
    shape: Shape,
    pages: Vec<Page>,
    limit: usize,
}

impl Spare {
    /// Keeps up to `limit` pages.
    pub fn new(shape: Shape, limit: usize) -> Spare {
        Spare { shape, pages: Vec::new(), limit }
    }

    fn take(&mut self) -> Page {
        let numbers = self.shape.layers * self.shape.heads * self.shape.width * 2 * PAGE;
        self.pages.pop().unwrap_or_else(|| vec![0; numbers].into_boxed_slice())
    }

    /// Takes a finished sequence's pages back.
    pub fn reclaim(&mut self, cache: Cache) {
        let room = self.limit.saturating_sub(self.pages.len());
        self.pages.extend(cache.pages.into_iter().take(room));
    }
}

/// Keys and values of one sequence.
pub struct Cache {
    shape: Shape,
    pages: Vec<Page>,
}

impl Cache {
    /// Empty, without memory.
    pub fn new(shape: Shape) -> Cache {
        Cache { shape, pages: Vec::new() }
    }

    /// Makes room for `positions` positions.
    pub fn reserve(&mut self, positions: usize, spare: &mut Spare) {
        while self.pages.len() * PAGE < positions {
            self.pages.push(spare.take());
        }
    }

    /// Forgets all but the first `positions` positions.
    pub fn truncate(&mut self, positions: usize, spare: &mut Spare) {
        let pages = self.pages.split_off(positions.div_ceil(PAGE).min(self.pages.len()));
        spare.reclaim(Cache { shape: self.shape, pages });
    }

    /// Its first `positions` positions, for another sequence.
    pub fn copy(&self, positions: usize, spare: &mut Spare) -> Cache {
        let copied = self.pages.iter().take(positions.div_ceil(PAGE)).map(|page| {
            let mut copy = spare.take();
            copy.copy_from_slice(page);
            copy
        });
        Cache { shape: self.shape, pages: copied.collect() }
    }

    /// Stores one position's keys and values of a layer, all heads one after the other.
    pub fn store(&mut self, layer: usize, position: usize, keys: &[f32], values: &[f32]) {
        let Shape { heads, width, .. } = self.shape;
        let page = &mut self.pages[position / PAGE];
        let at = position % PAGE;
        for head in 0..heads {
            let part = &mut page[(layer * heads + head) * 2 * PAGE * width..][..2 * PAGE * width];
            let (k, v) = part.split_at_mut(PAGE * width);
            let block = &mut k[at / LANES * LANES * width..][..LANES * width];
            for (d, key) in keys[head * width..][..width].iter().enumerate() {
                block[d * LANES + at % LANES] = narrow(*key);
            }
            for (slot, value) in v[at * width..][..width].iter_mut().zip(&values[head * width..]) {
                *slot = narrow(*value);
            }
        }
    }

    /// Attention of the query heads that share key/value head `head`, over the first `count` positions.
    /// `queries` (already divided by the root of the width) and `out` hold those heads one after the other.
    pub fn attend(&self, isa: Isa, layer: usize, head: usize, queries: &[f32], count: usize, out: &mut [f32]) {
        thread_local! {
            static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        let width = self.shape.width;
        let part = (layer * self.shape.heads + head) * 2 * PAGE * width;
        SCORES.with_borrow_mut(|scores| {
            scores.resize(scores.len().max(4 * count.next_multiple_of(LANES)), 0.0);
            for (queries, out) in queries.chunks(4 * width).zip(out.chunks_mut(4 * width)) {
                let heads = queries.len() / width;
                let look = Look { pages: &self.pages, part, width, queries, count, out, scores };
                match heads {
                    4 => kernel::vectorised(isa, Heads::<4>(look)),
                    3 => kernel::vectorised(isa, Heads::<3>(look)),
                    2 => kernel::vectorised(isa, Heads::<2>(look)),
                    _ => kernel::vectorised(isa, Heads::<1>(look)),
                }
            }
        });
    }
}

/// Some heads of one query looking at the positions before it.
struct Look<'a> {
    pages: &'a [Page],
    /// Where in each page this layer and key/value head begin.
    part: usize,
    width: usize,
    queries: &'a [f32],
    count: usize,
    out: &'a mut [f32],
    scores: &'a mut [f32],
}

/// A look by `T` heads, as many as can share one reading of the keys and keep their sums in registers.
struct Heads<'a, const T: usize>(Look<'a>);

impl<const T: usize> Work for Heads<'_, T> {
    #[inline(always)]
    fn run(self) {
        let Look { pages, part, width, queries, count, out, scores } = self.0;
        let stride = count.next_multiple_of(LANES);
        let queries: [&[f32]; T] = std::array::from_fn(|t| &queries[t * width..][..width]);
        for block in 0..stride / LANES {
            let page = &pages[block * LANES / PAGE];
            let keys = &page[part + block * LANES % PAGE * width..][..LANES * width];
            let mut sums = [[0f32; LANES]; T];
            for (d, keys) in keys.as_chunks::<LANES>().0.iter().enumerate() {
                let keys = widen(keys);
                for t in 0..T {
                    let query = queries[t][d];
                    for lane in 0..LANES {
                        sums[t][lane] += query * keys[lane];
                    }
                }
            }
            for (t, sums) in sums.iter().enumerate() {
                scores[t * stride + block * LANES..][..LANES].copy_from_slice(sums);
            }
        }
        let mut totals = [0f32; T];
        for (t, total) in totals.iter_mut().enumerate() {
            *total = math::soften(&mut scores[t * stride..][..count]);
        }
        for lane in (0..width).step_by(LANES) {
            let mut sums = [[0f32; LANES]; T];
            for (number, page) in pages.iter().take(count.div_ceil(PAGE)).enumerate() {
                let here = PAGE.min(count - number * PAGE);
                let values = &page[part + PAGE * width..][..here * width];
                let weights: [&[f32]; T] = std::array::from_fn(|t| &scores[t * stride + number * PAGE..][..here]);
                for (at, values) in values.chunks_exact(width).enumerate() {
                    let values = widen(values[lane..].first_chunk().expect("widths are whole lanes"));
                    for t in 0..T {
                        let weight = weights[t][at];
                        for lane in 0..LANES {
                            sums[t][lane] += weight * values[lane];
                        }
                    }
                }
            }
            for (t, sums) in sums.iter().enumerate() {
                for (out, sum) in out[t * width + lane..][..LANES].iter_mut().zip(sums) {
                    *out = sum / totals[t];
                }
            }
        }
    }
}

#[inline(always)]
fn widen(narrow: &[u16; LANES]) -> [f32; LANES] {
    let mut wide = [0f32; LANES];
    for (wide, &narrow) in wide.iter_mut().zip(narrow) {
        *wide = f32::from_bits(u32::from(narrow) << 16);
    }
    wide
}

/// To bfloat16, to nearest even.
#[inline(always)]
fn narrow(x: f32) -> u16 {
    let bits = x.to_bits();
    (bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attention_is_the_weighted_mean_of_values() {
        let shape = Shape { layers: 2, heads: 2, width: 32 };
        let (group, count, layer) = (5, PAGE + 21, 1);
        let mut spare = Spare::new(shape, 4);
        let mut cache = Cache::new(shape);
        cache.reserve(count, &mut spare);
        let number = |position: usize, d: usize| ((position * 31 + d * 17) % 23) as f32 / 16.0 - 0.5;
        for position in 0..count {
            let keys: Vec<f32> = (0..64).map(|d| number(position, d)).collect();
            let values: Vec<f32> = (0..64).map(|d| number(d, position)).collect();
            cache.store(layer, position, &keys, &values);
        }
        let queries: Vec<f32> = (0..group * 32).map(|d| number(3, d)).collect();
        for isa in Isa::available() {
            for head in 0..2 {
                let mut out = vec![0f32; group * 32];
                cache.attend(isa, layer, head, &queries, count, &mut out);
                for g in 0..group {
                    let weights: Vec<f32> = (0..count)
                        .map(|p| (0..32).map(|d| queries[g * 32 + d] * number(p, head * 32 + d)).sum::<f32>().exp())
                        .collect();
                    let total: f32 = weights.iter().sum();
                    for d in 0..32 {
                        let values = (0..count).map(|p| number(head * 32 + d, p));
                        let expect: f32 = weights.iter().zip(values).map(|(w, v)| w * v).sum::<f32>() / total;
                        assert!((out[g * 32 + d] - expect).abs() < 1e-3, "{isa:?} head {head}, query {g}, {d}");
                    }
                }
            }
        }
    }

    #[test]
    fn pages_come_back() {
        let shape = Shape { layers: 1, heads: 1, width: 16 };
        let mut spare = Spare::new(shape, 2);
        let mut cache = Cache::new(shape);
        cache.reserve(3 * PAGE, &mut spare);
        assert_eq!(cache.pages.len(), 3);
        cache.store(0, PAGE, &[1.0; 16], &[2.0; 16]);
        let copy = cache.copy(PAGE + 1, &mut spare);
        assert!(copy.pages.len() == 2 && copy.pages[1] == cache.pages[1]);
        cache.truncate(PAGE, &mut spare);
        assert_eq!((cache.pages.len(), spare.pages.len()), (1, 2));
        spare.pages.clear();
        cache.reserve(3 * PAGE, &mut spare);
        spare.reclaim(cache);
        assert_eq!(spare.pages.len(), 2);
    }
}
