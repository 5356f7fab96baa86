//! Finds and signals all processes that the command has started, in whatever sessions and process
//! groups they are now. Knows nothing about locks.
//!
//! This process is a *subreaper*: a descendant whose parent ends, even a daemon, becomes its child.
//! So all descendants can be found by walking down from this process, without keeping a list; and
//! once this process has no children left, it has no descendants either.
//!
//! A shell that executes `lockd run` leaves its own children to it. These, and the processes that
//! they start, are found before the command is started, and are left alone. One gap remains: if
//! such a child starts a process and ends within about a second, that process is taken for one of
//! the command's.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
    set_child_subreaper,
};

use crate::cli::processes::{Process, all};

/// How often to look for processes that the other children have started, so that they are not taken
/// for the command's.
pub(super) const FIND_OTHERS_INTERVAL: Duration = Duration::from_secs(1);

/// How many times to look for processes that were started while others were being signalled. More
/// than a few rounds are needed only if processes start others faster than these can be found.
const ROUNDS_MAX: usize = 10;

/// A process that could not be signalled.
pub(super) struct SignalFailure {
    pub(super) process: Process,
    pub(super) error: io::Error,
}

/// The descendants of this process, except those that it had before it became a
/// [subreaper](Self::adopt).
pub(super) struct Descendants {
    own: i32,
    own_group: i32,
    /// Children from before that, and the processes that they have started: the start time and the
    /// group of each, by its id.
    others: HashMap<i32, (u64, i32)>,
}

impl Descendants {
    /// Makes this process a subreaper: from now on, its descendants stay its descendants.
    ///
    /// # Errors
    /// If the system cannot do that, or if /proc shows another namespace of processes: then
    /// unrelated processes would be taken for the command's.
    pub(super) fn adopt() -> io::Result<Self> {
        let own = getpid();
        let unreadable = |error| io::Error::other(format!("/proc cannot be read: {error}"));
        let shown = std::fs::read_link("/proc/self").map_err(unreadable)?;
        if shown.as_os_str() != own.as_raw_nonzero().to_string().as_str() {
            return Err(io::Error::other("/proc shows another namespace of processes"));
        }
        set_child_subreaper(Some(own))?;
        let own = own.as_raw_nonzero().get();
        // Not by getpgrp(2): its wrapper does not expect a group of another namespace.
        let own_group = Process::read(own).map_or(0, |process| process.group);
        let mut descendants = Self { own, own_group, others: HashMap::new() };
        let before = descendants.find();
        descendants.others = before.iter().map(|found| (found.pid, (found.start, found.group))).collect();
        Ok(descendants)
    }

    /// Whether a child, which has not been reaped, is in this process's group.
    pub(super) fn is_in_own_group(&self, child: Pid) -> bool {
        let child = Process::read(child.as_raw_nonzero().get());
        child.is_none_or(|child| child.group == self.own_group)
    }

    /// Whether this process is known to have descendants that are not the command's.
    pub(super) fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// The command and its descendants, including those that have ended and are not reaped yet.
    pub(super) fn find(&mut self) -> Vec<Process> {
        let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
        for process in all().into_values() {
            children.entry(process.parent).or_default().push(process);
        }
        let (mut found, mut others) = (Vec::new(), HashMap::new());
        let mut parents = vec![(self.own, false)];
        while let Some((parent, is_other)) = parents.pop() {
            // Removed from the map, so that no process is visited twice, even if the list is
            // inconsistent.
            for process in children.remove(&parent).unwrap_or_default() {
                let was_before =
                    self.others.get(&process.pid).is_some_and(|&(start, _)| start == process.start);
                let is_other = is_other || was_before;
                parents.push((process.pid, is_other));
                if is_other {
                    others.insert(process.pid, (process.start, process.group));
                } else {
                    found.push(process);
                }
            }
        }
        self.others = others;
        found
    }

    /// Whether all of them have stopped or ended.
    pub(super) fn have_stopped(&mut self) -> bool {
        self.find().iter().all(|process| process.is_stopped || process.is_zombie)
    }

    /// Continues those that are stopped.
    pub(super) fn go_on(&mut self) {
        // Who may not signal them could not stop them either.
        let _ = self.signal_those(Signal::CONT, |process| process.is_stopped);
    }

    /// Asks those to stop that have left this process's group, so that a terminal does not.
    pub(super) fn stop_outside_group(&mut self) {
        let own = self.own_group;
        // If one of them cannot be signalled, it does not stop, which is noticed.
        let _ = self.signal_those(Signal::TSTP, |process| process.group != own);
    }

    /// Sends a signal to all of them, including those that are started in the meantime. Returns
    /// those that could not be signalled.
    pub(super) fn signal(&mut self, signal: Signal) -> Vec<SignalFailure> {
        self.signal_those(signal, |_| true)
    }

    fn signal_those(&mut self, signal: Signal, wanted: impl Fn(&Process) -> bool) -> Vec<SignalFailure> {
        let (mut signalled, mut refused) = (HashSet::new(), Vec::new());
        for _ in 0..ROUNDS_MAX {
            let found = self.find();
            let new: Vec<Process> = found
                .into_iter()
                .filter(|process| wanted(process) && signalled.insert((process.pid, process.start)))
                .collect();
            // A process that has received a fatal signal can start no further one: fork(2) fails in
            // it. So when a search that began after the last signal finds nothing new, no process
            // was missed.
            if new.is_empty() {
                break;
            }
            for process in new {
                if let Err(error) = send(&process, signal) {
                    refused.push(SignalFailure { process, error });
                }
            }
        }
        refused
    }

    /// Sends a signal again to processes that could not be signalled. Returns those that still
    /// cannot.
    pub(super) fn signal_again(refused: Vec<SignalFailure>, signal: Signal) -> Vec<SignalFailure> {
        let again = |SignalFailure { process, .. }: SignalFailure| {
            let error = send(&process, signal).err()?;
            Some(SignalFailure { process, error })
        };
        refused.into_iter().filter_map(again).collect()
    }

    /// Kills all of them. Returns those that could not be killed.
    pub(super) fn kill(&mut self) -> Vec<SignalFailure> {
        let found = self.find();
        // Whole groups first, in one step: processes that start one another and end could be faster
        // than the search.
        let is_theirs =
            |group: i32| group != self.own_group && !self.others.values().any(|&(_, other)| other == group);
        // Only groups of this process's children: until these are reaped, the id of the group
        // cannot be used again.
        let children = found.iter().filter(|process| process.parent == self.own);
        let groups: HashSet<i32> =
            children.map(|child| child.group).filter(|&group| is_theirs(group)).collect();
        for group in groups.into_iter().filter_map(Pid::from_raw) {
            // Processes that this does not reach are returned below.
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.signal(Signal::KILL)
    }
}

/// Sends a signal to exactly this process. It is no error if the process has ended.
fn send(process: &Process, signal: Signal) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(()) };
    let fd = pidfd_open(pid, PidfdFlags::empty());
    // Read again: by now another process may have this id. The descriptor refers to the process for
    // which it was opened, even after that.
    if Process::read(process.pid).is_none_or(|now| now.start != process.start) {
        return Ok(());
    }
    let sent = match fd {
        Ok(fd) => pidfd_send_signal(fd, signal),
        // Some containers forbid pidfd_open(2).
        Err(_) => kill_process(pid, signal),
    };
    match sent {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
