//! Sessions for a single answer: what they hold is given back as soon as a lane has finished it.

use super::*;

fn ask_once(session: u32, tokens: &[u32], max_tokens: usize) -> Request {
    let turn = GenerationOptions { max_tokens, ignore_eos: true, ..GenerationOptions::default() };
    Request::SubmitTokens {
        session: SessionId(session),
        prefilled: None,
        tokens: tokens.to_vec(),
        options: turn,
        once: true,
    }
}

/// The lane's accounts between the end of its answer and that of the other lane's.
fn ledgers_after(events: &[Event], lane: Lane) -> Vec<Ledger> {
    let ended = |event: &Event, lane: Lane| matches!(&event.kind, EventKind::Finished(each) if each.lane == lane);
    let from = events.iter().position(|event| ended(event, lane)).unwrap();
    let to = events.iter().position(|event| ended(event, lane.other())).unwrap();
    assert!(from < to, "{lane} is the first to end");
    let ledger = |event: &Event| match &event.kind {
        EventKind::Ledger(ledger) if ledger.lane == lane => Some(*ledger),
        _ => None,
    };
    events[from..to].iter().filter_map(ledger).collect()
}

#[test]
fn a_lane_gives_back_a_single_answer_while_the_other_still_works() {
    let model = model(4096);
    let prompt: Vec<u32> = (10..110).collect();
    let reasons = |events: &[Event]| -> BTreeMap<Lane, FinishReason> {
        let reason = |event: &Event| match &event.kind {
            EventKind::Finished(finished) => Some((finished.lane, finished.reason)),
            _ => None,
        };
        events.iter().filter_map(reason).collect()
    };
    for compare in [false, true] {
        let (engine, events) = start(&model, both_lanes());
        let workspace = std::iter::from_fn(|| events.recv()).find_map(|event| match event.kind {
            EventKind::Ledger(ledger) if ledger.lane == Lane::Kv => Some(ledger.device.workspace),
            _ => None,
        });
        // Room for eight pages: the budget ends the answer of `kv`.
        let bytes = Some(workspace.unwrap() + 8 * model.cache_shape().kv_bytes(64));
        engine.ops().send(Request::SetBudget { lane: Lane::Kv, bytes }).unwrap();
        engine.ops().send(open(1)).unwrap();
        engine.ops().send(Request::Compare { session: SessionId(1), on: compare }).unwrap();
        engine.ops().send(ask_once(1, &prompt, 3000)).unwrap();
        let read = until_finished(&events, 2);
        let ended = [(Lane::KCache, FinishReason::Length), (Lane::Kv, FinishReason::Budget)];
        assert_eq!(reasons(&read), BTreeMap::from(ended));
        let ledgers = ledgers_after(&read, Lane::Kv);
        assert!(!ledgers.is_empty(), "the other lane works for a while");
        for ledger in ledgers {
            assert_eq!((ledger.sequences, ledger.device.k, ledger.device.v, ledger.host.cache()), (0, 0, 0, 0));
        }
        stop(engine, &events);
    }
}

#[test]
fn pages_that_others_share_stay_theirs() {
    let model = model(4096);
    let prompt = |last: u32| -> Vec<u32> { (0..200).map(|at| 10 + at % 190).chain([last]).collect() };
    let alone = {
        let (engine, events) = start(&model, both_lanes());
        engine.ops().send(open(2)).unwrap();
        engine.ops().send(ask_once(2, &prompt(8), 200)).unwrap();
        let read = until_finished(&events, 2);
        stop(engine, &events);
        answers(&read)
    };
    let (engine, events) = start(&model, both_lanes());
    engine.ops().send(open(1)).unwrap();
    engine.ops().send(ask_once(1, &prompt(7), 3000)).unwrap();
    let mut read = events::until(&events, |kind| matches!(kind, EventKind::Token(token) if token.index > 2));
    engine.ops().send(open(2)).unwrap();
    engine.ops().send(ask_once(2, &prompt(8), 200)).unwrap();
    read.extend(events::until(&events, |kind| matches!(kind, EventKind::Token(token) if token.session.0 == 2)));
    // The first session's pages are given up in one lane, and the second one's begin with the same.
    engine.ops().send(Request::Stop { session: SessionId(1), lane: Some(Lane::KCache) }).unwrap();
    read.extend(until_finished(&events, 4));
    let shared = read.iter().any(|event| matches!(&event.kind, EventKind::Queue(queue) if queue.prefix_hit_tokens > 0));
    assert!(shared, "the prompts begin alike");
    for (key, tokens) in &alone {
        assert_eq!(&answers(&read)[key], tokens, "{key:?}");
    }
    stop(engine, &events);
}
