//! TODO tui::io

pub(crate) mod clipboard;
pub(crate) mod editor;
pub(crate) mod keyboard;
pub mod saved;
pub(crate) mod signals;
pub(crate) mod store;
pub(crate) mod terminal;
