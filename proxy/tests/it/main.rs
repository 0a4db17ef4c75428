//! One integration binary: the house rules, the codecs over all pairs, and the gateway from socket to socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod beginnings;
mod browsers;
mod calls;
mod certificates;
mod chaos;
mod component;
mod counted;
mod counting;
mod discovery;
mod documents;
mod embed;
mod fake;
mod floors;
mod fuzzed;
mod gateway;
mod golden;
mod guest;
mod heads;
mod health;
mod heap;
mod http2;
mod https;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod layers;
mod listed;
mod ollama;
mod opaque;
mod pairs;
mod plugin_load;
mod plugin_outside;
mod plugins;
mod pools;
mod pressure;
mod process;
mod queue;
mod refusals;
mod registry;
mod reload;
mod replies;
mod responses;
mod running;
mod steady;
mod stopping;
mod tenants;
mod tls;
mod tries;
mod usage;

#[global_allocator]
static HEAP: heap::Counting = heap::Counting;
