//! Supervises the running command: passes signals on to it, waits for its end, and watches the
//! lock. A command that has lost its lock must not go on with what the lock protects, so it is
//! ended.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::acquire::HeldLocks;
use super::command::RunningCommand;
use super::descendants::FIND_OTHERS_INTERVAL;
use super::end::end;
use super::outcome::RunOutcome;
use super::signals::SignalQueue;
use super::wait::{readable, wait_for};
use crate::cli::messages::MessageWriter;

/// How often to check whether the lock is held: if only the silence of this host shows the loss, no
/// descriptor becomes readable.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits for the end of the command, and releases the lock.
pub(super) fn supervise(
    locks: HeldLocks,
    mut command: RunningCommand,
    signals: &SignalQueue,
    messages: &MessageWriter,
    grace: Duration,
    has_terminal: bool,
) -> RunOutcome {
    let was_ended = || "the command has been ended".to_owned();
    let ended = match wait(&locks, &mut command, signals, has_terminal) {
        Ok(CommandEnd::Exited { status, is_in_a_hurry }) => {
            return match locks.release(signals, is_in_a_hurry) {
                Ok(()) => RunOutcome::Command(status),
                Err(reason) => RunOutcome::Lost(format!("the lock was lost while the command ran: {reason}")),
            };
        }
        Ok(CommandEnd::LockLost) => {
            let reason = || format!("the lock is lost, the command is being ended: {}", locks.loss_reason());
            end(&mut command, signals, grace, messages, reason)
        }
        Err(error) => {
            // The lock can no longer be watched either.
            let reason = || format!("the command cannot be watched and is being ended: {error}");
            let ended = end(&mut command, signals, grace, messages, reason);
            locks.close();
            return RunOutcome::Failed(ended.err().unwrap_or_else(was_ended));
        }
    };
    // Closed only now: a server that has ended the session may keep the lock until then.
    locks.close();
    RunOutcome::Lost(ended.err().unwrap_or_else(was_ended))
}

enum CommandEnd {
    /// The command has exited. `is_in_a_hurry` says whether a signal arrived that was too late for
    /// the command.
    Exited {
        status: ExitStatus,
        is_in_a_hurry: bool,
    },
    LockLost,
}

fn wait(
    locks: &HeldLocks,
    command: &mut RunningCommand,
    signals: &SignalQueue,
    has_terminal: bool,
) -> io::Result<CommandEnd> {
    // A signal that arrived while the command was being started may not have reached it. Twice is
    // better than never.
    while let Some(received) = signals.next() {
        command.pass_on(received, false);
    }
    let mut next_search = Instant::now() + FIND_OTHERS_INTERVAL;
    loop {
        if let Some(status) = command.status()? {
            return Ok(CommandEnd::Exited { status, is_in_a_hurry: false });
        }
        if !locks.session.is_alive() {
            return Ok(CommandEnd::LockLost);
        }
        if command.descendants.has_others() && Instant::now() >= next_search {
            command.descendants.find();
            next_search = Instant::now() + FIND_OTHERS_INTERVAL;
        }
        let lost = locks.session.lost_fd();
        let mut fds = vec![readable(signals)];
        fds.extend(lost.as_ref().map(readable));
        wait_for(&mut fds, Some(Instant::now() + CHECK_INTERVAL))?;
        while let Some(received) = signals.next() {
            // A command that has ended cannot receive it any more.
            if let Some(status) = command.status()? {
                return Ok(CommandEnd::Exited { status, is_in_a_hurry: received.is_ending() });
            }
            command.pass_on(received, has_terminal);
        }
    }
}
