//! The steps of a heat map.

use ratatui::style::Color;

use super::ColorDepth;

/// The steps of a heat map, from nothing to most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heat {
    /// Backgrounds; the first is the terminal's own.
    Colours(Vec<Color>),
    /// Characters, where there is no colour.
    Shades([&'static str; 5]),
}

impl Heat {
    /// How many steps there are.
    pub fn steps(&self) -> usize {
        match self {
            Self::Colours(colours) => colours.len(),
            Self::Shades(shades) => shades.len(),
        }
    }

    /// The step of an intensity in 0..=1. Only 0 itself is step 0, so that a little is told from nothing.
    pub fn step(&self, intensity: f64) -> usize {
        if intensity.is_nan() || intensity <= 0.0 {
            return 0;
        }
        let top = self.steps() - 1;
        ((intensity * top as f64).ceil() as usize).clamp(1, top)
    }

    /// The ramp in what the terminal has; nothing at all is its own background.
    pub(super) fn ramp(depth: ColorDepth, ramp: &[u32; 8], ansi: &[Color; 8]) -> Self {
        let steps = ramp.iter().zip(ansi).map(|(&rgb, &ansi)| depth.of((rgb, ansi)));
        Self::Colours(std::iter::once(Color::Reset).chain(steps).collect())
    }
}
