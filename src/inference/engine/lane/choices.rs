//! The tokens that a step, or the two lanes of a compared session, chose.

use crate::{
    engine::{
        Lane, SessionId,
        session::sequence::{Chosen, Sequence},
    },
    model::LanguageModel,
};

/// What was chosen in which lane, and what could not be. The worker tells it and ends the answers that are complete.
#[derive(Default)]
pub(crate) struct Choices {
    pub made: Vec<Choice>,
    pub failures: Vec<Failure>,
}

pub(crate) struct Choice {
    pub session: SessionId,
    pub lane: Lane,
    pub chosen: Chosen,
    pub kept_mass: Option<f32>,
}

/// An answer that cannot go on.
pub(crate) struct Failure {
    pub session: SessionId,
    pub lane: Lane,
    pub message: String,
}

impl Choices {
    /// Chooses the next token of a sequence, unless it is locked to the other lane's: then it keeps the logits.
    pub fn choose(
        &mut self,
        model: &LanguageModel,
        (session, lane): (SessionId, Lane),
        sequence: &mut Sequence,
        (logits, kept_mass): (&[f32], Option<f32>),
    ) {
        if sequence.hold(logits, kept_mass) {
            return;
        }
        match sequence.choose(logits, model) {
            Ok(chosen) => self.made.extend(chosen.map(|chosen| Choice { session, lane, chosen, kept_mass })),
            Err(error) => self.fail(
                (session, lane),
                format!(
                    "no next token can be chosen ({error}): the model file is damaged, fetch it again or take another"
                ),
            ),
        }
    }

    pub fn fail(&mut self, (session, lane): (SessionId, Lane), message: String) {
        self.failures.push(Failure { session, lane, message });
    }
}
