//! `tidegate usage`

use super::table;
use super::{Format, From};
use crate::ledger::ingest;
use crate::store::{Filter, Group, Store};
use clap::Args;
use serde_json::Value;

/// Show what was used, by whom and at what price. Works beside a running gateway.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate usage --by project,model --since 7d\n  tidegate usage --records --format json | tail"
)]
pub(super) struct Usage {
    #[command(flatten)]
    from: From,
    /// Add up by these, in order.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Group::Organization, Group::Project])]
    by: Vec<Group>,
    /// Single records instead of totals.
    #[arg(long)]
    records: bool,
    /// Only what started so long ago at most: 24h, 7d.
    #[arg(long, value_parser = humantime::parse_duration)]
    since: Option<std::time::Duration>,
    /// Only this organization.
    #[arg(long)]
    organization: Option<String>,
    /// Only this project.
    #[arg(long)]
    project: Option<String>,
    /// At most so many records, the newest.
    #[arg(long)]
    limit: Option<usize>,
    /// How to print.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

impl Usage {
    pub fn run(self) -> Result<(), String> {
        let ledger = crate::config::books(self.from.file().as_deref()).map_err(|problems| super::explain(&problems))?;
        let path = ledger.path;
        if !path.exists() {
            return Err(format!(
                "there is no ledger at {} yet: it begins with the first `tidegate serve`",
                path.display()
            ));
        }
        let mut store = Store::open(&path)?;
        // What the gateway (or one that died) has written a moment ago is still in the journal.
        ingest(&mut store, &path)?;
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = self.since.map(|since| now.saturating_sub(since).as_millis() as i64);
        let filter =
            Filter { since, until: None, organization: self.organization, project: self.project, limit: self.limit };
        if self.records {
            records(&store, &filter, self.format)
        } else {
            totals(&store, &filter, &told_apart(&self.by), self.format)
        }
    }
}

fn records(store: &Store, filter: &Filter, format: Format) -> Result<(), String> {
    let records = store.records(filter).map_err(|error| error.to_string())?;
    let rows: Vec<serde_json::Map<String, Value>> = records
        .iter()
        .map(|record| match serde_json::to_value(record) {
            Ok(Value::Object(row)) => Ok(row),
            other => Err(format!("a record could not be written: {other:?}")),
        })
        .collect::<Result<_, _>>()?;
    // A table of thirty columns is for nobody's eyes.
    let short = [
        "started_at",
        "organization",
        "project",
        "endpoint",
        "model_requested",
        "backend",
        "status",
        "outcome",
        "input_tokens",
        "output_tokens",
        "usage_source",
        "first_token_ms",
        "duration_ms",
        "cost",
    ];
    let all: Vec<String> = serde_json::to_value(crate::canon::Record::default())
        .ok()
        .and_then(|value| Some(value.as_object()?.keys().cloned().collect()))
        .unwrap_or_default();
    let columns: Vec<&str> =
        if format == Format::Table { short.to_vec() } else { all.iter().map(String::as_str).collect() };
    let cells: Vec<Vec<Value>> =
        rows.iter().map(|row| columns.iter().map(|column| cell(format, column, row)).collect()).collect();
    table::print(format, &columns, &cells)
}

fn cell(format: Format, column: &str, row: &serde_json::Map<String, Value>) -> Value {
    let value = row.get(column).cloned().unwrap_or(Value::Null);
    match (format, column, value.as_u64()) {
        (Format::Table, "started_at", Some(millis)) => {
            humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis))
                .to_string()
                .into()
        }
        _ => value,
    }
}

/// Ids of projects and keys are chosen by their owners: without these, rows of different tenants would be one.
fn told_apart(by: &[Group]) -> Vec<Group> {
    let mut groups = Vec::new();
    for group in by {
        let owners: &[Group] = match group {
            Group::Organization | Group::Model | Group::Day => &[],
            Group::Project => &[Group::Organization],
            Group::Key => &[Group::Organization, Group::Project],
        };
        for group in owners.iter().filter(|owner| !by.contains(owner)).chain([group]) {
            if !groups.contains(group) {
                groups.push(*group);
            }
        }
    }
    groups
}

fn totals(store: &Store, filter: &Filter, by: &[Group], format: Format) -> Result<(), String> {
    let rows = store.totals(filter, by).map_err(|error| error.to_string())?;
    let mut columns: Vec<&str> = by.iter().map(|group| group.heading()).collect();
    columns.extend([
        "requests",
        "failed",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "estimated",
        "cost",
        "currency",
    ]);
    let cells: Vec<Vec<Value>> = rows
        .into_iter()
        .map(|row| {
            let cost = if row.currency.is_empty() { Value::Null } else { ((row.cost * 1e6).round() / 1e6).into() };
            let counts =
                [row.requests, row.failed, row.input_tokens, row.output_tokens, row.cache_read_tokens, row.estimated];
            row.group
                .into_iter()
                .map(Value::String)
                .chain(counts.map(Value::from))
                .chain([cost, Value::String(row.currency)])
                .collect()
        })
        .collect();
    table::print(format, &columns, &cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_and_keys_are_told_apart_by_whose_they_are() {
        use Group::{Day, Key, Model, Organization, Project};
        for (by, groups) in [
            (vec![Model, Day], vec![Model, Day]),
            (vec![Organization, Project], vec![Organization, Project]),
            (vec![Project, Model], vec![Organization, Project, Model]),
            (vec![Model, Key], vec![Model, Organization, Project, Key]),
            (vec![Key, Project], vec![Organization, Key, Project]),
            (vec![Project, Organization], vec![Project, Organization]),
        ] {
            assert_eq!(told_apart(&by), groups, "{by:?}");
        }
    }
}
