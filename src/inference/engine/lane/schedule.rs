//! Who runs: before every step a lane decides who starts, who goes on, and who is preempted.
//!
//! An answer waits, runs, or was preempted. It starts when its prompt and one token more fit, and grows page by page.
//! What was typed goes before what the program asked, and in each of the two preempted answers go first, then the one
//! that was asked for first. Nobody overtakes one that does not fit yet, so nobody starves. Whose pages go to make room
//! is chosen in `preempt.rs`.

use std::time::{Duration, Instant};

use super::{
    LaneState,
    machine::{DECODE_ROWS, Machine},
    preempt::Reach,
    prefix::PrefixSource,
};
use crate::cache::OutOfBudget;
use crate::engine::{
    FinishReason, Priority, Scheduling, SessionId,
    session::{answer::Rank, sequence::Sequence},
};
use crate::model::StepSize;

/// What a sequence needs before it can run on.
struct Demand {
    /// Tokens that its pages must be able to hold.
    total: usize,
    /// Another session whose first tokens are the same.
    prefix_source: Option<PrefixSource>,
    /// Bytes on each tier that must be left besides.
    besides: (u64, u64),
}

/// An answer that has to end, for the worker to end it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ending {
    pub session: SessionId,
    pub reason: FinishReason,
}

/// A time of which a part is not counted.
pub(crate) struct Watch {
    started: Instant,
    left_out: Duration,
}

impl Watch {
    pub fn start() -> Self {
        Self { started: Instant::now(), left_out: Duration::ZERO }
    }

    fn leave_out<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.left_out += started.elapsed();
        result
    }
}

impl LaneState {
    /// Prepares the next step, until it is prepared or an answer has to end. After such an end it goes on where it
    /// stopped when it is called again. Once it returns `None`, every running sequence has the pages for the step.
    ///
    /// `typed_elsewhere` says whether another lane answers something that a person typed. Copying prompts computed before
    /// and making buffers is left out of `watch`.
    pub fn schedule(&mut self, machine: &mut Machine, typed_elsewhere: bool, watch: &mut Watch) -> Option<Ending> {
        if let Some(session) = self.full_context(machine.model.context()) {
            return Some(Ending { session, reason: FinishReason::Context });
        }
        // Under another budget, and with other knobs, the longest sequence is another one.
        self.reserve_rows(machine, self.rows);
        // A budget that was lowered. Where even the buffers alone are too much nothing is left to move, and whoever wants
        // to start is refused.
        let _ = self.make_room(Reach::Everybody, None, |lane| lane.cache.device().fits().and(lane.cache.host().fits()));
        self.grow_running().or_else(|| self.start_waiting(machine, typed_elsewhere, watch))
    }

    /// Notes that the next step is prepared.
    pub fn scheduled(&mut self, watch: &Watch) {
        self.scheduling = watch.started.elapsed().saturating_sub(watch.left_out);
        self.longest_scheduling = self.longest_scheduling.max(self.scheduling);
    }

    /// An answer that has no room for another token in the model's context.
    fn full_context(&self, context: usize) -> Option<SessionId> {
        let full = |sequence: &Sequence| sequence.decodes() && sequence.cache.len() + 1 > context;
        self.sequences.iter().find(|(_, sequence)| full(sequence)).map(|(&id, _)| id)
    }

    /// Gives everybody who decodes a page where they need one, those first who go first.
    fn grow_running(&mut self) -> Option<Ending> {
        let lacks_page = |sequence: &Sequence| sequence.decodes() && sequence.cache.len() == sequence.cache.capacity();
        let growing = self.sequences.iter().filter(|(_, sequence)| lacks_page(sequence));
        let mut growing: Vec<(Rank, SessionId)> =
            growing.filter_map(|(&id, sequence)| Some((sequence.rank()?, id))).collect();
        growing.sort_unstable();
        for (rank, id) in growing {
            // It may have been preempted for one that goes before it.
            let Some(sequence) = self.sequences.get(&id).filter(|sequence| lacks_page(sequence)) else { continue };
            let demand = Demand { total: sequence.cache.len() + 1, prefix_source: None, besides: (0, 0) };
            match self.make_room(Reach::After(rank), Some(id), |lane| lane.fits(id, &demand)) {
                Ok(()) => self.take(id, &demand),
                Err(_) if self.running() > 1 => self.preempt(id),
                // Alone, and the lane is full of it.
                Err(_) => return Some(Ending { session: id, reason: FinishReason::Budget }),
            }
        }
        None
    }

    /// Starts those that wait and resumes those preempted, in their order, until one does not fit.
    fn start_waiting(&mut self, machine: &mut Machine, typed_elsewhere: bool, watch: &mut Watch) -> Option<Ending> {
        loop {
            let typed_only = typed_elsewhere || self.answers_what_was_typed();
            let (id, rank) = self.next_to_start(typed_only)?;
            let running = self.running();
            let demand = self.demand(machine, id, running);
            // Idle sessions' pages go for it. When nobody runs, nobody will make room by and by.
            let reach = if running == 0 { Reach::After(rank) } else { Reach::Idle };
            match self.make_room(reach, Some(id), |lane| lane.fits(id, &demand)) {
                Ok(()) => self.start(machine, id, &demand, watch),
                Err(_) if running > 0 => return None,
                // Buffers that were made for many shrink for the one.
                Err(_) if self.rows > DECODE_ROWS => self.reserve_rows(machine, DECODE_ROWS),
                Err(full) => return Some(self.refuse_start(machine, id, full)),
            }
        }
    }

    fn next_to_start(&self, typed_only: bool) -> Option<(SessionId, Rank)> {
        let candidates = self.sequences.iter().filter_map(|(&id, sequence)| {
            let place = sequence.place_to_start()?;
            let may = sequence.decodes_when_back() || may_prefill(sequence, typed_only);
            may.then_some((place, id))
        });
        candidates.min().map(|((priority, _, order), id)| (id, (priority, order)))
    }

    /// What a sequence needs to start beside `running` others.
    fn demand(&self, machine: &Machine, id: SessionId, running: usize) -> Demand {
        let prefix_source = self.prefix_source(id);
        // One more than the prompt: a start without room for a token of answer is no start.
        let total = self.sequences.get(&id).map_or(0, |each| (each.total() + 1).min(machine.model.context()));
        // The next page of everybody who will need one is left to them: else the first of them would preempt this one.
        let grows = |sequence: &&Sequence| {
            sequence.runs() && sequence.cache.len() + sequence.to_come() > sequence.cache.capacity()
        };
        let growing = self.sequences.values().filter(grows).count() as u64;
        let (device, host) = self.cache.resident_block();
        let rows = self.rows;
        let buffers = if running < rows {
            0
        } else {
            self.workspace(machine, rows + DECODE_ROWS) - self.workspace(machine, rows)
        };
        Demand { total, prefix_source, besides: (growing * device + buffers, growing * host) }
    }

    fn fits(&self, id: SessionId, demand: &Demand) -> Result<(), OutOfBudget> {
        let Some(sequence) = self.sequences.get(&id) else { return Ok(()) };
        let source = self.still(demand.prefix_source).map(|(source, holder)| (&holder.cache, source.tokens));
        let cached = source.map_or(sequence.cache.len(), |(_, shared)| shared);
        let tokens = demand.total.saturating_sub(cached);
        let (device, host) = self.cache.growth_sharing(&sequence.cache, source, tokens);
        self.cache.device().room(device + demand.besides.0)?;
        self.cache.host().room(host + demand.besides.1)
    }

    /// Gives a sequence what [`LaneState::fits`] found to fit.
    fn take(&mut self, id: SessionId, demand: &Demand) {
        if let Some((source, _)) = self.still(demand.prefix_source) {
            return self.share_prefix(id, source, demand.total);
        }
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        let tokens = demand.total.saturating_sub(sequence.cache.len());
        self.cache.grow(&mut sequence.cache, tokens).expect("room was made for it");
    }

    fn start(&mut self, machine: &mut Machine, id: SessionId, demand: &Demand, watch: &mut Watch) {
        let running = self.running();
        if running >= self.rows {
            watch.leave_out(|| self.reserve_rows(machine, self.rows + DECODE_ROWS));
        }
        self.take(id, demand);
        let Some(sequence) = self.sequences.get_mut(&id) else { return };
        if let Some(prefilled) = sequence.take_prefilled() {
            watch.leave_out(|| machine.device.copy_prompt(&self.cache, &mut sequence.cache, prefilled.cache()));
            sequence.copied(&prefilled);
        }
        let waited = sequence.waits();
        self.counts.recomputed_tokens += sequence.start() as u64;
        if let Some(queued) = sequence.queued().filter(|_| waited) {
            self.queued.record(0.0, queued.as_secs_f64() * 1e3);
        }
        self.counts.running_peak = self.counts.running_peak.max(running + 1);
        self.tell(id, Scheduling::Running);
    }

    /// An answer waits although nobody else holds anything it could have: the budget was lowered, or its sequence has
    /// outgrown it.
    fn refuse_start(&mut self, machine: &Machine, id: SessionId, full: OutOfBudget) -> Ending {
        let tokens = self.sequences.get(&id).map_or(0, |sequence| sequence.total() + 1);
        let message = self.too_large(machine, tokens);
        self.counts.refused += 1;
        self.error(Some(id), message.unwrap_or_else(|| format!("{full}; close a session or raise the budget")));
        Ending { session: id, reason: FinishReason::Budget }
    }

    /// Why a sequence of `tokens` can never run in the lane, if that is so.
    pub fn too_large(&self, machine: &Machine, tokens: usize) -> Option<String> {
        let most = self.cache.most_tokens(self.workspace(machine, DECODE_ROWS))?;
        (tokens > most).then(|| {
            format!(
                "with the message the session has {} tokens, and the lane's budget fits {}: shorten it, start a new \
                 session or raise the budget",
                tokens - 1,
                most.saturating_sub(1),
            )
        })
    }

    /// Bytes of the buffers of a step in which `rows` sequences decode beside a chunk of a prompt.
    fn workspace(&self, machine: &Machine, rows: usize) -> u64 {
        machine.device.step_bytes(self.step_size(machine, rows))
    }

    fn step_size(&self, machine: &Machine, rows: usize) -> StepSize {
        let (context, threads) = (machine.model.context(), machine.device.threads());
        // A sequence never outgrows the budget.
        let longest = self.cache.most_tokens(0).map_or(context, |most| most.min(context));
        // All of them are probed in the same step, at worst.
        let decode_rows = if self.guard.probe_every > 0 { 2 * rows } else { rows };
        StepSize { prompt_rows: machine.chunk, decode_rows, longest, threads }
    }

    /// Reserves the buffers for steps in which `rows` sequences decode.
    pub fn reserve_rows(&mut self, machine: &mut Machine, rows: usize) {
        let size = self.step_size(machine, rows);
        if machine.reserve(self.lane, size) {
            self.rows = rows;
            self.cache.device_mut().set_fixed(machine.device.step_bytes(size));
        }
    }
}

/// Whether a prompt may be computed now. While somebody waits for an answer to what they typed, the program's own
/// prompts wait: every chunk of one would stand between two tokens of that answer.
pub(crate) fn may_prefill(sequence: &Sequence, typed_only: bool) -> bool {
    !typed_only || sequence.priority() == Some(Priority::Typed)
}
