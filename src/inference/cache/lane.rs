//! The cache of one lane: a memory pool for each tier, from which the sequences' pages are taken as its policy says.

use super::{
    CacheShape, Format, MemoryKind, MemoryPool, OutOfBudget, PAGE_TOKENS, Page, Policy, SequenceCache, Tier,
    blocks::{Block, BlockId, Blocks},
};

/// The memory pools of both tiers, and the policy that says what lies where.
#[derive(Debug)]
pub struct LaneCache {
    pub(super) shape: CacheShape,
    pub(super) policy: Policy,
    pub(super) device: MemoryPool,
    pub(super) host: MemoryPool,
    pub(super) blocks: Blocks,
}

/// Bytes of a block on each tier, by kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockBytes {
    pub device_k: u64,
    pub device_v: u64,
    pub host_k: u64,
    pub host_v: u64,
}

impl BlockBytes {
    pub fn device(self) -> u64 {
        self.device_k + self.device_v
    }

    pub fn host(self) -> u64 {
        self.host_k + self.host_v
    }
}

impl LaneCache {
    /// An empty cache. Budgets in bytes, `None` for no limit.
    pub fn new(shape: CacheShape, policy: Policy, device_budget: Option<u64>, host_budget: Option<u64>) -> Self {
        Self {
            shape,
            policy,
            device: MemoryPool::new(Tier::Device, device_budget),
            host: MemoryPool::new(Tier::Host, host_budget),
            blocks: Blocks::default(),
        }
    }

    /// The sizes of a page.
    pub fn shape(&self) -> CacheShape {
        self.shape
    }

    /// The policy in force.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// How the policy stores K and V.
    pub fn formats(&self) -> [Format; 2] {
        self.policy.formats()
    }

    /// The device's memory pool.
    pub fn device(&self) -> &MemoryPool {
        &self.device
    }

    /// The device's memory pool, to change its cap.
    pub(crate) fn device_mut(&mut self) -> &mut MemoryPool {
        &mut self.device
    }

    /// The host's memory pool.
    pub fn host(&self) -> &MemoryPool {
        &self.host
    }

    /// Blocks of 64 tokens on the device, each counted once.
    pub(crate) fn device_blocks(&self) -> usize {
        self.blocks.on_device()
    }

    /// Whether pages lie on the device that only swapped-out sequences hold, because the host had no room for them.
    pub(crate) fn any_stranded(&self) -> bool {
        self.blocks.any_stranded()
    }

    /// Whether the running sums of V are kept: always under `kcache`, so that `tail=mean` can be turned on at any time.
    pub(super) fn keeps_sums(&self) -> bool {
        matches!(self.policy, Policy::KCache(_))
    }

    /// Bytes of one sequence's running sums of V; 0 where the policy needs none.
    pub fn sum_bytes(&self) -> u64 {
        if self.keeps_sums() { self.shape.sum_bytes() } else { 0 }
    }

    /// Rows of the reuse buffer of each KV head.
    pub(super) fn buffer_rows(&self) -> usize {
        self.policy.knobs().map_or(0, |knobs| knobs.buffer)
    }

    /// Bytes that a resident sequence's reuse buffers take on the device.
    pub(super) fn buffer_bytes(&self) -> u64 {
        self.shape.buffer_bytes(self.buffer_rows())
    }

    /// A block as it lies.
    pub(super) fn bytes_of(&self, block: Block) -> BlockBytes {
        let bytes = self.block_bytes(block.tier);
        if block.promoted { BlockBytes { device_v: bytes.device_v + bytes.host_v, host_v: 0, ..bytes } } else { bytes }
    }

    /// A block at a tier: on the device V lies as the policy says, on the host everything is there.
    pub(super) fn block_bytes(&self, tier: Tier) -> BlockBytes {
        let layers = self.shape.layers as u64;
        let device_v = self.policy.device_v_layers(self.shape.layers) as u64;
        let [k, v] = self.formats().map(|format| self.shape.page_bytes(format));
        match tier {
            Tier::Device => {
                BlockBytes { device_k: layers * k, device_v: device_v * v, host_k: 0, host_v: (layers - device_v) * v }
            }
            Tier::Host => BlockBytes { device_k: 0, device_v: 0, host_k: layers * k, host_v: layers * v },
        }
    }

    /// Bytes of one block of 64 tokens on the device and on the host, for a sequence that is resident.
    pub fn resident_block(&self) -> (u64, u64) {
        let bytes = self.block_bytes(Tier::Device);
        (bytes.device(), bytes.host())
    }

    /// The most tokens that one sequence could hold if it were alone, with `workspace` bytes for the step; `None`
    /// without a limit.
    pub(crate) fn most_tokens(&self, workspace: u64) -> Option<usize> {
        let (device, host) = self.resident_block();
        let blocks = |pool: &MemoryPool, bytes: u64, fixed: u64| match pool.cap() {
            Some(cap) if bytes > 0 => Some(cap.saturating_sub(fixed) / bytes),
            _ => None,
        };
        let device = blocks(&self.device, device, workspace + self.sum_bytes() + self.buffer_bytes());
        let host = blocks(&self.host, host, 0);
        let least = device.into_iter().chain(host).min()?;
        Some(usize::try_from(least).unwrap_or(usize::MAX).saturating_mul(PAGE_TOKENS))
    }

    /// A sequence without tokens, ready to grow.
    pub fn open(&mut self) -> Result<SequenceCache, OutOfBudget> {
        let mut sequence = self.vacant();
        self.grow(&mut sequence, 0)?;
        Ok(sequence)
    }

    /// A sequence that holds nothing yet, not even a running sum.
    pub(crate) fn vacant(&self) -> SequenceCache {
        SequenceCache::vacant(self.shape, self.policy)
    }

    /// Bytes that growing a sequence by `tokens` takes on the device and on the host. A sequence that was swapped out
    /// is swapped in for it; those bytes are counted too.
    pub fn growth(&self, sequence: &SequenceCache, tokens: usize) -> (u64, u64) {
        self.growth_sharing(sequence, None, tokens)
    }

    /// The same for a sequence that first shares the prefix of another, as [`LaneCache::share_prefix`] does.
    pub(crate) fn growth_sharing(
        &self,
        sequence: &SequenceCache,
        prefix_source: Option<(&SequenceCache, usize)>,
        tokens: usize,
    ) -> (u64, u64) {
        let len = prefix_source.map_or(sequence.len, |(_, shared)| shared);
        let prefix = prefix_source.map_or(&[][..], |(prefix_source, shared)| {
            &prefix_source.blocks[sequence.len / PAGE_TOKENS..shared / PAGE_TOKENS]
        });
        // A sequence that shares a prefix releases the pages it has not written.
        let kept = if prefix_source.is_some() { sequence.len / PAGE_TOKENS } else { sequence.blocks.len() };
        let needed = (len + tokens).div_ceil(PAGE_TOKENS);
        let new = needed.saturating_sub(kept + prefix.len()) as u64;
        let own = if sequence.residence == Some(Tier::Device) { &[][..] } else { &sequence.blocks[..kept] };
        let on_host = |id: &&BlockId| self.blocks.get(**id).tier == Tier::Host;
        let returning = own.iter().chain(prefix).filter(on_host).count() as u64;
        let resident = sequence.residence == Some(Tier::Device);
        let besides = if resident { 0 } else { self.sum_bytes() + self.buffer_bytes() };
        let (resident, swapped) = (self.block_bytes(Tier::Device), self.block_bytes(Tier::Host));
        let device = besides + (new + returning) * resident.device();
        let host = (new * resident.host()).saturating_sub(returning * (swapped.host() - resident.host()));
        (device, host)
    }

    /// Makes a sequence resident and gives it the pages for `tokens` more, in every layer or in none.
    pub fn grow(&mut self, sequence: &mut SequenceCache, tokens: usize) -> Result<(), OutOfBudget> {
        let (device, host) = self.growth(sequence, tokens);
        self.device.room(device)?;
        self.host.room(host)?;
        self.swap_in(sequence)?;
        let needed = (sequence.len + tokens).div_ceil(PAGE_TOKENS);
        while sequence.blocks.len() < needed {
            self.reserve(Tier::Device)?;
            sequence.blocks.push(self.blocks.add());
        }
        if sequence.promoted {
            // What does not fit any more is read where it is.
            let _ = self.promote(sequence);
        }
        Ok(())
    }

    /// Takes back everything that a sequence holds, and the sequence.
    pub fn close(&mut self, mut sequence: SequenceCache) {
        self.vacate(&mut sequence);
    }

    /// Takes back everything that a sequence holds, its running sums too.
    pub(crate) fn vacate(&mut self, sequence: &mut SequenceCache) {
        self.demote_shared(sequence);
        sequence.len = 0;
        self.trim(sequence);
        match sequence.residence.take() {
            Some(Tier::Device) => {
                self.device.give(MemoryKind::Tail, self.sum_bytes());
                self.drop_buffers(sequence);
            }
            Some(Tier::Host) => self.host.give(MemoryKind::Tail, self.sum_bytes()),
            None => {}
        }
        sequence.layers.iter_mut().for_each(|layer| layer.v_sum = Vec::new());
    }

    /// Takes back the pages that a sequence holds beyond its tokens.
    pub fn trim(&mut self, sequence: &mut SequenceCache) {
        let needed = sequence.len.div_ceil(PAGE_TOKENS);
        for layer in &mut sequence.layers {
            layer.k.truncate(needed);
            layer.v.truncate(needed);
        }
        let resident = sequence.residence == Some(Tier::Device);
        while sequence.blocks.len() > needed {
            if let Some(id) = sequence.blocks.pop() {
                self.release(id, resident);
            }
        }
    }

    /// A copy of a sequence of any lane, with pages of its own in this lane. Where the lanes store differently, rows
    /// are rounded once more.
    pub fn fork(&mut self, of: &SequenceCache) -> Result<SequenceCache, OutOfBudget> {
        let mut copy = self.vacant();
        self.grow(&mut copy, of.len)?;
        self.copy(&mut copy, of);
        Ok(copy)
    }

    /// Copies the tokens of a sequence of any lane into an empty one that has grown to hold them, and takes memory for
    /// all that is reserved, so that its pages lie in a row.
    ///
    /// # Panics
    /// When it is not empty, or has not grown.
    pub fn copy(&self, sequence: &mut SequenceCache, of: &SequenceCache) {
        assert!(sequence.len == 0 && sequence.capacity() >= of.len, "a copy needs empty pages");
        let [k, v] = self.formats();
        let same = v == of.formats()[1];
        let (pages, reserved) = (of.len.div_ceil(PAGE_TOKENS), sequence.blocks.len());
        let CacheShape { kv_heads, head_dim, .. } = self.shape;
        for (to, from) in sequence.layers.iter_mut().zip(&of.layers) {
            to.k = from.k[..pages].iter().map(|page| Page::copy(k, page)).collect();
            to.k.resize_with(reserved, || Page::for_keys(k, kv_heads, head_dim));
            to.v = from.v[..pages].iter().map(|page| Page::copy(v, page)).collect();
            to.v.resize_with(reserved, || Page::for_values(v, kv_heads, head_dim));
            if same && to.v_sum.len() == from.v_sum.len() {
                to.v_sum.copy_from_slice(&from.v_sum);
            } else {
                to.sum_rows(0..of.len, self.shape);
            }
        }
        sequence.len = of.len;
    }
}

#[cfg(test)]
mod tests;
