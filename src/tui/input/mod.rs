//! TODO tui::input

pub mod action;
pub mod help;
pub mod keymap;
pub(crate) mod slash;
pub(crate) mod words;
