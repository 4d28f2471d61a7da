//! Any ops in any order.

use std::{collections::BTreeMap, time::Duration};

use kcache::{
    cache::{Format, Knobs, Policy, Select, Tail},
    engine::{Event, EventKind, Lane, Request, SessionId},
};
use proptest::prelude::*;

use super::{both_lanes, both_q8_lanes, model, open, say, start};

#[derive(Debug, Clone)]
enum Move {
    Say(u32, usize),
    Stop(u32, Option<Lane>),
    Reopen(u32),
    GenerationOptions(usize, usize, usize, bool),
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let lane = prop::option::of(prop::sample::select(&Lane::ALL[..]));
    let any = prop_oneof![
        4 => (1u32..5, 1usize..40).prop_map(|(session, words)| Move::Say(session, words)),
        2 => (1u32..5, lane).prop_map(|(session, lane)| Move::Stop(session, lane)),
        1 => (1u32..5).prop_map(Move::Reopen),
        3 => (1usize..80, 0usize..3, 0usize..3, any::<bool>()).prop_map(|(n, t, d, g)| Move::GenerationOptions(n, t, d, g)),
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
                    engine.ops().send(Request::Stop { session: SessionId(session), lane }).unwrap();
                }
                Move::Reopen(session) => {
                    engine.ops().send(Request::Close { session: SessionId(session) }).unwrap();
                    engine.ops().send(open(session)).unwrap();
                }
                Move::GenerationOptions(n, tail, dense, group) => {
                    let tail = [Tail::None, Tail::Renorm, Tail::Mean][tail];
                    let select = if group { Select::Group } else { Select::Head };
                    let k = if q8 { Format::Q8 } else { Format::F16 };
                    let policy = Policy::KCache(Knobs { n, tail, dense, select, k, ..Knobs::EVEN });
                    engine.ops().send(Request::SetPolicy { lane: Lane::KCache, policy }).unwrap();
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
