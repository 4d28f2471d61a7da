//! A scripted run for the tests of the screen: every kind of event, made up, the same in every run.

use crate::{
    attention::{DISTANCE_BUCKETS, curve_counts},
    cache::{Knobs, Policy},
    config::Config,
    engine::{
        Compare, Coverage, Event, EventKind, FinishReason, Finished, HeadCoverage, Hits, Lane, LaneCard, Ledger,
        Otherwise, Probe, Queue, Read, Scheduling, SessionId, Stages, Started, Step, TierBytes, Token, Usage,
    },
    telemetry::HostSample,
};

use super::{
    input::keymap::Keymap,
    message::Message,
    state::{State, demo::Demo, workload::Loads},
    update::update,
};

const LAYERS: usize = 30;
const KV_BYTES: u64 = 23_040;
const WORDS: &str = " The error code E7 means that the fan is blocked: Ines asked Marta to unplug the oven and to clean \
    the filter behind the lower grille. When it came back, Joris Pell replaced the fan motor on 25 April, and the \
    warranty covered the repair.";

/// The state before anything happened, at a size.
pub fn empty(columns: u16, rows: u16) -> State {
    let mut state = State::new(&Config::default(), Keymap::default(), Demo::default());
    state.loads = Loads::new((0..500).collect(), None);
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

/// A number in 0..1 that looks random and is the same in every run.
fn noise(at: usize) -> f64 {
    let mixed = (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f64 / (1u64 << 24) as f64
}

/// The scripted run.
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

/// What follows where the lanes are full: sessions that wait in other places in each lane, one that was set back and
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

struct Script {
    events: Vec<Event>,
    t_ms: f64,
    step: u64,
}

impl Script {
    fn push(&mut self, kind: EventKind) {
        self.events.push(Event { t_ms: self.t_ms, kind });
    }

    fn start(&mut self) {
        let card = |lane, policy| LaneCard { lane, policy, budget_bytes: Some(64 << 20) };
        self.push(EventKind::Started(Started {
            model: "SmolLM2 135M Instruct".into(),
            architecture: "llama".into(),
            layers: LAYERS,
            heads: 9,
            kv_heads: 3,
            head_dim: 64,
            context: 8_192,
            weight_bytes: 98_362_432,
            threads: 2,
            simulated: true,
            lanes: vec![card(Lane::KCache, Policy::KCache(Knobs::default())), card(Lane::Kv, Policy::Kv)],
        }));
    }

    fn open(&mut self, session: SessionId, name: &str) {
        self.push(EventKind::Session { session, name: name.into(), lanes: Lane::ALL.to_vec(), system: None });
    }

    fn said(&mut self, session: SessionId, document: Option<&str>, text: &str) {
        self.push(EventKind::Said { session, document: document.map(str::to_owned), text: text.into() });
        self.scheduled(session, Scheduling::Waiting);
        self.t_ms += 20.0;
    }

    fn scheduled(&mut self, session: SessionId, state: Scheduling) {
        for lane in Lane::ALL {
            self.push(EventKind::Scheduled { lane, session, step: self.step + 1, state });
        }
    }

    fn prefill(&mut self, session: SessionId, until: usize, total: usize) {
        self.scheduled(session, Scheduling::Running);
        for done in (0..=until).step_by(128) {
            self.step += 1;
            self.push(EventKind::Prefill { session, lane: None, step: self.step, done, total });
            let stages = Stages { linear_ms: 480.0, prefill_ms: 180.0, other_ms: 40.0, ..Stages::default() };
            self.step_event(None, 0, 128, stages, done);
            self.t_ms += 700.0;
            self.host();
        }
    }

    fn step_event(&mut self, lane: Option<Lane>, decode: usize, prefill: usize, stages: Stages, context: usize) {
        let total_ms = stages.named().iter().map(|(_, ms)| ms).sum();
        let ours = lane == Some(Lane::KCache);
        self.push(EventKind::Step(Step {
            lane,
            step: self.step,
            decode_rows: decode,
            prefill_rows: prefill,
            total_ms,
            stages,
            context,
            rows_per_head: lane.map(|_| if ours { 145.0 } else { context as f64 }),
            host_v_read_bytes: if ours { 29 * 9 * 128 * 128 } else { 0 },
            device_read_bytes: KV_BYTES / 2 * context as u64,
            probes: 0,
            probe_read_bytes: 0,
            rows_chosen: 0,
            rows_fetched: 0,
        }));
    }

    fn host(&mut self) {
        self.push(EventKind::Host(HostSample {
            process_rss_bytes: Some(412 << 20),
            process_cpu_percent: Some(170.0 + 20.0 * noise(self.t_ms as usize) as f32),
            cpu_percent: Some(88.0),
            memory_used_bytes: Some(3 << 30),
            memory_total_bytes: Some(16 << 30),
        }));
    }

    /// Decodes `count` tokens in both lanes, which part at `parts`.
    fn decode(&mut self, session: SessionId, context: usize, count: usize, parts: usize) {
        let words: Vec<&str> = WORDS.split_inclusive(' ').collect();
        self.scheduled(session, Scheduling::Running);
        for index in 0..count {
            self.step += 1;
            for lane in Lane::ALL {
                let ours = lane == Lane::KCache;
                let at = self.events.len();
                let stages = Stages {
                    linear_ms: 21.0 + 2.0 * noise(at),
                    scores_ms: if ours { 2.1 } else { 2.0 } + noise(at + 1),
                    select_ms: if ours { 0.6 } else { 0.0 },
                    gather_ms: if ours { 1.2 } else { 4.4 } + noise(at + 2),
                    head_ms: 3.5,
                    sampling_ms: 0.1,
                    other_ms: 1.1,
                    ..Stages::default()
                };
                let total: f64 = stages.named().iter().map(|(_, ms)| ms).sum();
                self.t_ms += total;
                self.step_event(Some(lane), 1, 0, stages, context + index);
                let parted = ours && index >= parts;
                let word = words[(index + usize::from(parted)) % words.len()];
                self.push(EventKind::Token(Token {
                    lane,
                    session,
                    step: self.step,
                    index,
                    token_id: 1_000 + (index + usize::from(parted)) as u32,
                    text: if index == 0 { word.trim_start().to_owned() } else { word.to_owned() },
                    itl_ms: (index > 0).then_some(total * 2.0),
                    kept_mass: ours.then_some(0.93 + 0.05 * noise(at) as f32),
                }));
                self.ledger(lane, (context + index) as u64);
            }
            if index % 4 == 3 {
                self.hits();
                self.push(EventKind::Probe(Probe {
                    lane: Lane::KCache,
                    session,
                    step: self.step,
                    position: context + index,
                    kl: 0.004 * noise(index),
                    agree: index != 7,
                    kept_mass: Some(0.95),
                    full: false,
                }));
            }
            if index % 16 == 15 {
                self.host();
            }
        }
    }

    fn ledger(&mut self, lane: Lane, tokens: u64) {
        let half = KV_BYTES / 2 * tokens;
        let (device, host) = match lane {
            Lane::KCache => (
                TierBytes { weights: 98_362_432, k: half, v: half / 30, tail: 23_040, workspace: 262_144 },
                TierBytes { v: half / 30 * 29, ..TierBytes::default() },
            ),
            Lane::Kv => {
                (TierBytes { weights: 98_362_432, k: half, v: half, tail: 0, workspace: 262_144 }, TierBytes::default())
            }
        };
        self.push(EventKind::Ledger(Ledger {
            lane,
            step: self.step,
            device,
            host,
            budget_bytes: Some(64 << 20),
            kv_equivalent_bytes: KV_BYTES * tokens + 262_144,
            tokens: tokens as usize,
            sequences: 1,
        }));
    }

    fn hits(&mut self) {
        let layer = |layer: usize| {
            let count = |bucket: usize| {
                let near = 400.0 / (1.0 + bucket as f64) * (1.0 + noise(layer * 31 + bucket));
                let sink = if bucket == 9 || bucket == 10 { 150.0 * noise(layer + 7) } else { 0.0 };
                if bucket <= 10 { (near + sink) as u64 } else { 0 }
            };
            if layer == 0 { vec![0; DISTANCE_BUCKETS] } else { (0..DISTANCE_BUCKETS).map(count).collect() }
        };
        self.push(EventKind::Hits(Hits {
            lane: Lane::KCache,
            step: self.step,
            tokens: 4,
            distance: (0..LAYERS).map(layer).collect(),
            sink_share: 0.11,
            recent_share: 0.54,
            kept_mass: (0..LAYERS).map(|l| if l == 0 { 1.0 } else { 0.86 + 0.13 * noise(l) as f32 }).collect(),
        }));
    }

    fn finish(&mut self, session: SessionId, tokens: usize) {
        for lane in Lane::ALL {
            self.push(EventKind::Finished(Finished {
                lane,
                session,
                step: self.step,
                reason: FinishReason::Stop,
                usage: Usage {
                    reused_tokens: 0,
                    prompt_tokens: 512,
                    completion_tokens: tokens,
                    queued_ms: Some(12.0),
                    ttft_ms: Some(3_600.0),
                    total_ms: 8_000.0,
                },
            }));
        }
    }
}
