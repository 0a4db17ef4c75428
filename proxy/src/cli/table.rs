//! Rows as a table, as JSON lines or as CSV.

use super::Format;
use serde_json::{Map, Value};

/// Prints rows of the same columns.
pub(super) fn print(format: Format, columns: &[&str], rows: &[Vec<Value>]) -> Result<(), String> {
    let text = match format {
        Format::Table => table(columns, rows),
        Format::Json => rows
            .iter()
            .map(|row| {
                Value::Object(
                    columns.iter().map(|column| (*column).to_owned()).zip(row.iter().cloned()).collect::<Map<_, _>>(),
                )
                .to_string()
                    + "\n"
            })
            .collect(),
        Format::Csv => csv(columns, rows)?,
    };
    super::print(&text);
    Ok(())
}

fn csv(columns: &[&str], rows: &[Vec<Value>]) -> Result<String, String> {
    let fail = |error: &dyn std::fmt::Display| format!("cannot write CSV: {error}");
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(columns).map_err(|error| fail(&error))?;
    for row in rows {
        writer.write_record(row.iter().map(plain)).map_err(|error| fail(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| fail(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Text to the left, numbers to the right.
fn table(columns: &[&str], rows: &[Vec<Value>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(plain).collect()).collect();
    let width = |at: usize| {
        cells.iter().map(|row| row[at].chars().count()).chain([columns[at].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let is_number = |at: usize| rows.iter().any(|row| row[at].is_number());
    let line = |row: &[String]| {
        let cells = row.iter().enumerate().map(|(at, cell)| {
            let width = widths[at];
            if is_number(at) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let heading: Vec<String> = columns.iter().map(|column| (*column).to_owned()).collect();
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    [heading, rule].iter().chain(&cells).map(|row| line(row)).collect()
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        // serde_json would write small amounts with an exponent.
        Value::Number(number) if number.is_f64() => number.as_f64().unwrap_or_default().to_string(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
