//! How many sessions fit, and how long a step takes.

use serde::Serialize;
use thiserror::Error;

use super::{Device, PlanModel};
use crate::{
    bench::AttentionRates,
    cache::{Format, Knobs, PAGE_TOKENS, Policy, Select},
};

/// Bytes of device memory that a score passes through where it is stored: written once as f32, read for the softmax's
/// sum and once more for the choice of rows. Where every row is read, a fused kernel never stores it (FlashAttention,
/// arXiv 2205.14135).
const SCORE_BYTES: usize = 3 * size_of::<f32>();

/// The longest context that is looked at where the model names none.
const FAR: usize = 1 << 20;

/// What a device has left for sessions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub enum Room {
    /// A share of its memory, 0 to 1, less the weights. vLLM's `gpu_memory_utilization` is this share, 0.9 by default.
    Share(f64),
    /// So many bytes, whatever the weights take: the budget of a lane.
    Budget(u64),
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// The weights do not fit.
    #[error("the weights take {} MiB, {} MiB of {name} can be used", weights >> 20, usable >> 20)]
    Weights {
        name: String,
        /// Bytes of the weights.
        weights: u64,
        /// Bytes that can be used.
        usable: u64,
    },
}

/// Predicts for one model on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Planner {
    model: PlanModel,
    device: Device,
    /// Bytes for sessions.
    budget: u64,
    /// Whether host rows take from the same bytes.
    together: bool,
    /// The longest step that is still of use, in seconds.
    longest: Option<f64>,
}

/// Where the time of a step goes, in seconds. Stages come one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTime {
    /// Linear layers and output head.
    pub linear: f64,
    pub attention: f64,
    /// Rows from the host.
    pub link: f64,
    /// What bounds the longest of these.
    pub bound: Bound,
}

/// What a step waits for most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    Weights,
    /// Reading the cache on the device.
    Cache,
    Arithmetic,
    /// Rows from the host.
    Link,
}

/// What is predicted of a saturated lane: as many sessions as fit, each of `ctx` tokens, and no more than may take part in
/// a step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// Tokens of each session.
    pub ctx: usize,
    /// Sessions that fit and whose step is not too long: those that all other figures are of.
    pub sessions: usize,
    /// Sessions that memory holds, however long their step.
    pub sessions_in_memory: usize,
    /// A step of one session alone, in milliseconds, where memory holds one.
    pub step_ms_alone: Option<f64>,
    /// Bytes that a session takes on the device, in whole pages.
    pub device_bytes: u64,
    /// Bytes that a session takes in host memory.
    pub host_bytes: u64,
    /// Tokens per second of all sessions; `None` without one.
    pub tok_s: Option<f64>,
    /// The same if rows from the host came while everything else is computed; `None` where nothing comes over a link.
    pub tok_s_overlapped: Option<f64>,
    /// A step, in milliseconds: the time between two tokens of a session.
    pub step_ms: Option<f64>,
    /// Of it, the linear layers.
    pub linear_ms: Option<f64>,
    /// Of it, attention on the device.
    pub attention_ms: Option<f64>,
    /// Of it, rows from the host.
    pub link_ms: Option<f64>,
    /// What it waits for most.
    pub bound: Option<Bound>,
}

impl StepTime {
    /// Seconds of a whole step.
    pub fn total(&self) -> f64 {
        self.linear + self.attention + self.link
    }
}

impl Planner {
    /// For a model on a device with so much room.
    ///
    /// # Errors
    /// When the weights do not fit.
    pub fn new(model: PlanModel, device: Device, room: Room) -> Result<Self, PlanError> {
        let (budget, together) = match room {
            Room::Budget(bytes) => (bytes, false),
            Room::Share(share) => {
                let usable = (device.memory_bytes as f64 * share) as u64;
                let weights = model.weight_bytes;
                let name = device.name.clone();
                (usable.checked_sub(weights).ok_or(PlanError::Weights { name, weights, usable })?, device.one_memory)
            }
        };
        Ok(Self { model, device, budget, together, longest: None })
    }

    /// The same where a step takes at most so many milliseconds, which is the time between two tokens of a session: more
    /// sessions than that allows are of no use to those who read. `None` bounds nothing.
    #[must_use]
    pub fn within(self, step_ms: Option<f64>) -> Self {
        Self { longest: step_ms.map(|ms| ms / 1e3), ..self }
    }

    pub fn model(&self) -> &PlanModel {
        &self.model
    }

    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Bytes for sessions.
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// Bytes that a session of `ctx` tokens takes on the device and in host memory: whole pages of every layer, and
    /// under `kcache` the running sums of V and reuse buffers. The same bytes that a lane's ledger counts.
    pub fn session_bytes(&self, policy: &Policy, ctx: usize) -> (u64, u64) {
        let shape = self.model.cache();
        let pages = ctx.div_ceil(PAGE_TOKENS) as u64;
        let [k, v] = policy.formats().map(|format| pages * shape.page_bytes(format));
        let layers = shape.layers as u64;
        let device_v = policy.device_v_layers(shape.layers) as u64;
        let sums = policy.knobs().map_or(0, |knobs| shape.sum_bytes() + shape.buffer_bytes(knobs.buffer));
        (layers * k + device_v * v + sums, (layers - device_v) * v)
    }

    /// Sessions of `ctx` tokens that fit and whose step is not too long; 0 where that of one alone is.
    pub fn sessions(&self, policy: &Policy, ctx: usize) -> usize {
        let fit = self.sessions_in_memory(policy, ctx);
        let Some(longest) = self.longest else { return fit };
        // More sessions never take a shorter step.
        let short = |sessions: usize| self.step(policy, ctx, sessions).total() <= longest;
        if short(fit) {
            return fit;
        }
        let (mut known, mut long) = (0, fit);
        while long - known > 1 {
            let middle = known + (long - known) / 2;
            if short(middle) { known = middle } else { long = middle }
        }
        known
    }

    /// Sessions of `ctx` tokens that memory holds.
    pub fn sessions_in_memory(&self, policy: &Policy, ctx: usize) -> usize {
        let (device, host) = self.session_bytes(policy, ctx);
        let taken = if self.together { device + host } else { device };
        let fit = self.budget / taken.max(1);
        let by_host = self.device.host_bytes.filter(|_| host > 0).map_or(u64::MAX, |bytes| bytes / host);
        fit.min(by_host) as usize
    }

    /// The most sessions of `ctx` tokens that fit the budget together with the buffers of a step of so many sessions,
    /// which `workspace` tells and which grow with them.
    pub fn sessions_beside(&self, policy: &Policy, ctx: usize, workspace: impl Fn(usize) -> u64) -> usize {
        let device = self.session_bytes(policy, ctx).0;
        let fits = |sessions: usize| sessions as u64 * device + workspace(sessions) <= self.budget;
        let most = self.sessions(policy, ctx);
        (1..=most).rev().find(|&sessions| fits(sessions)).unwrap_or(0)
    }

    /// A step that decodes one token for each of `sessions` sessions of `ctx` tokens.
    ///
    /// - *Weights* are read once, whatever the number of sessions, and each weight is multiplied with every token:
    ///   `max(bytes / bandwidth, 2 · weights · sessions / peak)`. That more sessions share one reading is why memory
    ///   for more sessions is speed (He and Wu, arXiv 2404.18057, gain theirs so; Kwon et al., arXiv 2309.06180).
    /// - *Attention* reads all of K, and the V that is on the device, once per KV head: `ctx · row` each. Under
    ///   `kcache` the scores are stored as well, one for every query head and position, beyond N. Arithmetic is
    ///   `2 · heads · head_dim` for each of the positions that are scored and of the rows that are summed.
    /// - *The link* carries N rows for every query head that chooses, but never more than a KV head has.
    ///
    /// Left out: norms, rope, sampling, the start of kernels and regions, caches that hold part of it, transfers that
    /// are small and scattered, and the arithmetic of softmax and selection.
    ///
    /// Where the device's kernels were measured, what they take is not divided into bytes and arithmetic:
    ///
    /// - *Weights*: the reading with one row's products, and the products of every row beyond it. Measured, neither hides
    ///   behind the other.
    /// - *Attention*: a time for each position and query head, softmax and choice of rows included, which depends on the
    ///   formats and on whether all rows are read or some chosen.
    /// - *The link* carries the chosen rows at the rate at which attention fetches and sums them. With N ≥ S all rows are
    ///   read in turn, and that is in attention's time.
    ///
    /// Left out there: norms, rope, sampling, writing to the cache, and the counting of hits.
    pub fn step(&self, policy: &Policy, ctx: usize, sessions: usize) -> StepTime {
        let PlanModel { layers, heads, kv_heads, head_dim, step_bytes, multiplied, .. } = self.model;
        let Device { bandwidth, weight_bandwidth, link, linear_flops, attention_flops, .. } = self.device;
        if let Some(rates) = &self.device.attention {
            return self.measured_step(rates, policy, ctx, sessions as f64);
        }
        let sessions = sessions as f64;
        let row = |format: Format| format.row_bytes(head_dim) as f64;
        let [k, v] = policy.formats().map(row);
        let dense = policy.device_v_layers(layers);
        let (all_rows, sparse) = ((kv_heads * ctx) as f64, (layers - dense) as f64);

        let (chosen_rows, summed, stored_scores) = match policy.knobs() {
            None => (0.0, 0.0, 0.0),
            Some(knobs) if knobs.n >= ctx => (all_rows, (heads * ctx) as f64, 0.0),
            Some(knobs) => (self.chosen_rows(knobs, ctx), (heads * knobs.n) as f64, (heads * ctx) as f64),
        };
        let cache = layers as f64 * all_rows * k + dense as f64 * all_rows * v;
        let scores = sparse * stored_scores * SCORE_BYTES as f64;
        let every = (heads * ctx) as f64;
        let products = layers as f64 * every + dense as f64 * every + sparse * summed;

        let arithmetic = |operations: f64, peak: Option<f64>| peak.map_or(0.0, |peak| operations / peak);
        let weights = step_bytes as f64 / weight_bandwidth;
        let multiply = arithmetic(2.0 * multiplied as f64 * sessions, linear_flops);
        let read = sessions * (cache + scores) / bandwidth;
        let attend = arithmetic(sessions * 2.0 * head_dim as f64 * products, attention_flops);
        let link = sessions * sparse * chosen_rows * v / link;
        let (linear, attention) = (weights.max(multiply), read.max(attend));
        let bound = if link > linear.max(attention) {
            Bound::Link
        } else if linear > attention {
            if weights >= multiply { Bound::Weights } else { Bound::Arithmetic }
        } else if read >= attend {
            Bound::Cache
        } else {
            Bound::Arithmetic
        };
        StepTime { linear, attention, link, bound }
    }

    /// The same from what this machine's kernels were measured to take.
    fn measured_step(&self, rates: &AttentionRates, policy: &Policy, ctx: usize, sessions: f64) -> StepTime {
        let PlanModel { layers, heads, head_dim, step_bytes, multiplied, .. } = self.model;
        let [k, v] = policy.formats();
        let all = match (k, v) {
            (Format::F16, _) => rates.all_f16_ns,
            (Format::Q8, Format::Q8) => rates.all_q8_ns,
            (Format::Q8, Format::F16) => rates.all_mixed_ns,
        };
        let choose = if k == Format::F16 { rates.choose_f16_ns } else { rates.choose_q8_ns };
        let choosing = policy.knobs().filter(|knobs| knobs.n < ctx);
        let sparse = choosing.map_or(0, |_| layers - policy.device_v_layers(layers));
        let fetched = choosing.map_or(0.0, |knobs| self.chosen_rows(knobs, ctx)) * v.row_bytes(head_dim) as f64;
        let position = ((layers - sparse) as f64 * all.median + sparse as f64 * choose.median) * 1e-9;

        let weights = step_bytes as f64 / self.device.weight_bandwidth;
        // A session without others takes the time of one row, which the reading of the weights has.
        let further = 2.0 * multiplied as f64 * (sessions - 1.0).max(0.0);
        let multiply = self.device.linear_flops.map_or(0.0, |peak| further / peak);
        let attention = sessions * (heads * ctx) as f64 * position;
        let link = sessions * sparse as f64 * fetched / self.device.link;
        let linear = weights + multiply;
        let bound = if link > linear.max(attention) {
            Bound::Link
        } else if attention >= linear {
            Bound::Cache
        } else if weights >= multiply {
            Bound::Weights
        } else {
            Bound::Arithmetic
        };
        StepTime { linear, attention, link, bound }
    }

    /// Rows of V that a layer fetches for a session: a KV head never has more than `ctx`.
    fn chosen_rows(&self, knobs: &Knobs, ctx: usize) -> f64 {
        let PlanModel { heads, kv_heads, .. } = self.model;
        let choosers = match knobs.select {
            Select::Head => heads,
            Select::Group => kv_heads,
        };
        (choosers * knobs.n).min(kv_heads * ctx) as f64
    }

    /// Tokens per second of `sessions` sessions of `ctx` tokens; 0 of none.
    pub fn tok_s(&self, policy: &Policy, ctx: usize, sessions: usize) -> f64 {
        sessions as f64 / self.step(policy, ctx, sessions).total()
    }

    /// What a saturated lane does at `ctx` tokens a session.
    pub fn predict(&self, policy: &Policy, ctx: usize) -> Prediction {
        let sessions = self.sessions(policy, ctx);
        let (device_bytes, host_bytes) = self.session_bytes(policy, ctx);
        let sessions_in_memory = self.sessions_in_memory(policy, ctx);
        let step = (sessions > 0).then(|| self.step(policy, ctx, sessions));
        let ms = |of: fn(&StepTime) -> f64| step.map(|step| of(&step) * 1e3);
        let rate = |seconds: f64| sessions as f64 / seconds;
        Prediction {
            ctx,
            sessions,
            sessions_in_memory,
            step_ms_alone: (sessions_in_memory > 0).then(|| self.step(policy, ctx, 1).total() * 1e3),
            device_bytes,
            host_bytes,
            tok_s: step.map(|step| rate(step.total())),
            tok_s_overlapped: step
                .filter(|step| step.link > 0.0 && !self.device.one_memory)
                .map(|step| rate((step.linear + step.attention).max(step.link))),
            step_ms: ms(StepTime::total),
            linear_ms: ms(|step| step.linear),
            attention_ms: ms(|step| step.attention),
            link_ms: ms(|step| step.link),
            bound: step.map(|step| step.bound),
        }
    }

    /// The longest context that is of interest: the model's, or 1 Mi tokens where it names none.
    pub fn longest_ctx(&self) -> usize {
        self.model.context.unwrap_or(FAR)
    }
}

#[cfg(test)]
mod tests;
