//! A memory pool: the account of what pages take on one tier of one lane.
//!
//! With a GPU the device tier is its memory and the host tier is pinned host memory. On the CPU both are the same DRAM,
//! and the pool is only an account with a cap: every byte is counted as if it lay on a device, and is called simulated.
//! Pages are handed out only against the account, so that it misses none; [`LaneCache::check`] counts them again.
//!
//! [`LaneCache::check`]: super::LaneCache::check

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where pages can lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// GPU memory; on the CPU an account in DRAM.
    Device,
    /// Host memory.
    Host,
}

/// What the bytes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryKind {
    /// Keys.
    K,
    /// Values.
    V,
    /// Running sums of V.
    Tail,
}

/// A tier has no room for what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the {} budget is full: {need} bytes more were needed, {free} are left of {cap}", match .tier {
    Tier::Device => "device",
    Tier::Host => "host",
})]
pub struct OutOfBudget {
    /// Which tier.
    pub tier: Tier,
    /// Bytes asked for.
    pub need: u64,
    /// Bytes left.
    pub free: u64,
    /// The cap.
    pub cap: u64,
}

/// One tier of one lane. All sizes are in bytes.
#[derive(Debug)]
pub struct MemoryPool {
    tier: Tier,
    cap: Option<u64>,
    /// Bytes that count against the cap but are not handed out here: the step's workspace.
    fixed: u64,
    k: u64,
    v: u64,
    tail: u64,
    peak: u64,
}

impl MemoryPool {
    /// An empty pool; `cap` in bytes, `None` for none.
    pub fn new(tier: Tier, cap: Option<u64>) -> Self {
        Self { tier, cap, fixed: 0, k: 0, v: 0, tail: 0, peak: 0 }
    }

    /// The tier that it counts.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// The cap in bytes.
    pub fn cap(&self) -> Option<u64> {
        self.cap
    }

    /// Whether what is held is within the cap, which may have been lowered; else an error with the bytes beyond it.
    pub fn fits(&self) -> Result<(), OutOfBudget> {
        match self.cap {
            Some(cap) if self.used() > cap => {
                Err(OutOfBudget { tier: self.tier, need: self.used() - cap, free: 0, cap })
            }
            _ => Ok(()),
        }
    }

    /// Changes the cap. What is held stays, also above a lower cap.
    pub(crate) fn set_cap(&mut self, cap: Option<u64>) {
        self.cap = cap;
    }

    /// Sets the bytes of the step's workspace, which the cap has to cover too.
    pub(crate) fn set_fixed(&mut self, bytes: u64) {
        self.fixed = bytes;
        self.peak = self.peak.max(self.used());
    }

    /// Bytes of the workspace.
    pub fn fixed(&self) -> u64 {
        self.fixed
    }

    /// Bytes held, workspace included.
    pub fn used(&self) -> u64 {
        self.k + self.v + self.tail + self.fixed
    }

    /// Bytes held of one kind.
    pub fn held(&self, kind: MemoryKind) -> u64 {
        match kind {
            MemoryKind::K => self.k,
            MemoryKind::V => self.v,
            MemoryKind::Tail => self.tail,
        }
    }

    /// The most bytes ever held at once.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// Bytes left under the cap; `None` without one.
    pub fn free(&self) -> Option<u64> {
        self.cap.map(|cap| cap.saturating_sub(self.used()))
    }

    /// Whether `bytes` more fit.
    pub fn room(&self, bytes: u64) -> Result<(), OutOfBudget> {
        match (self.free(), self.cap) {
            (Some(free), Some(cap)) if bytes > free => Err(OutOfBudget { tier: self.tier, need: bytes, free, cap }),
            _ => Ok(()),
        }
    }

    /// Reserves `bytes` of a kind, or changes nothing where they do not fit.
    pub fn take(&mut self, kind: MemoryKind, bytes: u64) -> Result<(), OutOfBudget> {
        self.room(bytes)?;
        *self.account(kind) += bytes;
        self.peak = self.peak.max(self.used());
        Ok(())
    }

    /// Gives `bytes` of a kind back.
    ///
    /// # Panics
    /// When more comes back than was taken: then a page was counted twice, and no figure is right any more.
    pub fn give(&mut self, kind: MemoryKind, bytes: u64) {
        let account = self.account(kind);
        *account = account.checked_sub(bytes).expect("a pool gets back no more than it gave");
    }

    fn account(&mut self, kind: MemoryKind) -> &mut u64 {
        match kind {
            MemoryKind::K => &mut self.k,
            MemoryKind::V => &mut self.v,
            MemoryKind::Tail => &mut self.tail,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_tier_says_what_is_missing_and_changes_nothing() {
        let mut pool = MemoryPool::new(Tier::Device, Some(100));
        pool.set_fixed(10);
        pool.take(MemoryKind::K, 60).unwrap();
        let full = pool.take(MemoryKind::V, 31).unwrap_err();
        assert_eq!((full.need, full.free, full.cap), (31, 30, 100));
        assert!(full.to_string().contains("device budget is full"));
        assert_eq!((pool.used(), pool.held(MemoryKind::V), pool.peak()), (70, 0, 70));
        pool.take(MemoryKind::V, 30).unwrap();
        pool.give(MemoryKind::K, 60);
        assert_eq!((pool.used(), pool.peak()), (40, 100));
    }

    #[test]
    #[should_panic(expected = "no more than it gave")]
    fn giving_back_too_much_is_a_bug() {
        MemoryPool::new(Tier::Host, None).give(MemoryKind::V, 1);
    }
}
