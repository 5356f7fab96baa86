//! Supervises the running command: passes signals on to it, waits for its end, and watches the
//! lock. A command that has lost its lock must not go on with what the lock protects, so it is
//! ended. When the command has ended by itself, the lock may be kept a little longer.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::acquire::HeldLocks;
use super::command::RunningCommand;
use super::descendants::FIND_OTHERS_INTERVAL;
use super::end::end;
use super::linger::{LingerEnd, linger};
use super::outcome::RunOutcome;
use super::signals::{ReceivedSignal, SignalQueue};
use super::stop::{PendingStop, StopProgress};
use super::watch::{CHECK_INTERVAL, watch};
use crate::cli::messages::MessageWriter;

/// How long a lock is held.
pub(super) struct HoldTerms {
    /// How long the command has to end if the lock is lost.
    pub(super) grace: Duration,
    /// The lock is not released before this time.
    pub(super) kept_until: Instant,
    /// When the lock was known to be held: a time before the command was started.
    pub(super) last_seen: Instant,
}

/// Waits for the end of the command, and releases the lock.
pub(super) fn supervise(
    locks: HeldLocks,
    mut command: RunningCommand,
    signals: &SignalQueue,
    messages: &MessageWriter,
    terms: &HoldTerms,
    has_terminal: bool,
) -> RunOutcome {
    let &HoldTerms { grace, kept_until, last_seen } = terms;
    let was_ended = || "the command has been ended".to_owned();
    let mut watch = CommandWatch {
        locks: &locks,
        command: &mut command,
        signals,
        messages,
        has_terminal,
        last_seen,
        was_asked_to_end: false,
        pending_stop: None,
        is_to_go_on: false,
    };
    let ended = match watch.until_end() {
        Ok(CommandEnd::Exited(exit)) => return keep_and_release(locks, &exit, kept_until, signals),
        Ok(CommandEnd::LockLost { last_seen }) => {
            let grace = grace_left(grace, last_seen.elapsed());
            let how = if grace.is_some() { "ended" } else { "killed, since it could not be watched" };
            let reason = || format!("the lock is lost, the command is being {how}: {}", locks.loss_reason());
            end(&mut command, signals, grace, messages, reason)
        }
        Err(error) => {
            // The lock can no longer be watched either.
            let reason = || format!("the command cannot be watched and is being ended: {error}");
            let ended = end(&mut command, signals, Some(grace), messages, reason);
            locks.close();
            return RunOutcome::Failed(ended.err().unwrap_or_else(was_ended));
        }
    };
    // Closed only now: a server that has ended the session may keep the lock until then.
    locks.close();
    RunOutcome::Lost(ended.err().unwrap_or_else(was_ended))
}

/// How much of the grace a command still has that lost its lock at most `unseen` ago; `None` if the
/// grace is over. Usually the loss is seen at once. But if this process was stopped, the server may
/// have granted the lock to others meanwhile, and the command must not work beside them.
fn grace_left(grace: Duration, unseen: Duration) -> Option<Duration> {
    grace.checked_sub(unseen.saturating_sub(CHECK_INTERVAL))
}

enum CommandEnd {
    Exited(CommandExit),
    /// The lock was still held at this time.
    LockLost {
        last_seen: Instant,
    },
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

/// Watches the command and the lock while the command runs.
struct CommandWatch<'a> {
    locks: &'a HeldLocks,
    command: &'a mut RunningCommand,
    signals: &'a SignalQueue,
    messages: &'a MessageWriter,
    has_terminal: bool,
    /// When the lock was known to be held.
    last_seen: Instant,
    was_asked_to_end: bool,
    pending_stop: Option<PendingStop>,
    /// What is stopped is to be continued, if the lock is still held.
    is_to_go_on: bool,
}

impl CommandWatch<'_> {
    fn until_end(&mut self) -> io::Result<CommandEnd> {
        // A signal that arrived while the command was being started may not have reached it. Twice
        // is better than never.
        while let Some(received) = self.signals.next() {
            self.pass_on(received, false);
        }
        let mut next_search = Instant::now() + FIND_OTHERS_INTERVAL;
        loop {
            if let Some(status) = self.command.status()? {
                return Ok(self.exited(status, false));
            }
            if !self.is_lock_held() {
                return Ok(CommandEnd::LockLost { last_seen: self.last_seen });
            }
            if std::mem::take(&mut self.is_to_go_on) {
                self.command.descendants.go_on();
            }
            if self.has_just_been_stopped() {
                // The lock comes first.
                continue;
            }
            if self.command.descendants.has_others() && Instant::now() >= next_search {
                self.command.descendants.find();
                next_search = Instant::now() + FIND_OTHERS_INTERVAL;
            }
            let next_check = self.pending_stop.as_ref().map(|_| PendingStop::next_check());
            watch(&self.locks.session, self.signals, next_check)?;
            if let Some(end) = self.take_signals()? {
                return Ok(end);
            }
        }
    }

    fn take_signals(&mut self) -> io::Result<Option<CommandEnd>> {
        while let Some(received) = self.signals.next() {
            // A command that has ended cannot receive it any more.
            if let Some(status) = self.command.status()? {
                return Ok(Some(self.exited(status, received.is_ending())));
            }
            // This process may have been stopped until now.
            if received.signal == Signal::SIGCONT && !self.is_lock_held() {
                return Ok(Some(CommandEnd::LockLost { last_seen: self.last_seen }));
            }
            self.pass_on(received, self.has_terminal);
        }
        Ok(None)
    }

    fn pass_on(&mut self, received: ReceivedSignal, has_terminal: bool) {
        self.was_asked_to_end |= received.asks_to_end();
        if received.is_stopping() {
            self.pending_stop = Some(PendingStop::new(received.signal));
            // Or a Ctrl-Z right after `fg` would be undone.
            self.is_to_go_on = false;
        }
        if received.signal == Signal::SIGCONT {
            self.pending_stop = None;
            // A shell continues the whole group, so only others need to be.
            self.is_to_go_on = has_terminal;
            if has_terminal {
                return;
            }
        }
        self.command.pass_on(received, has_terminal);
    }

    /// Stops this process if it is to stop and all others have stopped. Returns whether it was.
    fn has_just_been_stopped(&mut self) -> bool {
        let Some(stop) = self.pending_stop.take() else { return false };
        match stop.advance(self.command, self.signals, self.messages) {
            StopProgress::Pending(stop) => {
                self.pending_stop = Some(stop);
                false
            }
            StopProgress::Over => {
                // Without a terminal, the signal that has continued this process is passed on.
                self.is_to_go_on = self.has_terminal;
                true
            }
            StopProgress::GivenUp => {
                self.is_to_go_on = true;
                true
            }
        }
    }

    fn is_lock_held(&mut self) -> bool {
        let now = Instant::now();
        let is_held = self.locks.session.is_alive();
        if is_held {
            self.last_seen = now;
        }
        is_held
    }

    fn exited(&self, status: ExitStatus, is_in_a_hurry: bool) -> CommandEnd {
        CommandEnd::Exited(CommandExit { status, is_in_a_hurry, was_asked_to_end: self.was_asked_to_end })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_counts_from_when_the_lock_was_last_known_to_be_held() {
        let left = |grace: u64, unseen: u64| {
            grace_left(Duration::from_secs(grace), Duration::from_secs(unseen)).map(|left| left.as_secs())
        };
        assert_eq!((left(5, 0), left(5, 1), left(0, 1)), (Some(5), Some(5), Some(0)));
        assert_eq!((left(5, 4), left(5, 6), left(5, 7), left(0, 2)), (Some(2), Some(0), None, None));
    }
}
