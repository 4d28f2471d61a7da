//! What an engine refuses or ends: a full context, a full budget, mistakes.

use std::time::Duration;

use kcache::{
    cache::{Format, Knobs, Policy},
    engine::{EventKind, FinishReason, Lane, Request},
};

use super::{both_lanes, errors, events::until_finished, lane, model, open, say, start, stop};

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
    ops.send(Request::SetPolicy { lane: Lane::Kv, policy: Policy::KCache(Knobs::default()) }).unwrap();
    ops.send(Request::SetPolicy { lane: Lane::Kv, policy: Policy::KvQ8 }).unwrap();
    let other_keys = Policy::KCache(Knobs { k: Format::Q8, ..Knobs::default() });
    ops.send(Request::SetPolicy { lane: Lane::KCache, policy: other_keys }).unwrap();
    let read = until_finished(&events, 2);
    let errors = errors(&read);
    for word in ["no session 9", "open already", "still answering", "keeps its kind"] {
        assert!(errors.iter().any(|error| error.contains(word)), "{word}: {errors:?}");
    }
    assert_eq!(errors.iter().filter(|error| error.contains("keeps its kind")).count(), 3);
    assert_eq!(errors.len(), 6);
    stop(engine, &events);
}
