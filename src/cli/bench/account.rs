//! What a server costs, by the kernel's account: CPU time and resident memory of a process and its
//! children.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

/// What a process and its children have used and have.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// CPU time of each process since its start, to a hundredth of a second at least.
    cpu: BTreeMap<u32, Duration>,
    /// Resident memory in bytes. What processes share is counted in each.
    pub(super) resident: u64,
}

impl Account {
    /// The account of `pid` and of the children it has now: some servers are a process for each connection.
    ///
    /// # Errors
    /// If there is no such process.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let mut account = Self::default();
        account.enter(pid, &read(pid)?);
        for entry in fs::read_dir("/proc")? {
            let Some(other) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // One that has ended meanwhile is no loss.
            if let Ok(line) = read(other)
                && line.parent == pid
            {
                account.enter(other, &line);
            }
        }
        Ok(account)
    }

    fn enter(&mut self, pid: u32, line: &Line) {
        self.cpu.insert(pid, line.cpu);
        self.resident += line.resident;
    }

    /// What CPU time was used since `before` by the processes that are still there.
    pub(super) fn cpu_since(&self, before: &Self) -> Duration {
        let used = |(pid, now): (&u32, &Duration)| {
            now.saturating_sub(before.cpu.get(pid).copied().unwrap_or_default())
        };
        self.cpu.iter().map(used).sum()
    }
}

/// What the kernel says of one process.
struct Line {
    parent: u32,
    cpu: Duration,
    resident: u64,
}

fn read(pid: u32) -> io::Result<Line> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let wrong = || io::Error::other(format!("/proc/{pid}/stat cannot be understood"));
    // Behind the name, which may have any characters in it. The numbers are those of proc(5), less 3.
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or_else(wrong)?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).ok_or_else(wrong);
    let ticks = field(11)? + field(12)?;
    let mut cpu = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    // Where there is but one thread the kernel tells it exactly; of hundreds of processes that are seldom busy
    // the hundredths would all be lost.
    if field(17)? == 1 {
        let exactly = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
        let nanos = exactly.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
        cpu = nanos.map_or(cpu, Duration::from_nanos);
    }
    Ok(Line {
        parent: u32::try_from(field(1)?).map_err(|_| wrong())?,
        cpu,
        resident: field(21)? * rustix::param::page_size() as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_an_account() {
        let before = Account::of(std::process::id()).unwrap();
        assert!(before.resident > 100_000);
        let busy = std::time::Instant::now();
        while Account::of(std::process::id()).unwrap().cpu_since(&before).is_zero() {
            assert!(busy.elapsed() < Duration::from_secs(60));
        }
    }
}
