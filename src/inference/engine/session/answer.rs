//! An answer in the making: where it stands, how its next token is chosen, and what it has taken so far.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use super::{answer_text::AnswerText, prefilled::Prefilled, sampler::Sampler};
use crate::engine::{GenerationOptions, Priority, Usage};

/// Who goes first: what was typed, then what was asked earlier. The smaller goes first.
pub(crate) type Rank = (Reverse<Priority>, u64);

/// Where an answer stands in its lane.
#[derive(Debug)]
pub(crate) enum Stage {
    /// It has not started. A prompt that was computed before is copied when it does.
    Waiting { prefilled: Option<Prefilled> },
    /// It holds the pages it needs and takes part in the steps; it had waited so long before it started.
    Running { queued: Duration },
    /// It was preempted.
    Preempted { queued: Duration },
}

/// Whether the other lane has a say in the next token, see `worker/compare.rs`.
pub(crate) enum Pairing {
    /// It has none.
    Alone,
    /// Both lanes are given the same token. This one has no prediction of it yet.
    Locked,
    /// This one has its prediction, which waits for the other lane's.
    Holding(Held),
}

/// A prediction that waits for the other lane's.
pub(crate) struct Held {
    /// Logits of the next token, `[vocab]`.
    pub logits: Vec<f32>,
    /// The mass that the rows read for it held.
    pub kept_mass: Option<f32>,
}

pub(crate) struct Answer {
    pub options: GenerationOptions,
    /// Answers asked for earlier go first among equals.
    pub order: u64,
    pub stage: Stage,
    pub pairing: Pairing,
    /// Whether the prompt is read by policy, as if it had been generated.
    pub(super) by_policy: bool,
    /// Tokens that were cached when the answer started.
    pub(super) reused: usize,
    /// Tokens of the prompt to compute for this answer.
    pub(super) prompt: usize,
    /// Tokens to compute before the next can be chosen, as of the last start.
    pub(super) goal: usize,
    /// Tokens known before this answer and its message.
    pub(super) before: usize,
    /// Whether a message stands for it in the conversation.
    pub(super) has_message: bool,
    pub generated: usize,
    pub(super) asked: Instant,
    pub(super) first_token: Option<Instant>,
    pub(super) last_token: Option<Instant>,
    pub(super) text: AnswerText,
    /// Whether a stop sequence has ended it, and the cache holds tokens of that.
    pub(super) overshot: bool,
    pub(super) sampler: Sampler,
}

impl Answer {
    /// An answer that waits, after `before` tokens that were known. `pending` tokens are to be computed for it.
    pub fn new(options: GenerationOptions, order: u64, has_message: bool, before: usize, pending: usize) -> Self {
        Self {
            sampler: Sampler::new(&options.sampling),
            options,
            order,
            stage: Stage::Waiting { prefilled: None },
            pairing: Pairing::Alone,
            by_policy: false,
            reused: 0,
            prompt: pending,
            goal: pending,
            before,
            has_message,
            generated: 0,
            asked: Instant::now(),
            first_token: None,
            last_token: None,
            text: AnswerText::default(),
            overshot: false,
        }
    }

    pub fn rank(&self) -> Rank {
        (Reverse(self.options.priority), self.order)
    }

    /// How long it waited before it started; `None` while it waits.
    pub fn queued(&self) -> Option<Duration> {
        match self.stage {
            Stage::Waiting { .. } => None,
            Stage::Running { queued } | Stage::Preempted { queued } => Some(queued),
        }
    }

    /// What it took until now.
    pub fn usage(&self) -> Usage {
        let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
        Usage {
            reused_tokens: self.reused,
            prompt_tokens: self.prompt,
            completion_tokens: self.generated,
            queued_ms: self.queued().map(ms),
            ttft_ms: self.first_token.map(|first| ms(first - self.asked)),
            total_ms: ms(self.asked.elapsed()),
        }
    }
}
