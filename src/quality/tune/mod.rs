//! `kcache tune`: how many rows each head of a model should read, learnt from texts under full attention.
//!
//! K is complete and both answers are known, so the error that N rows leave in a head's output is exact. What it does to
//! the prediction is its product with the gradient of the log-probability of a token drawn from the prediction: half the
//! mean square of that is the KL divergence to second order (the Fisher information, sampled). Errors of different heads
//! and positions are taken as independent. So every head has a curve of KL by rows, and a budget of rows is spent where
//! the curves fall most.
//!
//! The rows that were not read are stood for by a mean that leans from the mean of all V rows to the mean of the rows that
//! were read; the best lean of a head is a least-squares fit in the same measure, and costs nothing when decoding.

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
    model::{Forward, LanguageModel, LogitRows, Reading, Span},
    progress::Progress,
};

/// Prompt tokens per pass.
const PREFILL_ROWS: usize = 256;
/// Tokens of a text that are differentiated together: their softmax is in memory as a whole, one layer at a time.
const ROWS: usize = 128;
/// Gradients per position, each of another drawn token.
const DRAWS: usize = 2;
/// What the draws begin from.
const SEED: u64 = 1;

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
    /// The KL divergence that each split should have, in nats, by the measure that it was chosen by.
    pub expected_kl: Vec<f64>,
    /// The same for a split that gives every head the same rows, with the mean of all rows for the tail.
    pub expected_even_kl: Vec<f64>,
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
    let mut learning = Learning {
        model,
        pool,
        curves: vec![HeadCurve::default(); model.shape.layers * shape.heads],
        draw: LogitsProcessor::from_sampling(SEED, Sampling::All { temperature: 1.0 }),
        progress,
        what: String::new(),
        done: 0,
        total: texts.len() * (context.div_ceil(PREFILL_ROWS) + 2 * model.shape.layers * tokens.div_ceil(ROWS)),
    };
    for (index, text) in texts.iter().enumerate() {
        learning.what = format!("text {} of {}", index + 1, texts.len());
        learning.text(text, context, tokens)?;
    }
    Ok(spend(model, &learning.curves, rows))
}

/// Splits for every mean of rows.
fn spend(model: &LanguageModel, heads: &[HeadCurve], means: &[usize]) -> Tuned {
    let points: Vec<split::Curve> = heads.iter().map(HeadCurve::points).collect();
    let mut means = means.to_vec();
    means.sort_unstable();
    means.dedup();
    let (mut splits, mut expected_kl, mut expected_even_kl) = (Vec::new(), Vec::new(), Vec::new());
    for n in means {
        let (rows, error) = split::split(&points, (n * heads.len()) as f64);
        let by_layer = |head: usize| head * model.shape.heads..(head + 1) * model.shape.heads;
        let layers = || (0..model.shape.layers).map(by_layer);
        splits.push(Split {
            n,
            rows: layers().map(|heads| rows[heads].iter().map(|rows| rows.round().max(1.0) as u32).collect()).collect(),
            lean: layers().map(|layer| layer.map(|head| hundredths(heads[head].lean(rows[head]))).collect()).collect(),
        });
        expected_kl.push(error);
        expected_even_kl.push(heads.iter().map(|head| head.even_error(n as f64)).sum());
    }
    let table = Table { model: model.shape.name.clone(), fingerprint: model.id().fingerprint.clone(), split: splits };
    Tuned { table, expected_kl, expected_even_kl }
}

/// More digits than that are noise.
fn hundredths(lean: f64) -> f32 {
    ((lean * 100.0).round() / 100.0) as f32
}

struct Learning<'a> {
    model: &'a LanguageModel,
    pool: &'a Pool,
    /// Of each head, layer after layer.
    curves: Vec<HeadCurve>,
    draw: LogitsProcessor,
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

    fn text(&mut self, text: &[u32], context: usize, tokens: usize) -> Result<(), TuneError> {
        let model = self.model;
        let mut forward = Forward::new();
        let mut unused = HitCounts::new(model.shape.layers);
        let mut lane = LaneCache::new(model.cache_shape(), Policy::Kv, None, None);
        let mut past = lane.open().map_err(EvalError::from)?;
        lane.grow(&mut past, context + tokens).map_err(EvalError::from)?;
        let mut pass = |past: &mut _, tokens: &[u32]| {
            let span =
                Span { tokens, cache: past, copies: Vec::new(), reading: Reading::Exact, logits: LogitRows::None };
            forward.run(model, self.pool, &mut [span], &mut unused);
            forward.not_finite(0..tokens.len()).map_or(Ok(()), |place| Err(EvalError::from(place)))
        };
        for chunk in text[..context].chunks(PREFILL_ROWS) {
            pass(&mut past, chunk)?;
            self.advance()?;
        }
        for chunk in text[context..context + tokens].chunks(ROWS) {
            self.rows(chunk, &past)?;
            pass(&mut past, chunk)?;
        }
        Ok(())
    }

    /// Learns from `tokens`, which come after `past`.
    fn rows(&mut self, tokens: &[u32], past: &crate::cache::SequenceCache) -> Result<(), TuneError> {
        let layers = self.model.shape.layers;
        let replica = Replica::new(self.model, past, tokens.len())?;
        let mut inputs = vec![replica.embed(tokens)?];
        for layer in 0..layers {
            inputs.push(replica.forward(layer, &inputs[layer])?);
            self.advance()?;
        }
        let by_logits = self.draws(&replica.logits(&inputs[layers])?)?;
        let mut by_output = replica.logits_backward(&inputs[layers], &by_logits)?;
        for layer in (0..layers).rev() {
            let (by_input, inside) = replica.backward(layer, &inputs[layer], &by_output)?;
            self.layer(layer, past.len(), tokens.len(), &inside)?;
            by_output = by_input;
            self.advance()?;
        }
        Ok(())
    }

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

    /// Adds a layer's positions to the curves of its heads.
    fn layer(&mut self, layer: usize, past: usize, rows: usize, inside: &Inside) -> candle_core::Result<()> {
        let (heads, group, len) = (self.model.shape.heads, self.model.head_shape().group(), past + rows);
        let flat = |tensor: &Tensor| tensor.flatten_all()?.to_vec1::<f32>();
        // Head `h` is lane `h % group` of KV head `h / group`, so its rows lie at `h·rows`.
        debug_assert_eq!(inside.weights.dims(), [heads / group, group * rows, len]);
        let weights = flat(&inside.weights)?;
        let values = inside.values.transpose(1, 2)?.contiguous()?;
        let projected: Vec<Vec<f32>> =
            inside.gradients.iter().map(|by| flat(&by.matmul(&values)?)).collect::<Result<_, _>>()?;
        self.pool.run_chunks(&mut self.curves[layer * heads..(layer + 1) * heads], 1, |head, curve| {
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
