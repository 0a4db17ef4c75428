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
        writer.write_record(row.iter().map(inert)).map_err(|error| fail(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| fail(&error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Text to the left, numbers to the right.
fn table(columns: &[&str], rows: &[Vec<Value>]) -> String {
    let cells: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(visible).collect()).collect();
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

/// For a terminal. Names may be a caller's own: what would move the cursor, or begin another line, is spelled out.
fn visible(value: &Value) -> String {
    let text = plain(value);
    if !text.contains(char::is_control) {
        return text;
    }
    let spell =
        |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.to_string() };
    text.chars().map(spell).collect()
}

/// For a spreadsheet, which would take a text that begins so for a formula and compute it (OWASP, "CSV Injection").
fn inert(value: &Value) -> String {
    let text = plain(value);
    let formula = !value.is_number() && text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    if formula { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_of_callers_do_nothing_where_they_are_shown() {
        let rows = [
            vec![json!("\u{1b}[2Jm\nacme"), json!(-1)],
            vec![json!("=1+1"), json!(7e-6)],
            vec![json!(["@x", "y"]), Value::Null],
        ];
        let lines: Vec<String> = table(&["model", "n"], &rows).lines().map(str::to_owned).collect();
        assert_eq!(lines[2..], ["\\u{1b}[2Jm\\nacme        -1", "=1+1              0.000007", "@x y"]);
        let text = csv(&["model", "n"], &rows).unwrap();
        assert_eq!(text, "model,n\n\"\u{1b}[2Jm\nacme\",-1\n'=1+1,0.000007\n'@x y,\n");
    }
}
