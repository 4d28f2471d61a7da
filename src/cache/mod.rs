//! Where keys and values live: policies, pages, the two tiers, and the account of every byte.

mod audit;
mod blocks;
mod lane;
mod moves;
mod page;
mod policy;
mod profile;
mod sequence;
mod tier;

pub use audit::Unbalanced;
pub use lane::{CacheShape, LaneCache};
pub use page::{CachedKeys, CachedRows, Format, PAGE_TOKENS, Page};
pub use policy::{Knobs, Mass, Policy, PolicyError, Select, Spread, Tail};
pub use profile::{LayerSplit, ModelId, Profile, ProfileError, Split, SplitOf, Table};
pub use sequence::SequenceCache;
pub use tier::{Full, Owner, Place, Tier};
