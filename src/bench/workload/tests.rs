//! A workload without a clock and without an engine: the tests give it times and events.

use super::*;
use crate::engine::{Finished, Usage};

fn load(spec: &str) -> Workload {
    let mut load = Workload::new((0..5_000).collect());
    load.start(spec.parse().unwrap());
    load
}

fn opened(requests: &[Request]) -> Vec<SessionId> {
    let open = |request: &Request| if let Request::Open { session, .. } = request { Some(*session) } else { None };
    requests.iter().filter_map(open).collect()
}

/// Has the engine take these requests: every session is opened, accepted and waits.
fn take(load: &mut Workload, requests: &[Request]) {
    for session in opened(requests) {
        let lanes = load.open[&session].clone();
        load.note(&EventKind::Session { session, name: "load".into(), lanes: lanes.clone(), system: None });
        load.note(&EventKind::Said { session, document: None, text: String::new() });
        lanes.iter().for_each(|&lane| scheduled(load, session, lane, Scheduling::Waiting));
    }
}

fn scheduled(load: &mut Workload, session: SessionId, lane: Lane, state: Scheduling) {
    load.note(&EventKind::Scheduled { lane, session, step: 1, state });
}

fn finish(load: &mut Workload, session: SessionId, lane: Lane, reason: FinishReason) {
    let finished = Finished { lane, session, step: 1, reason, usage: Usage::default() };
    load.note(&EventKind::Finished(finished));
}

#[test]
fn sessions_come_at_their_rate_and_late_ones_at_once() {
    let mut load = load("sessions=5,rate=30,arrivals=even,context=100");
    let came = |load: &mut Workload, now_ms| {
        let requests = load.due(now_ms);
        take(load, &requests);
        opened(&requests).len()
    };
    // One every two seconds, the first at once, whenever the clock began.
    assert_eq!([500.0, 500.0, 2_499.0, 2_500.0].map(|now_ms| came(&mut load, now_ms)), [1, 0, 0, 1]);
    assert_eq!(came(&mut load, 6_600.0), 2);
    assert!(load.is_coming());
    assert_eq!(came(&mut load, 60_000.0), 1);
    assert!(!load.is_coming() && load.is_active());
    assert_eq!(load.arrived(), 5);
}

#[test]
fn sessions_come_at_random_at_the_mean_rate_and_a_seed_repeats() {
    let came = |seed: u64| -> Vec<usize> {
        let mut load = load(&format!("sessions=3000,rate=600,seed={seed},context=100"));
        let mut each_second = |second: usize| {
            let mut count = 0;
            loop {
                let requests = load.due(1e3 * second as f64);
                take(&mut load, &requests);
                count += opened(&requests).len();
                if requests.is_empty() {
                    return count;
                }
            }
        };
        (0..=200).map(&mut each_second).collect()
    };
    let first = came(0);
    assert_eq!(first, came(0));
    assert_ne!(first, came(1));
    // The first at once, then 10 a second: 2,000 in 200 s, with a standard deviation of √2,000. Of the counts of a second
    // variance and mean are the same; evenly spaced ones would have none.
    assert_eq!(first[0], 1);
    let (seconds, total) = (200.0, first[1..].iter().sum::<usize>() as f64);
    assert!((total - 2_000.0).abs() < 4.0 * 2_000f64.sqrt(), "{total}");
    let mean = total / seconds;
    let variance = first[1..].iter().map(|&count| (count as f64 - mean).powi(2)).sum::<f64>() / seconds;
    assert!((0.6..1.6).contains(&(variance / mean)), "{variance} {mean}");
}

#[test]
fn no_more_are_on_their_way_than_the_engine_takes() {
    let mut load = load("sessions=20,rate=all,context=100");
    let first = load.due(0.0);
    assert_eq!((opened(&first).len(), load.due(9_999.0)), (ON_THEIR_WAY, Vec::new()));
    take(&mut load, &first);
    assert_eq!(opened(&load.due(10_000.0)).len(), ON_THEIR_WAY);
}

#[test]
fn prompts_have_their_length_begin_alike_as_far_as_they_shall_and_differ_after() {
    let mut load = load("sessions=3,context=130,tokens=9,shared=64,lanes=kv");
    let requests = load.due(0.0);
    let prompts: Vec<&Vec<u32>> = requests
        .iter()
        .filter_map(|request| match request {
            Request::SubmitTokens { tokens, options: turn, once: true, prefilled: None, .. } => {
                assert_eq!((turn.max_tokens, turn.ignore_eos, turn.priority), (9, true, Priority::Background));
                Some(tokens)
            }
            _ => None,
        })
        .collect();
    assert_eq!(prompts.len(), 3);
    assert!(prompts.iter().all(|prompt| prompt.len() == 130 && prompt[..64] == prompts[0][..64]));
    assert!(prompts[0][64] != prompts[1][64] && prompts[1][64] != prompts[2][64]);
    assert!(requests.iter().any(|request| matches!(request, Request::Open { lanes, .. } if *lanes == [Lane::Kv])));
}

#[test]
fn what_becomes_of_each_answer_is_counted_by_lane() {
    let mut load = load("sessions=3,context=10");
    let requests = load.due(0.0);
    take(&mut load, &requests);
    let ids = opened(&requests);
    for lane in Lane::ALL {
        scheduled(&mut load, ids[0], lane, Scheduling::Running);
        scheduled(&mut load, ids[1], lane, Scheduling::Running);
    }
    finish(&mut load, ids[0], Lane::KCache, FinishReason::Length);
    scheduled(&mut load, ids[1], Lane::Kv, Scheduling::Preempted);
    scheduled(&mut load, ids[1], Lane::Kv, Scheduling::Freed);
    let counts = |waiting, running, preempted, finished| WorkloadCounts {
        waiting,
        running,
        preempted,
        finished,
        ..WorkloadCounts::default()
    };
    assert_eq!(Lane::ALL.map(|lane| load.counts(lane)), [counts(1, 1, 0, 1), counts(1, 1, 1, 0)]);
    finish(&mut load, ids[2], Lane::Kv, FinishReason::Budget);
    assert_eq!((load.counts(Lane::Kv).refused, load.counts(Lane::Kv).ended()), (1, 1));
    assert_eq!(
        load.summary(),
        "load: 3 sessions came; kcache: 1 finished, 1 running, 1 waiting; kv: 1 running, 1 preempted, 1 refused"
    );
}

#[test]
fn a_session_that_is_refused_before_it_begins_is_closed_and_told() {
    let mut load = load("sessions=1,context=10");
    let requests = load.due(0.0);
    let session = opened(&requests)[0];
    load.note(&EventKind::Session { session, name: "load".into(), lanes: Lane::ALL.to_vec(), system: None });
    let error = |message: &str| EventKind::Error { lane: None, session: Some(session), message: message.into() };
    assert_eq!(load.note(&error("the queue is full")), Some(vec![Request::Close { session }]));
    assert_eq!((load.why(), load.counts(Lane::KCache).refused), (Some("the queue is full"), 1));
    assert!(load.is_active());
    load.note(&EventKind::Closed { session });
    assert!(!load.is_active());
    // Closed twice is no refusal.
    assert_eq!(load.note(&error("there is no such session")), Some(Vec::new()));
    assert_eq!(load.why(), Some("the queue is full"));
}

#[test]
fn it_is_stopped_and_cancelled_and_the_next_one_has_other_numbers() {
    let mut load = load("sessions=9,rate=60,context=10");
    let requests = load.due(0.0);
    take(&mut load, &requests);
    load.stop();
    assert_eq!(load.due(60_000.0), Vec::new());
    let session = opened(&requests)[0];
    assert!(load.is_active() && !load.is_coming());
    assert_eq!(load.cancel(), [Request::Close { session }]);
    Lane::ALL.iter().for_each(|&lane| finish(&mut load, session, lane, FinishReason::Cancelled));
    load.note(&EventKind::Closed { session });
    assert!(!load.is_active());
    load.start(WorkloadSpec::default());
    assert_eq!((load.arrived(), load.counts(Lane::Kv)), (0, WorkloadCounts::default()));
    let next = opened(&load.due(0.0))[0];
    assert!(is_workload(next) && next != session);
}

#[test]
fn events_of_other_sessions_are_not_its_own() {
    let mut load = load("sessions=1,context=10");
    let session = SessionId(1);
    assert!(!is_workload(session));
    assert_eq!(load.note(&EventKind::Closed { session }), None);
    assert_eq!(load.note(&EventKind::Error { lane: None, session: None, message: "x".into() }), None);
    // An engine that has ended is waited for no longer.
    load.due(0.0);
    assert_eq!(load.note(&EventKind::Stopped { error: None }), None);
    assert!(!load.is_active());
}
