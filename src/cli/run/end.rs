//! Ending a command that has lost its lock, with all that it has started: SIGTERM at once, SIGKILL after a grace.
//! First acts, then speaks; takes a bounded time; and says what it could not end.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::command::Started;
use super::descendants::{Descendants, Refusal};
use super::signals::Signals;
use super::speaker::Speaker;
use super::supervise::pass_on;
use super::wait::{readable, wait_for};

/// How often to look whether all have ended, and to try again those that could not be signalled: they may have
/// changed their user. The end of a child is noticed at once.
const LOOK: Duration = Duration::from_secs(1);
/// How long to wait before processes that are still there are killed again, at first and at most.
const KILL_AGAIN: Duration = Duration::from_millis(5);
const KILL_AGAIN_MAX: Duration = Duration::from_millis(200);
/// How long to wait for the end of processes after SIGKILL. Some cannot be ended: those of other users, and those
/// that wait for a device or a file server in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// Ends the command and all that it has started. `reason` is asked why after they have been told to end.
///
/// # Errors
/// What could not be ended.
pub(super) fn end(
    started: &mut Started,
    signals: &Signals,
    grace: Duration,
    speaker: &Speaker,
    reason: impl FnOnce() -> String,
) -> Result<(), String> {
    let deadline = Instant::now().checked_add(grace);
    let refused = ask_to_end(started);
    speaker.say(&reason());
    for Refusal { process, error } in &refused {
        speaker.say(&format!("{process} cannot be told to end, trying again: {error}"));
    }
    if await_end(started, signals, deadline, refused) || kill(started, signals) {
        return Ok(());
    }
    let left = left(started);
    // It may have ended by itself meanwhile.
    if started.all_have_ended() {
        Ok(())
    } else {
        Err(format!("not all of the command could be ended: {left}"))
    }
}

fn ask_to_end(started: &mut Started) -> Vec<Refusal> {
    let refused = started.descendants.signal(Signal::TERM);
    // A process that is stopped would not notice.
    started.descendants.signal(Signal::CONT);
    refused
}

/// Waits until all have ended by themselves. False if that has not happened by the deadline.
fn await_end(
    started: &mut Started,
    signals: &Signals,
    deadline: Option<Instant>,
    mut refused: Vec<Refusal>,
) -> bool {
    let mut next_look = Instant::now() + LOOK;
    loop {
        if started.all_have_ended() {
            return true;
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            return false;
        }
        if now >= next_look {
            refused = Descendants::signal_again(refused, Signal::TERM);
            next_look = now + LOOK;
        }
        let until = deadline.map_or(next_look, |deadline| deadline.min(next_look));
        if wait_for(&mut [readable(signals)], Some(until)).is_err() {
            return false;
        }
        while let Some(received) = signals.next() {
            if received.is_ending() {
                pass_on(received, started, false);
            }
        }
    }
}

/// Kills until all have ended, also those that are started meanwhile. False if some are left.
fn kill(started: &mut Started, signals: &Signals) -> bool {
    let deadline = Instant::now() + KILL_LIMIT;
    let mut pause = KILL_AGAIN;
    loop {
        started.descendants.kill();
        if started.all_have_ended() {
            return true;
        }
        let now = Instant::now();
        if now >= deadline {
            return false;
        }
        // If the system cannot wait, the next round comes at once.
        let _ = wait_for(&mut [readable(signals)], Some(deadline.min(now + pause)));
        pause = KILL_AGAIN_MAX.min(pause * 2);
        // The end of a child has been waited for; nothing more can be asked of the others.
        while signals.next().is_some() {}
    }
}

/// What is left after all, and why.
fn left(started: &mut Started) -> String {
    let refused = started.descendants.kill();
    let why =
        |pid: i32| refused.iter().find(|refusal| refusal.process.pid == pid).map(|refusal| &refusal.error);
    let found = started.descendants.find().into_iter().filter(|process| !process.is_zombie);
    let words: Vec<String> = found
        .map(|process| match why(process.pid) {
            Some(error) => format!("{process}: {error}"),
            None => format!("{process}: still there after SIGKILL"),
        })
        .collect();
    if words.is_empty() { "processes that /proc does not show".to_owned() } else { words.join("; ") }
}
