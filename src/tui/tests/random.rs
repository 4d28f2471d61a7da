//! Keys, pastes, sizes and events without sense, in an order that is the same in every run.

use super::*;

/// A random number below a bound.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn key(&mut self) -> KeyEvent {
        const LETTERS: [char; 22] = [
            'a', 'c', 'g', 'G', 'i', 'j', 'k', 'n', 't', 'w', 'x', 'y', 'z', 'u', '/', '?', '1', '5', ' ', '你', '👍',
            '🏽',
        ];
        const CODES: [KeyCode; 16] = [
            KeyCode::Enter,
            KeyCode::Esc,
            KeyCode::Tab,
            KeyCode::BackTab,
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::Left,
            KeyCode::Right,
            KeyCode::Home,
            KeyCode::End,
            KeyCode::PageUp,
            KeyCode::PageDown,
            KeyCode::Backspace,
            KeyCode::Delete,
            KeyCode::F(4),
            KeyCode::F(6),
        ];
        let modifiers =
            [KeyModifiers::NONE, KeyModifiers::NONE, KeyModifiers::NONE, KeyModifiers::ALT, KeyModifiers::CONTROL];
        let code = if self.below(2) == 0 { KeyCode::Char(self.of(&LETTERS)) } else { self.of(&CODES) };
        KeyEvent::new(code, self.of(&modifiers))
    }
}

#[test]
fn the_same_keys_sizes_and_events_do_no_harm_in_every_run() {
    let events: Vec<Event> = fixture::events().into_iter().chain(fixture::full()).collect();
    let themes = [dark(), Theme::mono()];
    let pastes = ["one\ntwo\r\nthree", "\u{1b}[31mred", "ｶﾞｷﾞX\t\u{200b}\u{202e}", "/load sessions=2,context=64", "👨‍👩‍👧‍👦"];
    for seed in 0..6 {
        let mut random = Random(seed);
        let mut state = if seed % 2 == 0 { fixture::state(80, 24) } else { fixture::empty(120, 40) };
        for at in 0..1_500 {
            let message = match random.below(20) {
                0 => Message::Resized(random.below(220) as u16, random.below(70) as u16),
                1 => Message::Paste(random.of(&pastes).to_owned()),
                2 => Message::Tick(state.clock_ms + random.below(3_000) as f64),
                3 => Message::EngineGone,
                4..8 => {
                    let Event { t_ms, kind } = events[random.below(events.len())].clone();
                    Message::Engine(Event { t_ms: state.engine_ms + t_ms % 50.0, kind })
                }
                _ => Message::Key(random.key()),
            };
            // An engine that has gone answers nothing more: late enough that the rest is seen with one.
            if message == Message::EngineGone && at < 1_200 {
                continue;
            }
            update(&mut state, message);
            if at % 5 == 0 {
                let (columns, rows) = state.size;
                let buffer = draw(&state, &themes[at % 2]);
                assert_eq!((buffer.area.width, buffer.area.height), (columns, rows));
            }
            assert!(state.selected == 0 || state.selected < state.sessions.len());
        }
    }
}
