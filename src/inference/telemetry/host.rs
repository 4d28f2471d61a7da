//! The host through sysinfo: this process, the machine's processors and memory, and how many threads should compute.

use std::{num::NonZeroUsize, thread};

use sysinfo::{CpuRefreshKind, Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::HostSample;

/// Samples the host. Processor use is a difference between two samples, so the first one has none.
pub struct HostSampler {
    system: System,
    pid: Pid,
    first: bool,
}

impl HostSampler {
    /// A sampler of this process and its machine; `None` where sysinfo does not know the platform.
    pub fn new() -> Option<Self> {
        Some(Self { system: System::new().ok()?, pid: sysinfo::get_current_pid().ok()?, first: true })
    }

    /// The host now.
    pub fn sample(&mut self) -> HostSample {
        self.system.refresh_memory();
        self.system.refresh_cpu_usage();
        self.system.refresh_processes_specifics(
            ProcessesToUpdate::Some(&[self.pid]),
            true,
            ProcessRefreshKind::nothing().with_memory().with_cpu(),
        );
        let process = self.system.process(self.pid);
        let second = !std::mem::take(&mut self.first);
        let machine = Memory { used: self.system.used_memory(), total: self.system.total_memory() };
        let group = process.and_then(|process| process.cgroup_limits()).map(|limits| Memory {
            used: limits.total_memory.saturating_sub(limits.free_memory),
            total: limits.total_memory,
        });
        let memory = effective(machine, group);
        HostSample {
            process_rss_bytes: process.map(|process| process.memory()),
            process_cpu_percent: process.filter(|_| second).map(|process| process.cpu_usage()),
            cpu_percent: second.then(|| self.system.global_cpu_usage()),
            memory_used_bytes: memory.map(|memory| memory.used),
            memory_total_bytes: memory.map(|memory| memory.total),
        }
    }
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    used: u64,
    total: u64,
}

/// The memory that bounds this process: its control group's where that is the tighter one. A total of 0 is sysinfo's
/// way to say that it could not read it.
fn effective(machine: Memory, group: Option<Memory>) -> Option<Memory> {
    let known = |memory: &Memory| memory.total > 0;
    match group.filter(known) {
        Some(group) if !known(&machine) || group.total < machine.total => Some(group),
        _ => Some(machine).filter(known),
    }
}

/// Threads that should compute where nobody says: one per physical core that this process may use, less one for the
/// screen above two.
pub fn default_threads() -> usize {
    spare_one(usable_cores(physical_cores(), thread::available_parallelism().ok()))
}

/// Physical cores of the machine, whether or not this process may use them all.
pub fn physical_cores() -> Option<usize> {
    System::physical_core_count().ok().filter(|&cores| cores > 0)
}

/// What the processor calls itself.
pub fn cpu_name() -> Option<String> {
    let mut system = System::new().ok()?;
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    system.cpus().first().map(|cpu| cpu.brand().trim().to_owned()).filter(|name| !name.is_empty())
}

/// Physical cores this process may use. `allowed` knows of affinity and of the container's quota but counts hardware
/// threads; `physical` counts cores but all of the machine's. The smaller one errs on the side of fewer threads, which
/// costs less than two threads that spin on one core.
fn usable_cores(physical: Option<usize>, allowed: Option<NonZeroUsize>) -> usize {
    let allowed = allowed.map(NonZeroUsize::get);
    physical.into_iter().chain(allowed).min().unwrap_or(1)
}

fn spare_one(cores: usize) -> usize {
    if cores > 2 { cores - 1 } else { cores }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn this_process_is_seen() {
        let spin = |time: Duration| {
            let begin = std::time::Instant::now();
            while begin.elapsed() < time {
                std::hint::spin_loop();
            }
        };
        // sysinfo takes a process that has used no tick of the clock yet for one that it has not seen yet.
        spin(Duration::from_millis(50));
        let mut sampler = HostSampler::new().unwrap();
        let first = sampler.sample();
        assert_eq!((first.process_cpu_percent, first.cpu_percent), (None, None));
        let ballast = vec![1u8; 64 << 20];
        spin(Duration::from_millis(300));
        std::hint::black_box(&ballast);
        let second = sampler.sample();
        assert!(second.process_cpu_percent.unwrap() > 5.0, "{second:?}");
        assert!((0.0..=100.0).contains(&second.cpu_percent.unwrap()), "{second:?}");
        let (used, total) = (second.memory_used_bytes.unwrap(), second.memory_total_bytes.unwrap());
        assert!(used >= 64 << 20 && used <= total, "{second:?}");
        drop(ballast);
        // Other tests of this process give memory back meanwhile: one try that they do not disturb is enough.
        let seen = (0..50).any(|_| {
            let before = sampler.sample().process_rss_bytes.unwrap();
            let ballast = std::hint::black_box(vec![1u8; 64 << 20]);
            let after = sampler.sample().process_rss_bytes.unwrap();
            drop(ballast);
            after >= before + (60 << 20)
        });
        assert!(seen, "64 MiB more are not seen");
    }

    #[test]
    fn the_tighter_memory_counts() {
        let memory = |used, total| Memory { used, total };
        assert_eq!(effective(memory(3, 8), None), Some(memory(3, 8)));
        assert_eq!(effective(memory(3, 8), Some(memory(1, 4))), Some(memory(1, 4)));
        assert_eq!(effective(memory(3, 8), Some(memory(1, 8))), Some(memory(3, 8)));
        assert_eq!(effective(memory(0, 0), Some(memory(1, 4))), Some(memory(1, 4)));
        assert_eq!(effective(memory(0, 0), Some(memory(0, 0))), None);
    }

    #[test]
    fn threads_leave_the_screen_room_above_two_cores() {
        let cores = |physical, allowed| spare_one(usable_cores(physical, NonZeroUsize::new(allowed)));
        assert_eq!(cores(Some(8), 16), 7);
        assert_eq!(cores(Some(8), 2), 2);
        assert_eq!(cores(Some(1), 2), 1);
        assert_eq!(cores(None, 4), 3);
        assert_eq!(cores(None, 0), 1);
        assert!(default_threads() >= 1);
    }
}
