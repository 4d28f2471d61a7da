//! Who holds which pages: the lane's table of blocks.
//!
//! A block is the pages of the same 64 tokens in every layer. The lane owns blocks, sequences hold them: several where
//! they begin with the same tokens. A block is reserved once, however many hold it. It stays on the device while
//! a resident sequence holds it, and may move to the host when only swapped-out sequences hold it.

use super::Tier;

/// Names a block of a lane.
pub(super) type BlockId = u32;

/// What the table knows of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Sequences that hold it.
    pub holders: u32,
    /// Those of them that are resident on the device.
    pub residents: u32,
    /// Where it is. On the device its pages lie as the policy says, V of some layers on the host; on the host all do.
    pub tier: Tier,
    /// Whether V of all layers is on the device, for a sequence that reads every row.
    pub promoted: bool,
}

/// The blocks of a lane.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// Those without holders are free to be used again.
    table: Vec<Block>,
    unused: Vec<BlockId>,
    on_device: usize,
    promoted: usize,
}

impl Blocks {
    /// A new block on the device, held by one resident sequence.
    pub fn add(&mut self) -> BlockId {
        let block = Block { holders: 1, residents: 1, tier: Tier::Device, promoted: false };
        self.on_device += 1;
        match self.unused.pop() {
            Some(id) => {
                self.table[id as usize] = block;
                id
            }
            None => {
                self.table.push(block);
                (self.table.len() - 1) as BlockId
            }
        }
    }

    pub fn get(&self, id: BlockId) -> Block {
        self.table[id as usize]
    }

    /// One more resident sequence holds a block that is on the device.
    pub fn share(&mut self, id: BlockId) {
        let block = &mut self.table[id as usize];
        block.holders += 1;
        block.residents += 1;
    }

    /// A sequence that holds a block becomes resident, or ceases to be. Returns the residents that are left.
    pub fn set_resident(&mut self, id: BlockId, resident: bool) -> u32 {
        let block = &mut self.table[id as usize];
        if resident {
            block.residents += 1;
        } else {
            block.residents -= 1;
        }
        block.residents
    }

    /// A sequence releases a block. Returns the block as it is then; without holders it is unused.
    pub fn release(&mut self, id: BlockId, resident: bool) -> Block {
        let block = &mut self.table[id as usize];
        block.holders -= 1;
        block.residents -= u32::from(resident);
        let left = *block;
        if left.holders == 0 {
            self.unused.push(id);
            self.on_device -= usize::from(left.tier == Tier::Device);
            self.promoted -= usize::from(left.promoted);
        }
        left
    }

    /// Notes that a block's V was promoted to the device, or demoted to where the policy has it.
    pub fn set_promoted(&mut self, id: BlockId, promoted: bool) {
        let block = &mut self.table[id as usize];
        self.promoted = self.promoted + usize::from(promoted) - usize::from(block.promoted);
        block.promoted = promoted;
    }

    /// Blocks whose V is on the device in all layers.
    pub fn promoted(&self) -> usize {
        self.promoted
    }

    /// Notes that a block has moved. Where it is now it lies as the policy says.
    pub fn moved(&mut self, id: BlockId, tier: Tier) {
        self.set_promoted(id, false);
        let block = &mut self.table[id as usize];
        match (block.tier, tier) {
            (Tier::Device, Tier::Host) => self.on_device -= 1,
            (Tier::Host, Tier::Device) => self.on_device += 1,
            _ => {}
        }
        block.tier = tier;
    }

    /// Blocks on the device.
    pub fn on_device(&self) -> usize {
        self.on_device
    }

    /// Blocks that somebody holds.
    pub fn held(&self) -> usize {
        self.table.len() - self.unused.len()
    }

    /// Whether there are blocks on the device that only swapped-out sequences hold: the host had no room for them.
    pub fn any_stranded(&self) -> bool {
        self.table.iter().any(|block| block.holders > 0 && block.residents == 0 && block.tier == Tier::Device)
    }
}
