//! Whether the broker is open: to whom it grants already and still, from whom it takes back, and that it
//! is believed no more once a panic has left its state in doubt. Knows nothing of locks.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use crate::broker::clock::{self, Stamp};
use crate::broker::outcome::{AcquireError, ReleaseError};
use crate::broker::session::SessionInfo;
use crate::os::sync::AtomicU8;

const OPEN: u8 = 0;
/// Nothing is granted any more.
const SHUT: u8 = 1;
/// A panic has left a lane or the table in an unknown state. Nothing is believed any more.
const BROKEN: u8 = 2;
/// Nothing is granted yet: holders of an earlier run may not have found out that it has ended. Only ever the
/// first state of a broker.
const GRACE: u8 = 3;

/// On whose behalf the broker is asked, and so what forbids it.
#[derive(Clone, Copy)]
pub(in crate::broker) enum Intent<'a> {
    /// Nobody's: the broker's own housekeeping, and looking.
    Broker,
    /// A session that has not ended.
    Releasing(&'a SessionInfo),
    /// The same, ready to wait, while the broker still grants or is yet to.
    Queueing(&'a SessionInfo),
    /// The same, not ready to wait, while the broker grants.
    Acquiring(&'a SessionInfo),
}

impl<'a> Intent<'a> {
    pub(in crate::broker) fn session(self) -> Option<&'a SessionInfo> {
        match self {
            Intent::Broker => None,
            Intent::Releasing(info) | Intent::Queueing(info) | Intent::Acquiring(info) => Some(info),
        }
    }
}

/// Why a call is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Closed {
    /// The session has ended.
    Ended,
    /// The broker grants nothing yet, and will after so long.
    Grace(Duration),
    /// The broker has been shut.
    Shut,
    /// The broker has failed and is believed no more.
    Broken,
}

impl Closed {
    fn text(self) -> String {
        match self {
            Self::Ended => "it was closed".to_owned(),
            Self::Grace(rest) => format!(
                "the server did not stop cleanly; it grants nothing for another {} s, until all who held \
                 locks of it have found out",
                rest.as_millis().div_ceil(1000)
            ),
            Self::Shut => "the server is stopping".to_owned(),
            Self::Broken => "the broker has failed".to_owned(),
        }
    }
}

impl From<Closed> for AcquireError {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::Grace(_) => Self::NotYet(closed.text()),
            Closed::Shut => Self::Refused(closed.text()),
            Closed::Ended | Closed::Broken => Self::Lost(closed.text()),
        }
    }
}

impl From<Closed> for ReleaseError {
    fn from(closed: Closed) -> Self {
        Self::Lost(closed.text())
    }
}

/// The state of a broker.
pub(in crate::broker) struct Lifecycle {
    state: AtomicU8,
    /// When the grace is to be over: for telling.
    grace_ends: Stamp,
}

impl Lifecycle {
    /// The gate of a broker that grants nothing until it is [opened](Self::open), about so long from now;
    /// or without that from the start.
    pub(in crate::broker) fn new(grace: Option<Duration>) -> Self {
        let state = AtomicU8::new(if grace.is_some() { GRACE } else { OPEN });
        Self { state, grace_ends: clock::now().after(grace.unwrap_or_default()) }
    }

    /// Whether `asker` may do what it is about to do. Means something only with the lane or the table
    /// locked that is about to change.
    pub(in crate::broker) fn pass(&self, asker: Intent<'_>) -> Result<(), Closed> {
        match (self.state.load(Acquire), asker) {
            (BROKEN, _) => Err(Closed::Broken),
            _ if asker.session().is_some_and(|info| info.ended.load(Acquire)) => Err(Closed::Ended),
            (SHUT, Intent::Queueing(_) | Intent::Acquiring(_)) => Err(Closed::Shut),
            (GRACE, Intent::Acquiring(_)) => Err(Closed::Grace(self.grace())),
            _ => Ok(()),
        }
    }

    /// How long it is until the broker grants anything; zero once it does, and once it never will.
    pub(in crate::broker) fn grace(&self) -> Duration {
        match self.state.load(Acquire) {
            GRACE => self.grace_ends.since(clock::now()),
            _ => Duration::ZERO,
        }
    }

    /// Ends the grace. False if there was none.
    pub(in crate::broker) fn open(&self) -> bool {
        self.state.compare_exchange(GRACE, OPEN, Release, Relaxed).is_ok()
    }

    /// Lets nobody acquire any more. False if that was so already.
    pub(in crate::broker) fn shut(&self) -> bool {
        let shut = |from| self.state.compare_exchange(from, SHUT, Release, Relaxed).is_ok();
        // In this order: the grace may end in between, and never begins.
        shut(GRACE) || shut(OPEN)
    }

    /// Whether waiters may be granted what they wait for.
    pub(in crate::broker) fn is_open(&self) -> bool {
        self.state.load(Acquire) == OPEN
    }

    /// Whether nothing will be granted any more.
    pub(in crate::broker) fn is_shut(&self) -> bool {
        matches!(self.state.load(Acquire), SHUT | BROKEN)
    }

    pub(in crate::broker) fn is_broken(&self) -> bool {
        self.state.load(Acquire) == BROKEN
    }

    /// Watches over a change; unless told that all is well before it is dropped, the broker is broken.
    pub(in crate::broker) fn watch(&self) -> Sentinel<'_> {
        Sentinel { gate: self, is_armed: true }
    }
}

/// See [`Lifecycle::watch`].
pub(in crate::broker) struct Sentinel<'a> {
    gate: &'a Lifecycle,
    is_armed: bool,
}

impl Sentinel<'_> {
    pub(in crate::broker) fn disarm(mut self) {
        self.is_armed = false;
    }
}

impl Drop for Sentinel<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            self.gate.state.store(BROKEN, Release);
        }
    }
}
