//! Looking at one session in one lane: what each of its tokens read, and now and then what more or fewer rows would have
//! held. Only while somebody asks, for one sequence at a time, and in bounded events.

use super::sequence::Sequence;
use crate::engine::{Coverage, EventKind, HeadCoverage, Lane, Read, SessionId};
use crate::{
    attention::{DISTANCE_BUCKETS, Reads, curve_counts},
    model::{Detokenizer, LanguageModel},
};

/// Positions that a `read` event lists at most.
pub const READ_POSITIONS: usize = 512;

/// Every so many tokens a coverage curve is computed: one takes a pass over the softmax of every head.
pub const COVERAGE_EVERY: u64 = 32;

/// Tokens whose text goes into one event.
const TEXTS: usize = 1024;

/// What is looked at.
pub(crate) struct Inspection {
    session: SessionId,
    lane: Lane,
    /// Tokens since the last coverage curve.
    tokens: u64,
    /// Rows by distance since then, `[layers][heads]`.
    distance: Vec<Vec<[u32; DISTANCE_BUCKETS]>>,
    /// The tokens whose text was told, and the text that is not complete.
    told: Vec<u32>,
    decoder: Detokenizer,
}

impl Inspection {
    pub fn of(session: SessionId, lane: Lane) -> Self {
        let (told, decoder) = (Vec::new(), Detokenizer::default());
        Self { session, lane, tokens: 0, distance: Vec::new(), told, decoder }
    }

    /// Whether this sequence is looked at.
    pub fn is_of(&self, session: SessionId, lane: Lane) -> bool {
        (self.session, self.lane) == (session, lane)
    }

    /// What is to be noted of the next step, in which the sequence is policy row `row`.
    pub fn ask(&self, row: usize) -> Reads {
        Reads::of(row, self.tokens.is_multiple_of(COVERAGE_EVERY))
    }

    /// The events about the token that was read for: the `index`th of its answer, in this step of the lane.
    pub fn tell(&mut self, reads: &Reads, index: usize, step: u64) -> Vec<EventKind> {
        let (session, lane) = (self.session, self.lane);
        self.tokens += 1;
        self.distance.resize(reads.layers.len(), Vec::new());
        for (sums, heads) in self.distance.iter_mut().zip(&reads.layers) {
            sums.resize(heads.len().max(sums.len()), [0; DISTANCE_BUCKETS]);
            for (sums, head) in sums.iter_mut().zip(heads) {
                sums.iter_mut().zip(head.distance).for_each(|(sum, count)| *sum += count);
            }
        }
        let mut positions: Vec<(u32, u16)> = (0..).zip(reads.heads.iter().copied()).filter(|read| read.1 > 0).collect();
        let read = positions.len();
        if read > READ_POSITIONS {
            positions.select_nth_unstable_by_key(READ_POSITIONS, |read| std::cmp::Reverse(read.1));
            positions.truncate(READ_POSITIONS);
            positions.sort_unstable();
        }
        let heads = reads.layers.iter().map(Vec::len).sum();
        let mut events =
            vec![EventKind::Read(Read { session, lane, step, index, len: reads.len, heads, read, positions })];
        if reads.layers.iter().flatten().any(|head| !head.curve.is_empty()) {
            events.push(EventKind::Coverage(Coverage {
                session,
                lane,
                step,
                index,
                len: reads.len,
                n: curve_counts(reads.len),
                layers: self.coverage(reads),
            }));
            self.distance.clear();
        }
        events
    }

    fn coverage(&self, reads: &Reads) -> Vec<Vec<HeadCoverage>> {
        // Four decimals are more than anybody sees, and the event is a third of the size.
        let rounded = |share: f32| (share * 1e4).round() / 1e4;
        let layer = |(heads, distances): (&Vec<crate::attention::HeadReads>, &Vec<[u32; DISTANCE_BUCKETS]>)| {
            let head = heads.iter().zip(distances).map(|(head, distance)| HeadCoverage {
                rows: head.rows,
                kept: rounded(head.kept),
                curve: head.curve.iter().copied().map(rounded).collect(),
                distance: distance.to_vec(),
            });
            head.collect()
        };
        reads.layers.iter().zip(&self.distance).map(layer).collect()
    }

    /// The texts of the sequence's tokens that were not told yet; all of them again where it holds others now.
    pub fn texts(&mut self, model: &LanguageModel, sequence: &Sequence) -> Vec<EventKind> {
        let known: Vec<u32> = sequence.known_tokens().collect();
        if !known.starts_with(&self.told) {
            self.told.clear();
            self.decoder = Detokenizer::default();
        }
        let mut events = Vec::new();
        while self.told.len() < known.len() {
            let from = self.told.len();
            let tokens = &known[from..known.len().min(from + TEXTS)];
            let texts = tokens.iter().map(|&token| self.decoder.push(&model.tokenizer, token)).collect();
            self.told.extend_from_slice(tokens);
            events.push(EventKind::Text { session: self.session, lane: self.lane, from, texts });
        }
        events
    }
}
