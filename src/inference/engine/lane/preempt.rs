//! Making room in a lane: whose pages move to the host tier, and whose are evicted, when somebody needs theirs.
//!
//! Sessions without an answer keep their pages as a cache: they go first, those used longest ago before others. Then
//! answers are preempted, the youngest first. Pages are swapped out to the host tier and come back as they were. Only
//! where that is full too are they evicted, and computed again when they are needed. Before all of these, V that a guard
//! brought to the device goes back: its sequence reads it on the host as well.

use super::LaneState;
use crate::cache::{OutOfBudget, Tier};
use crate::engine::{
    Scheduling, SessionId,
    session::{answer::Rank, sequence::Sequence},
};

/// Whose pages may be taken.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reach {
    /// Those of sessions that do not run.
    Idle,
    /// Those too of answers that go after this one.
    After(Rank),
    /// Anybody's.
    Everybody,
}

impl Reach {
    fn covers(self, sequence: &Sequence) -> bool {
        match self {
            Self::Idle => false,
            Self::After(rank) => sequence.rank().is_some_and(|other| other > rank),
            Self::Everybody => true,
        }
    }
}

/// What is done next to make room.
#[derive(Debug, Clone, Copy)]
enum Measure {
    /// V of one that reads every row goes back to the host tier.
    Demote(SessionId),
    /// A sequence that does not run is swapped out to the host tier.
    SwapOut(SessionId),
    /// The pages of one that does not run are evicted.
    Evict(SessionId),
    /// A running answer is preempted, its pages go to the host tier where that has room.
    Preempt(SessionId),
    /// A running answer is preempted and its pages are evicted.
    PreemptAndEvict(SessionId),
}

impl LaneState {
    /// Takes pages away from others, as far as `reach` allows and `keep` not among them, until `fits` holds. Afterwards
    /// the answer is that of `fits`.
    pub(super) fn make_room(
        &mut self,
        reach: Reach,
        keep: Option<SessionId>,
        fits: impl Fn(&Self) -> Result<(), OutOfBudget>,
    ) -> Result<(), OutOfBudget> {
        // Every measure leaves one sequence less that another could concern, or less V that could be demoted.
        while let Err(full) = fits(self) {
            match self.measure(full.tier, reach, keep) {
                None => return Err(full),
                Some(Measure::Demote(id)) => self.demote(id),
                Some(Measure::SwapOut(id)) => self.swap_out_or_evict(id),
                Some(Measure::Evict(id)) => self.evict(id),
                Some(Measure::Preempt(id)) => self.preempt(id),
                Some(Measure::PreemptAndEvict(id)) => {
                    self.mark_preempted(id);
                    self.evict(id);
                }
            }
        }
        Ok(())
    }

    fn measure(&self, full: Tier, reach: Reach, keep: Option<SessionId>) -> Option<Measure> {
        let cache = &self.cache;
        let others = || self.sequences.iter().map(|(&id, each)| (id, each)).filter(move |(id, _)| Some(*id) != keep);
        // The session whose last answer was asked for longest ago goes first; one that waits to start keeps its pages
        // longest.
        let idle = |tier: Option<Tier>| {
            let holding = others().filter(move |(_, each)| {
                let residence = each.cache.residence();
                residence.is_some() && (tier.is_none() || tier == residence)
            });
            let still = holding.filter(|(_, each)| each.answer.is_none() || each.waits());
            still.min_by_key(|(_, each)| (each.answer.is_some(), each.last_order)).map(|(id, _)| id)
        };
        let youngest = |stands: fn(&Sequence) -> bool| {
            let reached = others().filter(move |(_, each)| stands(each) && reach.covers(each));
            let holding = reached.filter(|(_, each)| each.cache.residence().is_some());
            holding.max_by_key(|(_, each)| each.rank()).map(|(id, _)| id)
        };
        match full {
            Tier::Device => {
                let aside = || {
                    cache.any_stranded().then(|| idle(Some(Tier::Host)).or_else(|| youngest(Sequence::is_preempted)))
                };
                let promoted = self.sequences.iter().find(|(_, each)| cache.can_demote(&each.cache));
                promoted
                    .map(|(&id, _)| Measure::Demote(id))
                    .or_else(|| idle(Some(Tier::Device)).map(Measure::SwapOut))
                    .or_else(|| youngest(Sequence::runs).map(Measure::Preempt))
                    .or_else(|| aside().flatten().map(Measure::Evict))
            }
            // What a resident sequence holds on the host is V, if anything.
            Tier::Host => idle(Some(Tier::Host))
                .or_else(|| idle(None).filter(|_| cache.resident_block().1 > 0))
                .or_else(|| youngest(Sequence::is_preempted))
                .map(Measure::Evict)
                .or_else(|| youngest(Sequence::runs).map(Measure::PreemptAndEvict)),
        }
    }

    /// Preempts a running answer. What it holds moves to the host tier; where that is full of idle sessions' pages,
    /// those are evicted for it, and where it is full otherwise, its own are.
    pub(super) fn preempt(&mut self, id: SessionId) {
        self.mark_preempted(id);
        while self.swap_out(id).is_err() {
            match self.measure(Tier::Host, Reach::Idle, Some(id)) {
                Some(Measure::Evict(idle)) => self.evict(idle),
                _ => return self.evict(id),
            }
        }
    }

    fn swap_out_or_evict(&mut self, id: SessionId) {
        if self.swap_out(id).is_err() {
            self.evict(id);
        }
    }

    fn demote(&mut self, id: SessionId) {
        if let Some(sequence) = self.sequences.get_mut(&id) {
            self.cache.demote(&mut sequence.cache);
        }
    }

    fn swap_out(&mut self, id: SessionId) -> Result<(), OutOfBudget> {
        let Some(sequence) = self.sequences.get_mut(&id) else { return Ok(()) };
        self.cache.trim(&mut sequence.cache);
        self.cache.swap_out(&mut sequence.cache)
    }

    /// Counts and tells that an answer is preempted.
    fn mark_preempted(&mut self, id: SessionId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        sequence.preempt();
        self.counts.preemptions += 1;
        self.tell(id, Scheduling::Preempted);
    }

    /// Drops what a sequence holds, on both tiers.
    fn evict(&mut self, id: SessionId) {
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        if !sequence.cache.is_empty() {
            self.counts.evicted += 1;
        }
        self.cache.vacate(&mut sequence.cache);
        sequence.cache_lost();
        if sequence.is_preempted() {
            self.tell(id, Scheduling::Freed);
        }
    }
}
