//! The processes of the system, as /proc shows them. Only reads; knows nothing about signals,
//! commands or locks.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use super::text::printable;

/// How many ancestors of this process are looked at.
const ANCESTORS_MAX: usize = 256;

/// A process, as it was when /proc was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: i32,
    pub(super) parent: i32,
    /// Its process group.
    pub(super) group: i32,
    /// Its start time, in the kernel's ticks. A process id is used again for later processes; the
    /// id and the start time together identify one process for ever.
    pub(super) start: u64,
    /// Whether it has ended and is not reaped yet; or whether only its first thread has ended.
    pub(super) is_zombie: bool,
    /// Whether it is stopped, by a signal or by a debugger.
    pub(super) is_stopped: bool,
    /// The CPU time used so far, in clock ticks.
    pub(super) cpu_ticks: u64,
    pub(super) threads: u64,
    pub(super) resident_pages: u64,
    name: Vec<u8>,
}

impl Process {
    /// Reads the process that has this id now.
    pub(super) fn read(pid: i32) -> Option<Self> {
        Self::parse(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        // The name is in parentheses, and may itself contain parentheses.
        let start = stat.iter().position(|&byte| byte == b'(')?;
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let name = stat.get(start + 1..end)?.to_vec();
        let fields = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        // Numbered as in proc(5), where the first field after the name is the third.
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            pid,
            parent: field(4)?.parse().ok()?,
            group: field(5)?.parse().ok()?,
            start: field(22)?.parse().ok()?,
            cpu_ticks: field(14)?.parse::<u64>().ok()? + field(15)?.parse::<u64>().ok()?,
            threads: field(20)?.parse().ok()?,
            resident_pages: field(24)?.parse().ok()?,
            is_zombie: matches!(field(3)?, "Z" | "X"),
            is_stopped: matches!(field(3)?, "T" | "t"),
            name,
        })
    }
}

/// The process in a message: its id and its name.
impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, printable(&self.name))
    }
}

/// This process, and its ancestors that run the same program, the nearest first: for a `lockd run`,
/// those that it runs under. A process whose parent has ended has a `lockd run` above it as its
/// parent, so this finds it for daemons, too, as long as it lives. Ancestors outside of a container
/// are not found.
pub(super) fn line_of_same_program() -> Vec<Process> {
    let this = i32::try_from(std::process::id()).ok().and_then(Process::read);
    let Some(mut pid) = this.as_ref().map(|this| this.parent) else { return Vec::new() };
    let mut line: Vec<Process> = this.into_iter().collect();
    // The ancestors are read one after the other, and ids are used again: without a bound they
    // could seem to have no end.
    for _ in 0..ANCESTORS_MAX {
        let Some(ancestor) = Process::read(pid) else { break };
        pid = ancestor.parent;
        if ancestor.name == line[0].name {
            line.push(ancestor);
        }
    }
    line
}

/// Where the process ids of this process count: on this machine, since its start, and in its
/// container.
pub(super) fn place_of_ids() -> Vec<u8> {
    let mut place = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    place
        .extend(fs::read_link("/proc/self/ns/pid").unwrap_or_default().into_os_string().into_encoded_bytes());
    place
}

/// All processes, by their ids. They are read one after the other, so a process that is started in
/// the meantime can be missing. A process that exists from beginning to end is found, with its
/// parent.
pub(super) fn all() -> BTreeMap<i32, Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut all: BTreeMap<i32, Process> = pids.filter_map(|pid| Some((pid, Process::read(pid)?))).collect();
    // A parent is missing if it ended after its child was read and before it was read itself. By
    // now the child has a new parent.
    let orphans: Vec<i32> = all
        .values()
        .filter(|process| !all.contains_key(&process.parent))
        .map(|process| process.pid)
        .collect();
    for pid in orphans {
        match Process::read(pid) {
            Some(process) => all.insert(pid, process),
            None => all.remove(&pid),
        };
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] = b"17 (a) b (\xff) Z 1 2 3 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0";

    #[test]
    fn a_name_may_look_like_the_fields_after_it() {
        let process = Process::parse(17, STAT).unwrap();
        assert_eq!((process.parent, process.group, process.start), (1, 2, 4711));
        assert!(process.is_zombie && !process.is_stopped);
        assert_eq!(process.to_string(), "process 17 (a) b (\\xff)");
        assert_eq!(Process::parse(17, b"17 (a) S 1"), None);
    }

    #[test]
    fn this_process_is_found_with_its_parent() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let all = all();
        assert!(all.contains_key(&all[&pid].parent));
        assert!(!all[&pid].is_zombie);
    }
}
