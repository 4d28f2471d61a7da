//! The measurement itself: policies alternate by chunk while prompts are computed, and by round while they decode.

use std::{ops::ControlFlow, time::Instant};

use thiserror::Error;

use super::{
    Run,
    prompt::Prompts,
    run::{DecodeRound, DecodeStep, PrefillPass, Subject},
};
use crate::{
    attention::HitCounts,
    cache::{CacheShape, LaneCache, MemoryKind, OutOfBudget, Policy, SequenceCache, Unbalanced},
    kernels::{Linear, Pool},
    model::{BatchItem, Forward, LanguageModel, LogitRows, Reading},
    progress::Progress,
    quality::compare_logits,
};

/// Short prompts are computed several times, until about so many tokens were measured.
const PREFILL_TOKENS: usize = 2048;
/// Steps of each policy before the first round that counts.
const WARM_UP_STEPS: usize = 8;

#[derive(Debug, Clone, PartialEq)]
pub struct BenchOptions {
    /// The policies, in the spelling to report. The first is what the others are compared with.
    pub policies: Vec<(String, Policy)>,
    /// Prompt lengths, in tokens.
    pub ctx: Vec<usize>,
    /// Numbers of sequences that decode together.
    pub batch: Vec<usize>,
    /// Steps that a policy decodes in one round.
    pub steps: usize,
    pub rounds: usize,
    /// Prompt tokens computed in one pass.
    pub prefill_chunk: usize,
    /// Measures every policy that chooses rows once more with a probe at every position that this divides; 0 for not.
    pub probe_every: usize,
}

impl BenchOptions {
    /// Bytes of cache that are held at once, at most.
    pub fn cache_bytes(&self, shape: CacheShape) -> u64 {
        let batch = self.batch.iter().copied().max().unwrap_or(0) as u64;
        let knobs = self.policies.iter().filter_map(|(_, policy)| policy.knobs());
        let buffer = knobs.map(|knobs| knobs.buffer).max().unwrap_or(0);
        let at = |ctx: usize| {
            let prompts = batch * shape.kv_bytes(ctx);
            let decoding = batch * (shape.kv_bytes(ctx + self.steps) + shape.sum_bytes() + shape.buffer_bytes(buffer));
            let prefilling = self.subjects().count() as u64 * (shape.kv_bytes(ctx) + shape.sum_bytes());
            prompts + decoding.max(prefilling)
        };
        self.ctx.iter().map(|&ctx| at(ctx)).max().unwrap_or(0)
    }

    /// How often the prompt is computed under each policy.
    fn prefill_passes(&self, ctx: usize) -> usize {
        (PREFILL_TOKENS / ctx).clamp(1, self.rounds)
    }

    fn warm_up_steps(&self) -> usize {
        self.steps.min(WARM_UP_STEPS)
    }

    /// What is measured alternately: policies with their spelling, and how often each is probed.
    fn subjects(&self) -> impl Iterator<Item = (&str, Policy, usize)> {
        let probed = |policy: &Policy| (self.probe_every > 0 && policy.knobs().is_some()).then_some(self.probe_every);
        let policies = self.policies.iter();
        policies.flat_map(move |(spelling, policy)| {
            [Some(0), probed(policy)].into_iter().flatten().map(move |every| (spelling.as_str(), *policy, every))
        })
    }

    fn passes(&self) -> usize {
        let policies = self.subjects().count();
        let largest = self.batch.iter().copied().max().unwrap_or(0);
        let at = |ctx: usize| {
            let chunks = ctx.div_ceil(self.prefill_chunk);
            let prefill = 1 + self.prefill_passes(ctx) * policies * chunks + (largest - 1) * chunks;
            prefill + self.batch.len() * policies * (self.warm_up_steps() + self.rounds * self.steps)
        };
        self.ctx.iter().map(|&ctx| at(ctx)).sum()
    }

    fn check(&self, model: &LanguageModel) -> Result<(), BenchError> {
        let sizes = self.ctx.iter().chain(&self.batch).chain([&self.steps, &self.rounds, &self.prefill_chunk]);
        if self.policies.is_empty() || self.ctx.is_empty() || self.batch.is_empty() || sizes.min() == Some(&0) {
            return Err(BenchError::Empty);
        }
        let (context, steps) = (model.context(), self.steps);
        match self.ctx.iter().find(|&ctx| ctx.checked_add(steps).is_none_or(|needed| needed > context)) {
            Some(&ctx) => Err(BenchError::Context { ctx, steps, context }),
            None => Ok(()),
        }
    }
}

/// Why a measurement did not run.
#[derive(Debug, Error)]
pub enum BenchError {
    /// A list is empty, or a size is 0.
    #[error("ctx, batch, gen, rounds and the prefill chunk must be at least 1, and there must be a policy")]
    Empty,
    /// The model's context is too short.
    #[error(
        "a context of {ctx} and {steps} tokens more do not fit into the model's context of {context}: {}",
        match context.saturating_sub(*steps) {
            0 => format!("generate fewer than {context}"),
            fits => format!("the longest that fits is {fits}"),
        }
    )]
    Context {
        /// Tokens of the prompt.
        ctx: usize,
        /// Tokens to decode.
        steps: usize,
        context: usize,
    },
    /// No memory for the caches.
    #[error(transparent)]
    OutOfBudget(#[from] OutOfBudget),
    /// The bytes to be reported are wrong.
    #[error(transparent)]
    Unbalanced(#[from] Unbalanced),
    #[error("stopped")]
    Cancelled,
}

/// Measures every policy at every context and batch. Runs come in the order of `ctx`, `batch`, `policies`. `progress`
/// is called after every pass and may break it off.
pub fn bench(
    model: &LanguageModel,
    pool: &Pool,
    options: &BenchOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Vec<Run>, BenchError> {
    options.check(model)?;
    let prompts = Prompts::new(model);
    let total = options.passes();
    let mut bench = Bench { model, pool, options, forward: Forward::new(), progress, done: 0, total };
    let mut contenders: Vec<Contender> = options
        .subjects()
        .map(|(spelling, policy, probe_every)| Contender {
            spelling,
            policy,
            probe_every,
            lane: LaneCache::new(model.cache_shape(), policy, None, None),
        })
        .collect();
    let largest = options.batch.iter().copied().max().unwrap_or(1);
    let mut runs = Vec::new();
    for &ctx in &options.ctx {
        let mut shelf = LaneCache::new(model.cache_shape(), Policy::Kv, None, None);
        let (passes, first) = bench.prefill_in_turns(&mut contenders, &mut shelf, &prompts.tokens(0, ctx))?;
        let mut ready = vec![first];
        for index in 1..largest {
            let what = format!("ctx {ctx}: prompt {} of {largest}", index + 1);
            ready.push(bench.prepare(&mut shelf, &prompts.tokens(index, ctx), &what)?);
        }
        for &batch in &options.batch {
            let rounds = bench.decode_in_turns(&mut contenders, &ready[..batch], ctx)?;
            for ((contender, passes), rounds) in contenders.iter().zip(&passes).zip(&rounds) {
                let subject = Subject {
                    policy: contender.spelling,
                    probe_every: contender.probe_every,
                    ctx,
                    batch,
                    threads: pool.threads(),
                    flop_per_token: flop_per_token(model),
                };
                runs.extend(Run::summarise(subject, passes, rounds));
            }
        }
    }
    Ok(runs)
}

/// A policy with a cache of its own.
struct Contender<'a> {
    spelling: &'a str,
    policy: Policy,
    probe_every: usize,
    lane: LaneCache,
}

/// A prompt that has been computed. Under every policy it is the same but for how it is stored, so one serves all.
struct Ready {
    cache: SequenceCache,
    next: u32,
}

struct Bench<'a> {
    model: &'a LanguageModel,
    pool: &'a Pool,
    options: &'a BenchOptions,
    forward: Forward,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    done: usize,
    total: usize,
}

impl Bench<'_> {
    fn advance(&mut self, what: &str) -> Result<(), BenchError> {
        self.done += 1;
        match (self.progress)(Progress { what: what.to_owned(), done: self.done, total: self.total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(BenchError::Cancelled),
        }
    }

    /// Computes the next chunk of a prompt; the choice of the next token belongs to the last one.
    fn chunk(&mut self, cache: &mut SequenceCache, tokens: &[u32], last: bool) -> (PrefillPass, Option<u32>) {
        let started = Instant::now();
        let logits = if last { LogitRows::Last } else { LogitRows::None };
        let span = BatchItem { tokens, cache, copies: Vec::new(), reading: Reading::Exact, logits };
        let mut unused = HitCounts::new(self.model.shape.layers);
        self.forward.run(self.model, self.pool, &mut [span], &mut unused);
        let next = last.then(|| argmax(self.forward.logits()));
        (PrefillPass::new(started.elapsed(), self.forward.times()), next)
    }

    /// Computes a prompt under every policy, chunk by chunk in turn, and keeps one of the results on the shelf.
    fn prefill_in_turns(
        &mut self,
        contenders: &mut [Contender],
        shelf: &mut LaneCache,
        prompt: &[u32],
    ) -> Result<(Vec<Vec<PrefillPass>>, Ready), BenchError> {
        let ctx = prompt.len();
        let chunks: Vec<&[u32]> = prompt.chunks(self.options.prefill_chunk).collect();
        let mut warm_up = shelf.open()?;
        shelf.grow(&mut warm_up, chunks[0].len())?;
        self.chunk(&mut warm_up, chunks[0], true);
        shelf.close(warm_up);
        self.advance(&format!("ctx {ctx}: warming up"))?;

        let mut passes = vec![Vec::new(); contenders.len()];
        let count = self.options.prefill_passes(ctx);
        let mut kept = None;
        for pass in 1..=count {
            let what = format!("ctx {ctx}: prefill {pass} of {count}");
            let mut caches = Vec::new();
            for contender in contenders.iter_mut() {
                let mut cache = contender.lane.open()?;
                contender.lane.grow(&mut cache, ctx)?;
                caches.push(cache);
            }
            let mut sums = vec![PrefillPass::default(); contenders.len()];
            let mut next = None;
            for (index, chunk) in chunks.iter().enumerate() {
                for (cache, sum) in caches.iter_mut().zip(&mut sums) {
                    let (pass, chosen) = self.chunk(cache, chunk, index + 1 == chunks.len());
                    sum.add(pass);
                    next = chosen;
                    self.advance(&what)?;
                }
            }
            if let (Some(next), Some(cache), None) = (next, caches.first(), &kept) {
                kept = Some(Ready { cache: shelf.fork(cache)?, next });
            }
            for ((contender, cache), (passes, sum)) in
                contenders.iter_mut().zip(caches).zip(passes.iter_mut().zip(sums))
            {
                contender.lane.close(cache);
                passes.push(sum);
            }
        }
        Ok((passes, kept.ok_or(BenchError::Empty)?))
    }

    /// Computes a further prompt, unmeasured.
    fn prepare(&mut self, shelf: &mut LaneCache, prompt: &[u32], what: &str) -> Result<Ready, BenchError> {
        let mut cache = shelf.open()?;
        shelf.grow(&mut cache, prompt.len())?;
        let mut next = None;
        for tokens in prompt.chunks(self.options.prefill_chunk) {
            next = self.chunk(&mut cache, tokens, true).1;
            self.advance(what)?;
        }
        Ok(Ready { cache, next: next.ok_or(BenchError::Empty)? })
    }

    /// Decodes after the same prompts under every policy, round by round in turn.
    fn decode_in_turns(
        &mut self,
        contenders: &mut [Contender],
        ready: &[Ready],
        ctx: usize,
    ) -> Result<Vec<Vec<DecodeRound>>, BenchError> {
        let (batch, rounds) = (ready.len(), self.options.rounds);
        for contender in contenders.iter_mut() {
            let what = format!("ctx {ctx}, batch {batch}: warming up");
            self.decode(contender, ready, self.options.warm_up_steps(), &what)?;
        }
        let mut measured = vec![Vec::new(); contenders.len()];
        for round in 1..=rounds {
            let what = format!("ctx {ctx}, batch {batch}: decode round {round} of {rounds}");
            for (contender, measured) in contenders.iter_mut().zip(&mut measured) {
                measured.push(self.decode(contender, ready, self.options.steps, &what)?);
            }
        }
        Ok(measured)
    }

    /// One round of one policy, on copies of the prompts' caches.
    fn decode(
        &mut self,
        contender: &mut Contender,
        ready: &[Ready],
        steps: usize,
        what: &str,
    ) -> Result<DecodeRound, BenchError> {
        let Contender { policy, probe_every, lane, .. } = contender;
        let vocab = self.model.shape.vocab;
        let mut weights = Vec::new();
        let mut caches = Vec::new();
        for prompt in ready {
            let mut cache = lane.fork(&prompt.cache)?;
            lane.grow(&mut cache, steps)?;
            caches.push(cache);
        }
        let mut tokens: Vec<[u32; 1]> = ready.iter().map(|prompt| [prompt.next]).collect();
        let mut hits = HitCounts::new(self.model.shape.layers);
        let mut measured = Vec::with_capacity(steps);
        for _ in 0..steps {
            let started = Instant::now();
            let probed = *probe_every > 0 && caches[0].len().is_multiple_of(*probe_every);
            let reading = if probed { Reading::Probed(*policy, Policy::Kv) } else { Reading::Policy(*policy) };
            let mut spans: Vec<BatchItem> = caches
                .iter_mut()
                .zip(&tokens)
                .map(|(cache, token)| BatchItem {
                    tokens: token,
                    cache,
                    copies: Vec::new(),
                    reading,
                    logits: LogitRows::Last,
                })
                .collect();
            self.forward.run(self.model, self.pool, &mut spans, &mut hits);
            drop(spans);
            let logits = || self.forward.logits().chunks_exact(vocab);
            for (token, logits) in tokens.iter_mut().zip(logits()) {
                *token = [argmax(logits)];
            }
            // What an engine makes of it is part of the cost.
            for (exact, logits) in self.forward.probe_logits().chunks_exact(vocab).zip(logits()) {
                compare_logits(exact, logits, &mut weights);
            }
            let (total, times, traffic) = (started.elapsed(), self.forward.times(), self.forward.traffic());
            measured.push(DecodeStep { total, times, traffic });
            self.advance(what)?;
        }
        lane.check(caches.iter())?;
        let held = |owner| lane.device().held(owner);
        let round = DecodeRound {
            steps: measured,
            device_kv_bytes: held(MemoryKind::K) + held(MemoryKind::V) + held(MemoryKind::Tail),
            host_v_bytes: lane.host().held(MemoryKind::V),
            rows_per_head: hits.rows_per_head(),
        };
        caches.into_iter().for_each(|cache| lane.close(cache));
        Ok(round)
    }
}

/// Multiplications and additions in the linear layers for one token, the output head left out.
fn flop_per_token(model: &LanguageModel) -> f64 {
    let weights = |linear: &Linear| (linear.in_features() * linear.out_features()) as f64;
    let layers = model.weights.layers.iter();
    let matrices = layers
        .flat_map(|layer| [&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down].map(weights));
    2.0 * matrices.sum::<f64>()
}

/// The likeliest token; the first of equals.
fn argmax(logits: &[f32]) -> u32 {
    let first = (0, f32::NEG_INFINITY);
    logits.iter().enumerate().fold(first, |best, (id, &value)| if value > best.1 { (id, value) } else { best }).0 as u32
}
