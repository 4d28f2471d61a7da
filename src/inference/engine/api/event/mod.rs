//! What the engine and the samplers report. Everything a reader sees (screen, JSON lines, reports, recordings) is
//! made from this one stream.
//!
//! As JSON each event is one object with `type`, `t_ms` and, where they apply, `lane`, `session` and `step`.

mod lane;
mod quality;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::{lane::*, quality::*};
use crate::{
    cache::Policy,
    telemetry::{GpuSample, HostSample},
};

/// Names a session in every request and event.
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
    /// A session was opened, renamed or given a system message.
    Session {
        /// Which one.
        session: SessionId,
        /// Its name.
        name: String,
        /// The lanes that run it.
        lanes: Vec<Lane>,
        /// Its system message; `None` leaves it to the model's chat template.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        system: Option<String>,
    },
    /// A session was closed and its pages were given back.
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
        /// The step that computed up to here; 0 while the answer only waits.
        step: u64,
        /// Tokens of this answer's prompt computed so far.
        done: usize,
        /// Tokens of this answer's prompt to compute. Pages reused from earlier answers are not counted.
        total: usize,
    },
    /// A token was generated.
    Token(Token),
    /// Compare mode of a session was switched on or off. It begins with the session's next answer.
    CompareMode {
        /// In which session.
        session: SessionId,
        /// On or off.
        on: bool,
    },
    /// What the lanes of a compared session predicted, just before both are given the token.
    Compare(Compare),
    /// The lanes of a compared session no longer wait for each other: each goes on by itself until the answer ends.
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
    /// An answer begins to wait, starts, is preempted or goes on.
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
    /// A decoded token was probed: the policy and exact attention both predicted from it, and the predictions were compared.
    Probe(Probe),
    /// What a token read. Only for a session that is looked at in the attention view.
    Read(Read),
    /// What mass more or fewer rows would have held for a token. Only for a session that is looked at.
    Coverage(Coverage),
    /// The text of tokens. Only for a session that is looked at.
    Text {
        /// In which session.
        session: SessionId,
        /// In which lane.
        lane: Lane,
        /// The position of the first token. The texts replace what earlier events said from there on.
        from: usize,
        /// Their texts, which may be empty while a character is incomplete.
        texts: Vec<String>,
    },
    /// The guard of a session warned, went back to full attention, or returned to the policy.
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
    /// Tokens in the cache before this answer, reused.
    pub reused_tokens: usize,
    /// Prompt tokens computed for this answer.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
    /// Milliseconds that it waited in the queue before it started: from the message until it had its pages and took part
    /// in the lane's steps. `None` where it never started, and in recordings of earlier versions.
    #[serde(default)]
    pub queued_ms: Option<f64>,
    /// Milliseconds from the message to the first token.
    pub ttft_ms: Option<f64>,
    /// Milliseconds from the message to the end.
    pub total_ms: f64,
}
