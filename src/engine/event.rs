//! What the engine and the samplers report. Everything a reader sees (screen, JSON lines, reports, recordings) is
//! made from this one stream.
//!
//! As JSON each event is one object with `type`, `t_ms` and, where they apply, `lane`, `session` and `step`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    cache::Policy,
    quality::GuardState,
    telemetry::{GpuSample, HostSample},
};

/// Names a session in every op and event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u32);

/// One of the two lanes. A lane runs the policy that the configuration gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// The lane under test, `kcache` by default.
    KCache,
    /// The baseline, `kv` by default.
    Kv,
}

impl Lane {
    /// Both lanes, in the order in which they take turns.
    pub const ALL: [Self; 2] = [Self::KCache, Self::Kv];

    /// The other lane.
    pub fn other(self) -> Self {
        match self {
            Self::KCache => Self::Kv,
            Self::Kv => Self::KCache,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KCache => "kcache",
            Self::Kv => "kv",
        })
    }
}

/// Something that happened, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the engine started.
    pub t_ms: f64,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventKind {
    /// The engine is up: always the first event.
    Started(Started),
    /// A session was opened or renamed.
    Session {
        /// Which one.
        session: SessionId,
        /// Its name.
        name: String,
        /// The lanes that run it.
        lanes: Vec<Lane>,
    },
    /// A session was closed; its pages are back.
    Closed {
        /// Which one.
        session: SessionId,
    },
    /// A user message was accepted.
    Said {
        /// In which session.
        session: SessionId,
        /// The name of the document it is about.
        document: Option<String>,
        /// The message, without the document.
        text: String,
    },
    /// A prompt is being computed.
    Prefill {
        /// For which session.
        session: SessionId,
        /// In which lane; `None` when one computation serves all lanes of the session.
        lane: Option<Lane>,
        /// The step that got it here; 0 when the turn has only been queued.
        step: u64,
        /// Tokens of this turn's prompt computed so far.
        done: usize,
        /// Tokens of this turn's prompt to compute (pages reused from earlier turns are not in it).
        total: usize,
    },
    /// A token was generated.
    Token(Token),
    /// Compare mode of a session was switched; on, it begins with the session's next turn.
    CompareMode {
        /// In which session.
        session: SessionId,
        /// On or off.
        on: bool,
    },
    /// What the lanes of a compared session predicted, just before both are given the token.
    Compare(Compare),
    /// The lanes of a compared session go on by themselves until the answer ends.
    Unlocked {
        /// In which session.
        session: SessionId,
        /// From which token of the answer on.
        index: usize,
        /// Why.
        reason: String,
    },
    /// A lane finished a step.
    Step(Step),
    /// The account of a lane's bytes.
    Ledger(Ledger),
    /// Who runs and who waits in a lane.
    Queue(Queue),
    /// An answer begins to wait, starts, is set back or goes on.
    Scheduled {
        /// In which lane.
        lane: Lane,
        /// In which session.
        session: SessionId,
        /// The lane's next step.
        step: u64,
        /// What it does from now on.
        state: Scheduling,
    },
    /// Where the selected rows lay, summed since the lane's last `hits` event.
    Hits(Hits),
    /// A decoded token was probed: what exact attention would have made of it, or the policy where exact attention read.
    Probe(Probe),
    /// What a token read, of a session that is looked at.
    Read(Read),
    /// What more or fewer rows would have held for a token, of a session that is looked at.
    Coverage(Coverage),
    /// Tokens of a session that is looked at, as text.
    Text {
        /// In which session.
        session: SessionId,
        /// In which lane.
        lane: Lane,
        /// The position of the first; what was told from there on holds no longer.
        from: usize,
        /// Their texts, which may be empty while a character is incomplete.
        texts: Vec<String>,
    },
    /// The guard of a session changed its mind.
    Guard(Guarded),
    /// A lane's policy, guard or budget was changed; acts from this step on.
    Knob {
        /// Which lane.
        lane: Lane,
        /// The lane's next step.
        step: u64,
        /// What changed, for a mark on a chart: `n=256`, `tail=mean`, `guard=warn`, `budget=512MiB`.
        change: String,
        /// The whole policy now.
        policy: Policy,
    },
    /// An answer ended.
    Finished(Finished),
    /// Something was refused or went wrong; what was said so far is kept.
    Error {
        /// In which lane, where it concerns one.
        lane: Option<Lane>,
        /// In which session, where it concerns one.
        session: Option<SessionId>,
        /// One line: what is wrong and what to do.
        message: String,
    },
    /// A sample of the host (sysinfo).
    Host(HostSample),
    /// A sample of one GPU (NVML).
    Gpu(GpuSample),
    /// Telemetry events that a slow reader has missed so far, in all. Tokens are never among them.
    Dropped {
        /// How many.
        count: u64,
    },
    /// The engine thread has ended; always the last event.
    Stopped {
        /// `None` after an ordinary shutdown, else what went wrong.
        error: Option<String>,
    },
}

/// What runs: model, threads and lanes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The model's own name.
    pub model: String,
    /// Its architecture, `llama`.
    pub architecture: String,
    /// Transformer layers.
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// KV heads per layer.
    pub kv_heads: usize,
    /// Values in one head's vector.
    pub head_dim: usize,
    /// The longest context, in tokens.
    pub context: usize,
    /// Bytes of weights in memory, shared by all lanes.
    pub weight_bytes: u64,
    /// Threads that compute.
    pub threads: usize,
    /// Whether the device tier is an account in host memory rather than a device's memory.
    pub simulated: bool,
    /// The lanes, in the order in which they take turns.
    pub lanes: Vec<LaneCard>,
}

/// A lane as it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaneCard {
    /// Which lane.
    pub lane: Lane,
    /// Its policy.
    pub policy: Policy,
    /// Its device budget in bytes, if any.
    pub budget_bytes: Option<u64>,
}

/// One generated token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Token {
    /// In which lane.
    pub lane: Lane,
    /// In which session.
    pub session: SessionId,
    /// By which step of the lane.
    pub step: u64,
    /// Its index in this answer, from 0.
    pub index: usize,
    /// The token.
    pub token_id: u32,
    /// The text it adds; may be empty while a character is incomplete.
    pub text: String,
    /// Milliseconds since the answer's previous token; `None` for the first.
    pub itl_ms: Option<f64>,
    /// The softmax mass the selected rows held, mean over layers below full attention and heads; `None` where every
    /// row was read.
    pub kept_mass: Option<f32>,
}

/// Two predictions of the same token: what `kv` and `kcache` make of the same tokens before it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compare {
    /// In which session.
    pub session: SessionId,
    /// After which step of the `kcache` lane.
    pub step: u64,
    /// The index in the answer of the token, from 0. The token that ends an answer is compared too, though it is no
    /// part of the answer.
    pub index: usize,
    /// The token that both lanes are given: the choice of `kv`.
    pub token_id: u32,
    /// KL(kv ‖ kcache) of the two distributions, in nats.
    pub kl: f64,
    /// Whether both find the same token the likeliest.
    pub same: bool,
    /// What `kcache` would have chosen, where that is another token; with the same draw where tokens are drawn.
    pub otherwise: Option<Otherwise>,
}

/// A token that was not given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Otherwise {
    /// The token.
    pub token_id: u32,
    /// Its text; empty where it would have ended the answer.
    pub text: String,
}

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
    /// V rows that decoded tokens chose, each of one KV head, counted for every head, or heads that choose together, that
    /// chose it.
    #[serde(default)]
    pub rows_chosen: u64,
    /// Those of them that were fetched from the host tier: all, without a reuse buffer.
    #[serde(default)]
    pub rows_fetched: u64,
    /// Bytes of K and V that the probes read, from both tiers, not counted in the others.
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

/// The account of a lane's bytes, by tier and owner. Weights are shared by all lanes and shown in each.
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
    pub ghost_kv_bytes: u64,
    /// Tokens of all sequences whose pages are in one of the tiers; shared ones count for each.
    pub tokens: usize,
    /// Sequences that hold pages.
    pub sequences: usize,
}

/// Bytes of one tier by owner.
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
    /// Everything.
    pub fn total(&self) -> u64 {
        self.weights + self.cache()
    }

    /// Everything but the weights: what a budget bounds.
    pub fn cache(&self) -> u64 {
        self.k + self.v + self.tail + self.workspace
    }
}

/// What an answer does in a lane. How far one that runs is, its `prefill` and `token` events say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduling {
    /// It waits until its prompt fits.
    Waiting,
    /// It has its pages, and takes part in the lane's steps.
    Running,
    /// It was set back: its pages wait in the host tier.
    Preempted,
    /// It was set back and its pages given up, because the host tier was full too: its tokens will be computed again.
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
    /// Answers that were set back and will go on.
    pub preempted: usize,
    /// The most answers that may wait.
    pub bound: usize,
    /// Sessions without an answer that keep pages as a cache, in either tier.
    pub idle: usize,
    /// How often an answer was set back, since the start.
    pub preemptions: u64,
    /// How often the pages of a sequence were given up, idle ones included.
    pub freed: u64,
    /// Tokens that were computed again because of it.
    pub recomputed_tokens: u64,
    /// Tokens that were not computed because another sequence had them.
    pub prefix_hit_tokens: u64,
    /// Messages that were refused: because the queue was full, or because they can never fit.
    pub refused: u64,
    /// Who starts or goes on next, those that wait and those that were set back, in their order.
    #[serde(default)]
    pub next: Vec<SessionId>,
    /// Tokens until a tier that takes new pages is full; `None` without a budget.
    pub tokens_until_full: Option<u64>,
    /// Tokens of a session, its prompt and what was said so far: the mean over those that run, or without one over
    /// those that keep pages; `None` without any.
    #[serde(default)]
    pub mean_tokens: Option<u64>,
    /// Sessions of that length for which there is still room, each with pages of its own; larger buffers of the step,
    /// which every 16 sequences need, not counted. `None` without a budget or a length.
    #[serde(default)]
    pub sessions_until_full: Option<u64>,
    /// The most bytes ever held on the device, workspace included, weights not.
    pub device_peak_bytes: u64,
    /// The most bytes ever held in the host tier.
    pub host_peak_bytes: u64,
    /// The longest that scheduling a step took since the lane's last `queue` event, in ms; copying prompts computed
    /// before, and making the step's buffers larger, not counted.
    pub schedule_ms: f64,
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
    /// Selected rows by layer and distance from now, `[layers][DISTANCE_BUCKETS]`; a dense layer's are all 0. Distances
    /// are counted in powers of two: bucket 0 is the token itself, bucket b ≥ 1 holds distances 2^(b-1)..2^b.
    pub distance: Vec<Vec<u64>>,
    /// The share of the selected rows among the first four positions, in 0..=1.
    pub sink_share: f64,
    /// The share of the selected rows among the last 64 positions, in 0..=1.
    pub recent_share: f64,
    /// The kept mass per layer, mean over heads and tokens; 1 where every row is read.
    pub kept_mass: Vec<f32>,
}

/// What a probe found: the prediction from one decoded token by the lane's policy, compared with that of exact attention
/// over the same cached tokens. The text goes on by whichever the session reads with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// In which lane.
    pub lane: Lane,
    /// In which session.
    pub session: SessionId,
    /// By which step of the lane.
    pub step: u64,
    /// The position of the token in its sequence.
    pub position: usize,
    /// KL(exact ‖ policy) of the next token, in nats.
    pub kl: f64,
    /// Whether both find the same likeliest token.
    pub agree: bool,
    /// The softmax mass that the policy's rows held, mean over heads and the layers that chose; `None` where it read
    /// every row.
    pub kept_mass: Option<f32>,
    /// Whether the session reads every row, and the policy was only asked.
    pub full: bool,
}

/// The guard of a session changed its mind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Guarded {
    /// In which lane.
    pub lane: Lane,
    /// In which session.
    pub session: SessionId,
    /// After which step of the lane; acts from the next one on.
    pub step: u64,
    /// How the session reads from now on.
    pub state: GuardState,
    /// Why, in one line with the figures.
    pub reason: String,
    /// The mean KL in nats over the guard's window; `None` where it was not probed.
    pub kl: Option<f64>,
    /// The mean kept mass over the guard's window; `None` where no rows were chosen.
    pub kept_mass: Option<f64>,
    /// Whether all of the session's V is on the device now; else, reading every row, it reads V where it is.
    pub v_on_device: bool,
}

/// What the choice of a token read. Only while the session is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// In which session.
    pub session: SessionId,
    /// In which lane.
    pub lane: Lane,
    /// By which step of the lane.
    pub step: u64,
    /// The index in its answer of the token that came of it.
    pub index: usize,
    /// Positions attended to; the token that came of it has this position.
    pub len: usize,
    /// Query heads of all layers that chose rows; 0 where every row was read.
    pub heads: usize,
    /// Positions that any head chose.
    pub read: usize,
    /// They, ascending, each with the number of heads that chose it; where they are more than
    /// [`READ_POSITIONS`](super::READ_POSITIONS), those that most heads chose.
    pub positions: Vec<(u32, u16)>,
}

/// The coverage curves of a token: kept mass against N. Only while the session is looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Coverage {
    /// In which session.
    pub session: SessionId,
    /// In which lane.
    pub lane: Lane,
    /// By which step of the lane.
    pub step: u64,
    /// The index in its answer of the token that came of it.
    pub index: usize,
    /// Positions attended to.
    pub len: usize,
    /// The N of the curves: 1, 2, 4 and so on, and `len`.
    pub n: Vec<usize>,
    /// What each query head of each layer read; empty for a layer that read every row.
    pub layers: Vec<Vec<HeadCoverage>>,
}

/// One query head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeadCoverage {
    /// Rows it read for this token.
    pub rows: usize,
    /// The softmax mass that they held.
    pub kept: f32,
    /// The mass that its N heaviest positions hold, for every N of the event; exact, to four decimals.
    pub curve: Vec<f32>,
    /// Rows it read by distance from now, as in [`Hits`], since the last event of this kind.
    pub distance: Vec<u32>,
}

/// How an answer ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// In which lane.
    pub lane: Lane,
    /// In which session.
    pub session: SessionId,
    /// After which step of the lane.
    pub step: u64,
    /// Why.
    pub reason: FinishReason,
    /// What it took.
    pub usage: Usage,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// `max_tokens` was reached.
    Length,
    /// The model's context is full.
    Context,
    /// The lane's device budget, or the host tier, is full.
    Budget,
    /// Somebody stopped it.
    Cancelled,
    /// The model's output was no number.
    Failed,
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context full",
            Self::Budget => "budget full",
            Self::Cancelled => "stopped",
            Self::Failed => "failed",
        })
    }
}

/// What an answer took.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens in the cache before this turn, reused.
    pub reused_tokens: usize,
    /// Prompt tokens computed for this turn.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Milliseconds from the message to the first token.
    pub ttft_ms: Option<f64>,
    /// Milliseconds from the message to the end.
    pub total_ms: f64,
}
