//! The tab of one request: opened at the door, watching the reply, closed exactly once.
//!
//! Every way out of a request drops its tab, so a record cannot be forgotten: a tab dropped without a word means that the
//! client left.

use super::Ledger;
use super::series::Labels;
use crate::canon::{Caller, Fault, FaultKind, Outcome, Prices, Record, Route, Usage, UsageSource};
use crate::wire::{Glance, Times};
use std::any::Any;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Somebody who is told when a tab closes, however that comes.
pub trait AtClose {
    /// The plugins that had a part in it, in order.
    fn acted(&self) -> Vec<String>;
    /// Words for the record.
    fn tags(&self) -> Vec<String>;
    /// The record as it goes into the books.
    fn closed(&self, record: &Record);
}

/// An open record.
pub struct Tab {
    ledger: Arc<Ledger>,
    record: Record,
    labels: Labels,
    route: Option<Arc<Route>>,
    /// Of the target of the last try, where it has prices of its own.
    price: Option<Prices>,
    usage: Usage,
    /// Frames that carried generated text: the estimate of output tokens where nobody reports them.
    pieces: u64,
    /// How many of them had passed when the backend last reported its running count.
    reported_at: u64,
    /// Prompt tokens by rule of thumb, while a backend has the request.
    input_estimate: Option<u64>,
    started: Instant,
    /// What the gateway itself took so far.
    busy: Duration,
    /// What the backend says it took.
    times: Option<Times>,
    closed: bool,
    at_close: Option<Rc<dyn AtClose>>,
    /// What the request has for as long as it is at work.
    place: Option<Box<dyn Any>>,
    /// Since when it waits for that.
    waits: Option<Instant>,
}

impl Ledger {
    /// Opens a tab for a request whose head has arrived.
    pub fn open_tab(self: &Arc<Self>, request_id: Option<&str>, endpoint: &Arc<str>, dialect: &'static str) -> Tab {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut random = [0; 10];
        // Twelve bits of a millisecond's fraction (RFC 9562 §6.2, method 3), so that ids are in the order of time within one, too.
        let fraction = u64::from(now.subsec_nanos() % 1_000_000) * 4096 / 1_000_000;
        random[..2].copy_from_slice(&(fraction as u16).to_be_bytes());
        random[2..].copy_from_slice(&fastrand::u64(..).to_ne_bytes());
        let id = uuid::Builder::from_unix_timestamp_millis(now.as_millis() as u64, &random).into_uuid();
        let record = Record {
            id,
            request_id: request_id.map_or_else(|| id.to_string(), str::to_owned),
            started_at: now.as_millis() as i64,
            endpoint: endpoint.clone(),
            dialect: word(dialect),
            ..Record::default()
        };
        let labels = Labels { route: unknown(), error: "", provider: "" };
        Tab {
            ledger: self.clone(),
            record,
            labels,
            route: None,
            price: None,
            usage: Usage::default(),
            pieces: 0,
            reported_at: 0,
            input_estimate: None,
            started: Instant::now(),
            busy: Duration::ZERO,
            times: None,
            closed: false,
            at_close: None,
            place: None,
            waits: None,
        }
    }
}

/// The model label of requests that name no configured model.
fn unknown() -> Arc<str> {
    thread_local! { static UNKNOWN: Arc<str> = "unknown".into(); }
    UNKNOWN.with(Arc::clone)
}

impl Tab {
    /// `x-request-id` of the request.
    pub fn request_id(&self) -> &str {
        &self.record.request_id
    }

    /// The account's organization; empty before the gate has decided.
    pub fn organization(&self) -> &Arc<str> {
        &self.record.organization
    }

    /// When the head had arrived, milliseconds since 1970.
    pub fn started_at(&self) -> i64 {
        self.record.started_at
    }

    /// Tries at backends so far.
    pub fn attempts(&self) -> u32 {
        self.record.attempts
    }

    /// The backend of the last try.
    pub fn backend(&self) -> &str {
        &self.record.backend
    }

    /// The model's name there.
    pub fn model(&self) -> &str {
        &self.record.model
    }

    /// Prompt tokens by rule of thumb.
    pub fn input_estimate(&self) -> u64 {
        self.input_estimate.unwrap_or(0)
    }

    /// Unique part of ids we write.
    pub fn id(&self) -> uuid::Uuid {
        self.record.id
    }

    /// The gate knows who is calling.
    pub fn admitted(&mut self, caller: &Caller) {
        self.record.organization = caller.organization.clone();
        self.record.project = caller.project.clone();
        self.record.key = caller.key.clone();
    }

    /// The body has been read.
    pub fn asked(&mut self, model: &str, stream: bool, user: Option<String>) {
        self.record.model_requested = Record::name(model).to_owned();
        self.record.stream = stream;
        self.record.user = user;
    }

    /// The plugins that had a part in it so far, in order.
    pub fn acted(&self) -> Vec<String> {
        self.at_close.as_ref().map_or_else(Vec::new, |somebody| somebody.acted())
    }

    /// Has somebody told of the end.
    pub fn at_close(&mut self, somebody: Rc<dyn AtClose>) {
        self.at_close = Some(somebody);
    }

    /// Answered by a plugin, and by no backend.
    pub fn answered_by(&mut self, plugin: &str) {
        self.record.backend = word(&format!("plugin:{plugin}"));
        self.record.model = self.record.model_requested.as_str().into();
    }

    /// A route was chosen.
    pub fn routed(&mut self, route: &Arc<Route>) {
        self.labels.route = route.name.clone();
        self.route = Some(route.clone());
    }

    /// It waits for its turn from now on.
    pub fn waits(&mut self) {
        self.waits = Some(Instant::now());
    }

    /// It has a place among those at work, which is given back (dropped) when the tab closes. Returns how long it waited.
    pub fn placed(&mut self, place: Box<dyn Any>) -> Duration {
        self.place = Some(place);
        self.went_on()
    }

    /// It does not wait any longer, and goes where no place is needed. Returns how long it waited.
    pub fn went_on(&mut self) -> Duration {
        let waited = self.waits.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.record.queue_ms = Some(millis(waited));
        waited
    }

    /// Whether it has one.
    pub fn is_placed(&self) -> bool {
        self.place.is_some()
    }

    /// A backend is about to be tried.
    pub fn tried(
        &mut self,
        backend: &Arc<str>,
        target: &Arc<str>,
        model: &Arc<str>,
        provider: &'static str,
        attempts: u32,
        price: Option<&Prices>,
    ) {
        self.record.backend = backend.clone();
        self.record.target = target.clone();
        let name = Record::name(model);
        self.record.model = if name.len() == model.len() { model.clone() } else { name.into() };
        self.record.attempts = attempts;
        self.labels.provider = provider;
        self.price = price.cloned();
        self.input_estimate = None;
    }

    /// None was tried after all.
    pub fn untried(&mut self) {
        let Record { backend, target, model, attempts, .. } = Record::default();
        self.record = Record { backend, target, model, attempts, ..std::mem::take(&mut self.record) };
        (self.labels.provider, self.price) = ("", None);
    }

    /// A backend has the request. Its prompt tokens by rule of thumb: charged when nobody reports better.
    pub fn estimate_input(&mut self, tokens: u64) {
        self.input_estimate = Some(tokens);
    }

    /// The backend that is being tried gives no reply. If it may have `worked`, what it has had of the prompt is kept apart from
    /// what is charged.
    pub fn abandoned(&mut self, worked: bool) {
        let had = self.input_estimate.take().filter(|_| worked);
        self.record.abandoned_tokens += had.unwrap_or(0);
    }

    /// The status that goes to the client.
    pub fn answered(&mut self, status: u16) {
        self.record.status = status;
    }

    /// Time the gateway itself spent on this request.
    pub fn spent(&mut self, time: Duration) {
        self.busy += time;
    }

    /// What the gateway itself took so far.
    pub fn overhead(&self) -> Duration {
        self.busy
    }

    /// Watches what passes.
    pub fn see(&mut self, glance: &Glance) {
        if glance.token {
            self.pieces += 1;
            if self.record.first_token_ms.is_none() {
                self.record.first_token_ms = Some(millis(self.started.elapsed()));
            }
        }
        if let Some(usage) = &glance.usage {
            if usage.output.is_some_and(|output| self.usage.hears(output)) {
                self.reported_at = self.pieces;
            }
            self.usage.update(usage);
        }
        if glance.times.is_some() {
            self.times = glance.times;
        }
        if let Some(stop) = &glance.stop {
            self.record.stop_reason = Some(word(stop.as_str()));
        }
    }

    /// Output tokens by rule of thumb for a whole reply that reports none.
    pub fn estimate_output(&mut self, tokens: u64) {
        if self.usage.output.is_none() {
            self.pieces = self.reported_at + tokens;
        }
    }

    /// Output tokens by rule of thumb that are not among those which were reported.
    pub fn estimate_more(&mut self, tokens: u64) {
        self.pieces += tokens;
    }

    /// The reply is complete and its last bytes are about to go out.
    pub fn done(&mut self) {
        self.close(Outcome::Ok);
    }

    /// The request ends in a fault with this status, before or within its reply.
    pub fn failed(&mut self, fault: &Fault, begun: bool) {
        self.labels.error = fault.kind.label();
        let outcome = match fault.kind.blame() {
            crate::canon::Blame::Plugin => Outcome::Plugin,
            _ if begun => Outcome::Cut,
            crate::canon::Blame::Backend => Outcome::BackendError,
            _ if fault.kind == FaultKind::ClientGone => Outcome::ClientGone,
            _ => Outcome::Refused,
        };
        if !begun {
            // Nothing was produced: an estimate would charge for air. What was reported all the same is charged.
            self.abandoned(!self.usage.is_complete());
        }
        self.close(outcome);
    }

    fn close(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        let elapsed = self.started.elapsed();
        self.settle();
        let record = &mut self.record;
        record.outcome = outcome;
        record.duration_ms = millis(elapsed);
        record.ended_at = record.started_at + elapsed.as_millis() as i64;
        record.overhead_ms = millis(self.busy);
        if let Some(since) = self.waits {
            // Its turn never came.
            record.queue_ms = Some(millis(since.elapsed()));
        }
        let now = record.ended_at;
        let model = || self.route.as_ref()?.price.as_ref()?.at(now);
        let price = self.price.as_ref().and_then(|prices| prices.at(now)).or_else(model);
        if let Some(price) = price.filter(|_| record.usage_source != UsageSource::Missing) {
            let usage = Usage {
                input: record.input_tokens,
                output: record.output_tokens,
                cache_read: record.cache_read_tokens,
                cache_write: record.cache_write_tokens,
                reasoning: None,
            };
            record.cost = Some(price.of(&usage));
            record.currency = Some(price.currency.clone());
        }
        self.place = None;
        let somebody = self.at_close.take();
        if let Some(somebody) = &somebody {
            self.record.tags = somebody.tags();
        }
        self.ledger.series.count(&self.record, &self.labels);
        if let Some(times) = &self.times {
            self.ledger.series.took(&self.record, &self.labels, times);
        }
        tracing::info!(
            request_id = self.record.request_id,
            organization = &*self.record.organization,
            project = &*self.record.project,
            endpoint = &*self.record.endpoint,
            model = self.record.model_requested,
            backend = &*self.record.backend,
            status = self.record.status,
            outcome = self.record.outcome.as_str(),
            duration_ms = self.record.duration_ms,
            input = self.record.input_tokens,
            output = self.record.output_tokens,
            "request"
        );
        if let Some(somebody) = somebody {
            somebody.closed(&self.record);
        }
        self.ledger.journal.append(std::mem::take(&mut self.record));
    }

    /// Decides what the counts are and where they come from.
    fn settle(&mut self) {
        let record = &mut self.record;
        let usage = &mut self.usage;
        // A running count is exact only up to where it was reported (Anthropic's message_start says 1); what passed since is added.
        let since = self.pieces - self.reported_at;
        record.usage_source = if usage.is_complete() && since == 0 {
            UsageSource::Reported
        } else if let Some(input) = self.input_estimate {
            usage.input = usage.input.or(Some(input));
            usage.output = Some(usage.output.unwrap_or(0) + since);
            UsageSource::Estimated
        } else {
            UsageSource::Missing
        };
        record.input_tokens = usage.input;
        record.output_tokens = usage.output;
        record.cache_read_tokens = usage.cache_read;
        record.cache_write_tokens = usage.cache_write;
        record.reasoning_tokens = usage.reasoning;
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        if !self.closed {
            if std::thread::panicking() {
                self.labels.error = "gateway_internal";
                self.record.status = 500;
                return self.close(Outcome::Cut);
            }
            if self.record.status == 0 {
                // nginx's word for a client that closed the connection before it was answered.
                self.record.status = 499;
            }
            self.labels.error = "caller_gone";
            self.close(Outcome::ClientGone);
        }
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Dialects, stop reasons and plugins are few: one allocation each per thread. Their address is a key of the metrics' handles.
fn word(text: &str) -> Arc<str> {
    thread_local! { static WORDS: std::cell::RefCell<Vec<Arc<str>>> = const { std::cell::RefCell::new(Vec::new()) }; }
    WORDS.with_borrow_mut(|words| {
        if let Some(known) = words.iter().find(|word| &***word == text) {
            return known.clone();
        }
        words.push(text.into());
        words[words.len() - 1].clone()
    })
}
