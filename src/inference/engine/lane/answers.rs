//! What becomes of an answer in its lane: tokens that are told, an end, or numbers that are of no use.

use super::LaneState;
use crate::engine::{EventKind, FinishReason, Finished, SessionId, Token, session::sequence::Chosen};

impl LaneState {
    /// Tells a token, and those before it that waited for it, as far as their text is certain.
    pub fn deliver(&mut self, session: SessionId, chosen: Chosen, kept_mass: Option<f32>) {
        if !chosen.visible {
            return;
        }
        self.counts.tokens += 1;
        let Some(sequence) = self.sequences.get_mut(&session) else { return };
        sequence.tell(Token {
            lane: self.lane,
            session,
            step: self.steps,
            index: chosen.index,
            token_id: chosen.token,
            text: chosen.text,
            itl_ms: chosen.itl_ms,
            kept_mass,
        });
        while let Some(token) = sequence.next_told() {
            self.publisher.publish(EventKind::Token(token));
        }
    }

    /// Ends the answer of a session; `once` says that the session ends with it. False where there is no answer.
    pub fn finish(&mut self, session: SessionId, reason: FinishReason, once: bool) -> bool {
        let Some(sequence) = self.sequences.get_mut(&session) else { return false };
        // What waited for a stop sequence that did not come is part of the answer.
        sequence.conclude();
        while let Some(token) = sequence.next_told() {
            self.publisher.publish(EventKind::Token(token));
        }
        let overshot = sequence.overshot();
        let Some(usage) = sequence.finish() else { return false };
        self.cache.trim(&mut sequence.cache);
        self.counts.finished += u64::from(matches!(reason, FinishReason::Stop | FinishReason::Length));
        // Nobody goes on from what is cached: the session ends here, however long the other lane still takes, or the
        // cache holds what the answer does not say. Pages that others share stay theirs.
        if once || overshot {
            self.cache.vacate(&mut sequence.cache);
            sequence.forget();
        }
        let (lane, step) = (self.lane, self.steps);
        self.publisher.publish(EventKind::Finished(Finished { lane, session, step, reason, usage }));
        true
    }

    /// Drops what a sequence has computed: nothing is to be built upon it, nor shared. The next answer computes it again.
    pub fn discard(&mut self, session: SessionId) {
        if let Some(sequence) = self.sequences.get_mut(&session) {
            self.cache.vacate(&mut sequence.cache);
            sequence.cache_lost();
        }
    }
}
