//! What the terminal says that it can show.

use ratatui::style::Color;

/// How many colours the terminal says it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ColorDepth {
    /// None.
    Mono,
    /// The 16 of ANSI.
    Ansi16,
    /// The fixed palette of 256.
    Indexed256,
    /// Any.
    Rgb,
}

/// The environment variables that say what the terminal can show.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TerminalEnv {
    /// `NO_COLOR`: any text but the empty one asks for no colour.
    pub no_color: Option<String>,
    /// `COLORTERM`: `truecolor` or `24bit`.
    pub colorterm: Option<String>,
    /// `TERM`: `dumb`, `xterm-256color`, …
    pub term: Option<String>,
    /// `COLORFGBG`: `15;0`, the last number being the background.
    pub colorfgbg: Option<String>,
}

impl TerminalEnv {
    /// What the process was started with.
    pub fn read() -> Self {
        let get = |name| std::env::var(name).ok();
        Self { no_color: get("NO_COLOR"), colorterm: get("COLORTERM"), term: get("TERM"), colorfgbg: get("COLORFGBG") }
    }

    /// A terminal that can show every colour.
    pub fn truecolour() -> Self {
        Self { colorterm: Some("truecolor".into()), ..Self::default() }
    }

    /// Whether colours are not wanted, or cannot be shown.
    pub(super) fn wants_no_color(&self) -> bool {
        self.no_color.as_deref().is_some_and(|text| !text.is_empty()) || self.term.as_deref() == Some("dumb")
    }

    /// Whether the background is said to be light.
    pub(super) fn has_light_background(&self) -> bool {
        let background = self.colorfgbg.as_deref().and_then(|text| text.rsplit(';').next());
        matches!(background, Some("7" | "15"))
    }

    /// How many colours there are.
    pub(super) fn depth(&self) -> ColorDepth {
        let holds = |value: &Option<String>, words: &[&str]| {
            value.as_deref().is_some_and(|value| words.iter().any(|word| value.to_ascii_lowercase().contains(word)))
        };
        if holds(&self.colorterm, &["truecolor", "24bit"]) || holds(&self.term, &["-direct"]) {
            ColorDepth::Rgb
        } else if holds(&self.term, &["256color"]) {
            ColorDepth::Indexed256
        } else {
            ColorDepth::Ansi16
        }
    }
}

impl ColorDepth {
    /// A colour as the terminal can show it: exactly, or the nearest of the 6×6×6 cube of the 256.
    pub(super) fn colour(self, rgb: u32) -> Color {
        const LEVELS: [u8; 6] = [0, 95, 135, 175, 215, 255];
        let [_, r, g, b] = rgb.to_be_bytes();
        if self == Self::Rgb {
            return Color::Rgb(r, g, b);
        }
        let nearest = |value: u8| (0..6).min_by_key(|&at| LEVELS[at as usize].abs_diff(value)).unwrap_or(0);
        Color::Indexed(16 + 36 * nearest(r) + 6 * nearest(g) + nearest(b))
    }
}
