//! How `lockd run` can end, and the exit status of each way. Pure: knows neither locks nor processes.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;

use crate::cli::text::printable_argument;

/// The server cannot be reached, does not answer, turns clients away, or was stopped or lost before the lock was
/// had: `EX_UNAVAILABLE`. What trying again cannot mend is no matter of this.
const NO_SERVER: u8 = 69;
/// Another session holds the lock, or the server grants nothing yet, and there was to be no wait: `EX_TEMPFAIL`.
const BUSY: u8 = 75;
/// The lock was lost while the command ran.
const LOST: u8 = 76;
/// The lock was not had in time, as of timeout(1).
const TIMED_OUT: u8 = 124;
/// `lockd run` has failed itself, as of timeout(1) and env(1).
const FAILED: u8 = 125;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
/// What a signal's number is added to.
const SIGNALLED: u8 = 128;

/// What `--help` says of all this.
pub(super) const HELP: &str = "\
Exit status:
  of COMMAND, or 128 + N if signal N ended it; else
   69  the server cannot be reached, does not answer, or turns clients away
       (it is full, or stopping), or was stopped or lost before the lock was had
   75  busy, or the server grants nothing yet, with --nonblock or --wait 0 (or CODE)
   76  the lock was lost while COMMAND ran, whatever COMMAND made of that
  124  not had within SECONDS, connecting included, with --wait (or CODE)
  125  a mistake, which trying again does not mend: no such host, a wrong protocol
       or secret, TLS that fails, a limit of the server, a deadlock, a lock that
       an outer lockd run holds; or lockd run failed itself
  126  COMMAND is there and cannot be executed
  127  COMMAND is not there
  128 + N  signal N came before COMMAND was started
    2  the arguments make no sense
If SIGINT has ended COMMAND, or came before it was started, lockd run dies of
SIGINT too, which a shell shows as 130.";

/// How it has ended.
#[derive(Debug)]
pub(super) enum Ending {
    /// The command has ended, and the lock was held all the while, as far as the connection shows.
    Command(ExitStatus),
    /// A signal came before the command was started.
    Interrupted(Signal, String),
    Busy(String),
    TimedOut(String),
    NoServer(String),
    Lost(String),
    NotFound(String),
    NotExecutable(String),
    Failed(String),
}

impl Ending {
    pub(super) fn interrupted(signal: Signal, names: &[OsString]) -> Self {
        let names: Vec<String> = names.iter().map(|name| printable_argument(name)).collect();
        Self::Interrupted(signal, format!("{}: {signal} came before COMMAND was started", names.join(", ")))
    }

    /// Whether SIGINT has ended what was to be done. Then a shell ends its loop, if that shows: it goes on for an
    /// exit status, whatever that is. (Of the other signals there is nothing that a shell would want to know beyond
    /// the status; and dying of SIGQUIT would leave a core dump of this process, in place of the command's perhaps.)
    pub(super) fn is_by_sigint(&self) -> bool {
        match self {
            Self::Command(status) => status.signal() == Some(Signal::SIGINT as i32),
            Self::Interrupted(signal, _) => *signal == Signal::SIGINT,
            _ => false,
        }
    }

    /// The exit status; `conflict` stands for busy and for timed out, if it is given.
    pub(super) fn code(&self, conflict: Option<u8>) -> u8 {
        match self {
            Self::Command(status) => match (status.code(), status.signal()) {
                (Some(code), _) => u8::try_from(code).unwrap_or(FAILED),
                (None, signal) => {
                    signal.and_then(|signal| u8::try_from(signal).ok()).map_or(FAILED, of_signal)
                }
            },
            Self::Interrupted(signal, _) => u8::try_from(*signal as i32).map_or(FAILED, of_signal),
            Self::Busy(_) => conflict.unwrap_or(BUSY),
            Self::TimedOut(_) => conflict.unwrap_or(TIMED_OUT),
            Self::NoServer(_) => NO_SERVER,
            Self::Lost(_) => LOST,
            Self::NotFound(_) => NOT_FOUND,
            Self::NotExecutable(_) => NOT_EXECUTABLE,
            Self::Failed(_) => FAILED,
        }
    }

    /// What there is to say about it, and whether it is what `--quiet` does not want to hear.
    pub(super) fn words(&self) -> Option<(&str, bool)> {
        match self {
            Self::Command(_) => None,
            Self::Busy(words) | Self::TimedOut(words) | Self::Interrupted(_, words) => Some((words, true)),
            Self::NoServer(words)
            | Self::Lost(words)
            | Self::NotFound(words)
            | Self::NotExecutable(words)
            | Self::Failed(words) => Some((words, false)),
        }
    }
}

fn of_signal(signal: u8) -> u8 {
    SIGNALLED.saturating_add(signal)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// One of each but the command's own.
    fn endings() -> Vec<Ending> {
        let words = String::new;
        vec![
            Ending::Busy(words()),
            Ending::TimedOut(words()),
            Ending::NoServer(words()),
            Ending::Lost(words()),
            Ending::NotFound(words()),
            Ending::NotExecutable(words()),
            Ending::Failed(words()),
        ]
    }

    #[test]
    fn every_way_to_end_has_a_code_of_its_own_that_the_help_names() {
        let codes: BTreeSet<u8> = endings().iter().map(|ending| ending.code(None)).collect();
        assert_eq!(codes.len(), endings().len());
        let told: BTreeSet<u8> = HELP.lines().filter_map(|line| line[..5].trim().parse().ok()).collect();
        assert!(codes.iter().all(|code| told.contains(code)), "{codes:?} {told:?}");
    }

    #[test]
    fn a_code_of_ones_own_stands_for_busy_and_timed_out_only() {
        let own = endings().iter().filter(|ending| ending.code(Some(1)) == 1).count();
        assert_eq!(own, 2);
    }

    #[test]
    fn the_commands_status_is_passed_on() {
        for code in [0, 1, 75, 255_u8] {
            assert_eq!(Ending::Command(ExitStatus::from_raw(i32::from(code) << 8)).code(Some(1)), code);
        }
        assert_eq!(Ending::Command(ExitStatus::from_raw(9)).code(None), 137);
        assert_eq!(Ending::Command(ExitStatus::from_raw(15 | 0x80)).code(None), 143);
        let interrupted = Ending::interrupted(Signal::SIGINT, &["a".into()]);
        assert_eq!(interrupted.code(None), 130);
        assert!(interrupted.is_by_sigint() && Ending::Command(ExitStatus::from_raw(2)).is_by_sigint());
        for other in
            [Ending::Command(ExitStatus::from_raw(130 << 8)), Ending::interrupted(Signal::SIGTERM, &[])]
        {
            assert!(!other.is_by_sigint(), "{other:?}");
        }
    }
}
