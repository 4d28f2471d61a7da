//! What is told of the quality of tokens: comparisons of the lanes, probes, the guard's verdicts, and what a token read.

use serde::{Deserialize, Serialize};

use super::{Lane, SessionId};
use crate::quality::GuardState;

/// Two predictions of the same token, by `kv` and by `kcache`, from the same tokens before it.
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
    /// What `kcache` would have chosen, if that is another token. Where tokens are drawn at random, by the same draw.
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

/// What a probe found: the prediction from one decoded token by the lane's policy, compared with that of exact attention
/// over the same cached tokens. The text does not change by it.
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
    /// Whether the session reads every row now. Then the probe is what the policy would have predicted.
    pub full: bool,
}

/// The guard of a session warned, went back to full attention, or returned to the policy.
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
    /// Whether all of the session's V is on the device now. If it is not, full attention reads the rest on the host.
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
    /// The index in its answer of the token that was computed from what it read.
    pub index: usize,
    /// Positions attended to. The token that was computed from them has this position.
    pub len: usize,
    /// Query heads of all layers that chose rows; 0 where every row was read.
    pub heads: usize,
    /// Positions that any head chose.
    pub read: usize,
    /// Those positions, ascending, each with the number of heads that chose it. At most
    /// 512 ([`READ_POSITIONS`](crate::engine::READ_POSITIONS)), namely those that most heads chose.
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
    /// The index in its answer of the token that was computed from what it read.
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
    /// Rows it read by distance from now, as in `hits`, since the last event of this kind.
    pub distance: Vec<u32>,
}
