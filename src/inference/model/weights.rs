//! The weights of a llama model, taken from its file once and shared by all lanes.

use super::{Gguf, ModelError, ModelShape};
use crate::kernels::Linear;

/// All weights. Linear layers are `[out_features, in_features]`, norms `[hidden]`.
pub struct Weights {
    /// One row per token, `[vocab, hidden]`.
    pub embedding: Linear,
    /// The layers, from the input to the output.
    pub layers: Vec<LayerWeights>,
    /// The norm before the output head.
    pub output_norm: Vec<f32>,
    /// The output head, `[vocab, hidden]`; `None` where the embedding serves as one.
    output: Option<Linear>,
}

/// One transformer layer.
pub struct LayerWeights {
    pub(crate) attention_norm: Vec<f32>,
    /// Queries, `[heads·head_dim, hidden]`.
    pub q: Linear,
    /// Keys, `[kv_heads·head_dim, hidden]`.
    pub k: Linear,
    /// Values, `[kv_heads·head_dim, hidden]`.
    pub v: Linear,
    /// Attention's output, `[hidden, heads·head_dim]`.
    pub o: Linear,
    pub ffn_norm: Vec<f32>,
    /// `[ffn, hidden]`.
    pub gate: Linear,
    /// `[ffn, hidden]`.
    pub up: Linear,
    /// `[hidden, ffn]`.
    pub down: Linear,
}

impl Weights {
    /// Reads all weights of `shape` from `gguf`.
    pub fn from_gguf(gguf: &Gguf, shape: &ModelShape) -> Result<Self, ModelError> {
        let layers = (0..shape.layers).map(|index| LayerWeights::from_gguf(gguf, index)).collect::<Result<_, _>>()?;
        Ok(Self {
            embedding: linear(gguf, "token_embd.weight")?,
            layers,
            output_norm: vector(gguf, "output_norm.weight")?,
            output: if shape.tied_output { None } else { Some(linear(gguf, "output.weight")?) },
        })
    }

    /// Whether every tensor of `shape` is of a type that is computed with, without reading any.
    pub(super) fn check(gguf: &Gguf, shape: &ModelShape) -> Result<(), ModelError> {
        shape.tensors().try_for_each(|(name, rows, cols)| {
            let tensor = gguf.tensor(&name)?;
            let checked = Linear::check(tensor.dtype, tensor.bytes.len(), rows, cols);
            checked.map_err(|source| ModelError::Weights { tensor: name, source })
        })
    }

    /// Whether every weight is a number. This reads all of them.
    pub(super) fn check_values(gguf: &Gguf, shape: &ModelShape) -> Result<(), ModelError> {
        shape.tensors().try_for_each(|(name, ..)| {
            let tensor = gguf.tensor(&name)?;
            let checked = Linear::check_values(tensor.dtype, tensor.bytes);
            checked.map_err(|source| ModelError::Weights { tensor: name, source })
        })
    }

    /// The output head, `[vocab, hidden]`.
    pub fn head(&self) -> &Linear {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        let layer = |layer: &LayerWeights| -> u64 {
            let linears = [&layer.q, &layer.k, &layer.v, &layer.o, &layer.gate, &layer.up, &layer.down];
            let norms = size_of_val(&*layer.attention_norm) + size_of_val(&*layer.ffn_norm);
            linears.into_iter().map(Linear::bytes).sum::<u64>() + norms as u64
        };
        self.embedding.bytes()
            + self.output.as_ref().map_or(0, Linear::bytes)
            + size_of_val(&*self.output_norm) as u64
            + self.layers.iter().map(layer).sum::<u64>()
    }
}

impl LayerWeights {
    fn from_gguf(gguf: &Gguf, index: usize) -> Result<Self, ModelError> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        Ok(Self {
            attention_norm: vector(gguf, &name("attn_norm"))?,
            q: linear(gguf, &name("attn_q"))?,
            k: linear(gguf, &name("attn_k"))?,
            v: linear(gguf, &name("attn_v"))?,
            o: linear(gguf, &name("attn_output"))?,
            ffn_norm: vector(gguf, &name("ffn_norm"))?,
            gate: linear(gguf, &name("ffn_gate"))?,
            up: linear(gguf, &name("ffn_up"))?,
            down: linear(gguf, &name("ffn_down"))?,
        })
    }
}

fn linear(gguf: &Gguf, name: &str) -> Result<Linear, ModelError> {
    let tensor = gguf.tensor(name)?;
    let linear = Linear::from_gguf(tensor.dtype, tensor.bytes, tensor.rows, tensor.cols)
        .map_err(|source| ModelError::Weights { tensor: name.to_owned(), source })?;
    gguf.release(name);
    Ok(linear)
}

fn vector(gguf: &Gguf, name: &str) -> Result<Vec<f32>, ModelError> {
    let tensor = gguf.tensor(name)?;
    let weights = |source| ModelError::Weights { tensor: name.to_owned(), source };
    let linear = Linear::from_gguf(tensor.dtype, tensor.bytes, 1, tensor.rows * tensor.cols).map_err(weights)?;
    let mut values = vec![0.0; tensor.rows * tensor.cols];
    linear.row(0, &mut values);
    Ok(values)
}
