//! What plugins keep beyond a request: keys and values in memory, each with a time to live.
//!
//! One map for all plugins; the plugin's name and, unless its grant says otherwise, the organization are part of the key,
//! so that nobody reaches what is not theirs. It is bounded in bytes: what is oldest to expire gives way first by being
//! refused, never by growing.

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes of all keys and values together.
const ROOM: usize = 256 << 20;
/// Longest a value lives.
const LONGEST: Duration = Duration::from_secs(30 * 86400);
/// Longest key.
const KEY: usize = 512;
/// Changes between two looks for what has expired.
const SWEEP: usize = 1024;

/// Whose key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Name {
    plugin: Box<str>,
    /// Empty where all organizations share.
    organization: Box<str>,
    key: Box<str>,
}

struct Entry {
    value: Vec<u8>,
    until: Instant,
}

/// See the module.
#[derive(Default)]
pub(super) struct Store {
    entries: DashMap<Name, Entry>,
    bytes: AtomicUsize,
    changes: AtomicUsize,
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
}

/// The part of the store that a plugin sees for one request.
pub(super) struct Drawer<'a> {
    pub store: &'a Store,
    pub plugin: &'a str,
    pub organization: &'a str,
}

impl Drawer<'_> {
    fn name(&self, key: &str) -> Result<Name, Refused> {
        if key.len() > KEY {
            return Err(Refused::Key);
        }
        Ok(Name { plugin: self.plugin.into(), organization: self.organization.into(), key: key.into() })
    }

    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Refused> {
        let name = self.name(key)?;
        Ok(self.store.entries.get(&name).filter(|entry| entry.until > Instant::now()).map(|entry| entry.value.clone()))
    }

    pub fn set(&self, key: &str, value: Vec<u8>, ttl: Option<Duration>) -> Result<(), Refused> {
        let name = self.name(key)?;
        let size = weight(&name, value.len());
        self.store.make_room(size)?;
        let until = Instant::now() + ttl.unwrap_or(LONGEST).min(LONGEST);
        let weigh = name.clone();
        if let Some(old) = self.store.entries.insert(name, Entry { value, until }) {
            self.store.bytes.fetch_sub(weight(&weigh, old.value.len()), Ordering::Relaxed);
        }
        Ok(())
    }

    pub fn delete(&self, key: &str) -> Result<(), Refused> {
        if let Some((name, old)) = self.store.entries.remove(&self.name(key)?) {
            self.store.bytes.fetch_sub(weight(&name, old.value.len()), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Adds to a number, kept as its decimal digits.
    pub fn increment(&self, key: &str, by: i64, ttl: Option<Duration>) -> Result<i64, Refused> {
        let name = self.name(key)?;
        let now = Instant::now();
        self.store.make_room(weight(&name, 20))?;
        let weigh = name.clone();
        let fresh = || Entry { value: b"0".to_vec(), until: now + ttl.unwrap_or(LONGEST).min(LONGEST) };
        let (mut entry, freed) = match self.store.entries.entry(name) {
            Slot::Occupied(slot) => {
                let freed = weight(&weigh, slot.get().value.len());
                let mut entry = slot.into_ref();
                if entry.until <= now {
                    *entry = fresh();
                }
                (entry, freed)
            }
            Slot::Vacant(slot) => (slot.insert(fresh()), 0),
        };
        let number = std::str::from_utf8(&entry.value).ok().and_then(|text| text.parse::<i64>().ok());
        let sum = number.map(|number| number.saturating_add(by));
        if let Some(sum) = sum {
            entry.value = sum.to_string().into_bytes();
        }
        let kept = weight(&weigh, entry.value.len());
        drop(entry);
        // What was reserved, less what is there now.
        self.store.bytes.fetch_add(kept, Ordering::Relaxed);
        self.store.bytes.fetch_sub(weight(&weigh, 20) + freed, Ordering::Relaxed);
        sum.ok_or(Refused::NoNumber)
    }
}

/// Bytes an entry is counted for.
fn weight(name: &Name, value: usize) -> usize {
    name.plugin.len() + name.organization.len() + name.key.len() + value + 96
}

impl Store {
    /// Reserves bytes, after a look for what has expired if that is due or needed.
    fn make_room(&self, bytes: usize) -> Result<(), Refused> {
        let due = self.changes.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1;
        if due || self.bytes.load(Ordering::Relaxed) + bytes > ROOM {
            self.sweep();
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > ROOM {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        Ok(())
    }

    fn sweep(&self) {
        let now = Instant::now();
        self.entries.retain(|name, entry| {
            let lives = entry.until > now;
            if !lives {
                self.bytes.fetch_sub(weight(name, entry.value.len()), Ordering::Relaxed);
            }
            lives
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_apart_counted_and_forgotten() {
        let store = Store::default();
        let drawer = |plugin, organization| Drawer { store: &store, plugin, organization };
        let (acme, umbrella, other) = (drawer("p", "acme"), drawer("p", "umbrella"), drawer("q", "acme"));
        acme.set("k", b"v".to_vec(), None).unwrap();
        assert_eq!(acme.get("k"), Ok(Some(b"v".to_vec())));
        assert_eq!((umbrella.get("k"), other.get("k")), (Ok(None), Ok(None)));
        acme.set("k", b"longer".to_vec(), Some(Duration::ZERO)).unwrap();
        assert_eq!(acme.get("k"), Ok(None), "it has expired");
        assert_eq!(acme.increment("k", 5, None), Ok(5), "what has expired is not there");
        assert_eq!(acme.increment("k", -7, None), Ok(-2));
        assert_eq!(acme.get("k"), Ok(Some(b"-2".to_vec())));
        umbrella.set("t", b"text".to_vec(), None).unwrap();
        assert_eq!(umbrella.increment("t", 1, None), Err(Refused::NoNumber));
        assert_eq!(acme.get(&"x".repeat(513)), Err(Refused::Key));
        acme.set("big", vec![0; ROOM - 600], None).unwrap();
        assert_eq!(umbrella.set("more", vec![0; 1000], None), Err(Refused::Full));
        for (drawer, key) in [(&acme, "big"), (&acme, "k"), (&umbrella, "t")] {
            drawer.delete(key).unwrap();
        }
        assert_eq!(store.bytes.load(Ordering::Relaxed), 0, "every byte is given back");
    }
}
