//! Supervises the running command: passes signals on to it, waits for its end, and watches the
//! lock. A command that has lost its lock must not go on with what the lock protects, so it is
//! ended. When the command has ended by itself, the lock may be kept a little longer.

use std::io;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use lockd::Session;
use nix::sys::signal::Signal;

use super::acquire::HeldLocks;
use super::command::RunningCommand;
use super::descendants::FIND_OTHERS_INTERVAL;
use super::end::end;
use super::linger::{LingerEnd, linger};
use super::lock_watch::{LockLoss, LockWatch};
use super::outcome::RunOutcome;
use super::progress::Talk;
use super::signals::{ReceivedSignal, SignalQueue};
use super::stop::{PendingStop, StopProgress};
use super::watch::watch;
use crate::cli::messages::MessageWriter;

/// How long a lock is held.
pub(super) struct HoldTerms {
    /// How long the command has to end if the lock is lost.
    pub(super) grace: Duration,
    /// The lock is not released before this time.
    pub(super) kept_until: Instant,
    /// When the lock was known to be held, by the [`boot_clock`](super::boot_clock::boot_clock): a
    /// time before the command was started.
    pub(super) last_seen: Duration,
    pub(super) talk: Talk,
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
    let &HoldTerms { grace, kept_until, last_seen, talk } = terms;
    let was_ended = || "the command has been ended".to_owned();
    let mut watch = CommandWatch {
        session: &locks.session,
        lock: LockWatch::new(&locks, (messages, talk), grace, last_seen),
        command: &mut command,
        signals,
        messages,
        has_terminal,
        was_asked_to_end: false,
        pending_stop: None,
        is_to_go_on: false,
    };
    let watched = watch.until_end();
    let session = &*locks.session;
    let ended = match watched {
        Ok(CommandEnd::Exited(exit)) => return keep_and_release(locks, &exit, kept_until, signals),
        Ok(CommandEnd::Lost(loss)) => end(&mut command, (session, signals), loss.grace, messages, &loss.text),
        Err(error) => {
            // The lock can no longer be watched either.
            let text = format!("the command cannot be watched and is being ended: {error}");
            let ended = end(&mut command, (session, signals), Some(grace), messages, &text);
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
    /// The command must end.
    Lost(LockLoss),
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
    if is_over || locks.loss().is_some() {
        return match locks.release(signals, is_in_a_hurry) {
            Ok(()) => RunOutcome::Command(status),
            Err(reason) => RunOutcome::Lost(format!("the lock was lost while the command ran: {reason}")),
        };
    }
    let lingered = linger(&locks, kept_until, signals);
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
    session: &'a Session,
    lock: LockWatch<'a>,
    command: &'a mut RunningCommand,
    signals: &'a SignalQueue,
    messages: &'a MessageWriter,
    has_terminal: bool,
    was_asked_to_end: bool,
    pending_stop: Option<PendingStop>,
    /// What is stopped is to be continued, if the lock is still held, or in doubt.
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
            if let Err(loss) = self.lock.look() {
                return Ok(CommandEnd::Lost(loss));
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
            let next = next_check.into_iter().chain(self.lock.look_at()).min();
            watch(self.session, self.signals, next)?;
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
            if received.signal == Signal::SIGCONT
                && let Err(loss) = self.lock.look()
            {
                return Ok(Some(CommandEnd::Lost(loss)));
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

    fn exited(&self, status: ExitStatus, is_in_a_hurry: bool) -> CommandEnd {
        CommandEnd::Exited(CommandExit { status, is_in_a_hurry, was_asked_to_end: self.was_asked_to_end })
    }
}
