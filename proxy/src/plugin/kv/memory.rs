//! Keys and values in this process: lost with it, and nobody else's.
//!
//! One map for all plugins, bounded in bytes: what does not fit is refused until something expires, and nothing that lives is
//! thrown away for it.

use super::{Name, Refused};
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Bytes of all keys and values together.
const ROOM: usize = 256 << 20;
/// Changes between two looks for what has expired, and the least time: where there is no room, each change would ask for one, and
/// it is a look at everything, on the thread of a request.
const SWEEP: (usize, Duration) = (1024, Duration::from_secs(1));

struct Entry {
    value: Vec<u8>,
    until: Instant,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Memory {
    entries: DashMap<Name, Entry>,
    bytes: AtomicUsize,
    changes: AtomicUsize,
    swept: Mutex<Option<Instant>>,
}

impl Memory {
    pub(super) fn get(&self, name: &Name) -> Option<Vec<u8>> {
        self.entries.get(name).filter(|entry| entry.until > Instant::now()).map(|entry| entry.value.clone())
    }

    pub(super) fn set(&self, name: Name, value: Vec<u8>, ttl: Duration) -> Result<(), Refused> {
        let size = weight(&name, value.len());
        self.make_room(size)?;
        let weigh = name.clone();
        if let Some(old) = self.entries.insert(name, Entry { value, until: Instant::now() + ttl }) {
            self.bytes.fetch_sub(weight(&weigh, old.value.len()), Ordering::Relaxed);
        }
        Ok(())
    }

    pub(super) fn delete(&self, name: &Name) {
        if let Some((name, old)) = self.entries.remove(name) {
            self.bytes.fetch_sub(weight(&name, old.value.len()), Ordering::Relaxed);
        }
    }

    pub(super) fn increment(&self, name: Name, by: i64, ttl: Duration) -> Result<i64, Refused> {
        let now = Instant::now();
        self.make_room(weight(&name, 20))?;
        let weigh = name.clone();
        let fresh = || Entry { value: b"0".to_vec(), until: now + ttl };
        let (mut entry, freed) = match self.entries.entry(name) {
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
        let sum = number(&entry.value).map(|number| number.saturating_add(by));
        if let Some(sum) = sum {
            entry.value = sum.to_string().into_bytes();
        }
        let kept = weight(&weigh, entry.value.len());
        drop(entry);
        // What was reserved, less what is there now.
        self.bytes.fetch_add(kept, Ordering::Relaxed);
        self.bytes.fetch_sub(weight(&weigh, 20) + freed, Ordering::Relaxed);
        sum.ok_or(Refused::NoNumber)
    }

    /// Reserves bytes, after a look for what has expired if that is due or needed.
    fn make_room(&self, bytes: usize) -> Result<(), Refused> {
        let due = self.changes.fetch_add(1, Ordering::Relaxed) % SWEEP.0 == SWEEP.0 - 1;
        if due || self.bytes.load(Ordering::Relaxed) + bytes > ROOM {
            self.tidy(Instant::now());
        }
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > ROOM {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Refused::Full);
        }
        Ok(())
    }

    /// Bytes that are kept.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Looks for what has expired, unless somebody just did or is at it.
    fn tidy(&self, now: Instant) {
        let Some(mut swept) = self.swept.try_lock() else { return };
        if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= SWEEP.1) {
            *swept = Some(now);
            self.sweep();
        }
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

/// A number as it is written here, and no other way.
fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    text.parse::<i64>().ok().filter(|number| number.to_string() == text)
}

/// Bytes an entry is counted for.
fn weight(name: &Name, value: usize) -> usize {
    name.plugin.len() + name.organization.len() + name.key.len() + value + 96
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_until_there_is_room() {
        let (memory, life) = (Memory::default(), Duration::from_secs(60));
        let name = |key: &str| Name { plugin: "p".into(), organization: "o".into(), key: key.into() };
        memory.set(name("big"), vec![0; ROOM - 600], life).unwrap();
        assert_eq!(memory.set(name("more"), vec![0; 1000], life), Err(Refused::Full));
        memory.delete(&name("big"));
        memory.set(name("more"), vec![0; 1000], Duration::ZERO).unwrap();
        assert_eq!(memory.increment(name("n"), 1, life), Ok(1));
        memory.delete(&name("n"));
        memory.sweep();
        assert_eq!(memory.bytes(), 0, "every byte is given back");
    }

    #[test]
    fn a_full_store_is_not_searched_with_every_change() {
        let memory = Memory::default();
        let set = |key: &str, size: usize, life: u64| {
            let name = Name { plugin: "p".into(), organization: "o".into(), key: key.into() };
            memory.set(name, vec![0; size], Duration::from_secs(life))
        };
        set("big", ROOM - 600, 60).unwrap();
        for left in [1, 2] {
            set("dead", 100, 0).unwrap();
            assert_eq!(set("more", 1000, 60), Err(Refused::Full));
            assert_eq!(memory.entries.len(), left);
        }
        memory.tidy(Instant::now() + SWEEP.1);
        assert_eq!(memory.entries.len(), 1);
    }
}
