//! What each policy of a pool is worth: conversations before 2 to 64 replicas, each with a cache of keys and values.
//!
//! The policies and the keys they go by are the gateway's own code; everything else is a model, described in
//! docs/performance.md. The same conversations meet every policy. Prints a table; `make pools`.

use bytes::Bytes;
use http::HeaderMap;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Instant;
use tidegate::backend::pool::{Affinity, Member, choose};
use tidegate::canon::{Policy, Turn};
use tidegate::wire::Dialect;
use tidegate::wire::request::Request;

const POLICIES: [Policy; 5] =
    [Policy::RoundRobin, Policy::Weighted, Policy::LeastLoad, Policy::Session, Policy::Prefix];
/// Tokens of a block of the cache.
const BLOCK: usize = 64;
/// Tokens that a replica's cache holds: 24 GiB at 128 KiB a token.
const CACHE: usize = 196_608;
/// Tokens a second: of a prompt, one request after the other, and of an answer, all at the same time.
const PREFILL: f64 = 8000.0;
const DECODE: f64 = 40.0;
/// Seconds that are simulated, and after which counting begins.
const LENGTH: f64 = 900.0;
const WARM: f64 = 300.0;

/// What conversations look like.
struct Shape {
    name: &'static str,
    /// Tokens of the system text of each program; the first is the most used (Zipf).
    systems: &'static [usize],
    /// Turns, on average (geometric).
    turns: f64,
    /// Median tokens of what a user or a tool says, and of an answer (lognormal, sigma 1).
    said: f64,
    answer: f64,
    /// Seconds between an answer and what is said next, on average (exponential).
    pause: f64,
    /// Requests a second for each replica.
    rate: f64,
}

const SHAPES: [Shape; 2] = [
    Shape {
        name: "chat",
        systems: &[1200, 600, 3000, 300, 2000, 800, 1500, 400, 5000, 1000, 700, 2500],
        turns: 6.0,
        said: 60.0,
        answer: 250.0,
        pause: 30.0,
        rate: 2.0,
    },
    Shape {
        name: "agents",
        systems: &[9000, 14000, 6000, 4000, 11000, 8000],
        turns: 25.0,
        said: 500.0,
        answer: 150.0,
        pause: 4.0,
        rate: 0.7,
    },
];

struct Conversation {
    begins: f64,
    system: usize,
    /// What is said, what is answered, and the pause before it.
    turns: Vec<(usize, usize, f64)>,
    session: u64,
    prefix: u64,
}

#[derive(Default)]
struct Replica {
    key: u64,
    in_flight: usize,
    first_token: f64,
    /// When its prompts so far are done.
    free: f64,
    cache: Cache,
    /// Seconds of prompts, and requests, that were counted.
    busy: f64,
    requests: usize,
}

impl Member for Replica {
    fn key(&self) -> u64 {
        self.key
    }
    fn weight(&self) -> u32 {
        1
    }
    fn in_flight(&self) -> usize {
        self.in_flight
    }
    fn first_token(&self) -> f64 {
        self.first_token
    }
}

/// Blocks, those unused for longest leave first, and of one prompt the last ones.
#[derive(Default)]
struct Cache {
    blocks: HashMap<(usize, usize), u64>,
    order: VecDeque<((usize, usize), u64)>,
    clock: u64,
}

impl Cache {
    fn found(&self, blocks: &[(usize, usize)]) -> usize {
        blocks.iter().take_while(|block| self.blocks.contains_key(block)).count()
    }

    fn keep(&mut self, blocks: &[(usize, usize)]) {
        for &block in blocks.iter().rev() {
            self.clock += 1;
            self.blocks.insert(block, self.clock);
            self.order.push_back((block, self.clock));
        }
        while self.blocks.len() > CACHE / BLOCK {
            let Some((block, at)) = self.order.pop_front() else { return };
            if self.blocks.get(&block) == Some(&at) {
                self.blocks.remove(&block);
            }
        }
    }
}

fn main() {
    println!(
        "| conversations | replicas | policy | prompt tokens found in the cache | work, max/mean | requests, max/mean | first token, mean s | p95 s |"
    );
    println!("|---|---:|---|---:|---:|---:|---:|---:|");
    for shape in &SHAPES {
        for replicas in [2, 4, 8, 16, 32, 64] {
            let conversations = converse(shape, replicas);
            for policy in POLICIES {
                let ran = run(shape, &conversations, replicas, policy);
                println!("| {} | {replicas} | {policy:?} | {ran}", shape.name);
            }
        }
    }
    cost();
}

/// The same conversations for every policy.
fn converse(shape: &Shape, replicas: usize) -> Vec<Conversation> {
    let mut rng = fastrand::Rng::with_seed(7);
    let rate = shape.rate * replicas as f64 / shape.turns;
    let mut conversations = Vec::new();
    let mut at = 0.0;
    while at < LENGTH {
        at += exponential(&mut rng, 1.0 / rate);
        let system = zipf(&mut rng, shape.systems.len());
        let mut turns = vec![(lognormal(&mut rng, shape.said), lognormal(&mut rng, shape.answer), 0.0)];
        while rng.f64() > 1.0 / shape.turns {
            let pause = exponential(&mut rng, shape.pause);
            turns.push((lognormal(&mut rng, shape.said), lognormal(&mut rng, shape.answer), pause));
        }
        let id = conversations.len();
        let text = format!("system {system} ").repeat(shape.systems[system] * 4 / 10);
        let body = format!(
            r#"{{"model":"m","prompt_cache_key":"conversation {id}","messages":[{{"role":"system","content":"{text}"}},{{"role":"user","content":"question {id}"}}]}}"#
        );
        let request = Request::read(Dialect::Chat, Bytes::from(body)).expect("a request");
        let headers = HeaderMap::new();
        let affinity = Affinity { request: &request, headers: &headers, organization: "acme" };
        let key = |policy| affinity.key(policy).expect("a key");
        let (session, prefix) = (key(Policy::Session), key(Policy::Prefix));
        conversations.push(Conversation { begins: at, system, turns, session, prefix });
    }
    conversations
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Done { replica: usize, conversation: usize, turn: usize },
    Ask { conversation: usize, turn: usize },
}

fn run(shape: &Shape, conversations: &[Conversation], count: usize, policy: Policy) -> String {
    fastrand::seed(7);
    let replica = |index| Replica { key: index, ..Replica::default() };
    let mut replicas: Vec<Replica> = (1..=count as u64).map(replica).collect();
    let turns = Turn::default();
    let micros = |seconds: f64| (seconds * 1e6) as u64;
    let mut events: BinaryHeap<Reverse<(u64, What)>> = conversations
        .iter()
        .enumerate()
        .map(|(conversation, told)| Reverse((micros(told.begins), What::Ask { conversation, turn: 0 })))
        .collect();
    let (mut prompt, mut found, mut waits) = (0, 0, Vec::new());
    while let Some(Reverse((at, what))) = events.pop() {
        let now = at as f64 / 1e6;
        if now > LENGTH {
            break;
        }
        match what {
            What::Ask { conversation, turn } => {
                let told = &conversations[conversation];
                let (blocks, tokens) = context(shape, told, conversation, turn, false);
                let affinity = if policy == Policy::Prefix { told.prefix } else { told.session };
                let index = choose(policy, &replicas, &turns, Some(affinity));
                let replica = &mut replicas[index];
                let cached = replica.cache.found(&blocks) * BLOCK;
                replica.cache.keep(&blocks);
                let work = (tokens - cached) as f64 / PREFILL;
                replica.free = replica.free.max(now) + work;
                replica.in_flight += 1;
                let wait = replica.free - now;
                replica.first_token += 0.2 * (wait - replica.first_token);
                if now > WARM {
                    (prompt, found) = (prompt + tokens, found + cached);
                    (replica.busy, replica.requests) = (replica.busy + work, replica.requests + 1);
                    waits.push(wait);
                }
                let done = replica.free + told.turns[turn].1 as f64 / DECODE;
                events.push(Reverse((micros(done), What::Done { replica: index, conversation, turn })));
            }
            What::Done { replica, conversation, turn } => {
                let told = &conversations[conversation];
                replicas[replica].in_flight -= 1;
                replicas[replica].cache.keep(&context(shape, told, conversation, turn, true).0);
                if let Some((_, _, pause)) = told.turns.get(turn + 1) {
                    events.push(Reverse((micros(now + pause), What::Ask { conversation, turn: turn + 1 })));
                }
            }
        }
    }
    waits.sort_by(f64::total_cmp);
    let mean = waits.iter().sum::<f64>() / waits.len() as f64;
    let spread = |of: &dyn Fn(&Replica) -> f64| {
        let most = replicas.iter().map(of).fold(0.0, f64::max);
        most * count as f64 / replicas.iter().map(of).sum::<f64>()
    };
    format!(
        "{:.0} % | {:.2} | {:.2} | {mean:.2} | {:.2} |",
        100.0 * found as f64 / prompt as f64,
        spread(&|replica| replica.busy),
        spread(&|replica| replica.requests as f64),
        waits[waits.len() * 95 / 100]
    )
}

/// The whole blocks of a prompt, or of a prompt and its answer, and their tokens: those of the system text are everybody's.
fn context(shape: &Shape, told: &Conversation, id: usize, turn: usize, answered: bool) -> (Vec<(usize, usize)>, usize) {
    let system = shape.systems[told.system];
    let said: usize = told.turns[..=turn].iter().map(|(said, _, _)| said).sum();
    let answers: usize = told.turns[..turn + usize::from(answered)].iter().map(|(_, answer, _)| answer).sum();
    let tokens = system + said + answers;
    let shared = system / BLOCK;
    let block = |at| if at < shared { (usize::MAX - told.system, at) } else { (id, at) };
    ((0..tokens / BLOCK).map(block).collect(), tokens)
}

fn exponential(rng: &mut fastrand::Rng, mean: f64) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}

fn lognormal(rng: &mut fastrand::Rng, median: f64) -> usize {
    let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
    (median * normal.exp()).clamp(4.0, median * 30.0) as usize
}

fn zipf(rng: &mut fastrand::Rng, count: usize) -> usize {
    let total: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
    let mut left = rng.f64() * total;
    (1..=count)
        .find(|&rank| {
            left -= 1.0 / rank as f64;
            left <= 0.0
        })
        .unwrap_or(count)
        - 1
}

/// What a choice costs.
fn cost() {
    let build = if cfg!(debug_assertions) { "a debug build: not what users get" } else { "a release build" };
    println!("\n64 replicas, {build}:");
    let replicas: Vec<Replica> =
        (0..64).map(|index| Replica { key: index, in_flight: index as usize % 7, ..Replica::default() }).collect();
    let turns = Turn::default();
    for policy in POLICIES {
        let (began, rounds) = (Instant::now(), 200_000);
        let sum: usize = (0..rounds).map(|at| choose(policy, &replicas, &turns, Some(at))).sum();
        println!("{policy:?}: {:.2} µs a choice ({sum})", began.elapsed().as_secs_f64() * 1e6 / rounds as f64);
    }
    let text = "All work and no play. ".repeat(100 << 10).split_at(100 << 10).0.to_owned();
    for role in ["system", "user"] {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"{role}","content":"{text}"}}]}}"#);
        let request = Request::read(Dialect::Chat, Bytes::from(body)).expect("a request");
        let headers = HeaderMap::new();
        let affinity = Affinity { request: &request, headers: &headers, organization: "acme" };
        let (began, rounds) = (Instant::now(), 20_000);
        let sum = (0..rounds).filter_map(|_| affinity.key(Policy::Prefix)).fold(0, u64::wrapping_add);
        let micros = began.elapsed().as_secs_f64() * 1e6 / rounds as f64;
        println!("key of a 100 KiB {role} message: {micros:.2} µs ({sum:x})");
    }
}
