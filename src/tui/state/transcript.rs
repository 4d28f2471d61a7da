//! What was said in a session: the user's turns, each with one answer per lane, and where the two part.

use crate::engine::{Compare, FinishReason, Lane, Probe, Token, Usage};

use super::comparison::Comparison;

/// One user message and its answers.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    pub text: String,
    /// The document the message is about.
    pub document: Option<String>,
    /// That document's text, where it was sent from here.
    pub source: Option<String>,
    /// Whether it was said in an earlier run.
    pub earlier: bool,
    /// Prompt tokens of the turn, once the engine has counted them.
    pub prompt_tokens: Option<usize>,
    /// The answers, in the order of [`Lane::ALL`].
    pub answers: [Answer; 2],
    /// How far the two answers say the same where each lane goes its own way.
    pub together: Together,
    /// What was found where both lanes are fed the same tokens.
    pub comparison: Option<Comparison>,
    /// Why there is no answer, or no whole one, in the order of [`Lane::ALL`].
    pub errors: [Option<String>; 2],
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    pub text: String,
    pub tokens: Vec<TokenMark>,
    pub end: Option<(FinishReason, Usage)>,
    /// Sum of the kept mass over the tokens that have one.
    kept_sum: f64,
    kept_count: usize,
    /// Sum of the KL over its probes.
    kl_sum: f64,
    kl_count: usize,
}

/// One token of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenMark {
    pub id: u32,
    /// Where its text begins in the answer, in bytes.
    pub start: usize,
}

/// How far two answers say the same, of tokens that each lane has chosen by itself.
///
/// There is no share in it: after the first different token, which a near-tie is enough for, the lanes answer different
/// texts, and how many tokens happen to be the same after it says nothing about either. Tokens that both lanes were given
/// are not in it; what was found of them is the [`Comparison`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Together {
    /// Tokens that both lanes have.
    pub both: usize,
    /// The first place where they differ; the end of one answer differs from a token in the other.
    pub parted: Option<usize>,
}

impl Turn {
    /// A message without answers yet.
    pub fn new(text: String, document: Option<String>) -> Self {
        Self {
            text,
            document,
            source: None,
            earlier: false,
            prompt_tokens: None,
            answers: [Answer::default(), Answer::default()],
            together: Together::default(),
            comparison: None,
            errors: [None, None],
        }
    }

    /// The answer of a lane.
    pub fn answer(&self, lane: Lane) -> &Answer {
        &self.answers[lane as usize]
    }

    /// Adds a token to its lane's answer and compares it with the other lane's.
    pub fn token(&mut self, token: &Token) {
        let answer = &mut self.answers[token.lane as usize];
        // Tokens are lossless and come in order; a repeated one (a replay) is not counted twice.
        if token.index != answer.tokens.len() {
            return;
        }
        answer.tokens.push(TokenMark { id: token.token_id, start: answer.text.len() });
        answer.text.push_str(&token.text);
        if let Some(kept) = token.kept_mass {
            answer.kept_sum += f64::from(kept);
            answer.kept_count += 1;
        }
        self.compare(token.index);
        self.compare_ends();
    }

    /// The predictions of a token were compared.
    pub fn compared(&mut self, compare: &Compare) {
        self.comparison.get_or_insert_default().add(compare);
    }

    /// Whether both lanes were given token `index`.
    fn given(&self, index: usize) -> bool {
        self.comparison.as_ref().is_some_and(|comparison| comparison.covers(index))
    }

    /// A token of a lane's answer was probed.
    pub fn probe(&mut self, probe: &Probe) {
        let answer = &mut self.answers[probe.lane as usize];
        answer.kl_sum += probe.kl;
        answer.kl_count += 1;
    }

    pub fn finish(&mut self, lane: Lane, reason: FinishReason, usage: Usage) {
        self.answers[lane as usize].end = Some((reason, usage));
        self.compare_ends();
    }

    /// Whether `lane` still has to answer or is answering.
    pub fn open(&self, lane: Lane) -> bool {
        self.answer(lane).end.is_none()
    }

    fn compare(&mut self, index: usize) {
        if self.given(index) {
            return;
        }
        let [a, b] = &self.answers;
        if let (Some(a), Some(b)) = (a.tokens.get(index), b.tokens.get(index)) {
            self.together.both += 1;
            if a.id != b.id {
                self.together.parted.get_or_insert(index);
            }
        }
    }

    /// One lane's own end where the other goes on is a difference too; only the model's end is, not a stop from outside.
    fn compare_ends(&mut self) {
        let [a, b] = &self.answers;
        for (ended, other) in [(a, b), (b, a)] {
            let at = ended.tokens.len();
            if matches!(ended.end, Some((FinishReason::Stop, _))) && other.tokens.len() > at {
                self.together.parted.get_or_insert(at);
            }
        }
    }
}

impl Answer {
    /// The mean kept mass of its tokens, in 0..=1.
    pub fn kept_mass(&self) -> Option<f64> {
        (self.kept_count > 0).then(|| self.kept_sum / self.kept_count as f64)
    }

    /// The mean KL to exact attention of the tokens that were probed, in nats.
    pub fn kl(&self) -> Option<f64> {
        (self.kl_count > 0).then(|| self.kl_sum / self.kl_count as f64)
    }

    /// The bytes of the text that token `index` added.
    pub fn token_range(&self, index: usize) -> Option<std::ops::Range<usize>> {
        let start = self.tokens.get(index)?.start;
        let end = self.tokens.get(index + 1).map_or(self.text.len(), |next| next.start);
        Some(start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::SessionId;

    fn token(lane: Lane, index: usize, token_id: u32) -> Token {
        Token {
            lane,
            session: SessionId(1),
            step: index as u64 + 1,
            index,
            token_id,
            text: format!(" w{token_id}"),
            itl_ms: None,
            kept_mass: (lane == Lane::KCache).then_some(0.5),
        }
    }

    fn turn(kcache: &[u32], kv: &[u32]) -> Turn {
        let mut turn = Turn::new("hi".into(), None);
        for (lane, ids) in [(Lane::KCache, kcache), (Lane::Kv, kv)] {
            ids.iter().enumerate().for_each(|(index, &id)| turn.token(&token(lane, index, id)));
        }
        turn
    }

    #[test]
    fn the_first_difference_is_kept() {
        let turn = turn(&[1, 2, 9, 4, 8], &[1, 2, 3, 4]);
        assert_eq!(turn.together, Together { both: 4, parted: Some(2) });
        assert_eq!(&turn.answer(Lane::KCache).text[turn.answer(Lane::KCache).token_range(2).unwrap()], " w9");
        assert_eq!(turn.answer(Lane::KCache).kept_mass(), Some(0.5));
        assert_eq!(turn.answer(Lane::Kv).kept_mass(), None);
    }

    #[test]
    fn an_earlier_end_is_a_difference_and_a_stop_is_none() {
        let mut ended = turn(&[1, 2], &[1, 2, 3]);
        assert_eq!(ended.together.parted, None);
        ended.finish(Lane::KCache, FinishReason::Stop, Usage::default());
        assert_eq!(ended.together.parted, Some(2));

        let mut stopped = turn(&[1, 2], &[1, 2, 3]);
        stopped.finish(Lane::KCache, FinishReason::Cancelled, Usage::default());
        assert_eq!(stopped.together.parted, None);
    }

    #[test]
    fn tokens_that_were_given_are_not_counted_with_those_that_were_chosen() {
        let mut turn = Turn::new("hi".into(), None);
        let compare = |index, same| Compare {
            session: SessionId(1),
            step: 1,
            index,
            token_id: 1,
            kl: 0.1,
            same,
            otherwise: None,
        };
        for index in 0..3 {
            turn.compared(&compare(index, index > 0));
            Lane::ALL.iter().for_each(|&lane| turn.token(&token(lane, index, 1)));
        }
        turn.comparison.as_mut().unwrap().unlocked = Some((3, "kv has ended".into()));
        for (index, ours) in [(3, 1), (4, 2)] {
            turn.token(&token(Lane::KCache, index, ours));
            turn.token(&token(Lane::Kv, index, 1));
        }
        assert_eq!(turn.together, Together { both: 2, parted: Some(4) });
        let comparison = turn.comparison.unwrap();
        assert_eq!((comparison.same, comparison.kl.len(), comparison.share()), (2, 3, Some(2.0 / 3.0)));
    }

    #[test]
    fn a_repeated_token_counts_once() {
        let mut turn = turn(&[1, 2], &[1]);
        turn.token(&token(Lane::KCache, 1, 2));
        assert_eq!(turn.answer(Lane::KCache).tokens.len(), 2);
    }
}
