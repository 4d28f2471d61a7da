//! Making room in a lane: whose pages are moved to the host tier, and whose are given up, when somebody needs theirs.
//!
//! Sessions without an answer keep their pages as a cache: they go first, those used longest ago before others. Then
//! answers are set back, the youngest first. Pages move to the host tier and come back as they were. Only where that is
//! full too are they given up, and computed again when they are needed. Before all of these, V that a guard brought to
//! the device goes back: its sequence reads it on the host as well.

use super::Worker;
use crate::cache::{OutOfBudget, Tier};
use crate::engine::{
    EventKind, Scheduling, SessionId,
    session::sequence::{Rank, Sequence, Stage},
};

/// Whose pages may be taken.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reach {
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
    Lower(SessionId),
    /// A sequence that does not run is moved to the host tier.
    SetAside(SessionId),
    /// The pages of one that does not run are given up.
    Free(SessionId),
    /// A running answer is set back, to the host tier where that has room.
    SetBack(SessionId),
    /// The same, and its pages are given up.
    SetBackAndFree(SessionId),
}

impl Worker {
    /// Takes pages away from others, as far as `reach` allows and `keep` not among them, until `fits` holds. Afterwards
    /// the answer is that of `fits`.
    pub(crate) fn make_room(
        &mut self,
        index: usize,
        reach: Reach,
        keep: Option<SessionId>,
        fits: impl Fn(&Self) -> Result<(), OutOfBudget>,
    ) -> Result<(), OutOfBudget> {
        // Every measure leaves one sequence less that another could concern, or less V that could be lowered.
        while let Err(full) = fits(self) {
            match self.measure(index, full.tier, reach, keep) {
                None => return Err(full),
                Some(Measure::Lower(id)) => self.demote(index, id),
                Some(Measure::SetAside(id)) => self.put_away(index, id),
                Some(Measure::Free(id)) => self.free(index, id),
                Some(Measure::SetBack(id)) => self.preempt(index, id),
                Some(Measure::SetBackAndFree(id)) => {
                    self.preempted(index, id);
                    self.free(index, id);
                }
            }
        }
        Ok(())
    }

    fn measure(&self, index: usize, full: Tier, reach: Reach, keep: Option<SessionId>) -> Option<Measure> {
        let (lane, cache) = (self.lanes[index].lane, &self.lanes[index].cache);
        let others = || self.in_lane(lane).filter(move |(id, _)| Some(*id) != keep);
        // Whose turn is longest ago goes first; whoever waits for the next one keeps its pages longest.
        let idle = |place: Option<Tier>| {
            let holding = others().filter(move |(_, each)| {
                let residence = each.cache.residence();
                residence.is_some() && (place.is_none() || place == residence)
            });
            let still = holding.filter(|(_, each)| matches!(each.stage(), None | Some(Stage::Waiting)));
            still.min_by_key(|(_, each)| (each.stage().is_some(), each.last_turn)).map(|(id, _)| id)
        };
        let youngest = |stage: Stage| {
            let reached = others().filter(move |(_, each)| each.stage() == Some(stage) && reach.covers(each));
            let holding = reached.filter(|(_, each)| each.cache.residence().is_some());
            holding.max_by_key(|(_, each)| each.rank()).map(|(id, _)| id)
        };
        match full {
            Tier::Device => {
                let aside =
                    || cache.any_stranded().then(|| idle(Some(Tier::Host)).or_else(|| youngest(Stage::Preempted)));
                let promoted = self.in_lane(lane).find(|(_, each)| cache.can_demote(&each.cache));
                promoted
                    .map(|(id, _)| Measure::Lower(id))
                    .or_else(|| idle(Some(Tier::Device)).map(Measure::SetAside))
                    .or_else(|| youngest(Stage::Running).map(Measure::SetBack))
                    .or_else(|| aside().flatten().map(Measure::Free))
            }
            // What a resident sequence holds on the host is V, if anything.
            Tier::Host => idle(Some(Tier::Host))
                .or_else(|| idle(None).filter(|_| cache.resident_block().1 > 0))
                .or_else(|| youngest(Stage::Preempted))
                .map(Measure::Free)
                .or_else(|| youngest(Stage::Running).map(Measure::SetBackAndFree)),
        }
    }

    /// Sets a running answer back. What it holds moves to the host tier; where that is full of idle sessions' pages,
    /// those are given up for it, and where it is full otherwise, its own are.
    pub(crate) fn preempt(&mut self, index: usize, id: SessionId) {
        self.preempted(index, id);
        loop {
            match self.swap_out(index, id) {
                Ok(()) => return,
                Err(_) => match self.measure(index, Tier::Host, Reach::Idle, Some(id)) {
                    Some(Measure::Free(idle)) => self.free(index, idle),
                    _ => return self.free(index, id),
                },
            }
        }
    }

    /// Moves the pages of a sequence that does not run to the host tier, or gives them up where that is full.
    fn put_away(&mut self, index: usize, id: SessionId) {
        if self.swap_out(index, id).is_err() {
            self.free(index, id);
        }
    }

    fn demote(&mut self, index: usize, id: SessionId) {
        let state = &mut self.lanes[index];
        if let Some(sequence) = self.sessions.get_mut(&id).and_then(|session| session.sequence_mut(state.lane)) {
            state.cache.demote(&mut sequence.cache);
        }
    }

    fn swap_out(&mut self, index: usize, id: SessionId) -> Result<(), OutOfBudget> {
        let state = &mut self.lanes[index];
        let sequence = self.sessions.get_mut(&id).and_then(|session| session.sequence_mut(state.lane));
        sequence.map_or(Ok(()), |sequence| {
            state.cache.trim(&mut sequence.cache);
            state.cache.swap_out(&mut sequence.cache)
        })
    }

    /// Counts and tells that an answer is set back.
    fn preempted(&mut self, index: usize, id: SessionId) {
        let state = &mut self.lanes[index];
        let Some(session) = self.sessions.get_mut(&id) else { return };
        if let Some(answer) = session.sequence_mut(state.lane).and_then(|sequence| sequence.answer.as_mut()) {
            answer.stage = Stage::Preempted;
        }
        state.counts.preemptions += 1;
        self.tell(index, id, Scheduling::Preempted);
    }

    /// Gives up what a sequence holds, on both tiers.
    fn free(&mut self, index: usize, id: SessionId) {
        let state = &mut self.lanes[index];
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(sequence) = session.sequence_mut(state.lane) else { return };
        if !sequence.cache.is_empty() {
            state.counts.freed += 1;
        }
        state.cache.vacate(&mut sequence.cache);
        sequence.cache_lost();
        if sequence.stage() == Some(Stage::Preempted) {
            self.tell(index, id, Scheduling::Freed);
        }
    }

    /// Tells what an answer does from now on.
    pub(crate) fn tell(&self, index: usize, session: SessionId, state: Scheduling) {
        let (lane, step) = (self.lanes[index].lane, self.lanes[index].steps + 1);
        self.publisher.publish(EventKind::Scheduled { lane, session, step, state });
    }
}
