//! The attention view: who is looked at, what is chosen, and that what was read is seen with and without colour.

use ratatui::style::{Color, Modifier};

use super::*;
use crate::tui::theme::Heat;

fn looked_at(columns: u16, rows: u16) -> State {
    let mut state = fixture::state(columns, rows);
    press(&mut state, &["esc", "5"]);
    for event in fixture::looked_at() {
        update(&mut state, Message::Engine(event));
    }
    state
}

#[test]
fn the_engine_looks_at_what_is_on_show_and_only_while_it_is() {
    let mut state = fixture::state(120, 40);
    press(&mut state, &["esc"]);
    let [first, second] = [0, 1].map(|at| state.sessions[at].id);
    assert_eq!(ops(&press(&mut state, &["5"])), [&Request::Inspect(Some((first, Lane::KCache)))]);
    assert!(press(&mut state, &["right"]).is_empty(), "asked once");
    assert_eq!(ops(&press(&mut state, &["J"])), [&Request::Inspect(Some((second, Lane::KCache)))]);
    assert_eq!(ops(&press(&mut state, &["3"])), [&Request::Inspect(None)]);
    assert_eq!(state.focus, Focus::Charts);
}

#[test]
fn screens_at_every_size() {
    for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
        let mut state = looked_at(columns, rows);
        insta::assert_snapshot!(format!("attention_{columns}x{rows}"), text(&state));
        press(&mut state, &["down", "down", "right", "down", ","]);
        insta::assert_snapshot!(format!("attention_head_{columns}x{rows}"), text(&state));
    }
    let mut state = fixture::state(80, 24);
    press(&mut state, &["esc", "5"]);
    insta::assert_snapshot!("attention_nothing_80x24", text(&state));
}

/// Cells of the text whose word was chosen by most heads, and by none.
#[test]
fn what_was_read_stands_out() {
    let mut state = looked_at(120, 40);
    let screen = |state: &State, theme: &Theme| {
        let buffer = draw(state, theme);
        let at = |column, row| {
            let cell = &buffer[(column, row)];
            (cell.fg, cell.bg, cell.modifier)
        };
        // The first position of the text, which is a sink, and a word far from everything that was read.
        (at(1, 4), at(40, 5))
    };
    state.attention.top = Some(0);
    let Heat::Colours(ramp) = dark().heat else { panic!("dark has colours") };
    let (sink, far) = screen(&state, &dark());
    assert_eq!((sink.1, far.1), (*ramp.last().unwrap(), dark().background));
    assert_eq!(sink.0, Color::Rgb(0, 0, 0), "it can be read");
    let (sink, far) = screen(&state, &Theme::mono());
    assert!(sink.2.contains(Modifier::REVERSED | Modifier::BOLD) && !far.2.contains(Modifier::REVERSED));
    assert_eq!((sink.0, sink.1), (Color::Reset, Color::Reset));
    let (sink, far) = screen(&state, &Theme::colour_blind(ColorDepth::Rgb, false));
    assert_ne!(sink.1, far.1);
}

#[test]
fn a_token_is_chosen_and_the_last_one_followed() {
    let mut state = looked_at(120, 40);
    let chosen = |state: &State| state.attention.chosen().map(|read| read.index);
    assert_eq!(chosen(&state), Some(21));
    press(&mut state, &[",", ","]);
    assert_eq!(chosen(&state), Some(19));
    assert!(text(&state).contains("What token 20 read"));
    let events = fixture::looked_at().into_iter().filter_map(|event| match event.kind {
        EventKind::Read(read) => Some(crate::engine::Read { index: read.index + 30, len: read.len + 30, ..read }),
        _ => None,
    });
    for read in events.take(3) {
        update(&mut state, Message::Engine(Event { t_ms: 61_000.0, kind: EventKind::Read(read) }));
    }
    assert_eq!(chosen(&state), Some(19), "what comes does not move it");
    press(&mut state, &["."]);
    assert_eq!(chosen(&state), Some(20));
    press(&mut state, &["G"]);
    assert_eq!((chosen(&state), state.attention.is_chosen()), (Some(33), false));
    let session = state.sessions[1].id;
    let kind = EventKind::Text { session, lane: Lane::KCache, from: 0, texts: vec!["other".into()] };
    update(&mut state, Message::Engine(Event { t_ms: 62_000.0, kind }));
    assert_eq!(chosen(&state), None, "another session's tokens read something else");
}

#[test]
fn the_curve_has_todays_rows_marked() {
    let mut state = looked_at(120, 40);
    let (curve, rows, kept) = state.attention.mean().unwrap();
    let at = state.attention.curves().unwrap().n.iter().position(|&n| n == 128).unwrap();
    assert!(rows == 128.0 && (curve[at] - kept).abs() < 1e-6);
    let screen = text(&state);
    let label = format!("N 128 keeps {:.1} %", kept * 100.0);
    assert!(screen.contains(&label), "{label}: {screen}");
    // A dense layer has no heads: nothing of one is shown as known.
    press(&mut state, &["right"]);
    assert_eq!(state.attention.head, Some([1, 0]), "the first that chooses");
    press(&mut state, &["up"]);
    assert!(text(&state).contains("L0 H0  n/a"), "{}", text(&state));
}

#[test]
fn a_recording_shows_what_was_compared_and_looked_at() {
    let mut replay = crate::tui::Replay::new(&crate::config::Config::default(), (120, 40)).unwrap();
    let recorded = fixture::events().into_iter().chain(fixture::compared()).chain(fixture::looked_at());
    for event in recorded {
        let line = serde_json::to_string(&event).unwrap();
        let read: Event = serde_json::from_str(&line).unwrap();
        // The last bit of a figure may differ: what is read is what kind of event it was.
        assert_eq!(std::mem::discriminant(&read.kind), std::mem::discriminant(&event.kind), "{line}");
        replay.event(read);
    }
    let words = |svg: &str, words: &str| words.split(' ').all(|word| svg.contains(word));
    assert!(words(&replay.svg(ThemeName::Dark), "compare agree KL"), "compared");
    ["esc", "5"].iter().for_each(|key| replay.key(key.parse().unwrap()));
    assert!(words(&replay.svg(ThemeName::Mono), "keeps read last"), "looked at");
}
