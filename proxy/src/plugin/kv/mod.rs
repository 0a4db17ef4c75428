//! What plugins keep beyond a request: keys and values, each with a time to live.
//!
//! They are in this process's memory, or in Redis where `limits.redis` names one, which all gateways that name it share. The
//! plugin's name and, unless its grant says otherwise, the organization are part of every key, so that nobody reaches what
//! is not theirs. A plugin cannot tell the two apart; one table of tests runs over both.

mod memory;
mod redis;

pub(super) use redis::Redis;

use memory::Memory;
use std::time::Duration;

/// Longest a value lives.
const LONGEST: Duration = Duration::from_secs(30 * 86400);
/// Longest key.
const KEY: usize = 512;

/// Whose key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    plugin: Box<str>,
    /// Empty where all organizations share.
    organization: Box<str>,
    key: Box<str>,
}

/// Where it is kept.
pub(super) enum Store {
    Memory(Memory),
    Redis(Redis),
}

impl Default for Store {
    fn default() -> Self {
        Self::Memory(Memory::default())
    }
}

impl Store {
    /// Tells the log whether it is there.
    pub async fn greet(&self) {
        if let Self::Redis(redis) = self {
            redis.greet().await;
        }
    }
}

/// Why something was not kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The key is longer than 512 bytes.
    Key,
    /// There is no room; later there may be.
    Full,
    /// The value is no number.
    NoNumber,
    /// Redis does not answer; later it may.
    Away,
}

/// The part of the store that a plugin sees for one request.
pub(super) struct Drawer<'a> {
    pub store: &'a Store,
    pub plugin: &'a str,
    pub organization: &'a str,
    /// Longest to wait for an answer.
    pub patience: Duration,
}

impl Drawer<'_> {
    pub async fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refused> {
        let name = self.name(key)?;
        match self.store {
            Store::Memory(memory) => Ok(memory.get(&name)),
            Store::Redis(redis) => redis.get(&name, self.patience).await,
        }
    }

    pub async fn set(&self, key: &str, value: Vec<u8>, ttl: Option<Duration>) -> Result<(), Refused> {
        let (name, ttl) = (self.name(key)?, life(ttl));
        match self.store {
            Store::Memory(memory) => memory.set(name, value, ttl),
            Store::Redis(redis) => redis.set(&name, &value, ttl, self.patience).await,
        }
    }

    pub async fn delete(&self, key: &str) -> Result<(), Refused> {
        let name = self.name(key)?;
        match self.store {
            Store::Memory(memory) => memory.delete(&name),
            Store::Redis(redis) => return redis.delete(&name, self.patience).await,
        }
        Ok(())
    }

    /// Adds to a number, kept as its decimal digits; it stops at the ends of 64 bits.
    pub async fn increment(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, Refused> {
        let (name, ttl) = (self.name(key)?, life(ttl));
        match self.store {
            Store::Memory(memory) => memory.increment(name, by, ttl),
            Store::Redis(redis) => redis.increment(&name, by, ttl, self.patience).await,
        }
    }

    fn name(&self, key: &str) -> Result<Name, Refused> {
        if key.len() > KEY {
            return Err(Refused::Key);
        }
        Ok(Name { plugin: self.plugin.into(), organization: self.organization.into(), key: key.into() })
    }
}

fn life(ttl: Option<Duration>) -> Duration {
    ttl.unwrap_or(LONGEST).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// What every store does, whatever it is made of.
    async fn check(store: &Store) {
        // Others may use the same Redis.
        let plugin = format!("p-{}", uuid::Uuid::now_v7());
        let other = format!("{plugin}x");
        let drawer = |plugin, organization| Drawer { store, plugin, organization, patience: Duration::from_secs(5) };
        let (acme, umbrella, all) = (drawer(&plugin, "acme"), drawer(&plugin, "umbrella"), drawer(&plugin, ""));
        let elsewhere = drawer(&other, "acme");
        let (soon, now) = (Some(Duration::from_secs(1)), Some(Duration::ZERO));

        // Apart by plugin and organization; any bytes, any text for a key.
        let bytes = vec![0, 255, b'\r', b'\n'];
        for key in ["k", "", "a:b", "umbrella:k", "é\n", &"x".repeat(512)] {
            assert_eq!(acme.get(key).await, Ok(None), "{key}");
            acme.set(key, bytes.clone(), None).await.unwrap();
            assert_eq!(acme.get(key).await, Ok(Some(bytes.clone())), "{key}");
            for not in [&umbrella, &all, &elsewhere] {
                assert_eq!(not.get(key).await, Ok(None), "{key}");
            }
            umbrella.delete(key).await.unwrap();
            assert_eq!(acme.get(key).await, Ok(Some(bytes.clone())), "{key}");
            acme.delete(key).await.unwrap();
            assert_eq!(acme.get(key).await, Ok(None), "{key}");
            acme.delete(key).await.unwrap();
        }
        let long = "x".repeat(513);
        assert_eq!(acme.get(&long).await, Err(Refused::Key));
        assert_eq!(acme.set(&long, Vec::new(), None).await, Err(Refused::Key));
        assert_eq!(acme.delete(&long).await, Err(Refused::Key));
        assert_eq!(acme.increment(&long, 1, None).await, Err(Refused::Key));

        // A value lives as long as its last `set` says, a number as long as its first step says.
        acme.set("k", b"short".to_vec(), soon).await.unwrap();
        acme.set("long", b"short".to_vec(), soon).await.unwrap();
        acme.set("long", b"long".to_vec(), Some(Duration::MAX)).await.unwrap();
        assert_eq!(acme.increment("n", 5, soon).await, Ok(5));
        assert_eq!(acme.increment("n", 1, None).await, Ok(6));
        assert_eq!(acme.get("k").await, Ok(Some(b"short".to_vec())));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(acme.get("k").await, Ok(None), "it has expired");
        assert_eq!(acme.get("long").await, Ok(Some(b"long".to_vec())));
        assert_eq!(acme.increment("n", 1, None).await, Ok(1), "what has expired is not there");
        acme.set("k", b"v".to_vec(), None).await.unwrap();
        acme.set("k", b"v".to_vec(), now).await.unwrap();
        assert_eq!(acme.get("k").await, Ok(None));
        assert_eq!(acme.increment("k", 7, now).await, Ok(7));
        assert_eq!(acme.get("k").await, Ok(None));

        // Numbers, to their ends and back.
        for (value, by, sum) in [
            (None, 0, Ok(0)),
            (None, -7, Ok(-7)),
            (Some("41"), 1, Ok(42)),
            (Some("9007199254740993"), 2, Ok(9_007_199_254_740_995)),
            (Some("9223372036854775806"), 5, Ok(i64::MAX)),
            (Some("-9223372036854775807"), -5, Ok(i64::MIN)),
            (None, i64::MIN, Ok(i64::MIN)),
            (Some("text"), 1, Err(Refused::NoNumber)),
            (Some(""), 1, Err(Refused::NoNumber)),
            (Some("+5"), 1, Err(Refused::NoNumber)),
            (Some("007"), 1, Err(Refused::NoNumber)),
            (Some("-0"), 1, Err(Refused::NoNumber)),
            (Some(" 1"), 1, Err(Refused::NoNumber)),
            (Some("9223372036854775808"), 1, Err(Refused::NoNumber)),
        ] {
            acme.delete("n").await.unwrap();
            if let Some(value) = value {
                acme.set("n", value.into(), None).await.unwrap();
            }
            assert_eq!(acme.increment("n", by, None).await, sum, "{value:?} + {by}");
            let kept = sum.map(|sum| sum.to_string()).unwrap_or_else(|_| value.unwrap_or_default().into());
            assert_eq!(acme.get("n").await, Ok(Some(kept.into_bytes())), "{value:?} + {by}");
        }
        for drawer in [&acme, &umbrella] {
            for key in ["n", "k", "long"] {
                drawer.delete(key).await.unwrap();
            }
        }
    }

    #[tokio::test]
    async fn memory_keeps_what_a_store_keeps() {
        let store = Store::default();
        check(&store).await;
        let Store::Memory(memory) = &store else { panic!("it is in memory") };
        assert_eq!(memory.bytes(), 0, "every byte is given back");
    }

    /// Needs a Redis; `make redis` starts one and says where in these variables.
    #[tokio::test]
    async fn redis_keeps_what_a_store_keeps() {
        let ca = std::env::var("TIDEGATE_TEST_REDIS_CA").ok();
        for (url, ca) in [("TIDEGATE_TEST_REDIS", None), ("TIDEGATE_TEST_REDIS_TLS", ca.as_deref().map(Path::new))] {
            let Ok(url) = std::env::var(url) else { continue };
            check(&Store::Redis(Redis::open(&url, ca, prometheus::IntGauge::new("up", "x").unwrap()).unwrap())).await;
        }
    }

    #[tokio::test]
    async fn a_redis_that_is_away_is_waited_for_once_and_briefly() {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let up = prometheus::IntGauge::new("up", "x").unwrap();
        // It takes the connection and says nothing.
        let url = format!("redis://{}", gone.local_addr().unwrap());
        let store = Store::Redis(Redis::open(&url, None, up.clone()).unwrap());
        let drawer = Drawer { store: &store, plugin: "p", organization: "o", patience: Duration::from_secs(5) };
        let began = std::time::Instant::now();
        assert_eq!(drawer.get("k").await, Err(Refused::Away));
        assert!(began.elapsed() >= Duration::from_millis(500));
        for _ in 0..100 {
            assert_eq!(drawer.increment("k", 1, None).await, Err(Refused::Away));
            assert_eq!(drawer.set("k", Vec::new(), None).await, Err(Refused::Away));
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(up.get(), 0);
        assert_eq!(drawer.get(&"x".repeat(513)).await, Err(Refused::Key));
    }
}
