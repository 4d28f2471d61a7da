//! The options of a measurement of capacity, the memory it needs, and the reasons to refuse it.

use thiserror::Error;

use super::CONTEXTS;
use crate::{
    cache::{LaneCache, OutOfBudget, PAGE_TOKENS, Policy},
    engine::{EngineError, workspace_bytes},
    model::LanguageModel,
};

#[derive(Debug, Clone, PartialEq)]
pub struct CapacityOptions {
    /// The policies, in the spelling to report. The first is what the others are compared with.
    pub policies: Vec<(String, Policy)>,
    /// Bytes that a lane may hold on the device.
    pub budget: u64,
    /// Tokens of each context.
    pub ctx: usize,
    pub requests: usize,
    /// Tokens that each request generates.
    pub generate: usize,
    pub rounds: usize,
    /// Prompt tokens computed in one step.
    pub prefill_chunk: usize,
    pub threads: usize,
    /// Whether every request computes its context.
    pub real_prefill: bool,
}

/// Why a measurement did not run, or cannot be believed.
#[derive(Debug, Error)]
pub enum CapacityError {
    /// A list is empty, or a size is 0.
    #[error("ctx, requests, gen, rounds and the prefill chunk must be at least 1, and there must be a policy")]
    Empty,
    /// The model's context is too short.
    #[error("a context of {ctx} and {generate} tokens more do not fit into the model's context of {context}")]
    Context {
        /// Tokens of the context.
        ctx: usize,
        /// Tokens to generate.
        generate: usize,
        context: usize,
    },
    /// A lane cannot hold even one sequence, or something else was refused.
    #[error("{policy}: {message}")]
    Refused { policy: String, message: String },
    /// The books say that more was held than allowed: a bug.
    #[error("{policy}: {peak} bytes were held on the device, {budget} are allowed")]
    OverBudget {
        policy: String,
        /// The most that was held.
        peak: u64,
        budget: u64,
    },
    /// No memory for the contexts.
    #[error(transparent)]
    OutOfBudget(#[from] OutOfBudget),
    /// The engine did not start.
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("stopped")]
    Cancelled,
}

impl CapacityOptions {
    /// The budget that so many `kv` sequences need to be answered to the end, the step's buffers included.
    pub fn budget_for(
        model: &LanguageModel,
        threads: usize,
        sequences: usize,
        (ctx, generate): (usize, usize),
        chunk: usize,
    ) -> u64 {
        let workspace = workspace_bytes(model, threads, chunk, sequences);
        sequences as u64 * model.cache_shape().kv_bytes(ctx + generate) + workspace
    }

    /// Bytes of memory that a run takes, at most: a full lane with what it has on the host, and the contexts.
    pub fn memory(&self, model: &LanguageModel) -> u64 {
        let shape = model.cache_shape();
        let both_tiers = |policy: &Policy| {
            let (device, host) = LaneCache::new(shape, *policy, None, None).resident_block();
            (self.budget as f64 / device as f64 * (device + host) as f64) as u64
        };
        let largest = self.policies.iter().map(|(_, policy)| both_tiers(policy)).max().unwrap_or(0);
        largest + (CONTEXTS * (1 + self.policies.len())) as u64 * shape.kv_bytes(self.ctx)
    }

    /// Tokens for which a sequence has the pages while the lane is full: it starts with room for its context, the token
    /// after it and the first of its answer, and one page more is left to those that will need it.
    pub fn held_tokens(&self) -> usize {
        let begin = self.ctx + 2;
        (self.ctx + self.generate).clamp(begin, begin.next_multiple_of(PAGE_TOKENS) + PAGE_TOKENS)
    }

    /// Tokens that a sequence attends to in the middle of its answer.
    pub fn mean_tokens(&self) -> usize {
        self.ctx + self.generate.div_ceil(2)
    }

    /// Bytes of a step's buffers with so many sequences.
    pub fn workspace(&self, model: &LanguageModel, sequences: usize) -> u64 {
        workspace_bytes(model, self.threads, self.prefill_chunk, sequences)
    }

    /// Whether it can be measured.
    ///
    /// # Errors
    /// An empty list or a size of 0, or a context that is too long for the model.
    pub fn check(&self, model: &LanguageModel) -> Result<(), CapacityError> {
        let sizes = [self.ctx, self.requests, self.generate, self.rounds, self.prefill_chunk, self.threads];
        if self.policies.is_empty() || sizes.contains(&0) {
            return Err(CapacityError::Empty);
        }
        let (ctx, generate, context) = (self.ctx, self.generate, model.context());
        match ctx.checked_add(generate) {
            // The token that follows the context is the first that is read.
            Some(needed) if needed < context => Ok(()),
            _ => Err(CapacityError::Context { ctx, generate, context }),
        }
    }
}
