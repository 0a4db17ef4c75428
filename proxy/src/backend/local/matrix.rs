//! Weights as the kernels want them, and the activations they are multiplied with.
//!
//! A matrix is kept in blocks of 32 columns by groups of 16 rows (output features), either as eight-bit integers with
//! a scale per row and block, or, when the file has four-bit blocks (Q4_0, Q4_1), as those very four bits: exact, and
//! half the memory traffic, which is what decoding one token at a time costs. All other types go through f32 to eight
//! bits. candle's `QMatMul` was not chosen: it has no SIMD for Q4_1 and reads the weights once per row of activations.

use super::kernel::{self, Group, Isa, Work};
use rayon::prelude::*;

/// Columns that share a scale, as in every 32-wide ggml type.
pub const BLOCK: usize = 32;
/// Output features that are computed together.
pub const GROUP: usize = 16;

/// One cache line of packed weights: four columns of sixteen features.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Line(pub [u8; 64]);

/// A weight matrix, rows being output features.
pub struct Matrix {
    features: usize,
    blocks: usize,
    four_bits: bool,
    lines: Vec<Line>,
    halves: Vec<u16>,
}

/// Rows of a weight matrix, on the way in.
pub enum Rows<'a> {
    /// Dequantized: `features` times `columns` numbers.
    Floats(Vec<f32>),
    /// The file's Q4_0 blocks (18 bytes: scale, sixteen nibble pairs).
    Q4_0(&'a [u8]),
    /// The file's Q4_1 blocks (20 bytes: scale, minimum, sixteen nibble pairs).
    Q4_1(&'a [u8]),
}

impl Matrix {
    /// An all-zero matrix to be filled by [`Matrix::fill`]. Features are rounded up to whole groups.
    pub fn zeros(features: usize, columns: usize, four_bits: bool) -> Matrix {
        assert!(columns.is_multiple_of(BLOCK), "the loader refuses widths that are not whole blocks");
        let groups = features.div_ceil(GROUP);
        let blocks = columns / BLOCK;
        let (lines, halves) = if four_bits { (4, 2 * GROUP) } else { (8, GROUP) };
        // Zero minus 128 is the zero of the eight-bit form; a scale of zero would do too, but this is plainly right.
        let zero = Line([if four_bits { 0 } else { 128 }; 64]);
        Matrix {
            features: groups * GROUP,
            blocks,
            four_bits,
            lines: vec![zero; groups * blocks * lines],
            halves: vec![0; groups * blocks * halves],
        }
    }

    /// Output features, padding included: the width of a product's rows.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Bytes of memory.
    pub fn size(&self) -> usize {
        self.lines.len() * 64 + self.halves.len() * 2
    }

    /// Packs rows in parallel, from `first` on (a multiple of [`GROUP`]); `rows` yields the source of up to
    /// sixteen rows, given the first of them counted from `first`.
    pub fn fill<'a>(&mut self, first: usize, count: usize, rows: impl Fn(usize, usize) -> Rows<'a> + Sync) {
        assert!(first.is_multiple_of(GROUP) && first + count <= self.features, "parts are whole groups");
        let (lines, halves) = self.per_group();
        let blocks = self.blocks;
        let four_bits = self.four_bits;
        let end = (first + count).div_ceil(GROUP) * GROUP;
        self.lines[first / GROUP * lines..end / GROUP * lines]
            .par_chunks_mut(lines)
            .zip(self.halves[first / GROUP * halves..end / GROUP * halves].par_chunks_mut(halves))
            .enumerate()
            .for_each(|(group, (lines, halves))| {
                let here = GROUP.min(count - group * GROUP);
                match rows(group * GROUP, here) {
                    Rows::Floats(floats) if !four_bits => pack_floats(&floats, here, blocks, lines, halves),
                    Rows::Q4_0(bytes) if four_bits => pack_nibbles(bytes, 18, here, blocks, lines, halves),
                    Rows::Q4_1(bytes) if four_bits => pack_nibbles(bytes, 20, here, blocks, lines, halves),
                    _ => unreachable!("the loader chose the form of the matrix from the same types"),
                }
            });
    }

    /// `out[t][feature] = x[t] · row(feature)`; `out` is `x.rows` rows of [`Matrix::features`] numbers.
    pub fn multiply(&self, isa: Isa, x: &Activations, out: &mut [f32]) {
        assert_eq!(x.blocks, self.blocks, "activations are as wide as the weights");
        let (lines, halves) = self.per_group();
        let group = |index: usize| Group {
            lines: &self.lines[index * lines..][..lines],
            halves: &self.halves[index * halves..][..halves],
            four_bits: self.four_bits,
        };
        kernel::product(isa, self.features / GROUP, group, x, out);
    }

    /// Row `feature` as numbers: an embedding.
    pub fn row(&self, feature: usize, out: &mut [f32]) {
        let (lines, halves) = self.per_group();
        let (group, lane) = (feature / GROUP, feature % GROUP);
        let lines = &self.lines[group * lines..][..lines];
        let halves = &self.halves[group * halves..][..halves];
        for (b, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            for (k, out) in out.iter_mut().enumerate() {
                if self.four_bits {
                    let byte = lines[b * 4 + k % 16 / 4].0[lane * 4 + k % 4];
                    let nibble = if k < 16 { byte & 15 } else { byte >> 4 };
                    let halves = &halves[b * 2 * GROUP..];
                    *out = f32::from(nibble) * half_to_f32(halves[lane]) + half_to_f32(halves[GROUP + lane]);
                } else {
                    let byte = lines[b * 8 + k / 4].0[lane * 4 + k % 4];
                    *out = (f32::from(byte) - 128.0) * half_to_f32(halves[b * GROUP + lane]);
                }
            }
        }
    }

    fn per_group(&self) -> (usize, usize) {
        if self.four_bits { (self.blocks * 4, self.blocks * 2 * GROUP) } else { (self.blocks * 8, self.blocks * GROUP) }
    }
}

fn pack_floats(floats: &[f32], rows: usize, blocks: usize, lines: &mut [Line], halves: &mut [u16]) {
    for lane in 0..rows {
        for b in 0..blocks {
            let block = &floats[(lane * blocks + b) * BLOCK..][..BLOCK];
            let most = block.iter().fold(0f32, |most, x| most.max(x.abs()));
            let half = f32_to_half(most / 127.0);
            halves[b * GROUP + lane] = half;
            // Rounded with the scale that will be multiplied back, not with the one before it became a half.
            let scale = half_to_f32(half);
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            for (k, x) in block.iter().enumerate() {
                let q = (x * inverse).round().clamp(-127.0, 127.0) as i32;
                lines[b * 8 + k / 4].0[lane * 4 + k % 4] = (q + 128) as u8;
            }
        }
    }
}

fn pack_nibbles(bytes: &[u8], size: usize, rows: usize, blocks: usize, lines: &mut [Line], halves: &mut [u16]) {
    for lane in 0..rows {
        for b in 0..blocks {
            let block = &bytes[(lane * blocks + b) * size..][..size];
            let scale = u16::from_le_bytes([block[0], block[1]]);
            let least = match size {
                20 => u16::from_le_bytes([block[2], block[3]]),
                // Q4_0 counts from minus eight; eight times a half is exact short of overflow.
                _ => f32_to_half(-8.0 * half_to_f32(scale)),
            };
            halves[b * 2 * GROUP + lane] = scale;
            halves[b * 2 * GROUP + GROUP + lane] = least;
            for (k, byte) in block[size - 16..].iter().enumerate() {
                lines[b * 4 + k / 4].0[lane * 4 + k % 4] = *byte;
            }
        }
    }
}

/// Activations rounded to eight bits, a scale per 32 columns, as llama.cpp does for the same file types.
#[derive(Default)]
pub struct Activations {
    pub rows: usize,
    pub blocks: usize,
    pub quants: Vec<i8>,
    pub scales: Vec<f32>,
    /// The sum of each block's integers, which both weight forms need to undo their offsets.
    pub sums: Vec<i32>,
}

impl Activations {
    /// Takes over `rows` rows; `width` is a multiple of [`BLOCK`].
    pub fn round(&mut self, isa: Isa, x: &[f32], width: usize) {
        self.blocks = width / BLOCK;
        self.rows = x.len() / width;
        let blocks = self.rows * self.blocks;
        self.quants.resize(blocks * BLOCK, 0);
        self.scales.resize(blocks, 0.0);
        self.sums.resize(blocks, 0);
        let columns = self.blocks;
        let row = |x: &[f32], quants: &mut [i8], scales: &mut [f32], sums: &mut [i32]| {
            kernel::vectorised(isa, Rounding { x, quants, scales, sums });
        };
        if self.rows < FEW {
            let sums = self.sums.chunks_exact_mut(columns);
            let scales = self.scales.chunks_exact_mut(columns);
            let rows = x.chunks_exact(width).zip(self.quants.chunks_exact_mut(width)).zip(scales).zip(sums);
            rows.for_each(|(((x, quants), scales), sums)| row(x, quants, scales, sums));
        } else {
            let sums = self.sums.par_chunks_exact_mut(columns);
            let scales = self.scales.par_chunks_exact_mut(columns);
            let rows = x.par_chunks_exact(width).zip(self.quants.par_chunks_exact_mut(width)).zip(scales).zip(sums);
            rows.for_each(|(((x, quants), scales), sums)| row(x, quants, scales, sums));
        }
    }
}

/// Below this many rows, waking another thread costs more than row-wise work takes.
pub const FEW: usize = 8;

/// One row of activations becoming integers.
struct Rounding<'a> {
    x: &'a [f32],
    quants: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
}

impl Work for Rounding<'_> {
    #[inline(always)]
    fn run(self) {
        let Rounding { x, quants, scales, sums } = self;
        let blocks = x.chunks_exact(BLOCK).zip(quants.chunks_exact_mut(BLOCK));
        for (((x, quants), scale), sum) in blocks.zip(scales).zip(sums) {
            let mut lanes = [0f32; BLOCK];
            for (lane, x) in lanes.iter_mut().zip(x) {
                *lane = x.abs();
            }
            let most = lanes.iter().fold(0f32, |most, &x| if x > most { x } else { most });
            *scale = most / 127.0;
            let inverse = if most > 0.0 { 127.0 / most } else { 0.0 };
            // Adding and taking away 1.5 · 2^23 rounds to the nearest integer without a call, and vectorises.
            const MAGIC: f32 = 12_582_912.0;
            let mut ints = [0i32; BLOCK];
            for (int, x) in ints.iter_mut().zip(x) {
                *int = (x * inverse + MAGIC).to_bits() as i32 - MAGIC.to_bits() as i32;
            }
            for (q, &int) in quants.iter_mut().zip(&ints) {
                *q = int as i8;
            }
            *sum = ints.iter().sum();
        }
    }
}

/// IEEE half precision to single, infinities and NaN included.
#[inline(always)]
pub fn half_to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let rest = u32::from(half & 0x7fff);
    if rest >= 0x7c00 {
        return f32::from_bits(sign | 0x7f80_0000 | ((rest & 0x3ff) << 13));
    }
    // Multiplying by 2^112 moves the exponent from one bias to the other, subnormals included.
    let magnitude = f32::from_bits(rest << 13) * f32::from_bits(0x7780_0000);
    f32::from_bits(magnitude.to_bits() | sign)
}

/// Single precision to half, rounded to nearest; too large becomes the largest finite.
pub fn f32_to_half(x: f32) -> u16 {
    let sign = ((x.to_bits() >> 16) & 0x8000) as u16;
    let magnitude = x.abs().min(65504.0);
    let bits = magnitude.to_bits();
    if magnitude < f32::from_bits(0x3880_0000) {
        // Subnormal: units of 2^-24.
        return sign | (magnitude * 16_777_216.0).round_ties_even() as u16;
    }
    let rounded = bits + 0xfff + ((bits >> 13) & 1);
    sign | ((rounded >> 13) - (112 << 10)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed | 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / 8_388_608.0 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    fn q4_1(rows: usize, blocks: usize) -> Vec<u8> {
        let noise = noise(rows * blocks * 20, 7);
        let mut bytes: Vec<u8> = noise.iter().map(|x| (x * 128.0) as i32 as u8).collect();
        for block in bytes.chunks_exact_mut(20) {
            block[..2].copy_from_slice(&f32_to_half(0.02).to_le_bytes());
            block[2..4].copy_from_slice(&f32_to_half(-0.15).to_le_bytes());
        }
        bytes
    }

    fn check(matrix: &Matrix, features: usize, width: usize) {
        for rows in [1, 2, 3, 7, 8, 13] {
            let x = noise(rows * width, 3);
            let mut rounded = Activations::default();
            rounded.round(Isa::Plain, &x, width);
            let mut weights = vec![0f32; width];
            let mut expect = vec![0f32; rows * matrix.features()];
            for feature in 0..features {
                matrix.row(feature, &mut weights);
                for t in 0..rows {
                    let x = &x[t * width..][..width];
                    expect[t * matrix.features() + feature] = x.iter().zip(&weights).map(|(a, b)| a * b).sum();
                }
            }
            for isa in Isa::available() {
                let mut out = vec![f32::NAN; rows * matrix.features()];
                matrix.multiply(isa, &rounded, &mut out);
                for (at, (out, expect)) in out.iter().zip(&expect).enumerate() {
                    assert!((out - expect).abs() < 0.1, "{isa:?} {rows} rows, at {at}: {out}, not {expect}");
                }
            }
        }
    }

    #[test]
    fn every_instruction_set_multiplies_eight_bits_alike() {
        let (features, width) = (40, 96);
        let weights = noise(features * width, 11);
        let mut matrix = Matrix::zeros(features, width, false);
        matrix.fill(0, features, |first, count| Rows::Floats(weights[first * width..][..count * width].to_vec()));
        let mut row = vec![0f32; width];
        matrix.row(17, &mut row);
        for (a, b) in row.iter().zip(&weights[17 * width..]) {
            assert!((a - b).abs() < 0.005, "eight bits keep {b}, not {a}");
        }
        check(&matrix, features, width);
    }

    #[test]
    fn every_instruction_set_multiplies_four_bits_alike() {
        let (features, width) = (32, 64);
        let bytes = q4_1(features, width / BLOCK);
        let line = width / BLOCK * 20;
        let mut matrix = Matrix::zeros(features, width, true);
        matrix.fill(0, features, |first, count| Rows::Q4_1(&bytes[first * line..][..count * line]));
        check(&matrix, features, width);
    }

    #[test]
    fn halves_survive_a_round_trip() {
        for half in 0..0x7c00u16 {
            for half in [half, half | 0x8000] {
                assert_eq!(f32_to_half(half_to_f32(half)), half);
            }
        }
        assert!(half_to_f32(0x7e00).is_nan());
        assert_eq!(half_to_f32(0xfc00), f32::NEG_INFINITY);
        assert_eq!(half_to_f32(f32_to_half(1e9)), 65504.0);
    }
}
