//! What a server costs, as the kernel counts it: the CPU time and resident memory of a process and
//! its children.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use crate::cli::processes::{Process, all};

/// The CPU time and memory that a process and its children have used so far.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessUsage {
    /// CPU time of each process since its start, to a hundredth of a second or better.
    cpu: BTreeMap<i32, Duration>,
    /// Resident memory in bytes. Memory that processes share is counted once for each of them.
    pub(super) resident: u64,
}

impl ProcessUsage {
    /// The usage of `pid` and of the children it has now: some servers run one process for each
    /// connection.
    ///
    /// # Errors
    /// If there is no such process.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let is_it = |process: &Process| u32::try_from(process.pid) == Ok(pid);
        let is_child = |process: &Process| u32::try_from(process.parent) == Ok(pid);
        let mut usage = Self::default();
        let mut exists = false;
        for process in all().into_values().filter(|process| is_it(process) || is_child(process)) {
            exists |= is_it(&process);
            usage.cpu.insert(process.pid, cpu_time(&process));
            usage.resident += process.resident_pages * rustix::param::page_size() as u64;
        }
        exists.then_some(usage).ok_or_else(|| io::Error::other(format!("there is no process {pid}")))
    }

    /// The CPU time used since `before` by the processes that are still alive.
    pub(super) fn cpu_since(&self, before: &Self) -> Duration {
        let used = |(pid, now): (&i32, &Duration)| {
            now.saturating_sub(before.cpu.get(pid).copied().unwrap_or_default())
        };
        self.cpu.iter().map(used).sum()
    }
}

fn cpu_time(process: &Process) -> Duration {
    // For a process with a single thread the kernel gives the exact time. Clock ticks would lose
    // most of the time of hundreds of processes that are each rarely busy.
    if process.threads == 1 {
        let exact = fs::read_to_string(format!("/proc/{}/schedstat", process.pid)).unwrap_or_default();
        if let Some(nanos) = exact.split_whitespace().next().and_then(|nanos| nanos.parse().ok()) {
            return Duration::from_nanos(nanos);
        }
    }
    Duration::from_millis(process.cpu_ticks * 1000 / rustix::param::clock_ticks_per_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_cpu_time() {
        let before = ProcessUsage::of(std::process::id()).unwrap();
        assert!(before.resident > 100_000);
        let busy = std::time::Instant::now();
        while ProcessUsage::of(std::process::id()).unwrap().cpu_since(&before).is_zero() {
            assert!(busy.elapsed() < Duration::from_secs(60));
        }
    }
}
