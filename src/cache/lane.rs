//! The cache of one lane: its two tiers, and the sequences' pages taken from them by the lane's policy.

use std::{collections::BTreeMap, ops::Range};

use super::{
    Format, Full, Knobs, PAGE_TOKENS, Page, Place, Policy, SequenceCache, Tier,
    blocks::{BlockId, Blocks},
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

    /// Bytes of one sequence's running sums of V.
    pub fn sum_bytes(&self) -> u64 {
        (self.layers * self.kv_heads * self.head_dim * size_of::<f32>()) as u64
    }
}

/// Two tiers and the policy that says what goes where.
#[derive(Debug)]
pub struct LaneCache {
    shape: CacheShape,
    policy: Policy,
    device: Tier,
    host: Tier,
    blocks: Blocks,
}

/// The books of a lane do not agree with the pages its sequences hold. Always a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unbalanced {
    /// An account of a tier is wrong.
    #[error("the ledger says {booked} bytes of {owner} on the {place:?} tier, the sequences hold {held}")]
    Bytes {
        /// Which tier.
        place: Place,
        /// Whose account.
        owner: &'static str,
        /// What the account says.
        booked: u64,
        /// What the sequences hold.
        held: u64,
    },
    /// The count of who holds a block is wrong, or its holders do not hold the same pages.
    #[error("the table says that block {block} is held by {counted} sequences, {held} hold it with the same pages")]
    Holders {
        /// Which block.
        block: u32,
        /// What the table says.
        counted: u32,
        /// How many hold it.
        held: u32,
    },
}

/// Bytes of a block on each tier, by owner.
#[derive(Debug, Clone, Copy)]
struct BlockBytes {
    device_k: u64,
    device_v: u64,
    host_k: u64,
    host_v: u64,
}

impl BlockBytes {
    fn device(self) -> u64 {
        self.device_k + self.device_v
    }

    fn host(self) -> u64 {
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
    fn keeps_sums(&self) -> bool {
        matches!(self.policy, Policy::KCache(_))
    }

    fn sum_bytes(&self) -> u64 {
        if self.keeps_sums() { self.shape.sum_bytes() } else { 0 }
    }

    /// A block at a place: on the device V lies as the policy says, on the host everything is there.
    fn block_bytes(&self, place: Place) -> BlockBytes {
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
        let device = blocks(&self.device, device, workspace + self.sum_bytes());
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
        let sums = if sequence.residence == Some(Place::Device) { 0 } else { self.sum_bytes() };
        let (resident, aside) = (self.block_bytes(Place::Device), self.block_bytes(Place::Host));
        let device = sums + (new + returning) * resident.device();
        let host = (new * resident.host()).saturating_sub(returning * (aside.host() - resident.host()));
        (device, host)
    }

    /// Makes a sequence resident and gives it the pages for `tokens` more, in every layer or in none.
    pub fn grow(&mut self, sequence: &mut SequenceCache, tokens: usize) -> Result<(), Full> {
        let (device, host) = self.growth(sequence, tokens);
        self.device.room(device)?;
        self.host.room(host)?;
        self.bring_back(sequence)?;
        let CacheShape { kv_heads, head_dim, .. } = self.shape;
        let [k, v] = self.formats();
        let needed = (sequence.len + tokens).div_ceil(PAGE_TOKENS);
        while sequence.blocks.len() < needed {
            self.book(Place::Device)?;
            sequence.blocks.push(self.blocks.add());
            for layer in &mut sequence.layers {
                layer.k.push(Page::new(k, kv_heads, head_dim));
                layer.v.push(Page::new(v, kv_heads, head_dim));
            }
        }
        Ok(())
    }

    /// Has a sequence begin with the first `shared` tokens of `donor`, a sequence of this lane: it holds the same pages.
    /// Both must agree in the tokens that `sequence` has. Then it is given pages for `tokens` more.
    ///
    /// # Panics
    /// When `shared` or the length of `sequence` is no whole number of pages, or `donor` has not so many tokens.
    pub fn adopt(
        &mut self,
        sequence: &mut SequenceCache,
        donor: &SequenceCache,
        shared: usize,
        tokens: usize,
    ) -> Result<(), Full> {
        let (from, to) = (sequence.len / PAGE_TOKENS, shared / PAGE_TOKENS);
        assert!(
            sequence.len.is_multiple_of(PAGE_TOKENS) && shared.is_multiple_of(PAGE_TOKENS),
            "full pages are shared"
        );
        assert!(sequence.len <= shared && shared <= donor.len, "what is shared has been written");
        self.trim(sequence);
        let (device, host) = self.growth_sharing(sequence, Some((donor, shared)), tokens);
        self.device.room(device)?;
        self.host.room(host)?;
        self.bring_back(sequence)?;
        for index in from..to {
            let id = donor.blocks[index];
            if self.blocks.get(id).place == Place::Host {
                self.relocate(id, Place::Device)?;
            }
            self.blocks.share(id);
            sequence.blocks.push(id);
            for (layer, from) in sequence.layers.iter_mut().zip(&donor.layers) {
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

    /// Moves what a sequence holds on the device to the host tier, as it is; [`LaneCache::grow`] brings it back. Pages
    /// that a resident sequence shares stay.
    pub fn set_aside(&mut self, sequence: &mut SequenceCache) -> Result<(), Full> {
        if sequence.residence != Some(Place::Device) {
            return Ok(());
        }
        let sole = |id: &&BlockId| self.blocks.get(**id).residents == 1;
        let moving = sequence.blocks.iter().filter(sole).count() as u64;
        let (resident, aside) = (self.block_bytes(Place::Device), self.block_bytes(Place::Host));
        self.host.room(self.sum_bytes() + moving * (aside.host() - resident.host()))?;
        for &id in &sequence.blocks {
            if self.blocks.set_resident(id, false) == 0 {
                self.relocate(id, Place::Host)?;
            }
        }
        self.device.give(Owner::Tail, self.sum_bytes());
        self.host.take(Owner::Tail, self.sum_bytes())?;
        sequence.residence = Some(Place::Host);
        Ok(())
    }

    /// Makes a sequence resident. The room must have been checked.
    fn bring_back(&mut self, sequence: &mut SequenceCache) -> Result<(), Full> {
        if sequence.residence == Some(Place::Device) {
            return Ok(());
        }
        self.device.take(Owner::Tail, self.sum_bytes())?;
        match sequence.residence {
            Some(_) => self.host.give(Owner::Tail, self.sum_bytes()),
            None if self.keeps_sums() => {
                let width = self.shape.kv_heads * self.shape.head_dim;
                sequence.layers.iter_mut().for_each(|layer| layer.v_sum = vec![0.0; width]);
            }
            None => {}
        }
        for &id in &sequence.blocks {
            if self.blocks.get(id).place == Place::Host {
                self.relocate(id, Place::Device)?;
            }
            self.blocks.set_resident(id, true);
        }
        sequence.residence = Some(Place::Device);
        Ok(())
    }

    fn book(&mut self, place: Place) -> Result<(), Full> {
        let bytes = self.block_bytes(place);
        self.device.take(Owner::K, bytes.device_k)?;
        self.device.take(Owner::V, bytes.device_v)?;
        self.host.take(Owner::K, bytes.host_k)?;
        self.host.take(Owner::V, bytes.host_v)
    }

    fn give_back(&mut self, place: Place) {
        let bytes = self.block_bytes(place);
        self.device.give(Owner::K, bytes.device_k);
        self.device.give(Owner::V, bytes.device_v);
        self.host.give(Owner::K, bytes.host_k);
        self.host.give(Owner::V, bytes.host_v);
    }

    /// Moves a block between the tiers. The room must have been checked.
    fn relocate(&mut self, id: BlockId, to: Place) -> Result<(), Full> {
        self.give_back(self.blocks.get(id).place);
        self.blocks.moved(id, to);
        self.book(to)
    }

    /// A sequence lets go of a block.
    fn release(&mut self, id: BlockId, resident: bool) {
        let left = self.blocks.release(id, resident);
        if left.holders == 0 {
            self.give_back(left.place);
        } else if left.residents == 0 && left.place == Place::Device {
            let (here, there) = (self.block_bytes(Place::Device), self.block_bytes(Place::Host));
            // Where the host has no room it stays, stranded, until its holders are freed.
            if self.host.room(there.host() - here.host()).is_ok() {
                self.relocate(id, Place::Host).expect("the room was checked");
            }
        }
    }

    /// Takes a sequence's pages back.
    pub fn close(&mut self, mut sequence: SequenceCache) {
        self.vacate(&mut sequence);
    }

    /// Takes back everything that a sequence holds, its running sums too.
    pub fn vacate(&mut self, sequence: &mut SequenceCache) {
        sequence.len = 0;
        self.trim(sequence);
        match sequence.residence.take() {
            Some(Place::Device) => self.device.give(Owner::Tail, self.sum_bytes()),
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
        let same = self.formats()[1] == of.formats()[1];
        for (to, from) in sequence.layers.iter_mut().zip(&of.layers) {
            for (to, from) in to.k.iter_mut().zip(&from.k).chain(to.v.iter_mut().zip(&from.v)) {
                to.copy_from(from);
            }
            if same && to.v_sum.len() == from.v_sum.len() {
                to.v_sum.copy_from_slice(&from.v_sum);
            } else {
                to.sum_rows(0..of.len, self.shape);
            }
        }
        sequence.len = of.len;
    }

    /// Changes the knobs of a `kcache` lane. Where `dense` changes, V pages of the layers concerned move between the
    /// tiers, of all sequences (`sequences` are all of the lane's) or, when they do not fit, of none.
    ///
    /// # Panics
    /// When the keys would have to be stored otherwise.
    pub fn set_knobs<'a>(
        &mut self,
        knobs: Knobs,
        sequences: impl Iterator<Item = &'a mut SequenceCache>,
    ) -> Result<(), Full> {
        self.knobs_fit(knobs)?;
        let (up, down) = self.knobs_move(knobs);
        self.device.give(Owner::V, down);
        self.host.give(Owner::V, up);
        self.device.take(Owner::V, up)?;
        self.host.take(Owner::V, down)?;
        self.policy = Policy::KCache(knobs);
        for sequence in sequences {
            sequence.device_v_layers = self.policy.device_v_layers(self.shape.layers);
        }
        Ok(())
    }

    /// Whether there is room for what moves when the knobs of a `kcache` lane change.
    pub fn knobs_fit(&self, knobs: Knobs) -> Result<(), Full> {
        let (up, down) = self.knobs_move(knobs);
        self.device.room(up)?;
        self.host.room(down)
    }

    /// Bytes of V that move to the device and to the host.
    fn knobs_move(&self, knobs: Knobs) -> (u64, u64) {
        let policy = Policy::KCache(knobs);
        assert_eq!(self.formats(), policy.formats(), "pages keep their format");
        let [_, v] = self.formats();
        // What lies on the host lies there whole, whatever the policy says.
        let layer = self.blocks.on_device() as u64 * self.shape.page_bytes(v);
        let [old, new] = [self.policy, policy].map(|policy| policy.device_v_layers(self.shape.layers) as u64);
        (new.saturating_sub(old) * layer, old.saturating_sub(new) * layer)
    }

    /// Counts every page that `sequences` (all of the lane's) hold, each once, and compares with the books; and who
    /// holds what with the table of blocks.
    pub fn check<'a>(&self, sequences: impl Iterator<Item = &'a SequenceCache>) -> Result<(), Unbalanced> {
        let (mut device, mut host) = ([0; 3], [0; 3]);
        let mut seen: BTreeMap<BlockId, (u32, u32, usize, &SequenceCache)> = BTreeMap::new();
        for sequence in sequences {
            let resident = u32::from(sequence.residence == Some(Place::Device));
            let sums: u64 = sequence.layers.iter().map(|layer| size_of_val(layer.v_sum.as_slice()) as u64).sum();
            match sequence.residence {
                Some(Place::Device) => device[2] += sums,
                _ => host[2] += sums,
            }
            for (index, &id) in sequence.blocks.iter().enumerate() {
                let (holders, residents, at, first) = seen.entry(id).or_insert((0, 0, index, sequence));
                let mut pages = sequence.layers.iter().zip(&first.layers);
                if pages.all(|(a, b)| a.k[index].is(&b.k[*at]) && a.v[index].is(&b.v[*at])) {
                    *holders += 1;
                    *residents += resident;
                }
            }
        }
        for (&id, &(holders, residents, index, sequence)) in &seen {
            let block = self.blocks.get(id);
            for (counted, held) in [(block.holders, holders), (block.residents, residents)] {
                if counted != held {
                    return Err(Unbalanced::Holders { block: id, counted, held });
                }
            }
            for (at, layer) in sequence.layers.iter().enumerate() {
                let (k, v) = (layer.k[index].bytes(), layer.v[index].bytes());
                let v_place = sequence.v_place(at);
                match block.place {
                    Place::Device => device[0] += k,
                    Place::Host => host[0] += k,
                }
                match (block.place, v_place) {
                    (Place::Device, Place::Device) => device[1] += v,
                    _ => host[1] += v,
                }
            }
        }
        if self.blocks.held() != seen.len() {
            let (counted, held) = (self.blocks.held() as u32, seen.len() as u32);
            return Err(Unbalanced::Holders { block: u32::MAX, counted, held });
        }
        let owners = [(Owner::K, "K"), (Owner::V, "V"), (Owner::Tail, "tail")];
        for (tier, counted) in [(&self.device, device), (&self.host, host)] {
            for ((owner, name), held) in owners.into_iter().zip(counted) {
                let booked = tier.held(owner);
                if booked != held {
                    return Err(Unbalanced::Bytes { place: tier.place(), owner: name, booked, held });
                }
            }
        }
        Ok(())
    }
}

impl LayerCache {
    /// Adds rows to the running sum, in the order in which they were written.
    fn sum_rows(&mut self, positions: Range<usize>, shape: CacheShape) {
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
}
