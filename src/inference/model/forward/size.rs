//! Bytes of the buffers of a step: what they take, and the most that steps up to a size can take.

use super::buffers::Forward;
use crate::{
    attention::{DecodeScratch, PrefillScratch},
    kernels::Activations,
    model::LanguageModel,
};

/// How large a step may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSize {
    /// Rows of prompts.
    pub prompt_rows: usize,
    /// Rows that decode, probes among them; the logits of so many rows are wanted.
    pub decode_rows: usize,
    /// Positions that one of them attends to, at most.
    pub longest: usize,
    /// Threads that compute.
    pub threads: usize,
}

impl StepSize {
    /// The most that [`Forward::bytes`] can be after steps up to this size, where buffers were reserved for it.
    pub fn bytes(self, model: &LanguageModel) -> u64 {
        let Self { decode_rows, longest, threads, .. } = self;
        let rows = self.rows();
        let values = rows * (2 * model.shape.hidden + 2 * self.q_width(model) + 3 * self.kv_width(model))
            + 2 * rows * model.shape.ffn
            + decode_rows * model.shape.vocab;
        let heads = model.head_shape();
        (values * size_of::<f32>()) as u64
            + Activations::bytes_for(rows, self.widest(model))
            + DecodeScratch::bytes_for(&heads, threads, decode_rows, longest)
            + PrefillScratch::bytes_for(&heads, threads)
    }

    fn rows(self) -> usize {
        self.prompt_rows + self.decode_rows
    }

    fn q_width(self, model: &LanguageModel) -> usize {
        model.shape.heads * model.shape.head_dim
    }

    fn kv_width(self, model: &LanguageModel) -> usize {
        model.shape.kv_heads * model.shape.head_dim
    }

    /// Values in a row of the widest input of a linear layer.
    fn widest(self, model: &LanguageModel) -> usize {
        model.shape.hidden.max(model.shape.ffn).max(self.q_width(model))
    }
}

impl Forward {
    /// Makes the buffers for steps up to this size, so that no step has to.
    pub fn reserve(&mut self, model: &LanguageModel, size: StepSize) {
        self.size(model, size.rows(), size.rows());
        self.logits.resize(size.decode_rows * model.shape.vocab, 0.0);
        self.input.reserve(size.rows(), size.widest(model));
        self.decode.reserve(&model.head_shape(), size.decode_rows, size.longest);
    }

    /// Bytes the buffers take on the device: activations, scores, and what attention's threads work in. Lists of what
    /// is to be done, and of what was chosen, are the host's.
    pub fn bytes(&self) -> u64 {
        let buffers = [
            &self.x,
            &self.normed,
            &self.q,
            &self.k,
            &self.v,
            &self.attended,
            &self.gate,
            &self.up,
            &self.v_sums,
            &self.logits,
        ];
        let values: u64 = buffers.into_iter().map(|buffer| (buffer.capacity() * size_of::<f32>()) as u64).sum();
        values + self.input.bytes() + self.decode.bytes() + self.prefill.bytes()
    }
}
