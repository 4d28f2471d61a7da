//! Compare mode: both lanes are fed the same tokens, and what is said about them is what an evaluation says.

#[path = "support/events.rs"]
mod events;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    sync::Arc,
};

use candle_core::quantized::GgmlDType;
use events::{until, until_finished};
use kcache::{
    cache::Policy,
    engine::{
        Compare, Engine, EngineOptions, Event, EventKind, Events, FinishReason, GenerationOptions, Lane, LaneOptions,
        Priority, Request, Sampling, SessionId,
    },
    kernels::Pool,
    model::LanguageModel,
    quality::{EvalOptions, evaluate},
};
use support::tiny::Tiny;

const POOR: &str = "kcache:n=8,tail=none,dense=0";

fn model(context: usize) -> Arc<LanguageModel> {
    let (hidden, ffn, dtype) = (128, 128, GgmlDType::Q8_0);
    support::open(&Tiny {
        layers: 3,
        hidden,
        heads: 4,
        kv_heads: 2,
        head_dim: 32,
        ffn,
        context,
        dtype,
        endless: true,
        ..Tiny::default()
    })
}

fn start(model: &Arc<LanguageModel>, policy: &str, budget: Option<u64>) -> (Engine, Events) {
    let lane = |lane, policy: &str| LaneOptions {
        lane,
        policy: policy.parse().unwrap(),
        device_budget: budget,
        host_budget: None,
    };
    let lanes = vec![lane(Lane::KCache, policy), lane(Lane::Kv, "kv")];
    let options = EngineOptions { threads: 2, prefill_chunk: 32, lanes, ..EngineOptions::default() };
    Engine::start(Arc::clone(model), options).unwrap()
}

fn send(engine: &Engine, op: Request) {
    engine.ops().send(op).unwrap();
}

fn open(engine: &Engine, session: u32, lanes: &[Lane], compare: bool) {
    let (session, lanes) = (SessionId(session), lanes.to_vec());
    send(engine, Request::Open { session, name: "compared".into(), system: None, lanes });
    if compare {
        send(engine, Request::Compare { session, on: true });
    }
}

fn turn(max_tokens: usize) -> GenerationOptions {
    GenerationOptions { max_tokens, ignore_eos: true, ..GenerationOptions::default() }
}

fn feed(engine: &Engine, session: u32, tokens: &[u32], turn: GenerationOptions) {
    let (session, tokens) = (SessionId(session), tokens.to_vec());
    send(engine, Request::SubmitTokens { session, prefilled: None, tokens, options: turn, once: false });
}

/// Ordinary tokens, others for every seed.
fn tokens(seed: u32, count: usize) -> Vec<u32> {
    (0..count as u32).map(|at| 3 + (seed * 7919 + at * at * 31 + at * 17) % 256).collect()
}

fn compared(events: &[Event]) -> Vec<Compare> {
    let compare = |event: &Event| match &event.kind {
        EventKind::Compare(compare) => Some(compare.clone()),
        _ => None,
    };
    events.iter().filter_map(compare).collect()
}

/// The last answer of each lane of a session.
fn answers(events: &[Event], session: u32) -> BTreeMap<Lane, Vec<u32>> {
    let mut answers: BTreeMap<Lane, Vec<u32>> = BTreeMap::new();
    for event in events {
        if let EventKind::Token(token) = &event.kind
            && token.session == SessionId(session)
        {
            let answer = answers.entry(token.lane).or_default();
            if token.index == 0 {
                answer.clear();
            }
            assert_eq!(answer.len(), token.index, "no token is lost or told twice");
            answer.push(token.token_id);
        }
    }
    answers
}

fn unlocked(events: &[Event]) -> Vec<(SessionId, usize, String)> {
    let unlocked = |event: &Event| match &event.kind {
        EventKind::Unlocked { session, index, reason } => Some((*session, *index, reason.clone())),
        _ => None,
    };
    events.iter().filter_map(unlocked).collect()
}

fn reasons(events: &[Event]) -> BTreeSet<(SessionId, Lane, String)> {
    let finished = |event: &Event| match &event.kind {
        EventKind::Finished(end) => Some((end.session, end.lane, end.reason.to_string())),
        _ => None,
    };
    events.iter().filter_map(finished).collect()
}

/// Stops the engine: it reports an error where its books do not agree.
fn stop(engine: Engine, events: &Events) {
    drop(engine);
    let rest: Vec<Event> = std::iter::from_fn(|| events.recv()).collect();
    let error = rest.iter().find(|event| matches!(event.kind, EventKind::Error { .. }));
    assert_eq!(error, None);
    assert_eq!(rest.last().map(|event| &event.kind), Some(&EventKind::Stopped { error: None }));
}

#[test]
fn a_policy_that_reads_every_row_predicts_the_same() {
    let model = model(512);
    let (engine, events) = start(&model, "kcache:n=512,dense=0", None);
    open(&engine, 1, &Lane::ALL, true);
    feed(&engine, 1, &tokens(1, 90), turn(40));
    let read = until_finished(&events, 2);
    let found = compared(&read);
    assert_eq!(found.iter().map(|each| each.index).collect::<Vec<_>>(), (0..40).collect::<Vec<_>>());
    assert!(found.iter().all(|each| each.kl == 0.0 && each.same && each.otherwise.is_none()), "{found:?}");
    let answers = answers(&read, 1);
    assert_eq!(answers[&Lane::KCache], answers[&Lane::Kv]);
    assert_eq!(answers[&Lane::Kv], found.iter().map(|each| each.token_id).collect::<Vec<_>>());
    stop(engine, &events);
}

#[test]
fn a_poor_policy_is_told_apart_as_an_evaluation_does() {
    let model = model(512);
    let (engine, events) = start(&model, POOR, None);
    let (context, count) = (100, 65);
    let prompt = tokens(2, context);
    open(&engine, 1, &Lane::ALL, true);
    feed(&engine, 1, &prompt, turn(count));
    let read = until_finished(&events, 2);
    stop(engine, &events);
    let found = compared(&read);
    assert_eq!(found.len(), count);
    let answers = answers(&read, 1);
    assert_eq!(answers[&Lane::KCache], answers[&Lane::Kv], "both lanes are given the same");

    // The first token comes of the prompt, which is read exactly; the others are the evaluation's.
    assert_eq!((found[0].kl, found[0].same), (0.0, true));
    let text: Vec<u32> = prompt.iter().chain(&answers[&Lane::Kv]).copied().collect();
    let policies = vec![(POOR.to_owned(), POOR.parse::<Policy>().unwrap())];
    let options = EvalOptions { context, tokens: count - 1, policies, exact: false };
    let evaluation =
        evaluate(&model, &Pool::new(2), &text, &options, &mut |_| ControlFlow::Continue(())).expect("it runs");
    let scores = &evaluation.scores[0].tokens;
    for (live, score) in found[1..].iter().zip(scores) {
        assert!((live.kl - score.kl).abs() <= 1e-9 * score.kl.max(1.0), "{live:?} against {score:?}");
        assert_eq!(live.same, score.same);
        assert_eq!(live.otherwise.is_none(), live.same, "greedy, so the choice is the likeliest");
    }
    assert!(found.iter().any(|each| each.kl > 0.01) && found.iter().any(|each| !each.same), "{found:?}");
}

#[test]
fn what_was_said_apart_is_taken_over_and_a_switch_acts_at_once() {
    let model = model(2048);
    let (engine, events) = start(&model, POOR, None);
    open(&engine, 1, &Lane::ALL, false);
    feed(&engine, 1, &tokens(3, 80), turn(40));
    let apart = answers(&until_finished(&events, 2), 1);
    assert_ne!(apart[&Lane::KCache], apart[&Lane::Kv], "a poor policy says something else");

    send(&engine, Request::Compare { session: SessionId(1), on: true });
    feed(&engine, 1, &tokens(4, 10), turn(20));
    let read = until_finished(&events, 2);
    let found = compared(&read);
    // The lanes hold the same, one computed token by token, the other again as a prompt: other roundings.
    assert!(found.len() == 20 && found[0].kl < 0.01, "{found:?}");
    assert_eq!(unlocked(&read), []);

    // Drawn tokens: the same draw from both predictions.
    let sampling = Sampling { temperature: 0.8, seed: 5, ..Sampling::default() };
    feed(&engine, 1, &tokens(5, 10), GenerationOptions { sampling, ..turn(1500) });
    let mut read = until(&events, |kind| matches!(kind, EventKind::Compare(each) if each.index == 5));
    send(&engine, Request::Compare { session: SessionId(1), on: false });
    read.extend(until(&events, |kind| matches!(kind, EventKind::Unlocked { .. })));
    send(&engine, Request::Stop { session: SessionId(1), lane: None });
    read.extend(until_finished(&events, 2));
    let at = unlocked(&read)[0].1;
    assert_eq!(compared(&read).len(), at, "compared up to the switch");
    let answers = answers(&read, 1);
    assert_eq!(answers[&Lane::KCache][..at], answers[&Lane::Kv][..at]);
    stop(engine, &events);
}

#[test]
fn an_end_in_one_lane_lets_the_other_go_on() {
    let model = model(2048);
    let (engine, events) = start(&model, POOR, None);
    open(&engine, 1, &Lane::ALL, true);
    feed(&engine, 1, &tokens(6, 70), turn(1500));
    let mut read = until(&events, |kind| matches!(kind, EventKind::Compare(each) if each.index == 8));
    send(&engine, Request::Stop { session: SessionId(1), lane: Some(Lane::Kv) });
    read.extend(until(&events, |kind| matches!(kind, EventKind::Unlocked { .. })));
    let further = unlocked(&read)[0].1 + 12;
    read.extend(until(&events, |kind| matches!(kind, EventKind::Token(token) if token.index == further)));
    send(&engine, Request::Close { session: SessionId(1) });
    read.extend(until(&events, |kind| matches!(kind, EventKind::Closed { .. })));
    let answers = answers(&read, 1);
    assert!(answers[&Lane::KCache].len() > answers[&Lane::Kv].len());
    let (_, _, reason) = &unlocked(&read)[0];
    assert!(reason.contains("kv") && reason.contains("stopped"), "{reason}");

    // Stopped in both lanes, there is nobody to unlock, and the next turn is locked again.
    open(&engine, 2, &Lane::ALL, true);
    feed(&engine, 2, &tokens(7, 70), turn(1500));
    let mut read = until(&events, |kind| matches!(kind, EventKind::Compare(each) if each.index == 3));
    send(&engine, Request::Stop { session: SessionId(2), lane: None });
    read.extend(until_finished(&events, 2));
    assert_eq!(unlocked(&read), []);
    feed(&engine, 2, &tokens(8, 9), turn(6));
    assert_eq!(compared(&until_finished(&events, 2)).len(), 6);
    stop(engine, &events);
}

#[test]
fn a_session_in_one_lane_cannot_be_compared_and_a_full_context_ends_both() {
    let model = model(256);
    let (engine, events) = start(&model, POOR, None);
    open(&engine, 1, &[Lane::Kv], true);
    let read = until(&events, |kind| matches!(kind, EventKind::Error { .. }));
    let said = read.iter().any(|event| matches!(event.kind, EventKind::CompareMode { .. }));
    assert!(!said, "nothing was switched");
    open(&engine, 2, &Lane::ALL, true);
    feed(&engine, 2, &tokens(9, 200), turn(1000));
    let read = until_finished(&events, 2);
    let full = FinishReason::Context.to_string();
    assert!(reasons(&read).iter().all(|(.., reason)| *reason == full), "{:?}", reasons(&read));
    assert_eq!((unlocked(&read), compared(&read).len()), (vec![], answers(&read, 2)[&Lane::Kv].len()));
    stop(engine, &events);
}

/// The bytes of a block of 64 tokens and of the buffers, in a kv lane.
fn kv_sizes(model: &Arc<LanguageModel>) -> (u64, u64) {
    let (engine, events) = start(model, POOR, None);
    let mut workspace = 0;
    until(&events, |kind| match kind {
        EventKind::Ledger(ledger) if ledger.lane == Lane::Kv => {
            workspace = ledger.device.workspace;
            true
        }
        _ => false,
    });
    drop(engine);
    (model.cache_shape().kv_bytes(64), workspace)
}

#[test]
fn a_pair_that_waits_for_memory_loses_nothing() {
    let model = model(1024);
    let (block, workspace) = kv_sizes(&model);
    // Room for about two of the four in kv, for more in kcache: pairs wait for the lane that has less, and are set back.
    let (engine, events) = start(&model, POOR, Some(workspace + 9 * block));
    for session in 1..=4 {
        open(&engine, session, &Lane::ALL, true);
        feed(&engine, session, &tokens(10 + session, 150), turn(120));
    }
    let read = until_finished(&events, 8);
    for session in 1..=4 {
        let answers = answers(&read, session);
        assert_eq!(answers[&Lane::Kv].len(), 120);
        let of_it: Vec<Compare> =
            compared(&read).into_iter().filter(|each| each.session == SessionId(session)).collect();
        let locked = unlocked(&read).iter().find(|(id, ..)| *id == SessionId(session)).map_or(120, |(_, at, _)| *at);
        assert_eq!(of_it.len(), locked);
        assert_eq!(answers[&Lane::KCache][..locked], answers[&Lane::Kv][..locked]);
    }
    let length = FinishReason::Length.to_string();
    assert!(reasons(&read).iter().all(|(.., reason)| *reason == length), "{:?}", reasons(&read));
    stop(engine, &events);
}

#[test]
fn pairs_that_wait_for_each_other_are_unlocked() {
    let model = model(8192);
    let (block, workspace) = kv_sizes(&model);
    // K and V of 66 blocks: one of two prompts of 60. `kcache` with every layer dense holds as much, and a sum.
    let (engine, events) = start(&model, "kcache:n=8,tail=none,dense=3", Some(workspace + 67 * block));
    let background = |max_tokens| GenerationOptions { priority: Priority::Background, ..turn(max_tokens) };
    // Somebody in kv alone, so that the first pair starts in kcache only, and waits there for its partner.
    open(&engine, 9, &[Lane::Kv], false);
    feed(&engine, 9, &tokens(20, 10 * 64), background(7000));
    until(&events, |kind| matches!(kind, EventKind::Token(_)));
    open(&engine, 1, &Lane::ALL, true);
    feed(&engine, 1, &tokens(21, 60 * 64), background(10));
    until(&events, |kind| match kind {
        EventKind::Prefill { session: SessionId(1), lane: Some(Lane::KCache), done, total, .. } => done == total,
        _ => false,
    });
    // What is typed goes first: it starts in kv, and waits in kcache for the pages of the first.
    open(&engine, 2, &Lane::ALL, true);
    feed(&engine, 2, &tokens(22, 60 * 64), turn(10));
    send(&engine, Request::Stop { session: SessionId(9), lane: None });
    let read = until_finished(&events, 5);
    let unlocked = unlocked(&read);
    assert_eq!(unlocked.len(), 1, "{unlocked:?}");
    assert_eq!(unlocked[0].0, SessionId(1), "the one that goes last");
    let length = FinishReason::Length.to_string();
    let ends = reasons(&read);
    let pairs = ends.iter().filter(|(session, ..)| *session != SessionId(9));
    assert!(pairs.clone().count() == 4 && pairs.clone().all(|(.., reason)| *reason == length), "{ends:?}");
    for session in 1..=2 {
        assert!(answers(&read, session).values().all(|answer| answer.len() == 10));
    }
    assert_eq!(compared(&read).iter().filter(|each| each.session == SessionId(2)).count(), 10);
    stop(engine, &events);
}
