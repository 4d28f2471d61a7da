//! What the CPU can do, found out at run time.

use std::sync::OnceLock;

/// Whether the AVX2 paths may run: AVX2, FMA, F16C and POPCNT together. No CPU has the first without
/// the last.
///
/// The standard library asks the CPU once and keeps the answer, so this costs a load and a test.
#[inline]
pub(crate) fn has_avx2() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Whether the AVX-512 paths may run: what AVX2 paths ask for, and AVX-512 F, BW, VL and VNNI. CPUs that lack one of them take
/// the AVX2 paths; those that have them all came from 2019 on.
#[inline]
pub(crate) fn has_avx512() -> bool {
    // Eight questions to the standard library, asked before every kernel, would be seen in a profile.
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(find_avx512)
}

fn find_avx512() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        has_avx2()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Evaluates the first call where the CPU has AVX2, FMA, F16C and POPCNT, and the second one elsewhere.
macro_rules! by_cpu {
    ($avx2:expr, $portable:expr) => {{
        #[cfg(target_arch = "x86_64")]
        {
            if $crate::kernels::cpu::has_avx2() {
                // SAFETY: the called function asks for no more than those, which has_avx2() has just found.
                unsafe { $avx2 }
            } else {
                $portable
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            $portable
        }
    }};
}

/// Evaluates the first call where the CPU has AVX-512, and the second one elsewhere.
macro_rules! by_avx512 {
    ($avx512:expr, $other:expr) => {{
        #[cfg(target_arch = "x86_64")]
        {
            if $crate::kernels::cpu::has_avx512() {
                // SAFETY: the called function asks for what has_avx512() has just found.
                unsafe { $avx512 }
            } else {
                $other
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            $other
        }
    }};
}

pub(crate) use by_avx512;
pub(crate) use by_cpu;
