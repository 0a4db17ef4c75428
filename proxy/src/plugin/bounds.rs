//! What an instance may take of the machine. wasmtime's own limits hold for each memory of a component, and a component may have
//! several: here all of them together have no more than the plugin's limit.

use super::engine::TABLE;
use wasmtime::{ResourceLimiter, Result, StoreLimits, StoreLimitsBuilder};

/// See the module.
pub(super) struct Bounds {
    /// Tables and numbers of things.
    rest: StoreLimits,
    /// Bytes of all memories: as many as there may be, and as there are.
    memory: usize,
    taken: usize,
}

impl Bounds {
    pub fn new(memory: usize) -> Self {
        let rest = StoreLimitsBuilder::new()
            .table_elements(TABLE)
            .instances(128)
            .memories(8)
            .tables(128)
            .trap_on_grow_failure(true)
            .build();
        Self { rest, memory, taken: 0 }
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        let taken = self.taken.saturating_add(desired.saturating_sub(current));
        if taken > self.memory || maximum.is_some_and(|maximum| desired > maximum) {
            wasmtime::bail!("forcing trap when growing memory to {desired} bytes, {taken} with all others");
        }
        // One that could not be had all the same ends the instance: nothing needs to be taken back.
        self.taken = taken;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> Result<()> {
        self.rest.memory_grow_failed(error)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        self.rest.table_growing(current, desired, maximum)
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> Result<()> {
        self.rest.table_grow_failed(error)
    }

    fn instances(&self) -> usize {
        self.rest.instances()
    }

    fn tables(&self) -> usize {
        self.rest.tables()
    }

    fn memories(&self) -> usize {
        self.rest.memories()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_memories_of_an_instance_have_one_limit() {
        let mut bounds = Bounds::new(10);
        // A second memory, and the first one grown.
        for (current, desired, good) in [(0, 4, true), (0, 4, true), (4, 7, false), (4, 6, true), (6, 7, false)] {
            assert_eq!(bounds.memory_growing(current, desired, None).is_ok(), good, "{current} to {desired}");
        }
        assert!(Bounds::new(10).memory_growing(0, 4, Some(3)).is_err());
    }
}
