//! From a job to a sequence: the template rendered, the text tokenized, the length checked.
//!
//! This happens on a thread of its own: a long conversation takes tens of milliseconds, which belong neither to the
//! caller's runtime nor to the streams that are being decoded.

use super::call::Listener;
use super::grammar::{Grammar, Grammars, Wanted};
use super::queue::{Queue, Waiting};
use super::sampler::{Sampler, Taste};
use super::sequence::{Held, Sequence};
use super::template::Template;
use super::text::Text;
use super::vocabulary::Vocabulary;
use super::{Choice, End, Format, Job, Piece, Refusal};
use serde_json::Value;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::OnceLock;

/// A prompt that is only counted may be this many times as long as the context.
const COUNTED: usize = 8;

/// All that is needed to read prompts.
pub struct Prompts {
    pub template: Template,
    pub vocabulary: Vocabulary,
    /// Positions a sequence may have, prompt and answer together.
    pub context: usize,
    /// Made when the first answer must be held to something.
    pub grammars: OnceLock<Result<Grammars, String>>,
}

impl Prompts {
    /// Prepares jobs until the queue stops.
    pub fn serve(&self, queue: &Queue) {
        while let Some(waiting) = queue.next_job() {
            // The template comes from the model's file and the text from anywhere: a panic in either must cost one
            // job, not the thread.
            let outlet = waiting.outlet.clone();
            let prepared = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.prepare(waiting)));
            queue.prepared(prepared.unwrap_or_else(|_| {
                let message = "the prompt could not be prepared".into();
                let _ = outlet.try_send(Piece::Failed(message));
                None
            }));
        }
    }

    fn prepare(&self, Waiting { job, outlet }: Waiting) -> Option<Sequence> {
        if outlet.is_closed() {
            return None;
        }
        let asked = self.fitting_tokens(&job).and_then(|tokens| Ok((tokens, self.grammar(&job)?)));
        let (tokens, grammar) = match asked {
            Ok(asked) => asked,
            Err(refusal) => {
                let _ = outlet.try_send(Piece::Refused(refusal));
                return None;
            }
        };
        let prompt_tokens = tokens.len();
        let _ = outlet.try_send(Piece::Start { prompt_tokens });
        let limit = job.max_tokens.unwrap_or(usize::MAX).min(self.context.saturating_sub(prompt_tokens));
        if limit == 0 {
            let _ = outlet.try_send(Piece::End {
                reason: End::Length,
                prompt_tokens,
                cached_tokens: 0,
                completion_tokens: 0,
            });
            return None;
        }
        let taste = Taste {
            temperature: job.temperature,
            top_p: job.top_p,
            top_k: job.top_k,
            min_p: job.min_p,
            repetition_penalty: job.repetition_penalty,
            presence_penalty: job.presence_penalty,
            frequency_penalty: job.frequency_penalty,
        };
        // The standard library's hasher keys are the randomness at hand; nothing secret hangs on this.
        let seed = job.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
        let sampler = Sampler::new(taste, seed, &tokens);
        let names = tools(&job).iter().filter_map(|tool| Some(tool.pointer("/function/name")?.as_str()?.to_owned()));
        let names: Vec<String> = names.collect();
        let listener = (!names.is_empty()).then(|| Listener::new(names));
        let held = Held { limit, grammar, listener, one_call: !job.parallel };
        Some(Sequence::new(outlet, job.owner, tokens, held, sampler, Text::new(job.stop)))
    }

    /// What the answer is held to.
    fn grammar(&self, job: &Job) -> Result<Option<Grammar>, Refusal> {
        // What is only counted has no answer to hold.
        if job.max_tokens == Some(0) || (job.format == Format::Free && job.choice == Choice::Auto) {
            return Ok(None);
        }
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.vocabulary)).as_ref();
        let unable = |reason: &String| Refusal {
            place: Some("response_format"),
            message: format!("This model's answers cannot be held to a format: {reason}"),
        };
        let form = self.template.form;
        let wanted =
            Wanted { format: &job.format, tools: tools(job), choice: &job.choice, parallel: job.parallel, form };
        grammars.map_err(unable)?.compile(&wanted)
    }

    fn fitting_tokens(&self, job: &Job) -> Result<Vec<u32>, Refusal> {
        self.fitting(job).map_err(|message| Refusal { place: None, message })
    }

    fn fitting(&self, job: &Job) -> Result<Vec<u32>, String> {
        let prompt = self.template.render(&job.messages, job.tools.as_ref(), job.goes_on, job.thinking)?;
        let context = self.context;
        // Who wants to know how long a prompt is wants to know it of one that is too long, too; within reason.
        let room = if job.max_tokens == Some(0) { context.saturating_mul(COUNTED) } else { context };
        let least = self.vocabulary.at_least(&prompt);
        if least >= room {
            return Err(format!("the prompt has more than {least} tokens; this model's context is {context}"));
        }
        let tokens = self.vocabulary.encode(&prompt)?;
        match tokens.len() {
            0 => Err("the prompt is empty".into()),
            // One position must be left for an answer.
            count if count >= room => {
                Err(format!("the prompt has {count} tokens; this model's context is {context}, answer included"))
            }
            _ => Ok(tokens),
        }
    }
}

fn tools(job: &Job) -> &[Value] {
    job.tools.as_ref().and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
