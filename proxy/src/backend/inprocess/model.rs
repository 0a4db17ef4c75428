//! A model in this process, from the file to what is asked of it.

use super::{answer, ask};
use crate::backend::Reply;
use crate::backend::config::Settings;
use crate::backend::embed::makes_none;
use crate::backend::local::{EncodeError, Encoder, Engine, Job, Options, Piece, SubmitError};
use crate::backend::verdict::Verdict;
use crate::canon::{About, EmbedCall, Embedded, Fault, FaultKind, Usage};
use crate::wire::request::{Outgoing, Request, generates_nothing};
use crate::wire::{Dialect, Prefill, Target, Unasked, Written};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// One that stopped is not loaded more often than this: where each request makes it stop, there is time for others between.
const ANEW: Duration = Duration::from_secs(60);

/// A model in this process: being loaded, ready, failed or stopped.
pub struct Local {
    name: Arc<str>,
    weights: PathBuf,
    options: Options,
    /// Its weights are an embedding model's.
    embeds: bool,
    model: ArcSwapOption<Result<Arc<Model>, String>>,
    /// When it was last begun to be loaded.
    began: Mutex<Instant>,
    in_flight: AtomicUsize,
}

enum Model {
    Text(Engine),
    Vectors(Encoder),
}

impl Model {
    fn load(weights: &Path, options: &Options, embeds: bool) -> Result<Self, String> {
        let loaded = if embeds {
            Encoder::load(weights, options).map(Self::Vectors)
        } else {
            Engine::load(weights, options).map(Self::Text)
        };
        loaded.map_err(|error| error.to_string())
    }

    /// Its threads have ended: one of them panicked.
    fn has_stopped(&self) -> bool {
        match self {
            Self::Text(engine) => engine.has_stopped(),
            Self::Vectors(encoder) => encoder.has_stopped(),
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Text(engine) => &engine.info().name,
            Self::Vectors(encoder) => encoder.name(),
        }
    }

    fn about(&self) -> About {
        match self {
            Self::Text(engine) => {
                let info = engine.info();
                About {
                    format: "gguf",
                    family: info.architecture.clone(),
                    parameters: Some(info.parameters),
                    quantization: info.quantization.clone(),
                    size: info.file_size,
                    memory: info.memory,
                    context: info.context_length as u64,
                    width: None,
                }
            }
            Self::Vectors(encoder) => About {
                format: "safetensors",
                // The only one there is, see `encoder/folder.rs`.
                family: "bert".into(),
                parameters: None,
                quantization: String::new(),
                size: encoder.size(),
                memory: encoder.memory(),
                context: encoder.longest() as u64,
                width: Some(encoder.width() as u64),
            },
        }
    }
}

/// Counts a request in flight.
pub(super) struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Local {
    pub fn load(name: &Arc<str>, weights: &Path, settings: &Settings) -> Arc<Self> {
        let local = Arc::new(Self {
            name: name.clone(),
            weights: weights.to_owned(),
            options: Options {
                threads: settings.threads.unwrap_or(0),
                context: settings.context,
                slots: settings.slots.unwrap_or(4),
                queue: settings.queue.unwrap_or(64),
            },
            embeds: Encoder::is_one(weights),
            model: ArcSwapOption::empty(),
            began: Mutex::new(Instant::now()),
            in_flight: AtomicUsize::new(0),
        });
        local.begin();
        local
    }

    /// Starts the thread that loads it.
    fn begin(self: &Arc<Self>) {
        let local = self.clone();
        let load = move || {
            let (name, began) = (&*local.name, Instant::now());
            let load = AssertUnwindSafe(|| Model::load(&local.weights, &local.options, local.embeds));
            let loaded =
                catch_unwind(load).unwrap_or_else(|_| Err("loading it panicked; standard error says where".to_owned()));
            match &loaded {
                Ok(loaded) => {
                    let (model, context) = (loaded.name(), loaded.about().context);
                    tracing::info!(
                        backend = name,
                        model,
                        context,
                        seconds = began.elapsed().as_secs_f32(),
                        "local model loaded"
                    );
                }
                Err(error) => tracing::error!(backend = name, error, "local model not loaded"),
            }
            local.settle(loaded);
        };
        if let Err(error) = std::thread::Builder::new().name("load".into()).spawn(load) {
            self.settle(Err(format!("its thread could not be started: {error}")));
        }
    }

    fn settle(&self, loaded: Result<Model, String>) {
        self.model.store(Some(Arc::new(loaded.map(Arc::new))));
    }

    /// Loads it anew if its threads have ended. Called by one thread only.
    pub fn revive(self: &Arc<Self>, now: Instant) {
        let stopped = matches!(self.model.load().as_deref(), Some(Ok(model)) if model.has_stopped());
        let mut began = self.began.lock();
        if !stopped || now.duration_since(*began) < ANEW {
            return;
        }
        *began = now;
        tracing::error!(backend = &*self.name, "local model stopped; it is loaded again");
        // Not beside the new one: there may be no memory for both. For readiness it has settled all the same.
        self.settle(Err("it stopped".into()));
        self.begin();
    }

    pub fn settled(&self) -> bool {
        self.model.load().is_some()
    }

    pub fn is_ready(&self) -> bool {
        matches!(self.model.load().as_deref(), Some(Ok(model)) if !model.has_stopped())
    }

    /// Why it could not be loaded.
    pub fn error(&self) -> Option<String> {
        self.model.load().as_deref()?.as_ref().err().cloned()
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What was loaded; `None` until it is.
    pub fn about(&self) -> Option<About> {
        self.model.load().as_deref()?.as_ref().ok().map(|model| model.about())
    }

    /// Its weights are an embedding model's.
    pub fn embeds(&self) -> bool {
        self.embeds
    }

    /// How many tokens it can read of a request or a text, once it is loaded.
    pub fn context(&self) -> Option<u64> {
        self.about().map(|about| about.context)
    }

    /// Counts a request in flight until it is dropped.
    pub(super) fn busy(&self) -> Busy<'_> {
        Busy::new(&self.in_flight)
    }

    fn model(&self) -> Result<Arc<Model>, Verdict> {
        match self.model.load().as_deref() {
            None => Err(unavailable("The model is being loaded; try again in a moment.")),
            Some(Err(_)) => Err(unavailable("The model is not loaded; the gateway's log says why.")),
            Some(Ok(model)) => Ok(model.clone()),
        }
    }

    /// Makes vectors, and names what had to be dropped. Whoever drops this while waiting cancels it.
    pub async fn embed(&self, call: &EmbedCall) -> Result<(Embedded, Vec<String>), Verdict> {
        let model = self.model()?;
        let Model::Vectors(encoder) = &*model else { return Err(Verdict::Final(makes_none())) };
        let mut dropped = Vec::new();
        let job = ask::vectors(call, encoder.width(), &mut dropped).map_err(Verdict::Final)?;
        let _busy = self.busy();
        let encoded = encoder.submit(job).map_err(not_taken)?.await;
        let encoded = encoded.unwrap_or_else(|_| Err(EncodeError::Failed("it has stopped".into())));
        let encoded = encoded.map_err(|error| match error {
            EncodeError::Invalid(message) => Verdict::Final(Fault::invalid(message).with_param("input")),
            EncodeError::Failed(why) => {
                tracing::error!(why, "a local model made no vectors");
                Verdict::Another(Fault::new(FaultKind::BackendError, "The model failed on these inputs."))
            }
        })?;
        let usage = Usage { input: Some(encoded.tokens as u64), output: Some(0), ..Usage::default() };
        Ok((Embedded { vectors: encoded.vectors, usage }, dropped))
    }

    /// Queues a request of an organization; its events come from a channel.
    pub fn send(
        self: &Arc<Self>,
        request: &Request,
        target: &Target,
        organization: &Arc<str>,
    ) -> Result<(Outgoing, Reply), Verdict> {
        let model = self.model()?;
        let Model::Text(engine) = &*model else { return Err(Verdict::Unable(generates_nothing())) };
        let call = request.call_for_others().map_err(Verdict::Unable)?;
        let mut written = Written::default();
        let job = ask::text(call, &as_loaded(target, engine), organization, &mut written).map_err(Verdict::Unable)?;
        let pieces = engine.submit(job).map_err(not_taken)?;
        let (events, receiver) = mpsc::channel(64);
        tokio::task::spawn_local(answer::translate(pieces, events, self.clone()));
        Ok((Outgoing { dialect: Dialect::Chat, written, unasked: Unasked::None }, Reply::Events(receiver)))
    }

    /// The tokens of a request's prompt, exactly.
    pub async fn count(&self, request: &Request, target: &Target) -> Result<u64, Verdict> {
        let model = self.model()?;
        let Model::Text(engine) = &*model else { return Err(Verdict::Final(generates_nothing())) };
        let call = request.call_for_others().map_err(Verdict::Final)?;
        // Nothing of it is remembered, so it is nobody's.
        let target = as_loaded(target, engine);
        let job = ask::text(call, &target, &Arc::default(), &mut Written::default()).map_err(Verdict::Final)?;
        let mut pieces = engine.submit(Job { max_tokens: Some(0), ..job }).map_err(not_taken)?;
        match pieces.recv().await {
            Some(Piece::Start { prompt_tokens }) => Ok(prompt_tokens as u64),
            Some(Piece::Refused(refusal)) => Err(Verdict::Final(answer::refused(refusal))),
            _ => Err(unavailable("The model did not count the prompt.")),
        }
    }
}

/// The target as it turned out: whether it can be told to think, and an answer be begun for it, is up to its template.
fn as_loaded(target: &Target, engine: &Engine) -> Target {
    let prefill = if engine.info().goes_on { Prefill::Told } else { Prefill::Ended };
    Target { prefill, thinking_kwargs: engine.info().knows_thinking, ..target.clone() }
}

fn unavailable(message: &str) -> Verdict {
    Verdict::Another(Fault::new(FaultKind::BackendUnavailable, message))
}

fn not_taken(error: SubmitError) -> Verdict {
    match error {
        SubmitError::Full => {
            Verdict::Another(Fault::new(FaultKind::BackendBusy, "The model's queue is full; try again later."))
        }
        SubmitError::Stopped => unavailable("The model has stopped."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};
    use std::collections::HashMap;

    const CONFIG: &str = r#"{"model_type":"bert","hidden_size":8,"intermediate_size":16,"num_hidden_layers":1,"num_attention_heads":2,"vocab_size":9,"max_position_embeddings":4,"type_vocab_size":2}"#;
    const TOKENIZER: &str = r#"{"version":"1.0","model":{"type":"WordLevel","vocab":{"x":0},"unk_token":"x"}}"#;

    /// Writes an embedding model of zeros, and says how many of its numbers are computed with.
    fn write(folder: &Path, kind: DType) -> usize {
        std::fs::write(folder.join("config.json"), CONFIG).unwrap();
        std::fs::write(folder.join("tokenizer.json"), TOKENIZER).unwrap();
        let mut shapes: Vec<(String, Vec<usize>)> = ["word", "position", "token_type"]
            .into_iter()
            .zip([9, 4, 2])
            .map(|(name, rows)| (format!("embeddings.{name}_embeddings.weight"), vec![rows, 8]))
            .collect();
        for (name, to, from) in [
            ("attention.self.query", 8, 8),
            ("attention.self.key", 8, 8),
            ("attention.self.value", 8, 8),
            ("attention.output.dense", 8, 8),
            ("intermediate.dense", 16, 8),
            ("output.dense", 8, 16),
        ] {
            shapes.push((format!("encoder.layer.0.{name}.weight"), vec![to, from]));
            shapes.push((format!("encoder.layer.0.{name}.bias"), vec![to]));
        }
        for name in ["embeddings", "encoder.layer.0.attention.output", "encoder.layer.0.output"] {
            shapes.push((format!("{name}.LayerNorm.weight"), vec![8]));
            shapes.push((format!("{name}.LayerNorm.bias"), vec![8]));
        }
        let count = shapes.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        shapes.push(("pooler.dense.weight".into(), vec![8, 8]));
        let zeros = |shape: &[usize]| Tensor::zeros(shape, kind, &Device::Cpu).unwrap();
        let tensors: HashMap<_, _> = shapes.iter().map(|(name, shape)| (name.clone(), zeros(shape))).collect();
        candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
        count
    }

    /// Numbers are computed with as f32, and what is not computed with is not kept.
    #[test]
    fn weights_of_vectors_take_what_they_are_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for kind in [DType::F16, DType::F32] {
            let count = write(folder, kind);
            let options = Options { threads: 1, ..Options::default() };
            let about = Model::load(folder, &options, true).unwrap().about();
            let length = std::fs::metadata(folder.join("model.safetensors")).unwrap().len();
            assert_eq!(about.size, length, "{kind:?}");
            assert_eq!(about.memory, count as u64 * 4, "{kind:?}");
        }
    }

    #[test]
    fn a_model_that_stopped_is_not_ready_until_it_was_loaded_anew() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), DType::F32);
        let settings = serde_json::json!({"kind": "local", "weights": folder.path(), "threads": 1});
        let local = Local::load(&"here".into(), folder.path(), &serde_json::from_value(settings).unwrap());
        let wait = || {
            let began = Instant::now();
            while !local.is_ready() {
                assert!(began.elapsed() < Duration::from_secs(30), "{:?}", local.error());
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let stop = || match local.model().as_deref() {
            Ok(Model::Vectors(encoder)) => encoder.stop(),
            _ => unreachable!("an embedding model was loaded"),
        };
        wait();
        let begun = *local.began.lock();
        local.revive(begun + ANEW);
        assert_eq!(*local.began.lock(), begun, "one that works stays");
        stop();
        assert!(!local.is_ready());
        local.revive(begun + ANEW / 2);
        assert_eq!((*local.began.lock(), local.is_ready()), (begun, false), "it is too early");
        local.revive(begun + ANEW);
        assert!(local.settled());
        wait();
        stop();
        // It cannot be loaded any more: that is said, and not tried for ever.
        folder.close().unwrap();
        local.revive(begun + ANEW * 2);
        let began = Instant::now();
        while local.error().is_none_or(|error| error == "it stopped") {
            assert!(began.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(5));
        }
        local.revive(begun + ANEW * 3);
        assert_eq!((local.settled(), local.is_ready(), *local.began.lock()), (true, false, begun + ANEW * 2));
    }
}
