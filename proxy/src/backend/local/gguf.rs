//! Reading a GGUF file: everything that can be wrong with it is found here, before anything runs.
//!
//! candle parses the header and checks its counts against the file's length. On top come the checks it leaves to the
//! first use: that every tensor lies inside the file (a download cut short is the commonest fault), that tensors and
//! metadata agree about sizes, and that nothing overflows on the way.

#[cfg(test)]
pub(super) mod tests;

use super::kernel::Isa;
use super::math::Pairs;
use super::matrix::{BLOCK, Matrix, Rows};
use super::model::{Layer, MAX_HEAD, Model, Spec};
use candle_core::CpuStorage;
use candle_core::quantized::GgmlDType;
use candle_core::quantized::gguf_file::{Content, TensorInfo, Value};
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Architectures this engine computes.
const SUPPORTED: [&str; 3] = ["llama", "qwen2", "qwen3"];

/// Why a model could not be loaded; printed, it names the file, what is wrong and what to do.
#[derive(Debug)]
pub struct LoadError {
    path: PathBuf,
    problem: String,
    advice: &'static str,
}

impl LoadError {
    /// An error about this file or folder.
    pub(super) fn new(path: &Path, problem: impl Into<String>, advice: &'static str) -> Self {
        Self { path: path.to_owned(), problem: problem.into(), advice }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot load the model {}: {}; {}", self.path.display(), self.problem, self.advice)
    }
}

impl std::error::Error for LoadError {}

const FETCH_AGAIN: &str = "the file is probably incomplete or damaged: fetch it again and compare its checksum";
const OTHER_FILE: &str = "use a GGUF file of a llama, qwen2 or qwen3 model, or serve this one with llama.cpp or vLLM";
const OTHER_TYPE: &str = "use a file in Q4_0 to Q8_0, Q2_K to Q6_K, F16, BF16 or F32, or serve this one with llama.cpp";
const JOIN: &str =
    "fetch all parts and join them with llama.cpp's tool: llama-gguf-split --merge FIRST-PART WHOLE.gguf";
const CHECK_PATH: &str = "check the path and the permissions of the user that runs tidegate";

/// An open GGUF file whose header has been read and checked.
pub struct Gguf {
    path: PathBuf,
    file: BufReader<File>,
    /// Its length in bytes.
    pub length: u64,
    /// Header: metadata and where the tensors are.
    pub content: Content,
    /// Tensors that were read.
    taken: HashSet<String>,
}

impl Gguf {
    /// Opens and checks; no weights are read yet.
    pub fn open(path: &Path) -> Result<Gguf, LoadError> {
        let fail = |problem: String, advice| LoadError { path: path.to_owned(), problem, advice };
        let file = File::open(path).map_err(|e| fail(e.to_string(), CHECK_PATH))?;
        let about = file.metadata().map_err(|e| fail(e.to_string(), CHECK_PATH))?;
        if !about.is_file() {
            return Err(fail("it is not a file".into(), CHECK_PATH));
        }
        let length = about.len();
        let mut file = BufReader::new(file);
        let mut magic = [0u8; 4];
        if file.read_exact(&mut magic).is_err() || &magic != b"GGUF" {
            return Err(fail("it does not start with the letters GGUF".into(), OTHER_FILE));
        }
        file.rewind().map_err(|e| fail(e.to_string(), CHECK_PATH))?;
        // candle 0.11 divides by the header's `general.alignment`; a zero there is a panic, and must not be ours.
        let read = std::panic::AssertUnwindSafe(|| Content::read(&mut file));
        let content = std::panic::catch_unwind(read)
            .map_err(|_| fail("its header makes no sense".into(), FETCH_AGAIN))?
            .map_err(|e| {
                let problem = first_line(&e);
                // Such a file is whole: fetching it again would not help.
                match problem.strip_prefix("unknown dtype for tensor ") {
                    Some(kind) => {
                        fail(format!("it has weights of ggml's type {kind}, which is not known here"), OTHER_TYPE)
                    }
                    None => fail(format!("its header cannot be read: {problem}"), FETCH_AGAIN),
                }
            })?;
        let gguf = Gguf { path: path.to_owned(), file, length, content, taken: HashSet::new() };
        // Each part is whole by itself, but only the first has the metadata, and none has all tensors.
        if let Some(parts) = gguf.number("split.count").filter(|&parts| parts > 1) {
            let number = gguf.number("split.no").unwrap_or_default().saturating_add(1);
            return Err(fail(format!("it is part {number} of {parts} of a model"), JOIN));
        }
        for (name, tensor) in &gguf.content.tensor_infos {
            gguf.check_extent(name, tensor)?;
        }
        Ok(gguf)
    }

    /// An error about this file.
    pub fn fault(&self, problem: impl Into<String>) -> LoadError {
        LoadError { path: self.path.clone(), problem: problem.into(), advice: OTHER_FILE }
    }

    fn damage(&self, problem: impl Into<String>) -> LoadError {
        LoadError { path: self.path.clone(), problem: problem.into(), advice: FETCH_AGAIN }
    }

    fn check_extent(&self, name: &str, tensor: &TensorInfo) -> Result<(), LoadError> {
        let (block, size) = (tensor.ggml_dtype.block_size(), tensor.ggml_dtype.type_size());
        let elements = tensor.shape.dims().iter().try_fold(1usize, |all, &dim| all.checked_mul(dim));
        let bytes = elements.filter(|n| n.is_multiple_of(block)).and_then(|n| (n / block).checked_mul(size));
        let Some(bytes) = bytes else {
            return Err(self.damage(format!("tensor {name} has the impossible shape {:?}", tensor.shape.dims())));
        };
        let end =
            self.content.tensor_data_offset.checked_add(tensor.offset).and_then(|at| at.checked_add(bytes as u64));
        match end {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(self.damage(format!("tensor {name} reaches beyond the file's end ({} bytes)", self.length))),
        }
    }

    /// A text in the metadata.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.content.metadata.get(key)? {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number in the metadata, of whichever width.
    pub fn number(&self, key: &str) -> Option<u64> {
        match *self.content.metadata.get(key)? {
            Value::I8(n) => n.try_into().ok(),
            Value::I16(n) => n.try_into().ok(),
            Value::I32(n) => n.try_into().ok(),
            Value::I64(n) => n.try_into().ok(),
            Value::Bool(_) => None,
            ref other => other.to_u64().ok(),
        }
    }

    /// A flag in the metadata.
    pub fn flag(&self, key: &str) -> Option<bool> {
        self.content.metadata.get(key)?.to_bool().ok()
    }

    fn real(&self, key: &str) -> Option<f32> {
        match *self.content.metadata.get(key)? {
            Value::F32(x) => Some(x),
            Value::F64(x) => Some(x as f32),
            _ => None,
        }
    }

    /// A size under the architecture's prefix, between one and a million: anything else is not a model.
    fn size(&self, key: &str) -> Result<usize, LoadError> {
        match self.number(key) {
            Some(n @ 1..=1_000_000) => Ok(n as usize),
            Some(n) => Err(self.damage(format!("its metadata gives {key} as {n}"))),
            None => Err(self.fault(format!("its metadata lacks {key}"))),
        }
    }

    /// Reads the sizes and all weights.
    pub fn model(&mut self) -> Result<Model, LoadError> {
        let spec = self.spec()?;
        let isa = Isa::detect();
        let (width, queries) = (spec.width, spec.heads * spec.head_width);
        let keys = spec.kv_heads * spec.head_width;
        let embedding = self.matrix(&[("token_embd.weight", spec.vocabulary)], width)?;
        let mut layers = Vec::with_capacity(spec.layers);
        for number in 0..spec.layers {
            let name = |part: &str| format!("blk.{number}.{part}");
            let [q, k, v] = ["attn_q.weight", "attn_k.weight", "attn_v.weight"].map(name);
            let [gate, up] = ["ffn_gate.weight", "ffn_up.weight"].map(name);
            layers.push(Layer {
                attention_norm: self.vector(&name("attn_norm.weight"), width)?,
                qkv: self.matrix(&[(&q, queries), (&k, keys), (&v, keys)], width)?,
                qkv_bias: self
                    .biases(&["attn_q.bias", "attn_k.bias", "attn_v.bias"].map(name), [queries, keys, keys])?,
                query_norm: self.optional(&name("attn_q_norm.weight"), spec.head_width)?,
                key_norm: self.optional(&name("attn_k_norm.weight"), spec.head_width)?,
                attention_out: self.matrix(&[(&name("attn_output.weight"), width)], queries)?,
                feed_norm: self.vector(&name("ffn_norm.weight"), width)?,
                gate_up: self.matrix(&[(&gate, spec.feed_forward), (&up, spec.feed_forward)], width)?,
                down: self.matrix(&[(&name("ffn_down.weight"), width)], spec.feed_forward)?,
            });
        }
        let norm = self.vector("output_norm.weight", width)?;
        let output = match self.content.tensor_infos.contains_key("output.weight") {
            true => Some(self.matrix(&[("output.weight", spec.vocabulary)], width)?),
            false => None,
        };
        self.nothing_is_left()?;
        Ok(Model { spec, isa, embedding, layers, norm, output })
    }

    /// A tensor that nobody read is a part of the model that would not be computed, such as a bias: its answers would be wrong,
    /// and nobody would know. Angles of the rotation, which old files have for each layer, are computed here.
    fn nothing_is_left(&self) -> Result<(), LoadError> {
        let left = self.content.tensor_infos.keys().filter(|name| !self.taken.contains(*name));
        match left.filter(|name| !name.contains("rot_embd")).min() {
            Some(name) => Err(self.fault(format!("its tensor {name} is a part that this engine does not compute"))),
            None => Ok(()),
        }
    }

    fn spec(&mut self) -> Result<Spec, LoadError> {
        let architecture = self.architecture()?.to_owned();
        let key = |name: &str| format!("{architecture}.{name}");
        if self.number(&key("expert_count")).unwrap_or(0) > 0 {
            return Err(self.fault("it is a mixture of experts, which this engine does not compute"));
        }
        match self.text(&key("rope.scaling.type")) {
            None | Some("none" | "") => {}
            Some(other) => return Err(self.fault(format!("its rotary scaling {other:?} is not supported here"))),
        }
        let width = self.size(&key("embedding_length"))?;
        let heads = self.size(&key("attention.head_count"))?;
        let kv_heads = match self.number(&key("attention.head_count_kv")) {
            Some(_) => self.size(&key("attention.head_count_kv"))?,
            None => heads,
        };
        let head_width = match self.number(&key("attention.key_length")) {
            Some(_) => self.size(&key("attention.key_length"))?,
            None => width / heads,
        };
        let feed_forward = self.size(&key("feed_forward_length"))?;
        let layers = self.size(&key("block_count"))?;
        let fits = kv_heads <= heads && heads.is_multiple_of(kv_heads) && head_width.is_multiple_of(16);
        let blocks = [width, feed_forward, heads * head_width].iter().all(|n| n.is_multiple_of(BLOCK));
        if !fits || !blocks || head_width == 0 || head_width > MAX_HEAD || layers > 1000 {
            return Err(self.fault(format!(
                "its sizes (width {width}, {heads}/{kv_heads} heads of {head_width}, feed-forward {feed_forward}) are \
                 not ones this engine computes"
            )));
        }
        let vocabulary = match self.content.tensor_infos.get("token_embd.weight").map(|t| t.shape.dims()) {
            Some(&[rows, _]) => rows,
            _ => return Err(self.fault("it has no token_embd.weight matrix")),
        };
        let rotated = self.number(&key("rope.dimension_count")).map_or(head_width, |n| n as usize);
        if rotated == 0 || rotated > head_width || !rotated.is_multiple_of(2) {
            return Err(self.damage(format!("it rotates {rotated} of {head_width} numbers per head")));
        }
        let base = self.real(&key("rope.freq_base")).unwrap_or(10_000.0);
        let mut frequencies: Vec<f32> =
            (0..rotated / 2).map(|pair| base.powf(-2.0 * pair as f32 / rotated as f32)).collect();
        // Llama 3.1's stretched context comes as one divisor per pair.
        if let Some(factors) = self.optional("rope_freqs.weight", rotated / 2)? {
            frequencies.iter_mut().zip(factors).for_each(|(frequency, factor)| *frequency /= factor);
        }
        Ok(Spec {
            layers,
            width,
            heads,
            kv_heads,
            head_width,
            feed_forward,
            vocabulary,
            epsilon: self.real(&key("attention.layer_norm_rms_epsilon")).unwrap_or(1e-5),
            pairs: if architecture == "llama" { Pairs::Neighbours } else { Pairs::Halves },
            frequencies,
        })
    }

    /// The architecture, if it is a supported one.
    pub fn architecture(&self) -> Result<&str, LoadError> {
        match self.text("general.architecture") {
            Some(name) if SUPPORTED.contains(&name) => Ok(name),
            Some(name) => {
                let known = SUPPORTED.join(", ");
                Err(self.fault(format!("its architecture is {name:?}, and this engine computes {known}")))
            }
            None => Err(self.fault("its metadata lacks general.architecture")),
        }
    }

    /// Numbers in all tensors.
    pub fn parameters(&self) -> u64 {
        self.content.tensor_infos.values().map(|tensor| tensor.shape.elem_count() as u64).sum()
    }

    /// The type that most numbers have.
    pub fn quantization(&self) -> String {
        let mut counts: Vec<(GgmlDType, usize)> = Vec::new();
        for tensor in self.content.tensor_infos.values() {
            match counts.iter_mut().find(|(kind, _)| *kind == tensor.ggml_dtype) {
                Some((_, count)) => *count += tensor.shape.elem_count(),
                None => counts.push((tensor.ggml_dtype, tensor.shape.elem_count())),
            }
        }
        counts.iter().max_by_key(|(_, count)| *count).map(|(kind, _)| format!("{kind:?}")).unwrap_or_default()
    }

    fn info(&self, name: &str) -> Result<(GgmlDType, Vec<usize>, u64), LoadError> {
        match self.content.tensor_infos.get(name) {
            Some(tensor) => Ok((tensor.ggml_dtype, tensor.shape.dims().to_vec(), tensor.offset)),
            None => Err(self.fault(format!("it has no tensor {name}"))),
        }
    }

    fn bytes(&mut self, name: &str) -> Result<Vec<u8>, LoadError> {
        let (kind, shape, offset) = self.info(name)?;
        let size = shape.iter().product::<usize>() / kind.block_size() * kind.type_size();
        let mut bytes = vec![0u8; size];
        let start = SeekFrom::Start(self.content.tensor_data_offset + offset);
        let read = self.file.seek(start).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| self.damage(format!("tensor {name} cannot be read: {e}")))?;
        self.taken.insert(name.to_owned());
        Ok(bytes)
    }

    /// One matrix out of one or more tensors of the same width, one below the other.
    fn matrix(&mut self, parts: &[(&str, usize)], columns: usize) -> Result<Matrix, LoadError> {
        let mut kinds = Vec::new();
        for &(name, features) in parts {
            let (kind, shape, _) = self.info(name)?;
            if shape != [features, columns] {
                return Err(self.damage(format!("tensor {name} is {shape:?}, not {:?}", [features, columns])));
            }
            if !columns.is_multiple_of(kind.block_size()) {
                return Err(self.damage(format!("tensor {name} has rows of {columns}, no multiple of its block size")));
            }
            kinds.push(kind);
        }
        let four_bits = kinds.iter().all(|kind| matches!(kind, GgmlDType::Q4_0 | GgmlDType::Q4_1));
        let total = parts.iter().map(|(_, features)| features).sum();
        let mut matrix = Matrix::zeros(total, columns, four_bits);
        let mut first = 0;
        for (&(name, features), kind) in parts.iter().zip(kinds) {
            let bytes = self.bytes(name)?;
            let line = columns / kind.block_size() * kind.type_size();
            matrix.fill(first, features, |row, count| {
                let bytes = &bytes[row * line..][..count * line];
                match kind {
                    GgmlDType::Q4_0 if four_bits => Rows::Q4_0(bytes),
                    GgmlDType::Q4_1 if four_bits => Rows::Q4_1(bytes),
                    _ => Rows::Floats(floats(kind, bytes, count * columns)),
                }
            });
            first += features;
        }
        Ok(matrix)
    }

    fn vector(&mut self, name: &str, length: usize) -> Result<Vec<f32>, LoadError> {
        let (kind, shape, _) = self.info(name)?;
        if shape != [length] {
            return Err(self.damage(format!("tensor {name} is {shape:?}, not {:?}", [length])));
        }
        let bytes = self.bytes(name)?;
        Ok(floats(kind, &bytes, length))
    }

    fn optional(&mut self, name: &str, length: usize) -> Result<Option<Vec<f32>>, LoadError> {
        match self.content.tensor_infos.contains_key(name) {
            true => self.vector(name, length).map(Some),
            false => Ok(None),
        }
    }

    fn biases(&mut self, names: &[String; 3], lengths: [usize; 3]) -> Result<Option<Vec<f32>>, LoadError> {
        if !names.iter().any(|name| self.content.tensor_infos.contains_key(name)) {
            return Ok(None);
        }
        let mut all = Vec::new();
        for (name, length) in names.iter().zip(lengths) {
            all.extend(self.vector(name, length)?);
        }
        Ok(Some(all))
    }
}

/// `count` numbers out of the file's blocks; `bytes` are whole blocks of `kind`, as the callers checked.
fn floats(kind: GgmlDType, bytes: &[u8], count: usize) -> Vec<f32> {
    match kind.from_data(Cow::Borrowed(bytes)).dequantize(count) {
        Ok(CpuStorage::F32(floats)) => floats,
        _ => unreachable!("candle dequantizes on the CPU to f32"),
    }
}

/// candle's errors may carry a backtrace below their first line.
pub(super) fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
