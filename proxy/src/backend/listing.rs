//! Which models are where, asked of each address at a modest pace: one question at a time, and never on a request's way.
//!
//! Servers are asked whose kind lists what it has itself: Ollama all it has and what of it is loaded, vLLM and llama.cpp what
//! they serve. What cannot be read is not known; an address that does not answer keeps its list, since its health is told by
//! others.

use super::endpoint::Endpoint;
use super::health::{Watch, get};
use super::kind::Lists;
use super::{Backend, http};
use crate::canon::Listed;
use crate::wire::{ollama, openai};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often an address is asked that no key says more of: its models change by hand, and what is loaded within minutes.
pub(super) const EVERY: Duration = Duration::from_secs(30);
/// An answer that takes longer comes from a server that has better things to do.
const LIMIT: Duration = Duration::from_secs(5);
/// Bytes of a list: thousands of models.
const MOST: usize = 4 << 20;
/// Models of it that are remembered, and bytes of their names: clients are shown them, and no server has that many.
const MODELS: usize = 2000;
const NAME: usize = 256;

/// Asks the backends that are watched, until nobody watches.
pub(super) async fn rounds(watch: Weak<Watch>) {
    // When each address is asked again.
    let mut next: HashMap<usize, Instant> = HashMap::new();
    while let Some(watch) = watch.upgrade() {
        let backends = watch.backends();
        let targets: Vec<_> = backends
            .iter()
            .filter_map(|backend| Some((backend, backend.lists?)))
            .flat_map(|(backend, lists)| {
                backend.endpoints().iter().map(|at| (backend, lists, at.clone())).collect::<Vec<_>>()
            })
            .collect();
        next.retain(|id, _| targets.iter().any(|(_, _, at)| at.address.id == *id));
        let now = Instant::now();
        let due = targets.iter().filter(|(_, _, at)| next.get(&at.address.id).is_none_or(|next| *next <= now));
        let asked = join_all(due.map(|(backend, lists, at)| ask(&watch, backend, *lists, at))).await;
        next.extend(asked);
        backends.iter().for_each(|backend| backend.take_stock());
        drop(targets);
        drop((backends, watch));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Asks one address. Gives when it is asked again, a little sooner or later than others.
async fn ask(watch: &Watch, backend: &Backend, lists: Lists, at: &Endpoint) -> (usize, Instant) {
    let asked = tokio::time::timeout(LIMIT, list(backend, lists, at)).await.unwrap_or(Err(Unheard));
    let known = &at.address.list;
    let asked = asked.map(|list| list.map(bounded));
    match asked {
        // The same list stays what it is, so that nobody has to look at it again.
        Ok(list) if list.as_ref() == known.load().as_deref() => {}
        Ok(list) => known.store(list.map(Arc::new)),
        Err(Unheard) => watch.series.lists_failed.with_label_values(&[&*backend.name]).inc(),
    }
    (at.address.id, Instant::now() + backend.relist.mul_f64(0.9 + 0.2 * fastrand::f64()))
}

fn bounded(mut list: Vec<Listed>) -> Vec<Listed> {
    list.retain(|listed| (1..=NAME).contains(&listed.name.len()) && !listed.name.contains(char::is_control));
    list.truncate(MODELS);
    list
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
            let Some(mut all) = read(page(backend, at, "/api/tags").await?, ollama::models::read_list).map(bounded)
            else {
                return Ok(None);
            };
            // A server that does not say what is loaded has nothing loaded, as far as is known.
            let running = read(page(backend, at, "/api/ps").await?, ollama::models::read_list).map(bounded);
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
