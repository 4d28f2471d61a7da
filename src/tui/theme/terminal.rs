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
    /// The locale of letters: the first of `LC_ALL`, `LC_CTYPE` and `LANG` that is not empty.
    pub locale: Option<String>,
    /// Whether characters of ambiguous width are said to be two cells wide: `VTE_CJK_WIDTH=wide` or
    /// `RUNEWIDTH_EASTASIAN=1`.
    pub ambiguous_is_wide: bool,
}

impl TerminalEnv {
    /// What the process was started with.
    pub fn read() -> Self {
        let get = |name| std::env::var(name).ok();
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(|name| get(name).filter(|it| !it.is_empty()));
        let says = |name, word: &str| get(name).is_some_and(|value| value == word);
        Self {
            no_color: get("NO_COLOR"),
            colorterm: get("COLORTERM"),
            term: get("TERM"),
            colorfgbg: get("COLORFGBG"),
            locale,
            ambiguous_is_wide: says("VTE_CJK_WIDTH", "wide") || says("RUNEWIDTH_EASTASIAN", "1"),
        }
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

    /// Whether lines and blocks would not be shown, or would be two cells wide: the locale is named and is not UTF-8, or
    /// characters of ambiguous width are wide.
    pub(super) fn wants_ascii(&self) -> bool {
        let locale = self.locale.as_deref().unwrap_or("UTF-8").to_ascii_lowercase();
        let utf8 = locale.contains("utf-8") || locale.contains("utf8");
        !utf8 || self.ambiguous_is_wide || locale.ends_with("@cjkwide")
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
    /// The first of a pair where there are more than 16 colours, else the second.
    pub(super) fn of(self, (rgb, ansi): (u32, Color)) -> Color {
        if self >= Self::Indexed256 { self.colour(rgb) } else { ansi }
    }

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
