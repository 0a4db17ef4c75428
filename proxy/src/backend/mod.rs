//! Where models live: HTTP servers of several kinds, and this process itself.
//!
//! [`Backends::send`] carries a request to the first target that takes it. Everything that may be tried again is tried before
//! the first byte goes to the client, never after.

mod config;
mod endpoint;
mod health;
pub mod http;
mod inprocess;
mod kind;
#[cfg(feature = "local")]
pub mod local;
mod pick;
mod verdict;

pub use config::{Config, Settings, Timeouts};
pub use endpoint::Endpoint;
pub use kind::{Kind, Traits};

use crate::canon::header::{ANTHROPIC_BETA, ANTHROPIC_VERSION, X_API_KEY, X_REQUEST_ID};
use crate::canon::{Event, Fault, FaultKind, Route, Secret};
use crate::trust;
use crate::wire::Dialect;
use crate::wire::request::{Outgoing, Request};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, header};
use http_body_util::Full;
use prometheus::{IntGaugeVec, Opts, Registry};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

/// The backends of one configuration.
pub struct Backends {
    by_name: HashMap<Arc<str>, Arc<Backend>>,
    /// For policies that take turns.
    turn: AtomicUsize,
}

/// One backend.
pub struct Backend {
    name: Arc<str>,
    traits: &'static Traits,
    dialects: Vec<Dialect>,
    endpoints: Vec<Arc<Endpoint>>,
    /// The headers that carry the gateway's key there, ready to be copied.
    credentials: Option<(HeaderName, HeaderValue)>,
    key: Option<Secret>,
    timeouts: Timeouts,
    local: Option<Arc<inprocess::Local>>,
}

/// A reply that has begun.
pub struct Sent {
    /// What was said to the backend, and what had to be dropped for it.
    pub outgoing: Outgoing,
    /// The reply.
    pub reply: Reply,
    /// Time spent waiting for backends.
    pub waited: Duration,
    /// Who sends it.
    pub backend: Arc<Backend>,
}

/// Where a reply comes from.
pub enum Reply {
    /// A server, as bytes of the dialect in [`Sent::outgoing`].
    Http(Response<()>, http::Body),
    /// This process, as events.
    Events(tokio::sync::mpsc::Receiver<Event>),
}

/// How far a request has come, for the books: its outcome may never be known.
pub enum Step<'a> {
    /// A target is about to be tried.
    Try(Try<'a>),
    /// There is a connection to it, and the request goes out.
    Handed,
}

/// A try at a target.
pub struct Try<'a> {
    /// Backend name.
    pub backend: &'a Arc<str>,
    /// Address label.
    pub target: &'a Arc<str>,
    /// The model's name there.
    pub model: &'a Arc<str>,
    /// The kind's provider name.
    pub provider: &'static str,
    /// Counted from 1.
    pub attempt: u32,
}

impl Backends {
    /// Builds the backends. Models of `local` ones are loaded by a thread of their own; until then they answer 503.
    ///
    /// # Errors
    /// Place and sentence of everything that is wrong.
    pub fn build(config: &Config, registry: &Registry) -> Result<Self, Vec<(String, String)>> {
        let mut errors = Vec::new();
        let mut by_name = HashMap::new();
        let up = gauge(registry, "tidegate_backend_up", "1 when the backend's last probe succeeded.");
        let in_flight = gauge(registry, "tidegate_backend_in_flight", "Requests a backend has and has not finished.");
        for (name, settings) in config {
            match Backend::build(name, settings) {
                Ok(mut backend) => {
                    backend.local =
                        settings.weights.as_ref().map(|weights| inprocess::Local::load(name, weights, settings));
                    by_name.insert(name.clone(), Arc::new(backend));
                }
                Err(more) => errors.extend(more),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        health::watch(by_name.values().cloned().collect(), up, in_flight);
        Ok(Self { by_name, turn: AtomicUsize::new(0) })
    }

    /// Everything that is wrong with a configuration, without loading a model or connecting to anything.
    pub fn check(config: &Config) -> Vec<(String, String)> {
        config.iter().filter_map(|(name, settings)| Backend::build(name, settings).err()).flatten().collect()
    }

    /// True when every model of this process has been loaded, or has failed to.
    pub fn settled(&self) -> bool {
        self.by_name.values().filter_map(|backend| backend.local.as_ref()).all(|local| local.settled())
    }

    /// The backends whose model could not be loaded into this process, in order.
    pub fn failed(&self) -> Vec<&str> {
        let failed =
            |backend: &Arc<Backend>| backend.local.as_ref().is_some_and(|local| local.settled() && !local.is_ready());
        let mut names: Vec<&str> =
            self.by_name.values().filter(|backend| failed(backend)).map(|backend| &*backend.name).collect();
        names.sort_unstable();
        names
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.by_name.len()
    }

    /// Carries the request to the first target that takes it.
    ///
    /// # Errors
    /// The fault of the last target, when none did; a feature no target can express; everything the request itself gets wrong.
    pub async fn send(
        &self,
        route: &Route,
        request: &Request,
        headers: &HeaderMap,
        request_id: &str,
        note: &mut dyn FnMut(Step<'_>),
    ) -> Result<Sent, Fault> {
        let mut waited = Duration::ZERO;
        let mut last = None;
        let candidates = pick::order(self, route);
        for (at, candidate) in candidates.iter().enumerate() {
            let backend = candidate.backend;
            let target = backend.traits.target(&candidate.hop.model, route.max_output);
            let attempt = at as u32 + 1;
            note(Step::Try(Try {
                backend: &backend.name,
                target: candidate.label(),
                model: &candidate.hop.model,
                provider: backend.traits.provider,
                attempt,
            }));
            let began = Instant::now();
            let answer = match (&backend.local, candidate.endpoint) {
                (Some(local), _) => local.send(request, &target).inspect(|_| note(Step::Handed)),
                (None, Some(endpoint)) => match request.write(&backend.dialects, &target) {
                    Ok(outgoing) => {
                        let asked = Instant::now();
                        let handed = || note(Step::Handed);
                        let answer = backend.call(endpoint, outgoing, request, headers, request_id, handed).await;
                        waited += asked.elapsed();
                        answer
                    }
                    Err(fault) => Err(verdict::Verdict::Final(fault)),
                },
                (None, None) => Err(verdict::Verdict::Final(Fault::internal("a backend without an address"))),
            };
            match answer {
                Ok((outgoing, reply)) => return Ok(Sent { outgoing, reply, waited, backend: backend.clone() }),
                Err(verdict::Verdict::Final(fault)) => return Err(fault),
                Err(verdict::Verdict::Another(fault)) => {
                    tracing::warn!(
                        request_id,
                        target = &**candidate.label(),
                        attempt,
                        error = fault.message,
                        waited_ms = began.elapsed().as_millis() as u64,
                        "a backend gave no reply"
                    );
                    last = Some(fault);
                }
            }
        }
        let mut fault = last.unwrap_or_else(|| {
            Fault::new(FaultKind::BackendUnavailable, "No backend serves this model at the moment.")
        });
        fault.exhausted = candidates.len() > 1;
        Err(fault)
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> IntGaugeVec {
    let family =
        IntGaugeVec::new(Opts::new(name, help), &["backend", "target"]).expect("the name and labels are constants");
    // A second configuration in one process finds the family registered: it uses its own until the first is gone.
    let _ = registry.register(Box::new(family.clone()));
    family
}

impl Backend {
    fn build(name: &Arc<str>, settings: &Settings) -> Result<Self, Vec<(String, String)>> {
        let mut errors = Vec::new();
        let urls: Vec<&String> = settings.url.iter().chain(&settings.urls).collect();
        let is_local = settings.kind == Kind::Local;
        if is_local != urls.is_empty() {
            errors.push((
                String::new(),
                if is_local {
                    "a local backend has no url".into()
                } else {
                    "a backend needs a `url` (or several `urls`)".into()
                },
            ));
        }
        if is_local != settings.weights.is_some() {
            errors.push((
                String::new(),
                if is_local {
                    "a local backend needs `weights`, a GGUF file".into()
                } else {
                    "`weights` is for kind = \"local\"".into()
                },
            ));
        }
        if settings.ca.is_some() && !urls.iter().any(|url| url.starts_with("https://")) {
            errors.push((".ca".into(), "`ca` is for addresses that begin with https://".into()));
        }
        let private = settings.ca.as_deref().map(|file| trust::private(file, settings.http2));
        let private = private.transpose().unwrap_or_else(|error| {
            errors.push((".ca".into(), error));
            None
        });
        let mut endpoints = Vec::new();
        for (index, url) in urls.into_iter().enumerate() {
            match Endpoint::read(url, format!("{name}/{index}").into(), settings.http2, private.as_ref()) {
                Ok(endpoint) => endpoints.push(Arc::new(endpoint)),
                Err(error) => errors.push((if settings.url.is_some() { ".url".into() } else { ".urls".into() }, error)),
            }
        }
        let traits = settings.kind.traits();
        let credentials = settings.key.as_ref().map(|key| {
            let (header, text) = if traits.api_key_header {
                (X_API_KEY, key.reveal().to_owned())
            } else {
                (header::AUTHORIZATION, format!("Bearer {}", key.reveal()))
            };
            HeaderValue::from_str(&text).map(|mut value| {
                value.set_sensitive(true);
                (header, value)
            })
        });
        let credentials = credentials.transpose().unwrap_or_else(|_| {
            errors.push((".key".into(), "the key holds characters that no header can carry".into()));
            None
        });
        let dialects = settings.dialects.as_ref().map_or_else(
            || traits.dialects.to_vec(),
            |families| {
                Dialect::ALL
                    .into_iter()
                    .filter(|dialect| families.iter().any(|family| *family == family_of(*dialect)))
                    .collect()
            },
        );
        if !errors.is_empty() {
            return Err(errors.into_iter().map(|(key, error)| (format!("backends.{name}{key}"), error)).collect());
        }
        Ok(Self {
            name: name.clone(),
            traits,
            dialects,
            endpoints,
            credentials,
            key: settings.key.clone(),
            timeouts: settings.timeouts,
            local: None,
        })
    }

    /// Limits for its replies.
    pub fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Takes the gateway's key there out of what this backend said is wrong.
    pub fn hide_key(&self, fault: &mut Fault) {
        fault.message = verdict::without_key(&fault.message, self.key.as_ref());
    }

    /// Sends a written request to one address.
    async fn call(
        &self,
        endpoint: &Arc<Endpoint>,
        outgoing: Outgoing,
        request: &Request,
        headers: &HeaderMap,
        request_id: &str,
        mut handed: impl FnMut(),
    ) -> Result<(Outgoing, Reply), verdict::Verdict> {
        let message = || {
            handed();
            self.message(endpoint, &outgoing, headers, request_id)
        };
        let sending = http::send(endpoint, message, self.traits.idle, self.timeouts.connect.0);
        // Only a stream owes a first token: a whole reply is as long in coming as it is long.
        let sent = if request.stream {
            tokio::time::timeout(self.timeouts.first_token.0, sending).await.unwrap_or(Err(http::Failure::Slow))
        } else {
            sending.await
        };
        let (head, body) = sent.map_err(|failure| verdict::unreachable(&failure))?;
        if head.status().is_success() {
            return Ok((outgoing, Reply::Http(head, body)));
        }
        Err(Box::pin(verdict::refused(outgoing.dialect, head, body, self.key.as_ref())).await)
    }

    fn message(
        &self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        headers: &HeaderMap,
        request_id: &str,
    ) -> ::http::Request<Full<bytes::Bytes>> {
        let mut message = ::http::Request::new(Full::new(outgoing.written.body.clone()));
        *message.method_mut() = Method::POST;
        *message.uri_mut() = endpoint.uri(outgoing.dialect.path());
        let out = message.headers_mut();
        if !endpoint.http2 {
            out.insert(header::HOST, endpoint.host.clone());
        }
        out.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = &self.credentials {
            out.insert(name.clone(), value.clone());
        }
        // So that the books of a gateway behind this one can be joined with ours.
        if let Ok(id) = HeaderValue::from_str(request_id) {
            out.insert(X_REQUEST_ID, id);
        }
        if outgoing.dialect == Dialect::Messages {
            for name in [ANTHROPIC_BETA, ANTHROPIC_VERSION] {
                for value in headers.get_all(&name) {
                    out.append(name.clone(), value.clone());
                }
            }
            out.entry(ANTHROPIC_VERSION).or_insert(HeaderValue::from_static("2023-06-01"));
        }
        message
    }
}

fn family_of(dialect: Dialect) -> config::Family {
    match dialect {
        Dialect::Chat => config::Family::Openai,
        Dialect::Messages => config::Family::Anthropic,
    }
}
