//! Linear layers in the plainest way: weights as floats, sums in double precision.

use super::Linear;

/// `x·Wᵀ` for `x` of `[rows, in_features]`, as `[rows, out_features]`, from the dequantised weights and the
/// activations as they are (the fast paths round activations to 8 bits).
pub fn linear(layer: &Linear, x: &[f32]) -> Vec<f32> {
    let width = layer.in_features();
    let rows = x.len() / width;
    let mut y = vec![0.0; rows * layer.out_features()];
    let mut weights = vec![0.0; width];
    for feature in 0..layer.out_features() {
        layer.row(feature, &mut weights);
        for (row, x) in x.chunks_exact(width).enumerate() {
            let sum: f64 = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
            y[row * layer.out_features() + feature] = sum as f32;
        }
    }
    y
}
