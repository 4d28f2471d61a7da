//! Probes and the guard, as a library user sees them: what they tell, and what they do to the text.

#[path = "support/events.rs"]
mod events;
mod support;

use std::{collections::BTreeMap, sync::Arc};

use candle_core::quantized::GgmlDType;
use events::until_finished;
use kcache::{
    attention::HitCounts,
    cache::{LaneCache, Policy},
    engine::{
        Engine, EngineOptions, Event, EventKind, Events, GenerationOptions, Guarded, Lane, LaneOptions, Probe, Request,
        SessionId, Token,
    },
    kernels::Pool,
    model::{BatchItem, Forward, LanguageModel, LogitRows, Reading, source},
    quality::{GuardMode, GuardOptions, GuardState, compare_logits},
};
use support::tiny::Tiny;

/// Rows of 3 out of hundreds, and nothing for the rest.
const POOR: &str = "kcache:n=3,tail=none,dense=0";

fn tiny() -> Arc<LanguageModel> {
    let (heads, kv_heads, head_dim) = (4, 2, 32);
    let (hidden, ffn, dtype) = (128, 128, GgmlDType::Q8_0);
    support::open(&Tiny { layers: 3, hidden, heads, kv_heads, head_dim, ffn, dtype, ..Tiny::default() })
}

fn real() -> Arc<LanguageModel> {
    let path = source::ensure_default(&mut |_| {}, &Default::default()).expect("the default model can be fetched");
    Arc::new(LanguageModel::open(&path, Some(1024)).unwrap())
}

/// A text of some hundred tokens.
fn prompt(model: &LanguageModel) -> Vec<u32> {
    let text = include_str!("../assets/demo/meetings.md").split_whitespace().take(260).collect::<Vec<_>>().join(" ");
    model.tokenizer.encode(&text)
}

fn start(
    model: &Arc<LanguageModel>,
    policy: &str,
    guard: GuardOptions,
    device_budget: Option<u64>,
) -> (Engine, Events) {
    let policy = policy.parse().unwrap();
    let lane = LaneOptions { lane: Lane::KCache, policy, device_budget, host_budget: None };
    let options = EngineOptions { threads: 2, lanes: vec![lane], guard, ..EngineOptions::default() };
    Engine::start(Arc::clone(model), options).unwrap()
}

fn feed(engine: &Engine, session: u32, tokens: &[u32], max_tokens: usize) {
    let (session, tokens) = (SessionId(session), tokens.to_vec());
    let turn = GenerationOptions { max_tokens, ignore_eos: true, ..GenerationOptions::default() };
    engine.ops().send(Request::SubmitTokens { session, prefilled: None, tokens, options: turn, once: false }).unwrap();
}

fn open(engine: &Engine, session: u32) {
    let (session, name) = (SessionId(session), format!("session {session}"));
    engine.ops().send(Request::Open { session, name, system: None, lanes: vec![Lane::KCache] }).unwrap();
}

/// Stops the engine, which must leave nothing behind, and returns what was left to read.
fn stop(engine: Engine, events: &Events) -> Vec<Event> {
    drop(engine);
    let rest: Vec<Event> = std::iter::from_fn(|| events.recv()).collect();
    assert_eq!(rest.last().map(|event| &event.kind), Some(&EventKind::Stopped { error: None }));
    for event in &rest {
        assert!(!matches!(event.kind, EventKind::Error { .. }), "{event:?}");
    }
    let ledger = rest.iter().rev().find_map(|event| match &event.kind {
        EventKind::Ledger(ledger) => Some(*ledger),
        _ => None,
    });
    let ledger = ledger.expect("an engine that stops tells its ledger");
    assert_eq!((ledger.device.cache(), ledger.host.cache()), (ledger.device.workspace, 0));
    rest
}

fn tokens(events: &[Event], session: u32) -> Vec<&Token> {
    let token = |event: &'_ Event| matches!(&event.kind, EventKind::Token(token) if token.session.0 == session);
    let tokens = events.iter().filter(|event| token(event)).filter_map(|event| match &event.kind {
        EventKind::Token(token) => Some(token),
        _ => None,
    });
    let tokens: Vec<&Token> = tokens.collect();
    assert!(tokens.iter().enumerate().all(|(at, token)| token.index == at), "no token is lost or told twice");
    tokens
}

fn ids(tokens: &[&Token]) -> Vec<u32> {
    tokens.iter().map(|token| token.token_id).collect()
}

fn guards(events: &[Event]) -> Vec<&Guarded> {
    let guard = |event| match event {
        &Event { kind: EventKind::Guard(ref guarded), .. } => Some(guarded),
        _ => None,
    };
    events.iter().filter_map(guard).collect()
}

fn probes(events: &[Event]) -> Vec<Probe> {
    let probe = |event: &Event| match event.kind {
        EventKind::Probe(probe) => Some(probe),
        _ => None,
    };
    events.iter().filter_map(probe).collect()
}

/// Says the answer's tokens again, step by step: the logits after each, read as `reading` says for the token's step.
fn say_again(
    model: &LanguageModel,
    policy: Policy,
    prompt: &[u32],
    said: &[&Token],
    reading: impl Fn(&Token) -> Policy,
) -> Vec<Vec<f32>> {
    let (pool, mut forward) = (Pool::new(2), Forward::new());
    let mut lane = LaneCache::new(model.cache_shape(), policy, None, None);
    let mut hits = HitCounts::new(model.shape.layers);
    let mut cache = lane.open().unwrap();
    lane.grow(&mut cache, prompt.len() + said.len()).unwrap();
    let mut pass = |tokens: &[u32], reading| {
        let (copies, logits) = (Vec::new(), LogitRows::Last);
        forward.run(model, &pool, &mut [BatchItem { tokens, cache: &mut cache, copies, reading, logits }], &mut hits);
        forward.logits().to_vec()
    };
    let mut found = vec![pass(prompt, Reading::Exact)];
    for pair in said.windows(2) {
        found.push(pass(&[pair[0].token_id], Reading::Policy(reading(pair[1]))));
    }
    found
}

fn argmax(logits: &[f32]) -> u32 {
    let first = (0, f32::NEG_INFINITY);
    logits.iter().enumerate().fold(first, |best, (id, &value)| if value > best.1 { (id, value) } else { best }).0 as u32
}

#[test]
fn probes_change_nothing_and_come_at_their_positions() {
    let model = tiny();
    let prompts: BTreeMap<u32, Vec<u32>> = (1..5).map(|session| (session, (10..10 + 40 * session).collect())).collect();
    let run = |every, sessions: &[u32]| {
        let guard = GuardOptions { probe_every: every, ..GuardOptions::OFF };
        let (engine, events) = start(&model, "kcache:n=8,dense=1", guard, None);
        sessions.iter().for_each(|&session| open(&engine, session));
        sessions.iter().for_each(|&session| feed(&engine, session, &prompts[&session], 40));
        let read = until_finished(&events, sessions.len());
        stop(engine, &events);
        read
    };
    let plain = run(0, &[1, 2, 3, 4]);
    assert_eq!(probes(&plain), []);
    for every in [1, 7] {
        let probed = run(every, &[1, 2, 3, 4]);
        for session in 1..5 {
            assert_eq!(ids(&tokens(&probed, session)), ids(&tokens(&plain, session)), "every {every}");
            let found: Vec<Probe> = probes(&probed).into_iter().filter(|probe| probe.session.0 == session).collect();
            // The first token comes from the prompt; the last one is never read.
            let positions: Vec<usize> = found.iter().map(|probe| probe.position).collect();
            let first = prompts[&session].len();
            assert_eq!(positions, (first..first + 39).filter(|at| at % every == 0).collect::<Vec<_>>());
            assert!(found.iter().all(|probe| probe.kl >= 0.0 && probe.kept_mass.is_some() && !probe.full));
            assert!(found.iter().any(|probe| probe.kl > 1e-3), "eight rows of a random model are not all");
            // A sequence finds the same alone.
            let alone: Vec<_> =
                probes(&run(every, &[session])).iter().map(|probe| (probe.position, probe.kl)).collect();
            assert_eq!(alone, found.iter().map(|probe| (probe.position, probe.kl)).collect::<Vec<_>>());
        }
        let counted: usize = probed
            .iter()
            .map(|event| match &event.kind {
                EventKind::Step(step) => step.probes,
                _ => 0,
            })
            .sum();
        assert_eq!(counted, probes(&probed).len());
    }
}

#[test]
fn a_lane_that_probes_books_the_rows_for_it() {
    let model = tiny();
    let workspace = |every| {
        let guard = GuardOptions { probe_every: every, ..GuardOptions::OFF };
        let (engine, events) = start(&model, POOR, guard, None);
        let ledger = std::iter::from_fn(|| events.recv()).find_map(|event| match event.kind {
            EventKind::Ledger(ledger) => Some(ledger.device.workspace),
            _ => None,
        });
        drop(engine);
        ledger.unwrap()
    };
    // Of sixteen sequences, the logits alone.
    assert!(workspace(16) - workspace(0) > 16 * 4 * model.shape.vocab as u64);
}

#[test]
fn a_probe_tells_the_kl_to_exact_attention_over_the_same_cache() {
    let model = real();
    let prompt = prompt(&model);
    let guard = GuardOptions { probe_every: 5, ..GuardOptions::OFF };
    let policy = "kcache:n=24,tail=mean,dense=1";
    let (engine, events) = start(&model, policy, guard, None);
    open(&engine, 1);
    feed(&engine, 1, &prompt, 24);
    let read = until_finished(&events, 1);
    stop(engine, &events);
    let (said, found) = (tokens(&read, 1), probes(&read));
    assert_eq!(found.len(), (prompt.len()..prompt.len() + 23).filter(|at| at % 5 == 0).count());
    let policy: Policy = policy.parse().unwrap();
    for probe in found {
        // The same answer up to there, and once more with exact attention from the same cache.
        let upto = probe.position - prompt.len() + 2;
        let by_policy = say_again(&model, policy, &prompt, &said[..upto], |_| policy);
        let last = said[upto - 1].step;
        let exact =
            say_again(
                &model,
                policy,
                &prompt,
                &said[..upto],
                |token| {
                    if token.step == last { Policy::Kv } else { policy }
                },
            );
        let (exact, by_policy) = (exact.last().unwrap(), by_policy.last().unwrap());
        assert_eq!((probe.kl, probe.agree), compare_logits(exact, by_policy, &mut Vec::new()));
        assert_eq!(probe.step, last);
    }
}

#[test]
fn a_poor_policy_is_rolled_back_and_exact_attention_goes_on() {
    let model = real();
    let prompt = prompt(&model);
    let policy: Policy = POOR.parse().unwrap();
    let guard =
        GuardOptions { mode: GuardMode::Rollback, probe_every: 4, kl: 0.25, kept_mass: 0.0, window: 12, back: 0 };
    let shape = model.cache_shape();
    // V of one page is not that of all.
    let (_, v) = LaneCache::new(shape, policy, None, None).resident_block();
    let pages = (prompt.len() + 60).div_ceil(64) as u64;
    let mut texts = Vec::new();
    for roomy in [true, false] {
        let (engine, events) = start(&model, POOR, guard, None);
        if !roomy {
            let (workspace, resident) =
                (workspace(&events), LaneCache::new(shape, policy, None, None).resident_block().0);
            let bytes = Some(workspace + shape.sum_bytes() + pages * resident + v);
            engine.ops().send(Request::SetBudget { lane: Lane::KCache, bytes }).unwrap();
        }
        open(&engine, 1);
        feed(&engine, 1, &prompt, 60);
        let read = until_finished(&events, 1);
        let said = tokens(&read, 1);
        assert_eq!(said.len(), 60);
        let [fired] = guards(&read)[..] else { panic!("{:?}", guards(&read)) };
        assert_eq!((fired.state, fired.v_on_device), (GuardState::Full, roomy));
        assert!(fired.reason.contains("bound 0.25") && fired.kl.unwrap() > 0.25, "{}", fired.reason);
        let last = said.last().unwrap().step;
        assert!(fired.step < last - 20, "it fires early enough to see what follows");
        // Every token is the one that its way of reading says.
        let logits =
            say_again(
                &model,
                policy,
                &prompt,
                &said,
                |token| {
                    if token.step > fired.step { Policy::Kv } else { policy }
                },
            );
        assert_eq!(logits.iter().map(|logits| argmax(logits)).collect::<Vec<_>>(), ids(&said));
        // From then on the policy is asked beside it.
        assert!(probes(&read).iter().all(|probe| probe.full == (probe.step > fired.step)));
        assert!(probes(&read).iter().all(|probe| probe.kept_mass.is_some()));
        // The account says where V is, and the steps from where it was read.
        for event in &read {
            match &event.kind {
                EventKind::Ledger(ledger) if ledger.step > fired.step => {
                    assert_eq!(ledger.host.v == 0, roomy, "{ledger:?}");
                    assert_eq!(ledger.device.v > 0, roomy);
                }
                EventKind::Step(step) if step.step > fired.step => assert_eq!(step.host_v_read_bytes == 0, roomy),
                _ => {}
            }
        }
        texts.push(ids(&said));
        stop(engine, &events);
    }
    assert_eq!(texts[0], texts[1], "where V lies changes nothing");
}

/// Bytes of the buffers of the step, from the first ledger.
fn workspace(events: &Events) -> u64 {
    std::iter::from_fn(|| events.recv())
        .find_map(|event| match event.kind {
            EventKind::Ledger(ledger) => Some(ledger.device.workspace),
            _ => None,
        })
        .unwrap()
}

#[test]
fn a_good_policy_is_left_alone_and_a_warning_changes_nothing() {
    let model = real();
    let prompt = prompt(&model);
    let run = |policy: &str, mode| {
        let guard = GuardOptions { mode, probe_every: 4, window: 12, ..GuardOptions::OFF };
        let (engine, events) = start(&model, policy, guard, None);
        open(&engine, 1);
        feed(&engine, 1, &prompt, 40);
        let read = until_finished(&events, 1);
        stop(engine, &events);
        read
    };
    let good = run("kcache:n=128", GuardMode::Rollback);
    assert_eq!(guards(&good), Vec::<&Guarded>::new());
    assert!(probes(&good).len() >= 9);

    let (warned, off) = (run(POOR, GuardMode::Warn), run(POOR, GuardMode::Off));
    assert_eq!(guards(&warned)[0].state, GuardState::Warned);
    assert!(guards(&warned).iter().all(|guarded| guarded.state != GuardState::Full));
    assert_eq!(guards(&off), Vec::<&Guarded>::new());
    assert_eq!(ids(&tokens(&warned, 1)), ids(&tokens(&off, 1)));
}

#[test]
fn an_answer_shorter_than_a_window_is_judged_and_what_is_known_outlasts_it() {
    let model = tiny();
    let guard = GuardOptions { mode: GuardMode::Warn, probe_every: 16, kept_mass: 0.99, ..GuardOptions::OFF };
    let prompt: Vec<u32> = (10..110).collect();
    let (engine, events) = start(&model, POOR, guard, None);
    // As a load asks: one answer, as long as the window, then the session is closed. The first token of an answer comes
    // from its prompt.
    open(&engine, 1);
    let turn = GenerationOptions { max_tokens: guard.window, ignore_eos: true, ..GenerationOptions::default() };
    let (session, tokens) = (SessionId(1), prompt.clone());
    engine.ops().send(Request::SubmitTokens { session, prefilled: None, tokens, options: turn, once: true }).unwrap();
    let read = until_finished(&events, 1);
    let [warned] = guards(&read)[..] else { panic!("{:?}", guards(&read)) };
    assert_eq!(warned.state, GuardState::Warned);
    assert!(warned.reason.ends_with("over 16 tokens"), "{}", warned.reason);
    // Two answers of one session, none as long as a quarter of a window.
    open(&engine, 2);
    feed(&engine, 2, &prompt, 10);
    assert_eq!(guards(&until_finished(&events, 1)), Vec::<&Guarded>::new());
    feed(&engine, 2, &[7], 10);
    assert_eq!(guards(&until_finished(&events, 1)).len(), 1);
    feed(&engine, 2, &[7], 10);
    assert_eq!(guards(&until_finished(&events, 1)), Vec::<&Guarded>::new(), "it is warned of already");
    stop(engine, &events);

    let guard =
        GuardOptions { mode: GuardMode::Rollback, probe_every: 1, kl: 1e-9, kept_mass: 0.0, window: 4, back: 0 };
    let (engine, events) = start(&model, POOR, guard, None);
    open(&engine, 1);
    feed(&engine, 1, &prompt, 8);
    assert_eq!(guards(&until_finished(&events, 1))[0].state, GuardState::Full);
    feed(&engine, 1, &[7], 8);
    let read = until_finished(&events, 1);
    assert_eq!((guards(&read).len(), probes(&read).iter().all(|probe| probe.full)), (0, true));
    stop(engine, &events);
}

#[test]
fn knobs_have_the_guard_begin_anew() {
    let model = tiny();
    let guard =
        GuardOptions { mode: GuardMode::Rollback, probe_every: 1, kl: 1e-9, kept_mass: 0.0, window: 2, back: 0 };
    let (engine, events) = start(&model, POOR, guard, None);
    open(&engine, 1);
    let prompt: Vec<u32> = (10..110).collect();
    feed(&engine, 1, &prompt, 12);
    let read = until_finished(&events, 1);
    assert_eq!(guards(&read).len(), 1);
    let policy = "kcache:n=4,tail=none,dense=0".parse().unwrap();
    engine.ops().send(Request::SetPolicy { lane: Lane::KCache, policy }).unwrap();
    feed(&engine, 1, &[7], 12);
    let read = until_finished(&events, 1);
    let states: Vec<GuardState> = guards(&read).iter().map(|guarded| guarded.state).collect();
    assert_eq!(states, [GuardState::TopN, GuardState::Full]);
    assert!(guards(&read)[0].reason.contains("n=4"));
    engine.ops().send(Request::SetGuard { lane: Lane::KCache, mode: GuardMode::Warn }).unwrap();
    feed(&engine, 1, &[8], 12);
    let read = until_finished(&events, 1);
    let states: Vec<GuardState> = guards(&read).iter().map(|guarded| guarded.state).collect();
    assert_eq!(states, [GuardState::TopN, GuardState::Warned]);
    assert!(read.iter().any(|event| matches!(&event.kind, EventKind::Knob { change, .. } if change == "guard=warn")));
    stop(engine, &events);
}

#[test]
fn what_a_guard_took_is_given_back_before_anybody_is_set_back() {
    let model = tiny();
    let policy: Policy = POOR.parse().unwrap();
    let guard =
        GuardOptions { mode: GuardMode::Rollback, probe_every: 1, kl: 1e-9, kept_mass: 0.0, window: 2, back: 0 };
    let (engine, events) = start(&model, POOR, guard, None);
    let shape = model.cache_shape();
    let (block, v) = LaneCache::new(shape, policy, None, None).resident_block();
    // Three sequences of three pages, and V of one more than one of them.
    let bytes = workspace(&events) + 3 * (shape.sum_bytes() + 3 * block) + 3 * v;
    engine.ops().send(Request::SetBudget { lane: Lane::KCache, bytes: Some(bytes) }).unwrap();
    for session in 1..4 {
        open(&engine, session);
        let prompt: Vec<u32> = (10 * session..10 * session + 100).collect();
        feed(&engine, session, &prompt, 60);
    }
    let read = until_finished(&events, 3);
    assert_eq!(guards(&read).len(), 3);
    assert!(guards(&read).iter().any(|guarded| guarded.v_on_device));
    for event in &read {
        if let EventKind::Queue(queue) = &event.kind {
            assert_eq!(queue.preemptions, 0);
        }
    }
    assert!((1..4).all(|session| tokens(&read, session).len() == 60));
    stop(engine, &events);
}

#[test]
fn a_session_may_return_and_every_token_is_as_its_guard_says() {
    let model = tiny();
    let text = "kcache:n=8,tail=mean,dense=0";
    let policy: Policy = text.parse().unwrap();
    let prompt: Vec<u32> = (10..150).collect();
    let run = |guard| {
        let (engine, events) = start(&model, text, guard, None);
        open(&engine, 1);
        feed(&engine, 1, &prompt, 80);
        let read = until_finished(&events, 1);
        stop(engine, &events);
        read
    };
    // A bound that half of the tokens are past, and no patience: the guard changes its mind many times.
    let off = GuardOptions { probe_every: 1, ..GuardOptions::OFF };
    let mut found: Vec<f64> = probes(&run(off)).iter().map(|probe| probe.kl).collect();
    found.sort_by(f64::total_cmp);
    let kl = found[found.len() / 2];
    let read = run(GuardOptions { mode: GuardMode::Rollback, kl, kept_mass: 0.0, window: 1, back: 1, ..off });
    let changes: Vec<(u64, GuardState)> = guards(&read).iter().map(|guarded| (guarded.step, guarded.state)).collect();
    assert!(changes.iter().any(|(_, state)| *state == GuardState::TopN), "it returns: {changes:?}");
    for (at, (_, state)) in changes.iter().enumerate() {
        assert_eq!(*state, if at % 2 == 0 { GuardState::Full } else { GuardState::TopN });
    }
    let said = tokens(&read, 1);
    let logits = say_again(&model, policy, &prompt, &said, |token| {
        match changes.iter().rev().find(|(step, _)| token.step > *step) {
            Some((_, GuardState::Full)) => Policy::Kv,
            _ => policy,
        }
    });
    assert_eq!(logits.iter().map(|logits| argmax(logits)).collect::<Vec<_>>(), ids(&said));
}
