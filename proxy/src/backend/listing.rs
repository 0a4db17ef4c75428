//! Which models are where, asked of each address at a modest pace: one question at a time, and never on a request's way.
//!
//! Servers are asked whose kind lists what it has itself: Ollama all it has and what of it is loaded, vLLM and llama.cpp what
//! they serve. What cannot be read is not known; an address that does not answer keeps its list, since its health is told by
//! others.

use super::endpoint::Endpoint;
use super::health::{Watch, apart, get};
use super::kind::Lists;
use super::{Backend, http};
use crate::canon::Listed;
use crate::wire::{ollama, openai};
use bytes::Bytes;
use prometheus::IntCounterVec;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How often an address is asked that no key says more of: its models change by hand, and what is loaded within minutes.
pub(super) const EVERY: Duration = Duration::from_secs(30);
/// How often one is that has not answered yet: a server that starts will do so soon.
const SOON: Duration = Duration::from_secs(2);
/// An answer that takes longer comes from a server that has better things to do.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a list: thousands of models.
const MOST: usize = 4 << 20;
/// Models of a list that is remembered, and bytes of their names: clients are shown them, and no server has that many.
const MODELS: usize = 2000;
const NAME: usize = 256;

/// When an address was asked last.
#[derive(Clone, Copy)]
enum Asked {
    /// It has not answered yet.
    Asking,
    At(Instant, Pause),
}

/// How long it is left in peace.
#[derive(Clone, Copy)]
struct Pause {
    /// It has no list yet, and said nothing.
    is_short: bool,
    /// A little more or less than others.
    share: f64,
}

/// Asks the backends that are watched, until nobody watches.
pub(super) async fn rounds(watch: Weak<Watch>) {
    let (mut asked, mut asking) = (HashMap::<usize, Asked>::new(), JoinSet::new());
    while let Some(watch) = watch.upgrade() {
        let backends = watch.backends();
        backends.iter().for_each(|backend| backend.take_stock());
        let here = backends.iter().filter_map(|backend| Some((backend, backend.lists?)));
        let targets: Vec<_> = here
            .flat_map(|(backend, lists)| {
                backend.endpoints().iter().map(|at| (backend.clone(), lists, at.clone())).collect::<Vec<_>>()
            })
            .collect();
        let named: HashSet<usize> = targets.iter().map(|(_, _, at)| at.address.id).collect();
        asked.retain(|id, _| named.contains(id));
        for (backend, lists, at) in targets {
            if asked.get(&at.address.id).is_none_or(|last| last.is_over(backend.relist)) {
                asked.insert(at.address.id, Asked::Asking);
                asking.spawn_local(ask(watch.series.lists_failed.clone(), backend, lists, at));
            }
        }
        drop((backends, watch));
        // Each is heard when it has answered: a silent one keeps nobody else's list back.
        let _ = tokio::time::timeout(Duration::from_secs(1), heard(&mut asking, &mut asked)).await;
    }
}

/// Waits for an answer, and takes all that have come. For ever, if nobody is asked.
async fn heard(asking: &mut JoinSet<(usize, Asked)>, asked: &mut HashMap<usize, Asked>) {
    let Some(first) = asking.join_next().await else { return std::future::pending().await };
    let mut next = Some(first);
    while let Some(answer) = next {
        asked.extend(answer);
        next = asking.try_join_next();
    }
}

impl Asked {
    /// It may be asked again, where that is done at this pace.
    fn is_over(self, pace: Duration) -> bool {
        match self {
            Self::Asking => false,
            Self::At(when, pause) => {
                let pace = if pause.is_short { pace.min(SOON) } else { pace };
                when.elapsed() >= pace.mul_f64(pause.share)
            }
        }
    }
}

/// Asks one address.
async fn ask(failed: IntCounterVec, backend: Arc<Backend>, lists: Lists, at: Endpoint) -> (usize, Asked) {
    let answer = tokio::time::timeout(LIMIT, list(&backend, lists, &at)).await.unwrap_or(Err(Unheard));
    let known = &at.address.list;
    let is_heard = answer.is_ok();
    match answer.map(|list| list.and_then(bounded)) {
        // The same list stays what it is, so that nobody has to look at it again.
        Ok(list) if list.as_ref() == known.load().as_deref() => {}
        Ok(list) => known.store(list.map(Arc::new)),
        Err(Unheard) => failed.with_label_values(&[&*backend.name]).inc(),
    }
    let pause = Pause { is_short: !is_heard && known.load().is_none(), share: apart() };
    (at.address.id, Asked::At(Instant::now(), pause))
}

/// The list, if all of it can be remembered: of a part of it nobody could say what is missing.
fn bounded(mut list: Vec<Listed>) -> Option<Vec<Listed>> {
    list.retain(|listed| (1..=NAME).contains(&listed.name.len()) && !listed.name.contains(char::is_control));
    (list.len() <= MODELS).then_some(list)
}

/// There was no answer, or one that says that there is none now.
struct Unheard;

/// The list of an address; `None`: it has none that could be read.
async fn list(backend: &Backend, lists: Lists, at: &Endpoint) -> Result<Option<Vec<Listed>>, Unheard> {
    let read = |answer: Option<Bytes>, read: fn(&[u8]) -> Option<Vec<Listed>>| answer.and_then(|body| read(&body));
    match lists {
        Lists::Models => Ok(read(page(backend, at, "/v1/models").await?, openai::models::read_list)),
        Lists::Tags => {
            // Bounded before they are joined: this thread has others to ask.
            let all = read(page(backend, at, "/api/tags").await?, ollama::models::read_list).and_then(bounded);
            let Some(mut all) = all else { return Ok(None) };
            // A server that does not say what is loaded has nothing loaded, as far as is known.
            let running = read(page(backend, at, "/api/ps").await?, ollama::models::read_list).and_then(bounded);
            for listed in &mut all {
                let here = running.iter().flatten().find(|running| running.name == listed.name);
                (listed.loaded, listed.context) = (here.is_some(), here.and_then(|here| here.context));
            }
            Ok(Some(all))
        }
    }
}

/// What is at this path; `None`: nothing that could be a list.
async fn page(backend: &Backend, at: &Endpoint, path: &'static str) -> Result<Option<Bytes>, Unheard> {
    let (head, mut body): (_, http::Body) = get(backend, at, path).await.map_err(|_| Unheard)?;
    let body = body.whole(MOST).await.map_err(|_| Unheard)?;
    match head.status().as_u16() {
        200 => Ok(body),
        500.. | 429 => Err(Unheard),
        _ => Ok(None),
    }
}
