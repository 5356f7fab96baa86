//! Supervises the running command: passes signals on to it, waits for its end, and watches the
//! lock. A command that has lost its lock must not go on with what the lock protects, so it is
//! ended. When the command has ended by itself, the lock may be kept a little longer.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::acquire::HeldLocks;
use super::command::RunningCommand;
use super::descendants::FIND_OTHERS_INTERVAL;
use super::end::end;
use super::linger::{LingerEnd, linger};
use super::outcome::RunOutcome;
use super::signals::SignalQueue;
use super::watch::watch;
use crate::cli::messages::MessageWriter;

/// Waits for the end of the command, and releases the lock, but not before `kept_until`.
pub(super) fn supervise(
    locks: HeldLocks,
    mut command: RunningCommand,
    signals: &SignalQueue,
    messages: &MessageWriter,
    grace: Duration,
    kept_until: Instant,
    has_terminal: bool,
) -> RunOutcome {
    let was_ended = || "the command has been ended".to_owned();
    let ended = match wait(&locks, &mut command, signals, has_terminal) {
        Ok(CommandEnd::Exited(exit)) => return keep_and_release(locks, &exit, kept_until, signals),
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
    Exited(CommandExit),
    LockLost,
}

struct CommandExit {
    status: ExitStatus,
    /// Whether a signal arrived that ends a process, but was too late for the command.
    is_in_a_hurry: bool,
    /// Whether a signal arrived while the command ran that [asks to
    /// end](super::signals::ReceivedSignal::asks_to_end).
    was_asked_to_end: bool,
}

/// Releases the lock, if the command has held it to its end. Before that keeps it until
/// `kept_until`, unless somebody wants this process to end: `systemctl stop` or Ctrl-C must not
/// have to be repeated.
fn keep_and_release(
    locks: HeldLocks,
    exit: &CommandExit,
    kept_until: Instant,
    signals: &SignalQueue,
) -> RunOutcome {
    let &CommandExit { status, is_in_a_hurry, was_asked_to_end } = exit;
    let is_over = is_in_a_hurry || was_asked_to_end || Instant::now() >= kept_until;
    if is_over || !locks.session.is_alive() {
        return match locks.release(signals, is_in_a_hurry) {
            Ok(()) => RunOutcome::Command(status),
            Err(reason) => RunOutcome::Lost(format!("the lock was lost while the command ran: {reason}")),
        };
    }
    let lingered = linger(&locks.session, kept_until, signals);
    let released = locks.release(signals, matches!(lingered, Ok(LingerEnd::Signal)));
    match (lingered, released) {
        (_, Err(reason)) => RunOutcome::NotKept(
            status,
            format!("the lock was lost after the command had ended, and others may get it early: {reason}"),
        ),
        (Err(error), Ok(())) => {
            RunOutcome::NotKept(status, format!("the lock is released early, it cannot be watched: {error}"))
        }
        (Ok(_), Ok(())) => RunOutcome::Command(status),
    }
}

fn wait(
    locks: &HeldLocks,
    command: &mut RunningCommand,
    signals: &SignalQueue,
    has_terminal: bool,
) -> io::Result<CommandEnd> {
    let mut was_asked_to_end = false;
    // A signal that arrived while the command was being started may not have reached it. Twice is
    // better than never.
    while let Some(received) = signals.next() {
        was_asked_to_end |= received.asks_to_end();
        command.pass_on(received, false);
    }
    let mut next_search = Instant::now() + FIND_OTHERS_INTERVAL;
    loop {
        if let Some(status) = command.status()? {
            let exit = CommandExit { status, is_in_a_hurry: false, was_asked_to_end };
            return Ok(CommandEnd::Exited(exit));
        }
        if !locks.session.is_alive() {
            return Ok(CommandEnd::LockLost);
        }
        if command.descendants.has_others() && Instant::now() >= next_search {
            command.descendants.find();
            next_search = Instant::now() + FIND_OTHERS_INTERVAL;
        }
        watch(&locks.session, signals, None)?;
        while let Some(received) = signals.next() {
            // A command that has ended cannot receive it any more.
            if let Some(status) = command.status()? {
                let exit = CommandExit { status, is_in_a_hurry: received.is_ending(), was_asked_to_end };
                return Ok(CommandEnd::Exited(exit));
            }
            was_asked_to_end |= received.asks_to_end();
            command.pass_on(received, has_terminal);
        }
    }
}
