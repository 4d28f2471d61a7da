//! 16-bit floats of the cache as 32-bit floats, and asking for them ahead of time.

use half::f16;

use super::cpu::by_cpu;

/// `out = values`.
///
/// # Panics
/// When the lengths differ.
pub fn widen(values: &[f16], out: &mut [f32]) {
    assert_eq!(values.len(), out.len());
    by_cpu!(avx2::widen(values, out), widen_portable(values, out));
}

/// Asks the memory for `values`, which will be read soon. Changes nothing but the time that takes.
#[inline]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in (0..size_of_val(values)).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: part of every x86-64; a prefetch reads nothing that a program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(values.as_ptr().cast::<i8>().wrapping_add(line)) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}

fn widen_portable(values: &[f16], out: &mut [f32]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = value.to_f32();
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::widen_portable;

    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn widen(values: &[f16], out: &mut [f32]) {
        let whole = values.len() / 8 * 8;
        for (values, out) in values.chunks_exact(8).zip(out.chunks_exact_mut(8)) {
            // SAFETY: eight values each.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(_mm_loadu_si128(values.as_ptr().cast()))) };
        }
        widen_portable(&values[whole..], &mut out[whole..]);
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
            widen(&values, &mut out);
            assert!(out.iter().zip(&values).all(|(out, value)| *out == value.to_f32()));
        }
    }
}
