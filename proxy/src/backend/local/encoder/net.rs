//! BERT's arithmetic on candle's tensors: token numbers in, one row of numbers for each token out.
//!
//! Texts of a step are not padded to one length: their rows lie behind each other, every product with weights runs over all of
//! them, and only attention is done text by text. So a text's numbers do not depend on its neighbours, and nothing is computed for
//! filling. candle-transformers has a BERT, too; it pads, and brings a hundred other models to compile.

use super::folder::{Activation, Folder};
use candle_core::{D, DType, Device, Result, Tensor};
use std::cell::Cell;

/// The weights, in order of use.
pub struct Net {
    words: Tensor,
    positions: Tensor,
    /// The row of the first and, here, only segment.
    segment: Tensor,
    first: Norm,
    layers: Vec<Layer>,
    heads: usize,
    activation: Activation,
    /// Bytes of the weights, which are f32 here whatever they are in their file.
    pub memory: u64,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attended: Norm,
    up: Linear,
    down: Linear,
    last: Norm,
}

struct Linear {
    /// Turned, so that rows are multiplied from the left.
    weight: Tensor,
    bias: Tensor,
}

struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f64,
}

impl Net {
    /// Takes the weights out of their file; those of another shape than the configuration says are an error.
    pub fn read(folder: &Folder) -> Result<Net> {
        let tensors = candle_core::safetensors::load(&folder.weights, &Device::Cpu)?;
        // Files of models with a head keep the encoder below a name of its own.
        let prefix = if tensors.contains_key("bert.embeddings.word_embeddings.weight") { "bert." } else { "" };
        let memory = Cell::new(0_u64);
        let take = |name: &str, shape: &[usize]| {
            let tensor = tensors.get(&format!("{prefix}{name}"));
            let tensor = tensor.ok_or_else(|| candle_core::Error::Msg(format!("tensor {name} is missing")))?;
            if tensor.dims() != shape {
                candle_core::bail!("tensor {name} has the shape {:?}, not {shape:?}", tensor.dims());
            }
            memory.set(memory.get() + (tensor.elem_count() * size_of::<f32>()) as u64);
            tensor.to_dtype(DType::F32)
        };
        let (width, inner) = (folder.width, folder.inner);
        let linear = |name: &str, inputs: usize, outputs: usize| {
            let weight = take(&format!("{name}.weight"), &[outputs, inputs])?.t()?.contiguous()?;
            Ok::<_, candle_core::Error>(Linear { weight, bias: take(&format!("{name}.bias"), &[outputs])? })
        };
        let norm = |name: &str| {
            let (weight, bias) = (take(&format!("{name}.weight"), &[width])?, take(&format!("{name}.bias"), &[width])?);
            Ok::<_, candle_core::Error>(Norm { weight, bias, epsilon: folder.epsilon })
        };
        let layer = |number: usize| {
            let at = |name: &str| format!("encoder.layer.{number}.{name}");
            Ok::<_, candle_core::Error>(Layer {
                query: linear(&at("attention.self.query"), width, width)?,
                key: linear(&at("attention.self.key"), width, width)?,
                value: linear(&at("attention.self.value"), width, width)?,
                output: linear(&at("attention.output.dense"), width, width)?,
                attended: norm(&at("attention.output.LayerNorm"))?,
                up: linear(&at("intermediate.dense"), width, inner)?,
                down: linear(&at("output.dense"), inner, width)?,
                last: norm(&at("output.LayerNorm"))?,
            })
        };
        let segments = take("embeddings.token_type_embeddings.weight", &[folder.segments, width])?;
        Ok(Net {
            words: take("embeddings.word_embeddings.weight", &[folder.vocabulary, width])?,
            positions: take("embeddings.position_embeddings.weight", &[folder.positions, width])?,
            segment: segments.narrow(0, 0, 1)?,
            first: norm("embeddings.LayerNorm")?,
            layers: (0..folder.layers).map(layer).collect::<Result<_>>()?,
            heads: folder.heads,
            activation: folder.activation,
            // All have been taken.
            memory: memory.get(),
        })
    }

    /// The rows of each text. None of them is empty or longer than there are positions.
    pub fn run(&self, texts: &[&[u32]]) -> Result<Vec<Tensor>> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.len()).collect();
        let ids = texts.concat();
        let places: Vec<u32> = lengths.iter().flat_map(|length| 0..*length as u32).collect();
        let total = ids.len();
        let ids = Tensor::from_vec(ids, total, &Device::Cpu)?;
        let places = Tensor::from_vec(places, total, &Device::Cpu)?;
        let mut x = (self.words.index_select(&ids, 0)? + self.positions.index_select(&places, 0)?)?;
        x = self.first.apply(&x.broadcast_add(&self.segment)?)?;
        for layer in &self.layers {
            let attended = layer.output.apply(&self.attend(layer, &x, &lengths)?)?;
            x = layer.attended.apply(&(attended + &x)?)?;
            let inner = layer.up.apply(&x)?;
            let inner = match self.activation {
                Activation::Gelu => inner.gelu_erf()?,
                Activation::GeluTanh => inner.gelu()?,
                Activation::Relu => inner.relu()?,
            };
            x = layer.last.apply(&(layer.down.apply(&inner)? + &x)?)?;
        }
        split(&x, &lengths)
    }

    fn attend(&self, layer: &Layer, x: &Tensor, lengths: &[usize]) -> Result<Tensor> {
        let width = x.dim(D::Minus1)?;
        let size = width / self.heads;
        let heads = |rows: &Tensor| {
            let rows = rows.reshape((rows.dim(0)?, self.heads, size))?;
            rows.transpose(0, 1)?.contiguous()
        };
        let query = (layer.query.apply(x)? / (size as f64).sqrt())?;
        let (keys, values) = (layer.key.apply(x)?, layer.value.apply(x)?);
        let parts = split(&query, lengths)?.into_iter().zip(split(&keys, lengths)?).zip(split(&values, lengths)?);
        let mut seen = Vec::with_capacity(lengths.len());
        for ((query, keys), values) in parts {
            let scores = heads(&query)?.matmul(&heads(&keys)?.t()?)?;
            let scores = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
            let shares = scores.broadcast_div(&scores.sum_keepdim(D::Minus1)?)?;
            let mixed = shares.matmul(&heads(&values)?)?;
            seen.push(mixed.transpose(0, 1)?.reshape(((), width))?);
        }
        Tensor::cat(&seen, 0)
    }
}

impl Linear {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        x.matmul(&self.weight)?.broadcast_add(&self.bias)
    }
}

impl Norm {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let spread = (centred.sqr()?.mean_keepdim(D::Minus1)? + self.epsilon)?.sqrt()?;
        centred.broadcast_div(&spread)?.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)
    }
}

/// The rows of each text out of the rows of all.
fn split(rows: &Tensor, lengths: &[usize]) -> Result<Vec<Tensor>> {
    let mut start = 0;
    let mut part = |length: &usize| {
        let part = rows.narrow(0, start, *length)?;
        start += length;
        Ok(part)
    };
    lengths.iter().map(&mut part).collect()
}
