//! What things look like: roles with names, so that no widget knows a colour.
//!
//! Every theme of colours paints its own background, so that it can be read on any terminal: a light theme on a dark
//! terminal as well. Where the terminal has no more than 16 colours those are used, else colours of which text and
//! background are known to differ enough. `mono` uses bold, dim and reverse alone, on the terminal's own background.
//! The colour-blind theme takes the palette of Okabe and Ito. In every theme two series differ by more than hue: KCache
//! is solid with ●, the baseline is dashed with ○, and what only might have been is dotted with ◌.

mod contrast;
mod heat;
mod terminal;

use ratatui::{
    style::{Color, Modifier, Style},
    widgets::BorderType,
};

use crate::{
    config::{Borders, ThemeName},
    engine::Lane,
};

pub use contrast::ink;
#[cfg(test)]
pub use contrast::legibility;
pub use heat::Heat;
pub use terminal::{ColorDepth, TerminalEnv};

/// How the line of a series runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    Solid,
    Dashed,
    Dotted,
}

/// How a series looks, wherever it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeriesLook {
    /// Its colour, or bold or dim.
    pub style: Style,
    /// Its sign in legends and at the end of its line; one column wide.
    pub symbol: &'static str,
    /// Its line.
    pub pattern: Pattern,
}

/// How one part of a stacked bar looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Its colour; `Reset` in mono, where the glyph tells it from its neighbours.
    pub colour: Color,
    /// The colour of text on it.
    pub ink: Color,
    /// What fills its cells; one column wide.
    pub glyph: &'static str,
}

/// The roles that things on the screen play, and how each looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Theme {
    /// How many colours it may use.
    pub depth: ColorDepth,
    /// What letters without a colour of their own are drawn in.
    pub foreground: Color,
    /// What is behind everything; `Reset` is the terminal's own.
    pub background: Color,
    /// Whether lines, blocks and signs are drawn in ASCII.
    pub ascii: bool,
    pub text: Style,
    /// What is there but not to be read first: axes, units, hints.
    pub dim: Style,
    /// The frame of a pane.
    pub frame: Style,
    /// The frame of the pane that has the focus.
    pub focus: Style,
    /// The border of the pane that has the focus, so that it stands out without colour as well.
    pub focus_border: BorderType,
    pub title: Style,
    pub kcache: SeriesLook,
    pub kv: SeriesLook,
    /// What an ordinary KV cache would hold.
    pub kv_equivalent: SeriesLook,
    pub good: Style,
    pub warn: Style,
    pub bad: Style,
    /// A moment at which a knob was changed.
    pub mark: Style,
    /// A limit that must not be passed.
    pub budget: Style,
    /// The cursor of the charts.
    pub cursor: Style,
    /// What is selected in a list.
    pub selection: Style,
    /// The value of a knob.
    pub knob: Style,
    /// The name of a key.
    pub key: Style,
    /// Steps of the heat map.
    pub heat: Heat,
    /// The stages of a step, in the order of [`Stages::named`](crate::engine::Stages::named).
    pub stages: [Fill; 8],
    /// The owners of bytes: weights, K, V, tail, workspace.
    pub owners: [Fill; 5],
}

impl Theme {
    /// The theme of that name on such a terminal. `auto` honours `NO_COLOR` and a dumb terminal and takes the light
    /// theme where `COLORFGBG` says so; a theme that was asked for by name is taken as asked.
    pub fn resolve(name: ThemeName, env: &TerminalEnv) -> Self {
        let (depth, light) = (env.depth(), env.has_light_background());
        match name {
            ThemeName::Auto if env.wants_no_color() => Self::mono(),
            ThemeName::Auto if light => Self::light(depth),
            ThemeName::Auto | ThemeName::Dark => Self::dark(depth),
            ThemeName::Light => Self::light(depth),
            ThemeName::Mono => Self::mono(),
            ThemeName::ColourBlind => Self::colour_blind(depth, light),
        }
    }

    /// The same theme with lines and signs as they are asked for; `auto` looks at what the terminal says.
    pub fn with_borders(self, borders: Borders, env: &TerminalEnv) -> Self {
        let ascii = match borders {
            Borders::Auto => env.wants_ascii(),
            Borders::Unicode => false,
            Borders::Ascii => true,
        };
        Self { ascii, ..self }
    }

    /// How a lane's series look.
    pub fn lane(&self, lane: Lane) -> SeriesLook {
        match lane {
            Lane::KCache => self.kcache,
            Lane::Kv => self.kv,
        }
    }

    pub fn dark(depth: ColorDepth) -> Self {
        use Color::{
            Black, Blue, Cyan, DarkGray, Gray, Green, LightBlue, LightGreen, LightMagenta, LightRed, LightYellow,
            Magenta, White, Yellow,
        };
        let ramp = [0x1b2b3c, 0x1d4e6b, 0x1c7488, 0x2a9c86, 0x6cbf6a, 0xc2d457, 0xf7d64a, 0xfff0a8];
        let ansi = [DarkGray, Blue, Cyan, Green, LightGreen, Yellow, LightYellow, White];
        let grey = (0xb4bdc8, Gray);
        let [blue, cyan, yellow, green] = [(0x4f86c6, Blue), (0x4fb3bf, Cyan), (0xe0b05c, Yellow), (0x7fb96b, Green)];
        let [magenta, sky, pink] = [(0xb07fc4, Magenta), (0x7faee8, LightBlue), (0xd39ce0, LightMagenta)];
        Self {
            stages: [blue, cyan, yellow, green, magenta, sky, pink, grey].map(|pair| on(depth.of(pair))),
            owners: [grey, sky, green, yellow, magenta].map(|pair| on(depth.of(pair))),
            ..Self::coloured(
                depth,
                Heat::ramp(depth, &ramp, &ansi),
                [(0xd8dee6, White), (0x11151c, Black), (0x8a94a0, Gray)],
                // The bright blue of 16 colours can hardly be read on black.
                [cyan, pink, (0x9cd684, LightGreen), yellow, (0xf07f7a, LightRed), (0x7faee8, White)],
            )
        }
    }

    pub fn light(depth: ColorDepth) -> Self {
        use Color::{
            Black, Blue, Cyan, DarkGray, Gray, Green, LightBlue, LightCyan, LightRed, Magenta, Red, White, Yellow,
        };
        let ramp = [0xe3edf5, 0xc3dbec, 0x97c1dc, 0x66a3c9, 0x3f83b0, 0x286292, 0x184371, 0x0b264a];
        let ansi = [Gray, LightCyan, Cyan, LightBlue, Blue, Magenta, DarkGray, Black];
        let grey = (0x76808c, DarkGray);
        let [blue, cyan, yellow, green] = [(0x2363b0, Blue), (0x1a808c, Cyan), (0xb57f10, Yellow), (0x3c8134, Green)];
        let [magenta, sky, red] = [(0x8e3fa0, Magenta), (0x5b93d8, LightBlue), (0xe06c55, LightRed)];
        Self {
            stages: [blue, cyan, yellow, green, magenta, sky, red, grey].map(|pair| on(depth.of(pair))),
            owners: [grey, blue, green, yellow, magenta].map(|pair| on(depth.of(pair))),
            bad: Style::new().fg(depth.of((0xb42318, Red))).add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED)),
            ..Self::coloured(
                depth,
                Heat::ramp(depth, &ramp, &ansi),
                [(0x242a33, Black), (0xfbfbf9, White), (0x5c6672, Black)],
                // Green, yellow and cyan of 16 colours cannot be read on white.
                [blue, magenta, (0x2f7028, Black), (0x8a5a00, Black), (0xb42318, Red), (0x0f6b76, Black)],
            )
        }
    }

    /// Colours that differ for every kind of colour vision: the palette of Okabe and Ito; on a light background those
    /// of its colours that text is written in are darker.
    pub fn colour_blind(depth: ColorDepth, light: bool) -> Self {
        let orange = (0xe69f00, Color::Yellow);
        let sky = (0x56b4e9, Color::LightCyan);
        let green = (0x009e73, Color::Green);
        let yellow = (0xf0e442, Color::LightYellow);
        let blue = (0x0072b2, Color::Blue);
        let vermilion = (0xd55e00, Color::LightRed);
        let purple = (0xcc79a7, Color::Magenta);
        let grey = (0x999999, Color::Gray);
        // The steps of cividis, which grow evenly in lightness; from light to dark on a light background.
        let ramp = [0x0f2f5b, 0x34456b, 0x555b6c, 0x737475, 0x918d78, 0xb2a774, 0xd5c164, 0xfde737];
        let mut back = ramp;
        back.reverse();
        let ansi = [
            Color::DarkGray,
            Color::Blue,
            Color::LightBlue,
            Color::Gray,
            Color::Yellow,
            Color::LightYellow,
            Color::White,
            Color::White,
        ];
        let ansi_light = [
            Color::Gray,
            Color::LightYellow,
            Color::Yellow,
            Color::LightBlue,
            Color::Blue,
            Color::DarkGray,
            Color::Black,
            Color::Black,
        ];
        let heat = if light { Heat::ramp(depth, &back, &ansi_light) } else { Heat::ramp(depth, &ramp, &ansi) };
        let ground = if light {
            [(0x242a33, Color::Black), (0xfbfbf9, Color::White), (0x5c6672, Color::Black)]
        } else {
            [(0xd8dee6, Color::White), (0x11151c, Color::Black), (0x8a94a0, Color::Gray)]
        };
        let roles = if light {
            let (red, ink) = ((0xa94700, Color::Red), Color::Black);
            [(0x0068a3, Color::Blue), red, (0x00704f, ink), (0x835800, ink), red, (0x93446c, Color::Magenta)]
        } else {
            [sky, orange, green, yellow, (0xe0701a, Color::LightRed), (purple.0, Color::White)]
        };
        Self {
            stages: [blue, sky, yellow, green, purple, orange, vermilion, grey].map(|pair| on(depth.of(pair))),
            owners: [grey, sky, green, yellow, purple].map(|pair| on(depth.of(pair))),
            ..Self::coloured(depth, heat, ground, roles)
        }
    }

    /// No colour: bold, dim, underlined and reversed, and patterns for parts.
    pub fn mono() -> Self {
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        let dim = plain.add_modifier(Modifier::DIM);
        let reversed = plain.add_modifier(Modifier::REVERSED);
        let part = |glyph| Fill { colour: Color::Reset, ink: Color::Reset, glyph };
        Self {
            depth: ColorDepth::Mono,
            foreground: Color::Reset,
            background: Color::Reset,
            ascii: false,
            text: plain,
            dim,
            frame: dim,
            focus: bold,
            focus_border: BorderType::Thick,
            title: bold,
            kcache: SeriesLook { style: bold, symbol: "●", pattern: Pattern::Solid },
            kv: SeriesLook { style: plain, symbol: "○", pattern: Pattern::Dashed },
            kv_equivalent: SeriesLook { style: dim, symbol: "◌", pattern: Pattern::Dotted },
            good: plain,
            warn: bold,
            bad: bold.add_modifier(Modifier::REVERSED),
            mark: plain,
            budget: bold,
            cursor: reversed,
            selection: reversed,
            knob: bold,
            key: bold,
            heat: Heat::Shades([" ", "░", "▒", "▓", "█"]),
            stages: ["█", "▒", "╱", "▓", "▚", "░", "=", "·"].map(part),
            owners: ["▒", "█", "▓", "╱", "·"].map(part),
        }
    }

    /// What the coloured themes have in common. `ground`: text, background, dimmed text; `roles`: KCache, baseline,
    /// good, warn, bad, mark; each as it is where there are many colours, and where there are 16.
    fn coloured(depth: ColorDepth, heat: Heat, ground: [(u32, Color); 3], roles: [(u32, Color); 6]) -> Self {
        let [foreground, background, dimmed] = ground.map(|pair| depth.of(pair));
        let [kcache, kv, good, warn, bad, mark] = roles.map(|pair| depth.of(pair));
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        // Of 16 colours none is sure to be a readable grey: bright black is the background in some palettes.
        let faint = if depth == ColorDepth::Ansi16 { Modifier::DIM } else { Modifier::empty() };
        let dim = plain.fg(dimmed).add_modifier(faint);
        // What has no colour of its own stands out by weight.
        let coloured = |colour| if colour == foreground { bold.fg(colour) } else { plain.fg(colour) };
        let mono = Self::mono();
        Self {
            foreground,
            background,
            text: plain,
            dim,
            frame: dim,
            focus: plain.fg(kcache),
            focus_border: BorderType::Rounded,
            title: bold,
            kcache: SeriesLook { style: plain.fg(kcache), ..mono.kcache },
            kv: SeriesLook { style: plain.fg(kv), ..mono.kv },
            kv_equivalent: SeriesLook { style: dim, ..mono.kv_equivalent },
            good: coloured(good),
            warn: coloured(warn),
            bad: bold.fg(bad),
            mark: coloured(mark),
            budget: coloured(warn),
            cursor: plain.add_modifier(Modifier::REVERSED),
            selection: plain.add_modifier(Modifier::REVERSED),
            knob: bold.fg(mark),
            key: bold,
            depth,
            heat,
            ..mono
        }
    }
}

/// A part of a bar in that colour.
fn on(colour: Color) -> Fill {
    Fill { colour, ink: ink(colour), glyph: "█" }
}

#[cfg(test)]
mod tests;
