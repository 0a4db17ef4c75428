//! What tokens cost, and from when on.

use super::{Date, Usage};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Nothing costs as much, in any currency.
const MOST: f64 = 1e12;

/// Price of tokens, per million.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The day with which it begins, in UTC; it has always been where absent.
    pub from: Option<Date>,
    /// ISO 4217 code.
    pub currency: Arc<str>,
    /// Prompt tokens that came from no cache.
    #[serde(default)]
    pub input: f64,
    /// Generated tokens.
    #[serde(default)]
    pub output: f64,
    /// Prompt tokens read from a cache; the input price where absent.
    pub cache_read: Option<f64>,
    /// Prompt tokens written to a cache; the input price where absent.
    pub cache_write: Option<f64>,
}

impl Price {
    /// What these tokens cost. Unknown counts cost nothing.
    pub fn of(&self, usage: &Usage) -> f64 {
        let read = usage.cache_read.unwrap_or(0);
        let written = usage.cache_write.unwrap_or(0);
        let fresh = usage.input.unwrap_or(0).saturating_sub(read + written);
        (fresh as f64 * self.input
            + read as f64 * self.cache_read.unwrap_or(self.input)
            + written as f64 * self.cache_write.unwrap_or(self.input)
            + usage.output.unwrap_or(0) as f64 * self.output)
            / 1e6
    }

    /// Whether each of them is an amount: TOML writes infinity, too, and what is no number.
    fn is_sound(&self) -> bool {
        let amounts = [Some(self.input), Some(self.output), self.cache_read, self.cache_write];
        amounts.into_iter().flatten().all(|amount| (0.0..=MOST).contains(&amount))
    }
}

/// The prices of one thing, in the order of their days: a table, or a list of them. Each holds until the next one begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Prices(Arc<[Price]>);

impl Prices {
    /// The price at this time, milliseconds since 1970; `None` where none has begun.
    pub fn at(&self, millis: i64) -> Option<&Price> {
        self.0.iter().rev().find(|price| price.from.is_none_or(|from| from.0 <= millis))
    }

    /// Whether there can be bills by all of them.
    pub fn are_sound(&self) -> bool {
        self.0.iter().all(Price::is_sound)
    }

    fn of(mut prices: Vec<Price>) -> Result<Self, String> {
        if prices.is_empty() {
            return Err("a list of prices needs at least one".into());
        }
        prices.sort_by_key(|price| price.from);
        let twice = prices.windows(2).find(|pair| pair[0].from == pair[1].from).map(|pair| pair[0].from);
        match twice {
            Some(Some(day)) => Err(format!("two prices are from {day}, and only one can count")),
            Some(None) => Err("two prices have no `from`, and only one can be the first".into()),
            None => Ok(Self(prices.into())),
        }
    }
}

impl<'de> Deserialize<'de> for Prices {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // Not an untagged enum: that forgets where in them something is wrong.
        from.deserialize_any(OneOrMore)
    }
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Prices;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a price, or a list of prices with `from`")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Prices, A::Error> {
        Price::deserialize(MapAccessDeserializer::new(map)).map(|price| Prices([price].into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Prices, A::Error> {
        let prices = Vec::<Price>::deserialize(SeqAccessDeserializer::new(seq))?;
        Prices::of(prices).map_err(A::Error::custom)
    }
}

impl JsonSchema for Prices {
    fn schema_name() -> Cow<'static, str> {
        "Prices".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let price = generator.subschema_for::<Price>();
        json_schema!({ "anyOf": [price, { "type": "array", "items": price, "minItems": 1 }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_tokens_are_priced_apart_and_once() {
        let price: Price =
            serde_json::from_str(r#"{"currency":"USD","input":1,"output":10,"cache_read":0.1}"#).unwrap();
        let usage =
            Usage { input: Some(1_000_000), output: Some(100_000), cache_read: Some(400_000), ..Usage::default() };
        assert!((price.of(&usage) - (0.6 + 0.04 + 1.0)).abs() < 1e-9);
    }

    #[test]
    fn a_price_is_an_amount() {
        let price = |input: f64, cache_read: Option<f64>| Price {
            from: None,
            currency: "USD".into(),
            input,
            output: 0.0,
            cache_read,
            cache_write: None,
        };
        for (price, sound) in [
            (price(0.0, None), true),
            (price(1e6, Some(0.1)), true),
            (price(-0.1, None), false),
            (price(1.0, Some(-0.1)), false),
            (price(f64::INFINITY, None), false),
            (price(f64::NAN, None), false),
        ] {
            assert_eq!(Prices([price.clone()].into()).are_sound(), sound, "{price:?}");
        }
    }

    #[test]
    fn the_latest_that_has_begun_counts() {
        // 2026-07-01 begins at 1,782,864,000 s.
        let july = 1_782_864_000_000;
        for (json, times) in [
            (r#"{"currency":"USD","input":1}"#, [(0, Some(1.0)), (july, Some(1.0))]),
            (
                r#"[{"from":"2026-07-01","currency":"USD","input":2},{"currency":"USD","input":1}]"#,
                [(july - 1, Some(1.0)), (july, Some(2.0))],
            ),
            (r#"[{"from":"2026-07-01","currency":"USD","input":2}]"#, [(july - 1, None), (july + 1, Some(2.0))]),
            (
                r#"[{"from":"2026-06-30","currency":"USD","input":2},{"from":"2026-07-01","currency":"USD","input":3}]"#,
                [(july - 86_400_000, Some(2.0)), (july, Some(3.0))],
            ),
        ] {
            let prices: Prices = serde_json::from_str(json).unwrap();
            for (time, input) in times {
                assert_eq!(prices.at(time).map(|price| price.input), input, "{json} at {time}");
            }
        }
        for (json, says) in [
            ("[]", "at least one"),
            (r#"[{"currency":"USD"},{"currency":"USD"}]"#, "two prices have no `from`"),
            (
                r#"[{"from":"2026-07-01","currency":"USD"},{"from":"2026-07-01","currency":"EUR"}]"#,
                "two prices are from 2026-07-01",
            ),
            (r#"{"currency":"USD","form":"2026-07-01"}"#, "unknown field `form`"),
            ("7", "a price, or a list of prices"),
        ] {
            let error = serde_json::from_str::<Prices>(json).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
        }
    }
}
