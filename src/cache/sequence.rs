//! The cached keys and values of one sequence: a list of pages per layer for K and for V, and V's running sums.

use super::{CacheShape, CachedRows, Format, LaneCache, PAGE_TOKENS, Page, Place, blocks::BlockId};
use crate::kernels::q8::BLOCK;

/// Keys and values of one sequence in one lane. Made, grown and given back by the lane's [`LaneCache`].
#[derive(Debug)]
pub struct SequenceCache {
    pub(super) layers: Vec<LayerCache>,
    /// The blocks that the pages belong to, of 64 tokens each.
    pub(super) blocks: Vec<BlockId>,
    pub(super) len: usize,
    pub(super) residence: Option<Place>,
    /// The first so many layers keep V on the device.
    pub(super) device_v_layers: usize,
    formats: [Format; 2],
    kv_heads: usize,
    head_dim: usize,
}

/// One layer of it. Memory for a page is taken when its first row comes, so that a long prompt starts at once; booked it
/// is when the sequence grows.
#[derive(Debug)]
pub(super) struct LayerCache {
    pub(super) k: Vec<Page>,
    pub(super) v: Vec<Page>,
    /// Sum of all V rows, `[kv_heads, head_dim]`; empty in a lane that never needs it, and where nothing is held.
    pub(super) v_sum: Vec<f32>,
}

impl SequenceCache {
    pub(super) fn vacant(lane: &LaneCache) -> Self {
        let shape = lane.shape();
        let layer = |_| LayerCache { k: Vec::new(), v: Vec::new(), v_sum: Vec::new() };
        Self {
            layers: (0..shape.layers).map(layer).collect(),
            blocks: Vec::new(),
            len: 0,
            residence: None,
            device_v_layers: lane.policy().device_v_layers(shape.layers),
            formats: lane.formats(),
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
        }
    }

    /// Tokens cached in every layer.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How K and V are stored.
    pub fn formats(&self) -> [Format; 2] {
        self.formats
    }

    /// The sizes of its pages.
    pub fn shape(&self) -> CacheShape {
        CacheShape { layers: self.layers.len(), kv_heads: self.kv_heads, head_dim: self.head_dim }
    }

    /// Tokens the pages can hold.
    pub fn capacity(&self) -> usize {
        self.blocks.len() * PAGE_TOKENS
    }

    /// Where it lives: on the device, as every sequence that runs; set aside on the host; or nowhere, holding nothing.
    pub fn residence(&self) -> Option<Place> {
        self.residence
    }

    /// The K pages of a layer that were written so far; those that it has grown by since come with their first row.
    pub fn k(&self, layer: usize) -> &[Page] {
        &self.layers[layer].k
    }

    /// The V pages of a layer, likewise.
    pub fn v(&self, layer: usize) -> &[Page] {
        &self.layers[layer].v
    }

    /// Where a layer's V pages are while the sequence is resident.
    pub fn v_place(&self, layer: usize) -> Place {
        if layer < self.device_v_layers { Place::Device } else { Place::Host }
    }

    /// The sum of a layer's V rows, `[kv_heads, head_dim]`; empty in a lane that reads every row.
    pub fn v_sum(&self, layer: usize) -> &[f32] {
        &self.layers[layer].v_sum
    }

    /// Writes one token's row of a layer: `k` and `v` are `[kv_heads, head_dim]`. The capacity must have been grown
    /// before. The token counts as cached once every layer has it and [`SequenceCache::advance`] was called.
    pub fn write(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        let (page, slot) = (position / PAGE_TOKENS, position % PAGE_TOKENS);
        assert!(page < self.blocks.len(), "pages were grown before the step");
        let LayerCache { k: k_pages, v: v_pages, v_sum } = &mut self.layers[layer];
        if page == k_pages.len() {
            k_pages.push(Page::for_keys(self.formats[0], self.kv_heads, self.head_dim));
            v_pages.push(Page::for_values(self.formats[1], self.kv_heads, self.head_dim));
        }
        for head in 0..self.kv_heads {
            let values = head * self.head_dim..(head + 1) * self.head_dim;
            k_pages[page].write(head, slot, &k[values.clone()]);
            v_pages[page].write(head, slot, &v[values.clone()]);
            if !v_sum.is_empty() {
                // The rounded values, as they will be read: the sum can then be made again from the pages alone.
                add_row(&v_pages[page], head, slot, &mut v_sum[values]);
            }
        }
    }

    /// Counts `tokens` more as cached.
    pub fn advance(&mut self, tokens: usize) {
        self.len += tokens;
        debug_assert!(self.len <= self.capacity(), "tokens are written only into pages that are held");
    }
}

/// `sum += row`, of the values as they are stored.
pub(super) fn add_row(page: &Page, kv_head: usize, slot: usize, sum: &mut [f32]) {
    match page.rows(kv_head, slot, 1) {
        CachedRows::F16(row) => sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.to_f32()),
        CachedRows::Q8(row) => {
            for ((sum, values), d) in sum.chunks_mut(BLOCK).zip(row.values.chunks(BLOCK)).zip(row.scales) {
                let d = d.to_f32();
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += d * f32::from(*value));
            }
        }
    }
}
