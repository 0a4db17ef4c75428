//! Questions to the books: single records, and totals by organization, project, model, key or day.

use super::Store;
use super::sqlite::{COLUMNS, id_floor, record};
use crate::canon::Record;
use rusqlite::types::Value;
use serde::Serialize;

/// Which records. Empty fields let everything through.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// From this time on, milliseconds since 1970.
    pub since: Option<i64>,
    /// Before this time.
    pub until: Option<i64>,
    /// Of this organization.
    pub organization: Option<String>,
    /// Of this project.
    pub project: Option<String>,
    /// At most so many, the newest.
    pub limit: Option<usize>,
}

/// What to add up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[allow(missing_docs)]
pub enum Group {
    Organization,
    Project,
    Model,
    Key,
    Day,
}

impl Group {
    fn column(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Project => "project",
            Self::Model => "model_requested",
            Self::Key => "key",
            Self::Day => "date(started_at / 1000, 'unixepoch')",
        }
    }

    /// Heading of its column.
    pub fn heading(self) -> &'static str {
        match self {
            Self::Organization => "organization",
            Self::Project => "project",
            Self::Model => "model",
            Self::Key => "key",
            Self::Day => "day",
        }
    }
}

/// A line of totals.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Values of the groups asked for, in order.
    pub group: Vec<String>,
    /// Requests, refused and failed ones included.
    pub requests: u64,
    /// Requests that did not end `ok`.
    pub failed: u64,
    /// Sum of prompt tokens, cache included.
    pub input_tokens: u64,
    /// Sum of generated tokens.
    pub output_tokens: u64,
    /// Sum of prompt tokens from a cache.
    pub cache_read_tokens: u64,
    /// Requests whose counts are estimated.
    pub estimated: u64,
    /// Cost in `currency`; rows are apart by currency.
    pub cost: f64,
    /// ISO 4217 code; empty where no price is configured.
    pub currency: String,
}

impl Row {
    fn add(&mut self, other: Row) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cache_read_tokens += other.cache_read_tokens;
        self.estimated += other.estimated;
        self.cost += other.cost;
        self.currency = other.currency;
    }
}

impl Store {
    /// Single records, oldest first.
    ///
    /// # Errors
    /// SQLite's.
    pub fn records(&self, filter: &Filter) -> Result<Vec<Record>, rusqlite::Error> {
        let (clause, values) = conditions(filter);
        let limit = filter.limit.map_or(-1, |limit| limit as i64);
        let sql = format!(
            "SELECT * FROM (SELECT {COLUMNS} FROM records {clause} ORDER BY id DESC LIMIT {limit}) ORDER BY id"
        );
        self.connection.prepare(&sql)?.query_map(rusqlite::params_from_iter(values), record)?.collect()
    }

    /// Totals by these groups.
    ///
    /// # Errors
    /// SQLite's.
    pub fn totals(&self, filter: &Filter, groups: &[Group]) -> Result<Vec<Row>, rusqlite::Error> {
        let (clause, values) = conditions(filter);
        let columns: String = groups.iter().map(|group| format!("{}, ", group.column())).collect();
        let places: String = (1..=groups.len()).map(|place| format!("{place}, ")).collect();
        let sql = format!(
            "SELECT {columns} coalesce(currency, ''), count(*), sum(outcome <> 'ok'), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0), \
             coalesce(sum(cache_read_tokens), 0), sum(usage_source = 'estimated'), coalesce(sum(cost), 0.0) FROM records {clause} GROUP BY {places} coalesce(currency, '') ORDER BY {places} coalesce(currency, '')"
        );
        let width = groups.len();
        let mut statement = self.connection.prepare(&sql)?;
        let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
            let count = |at: usize| row.get::<_, i64>(width + at).map(|number| number as u64);
            Ok(Row {
                group: (0..width)
                    .map(|at| row.get::<_, Option<String>>(at).map(Option::unwrap_or_default))
                    .collect::<Result<_, _>>()?,
                currency: row.get(width)?,
                requests: count(1)?,
                failed: count(2)?,
                input_tokens: count(3)?,
                output_tokens: count(4)?,
                cache_read_tokens: count(5)?,
                estimated: count(6)?,
                cost: row.get(width + 7)?,
            })
        })?;
        // What cost nothing (refused, no price) stands first in its group and joins the first currency there is.
        let mut merged: Vec<Row> = Vec::new();
        for row in rows {
            let row = row?;
            match merged.last_mut().filter(|last| last.group == row.group && last.currency.is_empty()) {
                Some(last) => last.add(row),
                None => merged.push(row),
            }
        }
        Ok(merged)
    }
}

fn conditions(filter: &Filter) -> (String, Vec<Value>) {
    let mut clauses = Vec::new();
    let mut values = Vec::new();
    for (clause, value) in [
        ("id >= ?", filter.since.map(|time| Value::Blob(id_floor(time).to_vec()))),
        ("id < ?", filter.until.map(|time| Value::Blob(id_floor(time).to_vec()))),
        ("organization = ?", filter.organization.clone().map(Value::Text)),
        ("project = ?", filter.project.clone().map(Value::Text)),
    ] {
        if let Some(value) = value {
            clauses.push(clause);
            values.push(value);
        }
    }
    let clause = if clauses.is_empty() { String::new() } else { format!("WHERE {}", clauses.join(" AND ")) };
    (clause, values)
}
