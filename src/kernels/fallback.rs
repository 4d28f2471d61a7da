//! Linear layers that candle multiplies: every type of weights but those that have kernels here.

use std::{borrow::Cow, sync::Arc};

use candle_core::{
    DType, Device, Module, Result, Tensor,
    quantized::{GgmlDType, QMatMul, QStorage, QTensor},
};

/// Weights held by candle.
pub(super) struct Weights {
    matrix: QMatMul,
    in_features: usize,
}

impl Weights {
    /// Takes the bytes of a GGUF tensor, and tries each use of them once, so that none can fail later.
    pub(super) fn new(dtype: GgmlDType, bytes: &[u8], out_features: usize, in_features: usize) -> Result<Self> {
        let tensor = QTensor::new(storage(dtype, bytes)?, (out_features, in_features))?;
        let weights = Self { matrix: QMatMul::from_qtensor(tensor)?, in_features };
        weights.try_product(&vec![0.0; in_features])?;
        weights.try_row(0)?;
        Ok(weights)
    }

    /// Bytes of memory; candle converts float types to 32 bits.
    pub(super) fn bytes(&self) -> usize {
        match &self.matrix {
            QMatMul::QTensor(tensor) => tensor.storage_size_in_bytes(),
            QMatMul::Tensor(tensor) | QMatMul::TensorF16(tensor) => {
                tensor.elem_count() * tensor.dtype().size_in_bytes()
            }
        }
    }

    /// `x·Wᵀ` for whole rows `x`.
    pub(super) fn product(&self, x: &[f32]) -> Vec<f32> {
        self.try_product(x).expect("tried when the layer was made")
    }

    /// The weights of output feature `index`.
    pub(super) fn row(&self, index: usize) -> Vec<f32> {
        self.try_row(index).expect("tried when the layer was made")
    }

    fn try_product(&self, x: &[f32]) -> Result<Vec<f32>> {
        let x = Tensor::from_slice(x, (x.len() / self.in_features, self.in_features), &Device::Cpu)?;
        self.matrix.forward(&x)?.flatten_all()?.to_vec1()
    }

    fn try_row(&self, index: usize) -> Result<Vec<f32>> {
        match &self.matrix {
            QMatMul::QTensor(tensor) => quantised_row(tensor, index, self.in_features),
            QMatMul::Tensor(tensor) | QMatMul::TensorF16(tensor) => tensor.get(index)?.to_dtype(DType::F32)?.to_vec1(),
        }
    }
}

/// candle's storage of these bytes. It insists on the type's alignment, which a file need not give.
fn storage(dtype: GgmlDType, bytes: &[u8]) -> Result<QStorage> {
    let aligned = bytes.as_ptr().addr().is_multiple_of(align_of::<f32>());
    let bytes = if aligned { Cow::Borrowed(bytes) } else { Cow::Owned(bytes.to_vec()) };
    QStorage::from_data(bytes, &Device::Cpu, dtype)
}

/// One row of a quantised tensor: its bytes as a tensor of their own, so that only they are dequantised.
fn quantised_row(tensor: &Arc<QTensor>, index: usize, in_features: usize) -> Result<Vec<f32>> {
    let dtype = tensor.dtype();
    let row_bytes = in_features / dtype.block_size() * dtype.type_size();
    let data = tensor.data()?;
    let storage = storage(dtype, &data[index * row_bytes..][..row_bytes])?;
    QTensor::new(storage, in_features)?.dequantize(&Device::Cpu)?.to_vec1()
}
