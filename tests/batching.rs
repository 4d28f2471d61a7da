//! Several sessions under a device budget: who waits, who is set back, who shares, and that nothing of it shows in the
//! text.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use candle_core::quantized::GgmlDType;
use kcache::{
    cache::{PAGE_TOKENS, Policy},
    engine::{
        Engine, EngineOptions, Event, EventKind, Events, FinishReason, Lane, LaneOptions, Op, Priority, Queue,
        Scheduling, SessionId, Turn,
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
    engine.ops().send(Op::Open { session, name, system: None, lanes: Lane::ALL.to_vec() }).unwrap();
}

fn turn(max_tokens: usize) -> Turn {
    Turn { max_tokens, ignore_eos: true, ..Turn::default() }
}

fn feed(engine: &Engine, session: u32, tokens: &[u32], turn: Turn) {
    let (session, tokens) = (SessionId(session), tokens.to_vec());
    engine.ops().send(Op::Feed { session, prefilled: None, tokens, turn, once: false }).unwrap();
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

/// Reads events until `enough` answers have ended.
fn until_finished(events: &Events, enough: usize) -> Vec<Event> {
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut read = Vec::new();
    let mut finished = 0;
    while finished < enough {
        let event = events.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        let event = event.expect("answers end within two minutes");
        finished += usize::from(matches!(event.kind, EventKind::Finished(_)));
        read.push(event);
    }
    read
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
        engine.ops().send(Op::Close { session: SessionId(session as u32) }).unwrap();
    }
    stop(engine, &events);
    found
}

#[test]
fn answers_wait_for_room_and_are_set_back_for_older_ones_without_a_trace_in_the_text() {
    let model = model(512);
    for policy in ["kv", "kv-q8", POLICY, "kcache:n=16,dense=0,k=q8"] {
        let prompts: Vec<_> = (0..4).map(|seed| (tokens(seed, 70), 150)).collect();
        let expected = alone(&model, policy, &prompts);
        // Two start with two blocks each; both grow to four, and six is what there is.
        let sizes = Sizes::of(&model, policy);
        let budget = sizes.workspace + 3 * sizes.sums + 6 * sizes.block;
        let (engine, events) = start(&model, options(policy, Some(budget)));
        for (session, (prompt, max_tokens)) in prompts.iter().enumerate() {
            open(&engine, session as u32);
            feed(&engine, session as u32, prompt, turn(*max_tokens));
        }
        let read = until_finished(&events, 4);
        let (rest, queue) = stop(engine, &events);
        assert_eq!(errors(&read), Vec::<String>::new(), "{policy}");
        let found = answers(&read);
        for (session, expected) in expected.iter().enumerate() {
            assert_eq!(&found[&(session as u32)], expected, "{policy}, session {session}");
        }
        let states = states(&read);
        assert!(states.iter().any(|(_, state)| *state == Scheduling::Preempted), "{policy}: {states:?}");
        assert!(!states.contains(&(0, Scheduling::Preempted)), "{policy}: the oldest is never set back");
        // Whoever is set back goes on before anybody starts who waits.
        let mut set_back = BTreeSet::new();
        let mut started = BTreeSet::new();
        for (session, state) in states {
            match state {
                Scheduling::Preempted => drop(set_back.insert(session)),
                Scheduling::Running if started.insert(session) => {
                    assert!(set_back.is_empty(), "{policy}: {session} starts while {set_back:?} are set back");
                }
                Scheduling::Running => drop(set_back.remove(&session)),
                Scheduling::Waiting | Scheduling::Freed => {}
            }
        }
        assert_eq!((queue.freed, queue.recomputed_tokens, queue.refused), (0, 0, 0), "{policy}");
        assert!(queue.preemptions > 0 && queue.device_peak_bytes <= budget, "{policy}: {queue:?}");
        for event in read.iter().chain(&rest) {
            if let EventKind::Ledger(ledger) = &event.kind {
                assert!(ledger.device.cache() <= budget, "{policy}");
            }
        }
    }
}

#[test]
fn where_the_host_is_full_too_tokens_are_computed_again() {
    let model = model(512);
    let sizes = Sizes::of(&model, "kv");
    let mut options = options("kv", Some(sizes.budget(1, 6)));
    options.lanes[0].host_budget = Some(sizes.block);
    let (engine, events) = start(&model, options);
    for session in 0..3 {
        open(&engine, session);
        feed(&engine, session, &tokens(session, 70), turn(150));
    }
    let read = until_finished(&events, 3);
    let (_, queue) = stop(engine, &events);
    assert!(answers(&read).values().all(|answer| answer.len() == 150));
    assert!(queue.freed > 0 && queue.recomputed_tokens > 0, "{queue:?}");
    assert!(states(&read).iter().any(|(_, state)| *state == Scheduling::Freed));
    // The first is never set back, so its text is what it is alone.
    assert_eq!(answers(&read)[&0], alone(&model, "kv", &[(tokens(0, 70), 150)])[0]);
}

#[test]
fn what_can_never_fit_is_refused_with_the_number_that_would() {
    let model = model(512);
    let sizes = Sizes::of(&model, POLICY);
    let (engine, events) = start(&model, options(POLICY, Some(sizes.budget(1, 3))));
    open(&engine, 1);
    feed(&engine, 1, &tokens(1, 3 * PAGE_TOKENS), turn(5));
    let read = until_finished(&events, 1);
    let errors = errors(&read);
    assert!(errors.iter().any(|error| error.contains("192 tokens") && error.contains("fits 191")), "{errors:?}");
    feed(&engine, 1, &tokens(1, 3 * PAGE_TOKENS - 1), turn(5));
    let read = until_finished(&events, 1);
    let ends: Vec<_> = read
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Finished(finished) => Some((finished.reason, finished.usage.completion_tokens)),
            _ => None,
        })
        .collect();
    // One token comes of the prompt, and there is a place for it; for the next there is none.
    assert_eq!(ends, [(FinishReason::Budget, 2)]);
    let (_, queue) = stop(engine, &events);
    assert_eq!(queue.refused, 1);
}

#[test]
fn a_full_queue_pushes_back_and_those_in_it_can_be_cancelled() {
    let model = model(512);
    let sizes = Sizes::of(&model, "kv");
    let options = EngineOptions { queue: 2, ..options("kv", Some(sizes.budget(1, 7))) };
    let (engine, events) = start(&model, options);
    for session in 0..4 {
        open(&engine, session);
        feed(&engine, session, &tokens(session, 300), turn(140));
    }
    // The first runs, two wait, the fourth is pushed back; then one of the two is taken back.
    engine.ops().send(Op::Stop { session: SessionId(1), lane: None }).unwrap();
    engine.ops().send(Op::Close { session: SessionId(2) }).unwrap();
    let mut read = until_finished(&events, 3);
    let messages = errors(&read);
    assert!(messages.iter().all(|error| error.contains("queue is full, 2 answers wait")), "{messages:?}");
    assert_eq!(messages.len(), 1);
    let reasons: BTreeMap<u32, FinishReason> = read
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Finished(finished) => Some((finished.session.0, finished.reason)),
            _ => None,
        })
        .collect();
    let cancelled = FinishReason::Cancelled;
    assert_eq!(reasons, BTreeMap::from([(0, FinishReason::Length), (1, cancelled), (2, cancelled)]));
    assert_eq!(answers(&read).keys().copied().collect::<Vec<_>>(), [0], "the others never started");
    feed(&engine, 3, &tokens(3, 300), turn(3));
    read = until_finished(&events, 1);
    assert_eq!(answers(&read)[&3].len(), 3);
    stop(engine, &events);
}

#[test]
fn what_was_typed_starts_before_what_the_program_asked() {
    let model = model(512);
    let sizes = Sizes::of(&model, "kv");
    let (engine, events) = start(&model, options("kv", Some(sizes.budget(1, 3))));
    let background = Turn { priority: Priority::Background, ..turn(20) };
    for (session, turn) in [(0, background), (1, background), (2, turn(20))] {
        open(&engine, session);
        feed(&engine, session, &tokens(session, 120), turn);
    }
    let read = until_finished(&events, 3);
    let running = states(&read).into_iter().filter(|(_, state)| *state == Scheduling::Running);
    let mut order: Vec<u32> = running.map(|(session, _)| session).collect();
    order.dedup();
    let place = |session| order.iter().position(|each| *each == session).unwrap();
    assert!(place(2) < place(1), "{order:?}");
    stop(engine, &events);
}

#[test]
fn shared_prefixes_give_the_same_tokens_and_are_booked_once() {
    let model = model(512);
    let document = tokens(7, 200);
    let prompts: Vec<_> = (0..6)
        .map(|seed| {
            let mut prompt = document.clone();
            prompt.extend(tokens(100 + seed, 20));
            (prompt, 24)
        })
        .collect();
    for policy in ["kv", "kv-q8", POLICY, "kcache:n=16,dense=0,k=q8"] {
        let expected = alone(&model, policy, &prompts);
        let (engine, events) = start(&model, options(policy, None));
        for (session, (prompt, max_tokens)) in prompts.iter().enumerate() {
            open(&engine, session as u32);
            feed(&engine, session as u32, prompt, turn(*max_tokens));
        }
        let read = until_finished(&events, 6);
        let found = answers(&read);
        for (session, expected) in expected.iter().enumerate() {
            assert_eq!(&found[&(session as u32)], expected, "{policy}, session {session}");
        }
        let at_rest = loop {
            let event = events.recv_timeout(Duration::from_secs(60)).expect("an engine at rest tells its ledger");
            if let EventKind::Ledger(ledger) = event.kind {
                break ledger;
            }
        };
        // Three pages of the document once, and one more of each session.
        let [k, _] = policy.parse::<Policy>().unwrap().formats();
        let shape = model.cache_shape();
        assert_eq!(at_rest.device.k, (3 + 6) * shape.layers as u64 * shape.page_bytes(k), "{policy}");
        assert_eq!(at_rest.sequences, 6);
        let (_, queue) = stop(engine, &events);
        assert_eq!(queue.prefix_hit_tokens, 5 * 192, "{policy}");
    }
}

#[test]
fn sharing_fits_more_sessions_under_a_budget_and_survives_moves_between_the_tiers() {
    let model = model(512);
    let document = tokens(7, 200);
    let prompts: Vec<_> = (0..5)
        .map(|seed| {
            let mut prompt = document.clone();
            prompt.extend(tokens(100 + seed, 20));
            (prompt, 100)
        })
        .collect();
    let expected = alone(&model, POLICY, &prompts);
    // Three blocks of the document and one or two of each session: not all of them at once.
    let sizes = Sizes::of(&model, POLICY);
    let budget = sizes.workspace + 5 * sizes.sums + 8 * sizes.block;
    for host_budget in [None, Some(9 * sizes.host + 6 * sizes.block)] {
        let mut options = options(POLICY, Some(budget));
        options.lanes[0].host_budget = host_budget;
        let (engine, events) = start(&model, options);
        for (session, (prompt, max_tokens)) in prompts.iter().enumerate() {
            open(&engine, session as u32);
            feed(&engine, session as u32, prompt, turn(*max_tokens));
        }
        let read = until_finished(&events, 5);
        let freed: BTreeSet<u32> = states(&read)
            .into_iter()
            .filter_map(|(session, state)| (state == Scheduling::Freed).then_some(session))
            .collect();
        let found = answers(&read);
        for (session, expected) in expected.iter().enumerate() {
            if !freed.contains(&(session as u32)) {
                assert_eq!(&found[&(session as u32)], expected, "session {session}");
            }
        }
        let (_, queue) = stop(engine, &events);
        assert!(queue.prefix_hit_tokens >= 4 * 192 && queue.preemptions > 0, "{queue:?}");
        assert!(queue.device_peak_bytes <= budget);
        assert_eq!(freed.is_empty(), queue.recomputed_tokens == 0);
    }
}

#[test]
fn an_idle_session_leaves_its_pages_until_they_are_needed_and_goes_on_with_them() {
    let model = model(512);
    let sizes = Sizes::of(&model, POLICY);
    let follow_up = |budget: Option<u64>| {
        let (engine, events) = start(&model, options(POLICY, budget));
        open(&engine, 1);
        open(&engine, 2);
        feed(&engine, 1, &tokens(1, 150), turn(20));
        until_finished(&events, 1);
        feed(&engine, 2, &tokens(2, 150), turn(20));
        until_finished(&events, 1);
        let moved = loop {
            let event = events.recv_timeout(Duration::from_secs(60)).expect("an engine at rest tells its ledger");
            if let EventKind::Ledger(ledger) = event.kind {
                break ledger.host.k > 0;
            }
        };
        feed(&engine, 1, &tokens(3, 10), turn(20));
        let read = until_finished(&events, 1);
        let reused = read.iter().find_map(|event| match &event.kind {
            EventKind::Finished(finished) => Some(finished.usage.reused_tokens),
            _ => None,
        });
        stop(engine, &events);
        (answers(&read), reused, moved)
    };
    let (expected, reused, moved) = follow_up(None);
    assert_eq!((reused, moved), (Some(169), false));
    let (found, reused, moved) = follow_up(Some(sizes.budget(1, 4)));
    assert_eq!((found, reused), (expected, Some(169)));
    assert!(moved, "the first session's pages go to the host for the second");
}

#[test]
fn a_budget_lowered_below_what_is_held_sets_answers_back_until_it_fits() {
    // Answers so long that they are under way when the budgets change, however late this thread gets to say so.
    let model = model(4096);
    let sizes = Sizes::of(&model, "kv");
    let prompts: Vec<_> = (0..4).map(|seed| (tokens(seed, 100), 600)).collect();
    let expected = alone(&model, "kv", &prompts);
    let (engine, events) = start(&model, options("kv", None));
    for (session, (prompt, max_tokens)) in prompts.iter().enumerate() {
        open(&engine, session as u32);
        feed(&engine, session as u32, prompt, turn(*max_tokens));
    }
    let mut read = Vec::new();
    while answers(&read).len() < 4 {
        read.push(events.recv_timeout(Duration::from_secs(60)).expect("tokens come"));
    }
    let bytes = Some(sizes.budget(1, 11));
    engine.ops().send(Op::SetBudget { lane: Lane::KCache, bytes }).unwrap();
    read.extend(until_finished(&events, 4));
    let lowered = read.iter().position(|event| matches!(event.kind, EventKind::Knob { .. })).expect("a knob is told");
    assert!(states(&read[lowered..]).iter().filter(|(_, state)| *state == Scheduling::Preempted).count() >= 3);
    let found = answers(&read);
    for (session, expected) in expected.iter().enumerate() {
        assert_eq!(&found[&(session as u32)], expected, "session {session}");
    }
    // So low that nothing fits: what runs ends, and says why.
    engine.ops().send(Op::SetBudget { lane: Lane::KCache, bytes: None }).unwrap();
    feed(&engine, 0, &tokens(9, 10), turn(3_000));
    while !matches!(events.recv_timeout(Duration::from_secs(60)).expect("tokens come").kind, EventKind::Token(_)) {}
    engine.ops().send(Op::SetBudget { lane: Lane::KCache, bytes: Some(sizes.workspace) }).unwrap();
    let read = until_finished(&events, 1);
    assert_eq!(errors(&read).len(), 1);
    stop(engine, &events);
}

#[test]
fn two_hundred_requests_with_cancels_knobs_and_budgets_all_end_and_say_what_they_say_alone() {
    let model = model(512);
    for (seed, policy) in [(1, "kv"), (2, POLICY)] {
        let mut random = Random(seed);
        let sizes = Sizes::of(&model, policy);
        let mut options = options(policy, Some(sizes.budget(3, 5)));
        options.lanes[0].host_budget = Some(20 * (sizes.block + sizes.host));
        let (engine, events) = start(&model, options);
        let mut prompts = Vec::new();
        let mut cancelled = BTreeSet::new();
        // Sessions that may have run while a knob differed from the one of the comparison.
        let mut turned = BTreeSet::new();
        let mut open_ones: BTreeSet<u32> = BTreeSet::new();
        let mut read = Vec::new();
        let ended = |read: &[Event]| -> BTreeSet<u32> {
            let ended = |event: &Event| match &event.kind {
                EventKind::Finished(finished) => Some(finished.session.0),
                _ => None,
            };
            read.iter().filter_map(ended).collect()
        };
        let mut knob_is_turned = false;
        for session in 0..200 {
            let shared = random.below(3) == 0;
            let length = 1 + random.below(260) as usize;
            let mut prompt = if shared { tokens(1000, 130) } else { Vec::new() };
            prompt.extend(tokens(session, length));
            let max_tokens = 1 + random.below(40) as usize;
            open(&engine, session);
            feed(&engine, session, &prompt, turn(max_tokens));
            prompts.push((prompt, max_tokens));
            open_ones.insert(session);
            if knob_is_turned {
                turned.insert(session);
            }
            match random.below(10) {
                0 => {
                    let session = random.below(session + 1);
                    engine.ops().send(Op::Stop { session: SessionId(session), lane: None }).unwrap();
                    cancelled.insert(session);
                }
                1 => {
                    let session = random.below(session + 1);
                    if open_ones.remove(&session) {
                        engine.ops().send(Op::Close { session: SessionId(session) }).unwrap();
                        cancelled.insert(session);
                    }
                }
                2 => {
                    let blocks = 3 + u64::from(random.below(20));
                    let bytes = (blocks < 20).then(|| sizes.budget(1, blocks));
                    engine.ops().send(Op::SetBudget { lane: Lane::KCache, bytes }).unwrap();
                }
                // Seldom turned, and soon turned back: enough has to be left to compare.
                choice @ (3 | 6 | 7 | 8) if policy != "kv" && (knob_is_turned || choice == 3 && session % 4 == 0) => {
                    knob_is_turned = !knob_is_turned;
                    let policy = if knob_is_turned { "kcache:n=3,dense=0,tail=none" } else { policy };
                    let policy = policy.parse().unwrap();
                    engine.ops().send(Op::SetPolicy { lane: Lane::KCache, policy }).unwrap();
                    // Whoever has not ended may be touched by it.
                    while let Some(event) = events.try_recv() {
                        read.push(event);
                    }
                    let ended = ended(&read);
                    turned.extend((0..=session).filter(|session| !ended.contains(session)));
                }
                4 => read.extend(events.recv_timeout(Duration::from_millis(5))),
                // Now and then the engine is let catch up, so that not everything waits.
                5 => {
                    let before = ended(&read).len();
                    while ended(&read).len() < (before + 8).min(open_ones.len().saturating_sub(4)) {
                        read.push(events.recv_timeout(Duration::from_secs(60)).expect("answers end"));
                    }
                }
                _ => {}
            }
        }
        let deadline = Instant::now() + Duration::from_secs(120);
        while ended(&read).len() < 200 {
            let left = deadline.saturating_duration_since(Instant::now());
            read.push(events.recv_timeout(left).expect("all answers end"));
        }
        let (rest, queue) = stop(engine, &events);
        read.extend(rest);
        let reasons: BTreeMap<u32, FinishReason> = read
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Finished(finished) => Some((finished.session.0, finished.reason)),
                _ => None,
            })
            .collect();
        assert_eq!(reasons.len(), 200);
        let freed: BTreeSet<u32> = states(&read)
            .into_iter()
            .filter_map(|(session, state)| (state == Scheduling::Freed).then_some(session))
            .collect();
        let found = answers(&read);
        let mut compared = 0;
        let expected = alone(&model, policy, &prompts);
        for (session, expected) in (0..).zip(&expected) {
            let reason = reasons[&session];
            match reason {
                FinishReason::Length => {}
                FinishReason::Cancelled => assert!(cancelled.contains(&session), "{policy} {session}"),
                FinishReason::Budget => {}
                other => panic!("{policy}, session {session}: {other:?}"),
            }
            if turned.contains(&session) || freed.contains(&session) {
                continue;
            }
            let none = Vec::new();
            let found = found.get(&session).unwrap_or(&none);
            assert_eq!(found, &expected[..found.len()], "{policy}, session {session}, {reason:?}");
            if reason == FinishReason::Length {
                assert_eq!(found.len(), expected.len());
                compared += 1;
            }
        }
        assert!(compared > 60, "{policy}: {compared} of 200 could be compared");
        assert!(queue.preemptions > 0 && queue.prefix_hit_tokens > 0, "{policy}: {queue:?}");
        println!("{policy}: {compared} compared, {} computed again, {queue:?}", freed.len());
    }
}
