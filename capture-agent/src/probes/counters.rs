//! What the kernel side counts.

use aya::maps::MapError;
use capture_common::counter;

use super::kernel::Kernel;

/// What the kernel side has counted since it was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Events submitted to the ring.
    pub events: u64,
    /// Stream bytes submitted to the ring.
    pub bytes: u64,
    /// Events that were not.
    pub lost_events: u64,
    /// Stream bytes not delivered.
    pub lost_bytes: u64,
    /// Backends that could not be followed because the table of processes was full.
    pub untracked: u64,
    /// Backends that were stopped because the ring had no room for what must not be lost.
    pub held: u64,
    /// Backends that were stopped for a verdict.
    pub guarded: u64,
    /// Backends that should have been stopped and could not be.
    pub unheld: u64,
    /// Stream bytes of rows that nobody wanted: passed over.
    pub passed_bytes: u64,
}

impl Kernel {
    /// What the kernel side has counted.
    pub fn counters(&self) -> Result<Counters, MapError> {
        Ok(Counters {
            events: self.sum(counter::EVENTS)?,
            bytes: self.sum(counter::BYTES)?,
            lost_events: self.sum(counter::LOST_EVENTS)?,
            lost_bytes: self.sum(counter::LOST_BYTES)?,
            untracked: self.sum(counter::UNTRACKED)?,
            held: self.sum(counter::HELD)?,
            guarded: self.sum(counter::GUARDED)?,
            unheld: self.sum(counter::UNHELD)?,
            passed_bytes: self.sum(counter::PASSED_BYTES)?,
        })
    }

    fn sum(&self, index: u32) -> Result<u64, MapError> {
        Ok(self.counters.get(&index, 0)?.iter().sum())
    }

    /// How many backends the kernel side has stopped because the ring had no room for what must not be lost.
    pub fn held(&self) -> u64 {
        self.sum(counter::HELD).unwrap_or_default()
    }
}
