//! The canonical form: what a call, a reply, a count of tokens and a failure *mean*, whatever protocol carried them.
//!
//! The ground floor. It imports nothing of ours and does no I/O; every other room speaks in these types. The grammar is
//! the richest of the protocols we know (blocks, as Anthropic messages has them), because flat ones embed into it without
//! loss and the reverse does not hold.

pub mod about;
pub mod call;
pub mod embed;
pub mod event;
pub mod fault;
pub mod fold;
pub mod header;
pub mod hedge;
pub mod identity;
pub mod model;
pub mod pattern;
pub mod price;
pub mod record;
pub mod route;
pub mod units;
pub mod usage;

pub use about::About;
pub use call::Call;
pub use embed::{EmbedCall, EmbedInput, Embedded};
pub use event::{Delta, Event, Part, StopReason};
pub use fault::{Blame, Fault, FaultKind};
pub use fold::Answer;
pub use hedge::Hedge;
pub use identity::Caller;
pub use model::Listed;
pub use pattern::Pattern;
pub use price::{Price, Prices};
pub use record::{Outcome, Record};
pub use route::{Capacity, Hop, Policy, Route, Turn};
pub use units::{Date, Period, Secret, Size};
pub use usage::{Usage, UsageSource};
