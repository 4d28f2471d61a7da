//! What the user can ask for and how: the actions, which key is bound to which, the commands that begin with `/`, and the
//! help that is made from them. Nothing here knows the state.

pub mod action;
pub(crate) mod help;
pub mod keymap;
pub(crate) mod slash;
pub(crate) mod words;
