//! The last vector of a slice of floats, in vectors of sixteen: it may be short, and a mask says how much of it there
//! is.

/// Floats of a vector.
pub(super) const WIDE: usize = 16;

/// Lanes of a vector of which `len` values are left.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn lanes(len: usize) -> std::arch::x86_64::__mmask16 {
    if len < WIDE { (1 << len) - 1 } else { !0 }
}
