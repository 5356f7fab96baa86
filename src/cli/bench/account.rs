//! What a server costs, by the kernel's account: CPU time and resident memory of a process and its
//! children.

use std::fs;
use std::io;
use std::time::Duration;

/// What a process and its children have used and have.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    /// CPU time since the start, to a hundredth of a second.
    pub(super) cpu: Duration,
    /// Resident memory in bytes. What processes share is counted in each.
    pub(super) resident: u64,
}

impl Account {
    /// The account of `pid` and of the children it has now: some servers are a process for each connection.
    ///
    /// # Errors
    /// If there is no such process.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        let own = read(pid)?.1;
        let others = fs::read_dir("/proc")?.filter_map(|entry| {
            let other: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            // One that has ended meanwhile is no loss.
            let (parent, account) = read(other).ok()?;
            (parent == pid).then_some(account)
        });
        Ok(others.fold(own, |sum, other| Self {
            cpu: sum.cpu + other.cpu,
            resident: sum.resident + other.resident,
        }))
    }
}

/// The parent of a process, and its account.
fn read(pid: u32) -> io::Result<(u32, Account)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let wrong = || io::Error::other(format!("/proc/{pid}/stat cannot be understood"));
    // Behind the name, which may have any characters in it. The numbers are those of proc(5), less 3.
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or_else(wrong)?.1.split_whitespace().collect();
    let field = |at: usize| fields.get(at).and_then(|text| text.parse::<u64>().ok()).ok_or_else(wrong);
    let ticks = field(11)? + field(12)?;
    let cpu = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    let resident = field(21)? * rustix::param::page_size() as u64;
    let parent = u32::try_from(field(1)?).map_err(|_| wrong())?;
    Ok((parent, Account { cpu, resident }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_an_account() {
        let before = Account::of(std::process::id()).unwrap();
        assert!(before.resident > 100_000);
        let busy = std::time::Instant::now();
        while Account::of(std::process::id()).unwrap().cpu <= before.cpu {
            assert!(busy.elapsed() < Duration::from_secs(60));
        }
    }
}
