//! The inner loops over packed weights, and the only `unsafe` of this room.
//!
//! One call multiplies sixteen output features (a *group*) with every activation row. Sixteen because one AVX-512
//! register then holds one 32-bit sum per feature, so there is never a horizontal sum; four neighbouring columns of
//! a feature sit in one 32-bit lane because that is what the dot-product instructions take. The instruction set is
//! chosen at run time; every path gives the same integers, so they differ only in the rounding of the last sums.

use super::matrix::{Activations, BLOCK, GROUP, Line, half_to_f32};
use rayon::prelude::*;

/// The instruction sets a packed product is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 with VNNI: four products and their sum in one instruction.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// AVX2 with FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Anything else; left to the compiler to vectorise.
    Plain,
}

impl Isa {
    /// The best this machine can do.
    pub fn detect() -> Isa {
        Isa::available()[0]
    }

    /// All that this machine can do, best first.
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni")
            {
                found.push(Isa::Vnni);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
                found.push(Isa::Avx2);
            }
        }
        found.push(Isa::Plain);
        found
    }
}

/// One group of packed weights: `lines` and `halves` of `blocks` blocks.
#[derive(Clone, Copy)]
pub struct Group<'a> {
    pub lines: &'a [Line],
    /// Eight bits: a scale per feature and block. Four bits: sixteen scales, then sixteen minima.
    pub halves: &'a [u16],
    pub four_bits: bool,
}

/// Where products go: row `t`, group `g` at `[t * stride + g * GROUP]`. Shared by threads that write distinct groups.
struct Output {
    start: *mut f32,
    len: usize,
    stride: usize,
}

// SAFETY: `Output` is only written through `tile`, which is `unsafe` and whose contract is that no two threads write
// the same group; the pointed-to slice outlives it because the borrow in `new` is held by its user, `product`.
unsafe impl Sync for Output {}

impl Output {
    fn new(out: &mut [f32], stride: usize) -> Output {
        Output { start: out.as_mut_ptr(), len: out.len(), stride }
    }

    /// # Safety
    /// No other thread may touch this row's group at the same time, and the slice given to `new` must still be
    /// borrowed.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "distinct groups are distinct memory: the contract above")]
    unsafe fn tile(&self, row: usize, group: usize) -> &mut [f32; GROUP] {
        let at = row * self.stride + group * GROUP;
        assert!(at + GROUP <= self.len, "a product's place lies inside its buffer");
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise; an array of f32 has f32's alignment.
        unsafe { &mut *self.start.add(at).cast::<[f32; GROUP]>() }
    }
}

/// Multiplies `groups` groups with all rows of `x`, in parallel; `out` is `x.rows` rows of as many whole groups.
pub fn product<'w>(
    isa: Isa,
    groups: usize,
    group: impl Fn(usize) -> Group<'w> + Sync,
    x: &Activations,
    out: &mut [f32],
) {
    let out = Output::new(out, groups * GROUP);
    // Eight shares per thread: enough to even out a thread that the machine took away for a while.
    let share = (groups / (8 * rayon::current_num_threads())).max(1);
    (0..groups).into_par_iter().with_min_len(share).for_each(|index| {
        // SAFETY: `isa` was detected at load; every index is visited once; `out` is borrowed until the loop's end.
        unsafe { multiply(isa, group(index), x, index, &out) };
    });
}

/// Multiplies group number `index` with all rows of `x`.
///
/// # Safety
/// `isa` must come from [`Isa::available`] on this machine, and no other thread may write group `index` of `out`
/// at the same time.
unsafe fn multiply(isa: Isa, group: Group<'_>, x: &Activations, index: usize, out: &Output) {
    let blocks = x.blocks;
    let per_block = if group.four_bits { 4 } else { 8 };
    assert!(group.lines.len() == blocks * per_block, "weights match the activations' width");
    assert!(group.halves.len() == blocks * GROUP * if group.four_bits { 2 } else { 1 });
    assert!(x.quants.len() >= x.rows * blocks * BLOCK);
    assert!(x.scales.len() >= x.rows * blocks && x.sums.len() >= x.rows * blocks);
    // Rows per reading of the weights: as many sums as the registers hold.
    let widest = match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Vnni => 8,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => 4,
        Isa::Plain => 1,
    };
    let mut row = 0;
    while row < x.rows {
        let take = 1 << (x.rows - row).min(widest).ilog2();
        // SAFETY: the feature set was detected (caller), the lengths were asserted above and `row + take <= rows`;
        // exclusive writing is the caller's promise.
        unsafe {
            match (isa, take) {
                #[cfg(target_arch = "x86_64")]
                (Isa::Vnni, 8) => vnni::<8>(group, x, row, index, out),
                #[cfg(target_arch = "x86_64")]
                (Isa::Vnni, 4) => vnni::<4>(group, x, row, index, out),
                #[cfg(target_arch = "x86_64")]
                (Isa::Vnni, 2) => vnni::<2>(group, x, row, index, out),
                #[cfg(target_arch = "x86_64")]
                (Isa::Vnni, _) => vnni::<1>(group, x, row, index, out),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, 4) => avx2::<4>(group, x, row, index, out),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, 2) => avx2::<2>(group, x, row, index, out),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, _) => avx2::<1>(group, x, row, index, out),
                (Isa::Plain, _) => plain(group, x, row, index, out),
            }
        }
        row += take;
    }
}

/// # Safety
/// As [`multiply`], with AVX-512 F, BW and VNNI present, lengths checked, and `row + T <= x.rows`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
unsafe fn vnni<const T: usize>(group: Group<'_>, x: &Activations, row: usize, index: usize, out: &Output) {
    use std::arch::x86_64::*;
    let blocks = x.blocks;
    let mut sums = [_mm512_setzero_ps(); T];
    // SAFETY: every pointer below stays inside slices whose lengths `multiply` has asserted: block `b < blocks`,
    // row `row + t < x.rows`, lane offsets below GROUP. Loads of activations are 4-byte reads at any alignment.
    unsafe {
        let quants: [*const i8; T] = std::array::from_fn(|t| x.quants.as_ptr().add((row + t) * blocks * BLOCK));
        let scales: [*const f32; T] = std::array::from_fn(|t| x.scales.as_ptr().add((row + t) * blocks));
        let totals: [*const i32; T] = std::array::from_fn(|t| x.sums.as_ptr().add((row + t) * blocks));
        let mut weights = [_mm512_setzero_si512(); 8];
        let nibble = _mm512_set1_epi8(0x0f);
        for b in 0..blocks {
            if group.four_bits {
                for j in 0..4 {
                    let line = _mm512_load_si512(group.lines.as_ptr().add(b * 4 + j).cast());
                    weights[j] = _mm512_and_si512(line, nibble);
                    weights[j + 4] = _mm512_and_si512(_mm512_srli_epi16::<4>(line), nibble);
                }
                let halves = group.halves.as_ptr().add(b * GROUP * 2);
                let scale = _mm512_cvtph_ps(_mm256_loadu_si256(halves.cast()));
                let least = _mm512_cvtph_ps(_mm256_loadu_si256(halves.add(GROUP).cast()));
                for t in 0..T {
                    let mut sum = _mm512_setzero_si512();
                    let q = quants[t].add(b * BLOCK).cast::<i32>();
                    for (j, &w) in weights.iter().enumerate() {
                        sum = _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(q.add(j).read_unaligned()));
                    }
                    let xs = *scales[t].add(b);
                    sums[t] =
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), _mm512_mul_ps(scale, _mm512_set1_ps(xs)), sums[t]);
                    sums[t] = _mm512_fmadd_ps(least, _mm512_set1_ps(xs * *totals[t].add(b) as f32), sums[t]);
                }
            } else {
                for (j, w) in weights.iter_mut().enumerate() {
                    *w = _mm512_load_si512(group.lines.as_ptr().add(b * 8 + j).cast());
                }
                let scale = _mm512_cvtph_ps(_mm256_loadu_si256(group.halves.as_ptr().add(b * GROUP).cast()));
                for t in 0..T {
                    // Weights are kept plus 128, because the instruction wants one side unsigned.
                    let mut sum = _mm512_set1_epi32(-128 * *totals[t].add(b));
                    let q = quants[t].add(b * BLOCK).cast::<i32>();
                    for (j, &w) in weights.iter().enumerate() {
                        sum = _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(q.add(j).read_unaligned()));
                    }
                    let both = _mm512_mul_ps(scale, _mm512_set1_ps(*scales[t].add(b)));
                    sums[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), both, sums[t]);
                }
            }
        }
        for (t, sum) in sums.into_iter().enumerate() {
            _mm512_storeu_ps(out.tile(row + t, index).as_mut_ptr(), sum);
        }
    }
}

/// # Safety
/// As [`multiply`], with AVX2, FMA and F16C present, lengths checked, and `row + T <= x.rows`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<const T: usize>(group: Group<'_>, x: &Activations, row: usize, index: usize, out: &Output) {
    use std::arch::x86_64::*;
    let blocks = x.blocks;
    let ones = _mm256_set1_epi16(1);
    let nibble = _mm256_set1_epi8(0x0f);
    let flip = _mm256_set1_epi8(-128);
    // Eight features at a time: half a line, half a group.
    for half in 0..2 {
        let mut sums = [_mm256_setzero_ps(); T];
        // SAFETY: as in `vnni`; `half` selects bytes 0..32 or 32..64 of a line and lanes 0..8 or 8..16 of the halves.
        unsafe {
            for b in 0..blocks {
                let mut ints = [_mm256_setzero_si256(); T];
                let quants: [*const i32; T] =
                    std::array::from_fn(|t| x.quants.as_ptr().add(((row + t) * blocks + b) * BLOCK).cast());
                if group.four_bits {
                    // 8 lines' worth of 2 · 15 · 127 fits in 16 bits, so widening waits until the end of the block.
                    for j in 0..4 {
                        let line = group.lines.as_ptr().add(b * 4 + j).cast::<u8>().add(half * 32);
                        let line = _mm256_load_si256(line.cast());
                        let low = _mm256_and_si256(line, nibble);
                        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(line), nibble);
                        for t in 0..T {
                            let a = _mm256_set1_epi32(quants[t].add(j).read_unaligned());
                            let c = _mm256_set1_epi32(quants[t].add(j + 4).read_unaligned());
                            let both = _mm256_add_epi16(_mm256_maddubs_epi16(low, a), _mm256_maddubs_epi16(high, c));
                            ints[t] = _mm256_add_epi16(ints[t], both);
                        }
                    }
                    let halves = group.halves.as_ptr().add(b * GROUP * 2 + half * 8);
                    let scale = _mm256_cvtph_ps(_mm_loadu_si128(halves.cast()));
                    let least = _mm256_cvtph_ps(_mm_loadu_si128(halves.add(GROUP).cast()));
                    for t in 0..T {
                        let xs = x.scales[(row + t) * blocks + b];
                        let total = x.sums[(row + t) * blocks + b] as f32;
                        let int = _mm256_cvtepi32_ps(_mm256_madd_epi16(ints[t], ones));
                        sums[t] = _mm256_fmadd_ps(int, _mm256_mul_ps(scale, _mm256_set1_ps(xs)), sums[t]);
                        sums[t] = _mm256_fmadd_ps(least, _mm256_set1_ps(xs * total), sums[t]);
                    }
                } else {
                    for j in 0..8 {
                        let line = group.lines.as_ptr().add(b * 8 + j).cast::<u8>().add(half * 32);
                        // Back to signed: here the magnitudes are the unsigned side, and activations take the sign.
                        let signed = _mm256_xor_si256(_mm256_load_si256(line.cast()), flip);
                        let magnitude = _mm256_abs_epi8(signed);
                        for t in 0..T {
                            let a = _mm256_set1_epi32(quants[t].add(j).read_unaligned());
                            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(a, signed));
                            ints[t] = _mm256_add_epi32(ints[t], _mm256_madd_epi16(pairs, ones));
                        }
                    }
                    let halves = group.halves.as_ptr().add(b * GROUP + half * 8);
                    let scale = _mm256_cvtph_ps(_mm_loadu_si128(halves.cast()));
                    for t in 0..T {
                        let xs = _mm256_set1_ps(x.scales[(row + t) * blocks + b]);
                        sums[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(ints[t]), _mm256_mul_ps(scale, xs), sums[t]);
                    }
                }
            }
            for (t, sum) in sums.into_iter().enumerate() {
                _mm256_storeu_ps(out.tile(row + t, index).as_mut_ptr().add(half * 8), sum);
            }
        }
    }
}

/// # Safety
/// As [`multiply`]: only the exclusive write needs it.
unsafe fn plain(group: Group<'_>, x: &Activations, row: usize, index: usize, out: &Output) {
    let mut sums = [0f32; GROUP];
    for b in 0..x.blocks {
        let quants = &x.quants[(row * x.blocks + b) * BLOCK..][..BLOCK];
        let scale = x.scales[row * x.blocks + b];
        let total = x.sums[row * x.blocks + b];
        let mut ints = [0i32; GROUP];
        if group.four_bits {
            for (j, line) in group.lines[b * 4..][..4].iter().enumerate() {
                for (lane, int) in ints.iter_mut().enumerate() {
                    for i in 0..4 {
                        let byte = line.0[lane * 4 + i];
                        *int += i32::from(byte & 15) * i32::from(quants[j * 4 + i]);
                        *int += i32::from(byte >> 4) * i32::from(quants[16 + j * 4 + i]);
                    }
                }
            }
            let halves = &group.halves[b * GROUP * 2..][..GROUP * 2];
            for lane in 0..GROUP {
                sums[lane] += half_to_f32(halves[lane]) * scale * ints[lane] as f32;
                sums[lane] += half_to_f32(halves[GROUP + lane]) * scale * total as f32;
            }
        } else {
            for (j, line) in group.lines[b * 8..][..8].iter().enumerate() {
                for (lane, int) in ints.iter_mut().enumerate() {
                    for i in 0..4 {
                        *int += (i32::from(line.0[lane * 4 + i]) - 128) * i32::from(quants[j * 4 + i]);
                    }
                }
            }
            for lane in 0..GROUP {
                sums[lane] += half_to_f32(group.halves[b * GROUP + lane]) * scale * ints[lane] as f32;
            }
        }
    }
    // SAFETY: exclusive by the caller's promise.
    *unsafe { out.tile(row, index) } = sums;
}

/// Plain Rust that is worth compiling for wider vectors; `run` must be `#[inline(always)]` all the way down.
///
/// A trait and not a closure or a function, because only a method called directly is inlined into the caller that has
/// the instructions: the other two keep those of the place where they were written (and ran three times slower).
pub trait Work {
    fn run(self);
}

/// Runs `work` compiled for the vector unit at hand.
#[inline(always)]
pub fn vectorised(isa: Isa, work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    {
        /// # Safety
        /// AVX-512 F, BW, VL and DQ must be present.
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,fma,avx2")]
        unsafe fn wide(work: impl Work) {
            work.run();
        }
        /// # Safety
        /// AVX2 and FMA must be present.
        #[target_feature(enable = "avx2,fma")]
        unsafe fn middle(work: impl Work) {
            work.run();
        }
        match isa {
            // SAFETY: `Isa` values come from `Isa::available`, which looked for exactly these.
            Isa::Vnni => unsafe { wide(work) },
            // SAFETY: as above.
            Isa::Avx2 => unsafe { middle(work) },
            Isa::Plain => work.run(),
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = isa;
        work.run();
    }
}
