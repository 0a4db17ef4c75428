//! The values a configuration is written in: sizes, periods, dates, secrets.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{
    borrow::Cow,
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

/// A number of bytes: `"32MiB"`, `"64kB"`, `1024`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub usize);

/// A span of time: `"30s"`, `"500ms"`, `"400d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(pub Duration);

/// So that a period can be added to any point in time.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86400);

const DATE: &str = "expected a date in quotes, such as \"2026-07-01\"";

/// A day: `"2026-07-01"`. The moment it begins in UTC, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(pub i64);

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let begins = SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.unsigned_abs());
        let text = humantime::format_rfc3339_seconds(begins).to_string();
        f.write_str(text.split('T').next().unwrap_or_default())
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let begins = humantime::parse_rfc3339(&format!("{text}T00:00:00Z")).ok().filter(|_| text.len() == 10);
        let since = begins.and_then(|begins| begins.duration_since(SystemTime::UNIX_EPOCH).ok());
        since.map(|since| Self(since.as_millis() as i64)).ok_or_else(|| format!("{DATE}; found \"{text}\""))
    }
}

/// A secret, given as itself, `"env:NAME"` or `"file:PATH"`. Prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself. Say it to nobody but its owner.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text =
            match Written::deserialize(from).map_err(|_| D::Error::custom("expected a size such as \"32MiB\""))? {
                Written::Number(bytes) => return usize::try_from(bytes).map(Size).map_err(D::Error::custom),
                Written::Text(text) => text,
            };
        let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
        let unit: usize = match text[digits..].trim() {
            "" | "B" => 1,
            "kB" | "KB" => 1000,
            "KiB" | "K" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" | "M" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" | "G" => 1 << 30,
            unit => {
                return Err(D::Error::custom(format!(
                    "unknown unit `{unit}` in size \"{text}\"; use B, kB, KiB, MB, MiB, GB or GiB"
                )));
            }
        };
        let number: usize = text[..digits]
            .parse()
            .map_err(|_| D::Error::custom(format!("expected a size such as \"32MiB\", found \"{text}\"")))?;
        number.checked_mul(unit).map(Size).ok_or_else(|| D::Error::custom(format!("size \"{text}\" is too large")))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Written::deserialize(from).map_err(|_| D::Error::custom("expected a period such as \"30s\""))? {
            Written::Number(number) => {
                Err(D::Error::custom(format!("a period needs a unit: write \"{number}s\" for seconds")))
            }
            Written::Text(text) => match humantime::parse_duration(&text) {
                Ok(period) if period > LONGEST => {
                    Err(D::Error::custom(format!("\"{text}\" is longer than a century, the longest period there is")))
                }
                Ok(period) => Ok(Period(period)),
                Err(error) => {
                    Err(D::Error::custom(format!("expected a period such as \"30s\", found \"{text}\" ({error})")))
                }
            },
        }
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from).map_err(|_| D::Error::custom(DATE))?;
        text.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if let Some(name) = text.strip_prefix("env:") {
            return std::env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .map(Secret)
                .ok_or_else(|| D::Error::custom(format!("the environment variable {name} is not set")));
        }
        if let Some(path) = text.strip_prefix("file:") {
            let value = std::fs::read_to_string(path)
                .map_err(|error| D::Error::custom(format!("cannot read the secret from {path}: {error}")))?;
            // Who renews it may have begun to write.
            return Some(value.trim())
                .filter(|value| !value.is_empty())
                .map(|value| Secret(value.to_owned()))
                .ok_or_else(|| D::Error::custom(format!("there is no secret in {path}: the file is empty")));
        }
        Ok(Secret(text))
    }
}

macro_rules! text_schema {
    ($type:ty, $name:literal, $pattern:expr, $example:literal) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": $pattern, "examples": [$example] })
            }
        }
    };
}
text_schema!(Size, "Size", ["string", "integer"], "32MiB");
text_schema!(Period, "Period", "string", "30s");
text_schema!(Date, "Date", "string", "2026-07-01");
text_schema!(Secret, "Secret", "string", "env:NAME");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_periods_read_as_people_write_them() {
        for (text, expect) in [
            ("\"32MiB\"", Some(32 << 20)),
            ("7", Some(7)),
            ("\"1 GB\"", Some(1_000_000_000)),
            ("\"1 MX\"", None),
            ("\"x\"", None),
            ("\"99999999999GiB\"", None),
        ] {
            assert_eq!(serde_json::from_str::<Size>(text).ok().map(|size| size.0), expect, "{text}");
        }
        for (text, expect) in [
            ("\"30s\"", Some(30_000)),
            ("\"50ms\"", Some(50)),
            ("\"400d\"", Some(34_560_000_000)),
            ("30", None),
            ("\"soon\"", None),
            ("\"101y\"", None),
        ] {
            assert_eq!(serde_json::from_str::<Period>(text).ok().map(|period| period.0.as_millis()), expect, "{text}");
        }
    }

    #[test]
    fn dates_are_days() {
        for (text, begins) in [
            ("\"2026-07-01\"", Some(1_782_864_000_000)),
            ("\"2024-02-29\"", Some(1_709_164_800_000)),
            ("\"2026-02-29\"", None),
            ("\"2026-7-1\"", None),
            ("\"2026-07-01T00:00:00Z\"", None),
            ("\"1969-12-31\"", None),
            ("20260701", None),
        ] {
            let date = serde_json::from_str::<Date>(text);
            assert_eq!(date.as_ref().ok().map(|date| date.0), begins, "{text}");
            match date {
                Ok(date) => assert_eq!(format!("\"{date}\""), text),
                Err(error) => assert!(error.to_string().contains("expected a date"), "{text}: {error}"),
            }
        }
    }

    #[test]
    fn a_secret_never_prints() {
        let secret: Secret = serde_json::from_str("\"hunter2\"").unwrap();
        assert_eq!((format!("{secret:?}").as_str(), secret.reveal()), ("***", "hunter2"));
        assert!(
            serde_json::from_str::<Secret>("\"env:TIDEGATE_NO_SUCH\"")
                .unwrap_err()
                .to_string()
                .contains("TIDEGATE_NO_SUCH")
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        let place = format!("\"file:{}\"", file.path().display());
        assert!(serde_json::from_str::<Secret>(&place).unwrap_err().to_string().contains("the file is empty"));
        std::fs::write(file.path(), " hunter2\n").unwrap();
        assert_eq!(serde_json::from_str::<Secret>(&place).unwrap(), secret);
    }
}
