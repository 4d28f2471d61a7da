//! Rotary positions: pairs of a head's values are turned by an angle that grows with the position.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::{Pool, finite};

/// Which values of a head form a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeStyle {
    /// Neighbours, `(2i, 2i + 1)`: llama in GGUF.
    Interleaved,
    /// `(i, i + rope_dims / 2)`: NeoX, Qwen.
    Half,
}

/// Positions that are computed together.
const CHUNK: usize = 256;

/// Cosines and sines for every position of a context, computed when a position near it is asked for the first time:
/// what a model promises may be a thousand times what is ever used.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// `[CHUNK][pairs]` of (cosine, sine) each.
    chunks: Vec<OnceLock<Box<[[f32; 2]]>>>,
    /// Angle per position, of each pair.
    frequencies: Vec<f64>,
    context: usize,
}

impl RopeTable {
    /// Angles `position · base^(−2i / rope_dims)`, divided by `factors[i]` where a model brings such factors.
    ///
    /// # Panics
    /// When `rope_dims` is 0 or odd, or there are fewer factors than pairs.
    pub fn new(rope_dims: usize, base: f32, context: usize, factors: Option<&[f32]>) -> Self {
        assert!(rope_dims > 0 && rope_dims.is_multiple_of(2), "{rope_dims} values do not form pairs");
        let pairs = rope_dims / 2;
        assert!(factors.is_none_or(|factors| factors.len() >= pairs), "too few factors for {pairs} pairs");
        let frequencies: Vec<f64> = (0..pairs)
            .map(|pair| {
                let frequency = f64::from(base).powf(-2.0 * pair as f64 / rope_dims as f64);
                frequency / factors.map_or(1.0, |factors| f64::from(factors[pair]))
            })
            .collect();
        Self { chunks: vec![OnceLock::new(); context.div_ceil(CHUNK)], frequencies, context }
    }

    /// Positions the table reaches to.
    pub fn context(&self) -> usize {
        self.context
    }

    /// (cosine, sine) of each pair at a position.
    ///
    /// # Panics
    /// When the position is beyond the table.
    pub fn turns(&self, position: usize) -> &[[f32; 2]] {
        assert!(position < self.context, "position {position} is beyond a context of {}", self.context);
        let chunk = position / CHUNK;
        let turns = self.chunks[chunk].get_or_init(|| self.compute(chunk * CHUNK));
        let pairs = self.frequencies.len();
        &turns[position % CHUNK * pairs..][..pairs]
    }

    fn compute(&self, from: usize) -> Box<[[f32; 2]]> {
        let turn = |position: usize, frequency: f64| {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            [cos as f32, sin as f32]
        };
        (from..from + CHUNK)
            .flat_map(|position| self.frequencies.iter().map(move |&frequency| turn(position, frequency)))
            .collect()
    }
}

/// Rows per task: fewer are not worth a second thread.
const ROWS_PER_TASK: usize = 16;

/// Turns the first `rope_dims` values of each head of `x`, `[rows, heads·head_dim]`, row `r` by `positions[r]`. Returns
/// the rows with a value whose magnitude is beyond `most`, or that is no number: scores would hide it.
///
/// # Panics
/// When the shapes do not fit, or a position is beyond the table.
#[expect(clippy::too_many_arguments, reason = "a kernel's shape is its arguments")]
pub fn rope(
    pool: &Pool,
    x: &mut [f32],
    heads: usize,
    head_dim: usize,
    rope_dims: usize,
    positions: &[usize],
    table: &RopeTable,
    style: RopeStyle,
    most: f32,
) -> Vec<usize> {
    let width = heads * head_dim;
    assert_eq!(x.len(), positions.len() * width, "rows of rope");
    assert!(rope_dims == 2 * table.frequencies.len() && rope_dims <= head_dim, "dimensions of rope");
    let broken = Mutex::new(Vec::new());
    pool.run_chunks(x, ROWS_PER_TASK * width, |task, rows| {
        for (index, row) in (task * ROWS_PER_TASK..).zip(rows.chunks_exact_mut(width)) {
            let position = positions[index];
            let turns = table.turns(position);
            for head in row.chunks_exact_mut(head_dim) {
                match style {
                    RopeStyle::Interleaved => {
                        for (pair, turn) in head.chunks_exact_mut(2).zip(turns) {
                            [pair[0], pair[1]] = turned([pair[0], pair[1]], *turn);
                        }
                    }
                    RopeStyle::Half => {
                        let (first, second) = head[..rope_dims].split_at_mut(rope_dims / 2);
                        for ((a, b), turn) in first.iter_mut().zip(second).zip(turns) {
                            [*a, *b] = turned([*a, *b], *turn);
                        }
                    }
                }
            }
            if finite::largest(row) > most.to_bits() {
                broken.lock().unwrap_or_else(PoisonError::into_inner).push(index);
            }
        }
    });
    let mut broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    broken.sort_unstable();
    broken
}

#[inline]
fn turned([a, b]: [f32; 2], [cos, sin]: [f32; 2]) -> [f32; 2] {
    [a * cos - b * sin, a * sin + b * cos]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_depend_on_distance_alone() {
        let (heads, head_dim, rope_dims) = (2, 8, 6);
        let pool = Pool::new(2);
        let factors = [1.0, 2.0, 4.0];
        for (style, factors) in [(RopeStyle::Interleaved, None), (RopeStyle::Half, Some(&factors[..]))] {
            let table = RopeTable::new(rope_dims, 10_000.0, 600, factors);
            let row: Vec<f32> = (0..heads * head_dim).map(|at| (at as f32).sin()).collect();
            let positions: Vec<usize> = (0..40).map(|at| at * 11).collect();
            let mut x = row.repeat(40);
            let beyond = rope(&pool, &mut x, heads, head_dim, rope_dims, &positions, &table, style, f32::MAX);
            assert_eq!(beyond, [0; 0]);
            let dot = |a: usize, b: usize| -> f32 {
                (0..head_dim).map(|at| x[a * 16 + at] * x[b * 16 + head_dim + at]).sum()
            };
            assert_eq!(x[..16], row[..]);
            assert!((dot(3, 1) - dot(39, 37)).abs() < 1e-4);
            assert!((dot(3, 1) - dot(4, 1)).abs() > 1e-3);
            assert_eq!(x[16 + 6..16 + 8], row[6..8], "values beyond rope_dims stay");
        }
    }

    #[test]
    fn the_pairs_are_those_of_the_style() {
        let table = RopeTable::new(4, 10_000.0, 8, None);
        for (style, pairs) in [(RopeStyle::Interleaved, [[0, 1], [2, 3]]), (RopeStyle::Half, [[0, 2], [1, 3]])] {
            let mut x = [1.0, 2.0, 3.0, 4.0];
            let before = x;
            rope(&Pool::new(1), &mut x, 1, 4, 4, &[5], &table, style, f32::MAX);
            for (pair, angle) in pairs.into_iter().zip([5.0f32, 5.0 / 100.0]) {
                let [a, b] = pair.map(|at| before[at]);
                assert!((x[pair[0]] - (a * angle.cos() - b * angle.sin())).abs() < 1e-5);
                assert!((x[pair[1]] - (a * angle.sin() + b * angle.cos())).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn rows_beyond_the_most_are_named() {
        let (table, positions) = (RopeTable::new(4, 10_000.0, 64, None), Vec::from_iter(0..40));
        for value in [8.0, f32::INFINITY, f32::NAN] {
            let mut x = vec![1.0; 40 * 6];
            for row in [39, 20, 1] {
                // Also beyond the values that are turned.
                x[row * 6 + row % 6] = value;
            }
            let beyond = rope(&Pool::new(2), &mut x, 1, 6, 4, &positions, &table, RopeStyle::Interleaved, 5.0);
            assert_eq!(beyond, [1, 20, 39], "{value}");
        }
    }

    #[test]
    fn the_table_grows_with_what_is_used_and_its_values_stay() {
        // A table of all these positions would take 256 GiB.
        let table = RopeTable::new(64, 10_000.0, 1 << 30, None);
        for position in [0, 255, 256, 70_000, (1 << 30) - 1] {
            for (pair, turn) in table.turns(position).iter().enumerate() {
                let (sin, cos) = (position as f64 * 10_000f64.powf(-2.0 * pair as f64 / 64.0)).sin_cos();
                assert_eq!(*turn, [cos as f32, sin as f32], "{position}, {pair}");
            }
        }
        assert_eq!(table.chunks.iter().filter(|chunk| chunk.get().is_some()).count(), 4);
        assert!(std::ptr::eq(table.turns(300), table.turns(300)), "computed once");
    }

    #[test]
    #[should_panic(expected = "beyond a context of 8")]
    fn a_position_beyond_the_context_is_refused() {
        let table = RopeTable::new(4, 10_000.0, 8, None);
        rope(&Pool::new(1), &mut [0.0; 4], 1, 4, 4, &[8], &table, RopeStyle::Half, f32::MAX);
    }
}
