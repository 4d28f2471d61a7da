//! Linear layers on the weights of a GGUF file.
//!
//! Q4_1 and Q8_0 are repacked when they are loaded and multiplied by our own kernels, in groups of output features by
//! up to 4 rows: one pass over the weights serves all rows, and a row's result depends on that row alone. Every other
//! type that candle reads goes through candle's `QMatMul`, which is as correct, slower, and uses candle's own threads.

use candle_core::quantized::GgmlDType;
use thiserror::Error;

use super::{
    Activations, Pool,
    activations::{BLOCK, Block},
    fallback, finite,
    packed::{Packed, ROWS, WIDE},
    q4_1, q8_0,
    split::Base,
};

/// Weights that one task reads: enough to pay for taking the task, few enough to stay in the first-level cache.
const TASK_BYTES: usize = 12 << 10;
/// Activations that stay in the first-level cache beside them.
const ROW_BYTES: usize = 16 << 10;

/// Why a tensor cannot be the weights of a linear layer.
#[derive(Debug, Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum LinearError {
    /// A type that is not read here.
    #[error("weights of type {0:?} are not supported")]
    Type(GgmlDType),
    /// Rows that do not consist of whole blocks.
    #[error("{in_features} input features are no multiple of {dtype:?}'s block of {block}")]
    Block { dtype: GgmlDType, in_features: usize, block: usize },
    /// Rows that candle's arithmetic, which takes two blocks at a time, panics on.
    #[error("{in_features} input features are an odd number of {dtype:?}'s blocks, which candle multiplies by twos")]
    Odd { dtype: GgmlDType, in_features: usize },
    /// More or fewer bytes than the shape asks for.
    #[error("{dtype:?} weights of [{out_features}, {in_features}] take {expected} bytes, not {bytes}")]
    Length {
        dtype: GgmlDType,
        out_features: usize,
        in_features: usize,
        /// Bytes that the shape asks for.
        expected: usize,
        /// Bytes that were given.
        bytes: usize,
    },
    /// An infinity or NaN.
    #[error("an infinity or NaN is among its weights: the file is damaged, fetch it again")]
    NotFinite,
    /// What candle said.
    #[error("candle cannot use these weights")]
    Candle(#[from] candle_core::Error),
}

enum Weights {
    Packed(Box<dyn Packed>),
    Candle(fallback::Weights),
}

/// A linear layer without bias: weights of `[out_features, in_features]`.
pub struct Linear {
    weights: Weights,
    dtype: GgmlDType,
    out_features: usize,
    in_features: usize,
    bytes: u64,
}

impl Linear {
    /// Whether [`Linear::from_gguf`] would take a tensor of so many bytes.
    ///
    /// # Errors
    /// A type that neither we nor candle multiply, a row that is not whole blocks, or the wrong number of bytes.
    pub fn check(dtype: GgmlDType, bytes: usize, out_features: usize, in_features: usize) -> Result<(), LinearError> {
        if matches!(dtype, GgmlDType::Q8_1 | GgmlDType::Q8K) {
            // Types for activations: candle names them but has no arithmetic for them as weights.
            return Err(LinearError::Type(dtype));
        }
        let block = dtype.block_size();
        if in_features == 0 || !in_features.is_multiple_of(block) {
            return Err(LinearError::Block { dtype, in_features, block });
        }
        if matches!(dtype, GgmlDType::Q5_0 | GgmlDType::Q5_1) && !(in_features / block).is_multiple_of(2) {
            return Err(LinearError::Odd { dtype, in_features });
        }
        let expected = (in_features / block).saturating_mul(dtype.type_size()).saturating_mul(out_features);
        if bytes != expected || out_features == 0 {
            return Err(LinearError::Length { dtype, out_features, in_features, expected, bytes });
        }
        Ok(())
    }

    /// Whether all weights are numbers.
    ///
    /// # Errors
    /// An infinity or NaN among them.
    pub fn check_values(dtype: GgmlDType, bytes: &[u8]) -> Result<(), LinearError> {
        if finite::is_broken(dtype, bytes) { Err(LinearError::NotFinite) } else { Ok(()) }
    }

    /// A layer from the bytes of a GGUF tensor.
    ///
    /// # Errors
    /// What [`Linear::check`] and [`Linear::check_values`] refuse, and what candle cannot use.
    pub fn from_gguf(
        dtype: GgmlDType,
        bytes: &[u8],
        out_features: usize,
        in_features: usize,
    ) -> Result<Self, LinearError> {
        use GgmlDType::*;
        Self::check(dtype, bytes.len(), out_features, in_features)?;
        // Packing reads the same bytes next, and finds them in the cache.
        Self::check_values(dtype, bytes)?;
        let (weights, bytes) = match dtype {
            Q4_1 | Q8_0 => {
                let pack = if dtype == Q4_1 { q4_1::weights } else { q8_0::weights };
                let packed = pack(bytes, [out_features, in_features]);
                let bytes = out_features.div_ceil(packed.lanes()) * packed.group_bytes();
                (Weights::Packed(packed), bytes)
            }
            _ => {
                let weights = fallback::Weights::new(dtype, bytes, out_features, in_features)?;
                let bytes = weights.bytes();
                (Weights::Candle(weights), bytes)
            }
        };
        Ok(Self { weights, dtype, out_features, in_features, bytes: bytes as u64 })
    }

    /// Values in, per row.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Values out, per row.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Bytes of memory that the weights take.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The type of the weights in the file.
    pub fn dtype(&self) -> GgmlDType {
        self.dtype
    }

    /// `y = x·Wᵀ`, `y` being `[rows, out_features]`.
    ///
    /// # Panics
    /// When the shapes of `x` and `y` are not those of the layer.
    pub fn forward(&self, pool: &Pool, x: &Activations, y: &mut [f32]) {
        run(pool, x, &mut [(self, y)], false);
    }

    /// `y += x·Wᵀ`, `y` being `[rows, out_features]`: the layer and its residual connection.
    ///
    /// # Panics
    /// When the shapes of `x` and `y` are not those of the layer.
    pub fn forward_add(&self, pool: &Pool, x: &Activations, y: &mut [f32]) {
        run(pool, x, &mut [(self, y)], true);
    }

    /// The weights of output feature `index` as floats, `[in_features]`: a token's embedding, where the layer is the
    /// embedding.
    ///
    /// # Panics
    /// When there is no such row or `out` has another length.
    pub fn row(&self, index: usize, out: &mut [f32]) {
        assert!(index < self.out_features && out.len() == self.in_features, "row {index} of a linear layer");
        match &self.weights {
            Weights::Packed(packed) => packed.row(index, out),
            Weights::Candle(weights) => out.copy_from_slice(&weights.row(index)),
        }
    }

    /// Groups of output features that one task takes.
    fn groups_per_task(&self, packed: &dyn Packed) -> usize {
        (TASK_BYTES / packed.group_bytes()).clamp(1, 64)
    }

    fn tasks(&self) -> usize {
        match &self.weights {
            Weights::Packed(packed) => {
                self.out_features.div_ceil(packed.lanes()).div_ceil(self.groups_per_task(packed.as_ref()))
            }
            Weights::Candle(_) => 0,
        }
    }
}

/// Several layers on the same input as one parallel region: `y = x·Wᵀ` for each.
///
/// # Panics
/// When the shapes of `x` and of a `y` are not those of its layer.
pub fn forward_many(pool: &Pool, x: &Activations, jobs: &mut [(&Linear, &mut [f32])]) {
    run(pool, x, jobs, false);
}

/// The sum of products in eight lanes, which a compiler turns into vectors.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut lanes = [0f32; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    rest + lanes.iter().sum::<f32>()
}

fn run(pool: &Pool, x: &Activations, jobs: &mut [(&Linear, &mut [f32])], add: bool) {
    for (layer, y) in jobs.iter() {
        assert_eq!(x.width(), layer.in_features, "width of a linear layer's input");
        assert_eq!(y.len(), x.rows() * layer.out_features, "length of a linear layer's output");
    }
    if x.is_exact() {
        return jobs.iter_mut().for_each(|(layer, y)| layer.run_exact(pool, x, y, add));
    }
    let tasks = jobs.iter().map(|(layer, _)| layer.tasks()).sum();
    let parts: Vec<(&Linear, Base<f32>)> = jobs.iter_mut().map(|(layer, y)| (*layer, Base::new(y))).collect();
    pool.run(tasks, &|mut index| {
        for (layer, y) in &parts {
            let tasks = layer.tasks();
            if let (Weights::Packed(packed), true) = (&layer.weights, index < tasks) {
                return layer.run_groups(packed.as_ref(), index, x, y, add);
            }
            index -= tasks;
        }
    });
    for (layer, y) in jobs {
        if let Weights::Candle(weights) = &layer.weights {
            for (y, product) in y.iter_mut().zip(weights.product(x.values())) {
                *y = if add { *y + product } else { product };
            }
        }
    }
}

impl Linear {
    /// The layer on activations that are not rounded: weights as floats, sums in f32.
    fn run_exact(&self, pool: &Pool, x: &Activations, y: &mut [f32], add: bool) {
        const FEATURES: usize = 16;
        let y = Base::new(y);
        pool.run(self.out_features.div_ceil(FEATURES), &|task| {
            let mut weights = vec![0.0; self.in_features];
            for feature in task * FEATURES..((task + 1) * FEATURES).min(self.out_features) {
                self.row(feature, &mut weights);
                for (row, x) in x.values().chunks_exact(self.in_features).enumerate() {
                    let sum = dot(&weights, x);
                    // SAFETY: y is [rows, out_features] (checked by `run`), and this feature belongs to this task
                    // alone.
                    let y = unsafe { y.part(row * self.out_features + feature, 1) };
                    y[0] = if add { y[0] + sum } else { sum };
                }
            }
        });
    }

    /// Task `task` of this layer: a few groups of output features for every row.
    fn run_groups(&self, packed: &dyn Packed, task: usize, x: &Activations, y: &Base<f32>, add: bool) {
        let per_task = self.groups_per_task(packed);
        let first = task * per_task;
        let groups = first..(first + per_task).min(self.out_features.div_ceil(packed.lanes()));
        let row_bytes = self.in_features / BLOCK * size_of::<Block>();
        let row_tile = (ROW_BYTES / row_bytes / ROWS * ROWS).max(ROWS);
        let mut out = [[0f32; WIDE]; ROWS];
        for tile in (0..x.rows()).step_by(row_tile) {
            let tile_end = (tile + row_tile).min(x.rows());
            for group in groups.clone() {
                let column = group * packed.lanes();
                let columns = packed.lanes().min(self.out_features - column);
                let calls = tile / ROWS..tile_end.div_ceil(ROWS);
                let mut row = tile;
                for call in calls.clone() {
                    // Evenly: three and two rows take less time than four and one.
                    let count = (tile_end - row).div_ceil(calls.end - call);
                    let mut rows: [&[Block]; ROWS] = [&[]; ROWS];
                    for (at, slot) in rows[..count].iter_mut().enumerate() {
                        *slot = x.blocks(row + at);
                    }
                    packed.dot(group, &rows[..count], [call, x.rows().div_ceil(ROWS)], &mut out);
                    for (at, out) in out[..count].iter().enumerate() {
                        // SAFETY: y is [rows, out_features] (checked by `run`), and these columns of it belong to
                        // this task alone.
                        let y = unsafe { y.part((row + at) * self.out_features + column, columns) };
                        for (y, out) in y.iter_mut().zip(out) {
                            *y = if add { *y + out } else { *out };
                        }
                    }
                    row += count;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
