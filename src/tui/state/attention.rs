//! What the attention view knows: the tokens of the session it looks at, what each of the latest ones read, and how much
//! more or fewer rows would hold. And what is chosen on it: a token, a layer, a head.

use std::collections::VecDeque;

use crate::{
    attention::DISTANCE_BUCKETS,
    engine::{Coverage, HeadCoverage, Read, SessionId},
};

/// Tokens whose reads are kept: so far back one can be chosen.
const READS: usize = 256;
/// A position beyond it is none of a context that runs here; a recording may say anything.
const LONGEST: usize = 1 << 20;
/// Coverage events kept; the distances of a head are the sum over them.
const COVERAGES: usize = 16;

/// The state of the attention view.
#[derive(Debug, Clone, Default)]
pub struct AttentionView {
    /// The session that the engine was asked to look at.
    asked: Option<SessionId>,
    /// The session that all of this is about.
    session: Option<SessionId>,
    /// The text of every position.
    pub texts: Vec<String>,
    reads: VecDeque<Read>,
    coverages: VecDeque<Coverage>,
    /// The position of the chosen token; `None` follows the last.
    token: Option<usize>,
    /// The chosen layer and head; `None` for all together.
    pub head: Option<[usize; 2]>,
    /// The first line of the text on show; `None` keeps the chosen token in sight.
    pub top: Option<usize>,
}

impl AttentionView {
    /// Whether anything is known of a session.
    pub fn is_of(&self, session: SessionId) -> bool {
        self.session == Some(session)
    }

    /// Notes which session the engine is to look at; whether that is another one than before.
    pub fn ask(&mut self, wanted: Option<SessionId>) -> bool {
        std::mem::replace(&mut self.asked, wanted) != wanted
    }

    fn about(&mut self, session: SessionId) {
        if !self.is_of(session) {
            *self = Self { asked: self.asked, session: Some(session), head: self.head, ..Self::default() };
        }
    }

    pub fn read(&mut self, read: Read) {
        self.about(read.session);
        if self.reads.len() == READS {
            self.reads.pop_front();
        }
        self.reads.push_back(read);
    }

    /// What other numbers of rows would hold.
    pub fn coverage(&mut self, coverage: Coverage) {
        self.about(coverage.session);
        if self.coverages.len() == COVERAGES {
            self.coverages.pop_front();
        }
        self.coverages.push_back(coverage);
    }

    /// Tokens as text, from a position on.
    pub fn text(&mut self, session: SessionId, from: usize, texts: Vec<String>) {
        self.about(session);
        if from > LONGEST {
            return;
        }
        self.texts.resize(from, String::new());
        self.texts.extend(texts);
    }

    /// What the chosen token read, or the last one.
    pub fn chosen(&self) -> Option<&Read> {
        let chosen = self.token.and_then(|token| self.reads.iter().find(|read| read.len == token));
        chosen.or(self.reads.back())
    }

    /// Whether a token was chosen rather than the last one followed.
    pub fn is_chosen(&self) -> bool {
        self.token.is_some()
    }

    /// The newest coverage that is not of a later token than the chosen one, else the oldest.
    pub fn curves(&self) -> Option<&Coverage> {
        let token = self.chosen().map_or(usize::MAX, |read| read.len);
        self.coverages.iter().rev().find(|coverage| coverage.len <= token).or(self.coverages.front())
    }

    /// One head of the newest coverage.
    pub fn head_of(&self, [layer, head]: [usize; 2]) -> Option<&HeadCoverage> {
        self.curves()?.layers.get(layer)?.get(head)
    }

    /// Where the rows of each head of a layer lay, of all tokens that are known.
    pub fn distances(&self, layer: usize) -> Vec<Vec<u64>> {
        let mut sums: Vec<Vec<u64>> = Vec::new();
        for heads in self.coverages.iter().filter_map(|coverage| coverage.layers.get(layer)) {
            sums.resize(sums.len().max(heads.len()), vec![0; DISTANCE_BUCKETS]);
            for (sums, head) in sums.iter_mut().zip(heads) {
                sums.iter_mut()
                    .zip(&head.distance)
                    .for_each(|(sum, &count)| *sum = sum.saturating_add(u64::from(count)));
            }
        }
        sums
    }

    /// The mean of the curves of all heads that chose, with the rows that they read and the mass that those held.
    pub fn mean(&self) -> Option<(Vec<f64>, f64, f64)> {
        let coverage = self.curves()?;
        let heads: Vec<&HeadCoverage> = coverage.layers.iter().flatten().collect();
        let count = heads.len() as f64;
        let mean = |of: &dyn Fn(&HeadCoverage) -> f64| heads.iter().map(|head| of(head)).sum::<f64>() / count;
        let at = |n: usize| mean(&|head| f64::from(head.curve.get(n).copied().unwrap_or(0.0)));
        (!heads.is_empty()).then(|| {
            let curve = (0..coverage.n.len()).map(at).collect();
            (curve, mean(&|head| head.rows as f64), mean(&|head| f64::from(head.kept)))
        })
    }

    /// Chooses the token before or after; after the last one it is followed again.
    pub fn step_token(&mut self, by: isize) {
        let Some(chosen) = self.chosen().map(|read| read.len) else { return };
        let at = self.reads.iter().position(|read| read.len == chosen).unwrap_or(0);
        let next = at.saturating_add_signed(by).min(self.reads.len() - 1);
        let follows = by > 0 && next + 1 == self.reads.len();
        self.token = (!follows).then(|| self.reads[next].len);
        self.top = None;
    }

    /// Follows the last token again.
    pub fn follow(&mut self) {
        (self.token, self.top) = (None, None);
    }

    /// Chooses another layer and head, of so many.
    pub fn step_head(&mut self, [layers, heads]: [usize; 2], by: [isize; 2]) {
        let step = |at: usize, by: isize, of: usize| (at as isize + by).rem_euclid(of.max(1) as isize) as usize;
        self.head = Some(match self.head {
            // The first layer that chooses at all.
            None => {
                [self.curves().and_then(|each| each.layers.iter().position(|heads| !heads.is_empty())).unwrap_or(0), 0]
            }
            Some([layer, head]) => [step(layer, by[0], layers), step(head, by[1], heads)],
        });
    }
}
