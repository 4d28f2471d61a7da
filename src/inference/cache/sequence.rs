//! The cached keys and values of one sequence: a list of pages per layer for K and for V, V's running sums, and reuse
//! buffers where the policy has them.

use std::sync::Mutex;

use super::{
    CacheShape, Format, PAGE_TOKENS, Page, Policy, RowBuffer, Tier,
    blocks::BlockId,
    layer::{LayerCache, add_row},
};

/// Pages of K of a layer, and then of V, that memory is taken for together where a prompt needs them.
const RUN: usize = 16;

/// Keys and values of one sequence in one lane. The lane's [`LaneCache`](super::LaneCache) makes it, grows it and
/// takes it back.
#[derive(Debug)]
pub struct SequenceCache {
    pub(super) layers: Vec<LayerCache>,
    /// The blocks that the pages belong to, of 64 tokens each.
    pub(super) blocks: Vec<BlockId>,
    pub(super) len: usize,
    pub(super) residence: Option<Tier>,
    /// The first so many layers keep V on the device.
    pub(super) device_v_layers: usize,
    /// Whether V of all layers is wanted on the device.
    pub(super) promoted: bool,
    /// Which pages have it there, as of the last `LaneCache::place_pages`; empty where none has.
    pub(super) promoted_pages: Vec<bool>,
    formats: [Format; 2],
    kv_heads: usize,
    head_dim: usize,
}

impl SequenceCache {
    /// One that holds nothing yet, of a lane with this shape and policy.
    pub(super) fn vacant(shape: CacheShape, policy: Policy) -> Self {
        let layer = |_| LayerCache { k: Vec::new(), v: Vec::new(), v_sum: Vec::new(), buffers: Vec::new() };
        Self {
            layers: (0..shape.layers).map(layer).collect(),
            blocks: Vec::new(),
            len: 0,
            residence: None,
            device_v_layers: policy.device_v_layers(shape.layers),
            promoted: false,
            promoted_pages: Vec::new(),
            formats: policy.formats(),
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

    /// Where it lives: on the device, as every sequence that runs; swapped out to the host; or nowhere, holding
    /// nothing.
    pub(crate) fn residence(&self) -> Option<Tier> {
        self.residence
    }

    /// The K pages of a layer that were written so far. Pages that it has grown by are made when their first row is
    /// written.
    pub fn k(&self, layer: usize) -> &[Page] {
        &self.layers[layer].k
    }

    /// The V pages of a layer, likewise.
    pub fn v(&self, layer: usize) -> &[Page] {
        &self.layers[layer].v
    }

    /// Where the policy has a layer's V pages while the sequence is resident.
    pub(crate) fn v_place(&self, layer: usize) -> Tier {
        if layer < self.device_v_layers { Tier::Device } else { Tier::Host }
    }

    /// Whether V of any page is on the device although the policy has it on the host.
    pub(crate) fn any_promoted(&self) -> bool {
        self.promoted_pages.contains(&true)
    }

    /// Whether V of the page that holds `position` is.
    pub(crate) fn promoted_at(&self, position: usize) -> bool {
        self.promoted_pages.get(position / PAGE_TOKENS).copied().unwrap_or(false)
    }

    /// The sum of a layer's V rows, `[kv_heads, head_dim]`; empty in a lane that reads every row.
    pub fn v_sum(&self, layer: usize) -> &[f32] {
        &self.layers[layer].v_sum
    }

    /// The reuse buffers of a layer, one for every KV head; none in a lane without.
    pub fn buffers(&self, layer: usize) -> &[Mutex<RowBuffer>] {
        &self.layers[layer].buffers
    }

    /// New and empty reuse buffers of so many rows, or none.
    pub(super) fn make_buffers(&mut self, rows: usize) {
        let (count, head_dim) = (if rows > 0 { self.kv_heads } else { 0 }, self.head_dim);
        for layer in &mut self.layers {
            layer.buffers = (0..count).map(|_| Mutex::new(RowBuffer::new(rows, head_dim))).collect();
        }
    }

    /// Bytes of its reuse buffers.
    pub(super) fn buffer_bytes(&self) -> u64 {
        let buffers = self.layers.iter().flat_map(|layer| &layer.buffers);
        buffers.map(|buffer| buffer.lock().map_or(0, |buffer| buffer.bytes())).sum()
    }

    /// Takes memory for the pages of a layer that `tokens` more need, and for some that will be needed next. The
    /// capacity must have been grown before.
    ///
    /// A step does this on one thread, for all sequences. Allocators keep a heap for each thread, and memory that one
    /// heap got back does not serve another, so with several threads each heap would grow to the most it ever held.
    pub fn take_pages(&mut self, layer: usize, tokens: usize) {
        assert!(self.len + tokens <= self.capacity(), "pages were grown before the step");
        let ([keys, values], kv_heads, head_dim) = (self.formats, self.kv_heads, self.head_dim);
        let (pages, capacity) = ((self.len + tokens).div_ceil(PAGE_TOKENS), self.capacity() / PAGE_TOKENS);
        let LayerCache { k, v, .. } = &mut self.layers[layer];
        // Many pages of K and then as many of V, as they are read: memory is fastest where it lies in a row.
        let pages = if pages > k.len() { pages.next_multiple_of(RUN).min(capacity) } else { pages };
        k.extend((k.len()..pages).map(|_| Page::for_keys(keys, kv_heads, head_dim)));
        v.extend((v.len()..pages).map(|_| Page::for_values(values, kv_heads, head_dim)));
    }

    /// Writes one token's row of a layer, into a page that [`SequenceCache::take_pages`] took: `k` and `v` are
    /// `[kv_heads, head_dim]`. The token counts as cached once every layer has it and [`SequenceCache::advance`] was
    /// called.
    pub fn write(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        let (page, slot) = (position / PAGE_TOKENS, position % PAGE_TOKENS);
        let LayerCache { k: k_pages, v: v_pages, v_sum, .. } = &mut self.layers[layer];
        assert!(page < k_pages.len(), "pages were taken before they are written");
        for head in 0..self.kv_heads {
            let values = head * self.head_dim..(head + 1) * self.head_dim;
            k_pages[page].write(head, slot, &k[values.clone()]);
            v_pages[page].write(head, slot, &v[values.clone()]);
            if !v_sum.is_empty() {
                // The rounded values, so that the sum can be made again from the pages alone.
                add_row(&v_pages[page], head, slot, &mut v_sum[values]);
            }
        }
    }

    /// Has a token that was written, and not yet counted as cached, be another one for attention. Running sums stay
    /// what they are.
    pub fn replace(&mut self, layer: usize, position: usize, k: &[f32], v: &[f32]) {
        debug_assert!(position >= self.len, "what is cached stays");
        let (page, slot) = (position / PAGE_TOKENS, position % PAGE_TOKENS);
        let LayerCache { k: k_pages, v: v_pages, .. } = &mut self.layers[layer];
        let rows = k.chunks_exact(self.head_dim).zip(v.chunks_exact(self.head_dim));
        for (head, (k, v)) in rows.enumerate() {
            k_pages[page].write(head, slot, k);
            v_pages[page].write(head, slot, v);
        }
    }

    /// Adds a token's V row of a layer, as it is stored, to `sum`, `[kv_heads, head_dim]`.
    pub(crate) fn add_v(&self, layer: usize, position: usize, sum: &mut [f32]) {
        let page = &self.layers[layer].v[position / PAGE_TOKENS];
        for (head, sum) in sum.chunks_exact_mut(self.head_dim).enumerate() {
            add_row(page, head, position % PAGE_TOKENS, sum);
        }
    }

    /// Counts `tokens` more as cached.
    pub fn advance(&mut self, tokens: usize) {
        self.len += tokens;
        debug_assert!(self.len <= self.capacity(), "tokens are written only into pages that are held");
    }
}
