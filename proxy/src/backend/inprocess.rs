//! The backend inside this process: a GGUF model that generates text, or an embedding model, behind the same door as the servers.

use super::Reply;
use super::config::Settings;
use super::verdict::Verdict;
use crate::canon::{EmbedCall, Embedded, Event, Fault, FaultKind};
use crate::wire::Target;
use crate::wire::request::{Outgoing, Request};
use std::path::Path;
use std::sync::Arc;

#[cfg(not(feature = "local"))]
pub(super) struct Local;

#[cfg(not(feature = "local"))]
impl Local {
    pub fn load(name: &Arc<str>, _: &Path, _: &Settings) -> Arc<Self> {
        tracing::error!(backend = &**name, "this tidegate was built without the feature `local`");
        Arc::new(Self)
    }
    pub fn settled(&self) -> bool {
        true
    }
    pub fn is_ready(&self) -> bool {
        false
    }
    pub fn error(&self) -> Option<String> {
        Some("this tidegate was built without the feature `local`".into())
    }
    pub fn in_flight(&self) -> usize {
        0
    }
    pub fn embeds(&self) -> bool {
        true
    }
    pub fn send(&self, _: &Request, _: &Target, _: &Arc<str>) -> Result<(Outgoing, Reply), Verdict> {
        Err(Self::none())
    }
    pub async fn embed(self: &Arc<Self>, _: &EmbedCall) -> Result<(Embedded, Vec<String>), Verdict> {
        Err(Self::none())
    }
    pub async fn count(&self, _: &Request, _: &Target) -> Result<u64, Verdict> {
        Err(Self::none())
    }
    fn none() -> Verdict {
        Verdict::Another(Fault::new(FaultKind::BackendUnavailable, "This gateway was built without local models."))
    }
}

#[cfg(feature = "local")]
pub(super) use here::Local;

#[cfg(feature = "local")]
mod here {
    use super::{
        Arc, EmbedCall, Embedded, Event, Fault, FaultKind, Outgoing, Path, Reply, Request, Settings, Target, Verdict,
    };
    use crate::backend::embed::makes_none;
    use crate::backend::local::{
        Choice, EncodeError, EncodeJob, Encoder, End, Engine, Format, Job, Options, Piece, Refusal, SubmitError,
    };
    use crate::canon::EmbedInput;
    use crate::canon::call::{self, Content, Thinking, Tool, ToolChoice};
    use crate::canon::{Call, Delta, Part, StopReason, Usage};
    use crate::wire::request::generates_nothing;
    use crate::wire::{Dialect, Written};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::mpsc;

    /// Sampling where the caller says nothing: small models ramble at 1.0.
    const TEMPERATURE: f32 = 0.7;
    const TOP_P: f32 = 0.95;

    /// A model in this process: being loaded, ready, or failed.
    pub struct Local {
        engine: OnceLock<Result<Model, String>>,
        /// Its weights are an embedding model's.
        embeds: bool,
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

        /// Its name, and how many tokens it can read of a request or a text.
        fn about(&self) -> (&str, usize) {
            match self {
                Self::Text(engine) => (&engine.info().name, engine.info().context_length),
                Self::Vectors(encoder) => (encoder.name(), encoder.longest()),
            }
        }
    }

    /// Counts a request in flight.
    struct Busy<'a>(&'a AtomicUsize);

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
            let embeds = Encoder::is_one(weights);
            let local = Arc::new(Self { engine: OnceLock::new(), embeds, in_flight: AtomicUsize::new(0) });
            let (name, weights, cell) = (name.clone(), weights.to_owned(), local.clone());
            let options = Options {
                threads: settings.threads.unwrap_or(0),
                context: settings.context,
                slots: settings.slots.unwrap_or(4),
                queue: settings.queue.unwrap_or(64),
            };
            let load = move || {
                let began = std::time::Instant::now();
                let engine = Model::load(&weights, &options, embeds);
                match &engine {
                    Ok(engine) => {
                        let (model, context) = engine.about();
                        tracing::info!(
                            backend = &*name,
                            model,
                            context,
                            seconds = began.elapsed().as_secs_f32(),
                            "local model loaded"
                        );
                    }
                    Err(error) => tracing::error!(backend = &*name, error, "local model not loaded"),
                }
                let _ = cell.engine.set(engine);
            };
            if let Err(error) = std::thread::Builder::new().name("load".into()).spawn(load) {
                let _ = local.engine.set(Err(format!("its thread could not be started: {error}")));
            }
            local
        }

        pub fn settled(&self) -> bool {
            self.engine.get().is_some()
        }

        pub fn is_ready(&self) -> bool {
            matches!(self.engine.get(), Some(Ok(_)))
        }

        /// Why it could not be loaded.
        pub fn error(&self) -> Option<String> {
            self.engine.get()?.as_ref().err().cloned()
        }

        pub fn in_flight(&self) -> usize {
            self.in_flight.load(Ordering::Relaxed)
        }

        /// Its weights are an embedding model's.
        pub fn embeds(&self) -> bool {
            self.embeds
        }

        fn model(&self) -> Result<&Model, Verdict> {
            match self.engine.get() {
                None => Err(unavailable("The model is being loaded; try again in a moment.")),
                Some(Err(_)) => Err(unavailable("The model could not be loaded; the gateway's log says why.")),
                Some(Ok(model)) => Ok(model),
            }
        }

        /// Makes vectors, and names what had to be dropped. Whoever drops this while waiting cancels it.
        pub async fn embed(self: &Arc<Self>, call: &EmbedCall) -> Result<(Embedded, Vec<String>), Verdict> {
            let Model::Vectors(encoder) = self.model()? else { return Err(Verdict::Final(makes_none())) };
            let mut dropped = Vec::new();
            let job = encode_job(call, encoder.width(), &mut dropped).map_err(Verdict::Final)?;
            let _busy = Busy::new(&self.in_flight);
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
            let Model::Text(engine) = self.model()? else { return Err(Verdict::Final(generates_nothing())) };
            let call = request.call_for_others().map_err(Verdict::Final)?;
            let mut dropped = Vec::new();
            let job = job(call, target, organization, &mut dropped).map_err(Verdict::Final)?;
            let pieces = engine.submit(job).map_err(not_taken)?;
            let (events, receiver) = mpsc::channel(64);
            tokio::task::spawn_local(translate(pieces, events, self.clone()));
            let written = Written { dropped, ..Written::default() };
            Ok((Outgoing { dialect: Dialect::Chat, written, hide_usage: false }, Reply::Events(receiver)))
        }

        /// The tokens of a request's prompt, exactly.
        pub async fn count(&self, request: &Request, target: &Target) -> Result<u64, Verdict> {
            let Model::Text(engine) = self.model()? else { return Err(Verdict::Final(generates_nothing())) };
            let call = request.call_for_others().map_err(Verdict::Final)?;
            // Nothing of it is remembered, so it is nobody's.
            let job = job(call, target, &Arc::default(), &mut Vec::new()).map_err(Verdict::Final)?;
            let mut pieces = engine.submit(Job { max_tokens: Some(0), ..job }).map_err(not_taken)?;
            match pieces.recv().await {
                Some(Piece::Start { prompt_tokens }) => Ok(prompt_tokens as u64),
                Some(Piece::Refused(refusal)) => Err(Verdict::Final(refused(refusal))),
                _ => Err(unavailable("The model did not count the prompt.")),
            }
        }
    }

    fn unavailable(message: &str) -> Verdict {
        Verdict::Another(Fault::new(FaultKind::BackendUnavailable, message))
    }

    fn refused(Refusal { place, message }: Refusal) -> Fault {
        Fault { param: place.map(Into::into), ..Fault::invalid(message) }
    }

    fn not_taken(error: SubmitError) -> Verdict {
        match error {
            SubmitError::Full => {
                Verdict::Another(Fault::new(FaultKind::BackendBusy, "The model's queue is full; try again later."))
            }
            SubmitError::Stopped => unavailable("The model has stopped."),
        }
    }

    /// What the encoder is asked, or why it cannot be.
    fn encode_job(call: &EmbedCall, width: usize, dropped: &mut Vec<String>) -> Result<EncodeJob, Fault> {
        let text = |input: &EmbedInput| match input {
            EmbedInput::Text(text) => Ok(text.clone()),
            EmbedInput::Tokens(_) => {
                let message = "This model takes texts only: `input` must be a string or a list of strings, not tokens.";
                Err(Fault::unsupported("input", message))
            }
        };
        let dimensions = call.dimensions.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if dimensions.is_some_and(|length| length > width) {
            let message = format!("This model's vectors have {width} numbers: `dimensions` can be at most that.");
            return Err(Fault::unsupported("dimensions", message));
        }
        let texts = call.inputs.iter().map(text).collect::<Result<_, _>>()?;
        dropped.extend(call.user.iter().map(|_| "user".to_owned()));
        dropped.extend(call.extra.iter().cloned());
        Ok(EncodeJob { texts, truncate: call.truncate.unwrap_or(true), dimensions })
    }

    /// What the engine is asked, or why it cannot be.
    fn job(call: &Call, target: &Target, organization: &Arc<str>, dropped: &mut Vec<String>) -> Result<Job, Fault> {
        for content in call.turns.iter().flat_map(|turn| &turn.content) {
            if matches!(content, Content::Image(_)) {
                return Err(Fault::unsupported("messages", "This model reads text only; remove the image part."));
            }
        }
        if call.choices > 1 {
            return Err(Fault::unsupported("n", "This model gives one answer a request; set `n` to 1."));
        }
        if !matches!(call.thinking, None | Some(Thinking::Off)) {
            dropped.push("thinking".into());
        }
        let extra = |names: &[&str]| call.extra.iter().find(|(name, _)| names.contains(&name.as_str()))?.1.parse().ok();
        let (min_p, repetition) = (extra(&["min_p"]), extra(&["repetition_penalty", "repeat_penalty"]));
        let known = ["min_p", "repetition_penalty", "repeat_penalty"];
        dropped.extend(call.extra.iter().map(|(name, _)| name.clone()).filter(|name| !known.contains(&name.as_str())));
        // The chat template reads messages as OpenAI writes them: that dialect says them, and refuses what cannot be dropped.
        let mut plain = Call { thinking: None, format: None, ..call.clone() };
        plain.tools.retain(|tool| {
            let Tool::Hosted { kind, .. } = tool else { return true };
            dropped.push(format!("tools.{kind}"));
            false
        });
        if plain.tools.is_empty() && matches!(call.tool_choice, Some(ToolChoice::Required | ToolChoice::Named(_))) {
            return Err(Fault::unsupported(
                "tool_choice",
                "There is no function among the tools that could be called.",
            ));
        }
        let written = Dialect::Chat.codec().write_call(&plain, target)?;
        let mut body: serde_json::Value = serde_json::from_slice(&written.body)
            .map_err(|error| Fault::internal(format!("a call was written that is no JSON: {error}")))?;
        dropped.extend(written.dropped.into_iter().filter(|name| !call.extra.iter().any(|(extra, _)| extra == name)));
        let number = |value: Option<f64>, otherwise: f32| value.map_or(otherwise, |value| value as f32);
        let count = |value: Option<u64>| value.map(|value| usize::try_from(value).unwrap_or(usize::MAX));
        Ok(Job {
            messages: body["messages"].take(),
            tools: Some(body["tools"].take()).filter(|_| call.tool_choice != Some(ToolChoice::None)),
            choice: match &call.tool_choice {
                Some(ToolChoice::Required) => Choice::Required,
                Some(ToolChoice::Named(name)) => Choice::Named(name.clone()),
                Some(ToolChoice::Auto | ToolChoice::None) | None => Choice::Auto,
            },
            parallel: call.parallel_tools != Some(false),
            format: format(call.format.as_ref())?,
            owner: organization.clone(),
            max_tokens: count(call.max_tokens),
            temperature: number(call.temperature, TEMPERATURE),
            top_p: number(call.top_p, TOP_P),
            top_k: count(call.top_k).unwrap_or(0),
            min_p: number(min_p, 0.0),
            repetition_penalty: number(repetition, 1.0),
            presence_penalty: number(call.presence_penalty, 0.0),
            frequency_penalty: number(call.frequency_penalty, 0.0),
            seed: call.seed.map(|seed| seed as u64),
            stop: call.stop.clone(),
        })
    }

    fn format(asked: Option<&call::Format>) -> Result<Format, Fault> {
        let Some(asked) = asked else { return Ok(Format::Free) };
        let call::Format::Schema { json, .. } = asked else { return Ok(Format::Json) };
        let mut json: serde_json::Value = serde_json::from_str(json)
            .map_err(|error| Fault::invalid(format!("The schema is no JSON: {error}")).with_param("response_format"))?;
        Ok(match json["schema"].take() {
            serde_json::Value::Null => Format::Json,
            schema => Format::Schema(schema),
        })
    }

    /// The engine's pieces as canonical events. Dropping the receiver ends the job: nobody listens.
    async fn translate(mut pieces: mpsc::Receiver<Piece>, events: mpsc::Sender<Event>, local: Arc<Local>) {
        let _busy = Busy::new(&local.in_flight);
        let mut answer = Writing { seed: fastrand::u64(..), open: false, calls: 0 };
        let mut ended = false;
        while !ended {
            let piece = tokio::select! {
                piece = pieces.recv() => piece,
                () = events.closed() => break,
            };
            let mut out = Vec::new();
            ended = answer.write(piece, &mut out);
            for event in out {
                if events.send(event).await.is_err() {
                    ended = true;
                }
            }
        }
    }

    /// An answer on its way into events.
    struct Writing {
        /// Makes the ids of calls unlike those of other answers.
        seed: u64,
        /// A text part is open.
        open: bool,
        calls: usize,
    }

    impl Writing {
        /// Writes a piece, and says whether it was the last.
        fn write(&mut self, piece: Option<Piece>, out: &mut Vec<Event>) -> bool {
            match piece {
                Some(Piece::Start { prompt_tokens }) => {
                    out.push(Event::Start { id: None, model: None });
                    out.push(Event::Usage(Usage { input: Some(prompt_tokens as u64), ..Usage::default() }));
                }
                Some(Piece::Text(text)) => {
                    if !std::mem::replace(&mut self.open, true) {
                        out.push(Event::Open(Part::Text));
                    }
                    out.push(Event::Delta(Delta::Text(text)));
                }
                Some(Piece::Call(call)) => {
                    self.close(out);
                    let id = format!("call_{:016x}{}", self.seed, self.calls);
                    self.calls += 1;
                    out.push(Event::Open(Part::ToolCall { id, name: call.name }));
                    out.push(Event::Delta(Delta::Arguments(call.arguments)));
                    out.push(Event::Close);
                }
                Some(Piece::End { reason, prompt_tokens, cached_tokens, completion_tokens }) => {
                    self.close(out);
                    out.push(Event::Usage(Usage {
                        input: Some(prompt_tokens as u64),
                        cache_read: Some(cached_tokens as u64),
                        output: Some(completion_tokens as u64),
                        ..Usage::default()
                    }));
                    out.push(Event::Stop(match reason {
                        End::Stop if self.calls > 0 => StopReason::ToolUse,
                        End::Stop => StopReason::EndTurn,
                        End::StopSequence(text) => StopReason::StopSequence(Some(text)),
                        End::Length => StopReason::MaxTokens,
                    }));
                    return true;
                }
                Some(Piece::Refused(refusal)) => {
                    out.push(Event::Fault(refused(refusal)));
                    return true;
                }
                Some(Piece::Failed(message)) => {
                    out.push(Event::Fault(Fault::new(FaultKind::BackendError, message)));
                    return true;
                }
                None => {
                    let message = "The model stopped in the middle of its answer.";
                    out.push(Event::Fault(Fault::new(FaultKind::BackendError, message)));
                    return true;
                }
            }
            false
        }

        fn close(&mut self, out: &mut Vec<Event>) {
            if std::mem::take(&mut self.open) {
                out.push(Event::Close);
            }
        }
    }
}
