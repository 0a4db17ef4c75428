//! An instruction with blanks: `{date}`, `{organization}`, `{project}`, `{model}`, `{user}`.

use serde::Deserialize;
use tidegate_plugin::{Call, request, system};

/// The text of an instruction.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Prompt(String);

impl Prompt {
    /// The text with its blanks filled. What else stands in braces stays.
    pub fn fill(&self, call: &Call) -> String {
        let mut out = String::with_capacity(self.0.len());
        let mut rest = self.0.as_str();
        while let Some((before, after)) = rest.split_once('{') {
            out.push_str(before);
            let value = after.split_once('}').and_then(|(name, tail)| Some((value(name, call)?, tail)));
            match value {
                Some((value, tail)) => {
                    out.push_str(&value);
                    rest = tail;
                }
                None => {
                    out.push('{');
                    rest = after;
                }
            }
        }
        out.push_str(rest);
        out
    }
}

fn value(name: &str, call: &Call) -> Option<String> {
    match name {
        "date" => Some(date(system::now())),
        "organization" => Some(request::caller().organization),
        "project" => Some(request::caller().project),
        "user" => Some(request::user().unwrap_or_default()),
        "model" => Some(call.model()),
        _ => None,
    }
}

/// `2026-11-24`, from milliseconds since 1970 (Howard Hinnant's days-to-civil).
fn date(now: f64) -> String {
    let days = (now / 86_400_000.0).floor() as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::date;

    #[test]
    fn dates() {
        for (now, expect) in [
            (0.0, "1970-01-01"),
            (951_782_400_000.0, "2000-02-29"),
            (1_700_000_000_000.0, "2023-11-14"),
            (1_798_761_599_999.0, "2026-12-31"),
        ] {
            assert_eq!(date(now), expect);
        }
    }
}
