//! The dashboard: a loop over one state, as in Elm.
//!
//! A message comes in ([`message`]), [`update::update`] changes [`state::State`] and says what the world outside is to do
//! (`command`), [`view::view`] draws the state and changes nothing. The loop (`app`) carries out the commands with what is
//! in `io`. So arrows go from `app` to `update` and `view`, from `update` to `input`, `layout` and `state`, and from
//! `view` to `layout`, `widgets`, `theme` and `state`; `layout` says where everything lies, so that drawing, scrolling
//! and the mouse agree. No two files use each other in a circle.

mod app;
mod command;
#[cfg(test)]
mod fixture;
pub mod input;
mod io;
mod layout;
pub mod message;
mod picture;
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
