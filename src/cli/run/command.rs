//! Starting the command: what it is told, which process group it is in, and what ends it should this process
//! be killed; and its exit status, and those of all other children. Knows nothing of locks but what the command
//! is told of them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use nix::sys::signal::SigSet;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, getppid, set_parent_process_death_signal, wait};

use super::ancestors;
use super::descendants::Descendants;
use super::dispositions;
use super::ending::Ending;
use crate::cli::text::printable_argument;

/// What a command is told in its environment.
pub(super) struct Told<'a> {
    pub(super) names: &'a [OsString],
    pub(super) token: u64,
    pub(super) orphaned: bool,
    /// For every `lockd run` that it starts, see [`ancestors`](super::ancestors).
    pub(super) held: String,
}

/// A command that runs, or has ended.
pub(super) struct Started {
    pid: Pid,
    status: Option<ExitStatus>,
    /// Whether any child is left that has not been waited for.
    has_children: bool,
    pub(super) descendants: Descendants,
}

/// Whether there is a terminal that sends signals to process groups.
pub(super) fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Starts the command. Must be called by the thread that waits for it: the kernel ends the command with the
/// thread, not with the process.
///
/// # Errors
/// How `lockd run` ends if it cannot be started.
pub(super) fn start(
    command: &[OsString],
    told: &Told<'_>,
    mask: SigSet,
    has_terminal: bool,
    descendants: Descendants,
) -> Result<Started, Ending> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| Ending::Failed("no command is given".to_owned()))?;
    let mut command = Command::new(program);
    command.args(arguments);
    tell(&mut command, told);
    if !has_terminal {
        command.process_group(0);
    }
    let parent = getpid();
    let prepare = move || prepare(parent, mask);
    #[expect(unsafe_code, reason = "what the kernel is to do with a child can be said by the child only")]
    // SAFETY: in the child of a process with threads only what is safe in a signal handler may be called.
    // `prepare` makes system calls, and neither allocates nor locks.
    unsafe {
        command.pre_exec(prepare)
    };
    let child = command.spawn().map_err(|error| {
        let words = format!("{}: {error}", printable_argument(program));
        match error.kind() {
            io::ErrorKind::NotFound => Ending::NotFound(words),
            // No process could be made, whatever it was to become.
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Ending::Failed(words),
            _ => Ending::NotExecutable(words),
        }
    })?;
    Ok(Started { pid: Pid::from_child(&child), status: None, has_children: true, descendants })
}

impl Started {
    /// Waits for all children that have ended, without blocking: the command, its orphans, and what a shell left
    /// to this process, for which no one else can wait. `Some` once the command has ended.
    ///
    /// # Errors
    /// If the system does not tell.
    pub(super) fn status(&mut self) -> io::Result<Option<ExitStatus>> {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.pid => {
                    self.status = Some(ExitStatus::from_raw(status.as_raw()));
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => {
                    self.has_children = true;
                    return Ok(self.status);
                }
                Err(Errno::CHILD) if self.status.is_some() => {
                    self.has_children = false;
                    return Ok(self.status);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the command and all that it has started have ended.
    pub(super) fn all_have_ended(&mut self) -> bool {
        let has_ended = matches!(self.status(), Ok(Some(_)));
        // Without children there are no descendants. If there are children they may be others'.
        has_ended
            && (!self.has_children || self.descendants.has_others() && self.descendants.find().is_empty())
    }
}

fn tell(command: &mut Command, told: &Told<'_>) {
    let first = told.names.first().cloned().unwrap_or_default();
    command.env("LOCKD_NAME", first).env("LOCKD_NAMES", lines(told.names));
    command.env("LOCKD_TOKEN", told.token.to_string()).env(ancestors::VARIABLE, &told.held);
    if told.orphaned {
        command.env("LOCKD_ORPHANED", "1");
    } else {
        // One `lockd run` may have been started by another.
        command.env_remove("LOCKD_ORPHANED");
    }
}

/// One name on each line.
fn lines(names: &[OsString]) -> OsString {
    let mut lines = Vec::new();
    for (number, name) in names.iter().enumerate() {
        if number > 0 {
            lines.push(b'\n');
        }
        lines.extend(name.clone().into_vec());
    }
    OsString::from_vec(lines)
}

/// In the child, before it becomes the command.
fn prepare(parent: Pid, mask: SigSet) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have been killed before that.
    if getppid() != Some(parent) {
        return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
    }
    dispositions::restore()?;
    mask.thread_set_mask()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_on_lines_as_they_are() {
        assert_eq!(lines(&["a b".into(), OsString::from_vec(vec![0xff])]), {
            OsString::from_vec(b"a b\n\xff".to_vec())
        });
    }
}
