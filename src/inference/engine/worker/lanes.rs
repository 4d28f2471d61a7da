//! The lanes, in the order in which they take turns, and the sequences that a session has in them.

use crate::engine::{Lane, SessionId, lane::LaneState, session::sequence::Sequence};

pub(super) struct Lanes(Vec<LaneState>);

impl Lanes {
    pub fn new(lanes: Vec<LaneState>) -> Self {
        Self(lanes)
    }

    pub fn names(&self) -> Vec<Lane> {
        self.iter().map(|state| state.lane).collect()
    }

    pub fn get(&self, lane: Lane) -> Option<&LaneState> {
        self.iter().find(|state| state.lane == lane)
    }

    pub fn get_mut(&mut self, lane: Lane) -> Option<&mut LaneState> {
        self.iter_mut().find(|state| state.lane == lane)
    }

    pub fn iter(&self) -> impl Iterator<Item = &LaneState> {
        self.0.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut LaneState> {
        self.0.iter_mut()
    }

    pub fn steps(&self, lane: Lane) -> u64 {
        self.get(lane).map_or(0, |state| state.steps)
    }

    /// Whether any lane answers something that a person typed.
    pub fn answer_what_was_typed(&self) -> bool {
        self.iter().any(LaneState::answers_what_was_typed)
    }

    pub fn sequence(&self, id: SessionId, lane: Lane) -> Option<&Sequence> {
        self.get(lane)?.sequences.get(&id)
    }

    /// The sequences of a session.
    pub fn sequences(&self, id: SessionId) -> impl Iterator<Item = (Lane, &Sequence)> {
        self.iter().filter_map(move |state| Some((state.lane, state.sequences.get(&id)?)))
    }

    /// The same, to be changed.
    pub fn sequences_mut(&mut self, id: SessionId) -> impl Iterator<Item = (Lane, &mut Sequence)> {
        self.iter_mut().filter_map(move |state| Some((state.lane, state.sequences.get_mut(&id)?)))
    }

    /// Whether a lane is answering in a session or about to.
    pub fn is_answering(&self, id: SessionId) -> bool {
        self.sequences(id).any(|(_, sequence)| sequence.answer.is_some())
    }

    /// A session's sequences in the lane under test and in the baseline.
    pub fn pair(&self, id: SessionId) -> Option<(&Sequence, &Sequence)> {
        Some((self.sequence(id, Lane::KCache)?, self.sequence(id, Lane::Kv)?))
    }

    /// The same, to be changed.
    pub fn pair_mut(&mut self, id: SessionId) -> Option<(&mut Sequence, &mut Sequence)> {
        let (mut ours, mut theirs) = (None, None);
        for (lane, sequence) in self.sequences_mut(id) {
            match lane {
                Lane::KCache => ours = Some(sequence),
                Lane::Kv => theirs = Some(sequence),
            }
        }
        ours.zip(theirs)
    }
}
