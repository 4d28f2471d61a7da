//! Giving memory back to the system.
//!
//! glibc gives back what lies at the end of a heap. Pages of sequences that ended lie between those that live on and
//! would stay with the process, for sequences to come, until it ends.

/// Has the allocator give back what it holds and nobody uses; takes tens of milliseconds for gigabytes. Does nothing where
/// the allocator is not glibc's: others give back by themselves.
pub(crate) fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        unsafe extern "C" {
            /// `malloc_trim(3)`: `pad` bytes may stay at the end of the main heap; 1 where memory was given back.
            fn malloc_trim(pad: usize) -> std::ffi::c_int;
        }
        // SAFETY: declared as in glibc's malloc.h; it takes the allocator's own locks, and touches no memory in use.
        unsafe { malloc_trim(0) };
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;
    use crate::telemetry::HostSampler;

    #[test]
    fn what_lies_between_the_living_is_given_back() {
        let mut sampler = HostSampler::new().unwrap();
        let mut resident = || sampler.sample().process_rss_bytes.unwrap();
        // Other tests of this process take memory meanwhile: one try that they do not disturb is enough.
        let given_back = (0..20).any(|_| {
            let mut blocks: Vec<_> = (0..4096).map(|at| Some(vec![at as u8 | 1; 24 << 10])).collect();
            blocks
                .iter_mut()
                .filter(|block| block.as_ref().is_some_and(|block| block[0] != 1))
                .for_each(|block| *block = None);
            let before = resident();
            trim();
            let after = resident();
            assert!(blocks.iter().flatten().all(|block| block.iter().all(|&byte| byte == 1)), "the living stay");
            after + (64 << 20) <= before
        });
        assert!(given_back, "of 95 MiB");
    }
}
