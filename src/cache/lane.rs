//! The cache of one lane: its two tiers, and the sequences' pages taken from them by the lane's policy.

use super::{Full, Knobs, PAGE_TOKENS, Page, Place, Policy, SequenceCache, Tier, sequence::LayerCache, tier::Owner};

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
    pub fn page_bytes(&self) -> u64 {
        Page::bytes_for(self.kv_heads, self.head_dim)
    }

    /// What an ordinary KV cache holds on the device for a sequence of `tokens`, in whole pages. The KCache paper's
    /// claim is this line with one of the two left out.
    pub fn kv_bytes(&self, tokens: usize) -> u64 {
        2 * (self.layers * tokens.div_ceil(PAGE_TOKENS)) as u64 * self.page_bytes()
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
        let pages = self.pages_missing(sequence, tokens) as u64 * self.shape.page_bytes();
        let device_v = self.policy.device_v_layers(self.shape.layers);
        ((self.shape.layers + device_v) as u64 * pages, (self.shape.layers - device_v) as u64 * pages)
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
        let page_bytes = self.shape.page_bytes();
        for layer in &mut sequence.layers {
            for _ in 0..missing {
                self.device.take(Owner::K, page_bytes)?;
                layer.k.push(Page::new(self.shape.kv_heads, self.shape.head_dim));
                self.tier(layer.v_place).take(Owner::V, page_bytes)?;
                layer.v.push(Page::new(self.shape.kv_heads, self.shape.head_dim));
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

    /// A copy of a sequence of any lane, with pages of its own in this lane. The running sums are made from the rows.
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
    /// When a sequence of another lane is among `sequences`.
    pub fn set_knobs<'a>(
        &mut self,
        knobs: Knobs,
        sequences: impl Iterator<Item = &'a mut SequenceCache>,
    ) -> Result<(), Full> {
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
                for (sum, value) in sums.iter_mut().zip(page.row(head, position % PAGE_TOKENS)) {
                    *sum += value.to_f32();
                }
            }
        }
    }
}
