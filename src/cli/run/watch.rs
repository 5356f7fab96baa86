//! Waits while the lock is held, for whatever comes first: a signal, the loss of the lock, or a
//! point in time. Knows nothing about the command.

use std::io;
use std::time::{Duration, Instant};

use lockd::Session;

use super::signals::SignalQueue;
use super::wait::{readable, wait_for};

/// How often to check whether the lock is held: if only the silence of this host shows the loss, no
/// descriptor becomes readable. A session that resumes also becomes readable when there is something
/// for it to do; it does that when its state is asked for.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Waits until a signal has arrived, until the state of the session may be another one, or until
/// `end`. May return early, so the caller must check again. The session must not be known to be
/// lost.
///
/// # Errors
/// If the system cannot wait.
pub(super) fn watch(session: &Session, signals: &SignalQueue, end: Option<Instant>) -> io::Result<()> {
    let next_check = Instant::now() + CHECK_INTERVAL;
    let lost = session.lost_fd();
    let mut fds = vec![readable(signals)];
    fds.extend(lost.as_ref().map(readable));
    wait_for(&mut fds, Some(end.map_or(next_check, |end| end.min(next_check))))
}
