//! The dashboard: state, update, view, widgets, key map and themes.
//!
//! [`state::State`] is everything it knows, [`update::update`] the only thing that changes it (and does no I/O),
//! [`view::view`] draws it (and changes nothing). [`run`] joins them with the terminal and the engine.

pub mod action;
mod ascii;
mod axes;
mod clipboard;
pub mod command;
pub mod comparison;
mod copy;
pub mod demo;
pub mod document;
mod editor;
mod engine_events;
mod export;
pub mod figures;
#[cfg(test)]
mod fixture;
pub mod help;
pub mod hits;
pub mod input;
mod keyboard;
pub mod keymap;
mod keys;
mod knobs;
pub mod load;
pub mod message;
pub mod metrics;
mod mouse;
mod navigation;
pub mod observer;
pub mod picture;
mod plain;
mod replay;
mod run;
pub mod saved;
pub mod session;
mod signals;
mod slash;
pub mod state;
mod store;
mod terminal;
#[cfg(test)]
mod tests;
pub mod theme;
pub mod transcript;
pub mod update;
pub mod view;
pub mod widgets;
mod width;
mod words;
mod wrap;

pub use replay::Replay;
pub use run::{Exit, Options, RunError, bridge, run};
