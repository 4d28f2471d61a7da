//! How far a long piece of work is. Whoever watches is told after every part, and may break it off.

/// How far a measurement or an evaluation is.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// What is being done, for people.
    pub what: String,
    /// Parts done.
    pub done: usize,
    /// Parts to do.
    pub total: usize,
}
