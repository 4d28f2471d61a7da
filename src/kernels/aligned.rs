//! Memory for pages of the cache: it begins with a cache line and can have several holders.
//!
//! A row of V in 16-bit floats is two cache lines. If it began in the middle of a line it would touch three, and
//! vectors of keys would lie across two lines.

use std::{fmt, iter, ops::Range, sync::Arc};

use half::f16;

/// Bytes of a cache line.
const LINE: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Numbers that can be read from any bytes.
///
/// # Safety
/// Every pattern of bytes is a valid value, and the alignment is at most that of a `Line`.
pub unsafe trait Number: Copy {}

// SAFETY: every pattern of bits is one.
unsafe impl Number for f16 {}
// SAFETY: likewise.
unsafe impl Number for i8 {}

/// Zeroed memory, in whole cache lines. Clones are the same memory.
#[derive(Clone)]
pub struct Aligned(Arc<[Line]>);

impl Aligned {
    /// At least `bytes` bytes.
    pub fn zeroed(bytes: usize) -> Self {
        Self(iter::repeat_n(Line([0; LINE]), bytes.div_ceil(LINE)).collect())
    }

    /// A copy in memory of its own.
    pub fn copied(&self) -> Self {
        Self(Arc::from(&self.0[..]))
    }

    /// Bytes of it.
    pub fn len(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// Whether there is none of it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether both are the same memory.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The numbers in `bytes`.
    ///
    /// # Panics
    /// When the range ends outside, or does not begin and end with a number.
    pub fn numbers<T: Number>(&self, bytes: Range<usize>) -> &[T] {
        check::<T>(&bytes, self.len());
        let start = self.0.as_ptr().cast::<u8>().wrapping_add(bytes.start).cast();
        // SAFETY: the range lies inside and is aligned, and any bytes are numbers.
        unsafe { std::slice::from_raw_parts(start, bytes.len() / size_of::<T>()) }
    }

    /// The numbers in two ranges that do not overlap, to be written; `None` where somebody else holds the memory too.
    ///
    /// # Panics
    /// As [`Self::numbers`], and when the second range begins before the first ends.
    pub fn numbers_mut<T: Number, U: Number>(
        &mut self,
        [first, second]: [Range<usize>; 2],
    ) -> Option<(&mut [T], &mut [U])> {
        check::<T>(&first, self.len());
        check::<U>(&second, self.len());
        assert!(first.end <= second.start, "ranges that do not overlap");
        let start = Arc::get_mut(&mut self.0)?.as_mut_ptr().cast::<u8>();
        // SAFETY: both ranges lie inside, are aligned and do not overlap, any bytes are numbers, and nobody else holds
        // the memory.
        Some(unsafe {
            (
                std::slice::from_raw_parts_mut(start.wrapping_add(first.start).cast(), first.len() / size_of::<T>()),
                std::slice::from_raw_parts_mut(start.wrapping_add(second.start).cast(), second.len() / size_of::<U>()),
            )
        })
    }
}

fn check<T>(bytes: &Range<usize>, len: usize) {
    assert!(bytes.start <= bytes.end && bytes.end <= len, "bytes inside");
    assert!(bytes.start.is_multiple_of(size_of::<T>()) && bytes.len().is_multiple_of(size_of::<T>()), "whole numbers");
}

impl fmt::Debug for Aligned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_line_and_is_written_by_one_holder() {
        for bytes in [0, 2, 64, 66, 4_096] {
            let mut memory = Aligned::zeroed(bytes);
            assert_eq!(memory.len(), bytes.next_multiple_of(64));
            let half = bytes / 4 * 2;
            let all = |memory: &Aligned| memory.numbers::<f16>(0..bytes).to_vec();
            assert_eq!((all(&memory), memory.0.as_ptr().addr() % 64), (vec![f16::ZERO; bytes / 2], 0));
            let (floats, small) = memory.numbers_mut::<f16, i8>([0..half, half..bytes]).expect("one holder");
            floats.fill(f16::ONE);
            small.fill(7);
            assert_eq!(memory.numbers::<f16>(0..half), vec![f16::ONE; half / 2]);
            assert_eq!(memory.numbers::<i8>(half..bytes), vec![7; bytes - half]);
            let mut same = memory.clone();
            assert!(same.is(&memory) && same.numbers_mut::<f16, i8>([0..0, 0..0]).is_none());
            let mut copy = memory.copied();
            assert!(!copy.is(&memory) && all(&copy) == all(&memory));
            copy.numbers_mut::<f16, f16>([0..bytes, bytes..bytes]).expect("one holder").0.fill(f16::MAX);
            assert_eq!(memory.numbers::<f16>(0..half), vec![f16::ONE; half / 2]);
        }
    }

    #[test]
    fn ranges_that_are_wrong_are_refused() {
        let wrong = |range: Range<usize>| {
            std::panic::catch_unwind(move || Aligned::zeroed(64).numbers::<f16>(range).len()).is_err()
        };
        assert!([60..66, 1..3, 2..5, 66..66].into_iter().all(wrong));
        assert!(!wrong(64..64) && !wrong(0..64));
        let overlapping = || Aligned::zeroed(64).numbers_mut::<i8, i8>([0..9, 8..9]).is_some();
        assert!(std::panic::catch_unwind(overlapping).is_err());
    }
}
