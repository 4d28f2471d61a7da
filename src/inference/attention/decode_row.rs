//! What decoding is told of one sequence.

use std::sync::Mutex;

use super::Rows;
use crate::cache::{Page, RowBuffer};

/// The new token of one sequence, and the cached pages it attends to.
#[derive(Debug, Clone, Copy)]
pub struct DecodeRow<'a> {
    /// Its queries, `[heads·head_dim]`, position applied.
    pub q: &'a [f32],
    /// Pages of keys, all of one format; position `p` is in page `p / 64`, slot `p % 64`. The token's own key is in
    /// them.
    pub k: &'a [Page],
    /// Pages of values, likewise.
    pub v: &'a [Page],
    /// Positions attended to, itself included; at least 1.
    pub len: usize,
    /// Which rows of V are read.
    pub rows: Rows<'a>,
    /// Sum of V over all positions, `[kv_heads·head_dim]`; may be empty where the tail is not
    /// [`Tail::Mean`](crate::cache::Tail::Mean).
    pub v_sum: &'a [f32],
    /// Reuse buffers of chosen rows, one for every KV head, used by nobody else during the call; or none.
    pub buffers: &'a [Mutex<RowBuffer>],
}
