//! A soak: sessions of random lengths come and go while knobs and budgets change and answers are stopped, for as long as
//! one likes. It shows that everything ends, that both tiers are empty afterwards, and that memory stays within the most
//! that pages ever took. A longer soak may find a larger most.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Serialize;
use thiserror::Error;

use super::{
    prompt::Prompts,
    split_mix::SplitMix64,
    workload::{Ending, ask_once},
};
use crate::{
    cache::{Knobs, Policy, Select, Tail},
    engine::{Engine, EngineError, EngineOptions, EventKind, Lane, Ledger, Priority, Queue, Request, SessionId},
    model::LanguageModel,
    progress::Progress,
    telemetry::HostSampler,
};

/// Sessions that are open at once.
const SESSIONS: usize = 24;
/// How often memory is looked at, and how long the soak waits for an event before it does something itself.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The share of the time after which memory is taken to have reached its size.
const WARM_UP: f64 = 0.2;
/// How long the engine rests after the last answer, before memory is looked at for the last time.
const REST: Duration = Duration::from_secs(1);

/// What a soak came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Soak {
    /// Seconds it ran.
    pub seconds: f64,
    /// Sessions that were opened; each asks once, in every lane.
    pub sessions: usize,
    /// Answers by how they ended.
    pub ended: BTreeMap<String, usize>,
    /// Knobs and budgets that were changed.
    #[serde(rename = "turned")]
    pub changed: usize,
    /// How often an answer was preempted.
    pub preemptions: u64,
    /// How often pages were evicted.
    pub freed: u64,
    /// Tokens computed again because of it.
    pub recomputed_tokens: u64,
    /// Tokens not computed because another sequence had them.
    pub prefix_hit_tokens: u64,
    /// Resident memory of the process after a fifth of the time: the most seen until then, in bytes.
    pub rss_early_bytes: Option<u64>,
    /// The most seen in the rest of the time.
    pub rss_late_bytes: Option<u64>,
    /// What was seen when the engine had rested after the last answer: the weights, and what the process needs besides.
    pub rss_left_bytes: Option<u64>,
    /// The most bytes of cache that both tiers of all lanes had reserved in the first fifth of the time.
    #[serde(rename = "booked_early_bytes")]
    pub reserved_early_bytes: u64,
    /// And in the rest of it.
    #[serde(rename = "booked_late_bytes")]
    pub reserved_late_bytes: u64,
    /// Bytes of cache that both tiers of all lanes held after the last session was closed; 0 unless something leaked.
    pub left_bytes: u64,
}

#[derive(Debug, Error)]
pub enum SoakError {
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The engine broke, or its books did not agree.
    #[error("{0}")]
    Broken(String),
}

/// Runs an engine with `options` for `time`, or until `progress` breaks it off. The same seed does the same, as far as
/// time allows.
pub fn soak(
    model: &Arc<LanguageModel>,
    options: EngineOptions,
    time: Duration,
    seed: u64,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Soak, SoakError> {
    let lanes = options.lanes.clone();
    let (engine, events) = Engine::start(Arc::clone(model), options)?;
    let requests = engine.ops();
    // An engine that has ended says why in its last event.
    let send = |request: Request| drop(requests.send(request));
    let prompts = Prompts::new(model);
    let mut random = SplitMix64(seed);
    let mut below = |bound: usize| (random.unit() * bound as f64) as usize;
    let mut host = HostSampler::new();
    let mut soak = Soak::default();
    let mut answering: BTreeMap<SessionId, usize> = BTreeMap::new();
    let mut ledgers: BTreeMap<Lane, Ledger> = BTreeMap::new();
    let mut queues: BTreeMap<Lane, Queue> = BTreeMap::new();
    let started = Instant::now();
    let mut looked = started;
    let mut stopping = false;
    let mut resting = None;
    let mut engine = Some(engine);
    loop {
        let passed = started.elapsed();
        stopping |= passed >= time;
        let (done, total) = (passed.min(time).as_millis() as usize, time.as_millis() as usize);
        let what = format!("{} sessions", soak.sessions);
        stopping |= progress(Progress { what, done, total }).is_break();
        if stopping && answering.is_empty() && engine.is_some() {
            let since: Instant = *resting.get_or_insert_with(Instant::now);
            if since.elapsed() >= REST {
                soak.rss_left_bytes = host.as_mut().and_then(|host| host.sample().process_rss_bytes);
                engine = None;
            }
        }
        while !stopping && answering.len() < SESSIONS {
            let session = SessionId(soak.sessions as u32);
            soak.sessions += 1;
            // Short ones are more frequent than long ones, and a third begin like others.
            let longest = model.context() / 3;
            let length = 1 + (longest as f64).powf(below(1000) as f64 / 1000.0) as usize;
            let shared = if below(3) == 0 { longest / 2 } else { 0 };
            let mut tokens = prompts.tokens(0, shared);
            tokens.extend(prompts.tokens(1 + session.0 as usize, length));
            let wanted = lanes.iter().map(|lane| lane.lane).collect();
            let asked = ask_once(session, String::new(), wanted, tokens, 1 + below(64), Priority::Typed);
            asked.into_iter().for_each(send);
            answering.insert(session, lanes.len());
            match below(12) {
                0 => send(Request::Stop { session, lane: None }),
                1 => {
                    let any = answering.keys().nth(below(answering.len())).copied();
                    any.into_iter().for_each(|session| send(Request::Stop { session, lane: None }));
                }
                2 => {
                    soak.changed += 1;
                    let lane = &lanes[below(lanes.len())];
                    // From an eighth of what is configured to the whole.
                    let bytes = lane.device_budget.map(|budget| budget / 8 * (1 + below(8)) as u64);
                    send(Request::SetBudget { lane: lane.lane, bytes });
                }
                3 => {
                    let lane = &lanes[below(lanes.len())];
                    if let Policy::KCache(Knobs { k, .. }) = lane.policy {
                        soak.changed += 1;
                        let tail = [Tail::None, Tail::Renorm, Tail::Mean][below(3)];
                        let select = [Select::Head, Select::Group][below(2)];
                        let (n, dense) = (1 + below(512), below(4));
                        let knobs = Knobs { n, tail, dense, select, k, ..Knobs::EVEN };
                        send(Request::SetPolicy { lane: lane.lane, policy: Policy::KCache(knobs) });
                    }
                }
                _ => {}
            }
        }
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            let early = passed.as_secs_f64() < WARM_UP * time.as_secs_f64();
            let (resident, reserved) = if early {
                (&mut soak.rss_early_bytes, &mut soak.reserved_early_bytes)
            } else {
                (&mut soak.rss_late_bytes, &mut soak.reserved_late_bytes)
            };
            *resident = (*resident).max(host.as_mut().and_then(|host| host.sample().process_rss_bytes));
            *reserved = (*reserved).max(pages_reserved(&ledgers));
        }
        let Some(event) = events.recv_timeout(LOOK_EVERY) else {
            if events.is_finished() {
                break;
            }
            continue;
        };
        match event.kind {
            EventKind::Finished(finished) => {
                *soak.ended.entry(Ending::of(finished.reason).to_string()).or_default() += 1;
                if let Some(left) = answering.get_mut(&finished.session) {
                    *left -= 1;
                    if *left == 0 {
                        answering.remove(&finished.session);
                    }
                }
            }
            EventKind::Ledger(ledger) => drop(ledgers.insert(ledger.lane, ledger)),
            EventKind::Queue(queue) => drop(queues.insert(queue.lane, queue)),
            // Without a session it is not about a request.
            EventKind::Error { session: None, message, .. } => return Err(SoakError::Broken(message)),
            EventKind::Stopped { error: Some(message) } => return Err(SoakError::Broken(message)),
            _ => {}
        }
    }
    drop(engine);
    soak.seconds = started.elapsed().as_secs_f64();
    for queue in queues.values() {
        soak.preemptions += queue.preemptions;
        soak.freed += queue.freed;
        soak.recomputed_tokens += queue.recomputed_tokens;
        soak.prefix_hit_tokens += queue.prefix_hit_tokens;
    }
    soak.left_bytes = pages_reserved(&ledgers);
    Ok(soak)
}

/// Bytes that the lanes have reserved in both tiers, the buffers of the step left out.
fn pages_reserved(ledgers: &BTreeMap<Lane, Ledger>) -> u64 {
    let tiers = ledgers.values().flat_map(|ledger| [ledger.device, ledger.host]);
    tiers.map(|tier| tier.cache() - tier.workspace).sum()
}
