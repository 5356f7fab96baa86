//! Ends a command that has lost its lock, with all its descendants: SIGTERM at once, SIGKILL after
//! the grace. Sends the signals before it writes messages, takes a bounded time, and reports what
//! it could not end. Meanwhile a session that is in doubt goes on with resuming: then the lock is
//! held until the command has ended, however long that takes.

use std::io;
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::client::SessionState;
use rustix::process::Signal;

use super::command::RunningCommand;
use super::descendants::{Descendants, SignalFailure};
use super::signals::SignalQueue;
use super::wait::{readable, wait_for};
use crate::cli::messages::MessageWriter;

/// How much longer than the grace it may take until all processes that are killed then have ended.
pub(super) const KILL_MARGIN: Duration = Duration::from_secs(1);
/// How often to check whether all have ended, and to signal those again that could not be signalled
/// before: they may have changed their user. The end of a child is noticed at once.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long to wait before remaining processes are killed again: at first, and at most.
const KILL_AGAIN_MIN: Duration = Duration::from_millis(5);
const KILL_AGAIN_MAX: Duration = Duration::from_millis(200);
/// How long to wait for processes to end after SIGKILL. Some cannot be ended: those of other users,
/// and those that wait in the kernel for a device or a file server.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Ends the command and all its descendants. `grace` is the time between SIGTERM and SIGKILL;
/// without one, they are killed at once. `reason` is the message, written after the first signal has
/// been sent.
///
/// # Errors
/// The processes that could not be ended.
pub(super) fn end(
    command: &mut RunningCommand,
    (session, signals): (&Session, &SignalQueue),
    grace: Option<Duration>,
    messages: &MessageWriter,
    reason: &str,
) -> Result<(), String> {
    let has_ended = match grace {
        Some(grace) => {
            let deadline = Instant::now().checked_add(grace);
            let refused = terminate(command);
            messages.write(reason);
            for SignalFailure { process, error } in &refused {
                messages.write(&format!("{process} cannot be signalled, trying again: {error}"));
            }
            await_end(command, (session, signals), deadline, refused)
        }
        None => {
            // Processes that this does not reach are named at the end.
            let _ = command.descendants.kill();
            messages.write(reason);
            false
        }
    };
    if has_ended || kill(command, (session, signals)) {
        return Ok(());
    }
    let left = describe_left(command);
    // They may have ended in the meantime.
    if command.all_have_ended() {
        Ok(())
    } else {
        Err(format!("not all of the command could be ended: {left}"))
    }
}

fn terminate(command: &mut RunningCommand) -> Vec<SignalFailure> {
    let refused = command.descendants.signal(Signal::TERM);
    // A stopped process handles no signal until it is continued.
    command.descendants.signal(Signal::CONT);
    refused
}

/// Waits until all have ended by themselves. Returns false if some have not by the deadline.
fn await_end(
    command: &mut RunningCommand,
    (session, signals): (&Session, &SignalQueue),
    deadline: Option<Instant>,
    mut refused: Vec<SignalFailure>,
) -> bool {
    let mut next_check = Instant::now() + CHECK_INTERVAL;
    loop {
        if command.all_have_ended() {
            return true;
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return false;
        }
        if now >= next_check {
            refused = Descendants::signal_again(refused, Signal::TERM);
            next_check = now + CHECK_INTERVAL;
        }
        let until = deadline.map_or(next_check, |deadline| deadline.min(next_check));
        if wait(session, signals, until).is_err() {
            return false;
        }
        while let Some(received) = signals.next() {
            if received.is_ending() {
                command.pass_on(received, false);
            }
        }
    }
}

/// Kills all of them, also those that are started in the meantime, until all have ended. Returns
/// false if some are left.
fn kill(command: &mut RunningCommand, (session, signals): (&Session, &SignalQueue)) -> bool {
    let deadline = Instant::now() + KILL_LIMIT;
    let mut pause = KILL_AGAIN_MIN;
    loop {
        command.descendants.kill();
        if command.all_have_ended() {
            return true;
        }
        let now = Instant::now();
        if now >= deadline {
            return false;
        }
        // If the system cannot wait, the next round begins at once.
        let _ = wait(session, signals, deadline.min(now + pause));
        pause = KILL_AGAIN_MAX.min(pause * 2);
        // Signals have no use any more: everything is being killed.
        while signals.next().is_some() {}
    }
}

/// Waits until a signal arrives or until `until`, and goes on with resuming the session before that.
/// May return early.
fn wait(session: &Session, signals: &SignalQueue, until: Instant) -> io::Result<()> {
    // The descriptor of a lost session is always readable.
    let is_lost = matches!(session.state(), SessionState::Lost { .. });
    let session = session.lost_fd().filter(|_| !is_lost);
    let mut fds = vec![readable(signals)];
    fds.extend(session.as_ref().map(readable));
    wait_for(&mut fds, Some(until))
}

/// Describes the processes that are left, and why.
fn describe_left(command: &mut RunningCommand) -> String {
    let refused = command.descendants.kill();
    let why =
        |pid: i32| refused.iter().find(|failure| failure.process.pid == pid).map(|failure| &failure.error);
    let found = command.descendants.find().into_iter().filter(|process| !process.is_zombie);
    let left: Vec<String> = found
        .map(|process| match why(process.pid) {
            Some(error) => format!("{process}: {error}"),
            None => format!("{process}: still running after SIGKILL"),
        })
        .collect();
    if left.is_empty() { "processes that /proc does not show".to_owned() } else { left.join("; ") }
}
