//! What was measured of one policy at one context and batch.

use std::time::Duration;

use serde::Serialize;

use super::statistics::{Spread, quantile, sorted};
use crate::model::{PassTimes, Traffic};

/// One policy at one context length and batch size. Times are milliseconds of a step that decodes one token for each
/// of `batch` sequences; each is a median by itself, so the stages add up only nearly to the step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The policy, as it was spelled.
    pub policy: String,
    /// A token was probed at every position that this divides; 0 for never.
    pub probe_every: usize,
    /// Tokens of each prompt.
    pub ctx: usize,
    pub batch: usize,
    pub threads: usize,
    /// How often the prompt was computed: once where it is long, so that it has no range.
    pub prefill_passes: usize,
    /// Prompt tokens per second of one prompt, its output head included: the median over the passes.
    pub prefill_tok_s: f64,
    pub prefill_tok_s_min: f64,
    pub prefill_tok_s_max: f64,
    /// Milliseconds that the linear layers took for a whole prompt.
    pub prefill_linear_ms: f64,
    /// Milliseconds that exact attention took for a whole prompt.
    pub prefill_attention_ms: f64,
    /// Billions of multiplications and additions per second in prefill's linear layers; `None` when too fast to say.
    pub prefill_linear_gflop_s: Option<f64>,
    /// Tokens per second over all sequences: the median over the rounds.
    pub decode_tok_s: f64,
    pub decode_tok_s_min: f64,
    pub decode_tok_s_max: f64,
    /// A step: the median over the rounds of each round's median.
    pub step_ms_p50: f64,
    /// The smallest of the rounds' medians.
    pub step_ms_p50_min: f64,
    /// The largest of the rounds' medians.
    pub step_ms_p50_max: f64,
    /// 99 of 100 steps of all rounds took at most this.
    pub step_ms_p99: f64,
    pub linear_ms: f64,
    /// Attention: scores, selection and gathering.
    pub attention_ms: f64,
    pub scores_ms: f64,
    /// Softmax and the choice of rows.
    pub select_ms: f64,
    /// Reading V rows and summing them, tail included.
    pub gather_ms: f64,
    pub head_ms: f64,
    /// Norms, rope, residuals, cache writes, the choice of the next tokens and everything else.
    pub other_ms: f64,
    /// Billions of bytes of K and V per second that attention read; `None` when too fast to say.
    pub attention_gb_s: Option<f64>,
    /// Bytes of K and V that a step read from the device tier.
    pub device_read_bytes: u64,
    /// Bytes of V that a step read from the host tier.
    pub host_v_read_bytes: u64,
    /// Bytes of K, V and running sums on the device after the last step, all sequences.
    pub device_kv_bytes: u64,
    /// Bytes of V in host memory after the last step, all sequences.
    pub host_v_bytes: u64,
    /// V rows that a query head read per token, dense layers counted.
    pub rows_per_head: Option<f64>,
    /// V rows that a step chose, each of one KV head and counted for every head, or heads that choose together, that
    /// chose it; 0 where every row is read.
    pub rows_chosen: u64,
    /// Those of them that were fetched from host memory: all, without a reuse buffer.
    pub rows_fetched: u64,
}

/// One pass over a whole prompt, or over a chunk of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PrefillPass {
    pub total: Duration,
    pub linear: Duration,
    pub attention: Duration,
}

impl PrefillPass {
    pub fn new(total: Duration, times: PassTimes) -> Self {
        Self { total, linear: times.linear, attention: times.prefill }
    }

    pub fn add(&mut self, chunk: Self) {
        self.total += chunk.total;
        self.linear += chunk.linear;
        self.attention += chunk.attention;
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct DecodeStep {
    pub total: Duration,
    pub times: PassTimes,
    pub traffic: Traffic,
}

/// The steps of one round, and what the caches held at its end.
#[derive(Debug, Clone)]
pub(super) struct DecodeRound {
    pub steps: Vec<DecodeStep>,
    pub device_kv_bytes: u64,
    pub host_v_bytes: u64,
    pub rows_per_head: Option<f64>,
}

/// What a run is about.
#[derive(Debug, Clone)]
pub(super) struct Subject<'a> {
    pub policy: &'a str,
    pub probe_every: usize,
    pub ctx: usize,
    pub batch: usize,
    pub threads: usize,
    /// Multiplications and additions in the linear layers for one prompt token.
    pub flop_per_token: f64,
}

impl Run {
    /// From at least one pass and one round of at least one step.
    pub(super) fn summarise(subject: Subject<'_>, passes: &[PrefillPass], rounds: &[DecodeRound]) -> Option<Self> {
        let Subject { policy, probe_every, ctx, batch, threads, flop_per_token } = subject;
        let tokens = ctx as f64;
        let prefill = Spread::of(passes.iter().map(|pass| tokens / pass.total.as_secs_f64()))?;
        let prefill_linear_ms = median(passes.iter().map(|pass| ms(pass.linear)))?;
        let decode = Spread::of(rounds.iter().map(|round| {
            let seconds: f64 = round.steps.iter().map(|step| step.total.as_secs_f64()).sum();
            (batch * round.steps.len()) as f64 / seconds
        }))?;
        let medians = rounds.iter().filter_map(|round| median(round.steps.iter().map(|step| ms(step.total))));
        let step = Spread::of(medians)?;
        let steps = || rounds.iter().flat_map(|round| &round.steps);
        let stage = |of: fn(&DecodeStep) -> Duration| median(steps().map(|step| ms(of(step))));
        let attention_ms = stage(|step| step.attention())?;
        let device_read = median(steps().map(|step| step.traffic.device as f64))?;
        let host_read = median(steps().map(|step| step.traffic.host as f64))?;
        let last = rounds.last()?;
        Some(Self {
            policy: policy.to_owned(),
            probe_every,
            ctx,
            batch,
            threads,
            prefill_passes: passes.len(),
            prefill_tok_s: prefill.median,
            prefill_tok_s_min: prefill.min,
            prefill_tok_s_max: prefill.max,
            prefill_linear_ms,
            prefill_attention_ms: median(passes.iter().map(|pass| ms(pass.attention)))?,
            prefill_linear_gflop_s: rate(flop_per_token * tokens, prefill_linear_ms),
            decode_tok_s: decode.median,
            decode_tok_s_min: decode.min,
            decode_tok_s_max: decode.max,
            step_ms_p50: step.median,
            step_ms_p50_min: step.min,
            step_ms_p50_max: step.max,
            step_ms_p99: quantile(&sorted(steps().map(|step| ms(step.total))), 0.99)?,
            linear_ms: stage(|step| step.times.linear)?,
            attention_ms,
            scores_ms: stage(|step| step.times.decode.scores)?,
            select_ms: stage(|step| step.times.decode.select)?,
            gather_ms: stage(|step| step.times.decode.gather)?,
            head_ms: stage(|step| step.times.head)?,
            other_ms: stage(|step| step.total.saturating_sub(step.times.linear + step.attention() + step.times.head))?,
            attention_gb_s: rate(device_read + host_read, attention_ms),
            device_read_bytes: device_read as u64,
            host_v_read_bytes: host_read as u64,
            device_kv_bytes: last.device_kv_bytes,
            host_v_bytes: last.host_v_bytes,
            rows_per_head: last.rows_per_head,
            rows_chosen: mean(steps().map(|step| step.traffic.rows_chosen as f64)) as u64,
            rows_fetched: mean(steps().map(|step| step.traffic.rows_fetched as f64)) as u64,
        })
    }
}

impl DecodeStep {
    fn attention(&self) -> Duration {
        self.times.decode.scores + self.times.decode.select + self.times.decode.gather
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    quantile(&sorted(values), 0.5)
}

/// Of at least one value.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0.0, 0.0), |(count, sum), value| (count + 1.0, sum + value));
    sum / count
}

/// Billions of `amount` per second.
fn rate(amount: f64, ms: f64) -> Option<f64> {
    (ms > 0.0).then(|| amount / (ms * 1e6))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attention::DecodeTimes;

    fn step(ms: u64) -> DecodeStep {
        let part = |share: u64| Duration::from_micros(ms * share);
        let decode = DecodeTimes { scores: part(100), select: part(50), gather: part(50) };
        let times = PassTimes { linear: part(500), decode, prefill: Duration::ZERO, head: part(200) };
        DecodeStep {
            total: part(1000),
            times,
            traffic: Traffic { device: 3_000_000, host: 1_000_000, ..Traffic::default() },
        }
    }

    #[test]
    fn figures_follow_from_the_samples() {
        let round = |ms: [u64; 4]| DecodeRound {
            steps: ms.map(step).to_vec(),
            device_kv_bytes: 7,
            host_v_bytes: 5,
            rows_per_head: Some(2.0),
        };
        let rounds = [round([10, 10, 10, 10]), round([20, 20, 20, 20]), round([10, 10, 10, 90])];
        let second = Duration::from_secs(1);
        let pass = |seconds| PrefillPass { total: second * seconds, linear: second, attention: second / 2 };
        let subject = Subject { policy: "kv", probe_every: 0, ctx: 600, batch: 2, threads: 1, flop_per_token: 5e6 };
        let run = Run::summarise(subject, &[pass(2), pass(6), pass(3)], &rounds).unwrap();
        assert_eq!((run.prefill_tok_s, run.prefill_tok_s_min, run.prefill_tok_s_max), (200.0, 100.0, 300.0));
        assert_eq!(run.prefill_linear_gflop_s, Some(3.0));
        // 8 tokens in 40, 80 and 120 ms.
        assert!((run.decode_tok_s - 100.0).abs() < 1e-9 && (run.decode_tok_s_max - 200.0).abs() < 1e-9);
        assert_eq!((run.step_ms_p50, run.step_ms_p50_min, run.step_ms_p50_max), (10.0, 10.0, 20.0));
        assert!(run.step_ms_p99 > 20.0);
        assert_eq!((run.linear_ms, run.attention_ms, run.head_ms, run.other_ms), (5.0, 2.0, 2.0, 1.0));
        assert_eq!(run.attention_gb_s, Some(2.0));
        assert_eq!((run.device_kv_bytes, run.host_v_bytes, run.rows_per_head), (7, 5, Some(2.0)));
    }

    #[test]
    fn nothing_measured_is_no_run() {
        let subject = Subject { policy: "kv", probe_every: 0, ctx: 1, batch: 1, threads: 1, flop_per_token: 1.0 };
        assert_eq!(Run::summarise(subject, &[], &[]), None);
    }
}
