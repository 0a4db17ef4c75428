//! Tidegate, a gateway for language models.
//!
//! The house, from the ground up; imports go down only, and rooms on one floor do not see each other:
//!
//! * [`canon`]: what calls, replies, counts and failures mean, whatever protocol carried them.
//! * [`wire`]: bytes ↔ canon, one folder per protocol, known from both ends. [`store`]: the database.
//!   [`trust`]: TLS, whose word counts for a certificate and what the listeners show. [`cork`]: sends in a row.
//! * [`gate`]: who is calling. [`plugin`]: guests that see and change. [`route`]: where a model is. [`queue`]: whose turn it is.
//!   [`backend`]: what serves it. [`ledger`]: the books.
//! * [`relay`]: the request, top to bottom; the only place where those rooms meet.
//! * [`server`]: the door. [`admin`]: the operator's.
//! * [`config`], [`app`], [`cli`]: read, build, run.
//!
//! docs/ARCHITECTURE.md walks through it with a request.

pub mod admin;
pub mod app;
pub mod backend;
pub mod canon;
pub mod cli;
pub mod config;
pub mod cork;
pub mod gate;
pub mod ledger;
pub mod plugin;
pub mod queue;
pub mod relay;
pub mod route;
pub mod server;
pub mod store;
pub mod trust;
pub mod wire;
