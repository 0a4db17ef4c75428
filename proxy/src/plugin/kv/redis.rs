//! Keys and values in Redis, which several gateways share.
//!
//! One connection for all workers, many requests on the way at a time. Each operation is one command or one script, so each
//! is atomic. A Redis that does not answer is asked again once a second; until then every operation is refused at once, so
//! that its absence costs a request nothing but what the plugin wanted from it.

use super::{Name, Refused};
use crate::trust;
use ::redis::aio::{ConnectionManager, ConnectionManagerConfig};
use ::redis::{Client, Cmd, ConnectionAddr, FromRedisValue, RedisError, RedisResult, Script, TlsCertificates, cmd};
use prometheus::IntGauge;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest an operation may take, and a connection. Redis answers within a millisecond, or something is wrong.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));
/// Milliseconds between two looks whether it is back.
const REST: u64 = 1000;
/// Adds, and answers the sum as text: Lua's numbers have 53 bits. `false`: what is there is no number.
const INCREMENT: &str = "
local fresh = redis.call('EXISTS', KEYS[1]) == 0
local sum = redis.pcall('INCRBY', KEYS[1], ARGV[1])
if type(sum) == 'table' and sum.err then
  if string.find(sum.err, 'not an integer') then return false end
  if not string.find(sum.err, 'overflow') then return sum end
  redis.call('SET', KEYS[1], ARGV[3], 'KEEPTTL')
end
local text = redis.call('GET', KEYS[1])
if fresh then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return text
";
const UNKNOWN: u8 = 0;
const HERE: u8 = 1;
const AWAY: u8 = 2;

/// See the module.
pub(crate) struct Redis {
    connection: ConnectionManager,
    increment: Script,
    /// 1 while it answers.
    up: IntGauge,
    state: AtomicU8,
    /// While it is away: when it is asked again, in milliseconds since `born`. 0 while it is not.
    again: AtomicU64,
    /// Since when nobody was answered, in the same milliseconds. 0: the last one was.
    silent: AtomicU64,
    born: Instant,
}

impl Redis {
    /// Prepares a connection; it is made with the first operation. The authorities of the file `ca`, else the public ones,
    /// vouch for a server with TLS. To be called inside a runtime.
    ///
    /// # Errors
    /// What is wrong with the address or the file. The address is not repeated: a password may be in it.
    pub fn open(url: &str, ca: Option<&Path>, up: IntGauge) -> Result<Self, String> {
        trust::share_cryptography();
        let client = match ca.map(trust::authorities_text).transpose()? {
            None => client(url)?,
            root_cert => Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert }).map_err(wrong)?,
        };
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(PATIENCE.1))
            // The time limit is around the whole operation, and the pause between two tries is ours.
            .set_response_timeout(None)
            .set_number_of_retries(0);
        let connection = ConnectionManager::new_lazy_with_config(client, config)
            .map_err(|error| format!("the connection to Redis cannot be prepared: {error}"))?;
        let (state, again, silent) = (AtomicU8::new(UNKNOWN), AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { connection, increment: Script::new(INCREMENT), up, state, again, silent, born: Instant::now() })
    }

    /// Whether this is an address.
    ///
    /// # Errors
    /// As [`Redis::open`].
    pub fn check(url: &str) -> Result<(), String> {
        client(url).map(drop)
    }

    /// Whether this is an address of a Redis with TLS.
    pub fn is_tls(url: &str) -> bool {
        client(url).is_ok_and(|client| matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. }))
    }

    /// Says hello, so that the log tells at the start whether it is there.
    pub async fn greet(&self) {
        let _ = self.command::<String>(cmd("PING"), PATIENCE.1).await;
    }

    pub(super) async fn get(&self, name: &Name, patience: Duration) -> Result<Option<Vec<u8>>, Refused> {
        self.command(cmd("GET").arg(key(name)).take(), patience).await
    }

    pub(super) async fn set(
        &self,
        name: &Name,
        value: &[u8],
        ttl: Duration,
        patience: Duration,
    ) -> Result<(), Refused> {
        match millis(ttl) {
            // Redis takes no such time.
            0 => self.delete(name, patience).await,
            ttl => self.command(cmd("SET").arg(key(name)).arg(value).arg("PX").arg(ttl).take(), patience).await,
        }
    }

    pub(super) async fn delete(&self, name: &Name, patience: Duration) -> Result<(), Refused> {
        self.command(cmd("DEL").arg(key(name)).take(), patience).await
    }

    pub(super) async fn increment(
        &self,
        name: &Name,
        by: i64,
        ttl: Duration,
        patience: Duration,
    ) -> Result<i64, Refused> {
        let end = if by < 0 { i64::MIN } else { i64::MAX };
        let mut connection = self.connection.clone();
        let mut script = self.increment.key(key(name));
        script.arg(by).arg(millis(ttl)).arg(end);
        let sum: Option<String> = self.within(patience, script.invoke_async(&mut connection)).await?;
        sum.and_then(|sum| sum.parse().ok()).ok_or(Refused::NoNumber)
    }

    async fn command<T: FromRedisValue>(&self, command: Cmd, patience: Duration) -> Result<T, Refused> {
        let mut connection = self.connection.clone();
        self.within(patience, command.query_async(&mut connection)).await
    }

    /// An operation within its time, and not at all while Redis is away.
    async fn within<T>(
        &self,
        patience: Duration,
        operation: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Refused> {
        let now = self.now();
        let again = self.again.load(Ordering::Relaxed);
        if again > 0 {
            // One operation goes and looks; the others need not wait for what it finds.
            let looks = again <= now
                && self.again.compare_exchange(again, now + REST, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if !looks {
                return Err(Refused::Away);
            }
        }
        let patience = patience.min(PATIENCE.0);
        match tokio::time::timeout(patience, operation).await {
            Ok(Ok(value)) => {
                self.is_here();
                Ok(value)
            }
            Ok(Err(error)) if error.code() == Some("OOM") => {
                self.is_here();
                Err(Refused::Full)
            }
            Ok(Err(error)) => Err(self.is_away(&error)),
            Err(_) => Err(self.is_silent(now)),
        }
    }

    /// Nobody answered an operation that began then. One that could not wait for long says little: Redis is away for all when
    /// it was silent for as long as any operation may take.
    fn is_silent(&self, began: u64) -> Refused {
        let since = self.silent.load(Ordering::Relaxed);
        // Between two that are far apart it may have been asked nothing.
        let since = if since == 0 || began.saturating_sub(since) > REST { began } else { since };
        let silence = self.now().saturating_sub(since);
        if silence >= millis(PATIENCE.0) {
            return self.is_away(&format_args!("no answer for {silence} ms"));
        }
        self.silent.store(since, Ordering::Relaxed);
        if self.again.load(Ordering::Relaxed) > 0 {
            // It went to look whether Redis is back, and does not know: the next one need not wait to do so.
            self.again.store(self.now(), Ordering::Relaxed);
        }
        Refused::Away
    }

    fn is_here(&self) {
        if self.silent.load(Ordering::Relaxed) != 0 {
            self.silent.store(0, Ordering::Relaxed);
        }
        if self.state.load(Ordering::Relaxed) != HERE && self.state.swap(HERE, Ordering::Relaxed) != HERE {
            self.again.store(0, Ordering::Relaxed);
            self.up.set(1);
            tracing::info!("Redis answers: it keeps what plugins keep");
        }
    }

    fn is_away(&self, error: &dyn std::fmt::Display) -> Refused {
        self.again.store(self.now() + REST, Ordering::Relaxed);
        if self.state.swap(AWAY, Ordering::Relaxed) != AWAY {
            self.up.set(0);
            tracing::warn!(%error, "Redis does not answer: plugins that keep something are told busy until it does");
        }
        Refused::Away
    }

    /// Milliseconds, and never 0.
    fn now(&self) -> u64 {
        self.born.elapsed().as_millis() as u64 + 1
    }
}

fn client(url: &str) -> Result<Client, String> {
    Client::open(url).map_err(wrong)
}

fn wrong(_: RedisError) -> String {
    "this is no address of a Redis: write redis://host:6379, redis://user:password@host:6379/0, or rediss:// for TLS"
        .to_owned()
}

/// Names of plugins and organizations hold no colon, so no two names make one key.
fn key(name: &Name) -> String {
    format!("tidegate:kv:{}:{}:{}", name.plugin, name.organization, name.key)
}

fn millis(time: Duration) -> u64 {
    time.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_operation_that_cannot_wait_does_not_say_that_redis_is_away() {
        let redis = Redis::open("redis://127.0.0.1:1", None, IntGauge::new("up", "x").unwrap()).unwrap();
        let silent = || redis.within(Duration::from_millis(10), std::future::pending::<RedisResult<i32>>());
        let answered = || redis.within(Duration::from_secs(5), std::future::ready(Ok(1)));
        for _ in 0..3 {
            assert_eq!(silent().await, Err(Refused::Away));
            assert_eq!(answered().await, Ok(1), "others are not concerned");
        }
        assert_eq!(redis.up.get(), 1);
        // As long as one that can wait would have waited.
        for _ in 0..60 {
            assert_eq!(silent().await, Err(Refused::Away));
        }
        assert_eq!((answered().await, redis.up.get()), (Err(Refused::Away), 0));
        tokio::time::sleep(Duration::from_millis(REST + 100)).await;
        assert_eq!(silent().await, Err(Refused::Away));
        assert_eq!(answered().await, Ok(1), "whoever looked could not wait for what there is to see");
    }
}
