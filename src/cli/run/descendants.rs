//! All that the command has started, whatever sessions and process groups it is in by now, and signals to it.
//! Knows processes, and nothing about locks.
//!
//! This process is a *subreaper*: a descendant whose parent ends becomes its child, also a daemon. So whatever
//! the command has started can be found by going down from this process, without remembering anything; and once
//! this process has no children left, no descendants are left either.
//!
//! A shell that executes `lockd run` leaves its own children to it. They, and what they start, are found before
//! the command is started, and left alone. One gap remains: if such a child starts a process and ends within
//! about a second, that process is taken for one of the command's.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
    set_child_subreaper,
};

use super::processes::{Process, all};

/// How often what others have started is looked for, so that it is not taken for the command's.
pub(super) const LOOK_FOR_OTHERS: Duration = Duration::from_secs(1);

/// How often processes are looked for that were started while others got their signal. More than a few rounds
/// are needed only for processes that start others faster than they can be found.
const ROUNDS_MAX: usize = 10;

/// A process that did not get a signal.
pub(super) struct Refusal {
    pub(super) process: Process,
    pub(super) error: io::Error,
}

/// The descendants of this process, except those that it had before it became a [subreaper](Self::adopt).
pub(super) struct Descendants {
    own: i32,
    own_group: i32,
    /// What was there before, and what that has started: the start and the group of each by its id.
    others: HashMap<i32, (u64, i32)>,
}

impl Descendants {
    /// From now on, all that this process's children start stays below it.
    ///
    /// # Errors
    /// If the system does not offer that, or if /proc does not show the processes of this process's namespace: then
    /// other processes would be taken for the command's.
    pub(super) fn adopt() -> io::Result<Self> {
        let own = getpid();
        let shown = std::fs::read_link("/proc/self")?;
        if shown.as_os_str() != own.as_raw_nonzero().to_string().as_str() {
            return Err(io::Error::other("/proc shows another namespace of processes"));
        }
        set_child_subreaper(Some(own))?;
        let own = own.as_raw_nonzero().get();
        // Not by getpgrp(2), whose wrapper takes a group of another namespace for impossible.
        let own_group = Process::read(own).map_or(0, |process| process.group);
        let mut descendants = Self { own, own_group, others: HashMap::new() };
        let before = descendants.find();
        descendants.others = before.iter().map(|found| (found.pid, (found.start, found.group))).collect();
        Ok(descendants)
    }

    /// Whether this process has descendants that are not the command's, as far as is known.
    pub(super) fn has_others(&self) -> bool {
        !self.others.is_empty()
    }

    /// The command's descendants and the command itself, also those that have ended and were not waited for.
    pub(super) fn find(&mut self) -> Vec<Process> {
        let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
        for process in all().into_values() {
            children.entry(process.parent).or_default().push(process);
        }
        let (mut found, mut others) = (Vec::new(), HashMap::new());
        let mut parents = vec![(self.own, false)];
        while let Some((parent, is_other)) = parents.pop() {
            // Taken out of the map: even if the list were inconsistent, no process is visited twice.
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

    /// Sends a signal to all of them, and to those that are started meanwhile. Returns those that did not get it.
    pub(super) fn signal(&mut self, signal: Signal) -> Vec<Refusal> {
        let (mut told, mut refused) = (HashSet::new(), Vec::new());
        for _ in 0..ROUNDS_MAX {
            let found = self.find();
            let untold: Vec<Process> =
                found.into_iter().filter(|process| told.insert((process.pid, process.start))).collect();
            // A process with a signal that will end it can start no other one: the kernel sees to that. So once
            // a search that began after the last signal finds nothing new, none was missed.
            if untold.is_empty() {
                break;
            }
            for process in untold {
                if let Err(error) = send(&process, signal) {
                    refused.push(Refusal { process, error });
                }
            }
        }
        refused
    }

    /// Sends a signal once more to those that did not get it. Returns those that did not get it now either.
    pub(super) fn signal_again(refused: Vec<Refusal>, signal: Signal) -> Vec<Refusal> {
        let again = |Refusal { process, .. }: Refusal| {
            let error = send(&process, signal).err()?;
            Some(Refusal { process, error })
        };
        refused.into_iter().filter_map(again).collect()
    }

    /// Kills all of them. Returns those that may not be killed.
    pub(super) fn kill(&mut self) -> Vec<Refusal> {
        let found = self.find();
        // Whole groups first, in one step: processes that start one another and end could outrun the search.
        let is_theirs =
            |group: i32| group != self.own_group && !self.others.values().any(|&(_, other)| other == group);
        // Of children only: until this process has waited for them their group cannot become another one.
        let children = found.iter().filter(|process| process.parent == self.own);
        let groups: HashSet<i32> =
            children.map(|child| child.group).filter(|&group| is_theirs(group)).collect();
        for group in groups.into_iter().filter_map(Pid::from_raw) {
            // What it does not reach is told by the following.
            let _ = kill_process_group(group, Signal::KILL);
        }
        self.signal(Signal::KILL)
    }
}

/// Sends a signal to exactly this process; if it has ended that is no error.
fn send(process: &Process, signal: Signal) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(process.pid) else { return Ok(()) };
    let fd = pidfd_open(pid, PidfdFlags::empty());
    // Looked at again: by now the id may be another process's. The descriptor stays with the process for which
    // it was opened.
    if Process::read(process.pid).is_none_or(|now| now.start != process.start) {
        return Ok(());
    }
    let sent = match fd {
        Ok(fd) => pidfd_send_signal(fd, signal),
        // Some containers forbid it.
        Err(_) => kill_process(pid, signal),
    };
    match sent {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
