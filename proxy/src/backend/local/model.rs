//! The transformer: llama's shape, with the two additions that make it qwen2 (biases) or qwen3 (head norms).
//!
//! One call advances any mix of rows: the next token of several sequences and a piece of another's prompt share the
//! reading of every weight. candle's own `quantized_llama` was not chosen: it copies the whole cache for each token
//! and knows one sequence at a time.

use super::cache::{Cache, Shape};
use super::kernel::{self, Isa, Work};
use super::math::{self, Add, Gate, Norm, Pairs};
use super::matrix::{Activations, FEW, Matrix};
use rayon::prelude::*;

/// The widest head; a row of one fits on the stack.
pub const MAX_HEAD: usize = 256;

/// The numbers that describe a model.
#[derive(Clone, Debug)]
pub struct Spec {
    pub layers: usize,
    pub width: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_width: usize,
    pub feed_forward: usize,
    pub vocabulary: usize,
    pub epsilon: f32,
    pub pairs: Pairs,
    /// Angle per position of each rotated pair.
    pub frequencies: Vec<f32>,
}

impl Spec {
    /// What its cache must hold.
    pub fn shape(&self) -> Shape {
        Shape { layers: self.layers, heads: self.kv_heads, width: self.head_width }
    }
}

/// One block of the transformer.
pub struct Layer {
    pub attention_norm: Vec<f32>,
    /// Queries, keys and values, one after the other.
    pub qkv: Matrix,
    pub qkv_bias: Option<Vec<f32>>,
    pub query_norm: Option<Vec<f32>>,
    pub key_norm: Option<Vec<f32>>,
    pub attention_out: Matrix,
    pub feed_norm: Vec<f32>,
    /// Gate and up, one after the other.
    pub gate_up: Matrix,
    pub down: Matrix,
}

/// A model ready to run.
pub struct Model {
    pub spec: Spec,
    pub isa: Isa,
    pub embedding: Matrix,
    pub layers: Vec<Layer>,
    pub norm: Vec<f32>,
    /// Absent when the embedding serves as the output as well.
    pub output: Option<Matrix>,
}

/// One token to be computed.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub token: u32,
    pub position: usize,
    /// Which of the caches given is its sequence's.
    pub sequence: usize,
    /// Whether its logits are wanted.
    pub answer: bool,
}

/// Buffers that live from step to step.
#[derive(Default)]
pub struct Scratch {
    x: Vec<f32>,
    normed: Vec<f32>,
    rounded: Activations,
    qkv: Vec<f32>,
    mixed: Vec<f32>,
    product: Vec<f32>,
    gate_up: Vec<f32>,
    hidden: Vec<f32>,
    /// Cosines, then sines, of each row's position.
    angles: Vec<f32>,
    logits: Vec<f32>,
}

impl Model {
    /// Computes `rows`, whose caches have room. Returns the logits of the rows that want them, one after the
    /// other, [`Model::logits_width`] numbers each.
    pub fn forward<'s>(&self, rows: &[Row], caches: &mut [Cache], scratch: &'s mut Scratch) -> &'s mut [f32] {
        let width = self.spec.width;
        scratch.x.resize(rows.len() * width, 0.0);
        scratch.normed.resize(rows.len() * width, 0.0);
        for (row, x) in rows.iter().zip(scratch.x.chunks_exact_mut(width)) {
            self.embedding.row(row.token as usize, x);
        }
        self.angles(rows, scratch);
        for (number, layer) in self.layers.iter().enumerate() {
            self.attention(number, layer, rows, caches, scratch);
            self.feed_forward(layer, scratch);
        }
        self.logits(rows, scratch)
    }

    /// Numbers per row of logits: the vocabulary, rounded up as the output matrix is.
    pub fn logits_width(&self) -> usize {
        self.output.as_ref().unwrap_or(&self.embedding).features()
    }

    /// Bytes of packed weights.
    pub fn size(&self) -> usize {
        let layer = |l: &Layer| l.qkv.size() + l.attention_out.size() + l.gate_up.size() + l.down.size();
        let output = self.output.as_ref().map_or(0, Matrix::size);
        self.embedding.size() + output + self.layers.iter().map(layer).sum::<usize>()
    }

    fn angles(&self, rows: &[Row], scratch: &mut Scratch) {
        scratch.angles.clear();
        for row in rows {
            let angle = |frequency: &f32| row.position as f32 * frequency;
            scratch.angles.extend(self.spec.frequencies.iter().map(|frequency| angle(frequency).cos()));
            scratch.angles.extend(self.spec.frequencies.iter().map(|frequency| angle(frequency).sin()));
        }
    }

    fn attention(&self, number: usize, layer: &Layer, rows: &[Row], caches: &mut [Cache], scratch: &mut Scratch) {
        let Spec { width, heads, kv_heads, head_width, .. } = self.spec;
        let (queries, keys) = (heads * head_width, kv_heads * head_width);
        self.norm(&scratch.x, &layer.attention_norm, &mut scratch.normed);
        scratch.rounded.round(self.isa, &scratch.normed, width);
        let all = layer.qkv.features();
        scratch.qkv.resize(rows.len() * all, 0.0);
        layer.qkv.multiply(self.isa, &scratch.rounded, &mut scratch.qkv);

        let pairs = self.spec.frequencies.len();
        each_row((&scratch.angles, 2 * pairs), (&mut scratch.qkv, all), |angles, qkv| {
            kernel::vectorised(self.isa, Heads { spec: &self.spec, layer, angles, qkv });
        });
        for (row, qkv) in rows.iter().zip(scratch.qkv.chunks_exact(all)) {
            let (keys, values) = (&qkv[queries..queries + keys], &qkv[queries + keys..queries + 2 * keys]);
            caches[row.sequence].store(number, row.position, keys, values);
        }

        scratch.mixed.resize(rows.len() * queries, 0.0);
        let (caches, qkv, isa) = (&*caches, &scratch.qkv, self.isa);
        let group = queries / kv_heads;
        let work = |(at, out): (usize, &mut [f32])| {
            let (row, head) = (at / kv_heads, at % kv_heads);
            let queries = &qkv[row * all + head * group..][..group];
            let Row { position, sequence, .. } = rows[row];
            caches[sequence].attend(isa, number, head, queries, position + 1, out);
        };
        scratch.mixed.par_chunks_exact_mut(group).enumerate().for_each(work);

        scratch.rounded.round(self.isa, &scratch.mixed, queries);
        self.add_product(&layer.attention_out, scratch);
    }

    fn feed_forward(&self, layer: &Layer, scratch: &mut Scratch) {
        let Spec { width, feed_forward, .. } = self.spec;
        self.norm(&scratch.x, &layer.feed_norm, &mut scratch.normed);
        scratch.rounded.round(self.isa, &scratch.normed, width);
        let rows = scratch.rounded.rows;
        let all = layer.gate_up.features();
        scratch.gate_up.resize(rows * all, 0.0);
        layer.gate_up.multiply(self.isa, &scratch.rounded, &mut scratch.gate_up);
        scratch.hidden.resize(rows * feed_forward, 0.0);
        let isa = self.isa;
        each_row((&scratch.gate_up, all), (&mut scratch.hidden, feed_forward), |both, out| {
            let (gate, up) = both.split_at(feed_forward);
            kernel::vectorised(isa, Gate { gate, up, out });
        });
        scratch.rounded.round(self.isa, &scratch.hidden, feed_forward);
        self.add_product(&layer.down, scratch);
    }

    fn logits<'s>(&self, rows: &[Row], scratch: &'s mut Scratch) -> &'s mut [f32] {
        let width = self.spec.width;
        let mut wanted = 0;
        for (number, _) in rows.iter().enumerate().filter(|(_, row)| row.answer) {
            scratch.x.copy_within(number * width..(number + 1) * width, wanted * width);
            wanted += 1;
        }
        let logits = self.logits_width();
        scratch.logits.resize(wanted * logits, 0.0);
        if wanted > 0 {
            scratch.normed.truncate(wanted * width);
            self.norm(&scratch.x[..wanted * width], &self.norm, &mut scratch.normed);
            scratch.rounded.round(self.isa, &scratch.normed, width);
            let output = self.output.as_ref().unwrap_or(&self.embedding);
            output.multiply(self.isa, &scratch.rounded, &mut scratch.logits);
        }
        &mut scratch.logits
    }

    fn norm(&self, x: &[f32], weight: &[f32], out: &mut [f32]) {
        let width = self.spec.width;
        each_row((x, width), (out, width), |x, out| {
            kernel::vectorised(self.isa, Norm { x, weight, epsilon: self.spec.epsilon, out });
        });
    }

    /// Multiplies what was rounded last and adds it to the residual stream.
    fn add_product(&self, matrix: &Matrix, scratch: &mut Scratch) {
        let width = self.spec.width;
        scratch.product.resize(scratch.rounded.rows * matrix.features(), 0.0);
        matrix.multiply(self.isa, &scratch.rounded, &mut scratch.product);
        each_row((&scratch.product, matrix.features()), (&mut scratch.x, width), |from, to| {
            kernel::vectorised(self.isa, Add { from, to });
        });
    }
}

/// Bias, head norms and rotation of one row's queries and keys; queries also get attention's scale.
struct Heads<'a> {
    spec: &'a Spec,
    layer: &'a Layer,
    /// Cosines, then sines.
    angles: &'a [f32],
    qkv: &'a mut [f32],
}

impl Work for Heads<'_> {
    #[inline(always)]
    fn run(self) {
        let Spec { heads, kv_heads, head_width, epsilon, .. } = *self.spec;
        let (cos, sin) = self.angles.split_at(self.angles.len() / 2);
        if let Some(bias) = &self.layer.qkv_bias {
            Add { from: bias, to: self.qkv }.run();
        }
        let scale = 1.0 / (head_width as f32).sqrt();
        let mut normed = [0f32; MAX_HEAD];
        for (number, head) in self.qkv.chunks_exact_mut(head_width).take(heads + kv_heads).enumerate() {
            let norm = if number < heads { &self.layer.query_norm } else { &self.layer.key_norm };
            if let Some(weight) = norm {
                let out = &mut normed[..head_width];
                Norm { x: head, weight, epsilon, out }.run();
                head.copy_from_slice(&normed[..head_width]);
            }
            math::rotate(head, self.spec.pairs, cos, sin);
            if number < heads {
                head.iter_mut().for_each(|x| *x *= scale);
            }
        }
    }
}

/// Does `work` for each row of `from` and `to`, given with their widths; by several threads if that pays.
fn each_row(from: (&[f32], usize), to: (&mut [f32], usize), work: impl Fn(&[f32], &mut [f32]) + Sync) {
    let (count, work) = (to.0.len() / to.1, |(to, from): (&mut [f32], &[f32])| work(from, to));
    if count < FEW {
        to.0.chunks_exact_mut(to.1).zip(from.0.chunks_exact(from.1)).for_each(work);
    } else {
        to.0.par_chunks_exact_mut(to.1).zip(from.0.par_chunks_exact(from.1)).for_each(work);
    }
}
