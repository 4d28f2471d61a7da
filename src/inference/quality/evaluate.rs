//! Compares policies with full attention on a text, in decode mode.
//!
//! The context is computed once, exactly, as any prompt is. Then the tokens that follow are fed as if they had been
//! generated (teacher forcing): each reads the cache as the policy says, and its prediction is compared with the one
//! that full attention makes from the same tokens. Ordinary prefill would not exercise a KCache at all. Several
//! positions go through one pass, each with its own causal length; the arithmetic is that of single steps.

use std::ops::ControlFlow;

use thiserror::Error;

use super::{Distribution, FIGURES, Score, TokenScore, full_ppl, kl_divergence};
use crate::{
    attention::HitCounts,
    cache::{LaneCache, OutOfBudget, Policy, SequenceCache},
    kernels::Pool,
    model::{BatchItem, Forward, LanguageModel, LogitRows, NotFinite, Reading},
    progress::Progress,
};

/// Prompt tokens per pass.
const PREFILL_ROWS: usize = 256;
/// Continuation tokens per pass: their logits take 64 · vocab floats.
const DECODE_ROWS: usize = 64;

/// The name of the run that differs from full attention only by its 8-bit activations.
pub const ROUNDED: &str = "kv, activations in 8 bits";

/// What to evaluate on.
#[derive(Debug, Clone, PartialEq)]
pub struct EvalOptions {
    /// Tokens of context that are computed exactly.
    pub context: usize,
    /// Tokens that follow and are compared.
    pub tokens: usize,
    /// The policies, in the spelling to report.
    pub policies: Vec<(String, Policy)>,
    /// Whether linear layers keep their activations in f32 for the tokens that are compared. The ordinary 8 bits turn
    /// the smallest difference into other roundings, which puts a floor of about 0.003 nats under every KL. What the
    /// rounding itself costs is then measured too, as a run named [`ROUNDED`].
    pub exact: bool,
}

/// Why an evaluation did not run.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum EvalError {
    /// The text is too short.
    #[error("the text has {found} tokens, {needed} are needed: take a longer text, or smaller --context and --tokens")]
    Short { found: usize, needed: usize },
    /// The model's context is too short.
    #[error("context and tokens together are {needed}, the model's context is {context}")]
    Context {
        needed: usize,
        /// The model's longest context.
        context: usize,
    },
    /// A size is 0.
    #[error("context and tokens must be at least 1")]
    Empty,
    /// No memory for the caches.
    #[error(transparent)]
    OutOfBudget(#[from] OutOfBudget),
    /// The model's arithmetic leaves the numbers.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// A model that knows nothing loses nothing under any policy. What comes out of the layers is normed, so it is what
    /// comes after them.
    #[error(
        "all predictions are uniform: `output_norm.weight` or the output head `{head}` of the model file is damaged, fetch \
         it again or take another"
    )]
    Uniform { head: &'static str },
    /// A figure is no number.
    #[error("{policy}: {figure} is no finite number: the model file is damaged, fetch it again or take another")]
    Figure { policy: String, figure: &'static str },
    /// It was stopped.
    #[error("stopped")]
    Cancelled,
}

/// The whole result.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// One per policy, in order.
    pub scores: Vec<Score>,
}

impl Evaluation {
    /// Perplexity of full attention on the same tokens; `None` without a policy.
    pub fn full_ppl(&self) -> Option<f64> {
        self.scores.first().map(|score| full_ppl(&score.tokens))
    }
}

/// Evaluates on the first `context + tokens + 1` of `text`. `progress` is called after every pass and may break it off.
///
/// # Errors
/// See [`EvalError`]. What a model computes has to be numbers, and to say something about the text: else figures that
/// compare it with itself would be perfect.
pub fn evaluate(
    model: &LanguageModel,
    pool: &Pool,
    text: &[u32],
    options: &EvalOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Evaluation, EvalError> {
    let EvalOptions { context, tokens, ref policies, exact } = *options;
    let needed = check(model, text.len(), context, tokens)?;
    let rounded = exact.then(|| (ROUNDED.to_owned(), Policy::Kv, false));
    let jobs: Vec<(String, Policy, bool)> =
        policies.iter().map(|(spelling, policy)| (spelling.clone(), *policy, exact)).chain(rounded).collect();
    let total = context + tokens * (jobs.len() + 1);
    let mut done = 0;
    let mut advance = |what: &str, rows: usize| {
        done += rows;
        match progress(Progress { what: what.to_owned(), done, total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvalError::Cancelled),
        }
    };
    let mut run = Run { model, pool, forward: Forward::new() };

    let mut full_lane = LaneCache::new(model.cache_shape(), Policy::Kv, None, None);
    let mut prompt = full_lane.open()?;
    full_lane.grow(&mut prompt, context + tokens)?;
    let mut unused = HitCounts::new(model.shape.layers);
    for chunk in text[..context].chunks(PREFILL_ROWS) {
        run.pass(chunk, &mut prompt, Reading::Exact, LogitRows::None, &mut unused)?;
        advance("prefill", chunk.len())?;
    }

    run.forward.set_exact(exact);
    let continuation = &text[context..context + tokens];
    let targets = &text[context + 1..needed];
    let mut full = Vec::with_capacity(tokens);
    let mut cache = full_lane.fork(&prompt)?;
    full_lane.grow(&mut cache, tokens)?;
    for chunk in continuation.chunks(DECODE_ROWS) {
        run.pass(chunk, &mut cache, Reading::Policy(Policy::Kv), LogitRows::All, &mut unused)?;
        full.extend(run.distributions());
        advance("full attention", chunk.len())?;
    }
    full_lane.close(cache);
    if full.iter().all(Distribution::is_uniform) {
        return Err(EvalError::Uniform { head: model.head_tensor() });
    }

    let mut scores = Vec::new();
    for (spelling, policy, exact) in jobs {
        run.forward.set_exact(exact);
        let mut lane = LaneCache::new(model.cache_shape(), policy, None, None);
        // The context as full attention left it, rounded once more where the policy stores 8 bits.
        let mut cache = lane.fork(&prompt)?;
        lane.grow(&mut cache, tokens)?;
        let mut hits = HitCounts::new(model.shape.layers);
        let mut found: Vec<TokenScore> = Vec::with_capacity(tokens);
        let mut fetched = 0;
        // What a reuse buffer holds depends on the steps before.
        let together = if policy.knobs().is_some_and(|knobs| knobs.buffer > 0) { 1 } else { DECODE_ROWS };
        for chunk in continuation.chunks(together) {
            fetched += run.pass(chunk, &mut cache, Reading::Policy(policy), LogitRows::All, &mut hits)?;
            for distribution in run.distributions() {
                let (full, target) = (&full[found.len()], targets[found.len()] as usize);
                found.push(TokenScore {
                    kl: kl_divergence(full, &distribution),
                    same: distribution.top() == full.top(),
                    right: [&distribution, full].map(|found| found.top() == target),
                    log_p: [&distribution, full].map(|found| found.log_p(target)),
                });
            }
            advance(&spelling, chunk.len())?;
        }
        let shape = &model.shape;
        let reads = (tokens * shape.layers * shape.heads) as f64;
        let [_, v] = policy.formats();
        let score = Score {
            policy: spelling,
            tokens: found,
            rows_mean: hits.rows_per_head().unwrap_or_default(),
            rows_fetched: fetched as f64 / v.row_bytes(shape.head_dim) as f64 / reads,
            kept_mass: hits.kept_mass_by_head(),
        };
        if let Some(figure) = FIGURES.iter().find(|figure| !(figure.of)(&score).is_finite()) {
            return Err(EvalError::Figure { policy: score.policy, figure: figure.name });
        }
        scores.push(score);
    }
    Ok(Evaluation { scores })
}

/// The tokens that an evaluation of these sizes needs, where the text and the model have them.
pub(super) fn check(model: &LanguageModel, found: usize, context: usize, tokens: usize) -> Result<usize, EvalError> {
    if context == 0 || tokens == 0 {
        return Err(EvalError::Empty);
    }
    let needed = context + tokens + 1;
    if found < needed {
        return Err(EvalError::Short { found, needed });
    }
    if needed > model.context() {
        return Err(EvalError::Context { needed, context: model.context() });
    }
    Ok(needed)
}

struct Run<'a> {
    model: &'a LanguageModel,
    pool: &'a Pool,
    forward: Forward,
}

impl Run<'_> {
    /// Computes one pass; returns the bytes of V that came from the host.
    fn pass(
        &mut self,
        tokens: &[u32],
        cache: &mut SequenceCache,
        reading: Reading,
        logits: LogitRows,
        hits: &mut HitCounts,
    ) -> Result<u64, NotFinite> {
        let item = BatchItem { tokens, cache, copies: Vec::new(), reading, logits };
        self.forward.run(self.model, self.pool, &mut [item], hits);
        match self.forward.not_finite(0..tokens.len()) {
            None => Ok(self.forward.traffic().host),
            Some(place) => Err(place),
        }
    }

    fn distributions(&self) -> impl Iterator<Item = Distribution> {
        self.forward.logits().chunks_exact(self.model.shape.vocab).map(Distribution::from_logits)
    }
}
