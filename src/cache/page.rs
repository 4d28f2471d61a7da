//! A page: 64 tokens of one layer's K or V, all KV heads, as 16-bit floats.
//!
//! The layout is head-major, `[kv_head][slot][head_dim]`, so that one head's rows are contiguous: a head that scores
//! its keys reads one run of memory, and a row (one V vector of one KV head) is one slice.

use half::f16;

/// Tokens a page holds.
pub const PAGE_TOKENS: usize = 64;

/// 64 tokens of one layer's K or V.
#[derive(Debug)]
pub struct Page {
    data: Box<[f16]>,
    head_dim: usize,
}

impl Page {
    /// A zeroed page for `kv_heads` heads of `head_dim` values.
    pub fn new(kv_heads: usize, head_dim: usize) -> Self {
        Self { data: vec![f16::ZERO; kv_heads * PAGE_TOKENS * head_dim].into_boxed_slice(), head_dim }
    }

    /// Bytes one page of this shape takes.
    pub const fn bytes_for(kv_heads: usize, head_dim: usize) -> u64 {
        (kv_heads * PAGE_TOKENS * head_dim * size_of::<f16>()) as u64
    }

    /// Bytes this page takes.
    pub fn bytes(&self) -> u64 {
        size_of_val(&*self.data) as u64
    }

    /// All 64 rows of one KV head, `[PAGE_TOKENS, head_dim]`.
    pub fn head(&self, kv_head: usize) -> &[f16] {
        let len = PAGE_TOKENS * self.head_dim;
        &self.data[kv_head * len..][..len]
    }

    /// One row, `[head_dim]`.
    pub fn row(&self, kv_head: usize, slot: usize) -> &[f16] {
        &self.head(kv_head)[slot * self.head_dim..][..self.head_dim]
    }

    /// One row, to be written.
    pub fn row_mut(&mut self, kv_head: usize, slot: usize) -> &mut [f16] {
        let at = (kv_head * PAGE_TOKENS + slot) * self.head_dim;
        &mut self.data[at..][..self.head_dim]
    }

    /// Takes over the rows of a page of the same shape.
    pub fn copy_from(&mut self, other: &Self) {
        self.data.copy_from_slice(&other.data);
    }
}
