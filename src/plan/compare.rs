//! A prediction beside what was measured.

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::Planner;
use crate::cache::{Policy, PolicyError};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The policy, as it was spelled.
    pub policy: String,
    /// Tokens of each session.
    pub ctx: usize,
    pub sessions: usize,
    /// Tokens per second of all of them.
    pub tok_s: f64,
    /// Bytes that sessions were allowed to take on the device, where there was a limit.
    pub budget_bytes: Option<u64>,
}

/// How far a prediction is from a measured run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub measured: Measured,
    /// Tokens per second predicted for the sessions that ran.
    pub predicted_tok_s: f64,
    /// `predicted / measured − 1`.
    pub error: f64,
    /// Sessions predicted for the run's budget.
    pub predicted_sessions: Option<usize>,
}

/// Why a report is not one to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MeasuredError {
    /// It is no report of a measurement.
    #[error("it has no `runs`: write one with `kcache bench --json` or `kcache bench capacity --json`")]
    NoRuns,
    /// A run lacks a figure.
    #[error("run {run} has no `{field}`")]
    Missing {
        /// The number of the run, from 1.
        run: usize,
        field: &'static str,
    },
    /// A run's policy is not one.
    #[error("run {run}: {source}")]
    Policy {
        /// The number of the run, from 1.
        run: usize,
        /// What is wrong with it.
        source: PolicyError,
    },
}

impl Measured {
    /// The runs of a report of `kcache bench --json` or `kcache bench capacity --json`. What all runs of a report share
    /// may stand beside them.
    ///
    /// # Errors
    /// When it is no such report.
    pub fn from_report(report: &Value) -> Result<Vec<Self>, MeasuredError> {
        let runs = report["runs"].as_array().ok_or(MeasuredError::NoRuns)?;
        let read = |(index, run): (usize, &Value)| {
            let missing = |field| MeasuredError::Missing { run: index + 1, field };
            let find =
                |names: &[&'static str]| names.iter().find_map(|name| run.get(name).or_else(|| report.get(name)));
            let number = |names: &[&'static str]| find(names).and_then(Value::as_u64).ok_or(missing(names[0]));
            Ok(Self {
                policy: run["policy"].as_str().ok_or(missing("policy"))?.to_owned(),
                ctx: number(&["ctx"])? as usize,
                sessions: number(&["batch", "sessions_resident"])? as usize,
                tok_s: find(&["decode_tok_s", "tok_s"]).and_then(Value::as_f64).ok_or(missing("decode_tok_s"))?,
                budget_bytes: find(&["budget_bytes"]).and_then(Value::as_u64),
            })
        };
        runs.iter().enumerate().map(read).collect()
    }
}

impl Planner {
    /// The prediction for a run that was measured.
    ///
    /// # Errors
    /// When its policy is not one.
    pub fn compare(&self, runs: &[Measured]) -> Result<Vec<Comparison>, MeasuredError> {
        let compare = |(index, run): (usize, &Measured)| {
            let parsed = run.policy.parse::<Policy>();
            let policy = parsed.map_err(|source| MeasuredError::Policy { run: index + 1, source })?;
            let predicted = self.tok_s(&policy, run.ctx, run.sessions);
            let bytes = self.session_bytes(&policy, run.ctx).0;
            Ok(Comparison {
                measured: run.clone(),
                predicted_tok_s: predicted,
                error: predicted / run.tok_s - 1.0,
                predicted_sessions: run.budget_bytes.map(|budget| (budget / bytes.max(1)) as usize),
            })
        };
        runs.iter().enumerate().map(compare).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plan::{Described, Device, PlanModel, Room};

    #[test]
    fn both_kinds_of_reports_are_read() {
        let bench = json!({ "runs": [{ "policy": "kv", "ctx": 512, "batch": 8, "decode_tok_s": 99.5 }] });
        let kv = Measured { policy: "kv".into(), ctx: 512, sessions: 8, tok_s: 99.5, budget_bytes: None };
        assert_eq!(Measured::from_report(&bench), Ok(vec![kv.clone()]));
        let capacity = json!({
            "ctx": 512, "runs": [{ "policy": "kv", "budget_bytes": 1 << 20, "sessions_resident": 8, "tok_s": 99.5 }],
        });
        assert_eq!(Measured::from_report(&capacity), Ok(vec![Measured { budget_bytes: Some(1 << 20), ..kv }]));
    }

    #[test]
    fn what_a_report_lacks_is_named() {
        let error = |report: Value| Measured::from_report(&report).unwrap_err().to_string();
        assert!(error(json!({ "ok": true })).contains("no `runs`"));
        assert_eq!(error(json!({ "runs": [{ "policy": "kv", "ctx": 5 }] })), "run 1 has no `batch`");
        let fast = json!({ "policy": "kv", "ctx": 5, "batch": 1, "decode_tok_s": "fast" });
        assert_eq!(error(json!({ "runs": [fast] })), "run 1 has no `decode_tok_s`");
    }

    #[test]
    fn an_error_is_relative_to_what_was_measured() {
        let model = PlanModel::described(Described {
            layers: 2,
            heads: 2,
            kv_heads: 2,
            head_dim: 64,
            params: 1_000_000,
            weight_bits: 8.0,
        });
        let device = Device {
            bandwidth: 1e9,
            weight_bandwidth: 1e9,
            linear_flops: None,
            attention_flops: None,
            ..Device::preset("l4").unwrap()
        };
        let planner = Planner::new(model, device, Room::Share(0.9)).unwrap();
        // 1 ms for the weights, and K and V of 512 tokens · 2 layers · 2 heads · 128 bytes.
        let predicted = 1.0 / (0.001 + 512.0 * 8.0 * 128.0 / 1e9);
        let run = Measured {
            policy: "kv".into(),
            ctx: 512,
            sessions: 1,
            tok_s: predicted / 2.0,
            budget_bytes: Some(1 << 20),
        };
        let [found] = &planner.compare(std::slice::from_ref(&run)).unwrap()[..] else { panic!("one run") };
        assert!((found.predicted_tok_s - predicted).abs() < 1e-9 && (found.error - 1.0).abs() < 1e-9, "{found:?}");
        assert_eq!(found.predicted_sessions, Some(2));
        let bad = Measured { policy: "kvv".into(), ..run };
        assert!(planner.compare(&[bad]).unwrap_err().to_string().starts_with("run 1: policy `kvv`"));
    }
}
