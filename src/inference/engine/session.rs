//! A session: a conversation as the user sees it, with one sequence in each lane that runs it.

use self::sequence::Sequence;
use super::{Lane, Priority};
use crate::model::Role;

pub(super) struct Session {
    pub name: String,
    /// Whether it is closed once its answers have ended.
    pub once: bool,
    /// Whether its lanes are fed the same tokens, from the next turn on.
    pub compare: bool,
    /// One per lane, in the order of the lanes' turns.
    pub sequences: Vec<Sequence>,
}

impl Session {
    pub fn lanes(&self) -> Vec<Lane> {
        self.sequences.iter().map(|sequence| sequence.lane).collect()
    }

    /// Its system message.
    pub fn system(&self) -> Option<String> {
        let first = self.sequences.first()?.messages.first()?;
        (first.role == Role::System).then(|| first.content.clone())
    }

    pub fn sequence(&self, lane: Lane) -> Option<&Sequence> {
        self.sequences.iter().find(|sequence| sequence.lane == lane)
    }

    pub fn sequence_mut(&mut self, lane: Lane) -> Option<&mut Sequence> {
        self.sequences.iter_mut().find(|sequence| sequence.lane == lane)
    }

    /// Its sequences in the lane under test and in the baseline.
    pub fn pair(&self) -> Option<(&Sequence, &Sequence)> {
        Some((self.sequence(Lane::KCache)?, self.sequence(Lane::Kv)?))
    }

    /// The same, to be changed.
    pub fn pair_mut(&mut self) -> Option<(&mut Sequence, &mut Sequence)> {
        let [a, b] = &mut self.sequences[..] else { return None };
        match a.lane {
            Lane::KCache => Some((a, b)),
            Lane::Kv => Some((b, a)),
        }
    }

    /// Whether both lanes of a pair have their prediction of the next token.
    pub fn both_hold(&self) -> bool {
        self.pair().is_some_and(|(ours, theirs)| ours.holds() && theirs.holds())
    }

    /// Whether a lane is answering or about to.
    pub fn is_answering(&self) -> bool {
        self.sequences.iter().any(|sequence| sequence.answer.is_some())
    }

    /// Whether a lane is answering something that a person typed. What waits for room is not: it may be that of a prompt
    /// which must then go on.
    pub fn answers_what_was_typed(&self) -> bool {
        let running = self.sequences.iter().filter(|sequence| sequence.runs());
        let answers = running.filter_map(|sequence| sequence.answer.as_ref());
        answers.map(|answer| answer.turn.priority).any(|priority| priority == Priority::Typed)
    }

    /// Whether the lanes compute one prompt together, or will.
    pub fn is_shared(&self) -> bool {
        self.sequences.iter().any(|sequence| sequence.answer.as_ref().is_some_and(|answer| answer.shared))
    }

    /// Has every lane compute its own prompt from now on.
    pub fn unshare(&mut self) {
        self.sequences
            .iter_mut()
            .filter_map(|sequence| sequence.answer.as_mut())
            .for_each(|answer| answer.shared = false);
    }

    /// Whether one computation of the next prompt can serve all lanes: nothing was computed yet in any, all have the same
    /// conversation (one of an earlier run may differ), and all store the same. Exact attention reads rows as they are stored, so with other formats the lanes' results differ.
    pub fn can_share(&self) -> bool {
        let [first, others @ ..] = &self.sequences[..] else { return false };
        !others.is_empty()
            && self.sequences.iter().all(|sequence| {
                let same = sequence.cache.formats() == first.cache.formats();
                same && sequence.messages == first.messages && sequence.cache.is_empty() && sequence.pending.is_empty()
            })
    }
}

pub(crate) mod inspect;
pub(crate) mod prefilled;
pub(crate) mod sampler;
pub(crate) mod sequence;
pub(crate) mod stop;
