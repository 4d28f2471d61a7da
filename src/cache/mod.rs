//! Where keys and values live: policies, pages, the two tiers, and the ledger that accounts for every byte.

mod page;
mod policy;

pub use page::{PAGE_TOKENS, Page};
pub use policy::{Knobs, Policy, PolicyError, Select, Tail};
