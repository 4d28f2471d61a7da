//! The sizes of a model's cache, and the bytes that follow from them.

use super::{Format, PAGE_TOKENS, Page, RowBuffer};

/// The sizes that a page depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheShape {
    /// Transformer layers.
    pub layers: usize,
    /// KV heads per layer.
    pub kv_heads: usize,
    /// Values in one head's vector.
    pub head_dim: usize,
}

impl CacheShape {
    /// Bytes of one page.
    pub fn page_bytes(&self, format: Format) -> u64 {
        Page::bytes_for(format, self.kv_heads, self.head_dim)
    }

    /// What an ordinary KV cache, 16-bit, holds on the device for a sequence of `tokens`, in whole pages. The KCache
    /// paper claims half of it, K without V.
    pub fn kv_bytes(&self, tokens: usize) -> u64 {
        2 * (self.layers * tokens.div_ceil(PAGE_TOKENS)) as u64 * self.page_bytes(Format::F16)
    }

    /// Bytes of one sequence's reuse buffers of so many rows. All layers have them, so that `dense` can change.
    pub fn buffer_bytes(&self, rows: usize) -> u64 {
        (self.layers * self.kv_heads) as u64 * RowBuffer::bytes_for(rows, self.head_dim)
    }

    /// Bytes of one sequence's running sums of V.
    pub fn sum_bytes(&self) -> u64 {
        (self.layers * self.kv_heads * self.head_dim * size_of::<f32>()) as u64
    }
}
