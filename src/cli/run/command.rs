//! The command as a process: its environment, its process group, what ends it if this process is
//! killed, the signals passed on to it, and its exit status and those of all other children. Knows
//! only those facts about the locks that are in the command's environment.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use nix::sys::signal::{SigSet, Signal as SignalNumber};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, getppid, set_parent_process_death_signal, wait};

use super::ancestors;
use super::descendants::Descendants;
use super::dispositions;
use super::outcome::RunOutcome;
use super::signals::ReceivedSignal;
use crate::cli::text::printable_argument;

/// What the command finds in its environment.
pub(super) struct CommandEnv<'a> {
    pub(super) names: &'a [OsString],
    pub(super) token: u64,
    pub(super) orphaned: bool,
    /// For a `lockd run` that the command starts, see [`ancestors`](super::ancestors).
    pub(super) held: String,
}

/// A command that has been started, and may have ended.
pub(super) struct RunningCommand {
    pid: Pid,
    status: Option<ExitStatus>,
    /// Whether this process has children that have not been waited for.
    has_children: bool,
    pub(super) descendants: Descendants,
}

/// Whether there is a terminal that sends signals to process groups.
pub(super) fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// The command that has the user's shell run `line`, as flock(1) does.
pub(super) fn in_shell(line: &OsStr) -> Vec<OsString> {
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    vec![shell.unwrap_or_else(|| "/bin/sh".into()), "-c".into(), line.to_owned()]
}

/// Starts the command. Must be called by a thread that lives as long as the process: the kernel
/// kills the command when the thread that has started it ends.
///
/// # Errors
/// The outcome of `lockd run` if the command cannot be started.
pub(super) fn start(
    command: &[OsString],
    environment: &CommandEnv<'_>,
    mask: SigSet,
    has_terminal: bool,
    descendants: Descendants,
) -> Result<RunningCommand, RunOutcome> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| RunOutcome::Failed("no command is given".to_owned()))?;
    let mut command = Command::new(program);
    command.args(arguments);
    set_environment(&mut command, environment);
    if !has_terminal {
        command.process_group(0);
    }
    let parent = getpid();
    let prepare = move || prepare(parent, mask);
    #[expect(unsafe_code, reason = "only the child can ask the kernel to kill it with its parent")]
    // SAFETY: the child of a process with threads may call only what is safe in a signal handler.
    // `prepare` makes system calls, and neither allocates nor locks.
    unsafe {
        command.pre_exec(prepare)
    };
    let child = command.spawn().map_err(|error| {
        let text = format!("{}: {error}", printable_argument(program));
        match error.kind() {
            io::ErrorKind::NotFound => RunOutcome::NotFound(text),
            // No process could be created: that is not the program's fault.
            io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => RunOutcome::Failed(text),
            _ => RunOutcome::NotExecutable(text),
        }
    })?;
    Ok(RunningCommand { pid: Pid::from_child(&child), status: None, has_children: true, descendants })
}

impl RunningCommand {
    /// Reaps all children that have ended, without blocking: the command, its orphans, and children
    /// that a shell left to this process, which no other process can reap. Returns the command's
    /// status once it has ended.
    ///
    /// # Errors
    /// If the system refuses.
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

    /// Passes a signal on to the command and its descendants, unless the terminal has sent it to
    /// them too. It has not if they have left this process's group: timeout(1) does, for example,
    /// and Ctrl-C would end nothing.
    pub(super) fn pass_on(&mut self, received: ReceivedSignal, has_terminal: bool) {
        if received.signal == SignalNumber::SIGCHLD {
            return;
        }
        if has_terminal && received.is_for_group() {
            if received.is_stopping() {
                return self.descendants.stop_outside_group();
            }
            if self.descendants.is_in_own_group(self.pid) {
                return;
            }
        }
        if let Some(signal) = Signal::from_named_raw(received.signal as i32) {
            // Processes that this process may not signal would not get the signal from its sender
            // either.
            let _ = self.descendants.signal(signal);
        }
    }

    /// Whether the command and all its descendants have ended.
    pub(super) fn all_have_ended(&mut self) -> bool {
        let has_ended = matches!(self.status(), Ok(Some(_)));
        // Without children there are no descendants. If there are children, they may not be the
        // command's.
        has_ended
            && (!self.has_children || self.descendants.has_others() && self.descendants.find().is_empty())
    }
}

fn set_environment(command: &mut Command, environment: &CommandEnv<'_>) {
    let first = environment.names.first().cloned().unwrap_or_default();
    command.env("LOCKD_NAME", first).env("LOCKD_NAMES", lines(environment.names));
    command.env("LOCKD_TOKEN", environment.token.to_string()).env(ancestors::VARIABLE, &environment.held);
    if environment.orphaned {
        command.env("LOCKD_ORPHANED", "1");
    } else {
        // This `lockd run` may have inherited the variable from an outer one.
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

/// Runs in the child, before it becomes the command.
fn prepare(parent: Pid, mask: SigSet) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The parent may have been killed before that.
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
    fn each_name_is_on_a_line_with_its_bytes_unchanged() {
        assert_eq!(lines(&["a b".into(), OsString::from_vec(vec![0xff])]), {
            OsString::from_vec(b"a b\n\xff".to_vec())
        });
    }
}
