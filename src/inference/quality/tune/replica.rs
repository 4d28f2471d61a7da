//! The model as differentiable candle tensors, one layer at a time. How an error of a head's output moves the
//! prediction is a derivative of the model, and the fast forward pass has no derivatives.
//!
//! A layer's weights are made from the model's and thrown away after it, and backward passes compute a layer's inside
//! again from its input, so that only one layer is in memory. The context's keys and values come from the cache of the
//! ordinary engine, in which the context was computed exactly.

use candle_core::{D, Device, Result, Tensor, Var};

use crate::{
    cache::{PAGE_TOKENS, Page, SequenceCache},
    kernels::Linear,
    model::{LanguageModel, LayerWeights},
};

/// A model, and the cached context that its tokens attend to.
pub(super) struct Replica<'a> {
    model: &'a LanguageModel,
    past: &'a SequenceCache,
    /// Tokens that go through together.
    rows: usize,
    /// Cosines and sines, `[rows, 1, pairs]`.
    turns: [Tensor; 2],
    /// 0 where a row may look, −∞ where not, `[group·rows, past + rows]`.
    mask: Tensor,
}

/// What is inside a layer's attention.
pub(super) struct Inside {
    /// The softmax, `[kv_heads, group·rows, past + rows]`.
    pub weights: Tensor,
    /// All values, `[kv_heads, past + rows, head_dim]`.
    pub values: Tensor,
    /// The gradients of each seed by the heads' outputs, `[kv_heads, group·rows, head_dim]`.
    pub gradients: Vec<Tensor>,
}

impl<'a> Replica<'a> {
    /// `rows` tokens after everything in `past`.
    pub fn new(model: &'a LanguageModel, past: &'a SequenceCache, rows: usize) -> Result<Self> {
        let (start, group, pairs) = (past.len(), model.head_shape().group(), model.shape.rope_dims / 2);
        let turns: Vec<[f32; 2]> = (start..start + rows).flat_map(|at| model.rope.turns(at)).copied().collect();
        let part = |index: usize| {
            Tensor::from_iter(turns.iter().map(|turn| turn[index]), &Device::Cpu)?.reshape((rows, 1, pairs))
        };
        let row = |row: usize| (0..start + rows).map(move |at| if at <= start + row { 0.0 } else { f32::NEG_INFINITY });
        let mask: Vec<f32> = (0..group).flat_map(|_| (0..rows).flat_map(row)).collect();
        let mask = Tensor::from_vec(mask, (group * rows, start + rows), &Device::Cpu)?;
        Ok(Self { model, past, rows, turns: [part(0)?, part(1)?], mask })
    }

    /// The embeddings of `tokens`, `[rows, hidden]`.
    pub fn embed(&self, tokens: &[u32]) -> Result<Tensor> {
        let hidden = self.model.shape.hidden;
        let mut values = vec![0.0; tokens.len() * hidden];
        for (&token, row) in tokens.iter().zip(values.chunks_exact_mut(hidden)) {
            self.model.weights.embedding.row(token as usize, row);
        }
        Tensor::from_vec(values, (tokens.len(), hidden), &Device::Cpu)
    }

    /// A layer's output from its input, both `[rows, hidden]`.
    pub fn forward(&self, layer: usize, x: &Tensor) -> Result<Tensor> {
        Ok(self.layer(layer, x, None)?.0)
    }

    /// From the gradients by a layer's output, one for each seed, those by its input; and what is inside.
    pub fn backward(&self, layer: usize, x: &Tensor, by_output: &[Tensor]) -> Result<(Vec<Tensor>, Inside)> {
        let x = Var::from_tensor(x)?;
        let attended =
            (self.model.shape.kv_heads, self.model.head_shape().group() * self.rows, self.model.shape.head_dim);
        let nudge = Var::zeros(attended, candle_core::DType::F32, &Device::Cpu)?;
        let (out, weights, values) = self.layer(layer, x.as_tensor(), Some(nudge.as_tensor()))?;
        let (mut by_input, mut gradients) = (Vec::new(), Vec::new());
        for by_output in by_output {
            let grads = (&out * by_output)?.sum_all()?.backward()?;
            let of = |var: &Var| grads.get(var.as_tensor()).cloned().map_or_else(|| var.zeros_like(), Ok);
            by_input.push(of(&x)?);
            gradients.push(of(&nudge)?);
        }
        Ok((by_input, Inside { weights: weights.detach(), values: values.detach(), gradients }))
    }

    /// The logits of the last layer's output, `[rows, vocab]`.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let head = tensor(self.model.weights.head())?;
        norm(x, &self.model.weights.output_norm, self.model.shape.norm_eps)?.matmul(&head.t()?)
    }

    /// The gradients by the last layer's output of the logits' products with each of `by_logits`, `[rows, vocab]`.
    pub fn logits_backward(&self, x: &Tensor, by_logits: &[Tensor]) -> Result<Vec<Tensor>> {
        let x = Var::from_tensor(x)?;
        let normed = norm(x.as_tensor(), &self.model.weights.output_norm, self.model.shape.norm_eps)?;
        let head = tensor(self.model.weights.head())?;
        by_logits
            .iter()
            .map(|by_logits| {
                let grads = (&normed * by_logits.matmul(&head)?)?.sum_all()?.backward()?;
                grads.get(x.as_tensor()).cloned().map_or_else(|| x.zeros_like(), Ok)
            })
            .collect()
    }

    /// A layer's output, its softmax and its values. `nudge` is added to what its heads find,
    /// `[kv_heads, group·rows, head_dim]`.
    pub fn layer(&self, index: usize, x: &Tensor, nudge: Option<&Tensor>) -> Result<(Tensor, Tensor, Tensor)> {
        let shape = &self.model.shape;
        let (rows, kv_heads, head_dim, group) =
            (self.rows, shape.kv_heads, shape.head_dim, self.model.head_shape().group());
        let weights: &LayerWeights = &self.model.weights.layers[index];
        let normed = norm(x, &weights.attention_norm, shape.norm_eps)?;
        let q = self.turned(&linear(&normed, &weights.q)?.reshape((rows, shape.heads, head_dim))?)?;
        let q = q.reshape((rows, kv_heads, group, head_dim))?.permute((1, 2, 0, 3))?.contiguous()?;
        let q = q.reshape((kv_heads, group * rows, head_dim))?;
        let k = self.turned(&linear(&normed, &weights.k)?.reshape((rows, kv_heads, head_dim))?)?;
        let k = Tensor::cat(&[self.cached(self.past.k(index))?, k.transpose(0, 1)?.contiguous()?], 1)?;
        let v = linear(&normed, &weights.v)?.reshape((rows, kv_heads, head_dim))?;
        let v = Tensor::cat(&[self.cached(self.past.v(index))?, v.transpose(0, 1)?.contiguous()?], 1)?;

        let scale = f64::from(self.model.head_shape().scale);
        let scores = (q.matmul(&k.t()?.contiguous()?)? * scale)?.broadcast_add(&self.mask)?;
        let softmax = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?.detach())?.exp()?;
        let softmax = softmax.broadcast_div(&softmax.sum_keepdim(D::Minus1)?)?;
        let mut attended = softmax.matmul(&v)?;
        if let Some(nudge) = nudge {
            attended = (attended + nudge)?;
        }
        let attended = attended.reshape((kv_heads, group, rows, head_dim))?.permute((2, 0, 1, 3))?.contiguous()?;
        let x = (x + linear(&attended.reshape((rows, shape.heads * head_dim))?, &weights.o)?)?;

        let normed = norm(&x, &weights.ffn_norm, shape.norm_eps)?;
        let gate = linear(&normed, &weights.gate)?.silu()?;
        let out = (&x + linear(&(gate * linear(&normed, &weights.up)?)?, &weights.down)?)?;
        Ok((out, softmax, v))
    }

    /// Heads `[rows, heads, head_dim]` turned by their rows' positions.
    fn turned(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, heads, head_dim) = x.dims3()?;
        let dims = self.model.shape.rope_dims;
        let pairs = x.narrow(2, 0, dims)?.reshape((rows, heads, dims / 2, 2))?;
        let (a, b) = (pairs.narrow(3, 0, 1)?.squeeze(3)?, pairs.narrow(3, 1, 1)?.squeeze(3)?);
        let [cos, sin] = &self.turns;
        let first = (a.broadcast_mul(cos)? - b.broadcast_mul(sin)?)?;
        let second = (a.broadcast_mul(sin)? + b.broadcast_mul(cos)?)?;
        let turned = Tensor::stack(&[first, second], 3)?.reshape((rows, heads, dims))?;
        if dims == head_dim { Ok(turned) } else { Tensor::cat(&[turned, x.narrow(2, dims, head_dim - dims)?], 2) }
    }

    /// The context's rows of some pages, `[kv_heads, past, head_dim]`.
    fn cached(&self, pages: &[Page]) -> Result<Tensor> {
        let (kv_heads, head_dim, len) = (self.model.shape.kv_heads, self.model.shape.head_dim, self.past.len());
        let mut values = vec![0.0; kv_heads * len * head_dim];
        for (index, row) in values.chunks_exact_mut(head_dim).enumerate() {
            let (head, at) = (index / len, index % len);
            pages[at / PAGE_TOKENS].read(head, at % PAGE_TOKENS, row);
        }
        Tensor::from_vec(values, (kv_heads, len, head_dim), &Device::Cpu)
    }
}

/// The weights as `[out_features, in_features]`.
fn tensor(linear: &Linear) -> Result<Tensor> {
    let (rows, width) = (linear.out_features(), linear.in_features());
    let mut values = vec![0.0; rows * width];
    values.chunks_exact_mut(width).enumerate().for_each(|(index, row)| linear.row(index, row));
    Tensor::from_vec(values, (rows, width), &Device::Cpu)
}

fn linear(x: &Tensor, weights: &Linear) -> Result<Tensor> {
    x.matmul(&tensor(weights)?.t()?)
}

fn norm(x: &Tensor, weight: &[f32], eps: f32) -> Result<Tensor> {
    let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = x.broadcast_div(&(mean + f64::from(eps))?.sqrt()?)?;
    normed.broadcast_mul(&Tensor::from_slice(weight, weight.len(), &Device::Cpu)?)
}
