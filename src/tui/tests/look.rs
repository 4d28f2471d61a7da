//! How the screen looks whatever is on it: in every theme, in ASCII, with unruly text, and where there is little room.

use std::{
    cell::RefCell,
    io::{self, Write},
    rc::Rc,
};

use ratatui::{
    TerminalOptions, Viewport,
    backend::CrosstermBackend,
    layout::Rect,
    style::{Color, Modifier},
};

use super::*;
use crate::tui::{state::Chart, theme::legibility, widgets::width};

/// Texts that terminals, ratatui and Unicode's tables do not measure alike.
const UNRULY: [&str; 12] = [
    "ｶﾞｷﾞX ﾊﾟﾋﾟ ﾜﾞ ｱﾞ ﾞend",
    "한글 \u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af} \u{1161}end",
    "e\u{301}a\u{308}\u{323} \u{301}lone z\u{300}\u{301}\u{302}\u{303}\u{304}\u{305}\u{306}end",
    "family 👨\u{200d}👩\u{200d}👧 tone 👍🏽 both 👩🏽\u{200d}🚀 end",
    "heart ❤\u{fe0f} watch ⌚\u{fe0e} key 1\u{fe0f}\u{20e3}end",
    "flags 🇯🇵🇩🇪 one 🇯 tags 🏴\u{e0067}\u{e007f}end",
    "a\tb\t\tc",
    "no\u{200b}width\u{200d}here\u{feff}\u{ad}end",
    "\u{202e}turned\u{202c} \u{2066}kept\u{2069}\u{200f}end",
    "क्षि नमस्ते ภาษาไทย end",
    "لا إله שלום end",
    "你好，世界！ﾞ🙂🧵end",
];

/// Every view, every overlay, and what can be said in them, at a size.
fn screens(columns: u16, rows: u16) -> Vec<(String, State)> {
    let mut screens = vec![("empty".to_owned(), fixture::empty(columns, rows))];
    let begun = || fixture::state(columns, rows);
    for preset in ["1", "2", "3", "4", "5"] {
        let mut state = begun();
        press(&mut state, &["esc", preset]);
        screens.push((format!("view {preset}"), state));
    }
    for chart in begun().charts() {
        let mut state = begun();
        state.chart = chart;
        press(&mut state, &["esc", "2"]);
        screens.push((format!("chart {chart:?}"), state.clone()));
        press(&mut state, &["z", "space", "left"]);
        screens.push((format!("chart {chart:?} alone"), state));
    }
    for (name, events) in
        [("full", fixture::full()), ("compared", fixture::compared()), ("looked at", fixture::looked_at())]
    {
        let mut state = begun();
        for event in events {
            update(&mut state, Message::Engine(event));
        }
        let now = state.engine_ms;
        update(&mut state, Message::Tick(now));
        screens.push((name.to_owned(), state.clone()));
        press(&mut state, &["alt-k"]);
        screens.push((format!("{name}, another session"), state.clone()));
        press(&mut state, &["esc", "5"]);
        screens.push((format!("{name}, what was read"), state.clone()));
        press(&mut state, &["j", "j"]);
        screens.push((format!("{name}, a head"), state));
    }
    for (name, keys) in [("help", "?"), ("rename", "r"), ("close", "x"), ("load", "w")] {
        let mut state = begun();
        press(&mut state, &["esc", keys]);
        screens.push((name.to_owned(), state));
    }
    let mut waits = begun();
    typed(&mut waits, "and then?");
    press(&mut waits, &["enter"]);
    typed(&mut waits, "once more");
    press(&mut waits, &["enter"]);
    screens.push(("a message that waits".to_owned(), waits));
    for command in ["/", "/file ", "/load ", "/nothing"] {
        let mut state = begun();
        typed(&mut state, command);
        screens.push((command.to_owned(), state));
    }
    let mut stopped = begun();
    let error = Some("the engine ran out of memory while it computed a step of the KCache lane".to_owned());
    update(&mut stopped, Message::Engine(Event { t_ms: 1.0, kind: EventKind::Stopped { error } }));
    screens.push(("stopped".to_owned(), stopped));
    screens
}

fn themes() -> Vec<Theme> {
    let depths = [ColorDepth::Ansi16, ColorDepth::Indexed256, ColorDepth::Rgb];
    let of = |depth| {
        [Theme::dark(depth), Theme::light(depth), Theme::colour_blind(depth, false), Theme::colour_blind(depth, true)]
    };
    depths.into_iter().flat_map(of).collect()
}

#[test]
fn every_letter_can_be_read_in_every_theme_whatever_the_terminals_background() {
    for (name, state) in screens(80, 24).into_iter().chain(screens(160, 48)) {
        for theme in themes() {
            let buffer = draw(&state, &theme);
            for (at, cell) in buffer.content.iter().enumerate() {
                assert!(cell.fg != Color::Reset && cell.bg != Color::Reset, "{name}: {cell:?}");
                let letter = cell.symbol().chars().all(char::is_alphanumeric);
                if !letter || cell.modifier.contains(Modifier::DIM) && theme.depth == ColorDepth::Ansi16 {
                    continue;
                }
                let ratio = legibility(cell.fg, cell.bg).unwrap();
                let place = (at % usize::from(state.size.0), at / usize::from(state.size.0));
                assert!(ratio >= 4.5, "{name}, {place:?}: {ratio:.2} {cell:?} in {:?}", theme.background);
            }
        }
    }
}

#[test]
fn an_ordinary_prefill_is_no_alarm() {
    let mut state = fixture::empty(80, 24);
    for event in fixture::events().into_iter().take(12) {
        update(&mut state, Message::Engine(event));
    }
    for theme in themes() {
        let buffer = draw(&state, &theme);
        let rows: Vec<_> = buffer.content.chunks(80).collect();
        let prefill = rows.iter().find_map(|row| {
            let text: String = row[..20].iter().map(|cell| cell.symbol()).collect();
            (text.starts_with('│') && text.contains('%')).then(|| row[4].clone())
        });
        let fg = prefill.expect("the list tells how far a prompt is").fg;
        assert!(Some(fg) != theme.bad.fg && (Some(fg) != theme.warn.fg || fg == theme.foreground), "{fg:?}");
    }
}

#[test]
fn in_ascii_everything_drawn_is_ascii() {
    for (columns, rows) in [(80, 24), (160, 48)] {
        for (name, state) in screens(columns, rows) {
            for theme in [dark(), Theme::light(ColorDepth::Ansi16), Theme::mono()] {
                let buffer = draw(&state, &Theme { ascii: true, ..theme });
                for cell in &buffer.content {
                    assert!(cell.symbol().is_ascii(), "{name} at {columns}x{rows}: {:?}", cell.symbol());
                }
            }
        }
    }
    let mut state = fixture::state(80, 24);
    state.sessions[0].name = "Größe".into();
    let buffer = draw(&state, &Theme { ascii: true, ..dark() });
    let screen: String = buffer.content.iter().map(|cell| cell.symbol()).collect();
    assert!(screen.contains("Größe"), "what users write stays");
}

#[test]
fn nothing_is_cut_in_the_middle_of_a_word_on_a_small_screen() {
    for (name, state) in screens(80, 24) {
        width::watch::take();
        draw(&state, &dark());
        assert_eq!(width::watch::take(), [""; 0], "{name}\n{}", text(&state));
    }
}

/// A state in which everything that users and models can name is unruly.
fn unruly(columns: u16, rows: u16) -> State {
    let mut state = fixture::state(columns, rows);
    let id = state.sessions[0].id;
    for (at, text) in UNRULY.iter().enumerate() {
        if let Some(session) = state.sessions.get_mut(at) {
            session.name = (*text).to_owned();
        }
        let said = EventKind::Said { session: id, document: Some(format!("{text}.md")), text: (*text).to_owned() };
        update(&mut state, Message::Engine(Event { t_ms: 1.0, kind: said }));
        for lane in Lane::ALL {
            let token = crate::engine::Token {
                lane,
                session: id,
                step: 1,
                index: 0,
                token_id: lane as u32,
                text: UNRULY[..=at].join(" "),
                itl_ms: None,
                kept_mass: None,
            };
            update(&mut state, Message::Engine(Event { t_ms: 1.0, kind: EventKind::Token(token) }));
        }
    }
    let now = state.engine_ms;
    state.metrics.marks.push(now - 2_000.0, UNRULY[0]);
    if let Some(started) = &mut state.started {
        started.model = UNRULY[3].into();
    }
    state
}

/// What a terminal has been told.
#[derive(Clone, Default)]
struct Told(Rc<RefCell<Vec<u8>>>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A terminal, and what it shows.
struct Shown {
    told: Told,
    terminal: Terminal<CrosstermBackend<Told>>,
    parser: vt100::Parser,
}

impl Shown {
    fn new((columns, rows): (u16, u16)) -> Self {
        let told = Told::default();
        let options = TerminalOptions { viewport: Viewport::Fixed(Rect::new(0, 0, columns, rows)) };
        let terminal = Terminal::with_options(CrosstermBackend::new(told.clone()), options).unwrap();
        Self { told, terminal, parser: vt100::Parser::new(rows, columns, 0) }
    }

    /// Draws the next frame; returns the rows of the terminal.
    fn draw(&mut self, state: &State, theme: &Theme) -> Vec<String> {
        self.terminal.draw(|frame| view(state, theme, frame)).unwrap();
        self.parser.process(&self.told.0.take());
        self.parser.screen().rows(0, state.size.0).map(|row| row.trim_end().to_owned()).collect()
    }
}

#[test]
fn no_letter_of_an_earlier_frame_stays_whatever_the_text() {
    for size @ (columns, rows) in [(80, 24), (120, 40)] {
        let mut state = unruly(columns, rows);
        typed(&mut state, "x");
        for text in UNRULY {
            state.composer_mut().paste(text);
        }
        let mut states = vec![state.clone(), fixture::state(columns, rows)];
        for _ in 0..4 {
            press(&mut state, &["backspace", "backspace", "backspace"]);
            states.push(state.clone());
        }
        state.focus = Focus::Transcript(Lane::KCache);
        for _ in 0..12 {
            press(&mut state, &["up"]);
            states.push(state.clone());
        }
        for keys in [["alt-j"], ["5"], ["2"], ["3"], ["r"]] {
            press(&mut state, &keys);
            states.push(state.clone());
        }
        for theme in [dark(), Theme::mono()] {
            let mut shown = Shown::new(size);
            for (at, state) in states.iter().enumerate() {
                assert_eq!(shown.draw(state, &theme), Shown::new(size).draw(state, &theme), "frame {at}");
            }
        }
    }
}

#[test]
fn unruly_text_keeps_every_frame_in_its_column() {
    for (columns, rows) in [(80, 24), (120, 40), (200, 60)] {
        let edges = |mut state: State| {
            press(&mut state, &["esc", "1"]);
            let screen = Shown::new((columns, rows)).draw(&state, &dark());
            let of = |row: &String| {
                let places = row.match_indices(['│', '╮', '╯', '╭', '╰']);
                places.map(|(at, _)| width::width(&row[..at])).collect::<Vec<_>>()
            };
            screen.iter().map(of).collect::<Vec<_>>()
        };
        let (wild, tame) = (edges(unruly(columns, rows)), edges(fixture::state(columns, rows)));
        assert_eq!(wild, tame, "{}", text(&unruly(columns, rows)));
    }
}

#[test]
fn unruly_names_are_drawn_on_charts() {
    let mut state = unruly(120, 40);
    state.chart = Chart::Latency;
    press(&mut state, &["esc", "2", "z"]);
    assert!(text(&state).contains("ガ ギ X"), "{}", text(&state));
}
