//! The instructions that kernels may use: what the CPU has, found out at run time, or less where that is asked for.

use std::sync::OnceLock;

/// The instructions that kernels are written for, each with those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Those that every CPU of the architecture has.
    Portable,
    /// AVX2, FMA, F16C and POPCNT. No CPU has the first without the last.
    Avx2,
    /// AVX-512 F, BW, VL and VNNI. CPUs that lack one of them take the AVX2 paths; those that have them all came from
    /// 2019 on.
    Avx512,
}

/// Decided once, and never above what the CPU has.
static LEVEL: OnceLock<Level> = OnceLock::new();

/// The level of the kernels that run in this process: the CPU's, or what [`hold`] asked for where that is less.
///
/// Asked before every kernel: a load and a comparison. It never changes.
#[inline]
pub fn level() -> Level {
    *LEVEL.get_or_init(found)
}

/// Limits kernels to at most `most`, to see what they do on a lesser CPU. It must be called before the first kernel
/// runs, because then the level is decided for good.
pub fn hold(most: Level) {
    LEVEL.get_or_init(|| found().min(most));
}

/// The level of this CPU.
pub fn found() -> Level {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c")
            && is_x86_feature_detected!("popcnt");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        match (avx2, avx512) {
            (true, true) => Level::Avx512,
            (true, false) => Level::Avx2,
            (false, _) => Level::Portable,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Level::Portable
    }
}

/// Whether the AVX2 paths may run.
#[inline]
pub(crate) fn has_avx2() -> bool {
    level() >= Level::Avx2
}

/// Whether the AVX-512 paths may run.
#[inline]
pub(crate) fn has_avx512() -> bool {
    level() >= Level::Avx512
}

impl Level {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// Evaluates the first call where the CPU has AVX2, FMA, F16C and POPCNT, and the second one elsewhere.
macro_rules! by_cpu {
    ($avx2:expr, $portable:expr) => {{
        #[cfg(target_arch = "x86_64")]
        {
            if $crate::cpu::has_avx2() {
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
            if $crate::cpu::has_avx512() {
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
