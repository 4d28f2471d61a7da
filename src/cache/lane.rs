//! The cache of one lane: its two tiers, and the sequences' pages taken from them by the lane's policy.

use super::{
    Format, Full, Knobs, PAGE_TOKENS, Page, Place, Policy, SequenceCache, Tier,
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
}

/// The books of a lane do not agree with the pages its sequences hold. Always a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the ledger says {booked} bytes of {owner} on the {place:?} tier, the sequences hold {held}")]
pub struct Unbalanced {
    place: Place,
    owner: &'static str,
    booked: u64,
    held: u64,
}

impl LaneCache {
    /// An empty cache. Budgets in bytes, `None` for no limit.
    pub fn new(shape: CacheShape, policy: Policy, device_budget: Option<u64>, host_budget: Option<u64>) -> Self {
        Self {
            shape,
            policy,
            device: Tier::new(Place::Device, device_budget),
            host: Tier::new(Place::Host, host_budget),
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

    /// Whether the running sums of V are kept: always under `kcache`, so that `tail=mean` can be turned on at any time.
    pub(super) fn keeps_sums(&self) -> bool {
        matches!(self.policy, Policy::KCache(_))
    }

    /// Where the policy wants a layer's V.
    pub(super) fn v_place(&self, layer: usize) -> Place {
        if layer < self.policy.device_v_layers(self.shape.layers) { Place::Device } else { Place::Host }
    }

    /// A sequence without tokens.
    pub fn open(&mut self) -> Result<SequenceCache, Full> {
        if self.keeps_sums() {
            self.device.take(Owner::Tail, self.shape.sum_bytes())?;
        }
        Ok(SequenceCache::empty(self))
    }

    /// Bytes that growing a sequence by `tokens` takes on the device and on the host.
    pub fn growth(&self, sequence: &SequenceCache, tokens: usize) -> (u64, u64) {
        let pages = self.pages_missing(sequence, tokens) as u64;
        let [k, v] = self.formats().map(|format| pages * self.shape.page_bytes(format));
        let device_v = self.policy.device_v_layers(self.shape.layers) as u64;
        let layers = self.shape.layers as u64;
        (layers * k + device_v * v, (layers - device_v) * v)
    }

    fn pages_missing(&self, sequence: &SequenceCache, tokens: usize) -> usize {
        (sequence.len + tokens).div_ceil(PAGE_TOKENS).saturating_sub(sequence.capacity() / PAGE_TOKENS)
    }

    /// Gives a sequence the pages for `tokens` more, in every layer or in none.
    pub fn grow(&mut self, sequence: &mut SequenceCache, tokens: usize) -> Result<(), Full> {
        let missing = self.pages_missing(sequence, tokens);
        let (device, host) = self.growth(sequence, tokens);
        self.device.room(device)?;
        self.host.room(host)?;
        let CacheShape { kv_heads, head_dim, .. } = self.shape;
        let [k, v] = self.formats();
        let [k_bytes, v_bytes] = [k, v].map(|format| self.shape.page_bytes(format));
        for layer in &mut sequence.layers {
            for _ in 0..missing {
                self.device.take(Owner::K, k_bytes)?;
                layer.k.push(Page::new(k, kv_heads, head_dim));
                self.tier(layer.v_place).take(Owner::V, v_bytes)?;
                layer.v.push(Page::new(v, kv_heads, head_dim));
            }
        }
        Ok(())
    }

    /// Takes a sequence's pages back.
    pub fn close(&mut self, sequence: SequenceCache) {
        for LayerCache { k, v, v_place, .. } in sequence.layers {
            self.device.give_pages(Owner::K, k);
            self.tier(v_place).give_pages(Owner::V, v);
        }
        if self.keeps_sums() {
            self.device.give(Owner::Tail, self.shape.sum_bytes());
        }
    }

    /// Takes back everything that a sequence holds; it goes on as a new one.
    pub fn empty(&mut self, sequence: &mut SequenceCache) {
        sequence.len = 0;
        self.trim(sequence);
        for layer in &mut sequence.layers {
            layer.v_sum.fill(0.0);
        }
    }

    /// Takes back the pages that a sequence holds beyond its tokens.
    pub fn trim(&mut self, sequence: &mut SequenceCache) {
        let needed = sequence.len.div_ceil(PAGE_TOKENS);
        for layer in &mut sequence.layers {
            let spare = needed.min(layer.k.len());
            self.device.give_pages(Owner::K, layer.k.split_off(spare));
            let spare = layer.v.split_off(spare);
            match layer.v_place {
                Place::Device => self.device.give_pages(Owner::V, spare),
                Place::Host => self.host.give_pages(Owner::V, spare),
            }
        }
    }

    /// A copy of a sequence of any lane, with pages of its own in this lane. Where the lanes store differently, rows are
    /// rounded once more. The running sums are made from the rows.
    pub fn fork(&mut self, of: &SequenceCache) -> Result<SequenceCache, Full> {
        let mut copy = self.open()?;
        if let Err(full) = self.grow(&mut copy, of.len) {
            self.close(copy);
            return Err(full);
        }
        for (to, from) in copy.layers.iter_mut().zip(&of.layers) {
            for (to, from) in to.k.iter_mut().zip(&from.k).chain(to.v.iter_mut().zip(&from.v)) {
                to.copy_from(from);
            }
            to.sum_rows(of.len, self.shape);
        }
        copy.len = of.len;
        Ok(copy)
    }

    /// Changes the knobs of a `kcache` lane. Where `dense` changes, V pages of the layers concerned move between the
    /// tiers, of all sequences or, when they do not fit, of none.
    ///
    /// # Panics
    /// When a sequence of another lane is among `sequences`, or the keys would have to be stored otherwise.
    pub fn set_knobs<'a>(
        &mut self,
        knobs: Knobs,
        sequences: impl Iterator<Item = &'a mut SequenceCache>,
    ) -> Result<(), Full> {
        assert_eq!(self.formats(), Policy::KCache(knobs).formats(), "pages keep their format");
        let mut moving: Vec<&mut LayerCache> = Vec::new();
        let device_layers = Policy::KCache(knobs).device_v_layers(self.shape.layers);
        for sequence in sequences {
            for (index, layer) in sequence.layers.iter_mut().enumerate() {
                let wanted = if index < device_layers { Place::Device } else { Place::Host };
                if layer.v_place != wanted {
                    moving.push(layer);
                }
            }
        }
        // All of them move in the same direction, so what has to fit is their sum.
        let bytes = |layer: &LayerCache| layer.v.iter().map(Page::bytes).sum::<u64>();
        let total: u64 = moving.iter().map(|layer| bytes(layer)).sum();
        if let Some(first) = moving.first() {
            match first.v_place {
                Place::Device => self.host.room(total)?,
                Place::Host => self.device.room(total)?,
            }
        }
        for layer in moving {
            let (from, to) = match layer.v_place {
                Place::Device => (&mut self.device, &mut self.host),
                Place::Host => (&mut self.host, &mut self.device),
            };
            from.give(Owner::V, bytes(layer));
            to.take(Owner::V, bytes(layer))?;
            layer.v_place = to.place();
        }
        self.policy = Policy::KCache(knobs);
        Ok(())
    }

    /// Counts every page that `sequences` (all of the lane's) hold and compares with the books.
    pub fn check<'a>(&self, sequences: impl Iterator<Item = &'a SequenceCache>) -> Result<(), Unbalanced> {
        let (mut k, mut device_v, mut host_v, mut tail) = (0, 0, 0, 0);
        for layer in sequences.flat_map(|sequence| &sequence.layers) {
            let v: u64 = layer.v.iter().map(Page::bytes).sum();
            match layer.v_place {
                Place::Device => device_v += v,
                Place::Host => host_v += v,
            }
            k += layer.k.iter().map(Page::bytes).sum::<u64>();
            tail += size_of_val(layer.v_sum.as_slice()) as u64;
        }
        for (tier, owner, name, held) in [
            (&self.device, Owner::K, "K", k),
            (&self.device, Owner::V, "V", device_v),
            (&self.device, Owner::Tail, "tail", tail),
            (&self.host, Owner::K, "K", 0),
            (&self.host, Owner::V, "V", host_v),
            (&self.host, Owner::Tail, "tail", 0),
        ] {
            let booked = tier.held(owner);
            if booked != held {
                return Err(Unbalanced { place: tier.place(), owner: name, booked, held });
            }
        }
        Ok(())
    }

    fn tier(&mut self, place: Place) -> &mut Tier {
        match place {
            Place::Device => &mut self.device,
            Place::Host => &mut self.host,
        }
    }
}

impl LayerCache {
    /// Makes the running sum again from the first `len` rows, in the order in which they were written.
    fn sum_rows(&mut self, len: usize, shape: CacheShape) {
        if self.v_sum.is_empty() {
            return;
        }
        self.v_sum.fill(0.0);
        for position in 0..len {
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
