//! Linear layers on the weights of a GGUF file.
//!
//! Q4_1 and Q8_0 are repacked at load and multiplied by our own kernels, in blocks of 8 output features by up to 4
//! rows: one pass over the weights serves all rows, and a row's result depends on nothing but that row. Every other
//! type that candle reads goes through candle's `QMatMul`: as correct, slower, on candle's own threads.

use candle_core::quantized::GgmlDType;
use thiserror::Error;

use super::{
    Activations, Pool,
    activations::{BLOCK, Block},
    fallback, q4_1, q8_0,
    split::Base,
};

/// Output features that a kernel computes together.
pub(super) const LANES: usize = 8;
/// Rows that a kernel takes at most.
pub(super) const ROWS: usize = 4;
/// Weights that one task reads: enough to pay for taking the task, few enough to stay in the first-level cache.
const TASK_BYTES: usize = 12 << 10;
/// Activations that stay in the first-level cache beside them.
const ROW_BYTES: usize = 16 << 10;

/// Why a tensor cannot be the weights of a linear layer.
#[derive(Debug, Error)]
pub enum LinearError {
    /// A type that is not read here.
    #[error("weights of type {0:?} are not supported")]
    Type(GgmlDType),
    /// Rows that do not consist of whole blocks.
    #[error("{in_features} input features are no multiple of {dtype:?}'s block of {block}")]
    Block {
        /// The weights' type.
        dtype: GgmlDType,
        /// Values per row.
        in_features: usize,
        /// Values per block.
        block: usize,
    },
    /// More or fewer bytes than the shape asks for.
    #[error("{dtype:?} weights of [{out_features}, {in_features}] take {expected} bytes, not {bytes}")]
    Length {
        /// The weights' type.
        dtype: GgmlDType,
        /// Rows.
        out_features: usize,
        /// Values per row.
        in_features: usize,
        /// Bytes that the shape asks for.
        expected: usize,
        /// Bytes that were given.
        bytes: usize,
    },
    /// What candle said.
    #[error("candle cannot use these weights")]
    Candle(#[from] candle_core::Error),
}

/// Weights in a layout of our own: 8 output features interleaved.
pub(super) trait Packed: Send + Sync {
    /// Bytes of one group of 8 output features.
    fn group_bytes(&self) -> usize;
    /// Outputs `8·group..8·group + 8` for 1 to [`ROWS`] rows of blocks.
    fn dot(&self, group: usize, rows: &[&[Block]], out: &mut [[f32; LANES]; ROWS]);
    /// The weights of output feature `index`.
    fn row(&self, index: usize, out: &mut [f32]);
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
    /// A layer from the bytes of a GGUF tensor.
    ///
    /// # Errors
    /// A type that neither we nor candle multiply, a row that is not whole blocks, or the wrong number of bytes.
    pub fn from_gguf(
        dtype: GgmlDType,
        bytes: &[u8],
        out_features: usize,
        in_features: usize,
    ) -> Result<Self, LinearError> {
        use GgmlDType::*;
        if matches!(dtype, Q8_1 | Q8K) {
            // Types for activations: candle names them but has no arithmetic for them as weights.
            return Err(LinearError::Type(dtype));
        }
        let block = dtype.block_size();
        if in_features == 0 || !in_features.is_multiple_of(block) {
            return Err(LinearError::Block { dtype, in_features, block });
        }
        let expected = (in_features / block).saturating_mul(dtype.type_size()).saturating_mul(out_features);
        if bytes.len() != expected || out_features == 0 {
            let bytes = bytes.len();
            return Err(LinearError::Length { dtype, out_features, in_features, expected, bytes });
        }
        let (weights, bytes) = match dtype {
            Q4_1 => {
                let packed = q4_1::Weights::new(bytes, out_features, in_features);
                let bytes = out_features.div_ceil(LANES) * packed.group_bytes();
                (Weights::Packed(Box::new(packed)), bytes)
            }
            Q8_0 => {
                let packed = q8_0::Weights::new(bytes, out_features, in_features);
                let bytes = out_features.div_ceil(LANES) * packed.group_bytes();
                (Weights::Packed(Box::new(packed)), bytes)
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

    /// Groups of 8 output features that one task takes.
    fn groups_per_task(&self, packed: &dyn Packed) -> usize {
        (TASK_BYTES / packed.group_bytes()).clamp(1, 64)
    }

    fn tasks(&self) -> usize {
        match &self.weights {
            Weights::Packed(packed) => {
                self.out_features.div_ceil(LANES).div_ceil(self.groups_per_task(packed.as_ref()))
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
                    // SAFETY: y is [rows, out_features] (checked by `run`), and this feature belongs to this task alone.
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
        let groups = first..(first + per_task).min(self.out_features.div_ceil(LANES));
        let row_bytes = self.in_features / BLOCK * size_of::<Block>();
        let row_tile = (ROW_BYTES / row_bytes / ROWS * ROWS).max(ROWS);
        let mut out = [[0f32; LANES]; ROWS];
        for tile in (0..x.rows()).step_by(row_tile) {
            let tile_end = (tile + row_tile).min(x.rows());
            for group in groups.clone() {
                let column = group * LANES;
                let columns = LANES.min(self.out_features - column);
                for row in (tile..tile_end).step_by(ROWS) {
                    let count = ROWS.min(tile_end - row);
                    let mut rows: [&[Block]; ROWS] = [&[]; ROWS];
                    for (at, slot) in rows[..count].iter_mut().enumerate() {
                        *slot = x.blocks(row + at);
                    }
                    packed.dot(group, &rows[..count], &mut out);
                    for (at, out) in out[..count].iter().enumerate() {
                        // SAFETY: y is [rows, out_features] (checked by `run`), and these columns of it belong to
                        // this task alone.
                        let y = unsafe { y.part((row + at) * self.out_features + column, columns) };
                        for (y, out) in y.iter_mut().zip(out) {
                            *y = if add { *y + out } else { *out };
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{
        Device, Module, Tensor,
        quantized::{QMatMul, QStorage, QTensor},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::{activations::HALF, reference};

    fn wave(len: usize, step: f32) -> Vec<f32> {
        (0..len).map(|at| (at as f32 * step).sin() + 0.3 * (at as f32 * 1.7).cos()).collect()
    }

    /// Random-looking weights as a file holds them.
    fn file(dtype: GgmlDType, out_features: usize, in_features: usize) -> Vec<u8> {
        let values =
            Tensor::from_vec(wave(out_features * in_features, 0.731), (out_features, in_features), &Device::Cpu);
        QTensor::quantize(&values.unwrap(), dtype).unwrap().data().unwrap().into_owned()
    }

    fn activations(x: &[f32], width: usize) -> Activations {
        let mut activations = Activations::new();
        activations.fill(&Pool::new(1), x, width);
        activations
    }

    #[test]
    fn exact_activations_are_not_rounded() {
        for (dtype, out_features, in_features) in
            [(GgmlDType::Q4_1, 20, 96), (GgmlDType::Q8_0, 9, 64), (GgmlDType::F16, 7, 33)]
        {
            let bytes = file(dtype, out_features, in_features);
            let layer = Linear::from_gguf(dtype, &bytes, out_features, in_features).unwrap();
            let x = wave(3 * in_features, 0.37);
            let mut input = Activations::new();
            input.set_exact(true);
            input.fill(&Pool::new(2), &x, in_features);
            let mut y = vec![1.0; 3 * out_features];
            layer.forward_add(&Pool::new(2), &input, &mut y);
            let expected: Vec<f32> = reference::linear(&layer, &x).iter().map(|y| y + 1.0).collect();
            assert_close(&y, &expected, 1e-5);
        }
    }

    fn assert_close(fast: &[f32], plain: &[f32], bound: f32) {
        let size = (plain.iter().map(|y| y * y).sum::<f32>() / plain.len() as f32).sqrt();
        for (at, (fast, plain)) in fast.iter().zip(plain).enumerate() {
            assert!((fast - plain).abs() <= bound * size, "value {at}: {fast}, expected {plain}");
        }
    }

    #[test]
    fn every_type_is_the_reference_and_candle() {
        use GgmlDType::*;
        for dtype in [Q4_1, Q8_0, Q4_0, Q5_0, Q5_1, Q6K, Q4K, F16, F32] {
            let (out_features, in_features, rows) = (37, 512, 6);
            let bytes = file(dtype, out_features, in_features);
            let layer = Linear::from_gguf(dtype, &bytes, out_features, in_features).unwrap();
            let x = wave(rows * in_features, 0.11);
            let input = activations(&x, in_features);
            let mut y = vec![f32::NAN; rows * out_features];
            layer.forward(&Pool::new(2), &input, &mut y);
            // The reference does not round activations to 8 bits.
            assert_close(&y, &reference::linear(&layer, &x), 0.03);
            if matches!(dtype, Q4_1 | Q8_0) {
                let rounded: Vec<f32> = (0..rows)
                    .flat_map(|row| {
                        input.blocks(row).iter().flat_map(|block| {
                            block.q.iter().enumerate().map(|(at, &q)| block.d[at / HALF] * f32::from(q))
                        })
                    })
                    .collect();
                assert_close(&y, &reference::linear(&layer, &rounded), 1e-5);
            }
            let storage = QStorage::from_data(bytes.into(), &Device::Cpu, dtype).unwrap();
            let matrix = QMatMul::from_qtensor(QTensor::new(storage, (out_features, in_features)).unwrap()).unwrap();
            let x = Tensor::from_vec(x, (rows, in_features), &Device::Cpu).unwrap();
            let candle = matrix.forward(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_close(&y, &candle, 0.01);
        }
    }

    #[test]
    fn a_row_is_the_weights_of_the_file() {
        use GgmlDType::*;
        for dtype in [Q4_1, Q8_0, Q5_0, Q6K, F16, F32, BF16] {
            let bytes = file(dtype, 11, 256);
            let layer = Linear::from_gguf(dtype, &bytes, 11, 256).unwrap();
            let storage = QStorage::from_data(bytes.into(), &Device::Cpu, dtype).unwrap();
            let tensor = QTensor::new(storage, (11, 256)).unwrap();
            let all = tensor.dequantize(&Device::Cpu).unwrap().to_vec2::<f32>().unwrap();
            for (index, expected) in all.iter().enumerate() {
                let mut row = vec![f32::NAN; 256];
                layer.row(index, &mut row);
                assert_eq!(row, *expected, "{dtype:?} {index}");
            }
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        use GgmlDType::*;
        assert!(matches!(Linear::from_gguf(Q8K, &[], 8, 256), Err(LinearError::Type(Q8K))));
        assert!(matches!(Linear::from_gguf(Q4_1, &[], 8, 40), Err(LinearError::Block { block: 32, .. })));
        assert!(matches!(Linear::from_gguf(Q6K, &[], 8, 576), Err(LinearError::Block { block: 256, .. })));
        assert!(matches!(Linear::from_gguf(Q4_1, &[0; 20], 1, 0), Err(LinearError::Block { .. })));
        assert!(matches!(Linear::from_gguf(F32, &[0; 20], 1, 6), Err(LinearError::Length { expected: 24, .. })));
        assert!(matches!(Linear::from_gguf(F32, &[], 0, 6), Err(LinearError::Length { .. })));
    }

    #[test]
    fn bytes_that_are_not_aligned_are_read_all_the_same() {
        let bytes = file(GgmlDType::F32, 3, 8);
        let shifted = [&[0], &bytes[..]].concat();
        let layer = Linear::from_gguf(GgmlDType::F32, &shifted[1..], 3, 8).unwrap();
        let mut row = [0.0; 8];
        layer.row(2, &mut row);
        assert_eq!(row[..], wave(24, 0.731)[16..]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn a_row_does_not_depend_on_other_rows_threads_or_layers(
            quarter in any::<bool>(), out_features in 1usize..70, blocks in 1usize..20, rows in 1usize..40,
        ) {
            let dtype = if quarter { GgmlDType::Q4_1 } else { GgmlDType::Q8_0 };
            let width = blocks * 32;
            let layer = Linear::from_gguf(dtype, &file(dtype, out_features, width), out_features, width).unwrap();
            let other = Linear::from_gguf(GgmlDType::F32, &file(GgmlDType::F32, 5, width), 5, width).unwrap();
            let x = wave(rows * width, 0.11);
            let (one, many) = (Pool::new(1), Pool::new(3));
            let mut all = vec![f32::NAN; rows * out_features];
            let mut beside = vec![f32::NAN; rows * 5];
            forward_many(&many, &activations(&x, width), &mut [(&other, &mut beside), (&layer, &mut all)]);
            prop_assert!(beside.iter().all(|y| y.is_finite()));
            for row in 0..rows {
                let mut alone = vec![1.0; out_features];
                let input = activations(&x[row * width..][..width], width);
                layer.forward(&one, &input, &mut alone);
                prop_assert_eq!(&alone[..], &all[row * out_features..][..out_features]);
                let mut added = vec![1.0; out_features];
                layer.forward_add(&one, &input, &mut added);
                prop_assert!(added.iter().zip(&alone).all(|(added, y)| *added == 1.0 + y));
            }
        }
    }
}
