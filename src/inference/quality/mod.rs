//! What a policy costs in quality, measured against full attention on the same tokens.

mod bootstrap;
mod distribution;
mod evaluate;
mod gate;
mod guard;
mod pooled;
mod score;
mod tasks;
mod tune;

pub use distribution::{Distribution, compare_logits, kl_divergence};
pub use evaluate::{EvalError, EvalOptions, Evaluation, ROUNDED, evaluate};
pub use gate::Gate;
pub use guard::{Guard, GuardMode, GuardOptions, GuardState};
pub(crate) use guard::{Observed, Verdict};
pub use score::{ESTIMATES, Estimate, FIGURES, Figure, Score, TokenScore, dp_rms, full_ppl, kl_mean, ppl, top1};
pub use tasks::{Task, TaskResult, TaskScore, tasks};
pub use tune::{HeldOut, TuneError, TuneOptions, Tuned, tune};
