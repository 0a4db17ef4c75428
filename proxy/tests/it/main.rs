//! One integration binary: the house rules, the codecs over all pairs, and the gateway from socket to socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod chaos;
mod fake;
mod floors;
mod gateway;
mod golden;
mod guest;
mod http2;
mod https;
mod ollama;
mod pairs;
mod plugin_load;
mod plugin_outside;
mod plugins;
mod refusals;
mod registry;
mod reload;
mod replies;
mod responses;
mod running;
mod tenants;
