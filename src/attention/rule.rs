//! Which rows of V a decode step reads.

use crate::cache::{Select, Tail};

/// Which rows of V a decode step reads, and what stands for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// Every row.
    All,
    /// The rows with the largest weights.
    Top {
        /// How many each head reads, at least 1. With as many as there are rows this is [`Rows::All`].
        n: usize,
        /// What stands for the other rows.
        tail: Tail,
        /// Which query heads choose together.
        select: Select,
    },
}

impl Rows {
    /// The rule as it acts on `len` positions: reading at least `len` rows is reading all.
    pub(super) fn over(self, len: usize) -> Self {
        match self {
            Self::Top { n, tail, select } if n < len => Self::Top { n: n.max(1), tail, select },
            _ => Self::All,
        }
    }
}
