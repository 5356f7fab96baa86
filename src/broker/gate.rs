//! Whether the broker is open: to whom it still grants, from whom it still takes back, and that it is
//! believed no more once a panic has left its state in doubt. Knows nothing of locks.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::outcome::{AcquireError, ReleaseError};
use super::session::SessionInfo;
use super::sync::AtomicU8;

const OPEN: u8 = 0;
/// Nothing is granted any more.
const SHUT: u8 = 1;
/// A panic has left a lane or the table in an unknown state. Nothing is believed any more.
const BROKEN: u8 = 2;

/// On whose behalf the broker is asked, and so what forbids it.
#[derive(Clone, Copy)]
pub(super) enum Asker<'a> {
    /// Nobody's: the broker's own housekeeping, and looking.
    Broker,
    /// A session that has not ended.
    Releasing(&'a SessionInfo),
    /// The same, while the broker still grants.
    Acquiring(&'a SessionInfo),
}

/// Why a call is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// The session has ended.
    Ended,
    /// The broker has been shut.
    Shut,
    /// The broker has failed and is believed no more.
    Broken,
}

impl Closed {
    fn text(self) -> String {
        let text = match self {
            Self::Ended => "it was closed",
            Self::Shut => "the server is stopping",
            Self::Broken => "the broker has failed",
        };
        text.to_owned()
    }
}

impl From<Closed> for AcquireError {
    fn from(closed: Closed) -> Self {
        match closed {
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
#[derive(Default)]
pub(super) struct Gate(AtomicU8);

impl Gate {
    /// Whether `asker` may do what it is about to do. Means something only with the lane or the table
    /// locked that is about to change.
    pub(super) fn pass(&self, asker: Asker<'_>) -> Result<(), Closed> {
        match (self.0.load(Acquire), asker) {
            (BROKEN, _) => Err(Closed::Broken),
            (_, Asker::Acquiring(info) | Asker::Releasing(info)) if info.ended.load(Acquire) => {
                Err(Closed::Ended)
            }
            (SHUT, Asker::Acquiring(_)) => Err(Closed::Shut),
            _ => Ok(()),
        }
    }

    /// Lets nobody acquire any more. False if that was so already.
    pub(super) fn shut(&self) -> bool {
        self.0.compare_exchange(OPEN, SHUT, Release, Relaxed).is_ok()
    }

    /// Whether waiters may still be granted what they wait for.
    pub(super) fn is_open(&self) -> bool {
        self.0.load(Acquire) == OPEN
    }

    pub(super) fn is_broken(&self) -> bool {
        self.0.load(Acquire) == BROKEN
    }

    /// Watches over a change; unless told that all is well before it is dropped, the broker is broken.
    pub(super) fn watch(&self) -> Sentinel<'_> {
        Sentinel { gate: self, is_armed: true }
    }
}

/// See [`Gate::watch`].
pub(super) struct Sentinel<'a> {
    gate: &'a Gate,
    is_armed: bool,
}

impl Sentinel<'_> {
    pub(super) fn all_is_well(mut self) {
        self.is_armed = false;
    }
}

impl Drop for Sentinel<'_> {
    fn drop(&mut self) {
        if self.is_armed {
            self.gate.0.store(BROKEN, Release);
        }
    }
}
