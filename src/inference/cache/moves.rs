//! Moving pages: swapping sequences out and in, sharing a prefix, promoting V, and what a knob moves.
//!
//! On the CPU both tiers are the same memory, so only the accounts of the memory pools change.

use super::{
    Knobs, LaneCache, MemoryKind, OutOfBudget, PAGE_TOKENS, Policy, SequenceCache, Tier,
    blocks::{Block, BlockId},
    lane::BlockBytes,
};

impl LaneCache {
    /// Has a sequence begin with the first `shared` tokens of `prefix_source`, a sequence of this lane: it holds the
    /// same pages. Both must agree in the tokens that `sequence` has. Then it is given pages for `tokens` more.
    ///
    /// # Panics
    /// When `shared` or the length of `sequence` is no whole number of pages, or `prefix_source` has not so many
    /// tokens.
    pub(crate) fn share_prefix(
        &mut self,
        sequence: &mut SequenceCache,
        prefix_source: &SequenceCache,
        shared: usize,
        tokens: usize,
    ) -> Result<(), OutOfBudget> {
        let (from, to) = (sequence.len / PAGE_TOKENS, shared / PAGE_TOKENS);
        assert!(
            sequence.len.is_multiple_of(PAGE_TOKENS) && shared.is_multiple_of(PAGE_TOKENS),
            "full pages are shared"
        );
        assert!(sequence.len <= shared && shared <= prefix_source.len, "what is shared has been written");
        self.trim(sequence);
        let (device, host) = self.growth_sharing(sequence, Some((prefix_source, shared)), tokens);
        self.device.room(device)?;
        self.host.room(host)?;
        self.swap_in(sequence)?;
        for index in from..to {
            let id = prefix_source.blocks[index];
            if self.blocks.get(id).tier == Tier::Host {
                self.relocate(id, Tier::Device)?;
            }
            self.blocks.share(id);
            sequence.blocks.push(id);
            for (layer, from) in sequence.layers.iter_mut().zip(&prefix_source.layers) {
                layer.k.push(from.k[index].share());
                layer.v.push(from.v[index].share());
            }
        }
        for layer in &mut sequence.layers {
            layer.sum_rows(sequence.len..shared, self.shape);
        }
        sequence.len = shared;
        self.grow(sequence, tokens)
    }

    /// Moves what a sequence holds on the device to the host tier, as it is; [`LaneCache::grow`] swaps it in again.
    /// Pages that a resident sequence shares stay.
    pub(crate) fn swap_out(&mut self, sequence: &mut SequenceCache) -> Result<(), OutOfBudget> {
        if sequence.residence != Some(Tier::Device) {
            return Ok(());
        }
        let moving = sequence.blocks.iter().map(|&id| self.blocks.get(id)).filter(|block| block.residents == 1);
        let swapped = self.block_bytes(Tier::Host).host();
        let needed: u64 = moving.map(|block| swapped - self.bytes_of(block).host()).sum();
        self.host.room(self.sum_bytes() + needed)?;
        for &id in &sequence.blocks {
            if self.blocks.set_resident(id, false) == 0 {
                self.relocate(id, Tier::Host)?;
            }
        }
        self.device.give(MemoryKind::Tail, self.sum_bytes());
        self.host.take(MemoryKind::Tail, self.sum_bytes())?;
        // Reuse buffers hold only copies of what is in the pages.
        self.drop_buffers(sequence);
        sequence.residence = Some(Tier::Host);
        // Pages that others share are demoted where the host still has room for them.
        self.demote(sequence);
        Ok(())
    }

    /// Moves V of a resident sequence to the device in all layers, also of pages that it grows by. It is for a sequence
    /// that reads every row. Where it does not fit, nothing moves.
    pub(crate) fn promote(&mut self, sequence: &mut SequenceCache) -> Result<(), OutOfBudget> {
        let ids = sequence.blocks.iter().copied();
        let lying: Vec<BlockId> = ids.filter(|&id| !self.blocks.get(id).promoted).collect();
        let bytes = self.block_bytes(Tier::Device).host_v;
        self.device.take(MemoryKind::V, lying.len() as u64 * bytes)?;
        self.host.give(MemoryKind::V, lying.len() as u64 * bytes);
        lying.into_iter().for_each(|id| self.blocks.set_promoted(id, true));
        sequence.promoted = true;
        Ok(())
    }

    /// Moves V of a sequence back to where the policy has it, as far as the host has room.
    pub(crate) fn demote(&mut self, sequence: &mut SequenceCache) {
        self.demote_held(sequence, 1);
    }

    /// The same of the pages that others hold too; the sequence is about to release its own.
    pub(super) fn demote_shared(&mut self, sequence: &mut SequenceCache) {
        self.demote_held(sequence, 2);
    }

    fn demote_held(&mut self, sequence: &mut SequenceCache, holders: u32) {
        sequence.promoted = false;
        let bytes = self.block_bytes(Tier::Device).host_v;
        for &id in &sequence.blocks {
            let Block { promoted, holders: found, .. } = self.blocks.get(id);
            if promoted && found >= holders && self.host.take(MemoryKind::V, bytes).is_ok() {
                self.device.give(MemoryKind::V, bytes);
                self.blocks.set_promoted(id, false);
            }
        }
    }

    /// Whether demoting a sequence would free room on the device.
    pub(crate) fn can_demote(&self, sequence: &SequenceCache) -> bool {
        let bytes = self.block_bytes(Tier::Device).host_v;
        let promoted = |id: &BlockId| self.blocks.get(*id).promoted;
        bytes > 0 && sequence.blocks.iter().any(promoted) && self.host.room(bytes).is_ok()
    }

    /// Tells a sequence which of its pages have V on the device, before a step counts what it reads.
    pub(crate) fn place_pages(&self, sequence: &mut SequenceCache) {
        sequence.promoted_pages.clear();
        if self.blocks.promoted() > 0 {
            sequence.promoted_pages.extend(sequence.blocks.iter().map(|&id| self.blocks.get(id).promoted));
        }
    }

    /// Makes a sequence resident. The room must have been checked.
    pub(super) fn swap_in(&mut self, sequence: &mut SequenceCache) -> Result<(), OutOfBudget> {
        if sequence.residence == Some(Tier::Device) {
            return Ok(());
        }
        self.device.take(MemoryKind::Tail, self.sum_bytes())?;
        self.device.take(MemoryKind::V, self.buffer_bytes())?;
        sequence.make_buffers(self.buffer_rows());
        match sequence.residence {
            Some(_) => self.host.give(MemoryKind::Tail, self.sum_bytes()),
            None if self.keeps_sums() => {
                let width = self.shape.kv_heads * self.shape.head_dim;
                sequence.layers.iter_mut().for_each(|layer| layer.v_sum = vec![0.0; width]);
            }
            None => {}
        }
        for &id in &sequence.blocks {
            if self.blocks.get(id).tier == Tier::Host {
                self.relocate(id, Tier::Device)?;
            }
            self.blocks.set_resident(id, true);
        }
        sequence.residence = Some(Tier::Device);
        Ok(())
    }

    /// Takes the reuse buffers of a resident sequence back.
    pub(super) fn drop_buffers(&mut self, sequence: &mut SequenceCache) {
        sequence.make_buffers(0);
        self.device.give(MemoryKind::V, self.buffer_bytes());
    }

    pub(super) fn reserve(&mut self, tier: Tier) -> Result<(), OutOfBudget> {
        let bytes = self.block_bytes(tier);
        self.device.take(MemoryKind::K, bytes.device_k)?;
        self.device.take(MemoryKind::V, bytes.device_v)?;
        self.host.take(MemoryKind::K, bytes.host_k)?;
        self.host.take(MemoryKind::V, bytes.host_v)
    }

    fn give_back(&mut self, bytes: BlockBytes) {
        self.device.give(MemoryKind::K, bytes.device_k);
        self.device.give(MemoryKind::V, bytes.device_v);
        self.host.give(MemoryKind::K, bytes.host_k);
        self.host.give(MemoryKind::V, bytes.host_v);
    }

    /// Moves a block between the tiers. The room must have been checked.
    fn relocate(&mut self, id: BlockId, to: Tier) -> Result<(), OutOfBudget> {
        self.give_back(self.bytes_of(self.blocks.get(id)));
        self.blocks.moved(id, to);
        self.reserve(to)
    }

    /// A sequence releases a block; without holders, its bytes are free.
    pub(super) fn release(&mut self, id: BlockId, resident: bool) {
        let left = self.blocks.release(id, resident);
        if left.holders == 0 {
            self.give_back(self.bytes_of(left));
        } else if left.residents == 0 && left.tier == Tier::Device {
            let (here, there) = (self.bytes_of(left), self.block_bytes(Tier::Host));
            // Where the host has no room it stays, stranded, until its holders are freed.
            if self.host.room(there.host() - here.host()).is_ok() {
                self.relocate(id, Tier::Host).expect("the room was checked");
            }
        }
    }

    /// Changes the knobs of a `kcache` lane. Where `dense` changes, V pages of the layers concerned move between the
    /// tiers, of all sequences (`sequences` are all of the lane's) or, when they do not fit, of none.
    ///
    /// # Panics
    /// When the keys would have to be stored otherwise.
    pub(crate) fn set_knobs<'a>(
        &mut self,
        knobs: Knobs,
        sequences: impl Iterator<Item = &'a mut SequenceCache>,
    ) -> Result<(), OutOfBudget> {
        self.knobs_fit(knobs)?;
        let (up, down) = self.knobs_move(knobs);
        self.device.give(MemoryKind::V, down);
        self.host.give(MemoryKind::V, up);
        self.device.take(MemoryKind::V, up)?;
        self.host.take(MemoryKind::V, down)?;
        self.policy = Policy::KCache(knobs);
        for sequence in sequences {
            sequence.device_v_layers = self.policy.device_v_layers(self.shape.layers);
        }
        Ok(())
    }

    /// Whether there is room for what moves when the knobs of a `kcache` lane change.
    pub(crate) fn knobs_fit(&self, knobs: Knobs) -> Result<(), OutOfBudget> {
        let (up, down) = self.knobs_move(knobs);
        self.device.room(up)?;
        self.host.room(down)
    }

    /// Bytes of V that move to the device and to the host.
    fn knobs_move(&self, knobs: Knobs) -> (u64, u64) {
        let policy = Policy::KCache(knobs);
        assert_eq!(self.formats(), policy.formats(), "pages keep their format");
        let [_, v] = self.formats();
        // Swapped-out blocks are on the host and promoted ones on the device, whatever the policy says.
        let layer = (self.blocks.on_device() - self.blocks.promoted()) as u64 * self.shape.page_bytes(v);
        let [old, new] = [self.policy, policy].map(|policy| policy.device_v_layers(self.shape.layers) as u64);
        (new.saturating_sub(old) * layer, old.saturating_sub(new) * layer)
    }
}
