//! What a policy costs in quality, measured against full attention on the same tokens.

mod distribution;
mod evaluate;
mod pooled;

pub use distribution::{Distribution, kl_divergence};
pub use evaluate::{EvalError, EvalOptions, Evaluation, ROUNDED, Score, evaluate};
