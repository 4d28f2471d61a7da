//! How many sequences fit into a device budget under each policy, and how fast they are together. A trace of requests runs
//! through the engine itself, with its queue, admission and preemption.
//!
//! All requests are there from the start, so the queue is never empty while it counts: speed is measured from the moment
//! the lane is full to the moment nobody waits any more. Contexts are computed once and copied into the pages of each
//! sequence that starts, because the run is about decoding. Policies alternate by round, each round with a new engine.

mod options;

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use serde::Serialize;

pub use self::options::{CapacityError, CapacityOptions};
use super::{
    prompt::Prompts,
    statistics::{Spread, quantile, sorted},
};
use crate::{
    attention::HitCounts,
    cache::{LaneCache, Policy},
    engine::{
        Engine, EngineOptions, EventKind, Events, FinishReason, GenerationOptions, Lane, LaneOptions, Prefilled,
        Request, Scheduling, SessionId, Step,
    },
    kernels::Pool,
    model::{BatchItem, Forward, LanguageModel, LogitRows, Reading},
    progress::Progress,
};

/// Different contexts that the requests have, one after the other.
const CONTEXTS: usize = 4;
/// Requests of the round that does not count, at most.
const WARM_UP_REQUESTS: usize = 12;
/// The lane that runs it; which one makes no difference.
const LANE: Lane = Lane::Kv;
/// How often a run looks whether it was stopped.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One policy under the budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CapacityRun {
    /// The policy, as it was spelled.
    pub policy: String,
    /// What it may hold on the device.
    pub budget_bytes: u64,
    /// The most sequences that ran at once, in every round.
    pub sessions_resident: usize,
    /// Tokens per second over all sequences while the lane was full and others waited: the median over the rounds.
    /// `None` where nobody ever waited.
    pub tok_s: Option<f64>,
    pub tok_s_min: Option<f64>,
    pub tok_s_max: Option<f64>,
    /// The median step of them, in ms.
    pub step_ms_p50: Option<f64>,
    /// Of it the linear layers, the median, in ms.
    pub linear_ms: Option<f64>,
    pub attention_ms: Option<f64>,
    pub head_ms: Option<f64>,
    /// Choosing the next tokens.
    pub sampling_ms: Option<f64>,
    /// Norms, rope, cache writes, scheduling and everything else.
    pub other_ms: Option<f64>,
    /// From the request to its first token, waiting included: the median.
    pub ttft_ms_p50: Option<f64>,
    /// 99 of 100 waited at most so long.
    pub ttft_ms_p99: Option<f64>,
    /// Between two tokens of an answer: the median.
    pub itl_ms_p50: Option<f64>,
    /// 99 of 100 came at most so much later.
    pub itl_ms_p99: Option<f64>,
    /// How often an answer was preempted, in all rounds.
    pub preemptions: u64,
    /// The most bytes held on the device, workspace included.
    pub device_peak_bytes: u64,
    /// The most bytes held in host memory.
    pub host_peak_bytes: u64,
    /// Requests that were answered in full, in all rounds.
    pub completed: usize,
    /// Scheduling a step, in ms: the longest within a tenth of a second, of those the median.
    pub schedule_ms_p50: Option<f64>,
    /// The longest of all: a step in which a lane is filled.
    pub schedule_ms_max: Option<f64>,
}

/// What one round of one policy showed.
#[derive(Debug, Default)]
struct Round {
    /// The steps that count, and the tokens they gave.
    steps: Vec<Step>,
    tokens: usize,
    resident: usize,
    ttft: Vec<f64>,
    itl: Vec<f64>,
    preemptions: u64,
    device_peak: u64,
    host_peak: u64,
    completed: usize,
    schedule: Vec<f64>,
}

/// Runs the trace under every policy. `progress` is called now and then and may break it off.
pub fn capacity(
    model: &Arc<LanguageModel>,
    pool: &Pool,
    options: &CapacityOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<CapacityRun>, CapacityError> {
    options.check(model)?;
    let warm_up = options.requests.min(WARM_UP_REQUESTS);
    let policies = options.policies.len();
    let total = policies * (warm_up + options.rounds * options.requests);
    let prompts: Vec<Vec<u32>> = {
        let prompts = Prompts::new(model);
        (0..CONTEXTS.min(options.requests)).map(|index| prompts.tokens(index, options.ctx + 1)).collect()
    };
    let contexts = contexts(model, pool, options, &prompts, progress)?;
    let mut trial = Trial { model, options, prompts, progress, done: 0, total };
    let mut rounds: Vec<Vec<Round>> = options.policies.iter().map(|_| Vec::new()).collect();
    for round in 0..=options.rounds {
        for (index, rounds) in rounds.iter_mut().enumerate() {
            let requests = if round == 0 { warm_up } else { options.requests };
            let what = match round {
                0 => "warming up".to_owned(),
                round => format!("round {round} of {}", options.rounds),
            };
            let measured = trial.run(index, &contexts[index], requests, &what)?;
            if round > 0 {
                rounds.push(measured);
            }
        }
    }
    let named = options.policies.iter().map(|(policy, _)| policy);
    Ok(named.zip(&rounds).map(|(policy, rounds)| CapacityRun::of(policy, options.budget, rounds)).collect())
}

/// Computes every context once, and stores it as each policy does. None where requests compute their own.
fn contexts(
    model: &LanguageModel,
    pool: &Pool,
    options: &CapacityOptions,
    prompts: &[Vec<u32>],
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<Vec<Prefilled>>, CapacityError> {
    let mut stored: Vec<Vec<Prefilled>> = options.policies.iter().map(|_| Vec::new()).collect();
    if options.real_prefill {
        return Ok(stored);
    }
    let mut forward = Forward::new();
    let mut unused = HitCounts::new(model.shape.layers);
    let chunks = options.ctx.div_ceil(options.prefill_chunk);
    let total = prompts.len() * chunks;
    for (index, prompt) in prompts.iter().enumerate() {
        let mut shelf = LaneCache::new(model.cache_shape(), Policy::Kv, None, None);
        let mut cache = shelf.open()?;
        shelf.grow(&mut cache, options.ctx)?;
        for (chunk, tokens) in prompt[..options.ctx].chunks(options.prefill_chunk).enumerate() {
            let (reading, logits) = (Reading::Exact, LogitRows::None);
            let span = BatchItem { tokens, cache: &mut cache, copies: Vec::new(), reading, logits };
            forward.run(model, pool, &mut [span], &mut unused);
            let what = format!("computing context {} of {}", index + 1, prompts.len());
            if progress(Progress { what, done: index * chunks + chunk + 1, total }).is_break() {
                return Err(CapacityError::Cancelled);
            }
        }
        for ((_, policy), stored) in options.policies.iter().zip(&mut stored) {
            let copy = LaneCache::new(model.cache_shape(), *policy, None, None).fork(&cache)?;
            stored.push(Prefilled::new(copy, &prompt[..options.ctx]));
        }
    }
    Ok(stored)
}

struct Trial<'a> {
    model: &'a Arc<LanguageModel>,
    options: &'a CapacityOptions,
    /// Each with the token that follows the context.
    prompts: Vec<Vec<u32>>,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    done: usize,
    total: usize,
}

impl Trial<'_> {
    /// One round of one policy, on an engine of its own.
    fn run(
        &mut self,
        policy: usize,
        contexts: &[Prefilled],
        requests: usize,
        what: &str,
    ) -> Result<Round, CapacityError> {
        let CapacityOptions { policies, budget, prefill_chunk, threads, .. } = self.options;
        let (spelling, policy) = &policies[policy];
        let lane = LaneOptions { lane: LANE, policy: *policy, device_budget: Some(*budget), host_budget: None };
        let options = EngineOptions {
            threads: *threads,
            prefill_chunk: *prefill_chunk,
            lanes: vec![lane],
            queue: requests,
            share_prefixes: false,
            ..EngineOptions::default()
        };
        let (engine, events) = Engine::start(Arc::clone(self.model), options)?;
        let turn =
            GenerationOptions { max_tokens: self.options.generate, ignore_eos: true, ..GenerationOptions::default() };
        for request in 0..requests {
            let session = SessionId(request as u32);
            let prompt = &self.prompts[request % self.prompts.len()];
            let prefilled = contexts.get(request % self.prompts.len()).cloned();
            let cached = prefilled.as_ref().map_or(0, |prefilled| prefilled.tokens().len());
            let tokens = prompt[cached..].to_vec();
            let opening = Request::Open { session, name: String::new(), system: None, lanes: vec![LANE] };
            let turn = turn.clone();
            for op in [opening, Request::SubmitTokens { session, prefilled, tokens, options: turn, once: true }] {
                // An engine that has ended says why in its last event.
                let _ = engine.ops().send(op);
            }
        }
        let mut watch = Watch::new(requests);
        while watch.ended < requests {
            let before = watch.ended;
            watch.read(&events, spelling)?;
            self.done += watch.ended - before;
            let progress = Progress { what: format!("{spelling}: {what}"), done: self.done, total: self.total };
            if (self.progress)(progress).is_break() {
                return Err(CapacityError::Cancelled);
            }
        }
        drop(engine);
        while !events.is_finished() {
            watch.read(&events, spelling)?;
        }
        let round = watch.round;
        if round.device_peak > *budget {
            return Err(CapacityError::OverBudget {
                policy: spelling.clone(),
                peak: round.device_peak,
                budget: *budget,
            });
        }
        Ok(round)
    }
}

/// Reads the events of a run.
struct Watch {
    states: Vec<Option<Scheduling>>,
    ended: usize,
    /// Whether the step that was read last counts: somebody waited.
    full: bool,
    itl_of_all: Vec<f64>,
    round: Round,
}

impl Watch {
    fn new(requests: usize) -> Self {
        let round = Round::default();
        Self { states: vec![None; requests], ended: 0, full: false, itl_of_all: Vec::new(), round }
    }

    fn count(&self, state: Scheduling) -> usize {
        self.states.iter().filter(|each| **each == Some(state)).count()
    }

    /// Takes in the next event, if one comes soon.
    fn read(&mut self, events: &Events, policy: &str) -> Result<(), CapacityError> {
        let Some(event) = events.recv_timeout(LOOK_EVERY) else { return Ok(()) };
        let refused = |message| Err(CapacityError::Refused { policy: policy.to_owned(), message });
        match event.kind {
            EventKind::Scheduled { session, state, .. } => self.states[session.0 as usize] = Some(state),
            EventKind::Step(step) => {
                self.round.resident = self.round.resident.max(self.count(Scheduling::Running));
                self.full = self.count(Scheduling::Waiting) > 0;
                if self.full {
                    self.round.tokens += step.decode_rows;
                    self.round.steps.push(step);
                }
            }
            EventKind::Token(token) => {
                self.itl_of_all.extend(token.itl_ms);
                self.round.itl.extend(token.itl_ms.filter(|_| self.full));
            }
            EventKind::Finished(finished) => {
                self.states[finished.session.0 as usize] = None;
                self.ended += 1;
                self.round.ttft.extend(finished.usage.ttft_ms);
                self.round.completed += usize::from(finished.reason == FinishReason::Length);
                // Nobody ever waited: then all tokens are what there is.
                if self.ended == self.states.len() && self.round.itl.is_empty() {
                    self.round.itl = std::mem::take(&mut self.itl_of_all);
                }
            }
            EventKind::Queue(queue) => {
                self.round.preemptions = queue.preemptions;
                self.round.device_peak = queue.device_peak_bytes;
                self.round.host_peak = queue.host_peak_bytes;
                self.round.schedule.push(queue.schedule_ms);
            }
            EventKind::Error { message, .. } => return refused(message),
            EventKind::Stopped { error: Some(message) } => return refused(message),
            _ => {}
        }
        Ok(())
    }
}

impl CapacityRun {
    fn of(policy: &str, budget: u64, rounds: &[Round]) -> Self {
        let speeds = rounds.iter().filter_map(|round| {
            let seconds = round.steps.iter().map(|step| step.total_ms).sum::<f64>() / 1e3;
            (seconds > 0.0).then(|| round.tokens as f64 / seconds)
        });
        let speed = Spread::of(speeds);
        let all = |of: fn(&Round) -> &Vec<f64>| sorted(rounds.iter().flat_map(of).copied());
        let (ttft, itl) = (all(|round| &round.ttft), all(|round| &round.itl));
        let schedule = all(|round| &round.schedule);
        let steps = || rounds.iter().flat_map(|round| &round.steps);
        let step = |of: fn(&Step) -> f64| quantile(&sorted(steps().map(of)), 0.5);
        let attention = |step: &Step| step.stages.scores_ms + step.stages.select_ms + step.stages.gather_ms;
        Self {
            policy: policy.to_owned(),
            budget_bytes: budget,
            sessions_resident: rounds.iter().map(|round| round.resident).min().unwrap_or(0),
            tok_s: speed.map(|speed| speed.median),
            tok_s_min: speed.map(|speed| speed.min),
            tok_s_max: speed.map(|speed| speed.max),
            step_ms_p50: step(|step| step.total_ms),
            linear_ms: step(|step| step.stages.linear_ms),
            attention_ms: step(attention),
            head_ms: step(|step| step.stages.head_ms),
            sampling_ms: step(|step| step.stages.sampling_ms),
            other_ms: step(|step| step.stages.other_ms),
            ttft_ms_p50: quantile(&ttft, 0.5),
            ttft_ms_p99: quantile(&ttft, 0.99),
            itl_ms_p50: quantile(&itl, 0.5),
            itl_ms_p99: quantile(&itl, 0.99),
            preemptions: rounds.iter().map(|round| round.preemptions).sum(),
            device_peak_bytes: rounds.iter().map(|round| round.device_peak).max().unwrap_or(0),
            host_peak_bytes: rounds.iter().map(|round| round.host_peak).max().unwrap_or(0),
            completed: rounds.iter().map(|round| round.completed).sum(),
            schedule_ms_p50: quantile(&schedule, 0.5),
            schedule_ms_max: schedule.last().copied(),
        }
    }
}
