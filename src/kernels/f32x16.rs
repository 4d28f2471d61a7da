//! Slices in vectors of sixteen floats, the last of which may be short.

/// Floats of a vector.
pub(super) const WIDE: usize = 16;

/// Lanes of a vector of which `len` values are left.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn lanes(len: usize) -> std::arch::x86_64::__mmask16 {
    if len < WIDE { (1 << len) - 1 } else { !0 }
}
