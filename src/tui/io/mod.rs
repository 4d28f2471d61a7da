//! The world outside of the state: the terminal with its keys, signals and clipboard, the user's editor, and files.
//! `update` never comes here; it asks for what it needs by commands, which the loop carries out.

pub(crate) mod clipboard;
pub(crate) mod editor;
pub(crate) mod files;
pub(crate) mod keyboard;
pub(crate) mod saved;
pub(crate) mod signals;
pub(crate) mod store;
pub(crate) mod terminal;
