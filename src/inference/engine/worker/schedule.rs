//! Who runs: before every step each lane decides who starts, goes on, and is set back.
//!
//! An answer waits, runs, or was set back (preempted). It starts when its prompt and one token more fit, and grows page
//! by page. What was typed goes before what the program asked, and in each of the two those set back go first, then
//! whoever was asked first; nobody overtakes one that does not fit yet, so nobody starves. What is moved away to make
//! room is chosen in `reclaim.rs`.

use std::time::{Duration, Instant};

use super::{DECODE_ROWS, Worker, preempt::Reach};
use crate::cache::{OutOfBudget, PAGE_TOKENS};
use crate::engine::{
    FinishReason, Lane, Priority, Scheduling, SessionId,
    session::{
        Session,
        sequence::{Rank, Sequence, Stage},
    },
};

/// What a sequence needs before it can run on.
struct Demand {
    /// Tokens that its pages must be able to hold.
    total: usize,
    /// Another session whose first so many tokens are the same.
    prefix_source: Option<(SessionId, usize)>,
    /// Bytes on each tier that must be left besides.
    besides: (u64, u64),
}

impl Worker {
    /// Prepares the next step of every lane. Afterwards every running sequence has the pages for it.
    pub(crate) fn schedule(&mut self) {
        for index in 0..self.lanes.len() {
            let started = Instant::now();
            let copying = self.schedule_lane(index);
            self.lanes[index].scheduled(started.elapsed().saturating_sub(copying));
        }
        self.split_prompts();
    }

    /// Returns the time that went into copying prompts computed before, and into larger buffers.
    fn schedule_lane(&mut self, index: usize) -> Duration {
        self.end_full_contexts(index);
        // Under another budget, and with knobs turned, the longest sequence is another one.
        self.reserve_rows(index, self.lanes[index].rows);
        // A budget that was lowered.
        let fits = |worker: &Self| {
            let cache = &worker.lanes[index].cache;
            cache.device().fits().and(cache.host().fits())
        };
        // Where even the buffers alone are too much nothing is left to move, and whoever wants to start is refused.
        let _ = self.make_room(index, Reach::Everybody, None, fits);
        self.grow_running(index);
        self.start_waiting(index)
    }

    /// Ends the answers that have no room for another token in the model's context.
    fn end_full_contexts(&mut self, index: usize) {
        let (lane, context) = (self.lanes[index].lane, self.model.context());
        let full = |sequence: &&Sequence| sequence.decodes() && sequence.cache.len() + 1 > context;
        let ended: Vec<SessionId> = self.in_lane(lane).filter(|(_, each)| full(each)).map(|(id, _)| id).collect();
        for id in ended {
            self.finish(id, lane, FinishReason::Context);
        }
    }

    /// Gives everybody who decodes a page where they need one, those first who go first.
    fn grow_running(&mut self, index: usize) {
        let lane = self.lanes[index].lane;
        let lacks_page = |sequence: &Sequence| sequence.decodes() && sequence.cache.len() == sequence.cache.capacity();
        let growing = self.in_lane(lane).filter(|(_, sequence)| lacks_page(sequence));
        let mut growing: Vec<(Rank, SessionId)> =
            growing.filter_map(|(id, sequence)| Some((sequence.rank()?, id))).collect();
        growing.sort_unstable();
        for (rank, id) in growing {
            // It may have been set back for one that goes before it.
            if !self.sequence(id, lane).is_some_and(lacks_page) {
                continue;
            }
            let total = self.sequence(id, lane).map_or(0, |sequence| sequence.cache.len() + 1);
            let demand = Demand { total, prefix_source: None, besides: (0, 0) };
            let room = self.make_room(index, Reach::After(rank), Some(id), |worker| worker.fits(index, id, &demand));
            match room {
                Ok(()) => self.take(index, id, &demand),
                Err(_) if self.in_lane(lane).filter(|(_, sequence)| sequence.runs()).count() > 1 => {
                    self.preempt(index, id);
                }
                // Alone, and the lane is full of it.
                Err(_) => self.finish(id, lane, FinishReason::Budget),
            }
        }
    }

    /// Starts those that wait and resumes those set back, in their order, until one does not fit.
    fn start_waiting(&mut self, index: usize) -> Duration {
        let lane = self.lanes[index].lane;
        let mut copying = Duration::ZERO;
        while let Some((id, rank)) = self.next_to_start(lane) {
            let running = self.in_lane(lane).filter(|(_, sequence)| sequence.runs()).count();
            let demand = self.demand(index, id, running);
            // Idle sessions' pages go for it. When nobody runs, nobody will make room by and by.
            let reach = if running == 0 { Reach::After(rank) } else { Reach::Idle };
            match self.make_room(index, reach, Some(id), |worker| worker.fits(index, id, &demand)) {
                Ok(()) => copying += self.start(index, id, &demand, running),
                Err(_) if running > 0 => break,
                // Buffers that were made for many are given back for the one.
                Err(_) if self.lanes[index].rows > DECODE_ROWS => self.reserve_rows(index, DECODE_ROWS),
                Err(full) => self.refuse_start(index, id, full),
            }
        }
        copying
    }

    fn next_to_start(&self, lane: Lane) -> Option<(SessionId, Rank)> {
        let typed_only = self.sessions.values().any(Session::answers_what_was_typed);
        let candidates = self.in_lane(lane).filter_map(|(id, sequence)| {
            let turn = sequence.turn_to_start()?;
            let may = sequence.decodes_when_back() || may_prefill(sequence, typed_only);
            may.then_some((turn, id))
        });
        candidates.min().map(|((priority, _, order), id)| (id, (priority, order)))
    }

    /// What a sequence needs to start beside `running` others.
    fn demand(&mut self, index: usize, id: SessionId, running: usize) -> Demand {
        let lane = self.lanes[index].lane;
        let prefix_source = self.prefix_source(lane, id);
        let context = self.model.context();
        // One more than the prompt: a start without room for a token of answer is no start.
        let total = self.sequence(id, lane).map_or(0, |sequence| (sequence.total() + 1).min(context));
        // The next page of everybody who will need one is left to them: else the first of them would set this one back.
        let grows = |sequence: &Sequence| {
            sequence.runs() && sequence.cache.len() + sequence.to_come() > sequence.cache.capacity()
        };
        let growing = self.in_lane(lane).filter(|(_, sequence)| grows(sequence)).count() as u64;
        let (device, host) = self.lanes[index].cache.resident_block();
        let rows = self.lanes[index].rows;
        let buffers =
            if running < rows { 0 } else { self.workspace(index, rows + DECODE_ROWS) - self.workspace(index, rows) };
        Demand { total, prefix_source, besides: (growing * device + buffers, growing * host) }
    }

    fn fits(&self, index: usize, id: SessionId, demand: &Demand) -> Result<(), OutOfBudget> {
        let (lane, cache) = (self.lanes[index].lane, &self.lanes[index].cache);
        let Some(sequence) = self.sequence(id, lane) else { return Ok(()) };
        let prefix_source = self.still(lane, demand.prefix_source);
        let cached = prefix_source.map_or(sequence.cache.len(), |(_, _, shared)| shared);
        let prefix_source = prefix_source.map(|(_, prefix_source, shared)| (&prefix_source.cache, shared));
        let (device, host) = cache.growth_sharing(&sequence.cache, prefix_source, demand.total.saturating_sub(cached));
        cache.device().room(device + demand.besides.0)?;
        cache.host().room(host + demand.besides.1)
    }

    /// A prefix source, unless its pages have been given up since.
    fn still(&self, lane: Lane, prefix_source: Option<(SessionId, usize)>) -> Option<(SessionId, &Sequence, usize)> {
        let (id, shared) = prefix_source?;
        self.sequence(id, lane)
            .filter(|prefix_source| prefix_source.exact >= shared)
            .map(|prefix_source| (id, prefix_source, shared))
    }

    /// Gives a sequence what [`Worker::fits`] found to fit.
    fn take(&mut self, index: usize, id: SessionId, demand: &Demand) {
        let lane = self.lanes[index].lane;
        if let Some((prefix_source, _, shared)) = self.still(lane, demand.prefix_source) {
            return self.share_prefix(index, id, prefix_source, shared, demand.total);
        }
        let state = &mut self.lanes[index];
        let Some(sequence) = self.sessions.get_mut(&id).and_then(|session| session.sequence_mut(lane)) else { return };
        let tokens = demand.total.saturating_sub(sequence.cache.len());
        state.cache.grow(&mut sequence.cache, tokens).expect("room was made for it");
    }

    fn start(&mut self, index: usize, id: SessionId, demand: &Demand, running: usize) -> Duration {
        let mut copying = Duration::ZERO;
        if running >= self.lanes[index].rows {
            let started = Instant::now();
            self.reserve_rows(index, self.lanes[index].rows + DECODE_ROWS);
            copying = started.elapsed();
        }
        self.take(index, id, demand);
        let state = &mut self.lanes[index];
        let session = self.sessions.get_mut(&id);
        let Some(sequence) = session.and_then(|session| session.sequence_mut(state.lane)) else {
            return copying;
        };
        let started = Instant::now();
        if let Some(prefilled) = sequence.answer.as_mut().and_then(|answer| answer.prefilled.take()) {
            state.cache.copy(&mut sequence.cache, prefilled.cache());
            sequence.copied(&prefilled);
        }
        copying += started.elapsed();
        let waited = sequence.stage() == Some(Stage::Waiting);
        state.counts.recomputed_tokens += sequence.start() as u64;
        if let Some(queued) = sequence.queued().filter(|_| waited) {
            state.waited(queued);
        }
        state.runs(running + 1);
        self.tell(index, id, Scheduling::Running);
        copying
    }

    /// Ends an answer that waits although nobody else holds anything it could have: the budget was lowered, or its
    /// sequence has outgrown it.
    fn refuse_start(&mut self, index: usize, id: SessionId, full: OutOfBudget) {
        let lane = self.lanes[index].lane;
        let tokens = self.sequence(id, lane).map_or(0, |sequence| sequence.total() + 1);
        let message = match self.too_large(index, tokens) {
            Some(message) => message,
            None => format!("{full}; close a session or raise the budget"),
        };
        self.lanes[index].counts.refused += 1;
        self.error(Some(lane), Some(id), message);
        self.finish(id, lane, FinishReason::Budget);
    }

    /// Why a sequence of `tokens` can never run in a lane, if that is so.
    pub(crate) fn too_large(&mut self, index: usize, tokens: usize) -> Option<String> {
        let workspace = self.workspace(index, DECODE_ROWS);
        let most = self.lanes[index].cache.most_tokens(workspace)?;
        (tokens > most).then(|| {
            format!(
                "with the message the session has {} tokens, and the lane's budget fits {}: shorten it, start a new \
                 session or raise the budget",
                tokens - 1,
                most.saturating_sub(1),
            )
        })
    }

    /// Has the next tokens of a sequence taken from another one that has computed them, where there is one.
    pub(crate) fn share_prefix_next(&mut self, index: usize, id: SessionId) {
        let lane = self.lanes[index].lane;
        if let Some((prefix_source, shared)) = self.prefix_source(lane, id) {
            self.share_prefix_from(index, id, prefix_source, shared);
        }
    }

    /// Has a running sequence begin with the first `shared` tokens of `prefix_source`. It gives up at least as many pages, not
    /// yet written, as it gets, so there is room.
    pub(crate) fn share_prefix_from(&mut self, index: usize, id: SessionId, prefix_source: SessionId, shared: usize) {
        let capacity = self.sequence(id, self.lanes[index].lane).map_or(0, |sequence| sequence.cache.capacity());
        self.share_prefix(index, id, prefix_source, shared, capacity);
    }

    /// Another session of the lane that begins with the same tokens, and how many whole pages of them it has computed
    /// by exact attention; at least one page more than the sequence has itself.
    pub(crate) fn prefix_source(&self, lane: Lane, id: SessionId) -> Option<(SessionId, usize)> {
        let sequence = self.sequence(id, lane)?;
        let own = sequence.cache.len();
        let copies = sequence.answer.as_ref().is_some_and(|answer| answer.prefilled.is_some());
        if !self.share_prefixes || copies || own != sequence.exact || !own.is_multiple_of(PAGE_TOKENS) {
            return None;
        }
        // The last token is computed in any case: its logits are wanted.
        let most = sequence.known().saturating_sub(1) / PAGE_TOKENS;
        let mut best = None;
        for (other, prefix_source) in self.in_lane(lane).filter(|(other, _)| *other != id) {
            let most = most.min(prefix_source.exact / PAGE_TOKENS);
            let least = best.map_or(own, |(_, shared)| shared) / PAGE_TOKENS;
            if most <= least || prefix_source.tokens[..own] != sequence.tokens[..own] {
                continue;
            }
            let mine = sequence.pending.chunks_exact(PAGE_TOKENS);
            let same =
                prefix_source.tokens[own..].chunks_exact(PAGE_TOKENS).zip(mine).take_while(|(a, b)| a == b).count();
            let shared = (own / PAGE_TOKENS + same).min(most);
            if shared > least {
                best = Some((other, shared * PAGE_TOKENS));
            }
        }
        best
    }

    /// Has `id` begin with the first `shared` tokens of `prefix_source`, with pages for `total` tokens, for which there is room.
    fn share_prefix(&mut self, index: usize, id: SessionId, prefix_source: SessionId, shared: usize, total: usize) {
        let state = &mut self.lanes[index];
        let lane = state.lane;
        let Some(sequence) = self.sessions.get_mut(&id).and_then(|session| session.sequence_mut(lane)) else { return };
        // Two of the lane's sequences at once: this one is taken out for the while.
        let mut cache = std::mem::replace(&mut sequence.cache, state.cache.vacant());
        let before = cache.len();
        if let Some(prefix_source) = self.sessions.get(&prefix_source).and_then(|session| session.sequence(lane)) {
            let tokens = total.saturating_sub(shared);
            state.cache.share_prefix(&mut cache, &prefix_source.cache, shared, tokens).expect("room was made for it");
        }
        let Some(sequence) = self.sessions.get_mut(&id).and_then(|session| session.sequence_mut(lane)) else { return };
        let shared = cache.len() - before;
        sequence.cache = cache;
        sequence.prefix_shared(shared);
        state.counts.prefix_hit_tokens += shared as u64;
    }

    /// Lanes that do not start a shared prompt together compute it each for itself.
    fn split_prompts(&mut self) {
        for session in self.sessions.values_mut().filter(|session| session.is_shared()) {
            let members = || session.sequences.iter().filter(|sequence| sequence.answer.is_some());
            let waiting = members().all(|sequence| sequence.stage() == Some(Stage::Waiting));
            let mut lens = members().map(|sequence| sequence.cache.len());
            let first = lens.next();
            let together = members().all(Sequence::prefills_shared) && lens.all(|len| Some(len) == first);
            if !waiting && !together {
                session.unshare();
            }
        }
    }

    /// The sequences of a lane.
    pub(crate) fn in_lane(&self, lane: Lane) -> impl Iterator<Item = (SessionId, &Sequence)> {
        self.sessions.iter().filter_map(move |(&id, session)| Some((id, session.sequence(lane)?)))
    }

    pub(crate) fn sequence(&self, id: SessionId, lane: Lane) -> Option<&Sequence> {
        self.sessions.get(&id)?.sequence(lane)
    }
}

/// Whether a prompt may be computed now. While somebody waits for an answer to what they typed, the program's own
/// prompts wait: every chunk of one would stand between two tokens of that answer.
pub(crate) fn may_prefill(sequence: &Sequence, typed_only: bool) -> bool {
    !typed_only || sequence.answer.as_ref().is_some_and(|answer| answer.turn.priority == Priority::Typed)
}
