//! A prompt that was computed before, to be copied into sequences instead of being computed in each.

use std::sync::Arc;

use crate::cache::SequenceCache;

/// A computed prompt. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Prefilled {
    cache: Arc<SequenceCache>,
    tokens: Arc<[u32]>,
}

impl Prefilled {
    /// A cache with the tokens that are in it.
    ///
    /// # Panics
    /// When they are not as many as the cache holds.
    pub fn new(cache: SequenceCache, tokens: &[u32]) -> Self {
        assert_eq!(cache.len(), tokens.len(), "the tokens are those in the cache");
        Self { cache: Arc::new(cache), tokens: tokens.into() }
    }

    /// What was computed.
    pub fn cache(&self) -> &SequenceCache {
        &self.cache
    }

    /// The tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

impl PartialEq for Prefilled {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.cache, &other.cache)
    }
}
