//! What a step computes and what it cost: batch items in, times and traffic out.

use std::time::Duration;

use crate::{
    attention::DecodeTimes,
    cache::{Policy, SequenceCache},
};

/// Consecutive tokens of one sequence.
pub struct BatchItem<'a> {
    /// The tokens, which come right after what is cached.
    pub tokens: &'a [u32],
    /// The sequence's cache; its pages must have been grown to hold the tokens.
    pub cache: &'a mut SequenceCache,
    /// Caches with the same contents that get the same rows: other lanes' pages of a shared prompt.
    pub copies: Vec<&'a mut SequenceCache>,
    /// How the cache is read.
    pub reading: Reading,
    /// Of which tokens the logits are wanted.
    pub logits: LogitRows,
}

/// How an item reads the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Exact causal attention by blocks: prompts.
    Exact,
    /// As the policy says, row by row: decoding.
    Policy(Policy),
    /// One token, as the first policy says. The second policy is asked what it would have predicted after the same
    /// cached tokens; that leaves no trace in the cache.
    Probed(Policy, Policy),
}

impl Reading {
    /// The policy by which the cache is read, where one says.
    pub fn policy(self) -> Option<Policy> {
        match self {
            Self::Exact => None,
            Self::Policy(policy) | Self::Probed(policy, _) => Some(policy),
        }
    }

    /// The policy of the probe, where there is one.
    pub fn probe(self) -> Option<Policy> {
        match self {
            Self::Exact | Self::Policy(_) => None,
            Self::Probed(_, probe) => Some(probe),
        }
    }
}

/// Of which tokens of an item the logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogitRows {
    /// Of none: a prompt goes on.
    None,
    /// Of the last: the next token is to be chosen.
    Last,
    /// Of all: evaluation.
    All,
}

/// Where the time of one pass went. Norms, rope, residuals and cache writes are in none of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassTimes {
    /// Linear layers.
    pub linear: Duration,
    /// Scores, selection and gathering of policy rows.
    pub decode: DecodeTimes,
    /// Exact attention.
    pub prefill: Duration,
    /// The output head.
    pub head: Duration,
}

/// Bytes of K and V that decoded rows read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the device tier.
    pub device: u64,
    /// From the host tier.
    pub host: u64,
    /// From either, for probes.
    pub probes: u64,
    /// V rows that were chosen, each of one KV head, counted for every head, or heads that choose together, that chose
    /// it.
    pub rows_chosen: u64,
    /// Those of them that were fetched from the host tier.
    pub rows_fetched: u64,
}
