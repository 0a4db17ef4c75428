//! What the books say as metrics: the same facts as the records, summed as they close.
//!
//! Finding a labelled counter means hashing all its labels; a request touches a dozen. So the handles of a combination that
//! was seen before are kept per thread.

use super::journal::Journal;
use super::others::Others;
use crate::canon::{Outcome, Record, UsageSource};
use crate::wire::Times;
use arc_swap::ArcSwap;
use foldhash::HashMap;
use prometheus::core::Collector;
use prometheus::{
    CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const TOKENS: [f64; 14] =
    [1., 4., 16., 64., 256., 1024., 4096., 16384., 65536., 262_144., 1_048_576., 4_194_304., 16_777_216., 67_108_864.];
const DURATION: [f64; 14] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST_TOKEN: [f64; 23] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1., 2.5, 5., 7.5, 10., 15., 20., 30., 45., 60.,
    120., 300.,
];
const PER_TOKEN: [f64; 13] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1., 2.5];
const OVERHEAD: [f64; 14] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25];

/// Labels of the OpenTelemetry GenAI families (semantic conventions for generative AI metrics).
const GEN_AI: [&str; 5] = [
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
    "gen_ai_original_model",
];

/// The metric families of the books.
pub(super) struct Series {
    tokens: IntCounterVec,
    requests: IntCounterVec,
    cost: CounterVec,
    overhead: HistogramVec,
    sources: IntCounterVec,
    disconnects: IntCounterVec,
    records: IntCounterVec,
    pending: IntGauge,
    spool: IntGauge,
    failing: IntGauge,
    token_usage: HistogramVec,
    duration: HistogramVec,
    first_token: HistogramVec,
    per_token: HistogramVec,
    /// Load, prompt evaluation, evaluation.
    backend_times: [HistogramVec; 3],
    /// Accounts without labels of their own.
    others: ArcSwap<Others>,
}

/// Where a record is counted, in words from closed sets.
pub(super) struct Labels {
    /// Configured model name or pattern, else `unknown`.
    pub route: Arc<str>,
    /// The fault's label, else empty.
    pub error: &'static str,
    /// The backend's kind, else empty.
    pub provider: &'static str,
}

/// The handles of one combination of labels that ended well.
struct Handles {
    /// Keeps the strings alive whose addresses are the key.
    _labels: [Arc<str>; 6],
    /// What organization and project are called.
    account: [Arc<str>; 2],
    requests: IntCounter,
    /// Only for requests that reached a backend: the others must not make empty series.
    served: Option<Served>,
}

struct Served {
    tokens: [IntCounter; 5],
    token_usage: [Histogram; 2],
    duration: Histogram,
    first_token: Histogram,
    per_token: Histogram,
    overhead: Histogram,
    source: IntCounter,
}

type Key = [usize; 8];
thread_local! {
    static HANDLES: RefCell<HashMap<Key, Rc<Handles>>> = RefCell::default();
}

impl Series {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        fn add<C: Collector + Clone + 'static>(
            registry: &Registry,
            family: Result<C, prometheus::Error>,
        ) -> Result<C, prometheus::Error> {
            let family = family?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        }
        let counter =
            |name: &str, help: &str, labels: &[&str]| add(registry, IntCounterVec::new(Opts::new(name, help), labels));
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help));
        let histogram = |name: &str, help: &str, buckets: &[f64], labels: &[&str]| {
            add(registry, HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels))
        };
        let gen_ai = |extra: &'static str| [GEN_AI.as_slice(), &[extra]].concat();
        Ok(Self {
            tokens: counter(
                "tidegate_tokens_total",
                "Tokens booked, by kind; sums up to the ledger.",
                &["organization", "project", "model", "backend", "kind"],
            )?,
            requests: counter(
                "tidegate_requests_total",
                "Requests that ended; error_type says on whose side one failed.",
                &["organization", "project", "endpoint", "model", "status", "error_type"],
            )?,
            cost: add(
                registry,
                CounterVec::new(
                    Opts::new("tidegate_cost_total", "Price of the tokens booked."),
                    &["organization", "project", "model", "currency"],
                ),
            )?,
            overhead: histogram(
                "tidegate_overhead_seconds",
                "Time the gateway itself took for a request.",
                &OVERHEAD,
                &["endpoint"],
            )?,
            sources: counter(
                "tidegate_usage_source_total",
                "Where the token counts of a record come from.",
                &["source", "backend"],
            )?,
            disconnects: counter(
                "tidegate_client_disconnects_total",
                "Clients that left before their reply was complete.",
                &["endpoint", "phase"],
            )?,
            records: counter("tidegate_usage_records_total", "Usage records by what became of them.", &["outcome"])?,
            pending: gauge("tidegate_usage_pending", "Records in the journal that are not in the database yet.")?,
            spool: gauge("tidegate_usage_spool_bytes", "Size of the journal on disk.")?,
            failing: gauge("tidegate_usage_journal_failing", "1 while the journal cannot be written, 0 otherwise.")?,
            token_usage: histogram(
                "gen_ai_client_token_usage",
                "Tokens of a request.",
                &TOKENS,
                &gen_ai("gen_ai_token_type"),
            )?,
            duration: histogram(
                "gen_ai_server_request_duration_seconds",
                "From the request's head to the reply's end.",
                &DURATION,
                &gen_ai("error_type"),
            )?,
            first_token: histogram(
                "gen_ai_server_time_to_first_token_seconds",
                "From the request's head to the first token.",
                &FIRST_TOKEN,
                &gen_ai("error_type"),
            )?,
            per_token: histogram(
                "gen_ai_server_time_per_output_token_seconds",
                "Time per generated token of a stream after the first.",
                &PER_TOKEN,
                &gen_ai("error_type"),
            )?,
            backend_times: {
                let times = |name: &str, help: &str| histogram(name, help, &FIRST_TOKEN, &["backend", "model"]);
                [
                    times("tidegate_backend_load_seconds", "Having the model in memory, as the backend tells.")?,
                    times("tidegate_backend_prompt_eval_seconds", "Reading the prompt, as the backend tells.")?,
                    times("tidegate_backend_eval_seconds", "Generating, as the backend tells.")?,
                ]
            },
            others: ArcSwap::default(),
        })
    }

    /// Counts a closed record.
    pub(super) fn count(&self, record: &Record, labels: &Labels) {
        if record.outcome == Outcome::ClientGone {
            let phase = if record.first_token_ms.is_some() { "streaming" } else { "waiting" };
            self.disconnects.with_label_values(&[&*record.endpoint, phase]).inc();
        }
        let handles = self.handles(record, labels);
        handles.requests.inc();
        if let (Some(cost), Some(currency)) = (record.cost, &record.currency) {
            let [organization, project] = &handles.account;
            self.cost.with_label_values(&[&**organization, &**project, &*labels.route, &**currency]).inc_by(cost);
        }
        let Some(served) = &handles.served else { return };
        let counts = [
            record.input_tokens,
            record.output_tokens,
            record.cache_read_tokens,
            record.cache_write_tokens,
            record.reasoning_tokens,
        ];
        for (counter, count) in served.tokens.iter().zip(counts) {
            if let Some(count) = count.filter(|count| *count > 0) {
                counter.inc_by(count);
            }
        }
        served.source.inc();
        served.duration.observe(record.duration_ms / 1e3);
        served.overhead.observe(record.overhead_ms / 1e3);
        // Dashboards take these for what was measured: nothing that was guessed goes into them.
        let reported = record.usage_source == UsageSource::Reported;
        if reported {
            for (histogram, count) in served.token_usage.iter().zip(counts) {
                histogram.observe(count.unwrap_or(0) as f64);
            }
        }
        if let Some(first) = record.first_token_ms {
            served.first_token.observe(first / 1e3);
            // All tokens of a whole reply come at once, however long each took.
            if let Some(tokens) = record.output_tokens.filter(|tokens| reported && record.stream && *tokens > 1) {
                served.per_token.observe((record.duration_ms - first) / 1e3 / (tokens - 1) as f64);
            }
        }
    }

    /// These accounts have no labels of their own from now on.
    pub(super) fn fold(&self, others: Others) {
        self.others.store(Arc::new(others));
    }

    /// Keeps what a backend says it took for a record.
    pub(super) fn took(&self, record: &Record, labels: &Labels, times: &Times) {
        for (family, time) in self.backend_times.iter().zip([times.load, times.prompt_eval, times.eval]) {
            if let Some(time) = time {
                family.with_label_values(&[&*record.backend, &*labels.route]).observe(time);
            }
        }
    }

    /// Brings the journal's own figures up to date.
    pub(super) fn follow(&self, journal: &Journal) {
        self.pending.set(journal.pending() as i64);
        self.spool.set(journal.bytes() as i64);
        self.failing.set(i64::from(journal.is_failing()));
        for (outcome, total) in [("committed", &journal.committed), ("rejected", &journal.rejected)] {
            let counter = self.records.with_label_values(&[outcome]);
            counter.inc_by(total.load(Ordering::Relaxed).saturating_sub(counter.get()));
        }
    }

    fn handles(&self, record: &Record, labels: &Labels) -> Rc<Handles> {
        let address = |text: &Arc<str>| Arc::as_ptr(text).cast::<u8>() as usize;
        let key = [
            std::ptr::from_ref(self) as usize,
            address(&record.organization),
            address(&record.project),
            address(&record.endpoint),
            address(&labels.route),
            address(&record.backend),
            labels.error.as_ptr() as usize ^ (labels.provider.as_ptr() as usize).rotate_left(32),
            usize::from(record.status) << 8 | record.usage_source as usize,
        ];
        HANDLES.with_borrow_mut(|known| {
            if let Some(handles) = known.get(&key) {
                return handles.clone();
            }
            // Combinations are few; only many reloads of the configuration could add up.
            if known.len() > 4096 {
                known.clear();
            }
            let handles = Rc::new(self.resolve(record, labels));
            known.insert(key, handles.clone());
            handles
        })
    }

    fn resolve(&self, record: &Record, labels: &Labels) -> Handles {
        // Each configuration has its own strings, so what was known by those of an earlier one is not found by mistake.
        let account = self.others.load().labels(&record.organization, &record.project);
        let [organization, project] = account.each_ref().map(|id| &**id);
        let (endpoint, route, backend) = (&*record.endpoint, &*labels.route, &*record.backend);
        let gen_ai = |last: &'static str| [operation(endpoint), labels.provider, route, route, route, last];
        Handles {
            _labels: [
                record.organization.clone(),
                record.project.clone(),
                record.endpoint.clone(),
                labels.route.clone(),
                record.backend.clone(),
                record.model.clone(),
            ],
            account: account.clone(),
            requests: self.requests.with_label_values(&[
                organization,
                project,
                endpoint,
                route,
                &record.status.to_string(),
                labels.error,
            ]),
            served: (record.attempts > 0).then(|| Served {
                tokens: ["input", "output", "cache_read", "cache_write", "reasoning"]
                    .map(|kind| self.tokens.with_label_values(&[organization, project, route, backend, kind])),
                token_usage: ["input", "output"].map(|kind| self.token_usage.with_label_values(&gen_ai(kind))),
                duration: self.duration.with_label_values(&gen_ai(labels.error)),
                first_token: self.first_token.with_label_values(&gen_ai(labels.error)),
                per_token: self.per_token.with_label_values(&gen_ai(labels.error)),
                overhead: self.overhead.with_label_values(&[endpoint]),
                source: self.sources.with_label_values(&[record.usage_source.as_str(), backend]),
            }),
        }
    }
}

/// What OpenTelemetry calls what a path class is for; the class itself where it has no word for that.
fn operation(endpoint: &str) -> &str {
    match endpoint {
        "chat/completions" | "messages" | "responses" | "api/chat" | "plugin/ask" => "chat",
        "completions" | "api/generate" => "text_completion",
        "embeddings" | "api/embed" | "api/embeddings" => "embeddings",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_names_that_opentelemetry_gave_them() {
        for (endpoint, name) in [
            ("messages", "chat"),
            ("responses", "chat"),
            ("plugin/ask", "chat"),
            ("completions", "text_completion"),
            ("api/generate", "text_completion"),
            ("embeddings", "embeddings"),
            ("api/embed", "embeddings"),
            ("messages/count_tokens", "messages/count_tokens"),
        ] {
            assert_eq!(operation(endpoint), name);
        }
    }

    #[test]
    fn accounts_beyond_the_first_are_counted_as_one() {
        let registry = Registry::new();
        let series = Series::register(&registry).unwrap();
        let ids: [Arc<str>; 3] = ["a", "b", "c"].map(Into::into);
        series.fold(Others::beyond(1, ids.iter().map(|id| (id, []))));
        let labels = Labels { route: "m".into(), error: "", provider: "" };
        for id in &ids {
            let currency = Some("USD".into());
            let record = Record { organization: id.clone(), cost: Some(0.5), currency, ..Record::default() };
            series.count(&record, &labels);
        }
        let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "tidegate_cost_total{currency=\"USD\",model=\"m\",organization=\"a\",project=\"\"} 0.5",
            "tidegate_cost_total{currency=\"USD\",model=\"m\",organization=\"other\",project=\"other\"} 1",
        ] {
            assert!(page.lines().any(|other| other == line), "{line} in {page}");
        }
        assert!(!page.contains("organization=\"b\""), "{page}");
    }

    #[test]
    fn what_was_not_measured_is_in_no_family_of_opentelemetry() {
        let registry = Registry::new();
        let series = Series::register(&registry).unwrap();
        let labels = Labels { route: "m".into(), error: "", provider: "openai" };
        for (usage_source, stream) in [
            (UsageSource::Reported, true),
            (UsageSource::Reported, false),
            (UsageSource::Estimated, true),
            (UsageSource::Missing, true),
        ] {
            let counted = usage_source != UsageSource::Missing;
            let record = Record {
                endpoint: "responses".into(),
                attempts: 1,
                input_tokens: counted.then_some(4),
                output_tokens: counted.then_some(3),
                first_token_ms: Some(10.0),
                duration_ms: 30.0,
                usage_source,
                stream,
                ..Record::default()
            };
            series.count(&record, &labels);
        }
        let page = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for (family, observed) in [
            ("gen_ai_client_token_usage_count", 4),
            ("gen_ai_server_request_duration_seconds_count", 4),
            ("gen_ai_server_time_to_first_token_seconds_count", 4),
            ("gen_ai_server_time_per_output_token_seconds_count", 1),
        ] {
            let lines = page.lines().filter(|line| line.starts_with(family));
            let counts = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap());
            assert_eq!(counts.sum::<u32>(), observed, "{family} in {page}");
        }
    }
}
