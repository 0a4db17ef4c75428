//! `tidegate usage`

use super::table;
use super::{Format, From};
use crate::canon::Date;
use crate::ledger::ingest;
use crate::store::{Filter, Group, Store};
use clap::Args;
use serde_json::Value;
use std::ops::Range;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// What it exits with where not all could be shown: who makes bills of it must not take that for all there is. 1 is for failures,
/// 2 is clap's for a line it does not understand.
const INCOMPLETE: u8 = 3;

/// Show what was used, by whom and at what price. Works beside a running gateway; exits with 3 where it could not read all.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  tidegate usage --by project,model --since 7d\n  tidegate usage --by project,model --month 2026-11 --format csv\n  tidegate usage --records --format json | tail"
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
    /// Only what started from then on: so long ago (24h, 7d), or a day or time in UTC (2026-11-01, 2026-11-01T12:00:00Z).
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Only what started before then, which is written as for --since.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
    /// Only what started in this month, in UTC: 2026-11.
    #[arg(long, value_parser = month, conflicts_with_all = ["since", "until"])]
    month: Option<Range<i64>>,
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
    pub fn run(self) -> Result<ExitCode, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (since, until) = self.window(now)?;
        let ledger = crate::config::books(self.from.file().as_deref()).map_err(|problems| super::explain(&problems))?;
        let path = ledger.path;
        if !path.exists() {
            return Err(format!(
                "there is no ledger at {} yet: it begins with the first `tidegate serve`",
                path.display()
            ));
        }
        let (store, missing) = open(&path)?;
        let filter = Filter { since, until, organization: self.organization, project: self.project, limit: self.limit };
        if self.records {
            records(&store, &filter, self.format)?;
        } else {
            totals(&store, &filter, &told_apart(&self.by), self.format)?;
        }
        let Some(problem) = missing else { return Ok(ExitCode::SUCCESS) };
        eprintln!("tidegate: {problem}; what only the journal has is not in these numbers");
        Ok(INCOMPLETE.into())
    }

    /// From when on, and before when, in milliseconds since 1970.
    fn window(&self, now: Duration) -> Result<(Option<i64>, Option<i64>), String> {
        if let Some(month) = &self.month {
            return Ok((Some(month.start), Some(month.end)));
        }
        let [since, until] = [self.since, self.until].map(|moment| moment.map(|moment| moment.millis(now)));
        match (since, until) {
            (Some(since), Some(until)) if since >= until => {
                Err("nothing can be between --since and --until: the first has to be the earlier".into())
            }
            _ => Ok((since, until)),
        }
    }
}

/// The books, with what is still in the journal if that can be brought into them, and why not where it cannot.
fn open(path: &Path) -> Result<(Store, Option<String>), String> {
    match Store::open(path) {
        // What the gateway (or one that died) has written a moment ago is in the journal only.
        Ok(mut store) => {
            let problem = match ingest(&mut store, path) {
                Ok((_, 0)) => None,
                Ok((_, lines)) => {
                    Some(format!("{lines} of the journal's lines are no records: see its rejected.jsonl"))
                }
                Err(problem) => Some(problem),
            };
            Ok((store, problem))
        }
        Err(problem) => match Store::open_read_only(path) {
            Ok(store) => Ok((store, Some(problem))),
            Err(_) => Err(problem),
        },
    }
}

/// A point in time as people write it.
#[derive(Debug, Clone, Copy)]
enum Moment {
    Ago(Duration),
    /// Milliseconds since 1970.
    At(i64),
}

impl Moment {
    fn millis(self, now: Duration) -> i64 {
        match self {
            Self::Ago(period) => now.saturating_sub(period).as_millis() as i64,
            Self::At(millis) => millis,
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(day) = text.parse::<Date>() {
        return Ok(Moment::At(day.0));
    }
    let time = humantime::parse_rfc3339(text).ok();
    if let Some(since) = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()) {
        return Ok(Moment::At(since.as_millis() as i64));
    }
    humantime::parse_duration(text).map(Moment::Ago).map_err(|_| {
        "expected a period back such as 7d, a day such as 2026-11-01 or a time in UTC such as 2026-11-01T12:00:00Z"
            .into()
    })
}

/// From where a month begins to where the next one does.
fn month(text: &str) -> Result<Range<i64>, String> {
    let begins = |month: &str| format!("{month}-01").parse::<Date>().ok().map(|day| day.0);
    let whole = || {
        let start = begins(text)?;
        // Digits only: it begins with a day.
        let (year, month) = text.split_once('-')?;
        let next = match (year.parse::<u32>().ok()?, month.parse::<u32>().ok()?) {
            (year, 12) => format!("{}-01", year + 1),
            (year, month) => format!("{year}-{:02}", month + 1),
        };
        Some(start..begins(&next)?)
    };
    whole().ok_or_else(|| "expected a month such as 2026-11".into())
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
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        usage: Usage,
    }

    #[test]
    fn the_time_asked_for_is_a_period_back_a_day_a_time_or_a_month() {
        // 2026-11-01 and 2026-12-01 begin at these milliseconds.
        let (november, december) = (1_793_491_200_000, 1_796_083_200_000);
        let noon = november + 43_200_000;
        let now = Duration::from_millis(december as u64);
        for (line, window) in [
            ("", Some((None, None))),
            ("--since 24h", Some((Some(december - 86_400_000), None))),
            ("--since 2d --until 1d", Some((Some(december - 172_800_000), Some(december - 86_400_000)))),
            ("--since 2026-11-01 --until 2026-12-01", Some((Some(november), Some(december)))),
            ("--since 2026-11-01T12:00:00Z", Some((Some(noon), None))),
            ("--until 2026-11-01T12:00:00.25+00:00", Some((None, Some(noon + 250)))),
            ("--month 2026-11", Some((Some(november), Some(december)))),
            ("--month 2026-12", Some((Some(december), Some(december + 31 * 86_400_000)))),
            ("--since 2026-12-01 --until 2026-11-01", None),
            ("--since 2026-11-01 --until 2026-11-01", None),
            ("--since 2026-11-31", None),
            ("--since 2026-11", None),
            ("--since 2026-11-01T12:00:00+02:00", None),
            ("--until yesterday", None),
            ("--month 2026-13", None),
            ("--month 2026-+1", None),
            ("--month 9999-12", None),
            ("--month 2026-11-01", None),
            ("--month 2026-11 --until 2026-11-15", None),
        ] {
            let words = std::iter::once("usage").chain(line.split_whitespace());
            let found = Line::try_parse_from(words).ok().and_then(|line| line.usage.window(now).ok());
            assert_eq!(found, window, "{line}");
        }
    }

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
