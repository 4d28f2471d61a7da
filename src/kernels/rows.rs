//! RMS norm and SiLU, which stand between the linear layers: over `[rows, width]`, many rows in parallel.

use super::{Pool, cpu::by_cpu, exp::exp};

/// Rows per task: fewer are not worth a second thread.
const ROWS_PER_TASK: usize = 8;
/// Values per task of an element-wise operation.
const VALUES_PER_TASK: usize = 8 << 10;
const LANES: usize = 8;

/// `out = x / sqrt(mean(x²) + eps) · weight`, row by row; the width is that of `weight`.
///
/// # Panics
/// When the lengths do not fit.
pub fn rms_norm(pool: &Pool, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    assert!(x.len() == out.len() && x.len().is_multiple_of(width.max(1)), "rows of an RMS norm");
    pool.run_chunks(out, ROWS_PER_TASK * width, |index, out| {
        let x = &x[index * ROWS_PER_TASK * width..];
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            by_cpu!(avx2::rms_norm(x, weight, eps, out), rms_norm_body(x, weight, eps, out));
        }
    });
}

/// `gate = silu(gate) · up`, with `silu(x) = x / (1 + e^−x)`.
///
/// # Panics
/// When the lengths differ.
pub fn silu_mul(pool: &Pool, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up");
    pool.run_chunks(gate, VALUES_PER_TASK, |index, gate| {
        let up = &up[index * VALUES_PER_TASK..][..gate.len()];
        by_cpu!(avx2::silu_mul(gate, up), silu_mul_portable(gate, up));
    });
}

/// Written once and compiled twice: with and without AVX2.
#[inline(always)]
fn rms_norm_body(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let mut squares = [0f32; LANES];
    let chunks = x.chunks_exact(LANES);
    for (square, x) in squares.iter_mut().zip(chunks.remainder()) {
        *square = x * x;
    }
    for x in chunks {
        for (square, x) in squares.iter_mut().zip(x) {
            *square += x * x;
        }
    }
    let mean = squares.iter().sum::<f32>() / x.len() as f32 + eps;
    // Of values too large to be squared the norm would be zeros, and hide them.
    let factor = if mean.is_finite() { 1.0 / mean.sqrt() } else { f32::NAN };
    for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * factor * weight;
    }
}

fn silu_mul_portable(gate: &mut [f32], up: &[f32]) {
    for (gate, up) in gate.iter_mut().zip(up) {
        *gate = *gate / (1.0 + exp(-*gate)) * up;
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{super::exp::avx2::exp, LANES, rms_norm_body, silu_mul_portable};

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        rms_norm_body(x, weight, eps, out);
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn silu_mul(gate: &mut [f32], up: &[f32]) {
        let (sign, one) = (_mm256_set1_ps(-0.0), _mm256_set1_ps(1.0));
        let whole = gate.len() / LANES * LANES;
        for (gate, up) in gate.chunks_exact_mut(LANES).zip(up.chunks_exact(LANES)) {
            // SAFETY: chunks are eight floats.
            let (x, up) = unsafe { (_mm256_loadu_ps(gate.as_ptr()), _mm256_loadu_ps(up.as_ptr())) };
            let silu = _mm256_div_ps(x, _mm256_add_ps(one, exp(_mm256_xor_ps(x, sign))));
            // SAFETY: as above.
            unsafe { _mm256_storeu_ps(gate.as_mut_ptr(), _mm256_mul_ps(silu, up)) };
        }
        silu_mul_portable(&mut gate[whole..], &up[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wave(len: usize, step: f32, size: f32) -> Vec<f32> {
        (0..len).map(|at| (at as f32 * step).sin() * size).collect()
    }

    #[test]
    fn rms_norm_is_what_it_says() {
        let pool = Pool::new(2);
        for (rows, width) in [(1, 576), (19, 64), (2, 13)] {
            let (x, weight) = (wave(rows * width, 0.37, 4.0), wave(width, 0.9, 2.0));
            let mut out = vec![0.0; rows * width];
            rms_norm(&pool, &x, &weight, 1e-5, &mut out);
            for (x, out) in x.chunks_exact(width).zip(out.chunks_exact(width)) {
                let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
                for at in 0..width {
                    let expected = f64::from(x[at]) / (mean + 1e-5).sqrt() * f64::from(weight[at]);
                    assert!((f64::from(out[at]) - expected).abs() < 1e-5, "{} {expected}", out[at]);
                }
                let mut plain = vec![0.0; width];
                rms_norm_body(x, &weight, 1e-5, &mut plain);
                assert_eq!(plain, out, "the twins agree bit for bit");
            }
        }
        rms_norm(&pool, &[0.0; 8], &[1.0; 8], 1e-5, &mut [1.0; 8]);
        for value in [1e30, f32::INFINITY, f32::NAN] {
            let (mut x, mut out) = ([1.0; 13], [0.0; 13]);
            x[2] = value;
            rms_norm(&pool, &x, &[1.0; 13], 1e-5, &mut out);
            assert!(out.iter().all(|out| out.is_nan()), "{value}: {out:?}");
        }
    }

    #[test]
    fn silu_is_what_it_says() {
        let pool = Pool::new(2);
        for len in [5, 8, 1536, 3 * VALUES_PER_TASK + 3] {
            let (gate, up) = (wave(len, 0.37, 20.0), wave(len, 0.9, 2.0));
            let mut fast = gate.clone();
            silu_mul(&pool, &mut fast, &up);
            for at in 0..len {
                let x = f64::from(gate[at]);
                let expected = x / (1.0 + (-x).exp()) * f64::from(up[at]);
                assert!((f64::from(fast[at]) - expected).abs() <= 1e-5 + expected.abs() * 1e-6);
            }
        }
        let mut ends = [f32::MAX, f32::MIN, 200.0, -200.0];
        silu_mul(&pool, &mut ends, &[1.0; 4]);
        assert!(ends.iter().all(|x| !x.is_nan()), "{ends:?}");
    }
}
