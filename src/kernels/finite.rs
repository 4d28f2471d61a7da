//! Infinities and NaN: among weights when they are loaded, and in what is computed from them.

use candle_core::quantized::GgmlDType;

use super::cpu::by_cpu;

/// The bits of the smallest magnitude that is no finite number.
pub(super) const INFINITE: u32 = f32::INFINITY.to_bits();

/// The bits of the largest magnitude among the values; 0 of none. Read as whole numbers, magnitudes keep their order
/// and NaN is above all of them, while a maximum of floats would lose it.
pub(super) fn largest(x: &[f32]) -> u32 {
    by_cpu!(avx2::largest(x), largest_body(x))
}

/// Written once and compiled twice: with and without AVX2.
#[inline(always)]
fn largest_body(x: &[f32]) -> u32 {
    x.iter().map(|x| x.to_bits() & !(1 << 31)).max().unwrap_or(0)
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn largest(x: &[f32]) -> u32 {
        super::largest_body(x)
    }
}

/// Whether an infinity or NaN is among the weights in the bytes of a GGUF tensor. In blocks only a scale or a minimum
/// can be one.
pub(super) fn is_broken(dtype: GgmlDType, bytes: &[u8]) -> bool {
    use GgmlDType::*;
    // Where a block's scale is, and its minimum, or the scale again.
    let [scale, minimum] = match dtype {
        F32 => return any(bytes, |b| u32::from_le_bytes(b) & INFINITE == INFINITE),
        F16 => return any(bytes, is_broken_f16),
        BF16 => return any(bytes, |b: [u8; 2]| b[1] & 0x7f == 0x7f && b[0] & 0x80 != 0),
        Q4_0 | Q5_0 | Q8_0 => [0, 0],
        Q4_1 | Q5_1 | Q8_1 | Q4K | Q5K => [0, 2],
        Q2K => [80, 82],
        Q3K => [108, 108],
        Q6K => [208, 208],
        // A 32-bit float, of whose bytes these have the exponent as a bfloat16 has it.
        Q8K => return bytes.chunks_exact(dtype.type_size()).any(|b| b[3] & 0x7f == 0x7f && b[2] & 0x80 != 0),
    };
    let broken = |block: &[u8], at: usize| is_broken_f16([block[at], block[at + 1]]);
    let blocks = bytes.chunks_exact(dtype.type_size());
    // The loop has no early exit: damage is rare, and without an exit it is fast.
    blocks.fold(false, |found, block| found | broken(block, scale) | broken(block, minimum))
}

fn any<const N: usize>(bytes: &[u8], broken: impl Fn([u8; N]) -> bool) -> bool {
    bytes.as_chunks().0.iter().fold(false, |found, &number| found | broken(number))
}

/// All bits of the exponent are set.
fn is_broken_f16([_, high]: [u8; 2]) -> bool {
    high & 0x7c == 0x7c
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor, quantized::QTensor};

    use super::*;
    use crate::{Linear, LinearError};

    #[test]
    fn the_largest_magnitude_is_found_and_nan_is_above_all() {
        for len in [1, 7, 8, 100] {
            for at in [0, len / 2, len - 1] {
                for value in [-3.5, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -f32::NAN] {
                    let mut x = vec![1.0; len];
                    x[at] = value;
                    let expected = value.abs().to_bits();
                    assert_eq!([largest(&x), largest_body(&x)], [expected; 2]);
                    assert_eq!(largest(&x) >= INFINITE, !value.is_finite());
                }
            }
        }
        assert_eq!(largest(&[]), 0);
    }

    #[test]
    fn weights_that_are_no_numbers_are_refused_in_every_type() {
        use GgmlDType::*;
        for dtype in [F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K] {
            let (rows, cols) = (3, 512);
            let values: Vec<f32> = (0..rows * cols).map(|at| (at as f32 * 0.731).sin()).collect();
            let tensor = Tensor::from_vec(values, (rows, cols), &Device::Cpu).unwrap();
            let bytes = QTensor::quantize(&tensor, dtype).unwrap().data().unwrap().into_owned();
            assert!(Linear::from_gguf(dtype, &bytes, rows, cols).is_ok(), "{dtype:?}");
            // Every 16 bits of the last block that make a weight something else than a number are found, and no others.
            let last = bytes.len() - dtype.type_size().max(4);
            let mut refused = 0;
            for at in (last..bytes.len()).step_by(2) {
                let mut damaged = bytes.clone();
                damaged[at..at + 2].copy_from_slice(&[0x80, 0x7f]);
                let row = plain_row(dtype, &damaged, rows, cols);
                let found = Linear::from_gguf(dtype, &damaged, rows, cols).map(|_| ());
                let broken = row.iter().any(|weight| !weight.is_finite());
                assert_eq!(matches!(found, Err(LinearError::NotFinite)), broken, "{dtype:?} at byte {}", at - last);
                refused += usize::from(broken);
            }
            assert!(refused > 0, "{dtype:?}");
        }
    }

    /// The last row as candle reads it.
    fn plain_row(dtype: GgmlDType, bytes: &[u8], rows: usize, cols: usize) -> Vec<f32> {
        let storage = candle_core::quantized::QStorage::from_data(bytes.into(), &Device::Cpu, dtype).unwrap();
        let tensor = QTensor::new(storage, (rows, cols)).unwrap().dequantize(&Device::Cpu).unwrap();
        tensor.get(rows - 1).unwrap().to_vec1().unwrap()
    }
}
