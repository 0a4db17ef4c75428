//! Models inside this process: a small inference engine for GGUF files on the CPU; and, in `encoder`, embedding models.
//!
//! It exists so that a gateway without any backend still answers, and so that tests meet a real model. candle reads
//! the files; the arithmetic is here (see `matrix.rs` for why), and depends on nothing else of Tidegate.
//!
//! One [`Engine`] is one model. It owns a thread that computes, one that prepares prompts, and a pool bounded to the
//! threads it was given; nothing runs on the caller's runtime. A [`Job`] becomes a stream of [`Piece`]s; dropping the
//! receiver cancels it, and not reading pauses it without holding up anyone else.

mod cache;
mod call;
mod encoder;
mod gguf;
mod grammar;
#[allow(unsafe_code, reason = "SIMD kernels; each block says why it is sound")]
mod kernel;
mod math;
mod matrix;
mod model;
mod prompt;
mod python;
mod queue;
mod remembered;
mod sampler;
mod sequence;
mod tell;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod vocabulary;
mod worker;

pub use call::ToolCall;
pub use encoder::{EncodeError, EncodeJob, Encoded, Encoder};
pub use gguf::LoadError;

use gguf::Gguf;
use prompt::Prompts;
use queue::Queue;
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use template::Template;
use tokio::sync::mpsc::Receiver;
use vocabulary::Vocabulary;
use worker::Worker;

/// Context of a model when the operator names none: each position costs memory, and models claim up to millions.
const DEFAULT_CONTEXT: usize = 8192;

/// How to run a model.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads that compute; 0 takes all cores.
    pub threads: usize,
    /// Positions per sequence, prompt and answer together. At most the model's own; by default that, up to 8192.
    pub context: Option<usize>,
    /// Sequences that run at the same time.
    pub slots: usize,
    /// Jobs that may wait for a slot, at least one.
    pub queue: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { threads: 0, context: None, slots: 4, queue: 64 }
    }
}

/// What is known about a loaded model.
#[derive(Clone, Debug)]
pub struct ModelInfo {
    /// The name in the file, or the file's own.
    pub name: String,
    /// `llama`, `qwen2` or `qwen3`.
    pub architecture: String,
    /// Positions a sequence may have here.
    pub context_length: usize,
    /// Weights, in numbers.
    pub parameters: u64,
    /// The type most of the file's weights have, such as `Q4_1`.
    pub quantization: String,
    /// Bytes of the file.
    pub file_size: u64,
    /// Bytes the packed weights take in memory.
    pub memory: u64,
    /// Whether it can be told to think or not.
    pub knows_thinking: bool,
    /// Its chat template lets a prompt end within an answer.
    pub goes_on: bool,
}

/// A generation to be done. [`Job::new`] gives one without limits and penalties.
#[derive(Clone, Debug)]
pub struct Job {
    /// OpenAI chat `messages`; content is a string or text parts.
    pub messages: Value,
    /// The answer goes on with the last message, the model's own: only where the template lets it, see [`ModelInfo::goes_on`].
    pub goes_on: bool,
    /// OpenAI chat `tools`, all of them functions. With them the answer is searched for calls.
    pub tools: Option<Value>,
    /// Whether one of them must be called.
    pub choice: Choice,
    /// Whether there may be more than one call.
    pub parallel: bool,
    /// Whether to think first, said to models that can be told; `None` leaves it to them.
    pub thinking: Option<bool>,
    /// What the answer must be, where it is no call.
    pub format: Format,
    /// Whose it is. What one owner's prompts left in memory is never used for another's: the time that it saves would
    /// tell what they said.
    pub owner: Arc<str>,
    /// Tokens to generate at most; by default as many as the context holds. With 0 the prompt is only counted, which
    /// takes no slot.
    pub max_tokens: Option<usize>,
    /// 0 always takes the likeliest token.
    pub temperature: f32,
    /// Keeps the likeliest tokens that together have this share, at least one; 1 keeps all.
    pub top_p: f32,
    /// Keeps that many likeliest tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps tokens at least this likely, relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides the scores of tokens in the prompt or answer; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Taken from the scores of tokens in the answer.
    pub presence_penalty: f32,
    /// Taken from the scores of tokens in the answer, each time they occur.
    pub frequency_penalty: f32,
    /// The same seed gives the same answer to the same job.
    pub seed: Option<u64>,
    /// Texts that end the answer and are not part of it.
    pub stop: Vec<String>,
}

impl Job {
    /// `messages`, sampled at temperature 1 without cuts.
    pub fn new(messages: Value) -> Job {
        Job {
            messages,
            goes_on: false,
            tools: None,
            choice: Choice::Auto,
            parallel: true,
            thinking: None,
            format: Format::Free,
            owner: "".into(),
            max_tokens: None,
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            stop: Vec::new(),
        }
    }
}

/// Which tool is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The model decides.
    Auto,
    /// Any, but one must be.
    Required,
    /// This one.
    Named(String),
}

/// What an answer must be.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// Anything.
    Free,
    /// Any JSON object.
    Json,
    /// JSON of this schema.
    Schema(Value),
}

/// Why a job cannot be done as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The field that is to blame, by OpenAI's name, where it is one.
    pub place: Option<&'static str>,
    /// For the caller to read.
    pub message: String,
}

/// A part of an answer: `Start · (Text | Call | Token)* · End`, or `Failed` at any point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The prompt was read.
    Start {
        /// Its length.
        prompt_tokens: usize,
    },
    /// Whole characters, never part of a stop sequence.
    Text(String),
    /// A call of a tool, complete.
    Call(ToolCall),
    /// A token was generated. What could be said with it stands before this, which may be nothing: of a call, half a character,
    /// perhaps a stop sequence. Who waits knows that the answer goes on, and who leaves how long it was.
    Token {
        /// Tokens generated so far.
        completion_tokens: usize,
    },
    /// The last piece of an answer that went well.
    End {
        /// Why it ended.
        reason: End,
        /// Length of the prompt.
        prompt_tokens: usize,
        /// So many of the prompt's tokens were in memory from an earlier job of the same owner.
        cached_tokens: usize,
        /// Tokens generated, the one that ended it included.
        completion_tokens: usize,
    },
    /// The last piece of one that did not.
    Failed(String),
    /// The only piece of a job that would fail whenever it is tried: a prompt beyond the context, messages the template
    /// refuses, a schema that is none.
    Refused(Refusal),
}

impl Piece {
    fn stopped() -> Piece {
        Piece::Failed("the engine is shutting down".into())
    }
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The model was done.
    Stop,
    /// It said this one of the job's stop sequences.
    StopSequence(String),
    /// `max_tokens` or the end of the context.
    Length,
}

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubmitError {
    /// The queue is full; later there may be room.
    Full,
    /// The engine has stopped.
    Stopped,
}

impl std::fmt::Display for SubmitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SubmitError::Full => "the local model's queue is full",
            SubmitError::Stopped => "the local model has stopped",
        })
    }
}

impl std::error::Error for SubmitError {}

/// A loaded model and its threads. Dropping it stops them after the step they are in.
pub struct Engine {
    info: ModelInfo,
    prompts: Arc<Prompts>,
    queue: Hold<Queue>,
}

impl Engine {
    /// Reads and prepares the weights, blocking; needs a second or so per gigabyte.
    pub fn load(path: &Path, options: &Options) -> Result<Engine, LoadError> {
        let mut gguf = Gguf::open(path)?;
        let architecture = gguf.architecture()?.to_owned();
        let trained = gguf.number(&format!("{architecture}.context_length")).unwrap_or(DEFAULT_CONTEXT as u64);
        // A sliding window would change attention beyond it; up to it, it is the same.
        let window = gguf.number(&format!("{architecture}.attention.sliding_window")).filter(|&n| n > 0);
        let most = trained.min(window.unwrap_or(trained)).max(1) as usize;
        let context = options.context.unwrap_or(DEFAULT_CONTEXT).clamp(1, most);
        let vocabulary = Vocabulary::read(&gguf)?;
        let bos = vocabulary::token_text(&gguf, "tokenizer.ggml.bos_token_id");
        let eos = vocabulary::token_text(&gguf, "tokenizer.ggml.eos_token_id");
        let template = Template::new(gguf.text("tokenizer.chat_template"), &bos, &eos).map_err(|e| gguf.fault(e))?;
        let pool = pool(options).map_err(|e| gguf.fault(e))?;
        let model = pool.install(|| gguf.model())?;
        if vocabulary.len() > model.spec.vocabulary {
            return Err(gguf.fault(format!(
                "it names {} tokens, but has weights for {}",
                vocabulary.len(),
                model.spec.vocabulary
            )));
        }
        let info = ModelInfo {
            name: match gguf.text("general.name") {
                Some(name) if !name.is_empty() => name.to_owned(),
                _ => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            },
            architecture,
            context_length: context,
            parameters: gguf.parameters(),
            quantization: gguf.quantization(),
            file_size: gguf.length,
            memory: model.size() as u64,
            knows_thinking: template.knows_thinking,
            goes_on: template.goes_on(),
        };
        let prompts = Arc::new(Prompts { template, vocabulary, context, grammars: OnceLock::new() });
        let queue = Arc::new(Queue::new(options.queue));
        let engine = Engine { info, prompts: prompts.clone(), queue: Hold(queue) };
        let slots = options.slots;
        let started = engine.spawn("local-prompts", |prompts, queue| prompts.serve(queue)).and_then(|()| {
            engine.spawn("local-engine", move |prompts, queue| Worker::new(&model, prompts, &pool, slots).serve(queue))
        });
        started.map_err(|e| gguf.fault(format!("its threads cannot be started: {e}")))?;
        Ok(engine)
    }

    /// What was loaded.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// One of its threads has ended: no job is taken any more.
    pub fn has_stopped(&self) -> bool {
        self.queue.0.has_stopped()
    }

    /// Queues a job and returns where its pieces arrive; never blocks. Dropping the receiver cancels the job.
    pub fn submit(&self, job: Job) -> Result<Receiver<Piece>, SubmitError> {
        self.queue.0.submit(job)
    }

    fn spawn(&self, name: &str, work: impl FnOnce(&Prompts, &Queue) + Send + 'static) -> std::io::Result<()> {
        let (prompts, last) = (self.prompts.clone(), Hold(self.queue.0.clone()));
        std::thread::Builder::new().name(name.into()).spawn(move || work(&prompts, &last.0)).map(|_| ())
    }
}

/// What refuses jobs when it is told to.
trait Stop {
    fn stop(&self);
    fn has_stopped(&self) -> bool;
}

/// A hold on a queue: let go, a handle that is dropped or a thread that ends, by a panic too, it stops, and jobs are refused
/// instead of waiting for ever.
struct Hold<Q: Stop>(Arc<Q>);

impl<Q: Stop> Drop for Hold<Q> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// The threads that compute.
fn pool(options: &Options) -> Result<rayon::ThreadPool, String> {
    let threads = rayon::ThreadPoolBuilder::new().num_threads(options.threads);
    let threads = threads.thread_name(|number| format!("local-{number}"));
    threads.build().map_err(|error| format!("its threads cannot be started: {error}"))
}
