//! The dashboard: state, update, view, widgets, key map and themes.
//!
//! [`state::State`] is everything it knows, [`update::update`] the only thing that changes it (and does no I/O),
//! [`view::view`] draws it (and changes nothing). [`run`] joins them with the terminal and the engine.

mod app;
pub mod command;
#[cfg(test)]
mod fixture;
pub mod input;
pub mod io;
pub mod layout;
pub mod message;
pub mod picture;
mod replay;
pub mod state;
#[cfg(test)]
mod tests;
pub mod theme;
pub mod update;
pub mod view;
pub mod widgets;

pub use app::{Exit, Options, RunError, bridge, run};
pub use replay::Replay;
