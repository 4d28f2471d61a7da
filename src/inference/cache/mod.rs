//! Where keys and values live: policies, pages, the memory pools of the two tiers, and the account of every byte.

mod audit;
mod blocks;
mod buffer;
mod lane;
mod layer;
mod memory_pool;
mod moves;
mod page;
mod policy;
mod profile;
mod sequence;
mod shape;

pub use audit::Unbalanced;
pub use buffer::{NO_SLOT, RowBuffer};
pub use lane::LaneCache;
pub use memory_pool::{MemoryKind, MemoryPool, OutOfBudget, Tier};
pub(crate) use page::{CachedKeys, CachedRows};
pub use page::{Format, PAGE_TOKENS, Page};
pub use policy::{Knobs, Mass, Policy, PolicyError, Select, Spread, Tail};
pub use profile::{LayerSplit, ModelId, Profile, ProfileError, Split, SplitOf, Table};
pub use sequence::SequenceCache;
pub use shape::CacheShape;
