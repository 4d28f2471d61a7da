//! Which rows of V a decode step reads.

use crate::cache::{Policy, Select, Tail};

/// Which rows of V a decode step reads, and what stands for the others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rows<'a> {
    /// Every row.
    All,
    /// The rows with the largest weights.
    Top {
        /// How many. With as many as there are rows this is [`Rows::All`].
        n: Count<'a>,
        /// What stands for the other rows.
        tail: Tail,
        /// Which query heads choose together.
        select: Select,
        /// With [`Tail::Mean`]: how far each query head's tail leans from the mean of all rows, 0, to the mean of the
        /// rows it read, 1. `[heads]`, or empty where no head leans.
        lean: &'a [f32],
    },
}

/// How many rows a query head reads; always at least 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Count<'a> {
    /// The same number for every head.
    Same(usize),
    /// A number for each query head of the layer. Heads that choose together read the largest of theirs.
    Each {
        /// The numbers, `[heads]`.
        rows: &'a [u32],
        /// The policy's number, their mean over all heads of the model.
        mean: usize,
    },
    /// As few as hold this share of the softmax, and no more than `most`. Heads that choose together read as few as
    /// hold it on average.
    Mass {
        /// The share, up to 1.
        share: f32,
        /// The most rows.
        most: usize,
    },
}

impl Rows<'static> {
    /// The rows that a policy reads in a layer.
    pub fn of(policy: Policy, layer: usize) -> Self {
        let Policy::KCache(knobs) = policy else { return Self::All };
        if layer < knobs.dense {
            return Self::All;
        }
        let (n, lean) = match (knobs.split(layer), knobs.p) {
            (Some(split), _) => (Count::Each { rows: split.rows, mean: knobs.n }, split.lean),
            (None, Some(p)) => (Count::Mass { share: p.get(), most: knobs.n }, &[][..]),
            (None, None) => (Count::Same(knobs.n), &[][..]),
        };
        Self::Top { n, tail: knobs.tail, select: knobs.select, lean }
    }
}

impl Rows<'_> {
    /// The rule as it acts on `len` positions. While they are no more than the policy's number of rows every head reads
    /// all of them, so that a short context loses nothing, whatever a profile gives each head and whatever share would
    /// do.
    pub(super) fn over(self, len: usize) -> Self {
        let all = match self {
            Self::All => true,
            Self::Top { n: Count::Same(n), .. } | Self::Top { n: Count::Mass { most: n, .. }, .. } => n >= len,
            Self::Top { n: Count::Each { rows, mean }, .. } => mean >= len || rows.iter().all(|&n| n as usize >= len),
        };
        if all { Self::All } else { self }
    }
}

impl Count<'_> {
    /// The most rows that the `heads` query heads from `first` on read together.
    pub(super) fn most(self, first: usize, heads: usize) -> usize {
        let most = match self {
            Self::Same(n) => n,
            Self::Each { rows, .. } => rows[first..first + heads].iter().copied().max().unwrap_or(1) as usize,
            Self::Mass { most, .. } => most,
        };
        most.max(1)
    }
}
