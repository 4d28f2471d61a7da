//! The engine as a library user sees it: ops in, events out.

#[path = "support/events.rs"]
mod events;
mod support;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use candle_core::quantized::GgmlDType;
use events::until_finished;
use kcache::{
    cache::{Format, Knobs, Policy, Select, Tail},
    engine::{
        Document, Engine, EngineOptions, Event, EventKind, Events, FinishReason, Lane, LaneOptions, Ledger, Op,
        Priority, Sampling, SessionId, Turn, Usage,
    },
    model::{LanguageModel, Message, Role, source},
};
use proptest::prelude::*;
use support::tiny::Tiny;

fn model(context: usize) -> Arc<LanguageModel> {
    let (heads, kv_heads, head_dim) = (6, 2, 32);
    let (hidden, ffn, dtype) = (192, 128, GgmlDType::Q8_0);
    support::open(&Tiny { layers: 2, hidden, heads, kv_heads, head_dim, ffn, context, dtype, ..Tiny::default() })
}

fn lane(lane: Lane, policy: &str, device_budget: Option<u64>) -> LaneOptions {
    LaneOptions { lane, policy: policy.parse().unwrap(), device_budget, host_budget: None }
}

fn both_lanes() -> Vec<LaneOptions> {
    vec![lane(Lane::KCache, "kcache:n=16,dense=0,tail=mean", None), lane(Lane::Kv, "kv", None)]
}

/// The same with keys as 8-bit blocks, and the values of the baseline.
fn both_q8_lanes() -> Vec<LaneOptions> {
    vec![lane(Lane::KCache, "kcache:n=16,dense=0,tail=mean,k=q8", None), lane(Lane::Kv, "kv-q8", None)]
}

fn start(model: &Arc<LanguageModel>, lanes: Vec<LaneOptions>) -> (Engine, Events) {
    Engine::start(Arc::clone(model), EngineOptions { threads: 2, prefill_chunk: 32, lanes, ..EngineOptions::default() })
        .unwrap()
}

fn open(session: u32) -> Op {
    let (session, name) = (SessionId(session), format!("session {session}"));
    Op::Open { session, name, system: None, lanes: Lane::ALL.to_vec() }
}

fn say(session: u32, text: &str, max_tokens: usize) -> Op {
    let turn = Turn { max_tokens, ignore_eos: true, ..Turn::default() };
    Op::Say { session: SessionId(session), document: None, text: text.to_owned(), turn }
}

/// The account of every lane once the engine has nothing to do: an idle engine always tells it.
fn ledgers_at_rest(events: &Events) -> BTreeMap<Lane, Ledger> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut ledgers = BTreeMap::new();
    while ledgers.len() < Lane::ALL.len() {
        let event = events.recv_timeout(deadline - Instant::now()).expect("an engine at rest tells its ledger");
        if let EventKind::Ledger(ledger) = event.kind {
            ledgers.insert(ledger.lane, ledger);
        }
    }
    ledgers
}

/// The token ids of each answer, by session and lane, one list per answer.
fn answers(events: &[Event]) -> BTreeMap<(SessionId, Lane), Vec<u32>> {
    let mut answers: BTreeMap<_, Vec<u32>> = BTreeMap::new();
    for event in events {
        if let EventKind::Token(token) = &event.kind {
            let answer = answers.entry((token.session, token.lane)).or_default();
            assert_eq!(answer.len(), token.index, "no token is lost or told twice");
            answer.push(token.token_id);
        }
    }
    answers
}

#[test]
fn an_earlier_conversation_is_computed_with_the_next_message_each_lane_its_own() {
    let model = model(512);
    let side = |answer: &str| vec![Message::new(Role::User, "hello"), Message::new(Role::Assistant, answer)];
    let sides = [(Lane::KCache, side("the one")), (Lane::Kv, side("another one, and a longer one"))];
    let recall =
        |lane: Lane, messages: &[Message]| Op::Recall { session: SessionId(1), lane, messages: messages.to_vec() };
    let run = |recalled: &[(Lane, Vec<Message>)]| {
        let (engine, events) = start(&model, both_lanes());
        let ops = engine.ops();
        ops.send(open(1)).unwrap();
        recalled.iter().for_each(|(lane, messages)| ops.send(recall(*lane, messages)).unwrap());
        ops.send(say(1, "and now?", 6)).unwrap();
        let read = until_finished(&events, 2);
        // Later it would be the middle.
        ops.send(recall(Lane::Kv, &side("late"))).unwrap();
        let told = std::iter::from_fn(|| events.recv_timeout(Duration::from_secs(60)));
        let refused = told.filter_map(|event| match event.kind {
            EventKind::Error { message, .. } => Some(message),
            _ => None,
        });
        assert!(refused.take(1).next().is_some_and(|message| message.contains("only be the beginning")));
        stop(engine, &events);
        read
    };
    let read = run(&sides);
    for (lane, mut messages) in sides.clone() {
        messages.push(Message::new(Role::User, "and now?"));
        let prompt = model.chat.prompt(&model.tokenizer, &messages).unwrap().len();
        let counted = read.iter().find_map(|event| match &event.kind {
            EventKind::Finished(finished) if finished.lane == lane => Some(finished.usage.prompt_tokens),
            _ => None,
        });
        assert_eq!(counted, Some(prompt), "{lane}");
    }
    // What the other lane remembers changes nothing.
    for (lane, messages) in sides {
        let alike = run(&Lane::ALL.map(|each| (each, messages.clone())));
        let answer = |events: &[Event]| answers(events)[&(SessionId(1), lane)].clone();
        assert_eq!(answer(&read), answer(&alike), "{lane}");
    }
}

fn errors(events: &[Event]) -> Vec<&str> {
    let message = |event: &'_ Event| match &event.kind {
        EventKind::Error { message, .. } => Some(message.clone()),
        _ => None,
    };
    events.iter().filter_map(message).map(|message| &*message.leak()).collect()
}

/// Stops the engine, reads what is left, and makes sure that every page came back and the books agreed.
fn stop(engine: Engine, events: &Events) -> Vec<Event> {
    drop(engine);
    let rest: Vec<Event> = std::iter::from_fn(|| events.recv()).collect();
    assert_eq!(errors(&rest), [""; 0]);
    assert_eq!(rest.last().map(|event| &event.kind), Some(&EventKind::Stopped { error: None }));
    for lane in Lane::ALL {
        let last = rest.iter().rev().find_map(|event| match &event.kind {
            EventKind::Ledger(ledger) if ledger.lane == lane => Some(*ledger),
            _ => None,
        });
        if let Some(ledger) = last {
            assert_eq!((ledger.device.k, ledger.device.v, ledger.device.tail, ledger.host.v), (0, 0, 0, 0));
        }
    }
    rest
}

#[test]
fn a_shared_prompt_is_computed_once_and_both_lanes_answer() {
    let model = model(512);
    let (engine, events) = start(&model, both_lanes());
    let document = Document { name: "notes".into(), text: "the heat in the hall ".repeat(8) };
    engine.ops().send(open(1)).unwrap();
    let turn = Turn { max_tokens: 12, ignore_eos: true, ..Turn::default() };
    let said = Op::Say { session: SessionId(1), document: Some(document), text: "hello".into(), turn };
    engine.ops().send(said).unwrap();
    let read = until_finished(&events, 2);

    assert!(matches!(&read[0].kind, EventKind::Started(started) if started.layers == 2 && started.simulated));
    let mut rows = BTreeMap::new();
    for event in &read {
        if let EventKind::Step(step) = &event.kind {
            *rows.entry(step.lane).or_insert(0) += step.prefill_rows;
            let sum: f64 = step.stages.named().iter().map(|(_, ms)| ms).sum();
            assert!((sum - step.total_ms).abs() < 0.05 + 0.01 * step.total_ms, "stages {sum} of {}", step.total_ms);
        }
    }
    let usage = read.iter().find_map(|event| match &event.kind {
        EventKind::Finished(finished) => Some((finished.usage, finished.reason)),
        _ => None,
    });
    let (usage, reason) = usage.unwrap();
    assert_eq!(reason, FinishReason::Length);
    assert_eq!(usage.completion_tokens, 12);
    assert_eq!(rows.get(&None), Some(&usage.prompt_tokens), "the prompt is computed once");
    assert_eq!(rows.get(&Some(Lane::Kv)), Some(&0));
    let answers = answers(&read);
    assert_eq!(answers.len(), 2);
    let first: Vec<u32> = answers.values().map(|answer| answer[0]).collect();
    assert_eq!(first[0], first[1], "prefill is exact, so the first token is the same");
    stop(engine, &events);
}

#[test]
fn host_and_device_hold_what_the_policy_says() {
    let model = model(512);
    let lanes = vec![lane(Lane::KCache, "kcache:n=16,dense=1", None), lane(Lane::Kv, "kv", None)];
    let (engine, events) = start(&model, lanes);
    engine.ops().send(open(1)).unwrap();
    engine.ops().send(say(1, &"a long hello ".repeat(20), 4)).unwrap();
    until_finished(&events, 2);
    let ledgers = ledgers_at_rest(&events);
    let (kcache, kv) = (ledgers[&Lane::KCache], ledgers[&Lane::Kv]);
    assert_eq!(kcache.tokens, kv.tokens);
    assert_eq!(kv.device.k, kv.device.v);
    assert_eq!((kv.host.v, kv.device.tail), (0, 0));
    assert_eq!(kcache.device.k, kv.device.k);
    // One dense layer of two: half of V on the device, half on the host.
    assert_eq!((kcache.device.v, kcache.host.v), (kv.device.v / 2, kv.device.v / 2));
    assert_eq!(kv.device.k + kv.device.v, kv.ghost_kv_bytes);
    assert_eq!(kcache.ghost_kv_bytes, kv.ghost_kv_bytes);
    assert!(kcache.device.tail > 0);
    stop(engine, &events);
}

#[test]
fn lanes_that_store_otherwise_compute_prompts_of_their_own_and_give_what_they_give_alone() {
    let model = model(512);
    let answer = |lanes: Vec<LaneOptions>| {
        let count = lanes.len();
        let (engine, events) = start(&model, lanes);
        engine.ops().send(open(1)).unwrap();
        engine.ops().send(say(1, &"a long hello in the hall ".repeat(12), 24)).unwrap();
        let read = until_finished(&events, count);
        let mut rows = BTreeMap::new();
        for event in &read {
            if let EventKind::Step(step) = &event.kind {
                *rows.entry(step.lane).or_insert(0) += step.prefill_rows;
            }
        }
        let ledgers = if count == Lane::ALL.len() { ledgers_at_rest(&events) } else { BTreeMap::new() };
        stop(engine, &events);
        (answers(&read), rows, ledgers)
    };
    let (together, rows, ledgers) = answer(both_q8_lanes());
    assert_eq!((rows.get(&None), rows[&Some(Lane::Kv)]), (None, rows[&Some(Lane::KCache)]));
    for lane in both_q8_lanes() {
        let (alone, ..) = answer(vec![lane]);
        for (key, tokens) in alone {
            assert_eq!(together[&key], tokens, "{key:?}");
        }
    }
    let (kcache, kv) = (ledgers[&Lane::KCache], ledgers[&Lane::Kv]);
    assert_eq!((kv.device.k * 64, kv.device.k), (kv.ghost_kv_bytes / 2 * 34, kv.device.v));
    assert_eq!((kcache.device.k * 64, kcache.host.v), (kcache.ghost_kv_bytes / 2 * 34, kcache.ghost_kv_bytes / 2));
}

#[test]
fn follow_up_turns_reuse_the_pages() {
    let model = model(512);
    let (engine, events) = start(&model, both_lanes());
    engine.ops().send(open(1)).unwrap();
    engine.ops().send(say(1, "hello in the hall", 6)).unwrap();
    let usages = |events: &[Event]| -> Vec<Usage> {
        let usage = |event: &Event| match &event.kind {
            EventKind::Finished(finished) => Some(finished.usage),
            _ => None,
        };
        events.iter().filter_map(usage).collect()
    };
    let first = usages(&until_finished(&events, 2));
    engine.ops().send(say(1, "and then", 6)).unwrap();
    let second = usages(&until_finished(&events, 2));
    let short = model.tokenizer.encode("and then").len();
    for (first, second) in first.iter().zip(&second) {
        // All but the token chosen last, which nobody has read yet.
        assert_eq!(second.reused_tokens, first.prompt_tokens + first.completion_tokens - 1);
        // The message with the control tokens and role names around it, and that token.
        assert!(second.prompt_tokens < short + 40, "{second:?}");
    }
    stop(engine, &events);
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_gives_another() {
    let model = model(256);
    let (engine, events) = start(&model, vec![lane(Lane::Kv, "kv", None)]);
    let mut texts = Vec::new();
    for (session, seed) in [(1, 5), (2, 5), (3, 6)] {
        engine.ops().send(open(session)).unwrap();
        let sampling = Sampling { temperature: 1.0, top_k: Some(50), top_p: Some(0.95), seed, ..Sampling::default() };
        let turn = Turn { sampling, max_tokens: 24, ignore_eos: true, ..Turn::default() };
        let said = Op::Say { session: SessionId(session), document: None, text: "hello".into(), turn };
        engine.ops().send(said).unwrap();
        texts.push(answers(&until_finished(&events, 1)).into_values().next().unwrap());
    }
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
    stop(engine, &events);
}

#[test]
fn stopping_one_answer_does_not_touch_the_others() {
    let model = model(512);
    let alone = {
        let (engine, events) = start(&model, both_lanes());
        engine.ops().send(open(2)).unwrap();
        engine.ops().send(say(2, "the others in the hall", 40)).unwrap();
        let read = until_finished(&events, 2);
        stop(engine, &events);
        answers(&read)
    };
    let (engine, events) = start(&model, both_lanes());
    for session in 1..=3 {
        engine.ops().send(open(session)).unwrap();
    }
    engine.ops().send(say(1, &"wait on the heat ".repeat(12), 200)).unwrap();
    engine.ops().send(say(2, "the others in the hall", 40)).unwrap();
    engine.ops().send(say(3, "to be stopped in one lane", 200)).unwrap();
    let mut read = Vec::new();
    while answers(&read).get(&(SessionId(3), Lane::Kv)).is_none_or(|answer| answer.len() < 5) {
        read.push(events.recv_timeout(Duration::from_secs(60)).expect("tokens come"));
    }
    engine.ops().send(Op::Stop { session: SessionId(3), lane: Some(Lane::Kv) }).unwrap();
    engine.ops().send(Op::Stop { session: SessionId(1), lane: None }).unwrap();
    read.extend(until_finished(&events, 6));
    let reasons: Vec<_> = read
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Finished(finished) => Some(((finished.session.0, finished.lane), finished.reason)),
            _ => None,
        })
        .collect();
    assert!(reasons.contains(&((3, Lane::Kv), FinishReason::Cancelled)));
    assert!(reasons.contains(&((3, Lane::KCache), FinishReason::Length)));
    let found = answers(&read);
    for (key, tokens) in &alone {
        assert_eq!(&found[key], tokens, "{key:?}");
    }
    stop(engine, &events);
}

#[test]
fn what_is_typed_goes_before_what_the_program_asked() {
    let model = model(512);
    let (engine, events) = start(&model, both_lanes());
    let ask = |session: u32, text: String, max_tokens, priority| {
        let turn = Turn { max_tokens, ignore_eos: true, priority, ..Turn::default() };
        let said = Op::Say { session: SessionId(session), document: None, text, turn };
        engine.ops().send(open(session)).unwrap();
        engine.ops().send(said).unwrap();
    };
    ask(1, "the long demo in the hall ".repeat(14), 5, Priority::Background);
    ask(2, "hello".into(), 60, Priority::Typed);
    let read = until_finished(&events, 4);
    let first = |session| {
        let of = |event: &Event| matches!(&event.kind, EventKind::Token(token) if token.session == SessionId(session));
        read.iter().position(of).unwrap()
    };
    let typed_ends = read
        .iter()
        .rposition(|event| matches!(&event.kind, EventKind::Finished(finished) if finished.session == SessionId(2)));
    assert!(first(2) < first(1), "the typed answer begins first");
    assert!(typed_ends.unwrap() < first(1), "and is not interrupted by the other's prompt");
    stop(engine, &events);
}

#[test]
fn a_full_context_ends_the_turn_and_loses_nothing() {
    let model = model(96);
    let (engine, events) = start(&model, both_lanes());
    engine.ops().send(open(1)).unwrap();
    engine.ops().send(say(1, "hello", 500)).unwrap();
    let read = until_finished(&events, 2);
    for event in &read {
        if let EventKind::Finished(finished) = &event.kind {
            assert_eq!(finished.reason, FinishReason::Context);
            assert!(finished.usage.completion_tokens > 10);
        }
    }
    engine.ops().send(say(1, "more", 5)).unwrap();
    let refused = events.recv_timeout(Duration::from_secs(10)).map(|event| event.kind);
    let mut kinds = vec![refused];
    while let Some(event) = events.recv_timeout(Duration::from_millis(200)) {
        kinds.push(Some(event.kind));
    }
    let refused = kinds.iter().flatten().find_map(|kind| match kind {
        EventKind::Error { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert!(refused.is_some_and(|message| message.contains("context's 96")));
    stop(engine, &events);
}

#[test]
fn a_full_budget_ends_the_lane_that_has_it_and_not_the_other() {
    let model = model(512);
    let page = model.cache_shape().page_bytes(Format::F16);
    // The buffers of the step, the sums, and K and V of two pages in two layers.
    let probe = start(&model, both_lanes());
    let workspace = probe.1.recv().and_then(|_| probe.1.recv()).map(|event| match event.kind {
        EventKind::Ledger(ledger) => ledger.device.workspace,
        other => panic!("a ledger follows the start, not {other:?}"),
    });
    stop(probe.0, &probe.1);
    let budget = workspace.unwrap() + 2 * 2 * 2 * page + page;
    let lanes = vec![lane(Lane::KCache, "kcache:n=16,dense=0", Some(budget)), lane(Lane::Kv, "kv", Some(budget))];
    let (engine, events) = start(&model, lanes);
    engine.ops().send(open(1)).unwrap();
    engine.ops().send(say(1, "hello", 150)).unwrap();
    let read = until_finished(&events, 2);
    let reason = |lane| {
        read.iter().find_map(|event| match &event.kind {
            EventKind::Finished(finished) if finished.lane == lane => Some(finished.reason),
            _ => None,
        })
    };
    assert_eq!(reason(Lane::Kv), Some(FinishReason::Budget), "an ordinary cache fills its two pages");
    assert_eq!(reason(Lane::KCache), Some(FinishReason::Length), "half of the bytes are on the host");
    for event in &read {
        if let EventKind::Ledger(ledger) = &event.kind {
            assert!(ledger.device.cache() <= budget);
        }
    }
    stop(engine, &events);
}

#[test]
fn mistakes_are_answered_and_change_nothing() {
    let model = model(256);
    let (engine, events) = start(&model, both_lanes());
    let ops = engine.ops();
    ops.send(say(9, "hello", 5)).unwrap();
    ops.send(open(1)).unwrap();
    ops.send(open(1)).unwrap();
    ops.send(say(1, "hello", 60)).unwrap();
    ops.send(say(1, "again", 5)).unwrap();
    ops.send(Op::SetPolicy { lane: Lane::Kv, policy: Policy::KCache(Knobs::default()) }).unwrap();
    ops.send(Op::SetPolicy { lane: Lane::Kv, policy: Policy::KvQ8 }).unwrap();
    let other_keys = Policy::KCache(Knobs { k: Format::Q8, ..Knobs::default() });
    ops.send(Op::SetPolicy { lane: Lane::KCache, policy: other_keys }).unwrap();
    let read = until_finished(&events, 2);
    let errors = errors(&read);
    for word in ["no session 9", "open already", "still answering", "keeps its kind"] {
        assert!(errors.iter().any(|error| error.contains(word)), "{word}: {errors:?}");
    }
    assert_eq!(errors.iter().filter(|error| error.contains("keeps its kind")).count(), 3);
    assert_eq!(errors.len(), 6);
    stop(engine, &events);
}

#[test]
fn the_default_model_knows_the_days_of_a_week_in_both_lanes() {
    let path = source::ensure_default(&mut |_| {}, &Default::default()).expect("the default model can be fetched");
    let model = Arc::new(LanguageModel::open(&path, Some(1024)).unwrap());
    let lanes = vec![lane(Lane::KCache, "kcache", None), lane(Lane::Kv, "kv", None)];
    let (engine, events) = start(&model, lanes);
    engine.ops().send(open(1)).unwrap();
    let turn = Turn { max_tokens: 40, ..Turn::default() };
    let text = "How many days are in a week?".to_owned();
    engine.ops().send(Op::Say { session: SessionId(1), document: None, text, turn }).unwrap();
    let read = until_finished(&events, 2);
    for lane in Lane::ALL {
        let mut text = String::new();
        for event in &read {
            match &event.kind {
                EventKind::Token(token) if token.lane == lane => text.push_str(&token.text),
                EventKind::Finished(finished) if finished.lane == lane => {
                    assert_eq!(finished.reason, FinishReason::Stop, "{text}");
                }
                _ => {}
            }
        }
        assert!(text.contains("7 days"), "{lane}: {text}");
    }
    stop(engine, &events);
}

#[derive(Debug, Clone)]
enum Move {
    Say(u32, usize),
    Stop(u32, Option<Lane>),
    Reopen(u32),
    Turn(usize, usize, usize, bool),
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let lane = prop::option::of(prop::sample::select(&Lane::ALL[..]));
    let any = prop_oneof![
        4 => (1u32..5, 1usize..40).prop_map(|(session, words)| Move::Say(session, words)),
        2 => (1u32..5, lane).prop_map(|(session, lane)| Move::Stop(session, lane)),
        1 => (1u32..5).prop_map(Move::Reopen),
        3 => (1usize..80, 0usize..3, 0usize..3, any::<bool>()).prop_map(|(n, t, d, g)| Move::Turn(n, t, d, g)),
        3 => (0u64..12).prop_map(Move::Wait),
    ];
    prop::collection::vec(any, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes at whatever time: tokens arrive in order, every turn ends, the books agree, all pages come back.
    #[test]
    fn any_order_of_ops_keeps_the_ledger_exact_and_loses_no_token(moves in moves(), q8: bool) {
        let model = model(384);
        let (engine, events) = start(&model, if q8 { both_q8_lanes() } else { both_lanes() });
        for session in 1..5 {
            engine.ops().send(open(session)).unwrap();
        }
        for step in &moves {
            match *step {
                Move::Say(session, words) => engine.ops().send(say(session, &"the hall ".repeat(words), 20)).unwrap(),
                Move::Stop(session, lane) => {
                    engine.ops().send(Op::Stop { session: SessionId(session), lane }).unwrap();
                }
                Move::Reopen(session) => {
                    engine.ops().send(Op::Close { session: SessionId(session) }).unwrap();
                    engine.ops().send(open(session)).unwrap();
                }
                Move::Turn(n, tail, dense, group) => {
                    let tail = [Tail::None, Tail::Renorm, Tail::Mean][tail];
                    let select = if group { Select::Group } else { Select::Head };
                    let k = if q8 { Format::Q8 } else { Format::F16 };
                    let policy = Policy::KCache(Knobs { n, tail, dense, select, k, ..Knobs::EVEN });
                    engine.ops().send(Op::SetPolicy { lane: Lane::KCache, policy }).unwrap();
                }
                Move::Wait(ms) => std::thread::sleep(Duration::from_millis(ms)),
            }
        }
        drop(engine);
        let read: Vec<Event> = std::iter::from_fn(|| events.recv()).collect();
        let mut running: BTreeMap<(SessionId, Lane), usize> = BTreeMap::new();
        for event in &read {
            match &event.kind {
                EventKind::Said { session, .. } => {
                    for lane in Lane::ALL {
                        prop_assert!(running.insert((*session, lane), 0).is_none(), "a turn begins when none runs");
                    }
                }
                EventKind::Token(token) => {
                    let next = running.get_mut(&(token.session, token.lane)).expect("a token belongs to a turn");
                    prop_assert_eq!(token.index, *next);
                    *next += 1;
                }
                EventKind::Finished(finished) => {
                    let told = running.remove(&(finished.session, finished.lane));
                    prop_assert_eq!(told, Some(finished.usage.completion_tokens));
                }
                EventKind::Error { message, .. } => {
                    let expected = message.contains("still answering") || message.contains("context's");
                    prop_assert!(expected, "{}", message);
                }
                _ => {}
            }
        }
        prop_assert!(running.is_empty(), "every turn ends: {:?}", running);
        prop_assert_eq!(&read.last().unwrap().kind, &EventKind::Stopped { error: None });
        for lane in Lane::ALL {
            let last = read.iter().rev().find_map(|event| match &event.kind {
                EventKind::Ledger(ledger) if ledger.lane == lane => Some(*ledger),
                _ => None,
            });
            let ledger = last.unwrap();
            prop_assert_eq!((ledger.device.k, ledger.device.v, ledger.device.tail, ledger.host.v), (0, 0, 0, 0));
        }
    }
}
