//! What a plan says of a run of `bench capacity`, beside what was measured.

use serde::Serialize;

use crate::{
    bench::{CapacityOptions, CapacityRun},
    cache::Policy,
    cli::measuring::Comparison,
    model::LanguageModel,
    plan::Planner,
};

/// A run, and what was predicted of it.
#[derive(Debug, Serialize)]
pub struct Planned {
    #[serde(flatten)]
    pub run: CapacityRun,
    /// Sessions predicted to run at once.
    plan_sessions: usize,
    /// Predicted tokens per second of so many.
    plan_tok_s: Option<f64>,
    /// Of it, the median step and its stages, in ms.
    plan_step_ms: Option<f64>,
    plan_linear_ms: Option<f64>,
    plan_attention_ms: Option<f64>,
    /// `predicted / measured − 1`.
    plan_sessions_error: Option<f64>,
    plan_tok_s_error: Option<f64>,
}

/// Sessions that a plan has run at once: what the budget holds beside the buffers, and no more than ask.
pub fn sessions(planner: &Planner, policy: &Policy, options: &CapacityOptions, model: &LanguageModel) -> usize {
    let workspace = |sessions| options.workspace(model, sessions);
    planner.sessions_beside(policy, options.held_tokens(), workspace).min(options.requests)
}

impl Planned {
    pub fn new(
        planner: &Planner,
        policy: &Policy,
        options: &CapacityOptions,
        sessions: usize,
        run: CapacityRun,
    ) -> Self {
        let step = (sessions > 0).then(|| planner.step(policy, options.mean_tokens(), sessions));
        let tok_s = step.map(|step| sessions as f64 / step.total());
        let error = |predicted: Option<f64>, measured: Option<f64>| {
            let measured = measured.filter(|&measured| measured > 0.0);
            predicted.zip(measured).map(|(predicted, measured)| predicted / measured - 1.0)
        };
        Self {
            plan_sessions: sessions,
            plan_tok_s: tok_s,
            plan_step_ms: step.map(|step| step.total() * 1e3),
            plan_linear_ms: step.map(|step| step.linear * 1e3),
            plan_attention_ms: step.map(|step| (step.attention + step.link) * 1e3),
            plan_sessions_error: error(Some(sessions as f64), Some(run.sessions_resident as f64)),
            plan_tok_s_error: error(tok_s, run.tok_s),
            run,
        }
    }
}

/// A row per predicted figure and its error, a column per policy.
pub fn rows(runs: &[Planned]) -> Vec<Vec<String>> {
    let mut table = Comparison::new(String::new(), runs, |planned| &planned.run.policy);
    let percent = |error: Option<f64>| error.map(|error| 100.0 * error);
    table.figure("plan: sessions", "", 0, |planned| Some(planned.plan_sessions as f64));
    table.alone("  error", "%", 0, |planned| percent(planned.plan_sessions_error));
    table.figure("plan: tok/s", "tok/s", 1, |planned| planned.plan_tok_s);
    table.alone("  error", "%", 0, |planned| percent(planned.plan_tok_s_error));
    table.figure("plan: step", "ms", 1, |planned| planned.plan_step_ms);
    table.figure("  linear and output head", "ms", 1, |planned| planned.plan_linear_ms);
    table.figure("  attention", "ms", 1, |planned| planned.plan_attention_ms);
    table.rows()
}
