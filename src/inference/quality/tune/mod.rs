//! `kcache tune`: learns how many rows each head of a model should read, from texts under full attention.
//!
//! K is complete and both answers are known, so the error that N rows leave in a head's output is exact. What it does
//! to the prediction is its product with the gradient of the log-probability of a token drawn from the prediction: half
//! the mean square of that is the KL divergence to second order (the Fisher information, sampled). Errors of different
//! heads and positions are taken as independent. So every head has a curve of KL by rows, and a budget of rows is spent
//! where the curves fall most.
//!
//! The tail stands for the rows that were not read: a mean that leans from the mean of all V rows towards the mean of
//! the rows that were read. The best lean of a head is a least-squares fit in the same measure, and costs nothing when
//! decoding.
//!
//! A profile looks better on the tokens that it was learnt from than on others. So the tokens that follow those in each
//! text, a quarter as many, are held out: the same measure is taken there, with the rows and leans that were learnt
//! before.

mod curve;
mod replica;
mod split;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use candle_core::{D, Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use thiserror::Error;

use self::{
    curve::HeadCurve,
    replica::{Inside, Replica},
};
use super::EvalError;
use crate::{
    attention::HitCounts,
    cache::{LaneCache, Policy, Split, Table},
    kernels::Pool,
    model::{BatchItem, Forward, LanguageModel, LogitRows, Reading},
    progress::Progress,
};

/// Prompt tokens per pass.
const PREFILL_ROWS: usize = 256;
/// Tokens of a text that are differentiated together: their softmax is in memory as a whole, one layer at a time.
const ROWS: usize = 128;
/// Gradients per position, each of another drawn token.
const DRAWS: usize = 2;
/// What the draws begin from, where is learnt and where is held out: the second do not change what the first give.
const SEEDS: [u64; 2] = [1, 2];
/// Tokens that are learnt from for each one that is held out.
const LEARNT_PER_HELD_OUT: usize = 4;

/// What to learn from.
#[derive(Debug, Clone, PartialEq)]
pub struct TuneOptions {
    /// Tokens of each text before the first one that is learnt from.
    pub context: usize,
    /// Tokens of each text that are learnt from.
    pub tokens: usize,
    /// Means of rows to make a split for.
    pub rows: Vec<usize>,
}

/// What was learnt.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// The profile.
    pub table: Table,
    /// The KL divergence that each split should have, in nats, by the measure that it was chosen by, and on the tokens
    /// that it was chosen on.
    pub expected_kl: Vec<f64>,
    /// The same for a split that gives every head the same rows, with the mean of all rows for the tail.
    pub expected_even_kl: Vec<f64>,
    /// Tokens that were learnt from.
    pub learnt_tokens: usize,
    /// What the splits should lose on tokens that were held out; `None` where every text ends before them.
    pub held_out: Option<HeldOut>,
}

/// The measure of the splits on tokens that nothing was learnt from.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOut {
    /// So many tokens, of all texts.
    pub tokens: usize,
    /// As [`Tuned::expected_kl`].
    pub kl: Vec<f64>,
    /// As [`Tuned::expected_even_kl`].
    pub even_kl: Vec<f64>,
}

/// Why nothing was learnt.
#[derive(Debug, Error)]
pub enum TuneError {
    /// The texts or sizes do not do.
    #[error(transparent)]
    Text(#[from] EvalError),
    /// There is no text, or no mean of rows.
    #[error("a text and a number of rows are needed")]
    Nothing,
    /// The tensors did not fit each other.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

/// Learns from `texts`, each in tokens. `progress` is called after every layer and may break it off.
pub fn tune(
    model: &LanguageModel,
    pool: &Pool,
    texts: &[Vec<u32>],
    options: &TuneOptions,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Tuned, TuneError> {
    let TuneOptions { context, tokens, ref rows } = *options;
    if texts.is_empty() || rows.is_empty() {
        return Err(TuneError::Nothing);
    }
    for text in texts {
        super::evaluate::check(model, text.len(), context, tokens)?;
    }
    let shape = model.head_shape();
    let end = context + tokens;
    // All of them or none: of a few the measure says nothing.
    let apart = tokens / LEARNT_PER_HELD_OUT;
    let held_out = |text: &Vec<u32>| if end + apart <= text.len().min(model.context()) { apart } else { 0 };
    let passes = |text: &Vec<u32>| tokens.div_ceil(ROWS) + held_out(text).div_ceil(ROWS);
    let part = |seed| Part {
        curves: vec![HeadCurve::default(); model.shape.layers * shape.heads],
        draw: LogitsProcessor::from_sampling(seed, Sampling::All { temperature: 1.0 }),
    };
    let mut learning = Learning {
        model,
        pool,
        progress,
        what: String::new(),
        done: 0,
        total: texts.iter().map(|text| context.div_ceil(PREFILL_ROWS) + 2 * model.shape.layers * passes(text)).sum(),
    };
    let [mut learnt, mut apart] = SEEDS.map(part);
    for (index, text) in texts.iter().enumerate() {
        learning.what = format!("text {} of {}", index + 1, texts.len());
        let parts = [(&mut learnt, tokens), (&mut apart, held_out(text))];
        learning.text(text, context, parts)?;
    }
    let held_out = texts.iter().map(held_out).sum();
    Ok(spend(model, [&learnt.curves, &apart.curves], [tokens * texts.len(), held_out], rows))
}

/// Splits for every mean of rows, chosen by the curves of the heads where is learnt, and measured by those where is
/// held out. `tokens` are how many there are of each.
fn spend(
    model: &LanguageModel,
    [heads, apart]: [&[HeadCurve]; 2],
    [learnt_tokens, held_out]: [usize; 2],
    means: &[usize],
) -> Tuned {
    let points: Vec<split::Curve> = heads.iter().map(HeadCurve::points).collect();
    let mut means = means.to_vec();
    means.sort_unstable();
    means.dedup();
    let (mut splits, mut expected_kl, mut expected_even_kl) = (Vec::new(), Vec::new(), Vec::new());
    let even = |heads: &[HeadCurve], n: usize| heads.iter().map(|head| head.even_error(n as f64)).sum();
    let mut measured = HeldOut { tokens: held_out, kl: Vec::new(), even_kl: Vec::new() };
    for n in means {
        let (rows, error) = split::split(&points, (n * heads.len()) as f64);
        let by_layer = |head: usize| head * model.shape.heads..(head + 1) * model.shape.heads;
        let layers = || (0..model.shape.layers).map(by_layer);
        let split = Split {
            n,
            rows: layers().map(|heads| rows[heads].iter().map(|rows| rows.round().max(1.0) as u32).collect()).collect(),
            lean: layers().map(|layer| layer.map(|head| hundredths(heads[head].lean(rows[head]))).collect()).collect(),
        };
        expected_kl.push(error);
        expected_even_kl.push(even(heads, n));
        let chosen = split.rows.iter().flatten().zip(split.lean.iter().flatten());
        let errors =
            apart.iter().zip(chosen).map(|(head, (&rows, &lean))| head.error(f64::from(rows), f64::from(lean)));
        measured.kl.push(errors.sum());
        measured.even_kl.push(even(apart, n));
        splits.push(split);
    }
    let table = Table { model: model.shape.name.clone(), fingerprint: model.id().fingerprint.clone(), split: splits };
    Tuned { table, expected_kl, expected_even_kl, learnt_tokens, held_out: (held_out > 0).then_some(measured) }
}

/// More digits than that are noise.
fn hundredths(lean: f64) -> f32 {
    ((lean * 100.0).round() / 100.0) as f32
}

/// The tokens that are learnt from, or those that are held out.
struct Part {
    /// Of each head, layer after layer.
    curves: Vec<HeadCurve>,
    draw: LogitsProcessor,
}

impl Part {
    /// The gradients by the logits of the log-probabilities of drawn tokens, one token for each position.
    fn draws(&mut self, logits: &Tensor) -> candle_core::Result<Vec<Tensor>> {
        let (rows, vocab) = logits.dims2()?;
        let exp = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?)?.exp()?;
        let softmax = exp.broadcast_div(&exp.sum_keepdim(D::Minus1)?)?;
        (0..DRAWS)
            .map(|_| {
                let mut drawn = vec![0.0f32; rows * vocab];
                for row in 0..rows {
                    drawn[row * vocab + self.draw.sample(&logits.get(row)?)? as usize] = 1.0;
                }
                Tensor::from_vec(drawn, (rows, vocab), &Device::Cpu)? - &softmax
            })
            .collect()
    }
}

struct Learning<'a> {
    model: &'a LanguageModel,
    pool: &'a Pool,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    what: String,
    done: usize,
    total: usize,
}

impl Learning<'_> {
    fn advance(&mut self) -> Result<(), EvalError> {
        self.done += 1;
        match (self.progress)(Progress { what: self.what.clone(), done: self.done, total: self.total }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(EvalError::Cancelled),
        }
    }

    /// Looks at the tokens of a text that follow its context: so many for the first part, then so many for the second.
    fn text(&mut self, text: &[u32], context: usize, parts: [(&mut Part, usize); 2]) -> Result<(), TuneError> {
        let model = self.model;
        let end = context + parts.iter().map(|(_, tokens)| tokens).sum::<usize>();
        let mut forward = Forward::new();
        let mut unused = HitCounts::new(model.shape.layers);
        let mut lane = LaneCache::new(model.cache_shape(), Policy::Kv, None, None);
        let mut past = lane.open().map_err(EvalError::from)?;
        lane.grow(&mut past, end).map_err(EvalError::from)?;
        let mut pass = |past: &mut _, tokens: &[u32]| {
            let item =
                BatchItem { tokens, cache: past, copies: Vec::new(), reading: Reading::Exact, logits: LogitRows::None };
            forward.run(model, self.pool, &mut [item], &mut unused);
            forward.not_finite(0..tokens.len()).map_or(Ok(()), |place| Err(EvalError::from(place)))
        };
        for chunk in text[..context].chunks(PREFILL_ROWS) {
            pass(&mut past, chunk)?;
            self.advance()?;
        }
        let mut from = context;
        for (part, tokens) in parts {
            for chunk in text[from..from + tokens].chunks(ROWS) {
                self.rows(part, chunk, &past)?;
                pass(&mut past, chunk)?;
            }
            from += tokens;
        }
        Ok(())
    }

    /// Takes in `tokens`, which come after `past`.
    fn rows(&mut self, part: &mut Part, tokens: &[u32], past: &crate::cache::SequenceCache) -> Result<(), TuneError> {
        let layers = self.model.shape.layers;
        let replica = Replica::new(self.model, past, tokens.len())?;
        let mut inputs = vec![replica.embed(tokens)?];
        for layer in 0..layers {
            inputs.push(replica.forward(layer, &inputs[layer])?);
            self.advance()?;
        }
        let by_logits = part.draws(&replica.logits(&inputs[layers])?)?;
        let mut by_output = replica.logits_backward(&inputs[layers], &by_logits)?;
        for layer in (0..layers).rev() {
            let (by_input, inside) = replica.backward(layer, &inputs[layer], &by_output)?;
            self.layer(&mut part.curves, layer, past.len(), tokens.len(), &inside)?;
            by_output = by_input;
            self.advance()?;
        }
        Ok(())
    }

    /// Adds a layer's positions to the curves of its heads.
    fn layer(
        &self,
        curves: &mut [HeadCurve],
        layer: usize,
        past: usize,
        rows: usize,
        inside: &Inside,
    ) -> candle_core::Result<()> {
        let (heads, group, len) = (self.model.shape.heads, self.model.head_shape().group(), past + rows);
        let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        // Head `h` is lane `h % group` of KV head `h / group`, so its rows lie at `h·rows`.
        debug_assert_eq!(inside.weights.dims(), [heads / group, group * rows, len]);
        let weights = flat(&inside.weights)?;
        let values = inside.values.transpose(1, 2)?.contiguous()?;
        let projected: Vec<Vec<f32>> =
            inside.gradients.iter().map(|by| flat(&by.matmul(&values)?)).collect::<Result<_, _>>()?;
        self.pool.run_chunks(&mut curves[layer * heads..(layer + 1) * heads], 1, |head, curve| {
            let mut order = Vec::with_capacity(len);
            for row in 0..rows {
                let at = (head * rows + row) * len..(head * rows + row) * len + past + row + 1;
                let projected: Vec<&[f32]> = projected.iter().map(|values| &values[at.clone()]).collect();
                curve[0].add(&weights[at], &projected, &mut order);
            }
        });
        Ok(())
    }
}
