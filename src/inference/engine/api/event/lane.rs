//! What a lane tells of itself: its steps, its bytes, its queue, and where the rows it chose lay.

use serde::{Deserialize, Serialize};

use super::{Lane, SessionId};

/// One step: a forward pass of one lane over all sequences it scheduled.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Which lane; `None` for a prefill chunk that serves several lanes at once.
    pub lane: Option<Lane>,
    /// The step's number in its lane, from 1.
    pub step: u64,
    /// Sequences that decoded a token.
    pub decode_rows: usize,
    /// Prompt tokens computed.
    pub prefill_rows: usize,
    /// The whole step.
    pub total_ms: f64,
    /// Where the time went.
    pub stages: Stages,
    /// The longest context among the sequences, in tokens.
    pub context: usize,
    /// V rows that a query head read per token, mean over heads and layers (dense layers counted); `None` without decode.
    pub rows_per_head: Option<f64>,
    /// Bytes of V read from the host tier.
    pub host_v_read_bytes: u64,
    /// Bytes of K and V read from the device tier for attention.
    pub device_read_bytes: u64,
    /// Decoded tokens that were probed in this step; the stages contain what that took.
    #[serde(default)]
    pub probes: usize,
    /// V rows that decoded tokens chose. A row that several heads chose counts once for each of them; heads that choose
    /// together count as one.
    #[serde(default)]
    pub rows_chosen: u64,
    /// Those of them that were fetched from the host tier. Without a reuse buffer all of them are.
    #[serde(default)]
    pub rows_fetched: u64,
    /// Bytes of K and V that the probes read, from both tiers. The other figures do not count them.
    #[serde(default)]
    pub probe_read_bytes: u64,
}

/// Milliseconds a step spent in each stage. They sum to the step's total.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Stages {
    /// The linear layers.
    pub linear_ms: f64,
    /// Attention scores over K, and their softmax.
    pub scores_ms: f64,
    /// Choosing the rows.
    pub select_ms: f64,
    /// Reading V rows and summing them, tail included.
    pub gather_ms: f64,
    /// Exact attention of prefill rows.
    pub prefill_ms: f64,
    /// The output head.
    pub head_ms: f64,
    /// Choosing the next tokens.
    pub sampling_ms: f64,
    /// Norms, rope, residuals, cache writes and everything else.
    pub other_ms: f64,
}

impl Stages {
    /// The names and values, in the order of the work.
    pub fn named(&self) -> [(&'static str, f64); 8] {
        [
            ("linear", self.linear_ms),
            ("scores", self.scores_ms),
            ("select", self.select_ms),
            ("gather", self.gather_ms),
            ("prefill", self.prefill_ms),
            ("head", self.head_ms),
            ("sampling", self.sampling_ms),
            ("other", self.other_ms),
        ]
    }
}

/// The account of a lane's bytes, by tier and kind. Weights are shared by all lanes and shown in each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Which lane.
    pub lane: Lane,
    /// After which step of the lane.
    pub step: u64,
    /// The device tier.
    pub device: TierBytes,
    /// The host tier.
    pub host: TierBytes,
    /// The lane's device budget: bounds K + V + tail + workspace, not the weights.
    pub budget_bytes: Option<u64>,
    /// What an ordinary KV cache would hold for the same pages on the device, in bytes: K and V.
    #[serde(rename = "ghost_kv_bytes")]
    pub kv_equivalent_bytes: u64,
    /// Tokens of all sequences that hold pages. A token that is shared counts once for each sequence.
    pub tokens: usize,
    /// Sequences that hold pages.
    pub sequences: usize,
}

/// Bytes of one tier by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TierBytes {
    /// Model weights.
    pub weights: u64,
    /// Keys.
    pub k: u64,
    /// Values.
    pub v: u64,
    /// Running sums of V, for `tail=mean`.
    pub tail: u64,
    /// Buffers of the step.
    pub workspace: u64,
}

impl TierBytes {
    /// Everything. A recording may have any figures: sums go to the largest number and no further.
    pub fn total(&self) -> u64 {
        self.weights.saturating_add(self.cache())
    }

    /// Everything but the weights: what a budget bounds.
    pub fn cache(&self) -> u64 {
        [self.v, self.tail, self.workspace].into_iter().fold(self.k, u64::saturating_add)
    }
}

/// What an answer does in a lane. Its `prefill` and `token` events say how far a running one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduling {
    /// It waits until its prompt fits.
    Waiting,
    /// It has its pages, and takes part in the lane's steps.
    Running,
    /// It made room for another answer. Its pages wait in the host tier.
    Preempted,
    /// It made room for another answer, and its pages were evicted because the host tier was full too. Its tokens will be
    /// computed again.
    Freed,
}

/// Who runs and who waits in a lane, and what scheduling did so far.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Queue {
    /// Which lane.
    pub lane: Lane,
    /// After which step of the lane.
    pub step: u64,
    /// Answers that take part in the lane's steps.
    pub running: usize,
    /// Answers that have not started.
    pub waiting: usize,
    /// Answers that were preempted and will go on.
    pub preempted: usize,
    /// The most answers that may wait.
    pub bound: usize,
    /// Sessions without an answer that keep pages as a cache, in either tier.
    pub idle: usize,
    /// How often an answer was preempted, since the start.
    pub preemptions: u64,
    /// How often the pages of a sequence were evicted, idle sequences included.
    pub freed: u64,
    /// Tokens that were computed again because their pages had been evicted.
    pub recomputed_tokens: u64,
    /// Tokens that did not have to be computed, because another sequence held them.
    pub prefix_hit_tokens: u64,
    /// Messages that were refused: because the queue was full, or because they can never fit.
    pub refused: u64,
    /// Who starts or goes on next: answers that wait and answers that were preempted, in their order.
    #[serde(default)]
    pub next: Vec<SessionId>,
    /// Tokens until a tier that takes new pages is full; `None` without a budget.
    pub tokens_until_full: Option<u64>,
    /// Tokens of a session, prompts and answers so far: the mean over the sessions that run; if none runs, over those
    /// that keep pages; `None` if there are none.
    #[serde(default)]
    pub mean_tokens: Option<u64>,
    /// How many more sessions of that length fit, each with pages of its own. Larger buffers of the step, which every 16
    /// sequences need, are not counted. `None` without a budget or a length.
    #[serde(default)]
    pub sessions_until_full: Option<u64>,
    /// The most bytes ever held on the device, workspace included, weights not.
    pub device_peak_bytes: u64,
    /// The most bytes ever held in the host tier.
    pub host_peak_bytes: u64,
    /// The longest that scheduling a step took since the lane's last `queue` event, in ms. Copying prompts that were
    /// computed before and enlarging the buffers of the step are not counted.
    pub schedule_ms: f64,
    /// What the lane has delivered since the start; `None` in recordings of earlier versions.
    #[serde(default)]
    pub delivered: Option<Delivered>,
}

/// What a lane has delivered since the start. All figures but the percentiles only grow. So the difference of two events
/// is what came between them; divided by the difference of their `t_ms` it is a rate by the clock on the wall.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Delivered {
    /// Tokens of answers. The first of each is included, though it comes from the prompt.
    pub tokens: u64,
    /// Those of them that decode steps made.
    pub decoded_tokens: u64,
    /// Milliseconds of these steps, with the pieces of prompts that they also computed. `decoded_tokens` divided by it is the
    /// speed of the lane's own steps.
    pub decode_ms: f64,
    /// Answers that the model ended or that have all the tokens they asked for.
    pub finished: u64,
    /// The most answers that ran at once.
    pub running_peak: usize,
    /// The median of the time that answers waited before they started. Those that still wait are not counted.
    pub queued_ms_p50: Option<f64>,
    /// The 99th percentile of the same.
    pub queued_ms_p99: Option<f64>,
}

/// Where the selected rows lay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hits {
    /// Which lane.
    pub lane: Lane,
    /// The lane's last step in the sum.
    pub step: u64,
    /// Decoded tokens in the sum.
    pub tokens: u64,
    /// Selected rows by layer and bucket of distance from now; a dense layer's are all 0. Distances
    /// are counted in powers of two: bucket 0 is the token itself, bucket b ≥ 1 holds distances 2^(b-1)..2^b.
    pub distance: Vec<Vec<u64>>,
    /// The share of the selected rows among the first four positions, in 0..=1.
    pub sink_share: f64,
    /// The share of the selected rows among the last 64 positions, in 0..=1.
    pub recent_share: f64,
    /// The kept mass per layer, mean over heads and tokens; 1 where every row is read.
    pub kept_mass: Vec<f32>,
}
