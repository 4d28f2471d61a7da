//! A recorded run in the same screen: its events go through the same `update` and `view` as live ones.

use std::collections::BTreeSet;

use crossterm::event::KeyEvent;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer};

use crate::{
    config::{Borders, Config, ThemeName},
    demo::scripts,
    engine::{Event, EventKind},
};

use super::{
    app::RunError,
    input::keymap::{Key, Keymap},
    message::Message,
    picture::{self, Palette},
    state::{State, demo::Demo},
    theme::{ColorDepth, TerminalEnv, Theme},
    update::update,
    view::view,
};

/// Scales follow what is on show this often, as they do live.
const TICK_MS: f64 = 100.0;

/// A dashboard that is fed with recorded events.
#[derive(Debug)]
pub struct Replay {
    state: State,
    ticked_ms: f64,
    borders: Borders,
    /// What the program asks by itself. A recording does not say who asked.
    demo: BTreeSet<String>,
}

impl Replay {
    /// An empty screen of that many columns and rows.
    ///
    /// # Errors
    ///
    /// Key bindings in the configuration that cannot be used, or a demo that cannot be read.
    pub fn new(config: &Config, (columns, rows): (u16, u16)) -> Result<Self, RunError> {
        let mut state = State::new(config, Keymap::new(&config.keys)?, Demo::default());
        state.recorded = true;
        update(&mut state, Message::Resized(columns, rows));
        let demo = scripts()?.into_iter().flat_map(|script| script.questions).collect();
        Ok(Self { state, ticked_ms: f64::NEG_INFINITY, borders: config.screen.borders, demo })
    }

    /// Takes in the next event. What it would ask of an engine is left: the recording has the answer.
    pub fn event(&mut self, event: Event) {
        let asked = match &event.kind {
            EventKind::Said { session, text, .. } => Some((*session, self.demo.contains(text))),
            _ => None,
        };
        update(&mut self.state, Message::Engine(event));
        if let Some((session, demo)) = asked
            && let Some(session) = self.state.by_id(session)
        {
            session.demo = demo;
        }
        if self.state.engine_ms - self.ticked_ms >= TICK_MS {
            self.tick();
        }
    }

    /// Presses a key. What needs an engine has no effect.
    pub fn key(&mut self, key: Key) {
        let (code, modifiers) = key.event();
        update(&mut self.state, Message::Key(KeyEvent::new(code, modifiers)));
        self.state.toasts.clear();
    }

    /// The screen as it is now, as an SVG picture.
    pub fn svg(&mut self, theme: ThemeName) -> String {
        self.tick();
        let (theme, palette) = match theme {
            ThemeName::Auto | ThemeName::Dark => (Theme::dark(ColorDepth::Rgb), Palette::DARK),
            ThemeName::Light => (Theme::light(ColorDepth::Rgb), Palette::LIGHT),
            name => (Theme::resolve(name, &TerminalEnv::truecolour()), Palette::DARK),
        };
        // A picture is no terminal that would have a say.
        let theme = theme.with_borders(self.borders, &TerminalEnv::truecolour());
        picture::svg(&self.draw(&theme), &palette)
    }

    fn tick(&mut self) {
        self.ticked_ms = self.state.engine_ms;
        update(&mut self.state, Message::Tick(self.ticked_ms));
    }

    fn draw(&self, theme: &Theme) -> Buffer {
        let (columns, rows) = self.state.size;
        let Ok(mut terminal) = Terminal::new(TestBackend::new(columns, rows));
        let Ok(frame) = terminal.draw(|frame| view(&self.state, theme, frame));
        frame.buffer.clone()
    }
}
