//! The engine as a library user sees it: ops in, events out.

mod broken;
#[path = "../support/events.rs"]
mod events;
mod limits;
mod moves;
mod once;
mod stops;
#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use candle_core::quantized::GgmlDType;
use events::until_finished;
use kcache::{
    engine::{
        Document, Engine, EngineOptions, Event, EventKind, Events, FinishReason, GenerationOptions, Lane, LaneOptions,
        Ledger, Priority, Request, Sampling, SessionId, Usage,
    },
    model::{ChatMessage, LanguageModel, Role, source},
};
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

fn open(session: u32) -> Request {
    let (session, name) = (SessionId(session), format!("session {session}"));
    Request::Open { session, name, system: None, lanes: Lane::ALL.to_vec() }
}

fn say(session: u32, text: &str, max_tokens: usize) -> Request {
    let turn = GenerationOptions { max_tokens, ignore_eos: true, ..GenerationOptions::default() };
    Request::SubmitMessage { session: SessionId(session), document: None, text: text.to_owned(), options: turn }
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
    let side = |answer: &str| vec![ChatMessage::new(Role::User, "hello"), ChatMessage::new(Role::Assistant, answer)];
    let sides = [(Lane::KCache, side("the one")), (Lane::Kv, side("another one, and a longer one"))];
    let recall = |lane: Lane, messages: &[ChatMessage]| Request::RestoreHistory {
        session: SessionId(1),
        lane,
        messages: messages.to_vec(),
    };
    let run = |recalled: &[(Lane, Vec<ChatMessage>)]| {
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
        messages.push(ChatMessage::new(Role::User, "and now?"));
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
    let turn = GenerationOptions { max_tokens: 12, ignore_eos: true, ..GenerationOptions::default() };
    let said =
        Request::SubmitMessage { session: SessionId(1), document: Some(document), text: "hello".into(), options: turn };
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
    assert_eq!(kv.device.k + kv.device.v, kv.kv_equivalent_bytes);
    assert_eq!(kcache.kv_equivalent_bytes, kv.kv_equivalent_bytes);
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
    assert_eq!((kv.device.k * 64, kv.device.k), (kv.kv_equivalent_bytes / 2 * 34, kv.device.v));
    assert_eq!(
        (kcache.device.k * 64, kcache.host.v),
        (kcache.kv_equivalent_bytes / 2 * 34, kcache.kv_equivalent_bytes / 2)
    );
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
        let turn = GenerationOptions { sampling, max_tokens: 24, ignore_eos: true, ..GenerationOptions::default() };
        let said =
            Request::SubmitMessage { session: SessionId(session), document: None, text: "hello".into(), options: turn };
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
    engine.ops().send(Request::Stop { session: SessionId(3), lane: Some(Lane::Kv) }).unwrap();
    engine.ops().send(Request::Stop { session: SessionId(1), lane: None }).unwrap();
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
    let model = model(8192);
    let (engine, events) = start(&model, both_lanes());
    let ask = |session: u32, text: String, max_tokens, priority| {
        let turn = GenerationOptions { max_tokens, ignore_eos: true, priority, ..GenerationOptions::default() };
        let said = Request::SubmitMessage { session: SessionId(session), document: None, text, options: turn };
        engine.ops().send(open(session)).unwrap();
        engine.ops().send(said).unwrap();
    };
    // While this answer goes on, the prompt of the demo waits, so that both questions are there when the engine chooses.
    ask(3, "go on".into(), 8000, Priority::Typed);
    ask(1, "the long demo in the hall ".repeat(14), 5, Priority::Background);
    ask(2, "hello".into(), 60, Priority::Typed);
    engine.ops().send(Request::Stop { session: SessionId(3), lane: None }).unwrap();
    let read = until_finished(&events, 6);
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
fn the_default_policy_says_what_full_attention_says_while_the_context_is_no_longer_than_n() {
    let path = source::ensure_default(&mut |_| {}, &Default::default()).expect("the default model can be fetched");
    let model = Arc::new(LanguageModel::open(&path, Some(1024)).unwrap());
    let (engine, events) = start(&model, vec![lane(Lane::KCache, "kcache", None), lane(Lane::Kv, "kv", None)]);
    let mut steps = 0;
    for (session, text) in [(1, "How many days are in a week?"), (2, "Write a poem about the sea.")] {
        engine.ops().send(open(session)).unwrap();
        // The prompt has some forty tokens: with the answer there are more than n.
        engine.ops().send(say(session, text, 120)).unwrap();
        let read = until_finished(&events, 2);
        let prompt = read.iter().find_map(|event| match &event.kind {
            EventKind::Finished(finished) => Some(finished.usage.prompt_tokens),
            _ => None,
        });
        // The last of these tokens was chosen with n positions in the cache, itself not among them.
        let same = 128 - prompt.unwrap() + 1;
        let answers = answers(&read);
        let [ours, theirs] = Lane::ALL.map(|lane| &answers[&(SessionId(session), lane)]);
        assert_eq!(ours[..same], theirs[..same], "{text}");
        for event in &read {
            if let EventKind::Step(step) = &event.kind
                && step.lane == Some(Lane::KCache)
                && step.decode_rows > 0
            {
                steps += 1;
                assert_eq!(step.rows_chosen == 0, step.context <= 128, "{step:?}");
            }
        }
    }
    assert!(steps > 150, "{steps} steps were looked at");
    stop(engine, &events);
}

#[test]
fn the_default_model_knows_the_days_of_a_week_in_both_lanes() {
    let path = source::ensure_default(&mut |_| {}, &Default::default()).expect("the default model can be fetched");
    let model = Arc::new(LanguageModel::open(&path, Some(1024)).unwrap());
    let lanes = vec![lane(Lane::KCache, "kcache", None), lane(Lane::Kv, "kv", None)];
    let (engine, events) = start(&model, lanes);
    engine.ops().send(open(1)).unwrap();
    let turn = GenerationOptions { max_tokens: 40, ..GenerationOptions::default() };
    let text = "How many days are in a week?".to_owned();
    engine.ops().send(Request::SubmitMessage { session: SessionId(1), document: None, text, options: turn }).unwrap();
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
