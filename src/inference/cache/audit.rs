//! The audit of a lane: counts every page that sequences hold once more, and compares with the accounts.

use std::collections::BTreeMap;

use super::{LaneCache, MemoryKind, Page, SequenceCache, Tier, blocks::BlockId};

/// The accounts of a lane do not agree with the pages that its sequences hold. Always a bug.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Unbalanced {
    /// An account of a tier is wrong.
    #[error("the ledger says {reserved} bytes of {kind} on the {tier:?} tier, the sequences hold {held}")]
    Bytes {
        tier: Tier,
        /// What the bytes hold.
        kind: &'static str,
        reserved: u64,
        held: u64,
    },
    /// The count of who holds a block is wrong, or its holders do not hold the same pages.
    #[error("the table says that block {block} is held by {counted} sequences, {held} hold it with the same pages")]
    Holders { block: u32, counted: u32, held: u32 },
}

impl LaneCache {
    /// Counts every page that `sequences` (all of the lane's) hold, each once, and compares them with the accounts of
    /// the memory pools; and who holds what with the table of blocks.
    pub fn check<'a>(&self, sequences: impl Iterator<Item = &'a SequenceCache>) -> Result<(), Unbalanced> {
        let (mut device, mut host) = ([0; 3], [0; 3]);
        let mut seen: BTreeMap<BlockId, (u32, u32, usize, &SequenceCache)> = BTreeMap::new();
        for sequence in sequences {
            let resident = u32::from(sequence.residence == Some(Tier::Device));
            let sums: u64 = sequence.layers.iter().map(|layer| size_of_val(layer.v_sum.as_slice()) as u64).sum();
            match sequence.residence {
                Some(Tier::Device) => {
                    device[1] += sequence.buffer_bytes();
                    device[2] += sums;
                }
                _ => host[2] += sums,
            }
            for (index, &id) in sequence.blocks.iter().enumerate() {
                let (holders, residents, at, first) = seen.entry(id).or_insert((0, 0, index, sequence));
                let mut pages = sequence.layers.iter().zip(&first.layers);
                let same = |a: &[Page], b: &[Page]| match (a.get(index), b.get(*at)) {
                    (Some(a), Some(b)) => a.is(b),
                    // Not written yet, so nobody else has it.
                    _ => index == *at && std::ptr::eq(a, b),
                };
                if pages.all(|(a, b)| same(&a.k, &b.k) && same(&a.v, &b.v)) {
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
                let [k_format, v_format] = sequence.formats();
                let bytes = |page: Option<&Page>, format| match page {
                    Some(page) => page.bytes(),
                    None => self.shape.page_bytes(format),
                };
                let (k, v) = (bytes(layer.k.get(index), k_format), bytes(layer.v.get(index), v_format));
                let v_place = sequence.v_place(at);
                match block.tier {
                    Tier::Device => device[0] += k,
                    Tier::Host => host[0] += k,
                }
                match (block.tier, v_place) {
                    (Tier::Device, Tier::Device) => device[1] += v,
                    (Tier::Device, Tier::Host) if block.promoted => device[1] += v,
                    _ => host[1] += v,
                }
            }
        }
        if self.blocks.held() != seen.len() {
            let (counted, held) = (self.blocks.held() as u32, seen.len() as u32);
            return Err(Unbalanced::Holders { block: u32::MAX, counted, held });
        }
        let kinds = [(MemoryKind::K, "K"), (MemoryKind::V, "V"), (MemoryKind::Tail, "tail")];
        for (pool, counted) in [(&self.device, device), (&self.host, host)] {
            for ((kind, name), held) in kinds.into_iter().zip(counted) {
                let reserved = pool.held(kind);
                if reserved != held {
                    return Err(Unbalanced::Bytes { tier: pool.tier(), kind: name, reserved, held });
                }
            }
        }
        Ok(())
    }
}
