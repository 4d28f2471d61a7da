//! A fast exponential function, for one value, for eight and for sixteen.
//!
//! `eˣ = 2ⁿ·eʳ` with `n = round(x·log₂e)`, `|r| ≤ ln2 / 2`, and a polynomial of degree 5 for `eʳ`. Its relative error
//! is below 3·10⁻⁷. Below `LOWEST` the result is 0; above `HIGHEST` it is that of `HIGHEST`.

/// Arguments below give 0, so that no subnormal number appears.
pub(crate) const LOWEST: f32 = -86.6;
/// Arguments above count as this one.
pub(crate) const HIGHEST: f32 = 88.0;

/// ln 2 in two parts, the first short enough for exact products with small integers.
const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
/// Coefficients of r⁵ to 1. The last two are exact, so that `e⁰` is 1; the others leave the
/// least relative error that is possible (by Lawson's iteration on a grid of Chebyshev points).
const POLYNOMIAL: [f32; 6] = [8.312_501e-3, 4.189_033e-2, 1.666_711_6e-1, 4.999_923e-1, 1.0, 1.0];

/// `eˣ`.
#[inline]
pub fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5·2²³ rounds to a whole number, without a call where the CPU cannot round.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(LOWEST, HIGHEST);
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = clamped - n * LN2[0] - n * LN2[1];
    let p = POLYNOMIAL.iter().fold(0.0, |p, c| p * r + c);
    let scaled = f32::from_bits(p.to_bits().wrapping_add_signed((n as i32) << 23));
    if x < LOWEST { 0.0 } else { scaled }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    use std::arch::x86_64::*;

    use super::{HIGHEST, LN2, LOWEST, POLYNOMIAL};

    /// `eˣ` for eight values.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(in super::super) fn exp(x: __m256) -> __m256 {
        let lowest = _mm256_set1_ps(LOWEST);
        let clamped = _mm256_min_ps(_mm256_max_ps(x, lowest), _mm256_set1_ps(HIGHEST));
        let n = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_ps(
            clamped,
            _mm256_set1_ps(std::f32::consts::LOG2_E),
        ));
        let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2[0]), clamped);
        let r = _mm256_fnmadd_ps(n, _mm256_set1_ps(LN2[1]), r);
        let mut p = _mm256_set1_ps(POLYNOMIAL[0]);
        for c in &POLYNOMIAL[1..] {
            p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(*c));
        }
        let power = _mm256_slli_epi32::<23>(_mm256_cvtps_epi32(n));
        let scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), power));
        _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, lowest), scaled)
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    use std::arch::x86_64::*;

    use super::{HIGHEST, LN2, LOWEST, POLYNOMIAL};

    /// `eˣ` for sixteen values, the same as for eight.
    #[inline]
    #[target_feature(enable = "avx512f,avx2,fma,f16c")]
    pub(in super::super) fn exp(x: __m512) -> __m512 {
        let lowest = _mm512_set1_ps(LOWEST);
        let clamped = _mm512_min_ps(_mm512_max_ps(x, lowest), _mm512_set1_ps(HIGHEST));
        let n = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm512_mul_ps(
            clamped,
            _mm512_set1_ps(std::f32::consts::LOG2_E),
        ));
        let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN2[0]), clamped);
        let r = _mm512_fnmadd_ps(n, _mm512_set1_ps(LN2[1]), r);
        let mut p = _mm512_set1_ps(POLYNOMIAL[0]);
        for c in &POLYNOMIAL[1..] {
            p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(*c));
        }
        _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, lowest), p, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sixteen equal arguments in the widest twin, where this CPU has it.
    fn exp_x16(x: f32) -> f32 {
        #[cfg(target_arch = "x86_64")]
        if crate::cpu::has_avx512() {
            use std::arch::x86_64::*;
            #[target_feature(enable = "avx512f,avx2,fma,f16c")]
            fn run(x: f32) -> f32 {
                _mm512_cvtss_f32(avx512::exp(_mm512_set1_ps(x)))
            }
            // SAFETY: has_avx512() has just found the features.
            return unsafe { run(x) };
        }
        eight([x; 8])[0]
    }

    /// Eight results of the fast twin, where this CPU has it.
    fn eight(x: [f32; 8]) -> [f32; 8] {
        #[cfg(target_arch = "x86_64")]
        if crate::cpu::has_avx2() {
            use std::arch::x86_64::*;
            #[target_feature(enable = "avx2,fma,f16c")]
            fn run(x: [f32; 8]) -> [f32; 8] {
                let mut out = [0.0; 8];
                // SAFETY: eight floats each.
                unsafe { _mm256_storeu_ps(out.as_mut_ptr(), avx2::exp(_mm256_loadu_ps(x.as_ptr()))) };
                out
            }
            // SAFETY: has_avx2() has just found the features.
            return unsafe { run(x) };
        }
        x.map(exp)
    }

    #[test]
    fn the_error_stays_below_its_bound() {
        let mut worst = 0.0f64;
        for step in 0..400_000 {
            let x = LOWEST + (HIGHEST - LOWEST) * step as f32 / 400_000.0;
            let exact = f64::from(x).exp();
            for y in [exp(x), eight([x; 8])[3]] {
                worst = worst.max((f64::from(y) - exact).abs() / exact);
            }
            assert_eq!(exp_x16(x), eight([x; 8])[3]);
        }
        assert!(worst < 3e-7, "{worst}");
    }

    #[test]
    fn the_ends_are_zero_and_finite() {
        let x = [f32::NEG_INFINITY, f32::MIN, -87.0, 0.0, -0.0, 89.0, f32::MAX, f32::INFINITY];
        for y in [x.map(exp), eight(x), x.map(exp_x16)] {
            assert_eq!(y[..5], [0.0, 0.0, 0.0, 1.0, 1.0]);
            assert!(y[5..].iter().all(|y| y.is_finite() && *y > 1e38), "{y:?}");
        }
    }
}
