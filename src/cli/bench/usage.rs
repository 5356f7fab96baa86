//! What a server costs, as the kernel counts it: the CPU time and resident memory of a process and
//! its children.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

/// The CPU time and memory that a process and its children have used so far.
#[derive(Clone, Debug, Default)]
pub(super) struct ProcessUsage {
    /// CPU time of each process since its start, to a hundredth of a second or better.
    cpu: BTreeMap<u32, Duration>,
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
        let mut usage = Self::default();
        usage.add(pid, &read(pid)?);
        for entry in fs::read_dir("/proc")? {
            let Some(other) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A process that has ended since the directory was read is left out.
            if let Ok(stat) = read(other)
                && stat.parent == pid
            {
                usage.add(other, &stat);
            }
        }
        Ok(usage)
    }

    fn add(&mut self, pid: u32, stat: &ProcessStat) {
        self.cpu.insert(pid, stat.cpu);
        self.resident += stat.resident;
    }

    /// The CPU time used since `before` by the processes that are still alive.
    pub(super) fn cpu_since(&self, before: &Self) -> Duration {
        let used = |(pid, now): (&u32, &Duration)| {
            now.saturating_sub(before.cpu.get(pid).copied().unwrap_or_default())
        };
        self.cpu.iter().map(used).sum()
    }
}

/// The fields of `/proc/PID/stat` that are needed here.
struct ProcessStat {
    parent: u32,
    cpu: Duration,
    resident: u64,
}

fn read(pid: u32) -> io::Result<ProcessStat> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let wrong = || io::Error::other(format!("/proc/{pid}/stat cannot be understood"));
    // The fields after the name, which may contain any characters. Numbered as in proc(5), less 3.
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or_else(wrong)?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).ok_or_else(wrong);
    let ticks = field(11)? + field(12)?;
    let mut cpu = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    // For a process with a single thread the kernel gives the exact time. Hundredths of a second
    // would lose most of the time of hundreds of processes that are each rarely busy.
    if field(17)? == 1 {
        let exact = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
        let nanos = exact.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        cpu = nanos.map_or(cpu, Duration::from_nanos);
    }
    Ok(ProcessStat {
        parent: u32::try_from(field(1)?).map_err(|_| wrong())?,
        cpu,
        resident: field(21)? * rustix::param::page_size() as u64,
    })
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
