//! Where the arithmetic of a token stopped being finite.

use thiserror::Error;

/// Something computed for a token is an infinity or NaN, or too large for the cache, so its results mean
/// nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotFinite {
    /// Its embedding.
    #[error("the embedding {DAMAGED}")]
    Embedding,
    /// A layer, the first one counted as 0.
    #[error("layer {0} {DAMAGED}")]
    Layer(usize),
    /// What comes after the layers.
    #[error("the output norm {DAMAGED}")]
    Output,
}

const DAMAGED: &str = "of the model computes an infinity, or numbers too large to go on with: the model file is damaged, \
                       fetch it again or take another";
