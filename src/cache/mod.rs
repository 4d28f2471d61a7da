//! Where keys and values live: policies, pages, the two tiers, and the account of every byte.

mod lane;
mod page;
mod policy;
mod profile;
mod sequence;
mod tier;

pub use lane::{CacheShape, LaneCache, Unbalanced};
pub use page::{CachedRows, Format, PAGE_TOKENS, Page};
pub use policy::{Knobs, Mass, Policy, PolicyError, Select, Spread, Tail};
pub use profile::{LayerSplit, ModelId, Profile, ProfileError, Split, SplitOf, Table};
pub use sequence::SequenceCache;
pub use tier::{Full, Owner, Place, Tier};
