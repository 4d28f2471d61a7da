//! The cache of one lane: its two tiers, and the sequences' pages taken from them by the lane's policy.

use std::ops::Range;

use super::{
    Format, Full, PAGE_TOKENS, Page, Place, Policy, SequenceCache, Tier,
    blocks::{Block, BlockId, Blocks},
    buffer::RowBuffer,
    sequence::{LayerCache, add_row},
    tier::Owner,
};

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
    /// paper's claim is this line with one of the two left out.
    pub fn kv_bytes(&self, tokens: usize) -> u64 {
        2 * (self.layers * tokens.div_ceil(PAGE_TOKENS)) as u64 * self.page_bytes(Format::F16)
    }

    /// Bytes of one sequence's reuse buffers of so many rows. All layers have them, so that `dense` can be turned.
    pub fn buffer_bytes(&self, rows: usize) -> u64 {
        (self.layers * self.kv_heads) as u64 * RowBuffer::bytes_for(rows, self.head_dim)
    }

    /// Bytes of one sequence's running sums of V.
    pub fn sum_bytes(&self) -> u64 {
        (self.layers * self.kv_heads * self.head_dim * size_of::<f32>()) as u64
    }
}

/// Two tiers and the policy that says what goes where.
#[derive(Debug)]
pub struct LaneCache {
    pub(super) shape: CacheShape,
    pub(super) policy: Policy,
    pub(super) device: Tier,
    pub(super) host: Tier,
    pub(super) blocks: Blocks,
}

/// Bytes of a block on each tier, by owner.
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
            device: Tier::new(Place::Device, device_budget),
            host: Tier::new(Place::Host, host_budget),
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

    /// The device tier.
    pub fn device(&self) -> &Tier {
        &self.device
    }

    /// The device tier, to change its cap.
    pub fn device_mut(&mut self) -> &mut Tier {
        &mut self.device
    }

    /// The host tier.
    pub fn host(&self) -> &Tier {
        &self.host
    }

    /// Blocks of 64 tokens on the device, each counted once.
    pub fn device_blocks(&self) -> usize {
        self.blocks.on_device()
    }

    /// Whether pages lie on the device that only sequences set aside hold, because the host had no room for them.
    pub fn any_stranded(&self) -> bool {
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
        let bytes = self.block_bytes(block.place);
        if block.lifted { BlockBytes { device_v: bytes.device_v + bytes.host_v, host_v: 0, ..bytes } } else { bytes }
    }

    /// A block at a place: on the device V lies as the policy says, on the host everything is there.
    pub(super) fn block_bytes(&self, place: Place) -> BlockBytes {
        let layers = self.shape.layers as u64;
        let device_v = self.policy.device_v_layers(self.shape.layers) as u64;
        let [k, v] = self.formats().map(|format| self.shape.page_bytes(format));
        match place {
            Place::Device => {
                BlockBytes { device_k: layers * k, device_v: device_v * v, host_k: 0, host_v: (layers - device_v) * v }
            }
            Place::Host => BlockBytes { device_k: 0, device_v: 0, host_k: layers * k, host_v: layers * v },
        }
    }

    /// Bytes of one block of 64 tokens on the device and on the host, for a sequence that is resident.
    pub fn resident_block(&self) -> (u64, u64) {
        let bytes = self.block_bytes(Place::Device);
        (bytes.device(), bytes.host())
    }

    /// The most tokens that one sequence could hold if it were alone, with `workspace` bytes for the step; `None`
    /// without a limit.
    pub fn most_tokens(&self, workspace: u64) -> Option<usize> {
        let (device, host) = self.resident_block();
        let blocks = |tier: &Tier, bytes: u64, fixed: u64| match tier.cap() {
            Some(cap) if bytes > 0 => Some(cap.saturating_sub(fixed) / bytes),
            _ => None,
        };
        let device = blocks(&self.device, device, workspace + self.sum_bytes() + self.buffer_bytes());
        let host = blocks(&self.host, host, 0);
        let least = device.into_iter().chain(host).min()?;
        Some(usize::try_from(least).unwrap_or(usize::MAX).saturating_mul(PAGE_TOKENS))
    }

    /// A sequence without tokens, ready to grow.
    pub fn open(&mut self) -> Result<SequenceCache, Full> {
        let mut sequence = self.vacant();
        self.grow(&mut sequence, 0)?;
        Ok(sequence)
    }

    /// A sequence that holds nothing yet, not even a running sum.
    pub fn vacant(&self) -> SequenceCache {
        SequenceCache::vacant(self)
    }

    /// Bytes that growing a sequence by `tokens` takes on the device and on the host; what was set aside comes back
    /// for it, and is counted.
    pub fn growth(&self, sequence: &SequenceCache, tokens: usize) -> (u64, u64) {
        self.growth_sharing(sequence, None, tokens)
    }

    /// The same where the sequence first adopts the first tokens of another, as [`LaneCache::adopt`] does.
    pub fn growth_sharing(
        &self,
        sequence: &SequenceCache,
        donor: Option<(&SequenceCache, usize)>,
        tokens: usize,
    ) -> (u64, u64) {
        let len = donor.map_or(sequence.len, |(_, shared)| shared);
        let adopted =
            donor.map_or(&[][..], |(donor, shared)| &donor.blocks[sequence.len / PAGE_TOKENS..shared / PAGE_TOKENS]);
        // A sequence that adopts gives up the pages it has not written.
        let kept = if donor.is_some() { sequence.len / PAGE_TOKENS } else { sequence.blocks.len() };
        let needed = (len + tokens).div_ceil(PAGE_TOKENS);
        let new = needed.saturating_sub(kept + adopted.len()) as u64;
        let own = if sequence.residence == Some(Place::Device) { &[][..] } else { &sequence.blocks[..kept] };
        let on_host = |id: &&BlockId| self.blocks.get(**id).place == Place::Host;
        let returning = own.iter().chain(adopted).filter(on_host).count() as u64;
        let resident = sequence.residence == Some(Place::Device);
        let besides = if resident { 0 } else { self.sum_bytes() + self.buffer_bytes() };
        let (resident, aside) = (self.block_bytes(Place::Device), self.block_bytes(Place::Host));
        let device = besides + (new + returning) * resident.device();
        let host = (new * resident.host()).saturating_sub(returning * (aside.host() - resident.host()));
        (device, host)
    }

    /// Makes a sequence resident and gives it the pages for `tokens` more, in every layer or in none.
    pub fn grow(&mut self, sequence: &mut SequenceCache, tokens: usize) -> Result<(), Full> {
        let (device, host) = self.growth(sequence, tokens);
        self.device.room(device)?;
        self.host.room(host)?;
        self.bring_back(sequence)?;
        let needed = (sequence.len + tokens).div_ceil(PAGE_TOKENS);
        while sequence.blocks.len() < needed {
            self.book(Place::Device)?;
            sequence.blocks.push(self.blocks.add());
        }
        if sequence.lifted {
            // What does not fit any more is read where it is.
            let _ = self.lift(sequence);
        }
        Ok(())
    }

    /// Takes a sequence's pages back.
    pub fn close(&mut self, mut sequence: SequenceCache) {
        self.vacate(&mut sequence);
    }

    /// Takes back everything that a sequence holds, its running sums too.
    pub fn vacate(&mut self, sequence: &mut SequenceCache) {
        self.lower_shared(sequence);
        sequence.len = 0;
        self.trim(sequence);
        match sequence.residence.take() {
            Some(Place::Device) => {
                self.device.give(Owner::Tail, self.sum_bytes());
                self.drop_buffers(sequence);
            }
            Some(Place::Host) => self.host.give(Owner::Tail, self.sum_bytes()),
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
        let resident = sequence.residence == Some(Place::Device);
        while sequence.blocks.len() > needed {
            if let Some(id) = sequence.blocks.pop() {
                self.release(id, resident);
            }
        }
    }

    /// A copy of a sequence of any lane, with pages of its own in this lane. Where the lanes store differently, rows are
    /// rounded once more.
    pub fn fork(&mut self, of: &SequenceCache) -> Result<SequenceCache, Full> {
        let mut copy = self.vacant();
        self.grow(&mut copy, of.len)?;
        self.copy(&mut copy, of);
        Ok(copy)
    }

    /// Copies the tokens of a sequence of any lane into an empty one that has grown to hold them.
    ///
    /// # Panics
    /// When it is not empty, or has not grown.
    pub fn copy(&self, sequence: &mut SequenceCache, of: &SequenceCache) {
        assert!(sequence.len == 0 && sequence.capacity() >= of.len, "a copy needs empty pages");
        let [k, v] = self.formats();
        let same = v == of.formats()[1];
        let pages = of.len.div_ceil(PAGE_TOKENS);
        for (to, from) in sequence.layers.iter_mut().zip(&of.layers) {
            to.k = from.k[..pages].iter().map(|page| Page::copy(k, page)).collect();
            to.v = from.v[..pages].iter().map(|page| Page::copy(v, page)).collect();
            if same && to.v_sum.len() == from.v_sum.len() {
                to.v_sum.copy_from_slice(&from.v_sum);
            } else {
                to.sum_rows(0..of.len, self.shape);
            }
        }
        sequence.len = of.len;
    }
}

impl LayerCache {
    /// Adds rows to the running sum, in the order in which they were written.
    pub(super) fn sum_rows(&mut self, positions: Range<usize>, shape: CacheShape) {
        if self.v_sum.is_empty() {
            return;
        }
        for position in positions {
            let page = &self.v[position / PAGE_TOKENS];
            for (head, sums) in self.v_sum.chunks_exact_mut(shape.head_dim).enumerate() {
                add_row(page, head, position % PAGE_TOKENS, sums);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Knobs;

    const SHAPE: CacheShape = CacheShape { layers: 3, kv_heads: 2, head_dim: 64 };

    fn lane(policy: &str) -> LaneCache {
        LaneCache::new(SHAPE, policy.parse().unwrap(), None, None)
    }

    /// A sequence of `tokens` whose values depend on nothing but their place.
    fn filled(lane: &mut LaneCache, tokens: usize) -> SequenceCache {
        let mut sequence = lane.open().unwrap();
        lane.grow(&mut sequence, tokens).unwrap();
        for position in 0..tokens {
            for layer in 0..SHAPE.layers {
                let row = |seed: f32| -> Vec<f32> {
                    (0..2 * 64).map(|at| ((at + 131 * position + 17 * layer) as f32 * seed).sin()).collect()
                };
                sequence.write(layer, position, &row(0.37), &row(0.71));
            }
        }
        sequence.advance(tokens);
        sequence
    }

    #[test]
    fn each_policy_holds_what_it_stores() {
        let kv = SHAPE.kv_bytes(100);
        for (policy, device, host) in [
            ("kv", kv, 0),
            ("kv-q8", kv * 34 / 64, 0),
            ("kcache:dense=0", kv / 2, kv / 2),
            ("kcache:dense=0,k=q8", kv / 2 * 34 / 64, kv / 2),
            ("kcache:dense=1,k=q8", kv / 2 * 34 / 64 + kv / 6, kv / 3),
        ] {
            let mut lane = lane(policy);
            let empty = lane.open().unwrap();
            assert_eq!(lane.growth(&empty, 100), (device, host), "{policy}");
            let sequence = filled(&mut lane, 100);
            let held = [lane.device().held(Owner::K) + lane.device().held(Owner::V), lane.host().used()];
            assert_eq!(held, [device, host], "{policy}");
            lane.check([&empty, &sequence].into_iter()).unwrap();
            lane.close(sequence);
            lane.close(empty);
            assert_eq!((lane.device().used(), lane.host().used()), (0, 0), "{policy}");
        }
    }

    #[test]
    fn a_copy_holds_the_same_rows_or_those_of_its_own_format() {
        let policies = ["kv", "kv-q8", "kcache:dense=1", "kcache:dense=0,k=q8"];
        for from in policies {
            for to in policies {
                let (mut from_lane, mut to_lane) = (lane(from), lane(to));
                let sequence = filled(&mut from_lane, 70);
                let copy = to_lane.fork(&sequence).unwrap();
                let written = filled(&mut to_lane, 70);
                to_lane.check([&copy, &written].into_iter()).unwrap();
                assert_eq!(copy.formats(), to_lane.formats());
                for layer in 0..SHAPE.layers {
                    let [from_k, from_v] = sequence.formats();
                    let [to_k, to_v] = copy.formats();
                    for (pages, written, exact) in [
                        (copy.k(layer), written.k(layer), from_k == to_k),
                        (copy.v(layer), written.v(layer), from_v == to_v),
                    ] {
                        for position in 0..70 {
                            let (page, slot) = (position / PAGE_TOKENS, position % PAGE_TOKENS);
                            let (mut a, mut b) = ([0.0; 64], [0.0; 64]);
                            pages[page].read(1, slot, &mut a);
                            written[page].read(1, slot, &mut b);
                            let most = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                            // A row rounded twice is a step of 1/127 away at most.
                            assert!(most <= if exact { 0.0 } else { 0.0082 }, "{from} to {to}: {most}");
                        }
                    }
                    if from_v == to_v {
                        assert_eq!(copy.v_sum(layer), written.v_sum(layer), "{from} to {to}");
                    }
                }
            }
        }
    }

    fn same_rows(a: &SequenceCache, b: &SequenceCache) {
        assert_eq!(a.len(), b.len());
        for layer in 0..SHAPE.layers {
            for (a, b) in a.k(layer).iter().zip(b.k(layer)) {
                assert_eq!(a.keys(1), b.keys(1));
            }
            for (a, b) in a.v(layer).iter().zip(b.v(layer)) {
                assert_eq!(a.rows(1, 0, PAGE_TOKENS), b.rows(1, 0, PAGE_TOKENS));
            }
            assert_eq!(a.v_sum(layer), b.v_sum(layer));
        }
    }

    #[test]
    fn what_is_set_aside_is_booked_on_the_host_and_comes_back_as_it_was() {
        for policy in ["kv", "kv-q8", "kcache:dense=1", "kcache:dense=0,k=q8"] {
            let mut lane = lane(policy);
            let mut sequence = filled(&mut lane, 100);
            let (device, host) = (lane.device().used(), lane.host().used());
            lane.set_aside(&mut sequence).unwrap();
            assert_eq!((lane.device().used(), lane.host().used()), (0, device + host), "{policy}");
            assert_eq!(lane.growth(&sequence, 0).0, device, "{policy}: the way back");
            lane.check([&sequence].into_iter()).unwrap();
            // A host without room takes nothing, and nothing changes.
            lane.grow(&mut sequence, 0).unwrap();
            assert_eq!((lane.device().used(), lane.host().used()), (device, host), "{policy}");
            lane.host.set_cap(Some(host + device - 1));
            lane.set_aside(&mut sequence).unwrap_err();
            lane.check([&sequence].into_iter()).unwrap();
            let written = filled(&mut super::tests::lane(policy), 100);
            same_rows(&sequence, &written);
            lane.close(sequence);
            assert_eq!((lane.device().used(), lane.host().used()), (0, 0), "{policy}");
        }
    }

    #[test]
    fn shared_pages_are_booked_once_and_stay_where_somebody_needs_them() {
        for policy in ["kv", "kv-q8", "kcache:dense=1", "kcache:dense=0,k=q8"] {
            let mut lane = lane(policy);
            let mut first = filled(&mut lane, 150);
            let one = lane.device().used();
            let (block, _) = lane.resident_block();
            let mut second = lane.open().unwrap();
            lane.grow(&mut second, 150).unwrap();
            lane.adopt(&mut second, &first, 128, 22).unwrap();
            assert_eq!(lane.device().used(), one + lane.sum_bytes() + block, "{policy}: one page of its own");
            same_rows(&second, &filled(&mut super::tests::lane(policy), 128));
            lane.check([&first, &second].into_iter()).unwrap();

            // Only what nobody else on the device has moves; the rest moves when the last has gone.
            lane.set_aside(&mut first).unwrap();
            assert_eq!(lane.device_blocks(), 3, "{policy}");
            lane.set_aside(&mut second).unwrap();
            assert_eq!((lane.device_blocks(), lane.device().used()), (0, 0), "{policy}");
            lane.check([&first, &second].into_iter()).unwrap();
            lane.grow(&mut second, 0).unwrap();
            assert_eq!(lane.device_blocks(), 3, "{policy}");
            lane.check([&first, &second].into_iter()).unwrap();

            // The last on the device goes while the host has no room: its pages are stranded, and still in the books.
            lane.host.set_cap(Some(0));
            lane.close(second);
            assert!(lane.any_stranded() && lane.device_blocks() == 2, "{policy}");
            lane.check([&first].into_iter()).unwrap();
            lane.vacate(&mut first);
            assert!(!lane.any_stranded());
            assert_eq!((lane.device().used(), lane.host().used()), (0, 0), "{policy}");
        }
    }

    #[test]
    fn what_is_lifted_is_booked_on_the_device_and_goes_back() {
        for policy in ["kv", "kcache:dense=1", "kcache:dense=0,k=q8"] {
            let mut lane = lane(policy);
            let mut first = filled(&mut lane, 150);
            let before = (lane.device().used(), lane.host().used());
            let v = lane.host().held(Owner::V);
            lane.lift(&mut first).unwrap();
            assert_eq!((lane.device().used(), lane.host().used()), (before.0 + v, 0), "{policy}");
            assert_eq!(lane.can_lower(&first), v > 0, "{policy}");
            lane.check([&first].into_iter()).unwrap();
            lane.place_pages(&mut first);
            assert!(first.lifted_at(149) && first.any_lifted());

            // What it grows by comes too, where there is room.
            let (block, host) = lane.resident_block();
            lane.grow(&mut first, 64).unwrap();
            assert_eq!(lane.host().used(), 0, "{policy}");
            let used = lane.device().used();
            lane.device.set_cap(Some(used + block));
            lane.grow(&mut first, 128).unwrap();
            assert_eq!((lane.device().used(), lane.host().used()), (used + block, host), "{policy}");
            lane.device.set_cap(None);
            lane.check([&first].into_iter()).unwrap();
            lane.trim(&mut first);

            // Another may share the pages; when the first has gone they lie as the policy says.
            let mut second = lane.open().unwrap();
            lane.adopt(&mut second, &first, 128, 22).unwrap();
            lane.check([&first, &second].into_iter()).unwrap();
            lane.set_aside(&mut first).unwrap();
            lane.check([&first, &second].into_iter()).unwrap();
            lane.place_pages(&mut second);
            assert!(!second.any_lifted() && !first.is_lifted());
            lane.grow(&mut first, 0).unwrap();
            same_rows(&first, &filled(&mut super::tests::lane(policy), 150));
            lane.lift(&mut first).unwrap();
            lane.close(first);
            lane.check([&second].into_iter()).unwrap();
            assert_eq!(lane.host().held(Owner::V), v, "{policy}");
            lane.close(second);
            assert_eq!((lane.device().used(), lane.host().used()), (0, 0), "{policy}");

            // All or none; and the host may have no room for the way back.
            let mut third = filled(&mut lane, 100);
            let (device, v) = (lane.device().used(), lane.host().used());
            if v > 0 {
                lane.device.set_cap(Some(device + v - 1));
                lane.lift(&mut third).unwrap_err();
                lane.check([&third].into_iter()).unwrap();
                lane.device.set_cap(None);
                lane.lift(&mut third).unwrap();
                lane.host.set_cap(Some(0));
                assert!(!lane.can_lower(&third));
                lane.lower(&mut third);
                lane.check([&third].into_iter()).unwrap();
                assert_eq!((lane.device().used(), lane.host().used()), (device + v, 0), "{policy}");
            }
            lane.close(third);
            assert_eq!((lane.device().used(), lane.host().used()), (0, 0), "{policy}");
        }
    }

    #[test]
    fn reuse_buffers_are_booked_while_a_sequence_is_resident() {
        let (mut plain, mut lane) = (lane("kcache:dense=1"), lane("kcache:dense=1,buffer=100"));
        let bytes = SHAPE.buffer_bytes(100);
        assert!(bytes >= 3 * 2 * 100 * 64 * 2);
        let (first, mut second) = (filled(&mut plain, 100), filled(&mut lane, 100));
        assert_eq!(lane.device().used(), plain.device().used() + bytes);
        assert_eq!(second.buffers(2).len(), 2);
        lane.check([&second].into_iter()).unwrap();
        lane.set_aside(&mut second).unwrap();
        plain.close(first);
        assert_eq!((lane.device().used(), second.buffers(2).len()), (0, 0));
        lane.check([&second].into_iter()).unwrap();
        let back = lane.growth(&second, 0).0;
        lane.device.set_cap(Some(back - 1));
        lane.grow(&mut second, 0).unwrap_err();
        lane.check([&second].into_iter()).unwrap();
        lane.device.set_cap(Some(back));
        assert_eq!(lane.most_tokens(0), Some(128));
        lane.grow(&mut second, 0).unwrap();
        lane.check([&second].into_iter()).unwrap();
        lane.close(second);
        assert_eq!((lane.device().used(), lane.host().used()), (0, 0));
    }

    #[test]
    fn a_knob_moves_what_is_not_lifted() {
        let mut lane = lane("kcache:dense=1");
        let (mut first, mut second) = (filled(&mut lane, 100), filled(&mut lane, 70));
        lane.lift(&mut first).unwrap();
        for dense in [0, 3, 2] {
            let Policy::KCache(knobs) = lane.policy() else { panic!("a lane of kcache") };
            lane.set_knobs(Knobs { dense, ..knobs }, [&mut first, &mut second].into_iter()).unwrap();
            lane.check([&first, &second].into_iter()).unwrap();
        }
        lane.lower(&mut first);
        lane.check([&first, &second].into_iter()).unwrap();
        lane.close(first);
        lane.close(second);
        assert_eq!((lane.device().used(), lane.host().used()), (0, 0));
    }

    #[test]
    fn the_audit_finds_a_page_that_is_not_the_shared_one() {
        let mut lane = lane("kv");
        let first = filled(&mut lane, 64);
        let mut second = lane.open().unwrap();
        lane.adopt(&mut second, &first, 64, 0).unwrap();
        second.layers[1].v[0] = Page::copy(Format::F16, &first.layers[1].v[0]);
        let error = lane.check([&first, &second].into_iter()).unwrap_err();
        assert!(error.to_string().contains("held by 2 sequences, 1 hold it"), "{error}");
        assert!(lane.check([&first].into_iter()).is_err(), "a holder is missing");
    }
}
