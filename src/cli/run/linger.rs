//! Keeps the lock for some time after the command has ended (`--at-least`), so that a host whose
//! clock is a little behind does not run the same job again. Knows neither the command nor its
//! status, and does not release the lock.

use std::io;
use std::time::Instant;

use super::acquire::HeldLocks;
use super::signals::SignalQueue;
use super::watch::watch;

pub(super) enum LingerEnd {
    /// The time has passed, or the lock is lost. The release of the lock shows which.
    OverOrLost,
    /// A signal has arrived that ends a process.
    Signal,
}

/// Waits until `end`, until a signal arrives that ends a process, or until the lock is lost. While
/// it is in doubt, nobody else has it, and the session is being resumed. The command must have
/// ended, since this reaps all children.
///
/// # Errors
/// If the system cannot wait.
pub(super) fn linger(locks: &HeldLocks, end: Instant, signals: &SignalQueue) -> io::Result<LingerEnd> {
    loop {
        if signals.next_ending().is_some() {
            return Ok(LingerEnd::Signal);
        }
        if Instant::now() >= end || locks.loss().is_some() {
            return Ok(LingerEnd::OverOrLost);
        }
        watch(&locks.session, signals, Some(end))?;
    }
}
