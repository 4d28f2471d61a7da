//! Where keys and values live: policies, pages, the two tiers, and the account of every byte.

mod audit;
mod blocks;
mod buffer;
mod lane;
mod memory_pool;
mod moves;
mod page;
mod policy;
mod profile;
mod sequence;

pub use audit::Unbalanced;
pub use buffer::{NO_SLOT, RowBuffer};
pub use lane::{CacheShape, LaneCache};
pub use memory_pool::{MemoryKind, MemoryPool, OutOfBudget, Tier};
pub use page::{CachedKeys, CachedRows, Format, PAGE_TOKENS, Page};
pub use policy::{Knobs, Mass, Policy, PolicyError, Select, Spread, Tail};
pub use profile::{LayerSplit, ModelId, Profile, ProfileError, Split, SplitOf, Table};
pub use sequence::SequenceCache;
