//! Giving memory back to the system.
//!
//! glibc gives back only what lies at the end of a heap. The pages of sequences that have ended lie between pages that
//! are still in use, so without a call to trim the heap they stay with the process.

/// Has the allocator give back unused memory; it is for moments in which nobody waits. Does nothing where the allocator
/// is not glibc's, because others give back by themselves.
pub fn trim() {
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

    /// Set in the process in which the test looks at memory.
    const ALONE: &str = "TEST_OF_THE_HEAP_IS_ALONE";

    #[test]
    fn what_lies_between_the_living_is_given_back() {
        if std::env::var_os(ALONE).is_none() {
            // In a process of its own: other tests look at memory as well, and each would see what the others take.
            let name = "heap::tests::what_lies_between_the_living_is_given_back";
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            let output = command.args(["--exact", name]).env(ALONE, "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
        };
        // One in 128 lives on.
        let block = |at: usize| Some(vec![at as u8 % 128; 24 << 10]);
        let mut blocks: Vec<_> = (0..4096).map(block).collect();
        blocks.iter_mut().enumerate().filter(|(at, _)| at % 128 != 7).for_each(|(_, block)| *block = None);
        let before = resident();
        trim();
        let after = resident();
        assert!(blocks.iter().flatten().flatten().all(|&byte| byte == 7), "the living stay");
        assert!(after + (64 << 20) <= before, "{after} of {before} bytes are left");
    }
}
