//! The possible outcomes of `lockd run`, and the exit status of each. Pure: knows neither locks nor
//! processes.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use crate::cli::text::printable_argument;

/// There is no server: it cannot be reached, does not answer, or turns clients away:
/// `EX_UNAVAILABLE`. Trying again may help; where it cannot, the status is [`FAILED`]. If the locks
/// are waited for, so is the server, and this is the status if it is still absent at the time
/// limit.
const NO_SERVER: u8 = 69;
/// Another session holds the lock, or the server grants nothing yet, and `lockd run` was not to
/// wait: `EX_TEMPFAIL`.
const BUSY: u8 = 75;
/// The lock was lost while the command ran.
const LOST: u8 = 76;
/// The lock was not granted within the time limit, although there was a server; the same status as of timeout(1).
const TIMED_OUT: u8 = 124;
/// `lockd run` itself has failed; the same status as of timeout(1) and env(1).
const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// Added to the number of a signal.
const SIGNALLED: u8 = 128;

/// The section of `--help` on the exit status.
pub(super) const HELP: &str = "\
Exit status:
  the exit status of COMMAND, or 128 + N if signal N ended it, also if its lock
  was not kept for --at-least; otherwise
   69  there is no server: at once with --nonblock or --wait 0, and with --wait if
       there is none when SECONDS are over. It cannot be reached, does not answer,
       (also while the lock is waited for), or turns clients away (it is full or
       stopping, or its --allow does not name this host)
   75  the lock is busy, or the server grants nothing yet, with --nonblock or
       --wait 0 (or CODE)
   76  the lock was lost while COMMAND ran, whatever COMMAND returned, or before it
       could be started
  124  with --wait: the lock was not granted within SECONDS, although there was a
       server when they were over (or CODE)
  125  trying again does not help: no such host, a wrong protocol or secret, TLS
       that fails, a limit of the server, a deadlock, a lock that an outer
       lockd run holds; or lockd run itself has failed
  126  COMMAND exists and cannot be executed
  127  COMMAND does not exist
  128 + N  signal N arrived before COMMAND was started
    2  the arguments are wrong
If SIGINT has ended COMMAND, or arrived before it was started, lockd run ends
itself by SIGINT too, which a shell shows as 130.";

/// The outcome of `lockd run`, with the message for it.
#[derive(Debug)]
pub(super) enum RunOutcome {
    /// The command has ended, and the lock was held until then.
    Command(ExitStatus),
    /// The same, but then the lock was not held for as long as `--at-least` says. The command has
    /// done its work under the lock, so its status counts.
    NotKept(ExitStatus, String),
    /// A signal arrived before the command was started.
    Interrupted(Signal, String),
    Busy(String),
    TimedOut(String),
    NoServer(String),
    Lost(String),
    NotFound(String),
    NotExecutable(String),
    Failed(String),
}

impl RunOutcome {
    pub(super) fn interrupted(signal: Signal, names: &[OsString]) -> Self {
        let names: Vec<String> = names.iter().map(|name| printable_argument(name)).collect();
        Self::Interrupted(
            signal,
            format!("{}: {signal} arrived before COMMAND was started", names.join(", ")),
        )
    }

    /// Whether SIGINT has ended the command or the wait. A shell leaves its loop only if this
    /// process then dies of SIGINT too; it goes on after any exit status. (For other signals the
    /// status is enough; and if this process died of SIGQUIT, its core dump might replace the
    /// command's.)
    pub(super) fn is_by_sigint(&self) -> bool {
        match self {
            Self::Command(status) | Self::NotKept(status, _) => {
                status.signal() == Some(Signal::SIGINT as i32)
            }
            Self::Interrupted(signal, _) => *signal == Signal::SIGINT,
            _ => false,
        }
    }

    /// The exit status. `conflict`, if given, replaces the statuses of busy and timed out.
    pub(super) fn code(&self, conflict: Option<u8>) -> u8 {
        match self {
            Self::Command(status) | Self::NotKept(status, _) => match (status.code(), status.signal()) {
                (Some(code), _) => u8::try_from(code).unwrap_or(FAILED),
                (None, signal) => {
                    signal.and_then(|signal| u8::try_from(signal).ok()).map_or(FAILED, signal_status)
                }
            },
            Self::Interrupted(signal, _) => u8::try_from(*signal as i32).map_or(FAILED, signal_status),
            Self::Busy(_) => conflict.unwrap_or(BUSY),
            Self::TimedOut(_) => conflict.unwrap_or(TIMED_OUT),
            Self::NoServer(_) => NO_SERVER,
            Self::Lost(_) => LOST,
            Self::NotFound(_) => NOT_FOUND,
            Self::NotExecutable(_) => NOT_EXECUTABLE,
            Self::Failed(_) => FAILED,
        }
    }

    /// The message, if there is one, and whether `--quiet` suppresses it.
    pub(super) fn message(&self) -> Option<(&str, bool)> {
        match self {
            Self::Command(_) => None,
            Self::Busy(text) | Self::TimedOut(text) | Self::Interrupted(_, text) => Some((text, true)),
            Self::NotKept(_, text)
            | Self::NoServer(text)
            | Self::Lost(text)
            | Self::NotFound(text)
            | Self::NotExecutable(text)
            | Self::Failed(text) => Some((text, false)),
        }
    }
}

fn signal_status(signal: u8) -> u8 {
    SIGNALLED.saturating_add(signal)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// One of each, without the command's own status and signals.
    fn outcomes() -> Vec<RunOutcome> {
        let text = String::new;
        vec![
            RunOutcome::Busy(text()),
            RunOutcome::TimedOut(text()),
            RunOutcome::NoServer(text()),
            RunOutcome::Lost(text()),
            RunOutcome::NotFound(text()),
            RunOutcome::NotExecutable(text()),
            RunOutcome::Failed(text()),
        ]
    }

    #[test]
    fn every_outcome_has_a_status_of_its_own_that_the_help_lists() {
        let codes: BTreeSet<u8> = outcomes().iter().map(|outcome| outcome.code(None)).collect();
        assert_eq!(codes.len(), outcomes().len());
        let listed: BTreeSet<u8> = HELP.lines().filter_map(|line| line[..5].trim().parse().ok()).collect();
        assert!(codes.iter().all(|code| listed.contains(code)), "{codes:?} {listed:?}");
    }

    #[test]
    fn the_conflict_exit_code_replaces_busy_and_timed_out_only() {
        let own = outcomes().iter().filter(|outcome| outcome.code(Some(1)) == 1).count();
        assert_eq!(own, 2);
    }

    #[test]
    fn the_commands_status_is_passed_on() {
        for code in [0, 1, 75, 255_u8] {
            let status = ExitStatus::from_raw(i32::from(code) << 8);
            assert_eq!(RunOutcome::Command(status).code(Some(1)), code);
            assert_eq!(RunOutcome::NotKept(status, String::new()).code(Some(1)), code);
        }
        assert_eq!(RunOutcome::Command(ExitStatus::from_raw(9)).code(None), 137);
        assert_eq!(RunOutcome::Command(ExitStatus::from_raw(15 | 0x80)).code(None), 143);
        let interrupted = RunOutcome::interrupted(Signal::SIGINT, &["a".into()]);
        assert_eq!(interrupted.code(None), 130);
        assert!(interrupted.is_by_sigint() && RunOutcome::Command(ExitStatus::from_raw(2)).is_by_sigint());
        for other in [
            RunOutcome::Command(ExitStatus::from_raw(130 << 8)),
            RunOutcome::interrupted(Signal::SIGTERM, &[]),
        ] {
            assert!(!other.is_by_sigint(), "{other:?}");
        }
    }
}
