//! The command and what it has started, as far as signals are concerned. Knows processes and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal, test_kill_process_group,
};

/// Whom signals reach.
pub(super) enum Party {
    /// A process group of the command's own: whatever has not left it.
    Group(Pid),
    /// The command is in this process's group, as a terminal wants it, and with it may be others that are
    /// none of its business: so it is the command and its descendants.
    Tree(Tree),
}

/// A process and its descendants. Those that have been found once are known from then on, also when the one
/// that started them has ended.
pub(super) struct Tree {
    /// By process id. What a descriptor stands for is that process for ever, also when its id is another's.
    known: BTreeMap<i32, OwnedFd>,
}

impl Party {
    /// The descendants of a process that has not been waited for.
    ///
    /// # Errors
    /// If the system gives no descriptor for it.
    pub(super) fn tree(root: Pid) -> io::Result<Self> {
        let fd = pidfd_open(root, PidfdFlags::empty())?;
        Ok(Self::Tree(Tree { known: BTreeMap::from([(root.as_raw_nonzero().get(), fd)]) }))
    }

    /// Sends a signal to everybody.
    pub(super) fn signal(&mut self, signal: Signal) {
        match self {
            Self::Group(group) => {
                // It fails only if nobody is left.
                let _ = kill_process_group(*group, signal);
            }
            Self::Tree(tree) => tree.signal(signal),
        }
    }

    /// Whether somebody is left.
    pub(super) fn is_there(&mut self) -> bool {
        match self {
            Self::Group(group) => test_kill_process_group(*group).is_ok(),
            Self::Tree(tree) => {
                tree.find_more();
                !tree.known.is_empty()
            }
        }
    }
}

impl Tree {
    fn signal(&mut self, signal: Signal) {
        self.find_more();
        let mut sent = Vec::new();
        // Who has been started while others were being told is told, too.
        loop {
            let untold: Vec<i32> = self.known.keys().copied().filter(|pid| !sent.contains(pid)).collect();
            if untold.is_empty() {
                return;
            }
            for pid in untold {
                if let Some(fd) = self.known.get(&pid) {
                    // It fails only if that one has ended.
                    let _ = pidfd_send_signal(fd, signal);
                }
                sent.push(pid);
            }
            self.find_more();
        }
    }

    /// Forgets who has ended, and finds who has been started.
    fn find_more(&mut self) {
        let parents = parents();
        loop {
            let is_new = |(pid, parent): &(&i32, &i32)| {
                !self.known.contains_key(pid) && self.known.contains_key(parent)
            };
            let found: Vec<i32> = parents.iter().filter(is_new).map(|(&pid, _)| pid).collect();
            if found.is_empty() {
                break;
            }
            let before = self.known.len();
            for pid in found {
                let fd = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
                // Looked at again: by now the id may be another's.
                let is_still = parent_of(pid).is_some_and(|parent| self.known.contains_key(&parent));
                if let (Some(fd), true) = (fd, is_still) {
                    self.known.insert(pid, fd);
                }
            }
            if self.known.len() == before {
                break;
            }
        }
        self.known.retain(|_, fd| !has_ended(fd));
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// Every process, and the one that started it.
fn parents() -> BTreeMap<i32, i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, parent_of(pid)?))).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name stands in parentheses, and may have more of them in it.
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}
