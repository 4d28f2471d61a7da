//! The figures of the screen against sums over the recording: two lanes under one budget with a load on both, recorded as
//! JSON lines and read back.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use candle_core::quantized::GgmlDType;
use kcache::{
    bench::Workload,
    config::Config,
    engine::{
        Delivered, Engine, EngineOptions, Event, EventKind, FinishReason, Lane, LaneOptions, Request, Scheduling,
        SessionId,
    },
    quality::GuardOptions,
    tui::{
        input::keymap::Keymap,
        message::Message,
        state::{
            State,
            demo::Demo,
            figures::{Figures, Judge},
            metrics::Since,
        },
        theme::Theme,
        update::update,
        view::view,
        widgets::Unit,
    },
};
use ratatui::{Terminal, backend::TestBackend};
use support::tiny::Tiny;

const SESSIONS: usize = 14;

/// Runs a load to its end, then turns a knob of the KCache lane while nobody is asked anything. As it would be recorded.
fn recorded() -> Vec<Event> {
    let (heads, kv_heads, head_dim) = (4, 2, 32);
    let (hidden, ffn, dtype) = (128, 128, GgmlDType::Q8_0);
    let shape = Tiny { layers: 8, context: 256, hidden, heads, kv_heads, head_dim, ffn, dtype, ..Tiny::default() };
    let model = support::open(&shape);
    // Room for five answers of three pages where K and V are on the device, and for more where V is not.
    let rows = kcache::engine::workspace_bytes(&model, 2, 32, 1);
    let budget = rows + 5 * 3 * model.cache_shape().kv_bytes(64) + (64 << 10);
    let lane = |lane, policy: &str| LaneOptions {
        lane,
        policy: policy.parse().unwrap(),
        device_budget: Some(budget),
        host_budget: None,
    };
    let options = EngineOptions {
        threads: 2,
        prefill_chunk: 32,
        lanes: vec![lane(Lane::KCache, "kcache:n=16,dense=0,tail=none"), lane(Lane::Kv, "kv")],
        guard: GuardOptions { probe_every: 4, ..GuardOptions::OFF },
        ..EngineOptions::default()
    };
    let (engine, events) = Engine::start(model, options).unwrap();
    let mut load = Workload::new((3..250).collect());
    load.start(format!("sessions={SESSIONS},context=120,tokens=48,rate=all").parse().unwrap());
    let mut lines = Vec::new();
    let mut keep = |event: &Event| lines.push(serde_json::to_string(event).unwrap());
    let began = Instant::now();
    while load.is_active() {
        for op in load.due(began.elapsed().as_secs_f64() * 1e3) {
            engine.ops().send(op).unwrap();
        }
        let Some(event) = events.recv_timeout(Duration::from_millis(5)) else { continue };
        keep(&event);
        for op in load.note(&event.kind).unwrap_or_default() {
            engine.ops().send(op).unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{}", load.summary());
    }
    let policy = "kcache:n=24,dense=0,tail=none".parse().unwrap();
    engine.ops().send(Request::SetPolicy { lane: Lane::KCache, policy }).unwrap();
    drop(engine);
    std::iter::from_fn(|| events.recv()).for_each(|event| keep(&event));
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn screen(events: &[Event]) -> State {
    let mut state = State::new(&Config::default(), Keymap::default(), Demo::default());
    update(&mut state, Message::Resized(120, 40));
    for event in events {
        update(&mut state, Message::Engine(event.clone()));
    }
    state
}

fn text(state: &State) -> String {
    let mut terminal = Terminal::new(TestBackend::new(state.size.0, state.size.1)).unwrap();
    terminal.draw(|frame| view(state, &Theme::mono(), frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let rows = buffer.content.chunks(usize::from(buffer.area.width));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
}

/// Sums over the events of one lane, made without the screen.
#[derive(Default)]
struct Summed {
    decoded: f64,
    decode_ms: f64,
    tokens: u64,
    finished: u64,
    first_ms: Option<f64>,
    last_ms: f64,
    running: BTreeSet<SessionId>,
    peak: u64,
    asked: BTreeMap<SessionId, f64>,
    waits: Vec<f64>,
    kept: (f64, f64),
    probes: (u64, u64, f64),
    said: Option<Delivered>,
}

fn summed(events: &[Event], lane: Lane) -> Summed {
    let mut sum = Summed::default();
    for Event { t_ms, kind } in events {
        let t_ms = *t_ms;
        match kind {
            EventKind::Step(step) if step.lane == Some(lane) && step.decode_rows > 0 => {
                sum.decoded += step.decode_rows as f64;
                sum.decode_ms += step.total_ms;
            }
            EventKind::Token(token) if token.lane == lane => {
                sum.tokens += 1;
                let kept = token.kept_mass.map(f64::from);
                sum.kept = (sum.kept.0 + kept.unwrap_or(0.0), sum.kept.1 + f64::from(u8::from(kept.is_some())));
            }
            EventKind::Scheduled { lane: of, session, state, .. } if *of == lane => {
                sum.first_ms.get_or_insert(t_ms);
                match state {
                    Scheduling::Waiting => drop(sum.asked.insert(*session, t_ms)),
                    Scheduling::Running => {
                        sum.running.insert(*session);
                        sum.peak = sum.peak.max(sum.running.len() as u64);
                        sum.waits.extend(sum.asked.remove(session).map(|asked| t_ms - asked));
                    }
                    Scheduling::Preempted | Scheduling::Freed => drop(sum.running.remove(session)),
                }
            }
            EventKind::Finished(finished) if finished.lane == lane => {
                assert_eq!(finished.reason, FinishReason::Length);
                sum.finished += 1;
                sum.last_ms = t_ms;
                sum.running.remove(&finished.session);
                let usage = finished.usage;
                assert!(usage.queued_ms.unwrap() <= usage.ttft_ms.unwrap(), "{usage:?}");
            }
            EventKind::Probe(probe) if probe.lane == lane => {
                let (agree, of, kl) = sum.probes;
                sum.probes = (agree + u64::from(probe.agree), of + 1, kl + probe.kl);
            }
            EventKind::Queue(queue) if queue.lane == lane => sum.said = queue.delivered,
            _ => {}
        }
    }
    sum.waits.sort_by(f64::total_cmp);
    sum
}

fn near(found: Option<f64>, wanted: f64) {
    let found = found.unwrap();
    assert!((found - wanted).abs() <= wanted.abs() * 1e-6, "{found}, and the sums say {wanted}");
}

#[test]
fn the_figures_of_the_screen_are_the_sums_of_the_recording() {
    let events = recorded();
    let knob = events.iter().position(|event| matches!(event.kind, EventKind::Knob { .. })).unwrap();
    let mut state = screen(&events[..knob]);
    let figures: Figures = state.figures();
    let sums = Lane::ALL.map(|lane| summed(&events, lane));
    for (lane, sum) in Lane::ALL.into_iter().zip(&sums) {
        let at = lane as usize;
        let delivered = figures.delivered[at];
        near(figures.tok_s[at], sum.decoded * 1e3 / sum.decode_ms);
        near(delivered.tok_s(), sum.tokens as f64 * 1e3 / (sum.last_ms - sum.first_ms.unwrap()));
        let found = (delivered.tokens, delivered.finished, delivered.running, delivered.peak, delivered.since);
        let all = (SESSIONS * 48) as u64;
        assert_eq!((sum.tokens, sum.finished), (all, SESSIONS as u64), "{lane}");
        assert_eq!(found, (all, SESSIONS as u64, Some(0), Some(sum.peak), Since::Load), "{lane}");
        let rank = |share: f64| sum.waits[(sum.waits.len() as f64 * share).ceil() as usize - 1];
        let (p50, p99) = delivered.queued_ms.unwrap();
        near(Some(p50), rank(0.5));
        near(Some(p99), rank(0.99));
        // The lines say the same without anybody adding up.
        let said = sum.said.unwrap();
        assert_eq!((said.tokens, said.finished, said.running_peak as u64), (all, SESSIONS as u64, sum.peak), "{lane}");
        assert_eq!(said.decoded_tokens as f64, sum.decoded, "{lane}");
        near(Some(said.decode_ms), sum.decode_ms);
        assert!(said.queued_ms_p50.is_some() && said.queued_ms_p50 <= said.queued_ms_p99, "{said:?}");
    }
    let [ours, theirs] = &sums;
    assert!(ours.peak > theirs.peak, "more answers fit where V lies elsewhere: {} and {}", ours.peak, theirs.peak);
    near(figures.kept, ours.kept.0 / ours.kept.1);
    let quality = figures.quality.unwrap();
    let (agree, of, kl) = ours.probes;
    assert_eq!((quality.judge, quality.agreed, quality.of), (Judge::Probes, agree, of));
    near(quality.kl, kl / of as f64);
    let prefill = events.iter().fold((0.0, 0.0), |(tokens, ms), event| match &event.kind {
        EventKind::Step(step) if step.decode_rows == 0 => (tokens + step.prefill_rows as f64, ms + step.total_ms),
        _ => (tokens, ms),
    });
    near(figures.prefill_tok_s, prefill.0 * 1e3 / prefill.1);

    // What stands on the screen is these, by name.
    state.preset = kcache::tui::state::Preset::Figures;
    let large = text(&state).replace(['\n', '│', '╭', '╮'], " ");
    let words: Vec<&str> = large.split_whitespace().collect();
    let large = words.join(" ");
    let times = |of: [f64; 2]| format!("{:.2} times", of[0] / of[1]);
    let wall = sums.each_ref().map(|sum| sum.tokens as f64 * 1e3 / (sum.last_ms - sum.first_ms.unwrap()));
    let own = sums.each_ref().map(|sum| sum.decoded * 1e3 / sum.decode_ms);
    for wanted in [times(wall), times(own), Unit::TokensPerSecond.text(Some(wall[1])), "while the load".to_owned()] {
        let wanted = wanted.split(' ').all(|word| large.contains(word));
        assert!(wanted, "{large}");
    }

    // A knob of one lane, changed while nobody is asked anything.
    let after = screen(&events[..=knob]);
    let turned = after.figures();
    assert_eq!(turned.tok_s[1], figures.tok_s[1], "the other lane's figures stay");
    assert_eq!((turned.step_ms[1], turned.delivered[1]), (figures.step_ms[1], figures.delivered[1]));
    assert_eq!((turned.tok_s[0], turned.kept, turned.quality), (None, None, None), "its own begin anew");
    assert_eq!((turned.delivered[0].since, turned.delivered[0].tok_s()), (Since::Knob, None));
}
