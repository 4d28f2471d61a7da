//! Linear layers against their references.

use candle_core::{
    Device, Module, Tensor,
    quantized::{QMatMul, QStorage, QTensor},
};
use proptest::prelude::*;

use super::*;
use crate::{activations::HALF, reference};

fn wave(len: usize, step: f32) -> Vec<f32> {
    (0..len).map(|at| (at as f32 * step).sin() + 0.3 * (at as f32 * 1.7).cos()).collect()
}

/// Random-looking weights as a file holds them.
fn file(dtype: GgmlDType, out_features: usize, in_features: usize) -> Vec<u8> {
    let values = Tensor::from_vec(wave(out_features * in_features, 0.731), (out_features, in_features), &Device::Cpu);
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
                    input
                        .blocks(row)
                        .iter()
                        .flat_map(|block| block.q.iter().enumerate().map(|(at, &q)| block.d[at / HALF] * f32::from(q)))
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
