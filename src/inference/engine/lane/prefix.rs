//! Sharing prefixes: a sequence that begins with the same tokens as another holds the pages of that one instead of
//! computing its own.

use super::LaneState;
use crate::{
    cache::PAGE_TOKENS,
    engine::{SessionId, session::sequence::Sequence},
};

/// A session whose first so many tokens are those of another one, and computed already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PrefixSource {
    pub session: SessionId,
    pub tokens: usize,
}

impl LaneState {
    /// Another session of the lane that begins with the same tokens, and how many whole pages of them it has computed
    /// by exact attention; at least one page more than the sequence has itself.
    pub fn prefix_source(&self, id: SessionId) -> Option<PrefixSource> {
        let sequence = self.sequences.get(&id)?;
        let own = sequence.cache.len();
        let copies = sequence.prefilled().is_some();
        if !self.share_prefixes || copies || own != sequence.exact || !own.is_multiple_of(PAGE_TOKENS) {
            return None;
        }
        // The last token is computed in any case: its logits are wanted.
        let most = sequence.known().saturating_sub(1) / PAGE_TOKENS;
        let mut best: Option<PrefixSource> = None;
        for (&session, source) in self.sequences.iter().filter(|(other, _)| **other != id) {
            let most = most.min(source.exact / PAGE_TOKENS);
            let least = best.map_or(own, |best| best.tokens) / PAGE_TOKENS;
            if most <= least || source.tokens[..own] != sequence.tokens[..own] {
                continue;
            }
            let mine = sequence.pending.chunks_exact(PAGE_TOKENS);
            let same = source.tokens[own..].chunks_exact(PAGE_TOKENS).zip(mine).take_while(|(a, b)| a == b).count();
            let shared = (own / PAGE_TOKENS + same).min(most);
            if shared > least {
                best = Some(PrefixSource { session, tokens: shared * PAGE_TOKENS });
            }
        }
        best
    }

    /// The sequence of a prefix source, unless its pages have been evicted since.
    pub(super) fn still(&self, source: Option<PrefixSource>) -> Option<(PrefixSource, &Sequence)> {
        let source = source?;
        let sequence = self.sequences.get(&source.session).filter(|sequence| sequence.exact >= source.tokens)?;
        Some((source, sequence))
    }

    /// Has the next tokens of a running sequence taken from another one that has computed them, where there is one.
    pub(super) fn share_next_prefix(&mut self, id: SessionId) {
        if let Some(source) = self.prefix_source(id) {
            self.share_prefix_within(id, source);
        }
    }

    /// Has a running sequence begin with the tokens of `source`. It drops at least as many pages, not yet written, as it
    /// gets, so there is room.
    pub fn share_prefix_within(&mut self, id: SessionId, source: PrefixSource) {
        let capacity = self.sequences.get(&id).map_or(0, |sequence| sequence.cache.capacity());
        self.share_prefix(id, source, capacity);
    }

    /// Has a sequence begin with the tokens of `source`, with pages for `total` tokens, for which there is room.
    pub(super) fn share_prefix(&mut self, id: SessionId, source: PrefixSource, total: usize) {
        // Two of the lane's sequences at once: this one is taken out for the while.
        let Some(mut sequence) = self.sequences.remove(&id) else { return };
        let before = sequence.cache.len();
        if let Some(holder) = self.sequences.get(&source.session) {
            let tokens = total.saturating_sub(source.tokens);
            let shared = self.cache.share_prefix(&mut sequence.cache, &holder.cache, source.tokens, tokens);
            shared.expect("room was made for it");
        }
        let shared = sequence.cache.len() - before;
        sequence.prefix_shared(shared);
        self.counts.prefix_hit_tokens += shared as u64;
        self.sequences.insert(id, sequence);
    }
}
