//! An embedding model inside this process: texts in, vectors out.
//!
//! Like the engine for text it has a thread of its own, a pool bounded to the threads it was given, and a queue with an end;
//! nothing runs on the caller's runtime. Each step takes texts of all running jobs in turn, so that one of thousands of texts
//! does not make a short one wait for all of them. Dropping the receiver cancels a job before its next step.

mod folder;
mod net;
#[cfg(test)]
mod tests;

use super::gguf::{LoadError, first_line};
use super::{Hold, Options, Stop, SubmitError, pool};
use candle_core::Tensor;
use folder::{Folder, Pooling};
use net::Net;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use tokenizers::Tokenizer;
use tokio::sync::oneshot;

/// Tokens computed in one step: products of this many rows are near the best speed, and a step takes about a second on two cores.
const STEP: usize = 1024;
/// Bytes of a text looked at for each token that is kept. Words have fewer; more would only keep the thread busy with what is cut.
const BYTES: usize = 1024;

/// Texts to be embedded.
#[derive(Debug, Clone)]
pub struct EncodeJob {
    /// In order.
    pub texts: Vec<String>,
    /// Texts beyond the model's length are cut; otherwise the job is refused.
    pub truncate: bool,
    /// Vectors are cut to this length, and brought to length one again.
    pub dimensions: Option<usize>,
}

/// What came of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct Encoded {
    /// A vector for each text.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens read, the marks at the ends of each text included.
    pub tokens: usize,
}

/// Why nothing came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodeError {
    /// The caller's doing; a sentence for it.
    Invalid(String),
    /// Ours.
    Failed(String),
}

/// A loaded model and its thread. Dropping it stops that after the step it is in.
pub struct Encoder {
    name: String,
    longest: usize,
    width: usize,
    size: u64,
    memory: u64,
    queue: Hold<Queue>,
}

impl Encoder {
    /// Whether weights at this path are an embedding model's.
    pub fn is_one(weights: &Path) -> bool {
        Folder::is_one(weights)
    }

    /// Reads the weights, blocking.
    ///
    /// # Errors
    /// What is wrong with them, and what to do.
    pub fn load(weights: &Path, options: &Options) -> Result<Encoder, LoadError> {
        let folder = Folder::open(weights)?;
        let tokenizer = folder.tokenizer()?;
        let words = tokenizer.get_vocab_size(true);
        if words > folder.vocabulary {
            return Err(folder.fault(format!("it names {words} tokens, but has weights for {}", folder.vocabulary)));
        }
        let net = Net::read(&folder)
            .map_err(|error| folder.fault(format!("its weights cannot be read: {}", first_line(&error))))?;
        let pool = pool(options).map_err(|error| folder.fault(error))?;
        let longest = options.context.map_or(folder.longest, |context| folder.longest.min(context.max(3)));
        let queue = Arc::new(Queue { state: Mutex::default(), changed: Condvar::new(), limit: options.queue.max(1) });
        let (name, width, memory) = (folder.name(), folder.width, net.memory);
        let size = std::fs::metadata(&folder.weights).map_or(0, |file| file.len());
        let last = Hold(queue.clone());
        let worker = Worker {
            net,
            tokenizer,
            longest,
            pooling: folder.pooling,
            normalize: folder.normalize,
            slots: options.slots.max(1),
        };
        let work = move || pool.install(|| worker.serve(&last.0));
        let started = std::thread::Builder::new().name("local-vectors".into()).spawn(work);
        started.map_err(|error| folder.fault(format!("its thread cannot be started: {error}")))?;
        Ok(Encoder { name, longest, width, size, memory, queue: Hold(queue) })
    }

    /// Its folder's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tokens of a text that are read.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Numbers in a vector.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Bytes of its file of weights.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes its weights take in memory.
    pub fn memory(&self) -> u64 {
        self.memory
    }

    /// Its thread has ended: no job is taken any more.
    pub fn has_stopped(&self) -> bool {
        self.queue.0.has_stopped()
    }

    /// Ends its thread, as a panic would.
    #[cfg(test)]
    pub fn stop(&self) {
        self.queue.0.stop();
    }

    /// Queues a job; never blocks. Dropping the receiver cancels it.
    ///
    /// # Errors
    /// The queue is full, or the model has stopped.
    pub fn submit(&self, job: EncodeJob) -> Result<oneshot::Receiver<Result<Encoded, EncodeError>>, SubmitError> {
        self.queue.0.submit(job)
    }
}

type Outlet = oneshot::Sender<Result<Encoded, EncodeError>>;

/// Where jobs wait to be begun.
struct Queue {
    state: Mutex<Waiting>,
    changed: Condvar,
    limit: usize,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<(EncodeJob, Outlet)>,
    /// Jobs that the thread has room for beside those it had when it last looked: so many of these do not wait for a slot.
    room: usize,
    stopped: bool,
}

impl Queue {
    fn submit(&self, job: EncodeJob) -> Result<oneshot::Receiver<Result<Encoded, EncodeError>>, SubmitError> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(SubmitError::Stopped);
        }
        let limit = self.limit.saturating_add(state.room);
        if state.jobs.len() >= limit {
            state.jobs.retain(|(_, outlet)| !outlet.is_closed());
            if state.jobs.len() >= limit {
                return Err(SubmitError::Full);
            }
        }
        let (outlet, answer) = oneshot::channel();
        state.jobs.push_back((job, outlet));
        self.changed.notify_all();
        Ok(answer)
    }

    /// Up to `room` jobs to begin, waiting for one if there is nothing else to do; `None` once stopped.
    fn take(&self, room: usize, idle: bool) -> Option<Vec<(EncodeJob, Outlet)>> {
        let mut state = self.state.lock();
        state.room = room;
        while idle && !state.stopped && state.jobs.is_empty() {
            self.changed.wait(&mut state);
        }
        if state.stopped {
            return None;
        }
        let begun = room.min(state.jobs.len());
        state.room -= begun;
        Some(state.jobs.drain(..begun).collect())
    }
}

impl Stop for Queue {
    /// No more work: who waits is told by the loss of its sender.
    fn stop(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        state.jobs.clear();
        self.changed.notify_all();
    }

    fn has_stopped(&self) -> bool {
        self.state.lock().stopped
    }
}

/// The thread that computes.
struct Worker {
    net: Net,
    tokenizer: Tokenizer,
    longest: usize,
    pooling: Pooling,
    normalize: bool,
    slots: usize,
}

/// A job that has begun.
struct Running {
    /// Texts that nobody has looked at.
    unread: std::vec::IntoIter<String>,
    /// The tokens of those before them.
    texts: Vec<Vec<u32>>,
    vectors: Vec<Vec<f32>>,
    truncate: bool,
    dimensions: Option<usize>,
    outlet: Outlet,
}

impl Running {
    fn new(EncodeJob { texts, truncate, dimensions }: EncodeJob, outlet: Outlet) -> Running {
        let vectors = Vec::with_capacity(texts.len());
        Running { unread: texts.into_iter(), texts: Vec::new(), vectors, truncate, dimensions, outlet }
    }

    fn is_complete(&self) -> bool {
        self.vectors.len() == self.texts.len() && self.unread.as_slice().is_empty()
    }
}

impl Worker {
    fn serve(&self, queue: &Queue) {
        let mut running: VecDeque<Running> = VecDeque::new();
        while let Some(jobs) = queue.take(self.slots - running.len(), running.is_empty()) {
            running.extend(jobs.into_iter().map(|(job, outlet)| Running::new(job, outlet)));
            running.retain(|job| !job.outlet.is_closed());
            for _ in 0..running.len() {
                let Some(mut job) = running.pop_front() else { break };
                match self.read(&mut job) {
                    Ok(()) => running.push_back(job),
                    // Who has left does not mind.
                    Err(error) => drop(job.outlet.send(Err(error))),
                }
            }
            if running.is_empty() {
                continue;
            }
            if let Err(error) = self.step(&mut running) {
                for job in running.drain(..) {
                    let _ = job.outlet.send(Err(EncodeError::Failed(error.to_string())));
                }
            }
            for _ in 0..running.len() {
                let Some(job) = running.pop_front() else { break };
                if !job.is_complete() {
                    running.push_back(job);
                    continue;
                }
                let tokens = job.texts.iter().map(Vec::len).sum();
                // Who has left does not mind.
                let _ = job.outlet.send(Ok(Encoded { vectors: job.vectors, tokens }));
            }
        }
    }

    /// Texts as tokens, no more of a job than a step could take: reading thousands of texts takes seconds, too.
    fn read(&self, job: &mut Running) -> Result<(), EncodeError> {
        let mut ahead: usize = job.texts[job.vectors.len()..].iter().map(Vec::len).sum();
        while ahead < STEP {
            let Some(text) = job.unread.next() else { break };
            let tokens = self.tokens(&text, job.truncate)?;
            ahead += tokens.len();
            job.texts.push(tokens);
        }
        Ok(())
    }

    /// A text's tokens between its marks.
    fn tokens(&self, text: &str, truncate: bool) -> Result<Vec<u32>, EncodeError> {
        let looked = text.floor_char_boundary(self.longest * BYTES);
        let encoding = self.tokenizer.encode_fast(&text[..looked], true);
        let encoding = encoding.map_err(|error| EncodeError::Failed(error.to_string()))?;
        let tokens = encoding.get_ids();
        if tokens.len() <= self.longest && looked == text.len() {
            return Ok(tokens.to_vec());
        }
        if !truncate {
            return Err(EncodeError::Invalid(format!(
                "An input has more than the {} tokens this model reads of a text; shorten it, or allow `truncate`.",
                self.longest
            )));
        }
        // The last is the mark at the end.
        let kept = tokens.len().min(self.longest).saturating_sub(1);
        Ok([&tokens[..kept], &tokens[tokens.len() - 1..]].concat())
    }

    /// Computes a step's worth: of each job in turn a text, as many as fit, at least one.
    fn step(&self, running: &mut VecDeque<Running>) -> candle_core::Result<()> {
        let (mut owners, mut texts, mut tokens, mut round) = (Vec::new(), Vec::new(), 0, 0);
        'full: loop {
            let before = texts.len();
            for (at, job) in running.iter().enumerate() {
                let Some(text) = job.texts.get(job.vectors.len() + round) else { continue };
                if tokens > 0 && tokens + text.len() > STEP {
                    break 'full;
                }
                tokens += text.len();
                owners.push(at);
                texts.push(text.as_slice());
            }
            round += 1;
            if texts.len() == before {
                break;
            }
        }
        let rows = self.net.run(&texts)?;
        for (at, rows) in owners.into_iter().zip(rows) {
            let job = &mut running[at];
            let vector = self.pool(&rows, job.dimensions)?;
            job.vectors.push(vector);
        }
        Ok(())
    }

    /// One vector out of a text's rows.
    fn pool(&self, rows: &Tensor, dimensions: Option<usize>) -> candle_core::Result<Vec<f32>> {
        let pooled = match self.pooling {
            Pooling::Mean => rows.mean(0)?,
            Pooling::First => rows.get(0)?,
            Pooling::Max => rows.max(0)?,
        };
        let mut vector: Vec<f32> = pooled.to_vec1()?;
        vector.truncate(dimensions.unwrap_or(usize::MAX));
        if self.normalize {
            let length = vector.iter().map(|number| f64::from(*number).powi(2)).sum::<f64>().sqrt().max(1e-12);
            vector.iter_mut().for_each(|number| *number = (f64::from(*number) / length) as f32);
        }
        Ok(vector)
    }
}
