//! The shape of an attention layer.

/// Heads of an attention layer, as every kernel of attention needs them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadShape {
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Values per head.
    pub head_dim: usize,
    /// What a score is multiplied by, usually `1/√head_dim`.
    pub scale: f32,
}

impl HeadShape {
    /// Query heads that share a KV head.
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Values of all query heads in a row.
    pub(super) fn width(&self) -> usize {
        self.heads * self.head_dim
    }
}
