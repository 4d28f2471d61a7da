//! What a policy costs in quality, measured against full attention on the same tokens.

mod distribution;
mod evaluate;
mod pooled;
mod tune;

pub use distribution::{Distribution, kl_divergence};
pub use evaluate::{EvalError, EvalOptions, Evaluation, Progress, ROUNDED, Score, evaluate};
pub use tune::{TuneError, TuneOptions, Tuned, tune};
