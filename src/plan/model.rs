//! The figures of a model that a plan needs: what its weights take and what they cost, and what a token of cache takes.

use serde::Serialize;

use crate::{
    cache::CacheShape,
    model::{Gguf, ModelError, ModelShape},
};

/// A model in the figures that decide about memory and time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanModel {
    pub name: String,
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// KV heads per layer.
    pub kv_heads: usize,
    /// Values in one head's vector.
    pub head_dim: usize,
    /// Bytes of all weights: what they take on the device.
    pub weight_bytes: u64,
    /// Bytes of the weights that a step reads, whatever the number of its sessions: all, but not the table of
    /// embeddings, of which a token reads one row, unless it is the output head as well.
    pub step_bytes: u64,
    /// Weights that a token is multiplied with.
    pub multiplied: u64,
    /// The longest context, where it is known.
    pub context: Option<usize>,
}

/// A model without its file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Described {
    pub layers: usize,
    /// Query heads per layer.
    pub heads: usize,
    /// KV heads per layer.
    pub kv_heads: usize,
    /// Values in one head's vector.
    pub head_dim: usize,
    pub params: u64,
    /// Bits of one weight, scales included.
    pub weight_bits: f64,
}

impl PlanModel {
    /// From a model's file. Weights count as they are in the file.
    ///
    /// # Errors
    /// What [`ModelShape::from_gguf`] refuses.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self, ModelError> {
        let shape = ModelShape::from_gguf(gguf)?;
        let (mut weight_bytes, mut step_bytes, mut multiplied) = (0, 0, 0);
        for (name, rows, cols) in shape.tensors() {
            let bytes = gguf.tensor(&name)?.bytes.len() as u64;
            weight_bytes += bytes;
            if name != "token_embd.weight" || shape.tied_output {
                step_bytes += bytes;
                // Norms are one row; they scale and are no product.
                multiplied += if rows > 1 { (rows * cols) as u64 } else { 0 };
            }
        }
        let ModelShape { layers, heads, kv_heads, head_dim, context, .. } = shape;
        Ok(Self {
            name: shape.name,
            layers,
            heads,
            kv_heads,
            head_dim,
            weight_bytes,
            step_bytes,
            multiplied,
            context: Some(context),
        })
    }

    /// From a description: every weight is read in every step, and multiplied with every token.
    pub fn described(Described { layers, heads, kv_heads, head_dim, params, weight_bits }: Described) -> Self {
        let bytes = (params as f64 * weight_bits / 8.0).round() as u64;
        Self {
            name: format!("{layers} layers, {heads} query heads on {kv_heads} KV heads of {head_dim}"),
            layers,
            heads,
            kv_heads,
            head_dim,
            weight_bytes: bytes,
            step_bytes: bytes,
            multiplied: params,
            context: None,
        }
    }

    /// The sizes that a page depends on.
    pub fn cache(&self) -> CacheShape {
        CacheShape { layers: self.layers, kv_heads: self.kv_heads, head_dim: self.head_dim }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tiny::Tiny;

    #[test]
    fn a_file_is_counted_tensor_by_tensor() {
        for tied in [true, false] {
            let tiny = Tiny { tied, ..Tiny::default() };
            let gguf = Gguf::open(&tiny.temp()).unwrap();
            let model = PlanModel::from_gguf(&gguf).unwrap();
            let shape = ModelShape::from_gguf(&gguf).unwrap();
            let bytes = |name: &str| gguf.tensor(name).unwrap().bytes.len() as u64;
            let all: u64 = gguf.tensor_names().map(bytes).sum();
            assert_eq!(model.weight_bytes, all);
            assert_eq!(model.step_bytes, if tied { all } else { all - bytes("token_embd.weight") });
            let (hidden, ffn) = (shape.hidden, shape.ffn);
            let (q, kv) = (shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim);
            let layer = 2 * hidden * q + 2 * hidden * kv + 3 * hidden * ffn;
            assert_eq!(model.multiplied, (shape.layers * layer + shape.vocab * hidden) as u64);
        }
    }

    #[test]
    fn a_description_is_taken_at_its_word() {
        let llama =
            Described { layers: 32, heads: 32, kv_heads: 8, head_dim: 128, params: 8_000_000_000, weight_bits: 4.5 };
        let model = PlanModel::described(llama);
        assert_eq!((model.weight_bytes, model.multiplied), (4_500_000_000, 8_000_000_000));
        assert_eq!(model.cache(), CacheShape { layers: 32, kv_heads: 8, head_dim: 128 });
    }
}
