//! A session: a conversation as the user sees it. What belongs to one lane of it, its sequence, is with the lane.

pub(crate) mod answer;
mod answer_text;
pub(crate) mod inspect;
pub(crate) mod prefilled;
pub(crate) mod sampler;
pub(crate) mod sequence;
pub(crate) mod stop;

use super::Lane;

/// What is the same in all lanes of a session.
pub(crate) struct Session {
    pub name: String,
    /// The lanes that run it, in the order in which they take turns.
    pub lanes: Vec<Lane>,
    /// Whether it is closed once its answers have ended.
    pub once: bool,
    /// Whether its lanes are fed the same tokens, from the next answer on.
    pub compare: bool,
    /// Whether the lanes compute one prompt together, or will.
    pub shares_prompt: bool,
}
