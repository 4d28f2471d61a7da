//! Compare mode on the screen: the key, the marks in the transcript, the chart of the KL.

use ratatui::style::Modifier;

use super::*;
use crate::tui::state::{Chart, figures::Judge};

fn compared(columns: u16, rows: u16) -> State {
    let mut state = fixture::state(columns, rows);
    for event in fixture::compared() {
        update(&mut state, Message::Engine(event));
    }
    let now = state.engine_ms;
    update(&mut state, Message::Tick(now));
    state
}

/// Every run of cells in which `wanted` holds, as text, row by row.
fn marked(buffer: &Buffer, wanted: impl Fn(Modifier) -> bool) -> Vec<String> {
    let mut runs = Vec::new();
    for row in buffer.content.chunks(usize::from(buffer.area.width)) {
        for run in row.split(|cell| !wanted(cell.modifier)) {
            let text: String = run.iter().map(|cell| cell.symbol()).collect();
            if !text.trim().is_empty() {
                runs.push(text.trim().to_owned());
            }
        }
    }
    runs
}

#[test]
fn the_key_switches_and_opens_a_session_where_there_is_none() {
    let mut state = fixture::state(120, 40);
    press(&mut state, &["esc"]);
    let id = state.session().unwrap().id;
    assert_eq!(ops(&press(&mut state, &["c"])), [&Request::Compare { session: id, on: true }]);
    assert!(!state.session().unwrap().compare, "the engine has the word");
    let kind = EventKind::CompareMode { session: id, on: true };
    update(&mut state, Message::Engine(Event { t_ms: 1.0, kind }));
    assert!(text(&state).contains("KCache · compare"));
    assert_eq!(ops(&press(&mut state, &["c"])), [&Request::Compare { session: id, on: false }]);

    let mut state = fixture::empty(120, 40);
    press(&mut state, &["esc"]);
    assert!(matches!(ops(&press(&mut state, &["c"]))[..], [Request::Open { .. }, Request::Compare { on: true, .. }]));
}

#[test]
fn what_kcache_would_have_said_is_marked_with_and_without_colour() {
    let state = compared(120, 40);
    let found = state.session().unwrap().turns.last().unwrap().comparison.clone().unwrap();
    assert_eq!((found.same, found.kl.len(), found.otherwise[0].index), (37, 40, 12));
    for theme in [dark(), Theme::mono(), Theme::colour_blind(ColorDepth::Rgb, false)] {
        let buffer = draw(&state, &theme);
        let first = marked(&buffer, |cell| cell.contains(Modifier::REVERSED | Modifier::BOLD));
        assert_eq!(first.iter().filter(|text| *text == "asked").count(), 2, "in both lanes: {first:?}");
        let others = marked(&buffer, |cell| cell.contains(Modifier::UNDERLINED));
        assert_eq!(others, ["Marta", "back,"], "in the KCache lane");
    }
    let screen = text(&compared(200, 60));
    for words in ["≠ first at 13: \"motor\"", "92.5 % agree", "KL to KV, in nats"] {
        assert!(screen.contains(words), "{words}: {screen}");
    }
}

#[test]
fn the_compared_screen_at_every_size() {
    for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
        let state = compared(columns, rows);
        insta::assert_snapshot!(format!("compare_{columns}x{rows}"), text(&state));
    }
    let mut state = compared(100, 30);
    state.chart = Chart::Divergence;
    press(&mut state, &["esc", "2", "z"]);
    insta::assert_snapshot!("divergence_100x30", text(&state));
}

#[test]
fn lanes_that_go_on_apart_are_said_to_and_are_not_mixed_with_what_was_compared() {
    let mut state = compared(120, 40);
    let id = state.session().unwrap().id;
    let reason = "kv has ended: stopped".to_owned();
    let kind = EventKind::Unlocked { session: id, index: 40, reason };
    update(&mut state, Message::Engine(Event { t_ms: 70_000.0, kind }));
    assert!(text(&state).contains("! apart from token 41 on: kv has ended: stopped"));
    for lane in Lane::ALL {
        let kind = EventKind::Token(crate::engine::Token {
            lane,
            session: id,
            step: 900,
            index: 40,
            token_id: lane as u32,
            text: "x".into(),
            itl_ms: None,
            kept_mass: None,
        });
        update(&mut state, Message::Engine(Event { t_ms: 70_001.0, kind }));
    }
    let turn = state.session().unwrap().turns.last().unwrap();
    assert_eq!((turn.comparison.as_ref().unwrap().kl.len(), turn.together.parted), (40, Some(40)));
    let quality = state.figures().quality.unwrap();
    assert_eq!((quality.judge, quality.agreed, quality.of), (Judge::Compare, 37, 40));
    assert!(text(&state).contains("≠ agree 37/40"), "{}", text(&state));
}
