//! What a sentence-transformers folder says of its model: sizes, tokens, and how rows become one vector.
//!
//! `config.json`, `model.safetensors` and `tokenizer.json` must be there. `modules.json` with what it names, and
//! `sentence_bert_config.json`, are obeyed where they are: what they ask for and we cannot do is an error, since the vectors would
//! be others than everybody else's. Without them rows are averaged and the mean is brought to length one.

use super::super::gguf::LoadError;
use serde_json::Value;
use std::path::{Path, PathBuf};
use tokenizers::Tokenizer;

const COMPLETE: &str = "a folder needs config.json, tokenizer.json and model.safetensors of one BERT model, as sentence-transformers saves them";
const SERVE: &str = "use an embedding model of the BERT family, or serve this one with another server";

/// See the module.
pub struct Folder {
    path: PathBuf,
    /// The file of the weights.
    pub weights: PathBuf,
    /// Numbers in a row, and so in a vector.
    pub width: usize,
    /// Numbers in the middle of a layer.
    pub inner: usize,
    /// How many layers there are.
    pub layers: usize,
    /// Parts of a row that attend by themselves.
    pub heads: usize,
    /// Tokens there are.
    pub vocabulary: usize,
    /// Positions there are rows for.
    pub positions: usize,
    /// Segments there are rows for.
    pub segments: usize,
    /// Keeps norms from dividing by zero.
    pub epsilon: f64,
    /// Between the two products of a layer.
    pub activation: Activation,
    /// Tokens of a text, the marks at its ends included; what is beyond is cut.
    pub longest: usize,
    /// How rows become a vector.
    pub pooling: Pooling,
    /// Whether it is brought to length one.
    pub normalize: bool,
}

/// `hidden_act`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// With the error function itself.
    Gelu,
    /// Its approximation.
    GeluTanh,
    /// Nothing below zero.
    Relu,
}

/// How the rows of a text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// The first row.
    First,
    /// The largest of each column.
    Max,
}

impl Folder {
    /// Whether weights at this path are a folder of this kind, or the file in one.
    pub fn is_one(weights: &Path) -> bool {
        weights.is_dir() || is_file(weights)
    }

    /// Reads everything but the weights and the tokens.
    pub fn open(weights: &Path) -> Result<Folder, LoadError> {
        let is_file = is_file(weights);
        let path = if is_file { weights.parent().unwrap_or(Path::new("")).to_owned() } else { weights.to_owned() };
        let file = if is_file { weights.to_owned() } else { path.join("model.safetensors") };
        let fail = |problem: String| LoadError::new(&path, problem, COMPLETE);
        let config = json(&path.join("config.json"))?.ok_or_else(|| fail("it holds no config.json".into()))?;
        let cannot = |problem: String| LoadError::new(&path, problem, SERVE);
        let kind = config["model_type"].as_str().unwrap_or("unknown");
        if kind != "bert" {
            return Err(cannot(format!("it is of the type `{kind}`, and only `bert` is known here")));
        }
        if config["position_embedding_type"].as_str().is_some_and(|kind| kind != "absolute") {
            return Err(cannot("its positions are not absolute".into()));
        }
        let size = |name: &str| {
            let size = config[name].as_u64().and_then(|size| usize::try_from(size).ok()).filter(|size| *size > 0);
            size.ok_or_else(|| fail(format!("its config.json says no `{name}`")))
        };
        let activation = match config["hidden_act"].as_str().unwrap_or("gelu") {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => return Err(cannot(format!("its activation `{other}` is not known here"))),
        };
        let positions = size("max_position_embeddings")?;
        let sentences = json(&path.join("sentence_bert_config.json"))?;
        let said = sentences.and_then(|said| said["max_seq_length"].as_u64());
        let longest = said.map_or(positions, |said| positions.min(usize::try_from(said).unwrap_or(usize::MAX)));
        let (pooling, normalize) = modules(&path)?;
        let folder = Folder {
            weights: file,
            width: size("hidden_size")?,
            inner: size("intermediate_size")?,
            layers: size("num_hidden_layers")?,
            heads: size("num_attention_heads")?,
            vocabulary: size("vocab_size")?,
            positions,
            segments: size("type_vocab_size")?,
            epsilon: config["layer_norm_eps"].as_f64().unwrap_or(1e-12),
            activation,
            // Room for both marks and a token between them.
            longest: longest.max(3),
            pooling,
            normalize,
            path,
        };
        if !folder.width.is_multiple_of(folder.heads) {
            return Err(folder.fault("its rows cannot be divided among its heads"));
        }
        Ok(folder)
    }

    /// The tokenizer, without the cutting and filling that some files ask for.
    pub fn tokenizer(&self) -> Result<Tokenizer, LoadError> {
        let unreadable =
            |error: &dyn std::fmt::Display| self.fault(format!("its tokenizer.json cannot be read: {error}"));
        let mut tokenizer =
            Tokenizer::from_file(self.path.join("tokenizer.json")).map_err(|error| unreadable(&error))?;
        tokenizer.with_truncation(None).map_err(|error| unreadable(&error))?;
        tokenizer.with_padding(None);
        Ok(tokenizer)
    }

    /// An error about this folder.
    pub fn fault(&self, problem: impl Into<String>) -> LoadError {
        LoadError::new(&self.path, problem, COMPLETE)
    }

    /// Its own name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// What stands behind the model: pooling, and whether vectors are brought to length one.
fn modules(path: &Path) -> Result<(Pooling, bool), LoadError> {
    let Some(modules) = json(&path.join("modules.json"))? else { return Ok((Pooling::Mean, true)) };
    let cannot = |problem: String| LoadError::new(path, problem, SERVE);
    let (mut pooling, mut normalize) = (Pooling::Mean, false);
    for module in modules.as_array().into_iter().flatten() {
        let kind = module["type"].as_str().unwrap_or_default();
        match kind.rsplit('.').next().unwrap_or_default() {
            "Transformer" => {}
            "Normalize" => normalize = true,
            "Pooling" => {
                let inside = path.join(module["path"].as_str().unwrap_or_default()).join("config.json");
                let config = json(&inside)?.unwrap_or_default();
                let modes = config.as_object().into_iter().flatten();
                let modes = modes.filter(|(name, on)| name.starts_with("pooling_mode_") && **on == Value::Bool(true));
                let modes: Vec<&str> = modes.map(|(name, _)| name.as_str()).collect();
                pooling = match modes[..] {
                    ["pooling_mode_mean_tokens"] => Pooling::Mean,
                    ["pooling_mode_cls_token"] => Pooling::First,
                    ["pooling_mode_max_tokens"] => Pooling::Max,
                    _ => return Err(cannot(format!("its pooling {modes:?} is not known here"))),
                };
            }
            _ => return Err(cannot(format!("its module `{kind}` is not known here"))),
        }
    }
    Ok((pooling, normalize))
}

/// A file of JSON, if it is there.
fn json(path: &Path) -> Result<Option<Value>, LoadError> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(LoadError::new(path, error.to_string(), COMPLETE)),
    };
    serde_json::from_slice(&text).map(Some).map_err(|error| LoadError::new(path, error.to_string(), COMPLETE))
}

/// The weights themselves, not the folder they are in.
fn is_file(weights: &Path) -> bool {
    weights.extension().is_some_and(|kind| kind == "safetensors")
}
