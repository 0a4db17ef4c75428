//! What an instance has on the host's side, and what it may ask of it.

use super::ask::Ask;
use super::bindings::{calls, config, http, kv, log, metrics, request, system, types as wit};
use super::bounds::Bounds;
use super::config::KvScope;
use super::kv::{Drawer, Refused};
use super::lines;
use super::load::Plugin;
use super::outside;
use super::view::{self, View};
use crate::canon::Caller;
use ::http::HeaderMap;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use wasmtime::component::Resource;
use wasmtime::{Result, UpdateDeadline};
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxView, WasiView};

/// Headers that are nobody's business but the gate's.
const WITHHELD: [&str; 5] = ["authorization", "x-api-key", "cookie", "proxy-authorization", "set-cookie"];
/// Tags a plugin may add, and bytes of each.
const TAGS: (usize, usize) = (8, 64);

/// A request as its plugins are told of it.
pub struct About {
    /// `x-request-id`.
    pub id: String,
    /// Who is calling.
    pub caller: Caller,
    /// Path class.
    pub endpoint: Arc<str>,
    /// Whose words the opaque parts of the call are: the client's dialect's.
    pub family: &'static str,
    /// The model name the client asked for.
    pub model: String,
    /// The client asked for a stream.
    pub stream: bool,
    /// The end user.
    pub user: Option<String>,
    /// The request's headers.
    pub headers: HeaderMap,
    /// What serves it, once that is known.
    pub route: Mutex<Option<Hop>>,
    /// Tags and names of plugins for the record.
    pub notes: Mutex<Notes>,
    /// Who puts their questions to models; `None` where no gateway is running, or nobody may ask.
    pub asker: Option<Box<dyn Ask>>,
}

/// What serves a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The configured model name or pattern.
    pub name: String,
    /// The backend.
    pub backend: String,
    /// The model's name there.
    pub model: String,
    /// Which try this is.
    pub attempt: u32,
}

/// What plugins leave in the record.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Notes {
    /// Plugins that changed something, in the order they first did.
    pub acted: Vec<Arc<str>>,
    /// Their tags.
    pub tags: Vec<String>,
}

/// What the host could not do, through no fault of the guest's.
#[derive(Debug)]
pub(super) struct HostFailed(pub String);

impl std::fmt::Display for HostFailed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for HostFailed {}

/// The data of an instance's store.
pub(super) struct State {
    pub plugin: Arc<Plugin>,
    pub limits: Bounds,
    /// The call on loan, during `on-call`.
    pub call: Option<View>,
    /// The request of the hook that runs; none while the plugin is being loaded.
    pub about: Option<Arc<About>>,
    /// Ticks this hook has computed, and how many it may.
    ticks: u64,
    budget: u64,
    /// When it began.
    began: Instant,
    tags: usize,
    /// Questions to models in this request.
    pub asks: u32,
    born: Instant,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl State {
    pub fn new(plugin: Arc<Plugin>, limits: Bounds, budget: u64) -> Self {
        Self {
            plugin,
            limits,
            call: None,
            about: None,
            ticks: 0,
            budget,
            began: Instant::now(),
            tags: 0,
            asks: 0,
            born: Instant::now(),
            // Empty: no files, no network, no environment; output goes nowhere.
            wasi: WasiCtx::builder().build(),
            table: ResourceTable::new(),
        }
    }

    /// A hook begins.
    pub fn begin(&mut self, about: Option<Arc<About>>) {
        if !same(&self.about, &about) {
            (self.tags, self.asks) = (0, 0);
        }
        self.about = about;
        self.ticks = 0;
        self.began = Instant::now();
    }

    /// How long a host call may wait: a little less than the hook still may, so that silence outside is the plugin's to handle
    /// and not its failure.
    pub fn patience(&self) -> Duration {
        self.plugin.limits.wait.0.saturating_sub(self.began.elapsed()).mul_f64(0.8)
    }

    /// A millisecond of computing has passed: others get a turn, until there is no more time.
    pub fn tick(&mut self) -> UpdateDeadline {
        self.ticks += 1;
        if self.ticks > self.budget { UpdateDeadline::Interrupt } else { UpdateDeadline::Yield(1) }
    }

    fn view(&mut self) -> Result<&mut View> {
        self.call.as_mut().ok_or_else(|| wasmtime::format_err!("the call is used after `on-call` has returned"))
    }

    /// The call, for an edit of so many bytes.
    fn edit(&mut self, bytes: usize) -> Result<&mut View> {
        let view = self.view()?;
        let fits = view.makes_room(bytes);
        fits.then_some(view).ok_or_else(|| wasmtime::format_err!("too much data in all its edits (limits.output)"))
    }

    fn about(&self) -> Result<&Arc<About>> {
        self.about.as_ref().ok_or_else(|| wasmtime::format_err!("there is no request while a plugin is being loaded"))
    }

    fn drawer(&self) -> std::result::Result<Drawer<'_>, wit::Error> {
        if !self.plugin.grants.kv {
            return Err(wit::Error::Denied(format!(
                "grants.kv = true of [plugins.{}] would allow it",
                self.plugin.name
            )));
        }
        let organization = match (&self.about, self.plugin.grants.kv_scope) {
            (None, _) => return Err(wit::Error::Denied("there is no request".into())),
            (Some(_), KvScope::Plugin) => "",
            (Some(about), KvScope::Organization) => &about.caller.organization,
        };
        Ok(Drawer { store: &self.plugin.kv, plugin: &self.plugin.name, organization, patience: self.patience() })
    }
}

fn same(one: &Option<Arc<About>>, other: &Option<Arc<About>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl wit::Host for State {}
impl calls::Host for State {}

impl calls::HostCall for State {
    fn model(&mut self, _: Resource<View>) -> Result<String> {
        Ok(self.view()?.model().to_owned())
    }
    fn set_model(&mut self, _: Resource<View>, model: String) -> Result<()> {
        self.view()?
            .set_model(&model)
            .map_err(|fault| wasmtime::format_err!("the model cannot be set: {}", fault.message))
    }
    fn size(&mut self, _: Resource<View>) -> Result<u32> {
        Ok(u32::try_from(self.view()?.size()).unwrap_or(u32::MAX))
    }
    fn keys(&mut self, _: Resource<View>) -> Result<Vec<String>> {
        Ok(self.view()?.keys())
    }
    fn json(&mut self, _: Resource<View>, pointer: String) -> Result<Option<String>> {
        Ok(self.view()?.json(&pointer))
    }
    fn set_json(
        &mut self,
        _: Resource<View>,
        key: String,
        json: Option<String>,
    ) -> Result<std::result::Result<(), String>> {
        let bytes = key.len() + json.as_ref().map_or(0, String::len);
        Ok(self.edit(bytes)?.set_json(&key, json.as_deref()))
    }
    fn parameters(&mut self, _: Resource<View>) -> Result<wit::Parameters> {
        Ok(self.view()?.parameters())
    }
    fn set_parameters(&mut self, _: Resource<View>, parameters: wit::Parameters) -> Result<()> {
        self.view()?.set_parameters(parameters);
        Ok(())
    }
    fn tools(&mut self, _: Resource<View>) -> Result<Vec<wit::Tool>> {
        Ok(self.view()?.tools())
    }
    fn set_tools(&mut self, _: Resource<View>, tools: Vec<wit::Tool>) -> Result<()> {
        self.view()?.set_tools(tools);
        Ok(())
    }
    fn turn_count(&mut self, _: Resource<View>) -> Result<u32> {
        Ok(self.view()?.turn_count() as u32)
    }
    fn turns(&mut self, _: Resource<View>, start: u32, count: u32) -> Result<Vec<wit::Turn>> {
        Ok(self.view()?.turns(start as usize, count as usize))
    }
    fn splice_turns(&mut self, _: Resource<View>, start: u32, remove: u32, insert: Vec<wit::Turn>) -> Result<()> {
        self.edit(view::weight(&insert))?.splice_turns(start as usize, remove as usize, insert);
        Ok(())
    }
    fn texts(&mut self, _: Resource<View>, start: u32) -> Result<Vec<calls::Passage>> {
        Ok(self.view()?.texts(start as usize))
    }
    fn set_text(&mut self, _: Resource<View>, place: calls::Place, text: String) -> Result<()> {
        if self.edit(text.len())?.set_text(place, text) {
            Ok(())
        } else {
            Err(wasmtime::format_err!("`set-text` names a place where no text stands"))
        }
    }
    fn drop(&mut self, _: Resource<View>) -> Result<()> {
        Ok(())
    }
}

impl request::Host for State {
    fn id(&mut self) -> Result<String> {
        Ok(self.about()?.id.clone())
    }
    fn caller(&mut self) -> Result<wit::Identity> {
        let caller = &self.about()?.caller;
        Ok(wit::Identity {
            organization: caller.organization.to_string(),
            project: caller.project.to_string(),
            key: caller.key.to_string(),
            user: caller.user.as_ref().map(ToString::to_string),
        })
    }
    fn endpoint(&mut self) -> Result<String> {
        Ok(self.about()?.endpoint.to_string())
    }
    fn model(&mut self) -> Result<String> {
        Ok(self.about()?.model.clone())
    }
    fn streamed(&mut self) -> Result<bool> {
        Ok(self.about()?.stream)
    }
    fn user(&mut self) -> Result<Option<String>> {
        Ok(self.about()?.user.clone())
    }
    fn header(&mut self, name: String) -> Result<Option<String>> {
        let about = self.about()?;
        // The map finds names in any case, so the list must, too.
        if WITHHELD.iter().any(|withheld| name.eq_ignore_ascii_case(withheld)) {
            return Ok(None);
        }
        let values: Vec<_> = about.headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).collect();
        Ok((!values.is_empty()).then(|| values.join(", ")))
    }
    fn route(&mut self) -> Result<Option<wit::Hop>> {
        let hop = self.about()?.route.lock().clone();
        Ok(hop.map(|hop| wit::Hop { name: hop.name, backend: hop.backend, model: hop.model, attempt: hop.attempt }))
    }
    fn tag(&mut self, tag: String) -> Result<()> {
        let about = self.about()?.clone();
        let word: String = tag.chars().map(|letter| if letter.is_ascii_graphic() { letter } else { '_' }).collect();
        if self.tags < TAGS.0 && !word.is_empty() && word.len() <= TAGS.1 {
            self.tags += 1;
            about.notes.lock().tags.push(word);
        }
        Ok(())
    }
}

impl config::Host for State {
    fn get(&mut self) -> Result<String> {
        Ok(self.plugin.config.clone())
    }
}

impl log::Host for State {
    fn write(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) -> Result<()> {
        let request_id = self.about.as_ref().map_or("", |about| &about.id);
        lines::write(&self.plugin, request_id, level, &message, &fields);
        Ok(())
    }
}

impl metrics::Host for State {
    fn add(&mut self, name: String, label: String, by: f64) -> Result<()> {
        if let Some(Err(why)) = self.plugin.series().map(|series| series.own.add(&name, &label, by)) {
            self.plugin.in_vain(&name, &label, why);
        }
        Ok(())
    }
    fn observe(&mut self, name: String, label: String, value: f64) -> Result<()> {
        if let Some(Err(why)) = self.plugin.series().map(|series| series.own.observe(&name, &label, value)) {
            self.plugin.in_vain(&name, &label, why);
        }
        Ok(())
    }
}

impl system::Host for State {
    fn now(&mut self) -> Result<f64> {
        Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3)
    }
    fn elapsed(&mut self) -> Result<f64> {
        Ok(self.born.elapsed().as_secs_f64() * 1e3)
    }
    fn random(&mut self, length: u32) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length.min(1024) as usize];
        getrandom::fill(&mut bytes).map_err(|error| HostFailed(format!("the system gives no randomness: {error}")))?;
        Ok(bytes)
    }
}

impl From<Refused> for wit::Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Key => Self::TooLarge,
            Refused::Full | Refused::Away => Self::Busy,
            Refused::NoNumber => Self::Invalid("the value is no number".into()),
        }
    }
}

fn seconds(ttl: Option<u32>) -> Option<Duration> {
    ttl.map(|ttl| Duration::from_secs(ttl.into()))
}

impl kv::Host for State {
    async fn get(&mut self, key: String) -> Result<std::result::Result<Option<Vec<u8>>, wit::Error>> {
        Ok(match self.drawer() {
            Ok(drawer) => drawer.get(&key).await.map_err(Into::into),
            Err(error) => Err(error),
        })
    }
    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl: Option<u32>,
    ) -> Result<std::result::Result<(), wit::Error>> {
        if value.len() > self.plugin.grants.kv_value.map_or(64 << 10, |size| size.0) {
            return Ok(Err(wit::Error::TooLarge));
        }
        Ok(match self.drawer() {
            Ok(drawer) => drawer.set(&key, value, seconds(ttl)).await.map_err(Into::into),
            Err(error) => Err(error),
        })
    }
    async fn delete(&mut self, key: String) -> Result<std::result::Result<(), wit::Error>> {
        Ok(match self.drawer() {
            Ok(drawer) => drawer.delete(&key).await.map_err(Into::into),
            Err(error) => Err(error),
        })
    }
    async fn increment(
        &mut self,
        key: String,
        by: i64,
        ttl: Option<u32>,
    ) -> Result<std::result::Result<i64, wit::Error>> {
        Ok(match self.drawer() {
            Ok(drawer) => drawer.increment(&key, by, seconds(ttl)).await.map_err(Into::into),
            Err(error) => Err(error),
        })
    }
}

impl http::Host for State {
    async fn send(&mut self, request: http::Request) -> Result<std::result::Result<http::Response, wit::Error>> {
        if self.about.is_none() {
            return Ok(Err(wit::Error::Denied("there is no request".into())));
        }
        Ok(outside::send(&self.plugin, request, self.patience()).await)
    }
}
