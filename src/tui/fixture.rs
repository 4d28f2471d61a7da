//! A scripted run for the tests of the screen: every kind of event, made up, the same in every run.

use crate::{
    attention::{DISTANCE_BUCKETS, curve_counts},
    cache::{Knobs, Policy},
    config::Config,
    engine::{
        Compare, Coverage, Event, EventKind, FinishReason, Finished, HeadCoverage, Lane, Otherwise, Queue, Read,
        Scheduling, SessionId, Token, Usage,
    },
};

mod script;

use self::script::{LAYERS, Script, WORDS, noise};
use super::{
    input::keymap::Keymap,
    message::Message,
    state::{State, demo::Demo, workload::Workload},
    update::update,
};

/// The state before anything happened, at a size.
pub fn empty(columns: u16, rows: u16) -> State {
    let mut state = State::new(&Config::default(), Keymap::default(), Demo::default());
    state.workload = Workload::new((0..500).collect(), None);
    update(&mut state, Message::Resized(columns, rows));
    state
}

/// The state after the scripted run, at a size.
pub fn state(columns: u16, rows: u16) -> State {
    let mut state = empty(columns, rows);
    for event in events() {
        let now = event.t_ms;
        update(&mut state, Message::Engine(event));
        if now as u64 % 100 < 10 {
            update(&mut state, Message::Tick(now));
        }
    }
    update(&mut state, Message::Drawn { ms: 3.2, bytes: 2_400 });
    let now = state.engine_ms;
    update(&mut state, Message::Tick(now));
    state
}

pub fn events() -> Vec<Event> {
    let mut script = Script { events: Vec::new(), t_ms: 0.0, step: 0 };
    script.start();
    let (support, bridge, notes) = (SessionId(1), SessionId(2), SessionId(3));
    script.open(support, "Support history");
    script.said(support, Some("support.md"), "What did the error code E7 mean, and how was it solved?");
    script.prefill(support, 512, 512);
    script.open(bridge, "Bridge minutes");
    script.open(notes, "My notes, with a rather long name");
    script.decode(support, 520, 46, 31);
    script.finish(support, 46);
    script.said(support, None, "Who replaced the fan motor, and when?");
    script.push(EventKind::Knob {
        lane: Lane::KCache,
        step: 50,
        change: "n=256".into(),
        policy: Policy::KCache(Knobs { n: 256, ..Knobs::default() }),
    });
    script.decode(support, 600, 22, 40);
    script.said(bridge, Some("meetings.md"), "Which design did the committee choose, and what did it cost?");
    script.prefill(bridge, 1_920, 5_012);
    Lane::ALL.into_iter().for_each(|lane| script.push(EventKind::Queue(queue(lane, script.step))));
    script.events
}

/// What follows where the lanes are full: sessions that wait in other places in each lane, one that was preempted and
/// its pages kept, one that will be computed again, one that goes on, and one that was refused.
pub fn full() -> Vec<Event> {
    use Scheduling::{Freed, Preempted, Running, Waiting};
    let mut script = Script { events: Vec::new(), t_ms: 60_000.0, step: 500 };
    let names = ["Contract", "Night report", "Letters", "Harvest"];
    let ids: Vec<SessionId> = (4..).map(SessionId).take(names.len()).collect();
    for (&id, name) in ids.iter().zip(names) {
        script.open(id, name);
        script.said(id, None, "What is it about?");
    }
    let states: [(u32, [&[Scheduling]; 2]); 5] = [
        (1, [&[Preempted], &[Preempted, Freed]]),
        (2, [&[Running], &[Preempted]]),
        (4, [&[Waiting, Running, Preempted, Running], &[Waiting]]),
        (5, [&[Waiting], &[Waiting]]),
        (7, [&[Waiting], &[]]),
    ];
    for (session, lanes) in states {
        for (lane, states) in Lane::ALL.into_iter().zip(lanes) {
            for &state in states {
                script.push(EventKind::Scheduled { lane, session: SessionId(session), step: 501, state });
            }
        }
    }
    let message = "with the message the session has 9000 tokens, and the lane's budget fits 2303: shorten it, start a \
                   new session or raise the budget";
    let error = EventKind::Error { lane: Some(Lane::Kv), session: Some(ids[3]), message: message.into() };
    script.push(error);
    let (step, reason, usage) = (500, FinishReason::Budget, Usage::default());
    script.push(EventKind::Finished(Finished { lane: Lane::Kv, session: ids[3], step, reason, usage }));
    for (lane, next) in [(Lane::KCache, &[1, 5, 6, 7][..]), (Lane::Kv, &[1, 2, 4, 5, 6])] {
        let next: Vec<SessionId> = next.iter().copied().map(SessionId).collect();
        script.push(EventKind::Queue(Queue {
            running: 4 - next.len() / 2,
            waiting: 3,
            preempted: next.len() - 3,
            refused: u64::from(lane == Lane::Kv),
            preemptions: 3,
            freed: 1,
            recomputed_tokens: 530,
            next,
            tokens_until_full: Some(192),
            sessions_until_full: Some(0),
            ..queue(lane, 501)
        }));
    }
    script.events
}

/// A lane with one answer that runs, in half of its budget.
fn queue(lane: Lane, step: u64) -> Queue {
    let ours = lane == Lane::KCache;
    Queue {
        lane,
        step,
        running: 1,
        waiting: 0,
        preempted: 0,
        bound: 256,
        idle: 1,
        preemptions: 0,
        freed: 0,
        recomputed_tokens: 0,
        prefix_hit_tokens: 448,
        refused: 0,
        next: Vec::new(),
        tokens_until_full: Some(if ours { 4_992 } else { 2_304 }),
        mean_tokens: Some(640),
        sessions_until_full: Some(if ours { 7 } else { 3 }),
        device_peak_bytes: 20 << 20,
        host_peak_bytes: if ours { 12 << 20 } else { 0 },
        schedule_ms: 0.01,
        delivered: None,
    }
}

/// A session in which both lanes are fed the same tokens: KCache would have said another at some of them.
pub fn compared() -> Vec<Event> {
    let mut script = Script { events: Vec::new(), t_ms: 60_000.0, step: 500 };
    let id = SessionId(1);
    script.push(EventKind::CompareMode { session: id, on: true });
    script.said(id, None, "And what did it cost?");
    let words: Vec<&str> = WORDS.split_inclusive(' ').collect();
    for index in 0..40 {
        script.step += 1;
        script.t_ms += 60.0;
        let off = matches!(index, 12 | 13 | 30);
        script.push(EventKind::Compare(Compare {
            session: id,
            step: script.step,
            index,
            token_id: 1_000 + index as u32,
            kl: if off { 0.06 + 0.02 * noise(index) } else { 0.004 * noise(index) },
            same: !off,
            otherwise: off.then(|| Otherwise { token_id: 7, text: " motor".into() }),
        }));
        for lane in [Lane::Kv, Lane::KCache] {
            script.push(EventKind::Token(Token {
                lane,
                session: id,
                step: script.step,
                index,
                token_id: 1_000 + index as u32,
                text: words[index % words.len()].into(),
                itl_ms: (index > 0).then_some(60.0),
                kept_mass: (lane == Lane::KCache).then_some(0.95),
            }));
        }
    }
    script.events
}

/// What the engine tells of the first session while it is looked at: its tokens, what the last ones read, and curves.
pub fn looked_at() -> Vec<Event> {
    let mut script = Script { events: Vec::new(), t_ms: 60_000.0, step: 500 };
    let (session, lane) = (SessionId(1), Lane::KCache);
    let words: Vec<&str> = WORDS.split_inclusive(' ').collect();
    let texts: Vec<String> = (0..640).map(|at| words[at % words.len()].to_owned()).collect();
    script.push(EventKind::Text { session, lane, from: 0, texts });
    for index in 1..22 {
        let (len, step) = (600 + index, 500 + index as u64);
        let heads = (LAYERS - 1) * 9;
        // The first four, what lies close, and a place in the middle.
        let near = (len - 40..len).map(|at| (at as u32, 8 + (at + 45 - len) as u16 * 4));
        let middle = (300..312).map(|at| (at, 40));
        let positions: Vec<_> = (0..4).map(|at| (at, 240)).chain(middle).chain(near).collect();
        let read = positions.len();
        script.push(EventKind::Read(Read { session, lane, step, index, len, heads, read, positions }));
        if index % 16 != 1 {
            continue;
        }
        let n = curve_counts(len);
        let head = |layer: usize, head: usize| {
            let flat = 0.02 + noise(layer * 9 + head);
            let mass = |n: usize| ((1.0 + n as f64 / flat).ln() / (1.0 + len as f64 / flat).ln()) as f32;
            let distance =
                (0..DISTANCE_BUCKETS).map(|at| if at <= 10 { 40 * (10 - at as u32) + head as u32 } else { 0 });
            let curve = n.iter().map(|&n| mass(n)).collect();
            HeadCoverage { rows: 128, kept: mass(128), curve, distance: distance.collect() }
        };
        let layer = |layer| if layer == 0 { Vec::new() } else { (0..9).map(|each| head(layer, each)).collect() };
        let layers = (0..LAYERS).map(layer).collect();
        script.push(EventKind::Coverage(Coverage { session, lane, step, index, len, n: n.clone(), layers }));
    }
    script.events
}

/// The end of both answers of a session.
pub fn finished(session: SessionId, tokens: usize) -> Vec<Event> {
    let mut script = Script { events: Vec::new(), t_ms: 60_000.0, step: 500 };
    script.finish(session, tokens);
    script.events
}
