//! 16-bit floats of the cache as 32-bit floats.

use half::f16;

use super::cpu::by_cpu;

/// `out = values`.
///
/// # Panics
/// When the lengths differ.
pub fn f16_to_f32(values: &[f16], out: &mut [f32]) {
    assert_eq!(values.len(), out.len());
    by_cpu!(avx2::f16_to_f32(values, out), f16_to_f32_portable(values, out));
}

fn f16_to_f32_portable(values: &[f16], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = value.to_f32();
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::f16_to_f32_portable;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn f16_to_f32(values: &[f16], out: &mut [f32]) {
        let whole = values.len() / 8 * 8;
        for (values, out) in values.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
            // SAFETY: eight values each.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(values.as_ptr().cast()))) };
        }
        f16_to_f32_portable(&values[whole..], &mut out[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_exact() {
        for len in [0, 5, 8, 64, 203] {
            let values: Vec<f16> = (0..len).map(|at| f16::from_f32(at as f32 * 0.25 - 7.0)).collect();
            let mut out = vec![0.0; len];
            f16_to_f32(&values, &mut out);
            assert!(out.iter().zip(&values).all(|(out, value)| *out == value.to_f32()));
        }
    }
}
