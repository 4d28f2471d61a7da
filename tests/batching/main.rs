//! Several sessions under a device budget: who waits, who is set back, who shares, and that nothing of it shows in the
//! text.

mod crowd;
#[path = "../support/events.rs"]
mod events;
mod prefix;
mod queue;
mod room;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use candle_core::quantized::GgmlDType;
use events::until_finished;
use kcache::{
    cache::{PAGE_TOKENS, Policy},
    engine::{
        Engine, EngineOptions, Event, EventKind, Events, FinishReason, GenerationOptions, Lane, LaneOptions, Priority,
        Queue, Request, Scheduling, SessionId,
    },
    model::LanguageModel,
};
use support::tiny::Tiny;

const POLICY: &str = "kcache:n=16,dense=1,tail=mean";

fn model(context: usize) -> Arc<LanguageModel> {
    let (heads, kv_heads, head_dim) = (4, 2, 32);
    let (hidden, ffn, dtype) = (128, 128, GgmlDType::Q8_0);
    support::open(&Tiny { layers: 3, hidden, heads, kv_heads, head_dim, ffn, context, dtype, ..Tiny::default() })
}

/// What a lane with this policy takes on the device: its buffers, the running sums of a sequence, and one block of 64
/// tokens.
#[derive(Clone, Copy)]
struct Sizes {
    workspace: u64,
    sums: u64,
    block: u64,
    /// The block on the host.
    host: u64,
}

impl Sizes {
    fn of(model: &Arc<LanguageModel>, policy: &str) -> Self {
        let (engine, events) = start(model, options(policy, None));
        let mut ledgers = std::iter::from_fn(|| events.recv()).filter_map(|event| match event.kind {
            EventKind::Ledger(ledger) => Some(ledger.device.workspace),
            _ => None,
        });
        let workspace = ledgers.next().expect("a ledger follows the start");
        drop(engine);
        let policy: Policy = policy.parse().unwrap();
        let shape = model.cache_shape();
        let layers = shape.layers as u64;
        let [k, v] = policy.formats().map(|format| shape.page_bytes(format));
        let device_v = policy.device_v_layers(shape.layers) as u64;
        let sums = if policy.knobs().is_some() { shape.sum_bytes() } else { 0 };
        Self { workspace, sums, block: layers * k + device_v * v, host: (layers - device_v) * v }
    }

    /// A budget for so many sequences of so many blocks.
    fn budget(&self, sequences: u64, blocks: u64) -> u64 {
        self.workspace + sequences * (self.sums + blocks * self.block)
    }
}

fn options(policy: &str, device_budget: Option<u64>) -> EngineOptions {
    let policy = policy.parse().unwrap();
    let lane = LaneOptions { lane: Lane::KCache, policy, device_budget, host_budget: None };
    EngineOptions { threads: 2, prefill_chunk: 32, lanes: vec![lane], ..EngineOptions::default() }
}

fn start(model: &Arc<LanguageModel>, options: EngineOptions) -> (Engine, Events) {
    Engine::start(Arc::clone(model), options).unwrap()
}

fn open(engine: &Engine, session: u32) {
    let (session, name) = (SessionId(session), format!("session {session}"));
    engine.ops().send(Request::Open { session, name, system: None, lanes: Lane::ALL.to_vec() }).unwrap();
}

fn turn(max_tokens: usize) -> GenerationOptions {
    GenerationOptions { max_tokens, ignore_eos: true, ..GenerationOptions::default() }
}

fn feed(engine: &Engine, session: u32, tokens: &[u32], turn: GenerationOptions) {
    let (session, tokens) = (SessionId(session), tokens.to_vec());
    engine.ops().send(Request::SubmitTokens { session, prefilled: None, tokens, options: turn, once: false }).unwrap();
}

/// A linear congruential generator (Knuth's MMIX constants).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as u32 % bound
    }
}

/// Ordinary tokens, others for every seed.
fn tokens(seed: u32, count: usize) -> Vec<u32> {
    let mut random = Random(u64::from(seed) * 2 + 1);
    (0..count).map(|_| 3 + random.below(256)).collect()
}

/// Stops the engine and makes sure that the books agreed and both tiers are empty again. What is left to read, and the
/// last word on the queue of the lane.
fn stop(engine: Engine, events: &Events) -> (Vec<Event>, Queue) {
    drop(engine);
    let rest: Vec<Event> = std::iter::from_fn(|| events.recv()).collect();
    assert_eq!(rest.last().map(|event| &event.kind), Some(&EventKind::Stopped { error: None }));
    assert_eq!(errors(&rest), Vec::<String>::new());
    let ledger = rest.iter().rev().find_map(|event| match &event.kind {
        EventKind::Ledger(ledger) => Some(*ledger),
        _ => None,
    });
    let ledger = ledger.expect("an engine that stops tells its ledger");
    assert_eq!((ledger.device.cache(), ledger.host.cache()), (ledger.device.workspace, 0));
    let queue = rest.iter().rev().find_map(|event| match &event.kind {
        EventKind::Queue(queue) => Some(queue.clone()),
        _ => None,
    });
    (rest, queue.expect("and its queue"))
}

fn errors(events: &[Event]) -> Vec<String> {
    let message = |event: &Event| match &event.kind {
        EventKind::Error { message, .. } => Some(message.clone()),
        _ => None,
    };
    events.iter().filter_map(message).collect()
}

/// The token ids of the answers of each session.
fn answers(events: &[Event]) -> BTreeMap<u32, Vec<u32>> {
    let mut answers: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for event in events {
        if let EventKind::Token(token) = &event.kind {
            answers.entry(token.session.0).or_default().push(token.token_id);
        }
    }
    answers
}

fn states(events: &[Event]) -> Vec<(u32, Scheduling)> {
    let state = |event: &Event| match event.kind {
        EventKind::Scheduled { session, state, .. } => Some((session.0, state)),
        _ => None,
    };
    events.iter().filter_map(state).collect()
}

/// What each prompt is answered when it is alone.
fn alone(model: &Arc<LanguageModel>, policy: &str, prompts: &[(Vec<u32>, usize)]) -> Vec<Vec<u32>> {
    let (engine, events) = start(model, EngineOptions { share_prefixes: false, ..options(policy, None) });
    let mut found = Vec::new();
    for (session, (prompt, max_tokens)) in prompts.iter().enumerate() {
        open(&engine, session as u32);
        feed(&engine, session as u32, prompt, turn(*max_tokens));
        found.extend(answers(&until_finished(&events, 1)).into_values());
        engine.ops().send(Request::Close { session: SessionId(session as u32) }).unwrap();
    }
    stop(engine, &events);
    found
}
