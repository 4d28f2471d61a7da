//! What things look like: roles with names, so that no widget knows a colour.
//!
//! The dark and the light theme use the terminal's own 16 colours; only ramps of data (the heat map) use more where the
//! terminal says that it has them. `mono` uses bold, dim and reverse alone. The colour-blind theme takes the palette
//! of Okabe and Ito. In every theme two series differ by more than hue: KCache is solid with ●, the baseline is dashed
//! with ○, and what only might have been is dotted with ◌.

mod heat;
mod terminal;

use ratatui::{
    style::{Color, Modifier, Style},
    widgets::BorderType,
};

use crate::{config::ThemeName, engine::Lane};

pub use heat::Heat;
pub use terminal::{ColorDepth, TerminalEnv};

/// How the line of a series runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// Without a break.
    Solid,
    /// In dashes.
    Dashed,
    /// In dots.
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
    /// Ordinary text.
    pub text: Style,
    /// What is there but not to be read first: axes, units, hints.
    pub dim: Style,
    /// The frame of a pane.
    pub frame: Style,
    /// The frame of the pane that has the focus.
    pub focus: Style,
    /// The border of the pane that has the focus, so that it stands out without colour as well.
    pub focus_border: BorderType,
    /// Titles of panes.
    pub title: Style,
    /// The lane under test.
    pub kcache: SeriesLook,
    /// The baseline.
    pub kv: SeriesLook,
    /// What an ordinary KV cache would hold.
    pub ghost: SeriesLook,
    /// Better, or well.
    pub good: Style,
    /// To be looked at.
    pub warn: Style,
    /// Wrong.
    pub bad: Style,
    /// A moment at which a knob was turned.
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

    /// How a lane's series look.
    pub fn lane(&self, lane: Lane) -> SeriesLook {
        match lane {
            Lane::KCache => self.kcache,
            Lane::Kv => self.kv,
        }
    }

    /// For dark backgrounds.
    pub fn dark(depth: ColorDepth) -> Self {
        use Color::{
            Blue, Cyan, DarkGray, Gray, Green, LightBlue, LightGreen, LightMagenta, LightRed, LightYellow, Magenta,
            White, Yellow,
        };
        let ramp = [0x1b2b3c, 0x1d4e6b, 0x1c7488, 0x2a9c86, 0x6cbf6a, 0xc2d457, 0xf7d64a, 0xfff0a8];
        let ansi = [DarkGray, Blue, Cyan, Green, LightGreen, Yellow, LightYellow, White];
        Self {
            stages: [Blue, Cyan, Yellow, Green, Magenta, LightBlue, LightMagenta, Gray].map(|c| on(c, Color::Black)),
            owners: [Gray, LightBlue, Green, Yellow, Magenta].map(|c| on(c, Color::Black)),
            ..Self::coloured(
                depth,
                Heat::ramp(depth, &ramp, &ansi),
                [Cyan, LightMagenta, LightGreen, Yellow, LightRed, LightBlue],
            )
        }
    }

    /// For light backgrounds.
    pub fn light(depth: ColorDepth) -> Self {
        use Color::{Black, Blue, Cyan, DarkGray, Gray, Green, LightBlue, LightCyan, LightRed, Magenta, Red, Yellow};
        let ramp = [0xe3edf5, 0xc3dbec, 0x97c1dc, 0x66a3c9, 0x3f83b0, 0x286292, 0x184371, 0x0b264a];
        let ansi = [Gray, LightCyan, Cyan, LightBlue, Blue, Magenta, DarkGray, Black];
        Self {
            stages: [Blue, Cyan, Yellow, Green, Magenta, LightBlue, LightRed, DarkGray].map(|c| on(c, Color::White)),
            owners: [DarkGray, Blue, Green, Yellow, Magenta].map(|c| on(c, Color::White)),
            bad: Style::new().fg(Red).add_modifier(Modifier::BOLD.union(Modifier::UNDERLINED)),
            ..Self::coloured(depth, Heat::ramp(depth, &ramp, &ansi), [Blue, Magenta, Green, Red, Red, Cyan])
        }
    }

    /// Colours that differ for every kind of colour vision: the palette of Okabe and Ito.
    pub fn colour_blind(depth: ColorDepth, light: bool) -> Self {
        let ink = if light { Color::White } else { Color::Black };
        let pick = |rgb, ansi| if depth >= ColorDepth::Indexed256 { depth.colour(rgb) } else { ansi };
        let orange = pick(0xe69f00, Color::Yellow);
        let sky = pick(0x56b4e9, Color::LightCyan);
        let green = pick(0x009e73, Color::Green);
        let yellow = pick(0xf0e442, Color::LightYellow);
        let blue = pick(0x0072b2, Color::Blue);
        let vermilion = pick(0xd55e00, Color::LightRed);
        let purple = pick(0xcc79a7, Color::Magenta);
        let grey = pick(0x999999, Color::Gray);
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
        let roles = if light {
            [blue, vermilion, green, orange, vermilion, purple]
        } else {
            [sky, orange, green, yellow, vermilion, purple]
        };
        Self {
            stages: [blue, sky, yellow, green, purple, orange, vermilion, grey].map(|c| on(c, ink)),
            owners: [grey, sky, green, yellow, purple].map(|c| on(c, ink)),
            ..Self::coloured(depth, heat, roles)
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
            text: plain,
            dim,
            frame: dim,
            focus: bold,
            focus_border: BorderType::Thick,
            title: bold,
            kcache: SeriesLook { style: bold, symbol: "●", pattern: Pattern::Solid },
            kv: SeriesLook { style: plain, symbol: "○", pattern: Pattern::Dashed },
            ghost: SeriesLook { style: dim, symbol: "◌", pattern: Pattern::Dotted },
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

    /// What the coloured themes have in common. `roles`: KCache, baseline, good, warn, bad, mark.
    fn coloured(depth: ColorDepth, heat: Heat, roles: [Color; 6]) -> Self {
        let [kcache, kv, good, warn, bad, mark] = roles;
        let plain = Style::new();
        let bold = plain.add_modifier(Modifier::BOLD);
        // Dimmed default text is readable in every palette; bright black is the background in some.
        let dim = plain.add_modifier(Modifier::DIM);
        Self {
            text: plain,
            dim,
            frame: dim,
            focus: plain.fg(kcache),
            focus_border: BorderType::Rounded,
            title: bold,
            kcache: SeriesLook { style: plain.fg(kcache), ..Self::mono().kcache },
            kv: SeriesLook { style: plain.fg(kv), ..Self::mono().kv },
            good: plain.fg(good),
            warn: plain.fg(warn),
            bad: bold.fg(bad),
            mark: plain.fg(mark),
            budget: plain.fg(warn),
            cursor: plain.add_modifier(Modifier::REVERSED),
            selection: plain.add_modifier(Modifier::REVERSED),
            knob: bold.fg(mark),
            key: bold,
            depth,
            heat,
            ..Self::mono()
        }
    }
}

/// A part of a bar in that colour.
fn on(colour: Color, ink: Color) -> Fill {
    Fill { colour, ink, glyph: "█" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(no_color: &str, colorterm: &str, term: &str, colorfgbg: &str) -> TerminalEnv {
        let some = |text: &str| Some(text.to_owned());
        TerminalEnv {
            no_color: some(no_color),
            colorterm: some(colorterm),
            term: some(term),
            colorfgbg: some(colorfgbg),
        }
    }

    fn all() -> Vec<Theme> {
        [ColorDepth::Ansi16, ColorDepth::Indexed256, ColorDepth::Rgb]
            .into_iter()
            .flat_map(|depth| {
                [
                    Theme::dark(depth),
                    Theme::light(depth),
                    Theme::colour_blind(depth, false),
                    Theme::colour_blind(depth, true),
                ]
            })
            .chain([Theme::mono()])
            .collect()
    }

    #[test]
    fn the_terminal_decides() {
        let dark = Theme::resolve(ThemeName::Auto, &TerminalEnv::default());
        assert_eq!(dark, Theme::dark(ColorDepth::Ansi16));
        let auto = |env| Theme::resolve(ThemeName::Auto, &env);
        assert_eq!(auto(env("1", "truecolor", "xterm", "")), Theme::mono());
        assert_eq!(auto(env("", "", "dumb", "")), Theme::mono());
        assert_eq!(auto(env("", "truecolor", "xterm", "0;15")), Theme::light(ColorDepth::Rgb));
        assert_eq!(auto(env("", "24bit", "xterm", "15;0")), Theme::dark(ColorDepth::Rgb));
        assert_eq!(auto(env("", "", "tmux-256color", "")), Theme::dark(ColorDepth::Indexed256));
        let named = Theme::resolve(ThemeName::Dark, &env("1", "", "xterm", ""));
        assert_eq!(named, Theme::dark(ColorDepth::Ansi16), "a theme asked for by name goes before NO_COLOR");
    }

    #[test]
    fn series_never_differ_by_hue_alone() {
        for theme in all() {
            assert_eq!((theme.kcache.pattern, theme.kcache.symbol), (Pattern::Solid, "●"));
            assert_eq!((theme.kv.pattern, theme.kv.symbol), (Pattern::Dashed, "○"));
            assert_eq!((theme.ghost.pattern, theme.ghost.symbol), (Pattern::Dotted, "◌"));
        }
    }

    #[test]
    fn sixteen_colours_unless_the_terminal_has_more() {
        let is_ansi = |colour: Color| !matches!(colour, Color::Rgb(..) | Color::Indexed(_));
        for theme in all() {
            let fills = theme.stages.iter().chain(&theme.owners).map(|fill| fill.colour);
            let roles = [theme.kcache.style, theme.kv.style, theme.good, theme.warn, theme.bad, theme.mark];
            let mut colours: Vec<_> = roles.iter().filter_map(|style| style.fg).chain(fills).collect();
            if let (Heat::Colours(ramp), ColorDepth::Ansi16) = (&theme.heat, theme.depth) {
                colours.extend(ramp);
            }
            let okabe_ito = theme.depth > ColorDepth::Ansi16 && theme.kcache.style.fg.is_some_and(|c| !is_ansi(c));
            assert!(okabe_ito || colours.iter().all(|&colour| is_ansi(colour)), "{theme:?}");
        }
    }

    #[test]
    fn mono_has_no_colour_and_parts_differ() {
        let theme = Theme::mono();
        let Theme {
            text, dim, frame, focus, title, good, warn, bad, mark, budget, cursor, selection, knob, key, ..
        } = theme;
        let series = [theme.kcache.style, theme.kv.style, theme.ghost.style];
        let roles = [text, dim, frame, focus, title, good, warn, bad, mark, budget, cursor, selection, knob, key];
        assert!(roles.iter().chain(&series).all(|style| style.fg.is_none() && style.bg.is_none()));
        for fills in [&theme.stages[..], &theme.owners[..]] {
            assert!(fills.iter().all(|fill| fill.colour == Color::Reset && fill.ink == Color::Reset));
            let glyphs: std::collections::HashSet<_> = fills.iter().map(|fill| fill.glyph).collect();
            assert_eq!(glyphs.len(), fills.len());
        }
    }

    #[test]
    fn heat_has_steps_and_tells_little_from_nothing() {
        for theme in all() {
            assert!(theme.heat.steps() >= if theme.depth == ColorDepth::Mono { 5 } else { 8 });
            let top = theme.heat.steps() - 1;
            assert_eq!([-1.0, 0.0, f64::NAN, 1e-9, 1.0, 9.0].map(|i| theme.heat.step(i)), [0, 0, 0, 1, top, top]);
        }
    }
}
