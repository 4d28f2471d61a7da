//! The dashboard: state, update, view, widgets, key map and themes.

pub mod picture;
pub mod theme;
pub mod widgets;
