//! The dashboard as a whole, without a terminal: events and keys in, a buffer out.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

use super::{
    command::Command,
    fixture,
    input::action::Action,
    message::Message,
    state::{Focus, Overlay, Preset, State},
    theme::{ColorDepth, TerminalEnv, Theme},
    update::update,
    view::view,
};
use crate::{
    cache::{Knobs, Policy, Tail},
    config::ThemeName,
    engine::{Event, EventKind, Lane, Priority, Request, SessionId},
    telemetry::GpuSample,
};

mod attention;
mod compare;
mod extras;
mod keys;
mod look;
mod random;
mod recordings;
mod saved;
mod workload;

fn draw(state: &State, theme: &Theme) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(state.size.0, state.size.1)).unwrap();
    terminal.draw(|frame| view(state, theme, frame)).unwrap();
    terminal.backend().buffer().clone()
}

fn dark() -> Theme {
    Theme::dark(ColorDepth::Rgb)
}

fn text(state: &State) -> String {
    let buffer = draw(state, &dark());
    let rows = buffer.content.chunks(usize::from(buffer.area.width.max(1)));
    rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned() + "\n").collect()
}

fn key(text: &str) -> KeyEvent {
    let (modifiers, code) = match text.rsplit_once('-').filter(|(before, _)| !before.is_empty()) {
        Some(("ctrl", code)) => (KeyModifiers::CONTROL, code),
        Some(("alt", code)) => (KeyModifiers::ALT, code),
        _ => (KeyModifiers::NONE, text),
    };
    let code = match code {
        "enter" => KeyCode::Enter,
        "esc" => KeyCode::Esc,
        "tab" => KeyCode::Tab,
        "up" => KeyCode::Up,
        "down" => KeyCode::Down,
        "left" => KeyCode::Left,
        "right" => KeyCode::Right,
        "space" => KeyCode::Char(' '),
        "backspace" => KeyCode::Backspace,
        one => KeyCode::Char(one.chars().next().unwrap()),
    };
    KeyEvent::new(code, modifiers)
}

fn press(state: &mut State, keys: &[&str]) -> Vec<Command> {
    keys.iter().flat_map(|text| update(state, Message::Key(key(text)))).collect()
}

fn typed(state: &mut State, text: &str) -> Vec<Command> {
    text.chars()
        .flat_map(|c| update(state, Message::Key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE))))
        .collect()
}

fn ops(commands: &[Command]) -> Vec<&Request> {
    commands
        .iter()
        .filter_map(|command| match command {
            Command::Engine(op) => Some(op),
            _ => None,
        })
        .collect()
}

#[test]
fn screens() {
    for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
        let mut state = fixture::state(columns, rows);
        insta::assert_snapshot!(format!("both_{columns}x{rows}"), text(&state));
        press(&mut state, &["esc", "2"]);
        insta::assert_snapshot!(format!("charts_{columns}x{rows}"), text(&state));
    }
    let mut state = fixture::state(100, 30);
    press(&mut state, &["esc", "4"]);
    insta::assert_snapshot!("figures_100x30", text(&state));
    for (columns, rows) in [(80, 24), (120, 40)] {
        let mut state = fixture::state(columns, rows);
        press(&mut state, &["esc", "4"]);
        insta::assert_snapshot!(format!("figures_{columns}x{rows}"), text(&state));
    }
    press(&mut state, &["?"]);
    insta::assert_snapshot!("help_100x30", text(&state));
    insta::assert_snapshot!("empty_80x24", text(&fixture::empty(80, 24)));
}

#[test]
fn full_lanes_show_who_waits_who_was_preempted_and_why_one_was_refused() {
    for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
        let mut state = fixture::state(columns, rows);
        for event in fixture::full() {
            update(&mut state, Message::Engine(event));
        }
        update(&mut state, Message::Tick(70_000.0));
        insta::assert_snapshot!(format!("full_{columns}x{rows}"), text(&state));
        press(&mut state, &["alt-k"]);
        insta::assert_snapshot!(format!("refused_{columns}x{rows}"), text(&state));
    }
    let mut state = fixture::state(100, 30);
    fixture::full().into_iter().for_each(|event| drop(update(&mut state, Message::Engine(event))));
    state.chart = super::state::Chart::Queue;
    press(&mut state, &["esc", "z"]);
    insta::assert_snapshot!("queue_100x30", text(&state));
}

#[test]
fn without_colour_the_screen_says_the_same() {
    let env = TerminalEnv { no_color: Some("1".into()), ..TerminalEnv::default() };
    assert_eq!(Theme::resolve(ThemeName::Auto, &env), Theme::mono());
    let buffer = draw(&fixture::state(120, 40), &Theme::mono());
    for cell in &buffer.content {
        use ratatui::style::Color::Reset;
        assert_eq!((cell.fg, cell.bg), (Reset, Reset), "{:?}", cell.symbol());
    }
    let rows = buffer.content.chunks(120);
    let text: String = rows.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect();
    insta::assert_snapshot!("mono_120x40", text);
}

#[test]
fn what_must_be_seen_is_seen_on_a_small_screen() {
    let mut state = fixture::state(80, 24);
    let screen = text(&state);
    let device: String = screen.lines().nth(22).unwrap().chars().take(27).collect();
    assert!(device.contains('●') && device.contains('○') && device.contains("MiB"), "both lanes: {device}");
    state.recorded = true;
    update(&mut state, Message::Resized(60, 20));
    let screen = text(&state);
    let header = screen.lines().next().unwrap();
    assert!(header.contains("simulated") && header.contains("recorded") && header.contains("n=256"), "{header}");
}

#[test]
fn a_frozen_screen_keeps_collecting_and_stands_still() {
    let mut state = fixture::state(120, 40);
    press(&mut state, &["esc", "space"]);
    let (span, points) = (state.span().to_ms, state.metrics.lanes[0].step_ms.len());
    assert!(text(&state).contains("FROZEN"));
    for event in fixture::events().into_iter().skip(10).take(400) {
        let t_ms = state.engine_ms + event.t_ms;
        update(&mut state, Message::Engine(Event { t_ms, ..event }));
    }
    assert_eq!(state.span().to_ms, span);
    assert!(state.metrics.lanes[0].step_ms.len() > points);
    press(&mut state, &["left"]);
    assert!(state.cursor_ms().unwrap() < span);
    press(&mut state, &["space"]);
    assert!(state.span().to_ms > span && state.cursor_ms().is_none());
}

#[test]
fn an_error_is_one_line_with_its_place_and_frees_the_session() {
    let mut state = fixture::state(120, 40);
    let kind = EventKind::Error {
        lane: Some(Lane::Kv),
        session: Some(SessionId(2)),
        message: "the budget is full\nsecond line".into(),
    };
    update(&mut state, Message::Engine(Event { t_ms: 1.0, kind }));
    let screen = text(&state);
    assert!(screen.contains("Bridge minutes, kv: the budget is full"), "{screen}");
    assert!(!state.sessions[1].phase(Lane::Kv).busy() && state.sessions[1].phase(Lane::KCache).busy());
}

#[test]
fn a_stopped_engine_leaves_a_screen_to_read() {
    let mut state = fixture::state(120, 40);
    let kind = EventKind::Stopped { error: Some("out of memory".into()) };
    update(&mut state, Message::Engine(Event { t_ms: 1.0, kind }));
    let screen = text(&state);
    assert!(screen.contains("out of memory · everything stays readable") && screen.contains("Marta"), "{screen}");
    typed(&mut state, "hello");
    assert!(press(&mut state, &["enter"]).is_empty());
    assert_eq!(press(&mut state, &["esc", "q"]), [Command::Quit]);
}

#[test]
fn a_gpu_gets_its_chart_and_an_unknown_value_its_reason() {
    let mut state = fixture::state(200, 60);
    assert!(!text(&state).contains("NVML"));
    let sample = |index, memory_used_bytes, missing: Option<&str>| GpuSample {
        index,
        name: "Test GPU".into(),
        memory_used_bytes,
        memory_total_bytes: Some(80 << 30),
        process_memory_bytes: None,
        utilization_percent: Some(40),
        temperature_c: None,
        power_w: None,
        pcie_rx_kib_s: None,
        pcie_tx_kib_s: None,
        missing: missing.map(str::to_owned),
    };
    for sample in [sample(1, Some(3 << 30), None), sample(0, None, Some("NoPermission"))] {
        let t_ms = state.engine_ms;
        update(&mut state, Message::Engine(Event { t_ms, kind: EventKind::Gpu(sample) }));
    }
    press(&mut state, &["esc", "2"]);
    let screen = text(&state);
    assert!(screen.contains("GPU memory (NVML)") && screen.contains("3.00 GiB"), "{screen}");
    assert!(screen.contains("Test GPU of 80.0 GiB, busy 40.0 % · n/a: NoPermission"), "{screen}");
    // A recording of a driver that nobody should believe.
    let nonsense = GpuSample { memory_total_bytes: Some(0), ..sample(0, Some(u64::MAX), None) };
    let t_ms = state.engine_ms;
    update(&mut state, Message::Engine(Event { t_ms, kind: EventKind::Gpu(nonsense) }));
    let screen = text(&state);
    assert!(screen.contains("n/a: memory: a total of 0 bytes is no size of a GPU"), "{screen}");
}

#[test]
fn help_does_what_is_chosen() {
    let mut state = fixture::state(100, 30);
    press(&mut state, &["esc", "?"]);
    typed(&mut state, "freeze");
    assert!(text(&state).contains("Freezes"));
    press(&mut state, &["enter"]);
    assert!(state.frozen.is_some() && state.overlay == Overlay::None);
}

#[test]
fn scrolling_up_stays_while_words_stream_and_down_follows_again() {
    let mut state = fixture::state(80, 24);
    state.focus = Focus::Transcript(Lane::KCache);
    press(&mut state, &["up", "up", "up"]);
    let top = state.sessions[0].top[0];
    assert!(top.is_some());
    let kind = fixture::events()
        .into_iter()
        .rev()
        .find_map(|event| match event.kind {
            EventKind::Token(token) if token.lane == Lane::KCache => {
                let index = state.sessions[0].turns.last().unwrap().answer(Lane::KCache).tokens.len();
                Some(EventKind::Token(crate::engine::Token { index, text: "\nmore\nlines".into(), ..token }))
            }
            _ => None,
        })
        .unwrap();
    update(&mut state, Message::Engine(Event { t_ms: 1.0, kind }));
    assert_eq!(state.sessions[0].top[0], top);
    press(&mut state, &["G"]);
    assert_eq!(state.sessions[0].top[0], None);
}

#[test]
fn every_action_is_done_without_harm_everywhere() {
    for preset in [Preset::Both, Preset::Chat, Preset::Charts, Preset::Figures, Preset::Attention] {
        for &action in Action::ALL {
            let mut state = fixture::state(80, 24);
            state.preset = preset;
            super::update::actions::act(&mut state, action);
            draw(&state, &dark());
        }
    }
}

fn any_message() -> impl Strategy<Value = Message> {
    let code = prop_oneof![
        8 => prop::sample::select(" abcdefghijklmnopqrstuvwxyzGHJKLDTPé你/?+-=[]{}0123456789".chars().collect::<Vec<_>>())
            .prop_map(KeyCode::Char),
        2 => prop::sample::select(vec![
            KeyCode::Enter, KeyCode::Esc, KeyCode::Tab, KeyCode::BackTab, KeyCode::Up, KeyCode::Down, KeyCode::Left,
            KeyCode::Right, KeyCode::Home, KeyCode::End, KeyCode::PageUp, KeyCode::PageDown, KeyCode::Backspace,
            KeyCode::Delete, KeyCode::F(2), KeyCode::F(3), KeyCode::F(4), KeyCode::F(5), KeyCode::F(6), KeyCode::F(9),
        ]),
    ];
    let modifiers = prop_oneof![
        6 => Just(KeyModifiers::NONE),
        1 => Just(KeyModifiers::CONTROL),
        2 => Just(KeyModifiers::ALT),
        1 => Just(KeyModifiers::SHIFT),
    ];
    let mouse = (0u16..300, 0u16..100, 0..3usize).prop_map(|(column, row, kind)| {
        let kinds = [MouseEventKind::Down(MouseButton::Left), MouseEventKind::ScrollUp, MouseEventKind::ScrollDown];
        Message::Mouse(MouseEvent { kind: kinds[kind], column, row, modifiers: KeyModifiers::NONE })
    });
    prop_oneof![
        20 => (code, modifiers).prop_map(|(code, modifiers)| Message::Key(KeyEvent::new(code, modifiers))),
        1 => "[a-z\n\r\t\u{1b}你]{0,40}".prop_map(Message::Paste),
        2 => (0u16..=300, 0u16..=100).prop_map(|(columns, rows)| Message::Resized(columns, rows)),
        1 => mouse,
        1 => (0.0..1e6f64).prop_map(Message::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_keys_at_no_size_panic(
        columns in 0u16..=300, rows in 0u16..=100, begun in any::<bool>(),
        messages in prop::collection::vec(any_message(), 0..40),
    ) {
        let mut state = if begun { fixture::state(columns, rows) } else { fixture::empty(columns, rows) };
        let themes = [dark(), Theme::mono()];
        draw(&state, &themes[0]);
        for (at, message) in messages.into_iter().enumerate() {
            update(&mut state, message);
            if at % 3 == 0 {
                draw(&state, &themes[at % 2]);
            }
        }
        draw(&state, &themes[1]);
    }

    #[test]
    fn every_size_is_drawn(columns in 0u16..=40, rows in 0u16..=20) {
        draw(&fixture::state(columns, rows), &dark());
    }
}
