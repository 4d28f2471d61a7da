//! Where keys and values live: policies, pages, the two tiers, and the account of every byte.

mod blocks;
mod lane;
mod page;
mod policy;
mod sequence;
mod tier;

pub use lane::{CacheShape, LaneCache, Unbalanced};
pub use page::{CachedRows, Format, PAGE_TOKENS, Page};
pub use policy::{Knobs, Policy, PolicyError, Select, Tail};
pub use sequence::SequenceCache;
pub use tier::{Full, Owner, Place, Tier};
