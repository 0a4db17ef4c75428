//! The database behind the books: SQLite here, in the same process.
//!
//! It knows the canon's records and nothing of who writes them. No request ever waits for it (see `ledger::journal`).

pub mod query;
mod sqlite;

pub use query::{Filter, Group, Row};
pub use sqlite::Store;
