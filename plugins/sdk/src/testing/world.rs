//! What a plugin in a trial finds around itself.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use crate::http::{Request, Response};
use crate::log::Level;
use crate::model::{Answer, Question};
use crate::{Error, Hop, Identity};

/// Answers HTTP requests in a trial. It is called from within the world, and must not ask for it again.
pub type Http = Box<dyn FnMut(&Request) -> Result<Response, Error>>;

/// Answers questions to models in a trial; the same goes for it.
pub type Model = Box<dyn FnMut(&Question) -> Result<Answer, Error>>;

/// A line in the log: level, message, fields.
pub type Line = (Level, String, Vec<(String, String)>);

/// The state around a request.
pub struct World {
    /// The plugin's configuration, as JSON text.
    pub config: String,
    /// The request's id.
    pub id: String,
    /// Who is calling.
    pub caller: Identity,
    /// The API the client speaks.
    pub endpoint: String,
    /// The model the client asked for: each call of a trial puts its own here.
    pub model: String,
    /// The client asked for a stream.
    pub streamed: bool,
    /// The end user: each call of a trial puts its own `user` here.
    pub user: Option<String>,
    /// Headers, by lowercase name.
    pub headers: HashMap<String, String>,
    /// What serves the request, after `on_call`.
    pub route: Option<Hop>,
    /// Milliseconds since 1970.
    pub now: f64,
    /// Tags added.
    pub tags: Vec<String>,
    /// Lines logged.
    pub logs: Vec<Line>,
    /// Counters and sums of histograms, by name and label.
    pub metrics: BTreeMap<(String, String), f64>,
    /// The metrics the plugin declared, and the values of their labels.
    pub declared: BTreeMap<String, Option<Vec<String>>>,
    /// The stored values by organization and key, and when they end.
    pub kv: HashMap<(String, String), (Vec<u8>, f64)>,
    /// Fails every access to kv, as if it were not granted or down.
    pub kv_error: Option<Error>,
    /// Requests sent.
    pub requests: Vec<Request>,
    /// What they are answered.
    pub http: Http,
    /// Questions asked.
    pub questions: Vec<Question>,
    /// What they are answered.
    pub models: Model,
}

impl Default for World {
    fn default() -> Self {
        Self {
            config: "{}".into(),
            id: "request-1".into(),
            caller: Identity { organization: "acme".into(), project: "web".into(), key: "key-1".into(), user: None },
            endpoint: "chat/completions".into(),
            model: String::new(),
            streamed: true,
            user: None,
            headers: HashMap::new(),
            route: None,
            // A fixed moment, so that a test fails the same way each day.
            now: 1_700_000_000_000.0,
            tags: Vec::new(),
            logs: Vec::new(),
            metrics: BTreeMap::new(),
            declared: BTreeMap::new(),
            kv: HashMap::new(),
            kv_error: None,
            requests: Vec::new(),
            http: Box::new(|_| Err(Error::Denied("http".into()))),
            questions: Vec::new(),
            models: Box::new(|_| Err(Error::Denied("model".into()))),
        }
    }
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

impl World {
    /// Reads or changes this thread's world.
    pub fn with<T>(see: impl FnOnce(&mut Self) -> T) -> T {
        WORLD.with_borrow_mut(see)
    }

    /// A metric's value, under a label or an empty one.
    pub fn metric(name: &str, label: &str) -> f64 {
        Self::with(|world| world.metrics.get(&(name.into(), label.into())).copied().unwrap_or_default())
    }
}
