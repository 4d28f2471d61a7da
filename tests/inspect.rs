//! Looking at a session: what its tokens read is told exactly, only when somebody asks, and changes nothing.

#[path = "support/events.rs"]
mod events;
mod support;

use std::sync::Arc;

use candle_core::quantized::GgmlDType;
use events::until_finished;
use kcache::{
    engine::{
        COVERAGE_EVERY, Coverage, Engine, EngineOptions, Event, EventKind, Events, GenerationOptions, Lane,
        LaneOptions, READ_POSITIONS, Read, Request, SessionId, Token,
    },
    model::LanguageModel,
};
use support::tiny::Tiny;

const ID: SessionId = SessionId(1);
const HEADS: usize = 4;
const LAYERS: usize = 3;

fn model() -> Arc<LanguageModel> {
    let (hidden, ffn, dtype) = (128, 128, GgmlDType::Q8_0);
    support::open(&Tiny {
        layers: LAYERS,
        hidden,
        heads: HEADS,
        kv_heads: 2,
        head_dim: 32,
        ffn,
        context: 2048,
        dtype,
        endless: true,
        ..Tiny::default()
    })
}

fn start(model: &Arc<LanguageModel>, policy: &str) -> (Engine, Events) {
    let lane = |lane, policy: &str| LaneOptions {
        lane,
        policy: policy.parse().unwrap(),
        device_budget: None,
        host_budget: None,
    };
    let lanes = vec![lane(Lane::KCache, policy), lane(Lane::Kv, "kv")];
    Engine::start(Arc::clone(model), EngineOptions { threads: 2, lanes, ..EngineOptions::default() }).unwrap()
}

fn send(engine: &Engine, op: Request) {
    engine.ops().send(op).unwrap();
}

fn open(engine: &Engine, session: SessionId) {
    send(engine, Request::Open { session, name: "seen".into(), system: None, lanes: Lane::ALL.to_vec() });
}

/// Has a session read some text and say so many tokens.
fn say(engine: &Engine, session: SessionId, text: &str, max_tokens: usize) {
    let turn = GenerationOptions { max_tokens, ignore_eos: true, ..GenerationOptions::default() };
    send(engine, Request::SubmitMessage { session, document: None, text: text.to_owned(), options: turn });
}

fn all<T>(events: &[Event], of: impl Fn(&EventKind) -> Option<T>) -> Vec<T> {
    events.iter().filter_map(|event| of(&event.kind)).collect()
}

fn reads(events: &[Event]) -> Vec<Read> {
    all(events, |kind| if let EventKind::Read(read) = kind { Some(read.clone()) } else { None })
}

fn coverages(events: &[Event]) -> Vec<Coverage> {
    all(events, |kind| if let EventKind::Coverage(coverage) = kind { Some(coverage.clone()) } else { None })
}

fn tokens(events: &[Event], lane: Lane) -> Vec<Token> {
    all(events, |kind| match kind {
        EventKind::Token(token) if token.lane == lane => Some(token.clone()),
        _ => None,
    })
}

#[test]
fn curves_and_positions_are_those_of_the_step() {
    let model = model();
    let text = "the heat in the hall then the other one ".repeat(8);
    let (engine, events) = start(&model, "kcache:n=16,dense=1,tail=mean");
    open(&engine, ID);
    say(&engine, ID, &text, 100);
    let unseen = tokens(&until_finished(&events, Lane::ALL.len()), Lane::KCache);
    drop(engine);

    let (engine, events) = start(&model, "kcache:n=16,dense=1,tail=mean");
    open(&engine, ID);
    send(&engine, Request::Inspect(Some((ID, Lane::KCache))));
    say(&engine, ID, &text, 100);
    let seen = until_finished(&events, Lane::ALL.len());
    let answer = tokens(&seen, Lane::KCache);
    let ids = |tokens: &[Token]| tokens.iter().map(|token| token.token_id).collect::<Vec<_>>();
    assert_eq!(ids(&answer), ids(&unseen), "looking changes nothing");

    // The first token comes of the prompt, which is read exactly.
    let reads = reads(&seen);
    assert_eq!(reads.iter().map(|read| read.index).collect::<Vec<_>>(), (1..100).collect::<Vec<_>>());
    for (read, next) in reads.iter().zip(&reads[1..]) {
        assert_eq!(read.len + 1, next.len);
        assert_eq!(read.heads, (LAYERS - 1) * HEADS, "one layer is dense");
        let rows: usize = read.positions.iter().map(|&(_, heads)| usize::from(heads)).sum();
        assert_eq!((rows, read.positions.len()), (read.heads * 16, read.read));
        assert!(read.positions.is_sorted() && read.positions.iter().all(|&(at, _)| (at as usize) < read.len));
    }

    let coverages = coverages(&seen);
    let every = COVERAGE_EVERY as usize;
    let at: Vec<usize> = (1..100).step_by(every).collect();
    assert_eq!(coverages.iter().map(|each| each.index).collect::<Vec<_>>(), at);
    for (coverage, tokens) in coverages.iter().zip(std::iter::once(1).chain(std::iter::repeat(every))) {
        let at = coverage.n.iter().position(|&n| n == 16).unwrap();
        assert_eq!(coverage.n.last(), Some(&coverage.len));
        assert!(coverage.layers[0].is_empty(), "a dense layer chooses nothing");
        let heads: Vec<_> = coverage.layers.iter().flatten().collect();
        for head in &heads {
            assert!((head.curve[at] - head.kept).abs() < 1e-3 && (head.curve.last().unwrap() - 1.0).abs() < 1e-3);
            assert!(head.curve.is_sorted() && head.rows == 16);
            assert_eq!(head.distance.iter().sum::<u32>() as usize, 16 * tokens, "of all tokens since the last");
        }
        let mean = heads.iter().map(|head| f64::from(head.curve[at])).sum::<f64>() / heads.len() as f64;
        let told = f64::from(answer[coverage.index].kept_mass.unwrap());
        assert!((mean - told).abs() < 1e-3, "{mean} against {told}");
    }
    drop(engine);
}

#[test]
fn texts_tell_the_whole_conversation_and_lists_are_bounded() {
    let model = model();
    // So many heads choose so many rows that most positions are read.
    let (engine, events) = start(&model, "kcache:n=400,dense=0,tail=none");
    open(&engine, ID);
    say(&engine, ID, &"a long way to the hall, and é ".repeat(20), 3);
    until_finished(&events, Lane::ALL.len());
    send(&engine, Request::Inspect(Some((ID, Lane::KCache))));
    say(&engine, ID, &"there and then ".repeat(30), 20);
    let seen = until_finished(&events, Lane::ALL.len());
    let mut texts: Vec<String> = Vec::new();
    for event in &seen {
        if let EventKind::Text { from, texts: more, .. } = &event.kind {
            texts.truncate(*from);
            texts.extend(more.iter().cloned());
        }
    }
    let reads = reads(&seen);
    let last = reads.last().unwrap();
    assert_eq!(texts.len(), last.len, "every position has its text");
    let text = texts.concat();
    assert!(text.starts_with("user\na long way to the hall, and é a long way"), "{text}");
    let answer: String = tokens(&seen, Lane::KCache).iter().map(|token| token.text.as_str()).collect();
    assert!(text.contains(answer.trim_end_matches(char::REPLACEMENT_CHARACTER).get(..4).unwrap_or_default()));
    assert!(last.read > READ_POSITIONS && last.positions.len() == READ_POSITIONS, "{}", last.read);
    let least = last.positions.iter().map(|read| read.1).min().unwrap();
    assert!(least >= 1);

    // Nobody asks any more.
    send(&engine, Request::Inspect(None));
    say(&engine, ID, "hello", 5);
    let unseen = until_finished(&events, Lane::ALL.len());
    let told = |kind: &EventKind| matches!(kind, EventKind::Read(_) | EventKind::Coverage(_) | EventKind::Text { .. });
    assert!(!unseen.iter().any(|event| told(&event.kind)));
    drop(engine);
}

#[test]
fn a_lane_that_reads_every_row_says_so() {
    let model = model();
    let (engine, events) = start(&model, "kcache:n=16,dense=1,tail=mean");
    open(&engine, ID);
    send(&engine, Request::Inspect(Some((ID, Lane::Kv))));
    say(&engine, ID, "the heat in the hall", 10);
    let seen = until_finished(&events, Lane::ALL.len());
    let reads = reads(&seen);
    assert!(reads.len() == 9 && reads.iter().all(|read| read.heads == 0 && read.positions.is_empty()));
    assert_eq!(coverages(&seen), []);
    send(&engine, Request::Inspect(Some((SessionId(7), Lane::Kv))));
    let error = std::iter::from_fn(|| events.recv()).find(|event| matches!(event.kind, EventKind::Error { .. }));
    assert!(error.is_some(), "there is no such session");
    drop(engine);
}
