//! What the broker knows of each session, and the interface through which it tells the session how
//! its waits end. Plain values; knows neither the lanes nor the table.

use std::fmt;
use std::time::Duration;

use crate::broker::clock::{self, Stamp};
use crate::broker::fast_lane::Holder;
use crate::broker::holdings::Holdings;
use crate::broker::last_grant::LastGrant;
use crate::broker::outcome::Outcome;
use crate::broker::rules::{Slot, Ticket};
use crate::os::sync::{Arc, AtomicBool, AtomicU32, Ordering, RwLock};

/// Is told how a session's waits end. If it panics, the broker has failed: outcomes that were still
/// to be told would be lost.
pub trait Observer: Send + Sync {
    /// A wait has ended. Called exactly once for each wait, in the order in which the waits of the
    /// session end. The caller is the thread that ended the wait, or one that makes a call of the
    /// session. A call
    /// about a contended name returns only when the observer has been told of everything that was
    /// decided before. No lock of the table is held meanwhile, so only this thread waits, and those
    /// that call the same session. Must not call that session.
    fn decided(&self, ticket: Ticket, outcome: Outcome);

    /// Waits have ended, and the outcomes can be passed on. Called after
    /// [`decided`](Self::decided), once or more, with no lock held, by the thread that ended the
    /// wait. May do anything.
    fn deliver(&self);
}

/// That a request is ready to wait, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// Identifies the wait when the observer is told its outcome; unique among the session's waits.
    pub ticket: Ticket,
    /// The time limit; `None` waits without one. It is enforced by
    /// [`ObservedSession::expire`](super::ObservedSession::expire), which the owner of the session
    /// must call in time.
    pub limit: Option<Duration>,
}

/// The longest name that a session can register, in bytes: listings repeat it for every lock that
/// the session holds or waits for.
pub const OWNER_BYTES_MAX: usize = 256;

/// The name of an owner, shortened to [`OWNER_BYTES_MAX`] if it is longer.
#[must_use]
pub fn truncate_owner(owner: &str) -> &str {
    &owner[..owner.floor_char_boundary(OWNER_BYTES_MAX)]
}

/// What identifies a session to others, and what it holds.
///
/// Has cache lines to itself: it changes with each grant, and another session's thread must not be
/// slowed by that.
#[repr(align(128))]
pub struct SessionInfo {
    id: u64,
    address: RwLock<Arc<str>>,
    name: RwLock<Option<Arc<[u8]>>>,
    /// Since when its owner is out of reach, and may come back.
    in_doubt_since: RwLock<Option<Stamp>>,
    pub(super) slot: Slot,
    /// Set once, when the session ends. Read with the lane or the table locked: see
    /// [`Lifecycle::check`](super::lifecycle::Lifecycle::check).
    pub(super) ended: AtomicBool,
    /// How many outcomes its observer has not been told yet.
    pub(super) pending_notifications: AtomicU32,
    pub(super) holdings: Holdings,
    pub(super) last_grant: LastGrant,
}

impl SessionInfo {
    pub(super) fn new(id: u64, slot: Slot, address: String) -> Self {
        Self {
            id,
            address: RwLock::new(address.into()),
            name: RwLock::new(None),
            in_doubt_since: RwLock::new(None),
            slot,
            ended: AtomicBool::new(false),
            pending_notifications: AtomicU32::new(0),
            holdings: Holdings::new(),
            last_grant: LastGrant::default(),
        }
    }

    /// This session, for a lane.
    pub(super) fn holder(&self, lane: usize) -> Holder<'_> {
        Holder { slot: self.slot, holdings: self.holdings.in_lane(lane) }
    }

    /// A number no other session of this broker ever has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The peer's address, or `local:ID` for a session in this process.
    #[must_use]
    pub fn address(&self) -> Arc<str> {
        self.address.read().clone()
    }

    /// The session has got another connection, whose peer is at `address`.
    pub fn set_address(&self, address: &str) {
        *self.address.write() = address.into();
    }

    /// The name it has registered, if any.
    #[must_use]
    pub fn name(&self) -> Option<Arc<[u8]>> {
        self.name.read().clone()
    }

    /// Registers the name shown in listings and in the cycles of deadlocks; `None` forgets it.
    /// Returns false, and changes nothing, if the name is longer than [`OWNER_BYTES_MAX`].
    #[must_use]
    pub fn set_name(&self, name: Option<&[u8]>) -> bool {
        if name.is_some_and(|name| name.len() > OWNER_BYTES_MAX) {
            return false;
        }
        *self.name.write() = name.map(Arc::from);
        true
    }

    /// Forgets the registered name: the session is shown by its address from now on.
    pub fn forget_name(&self) {
        *self.name.write() = None;
    }

    /// Notes that the session is in doubt from now on: its owner is out of reach, and may come back.
    /// Or that it is not any more.
    pub fn set_in_doubt(&self, is_in_doubt: bool) {
        let mut since = self.in_doubt_since.write();
        *since = is_in_doubt.then(|| since.unwrap_or_else(clock::now));
    }

    /// For how long it has been in doubt; `None` if it is not.
    #[must_use]
    pub fn in_doubt(&self) -> Option<Duration> {
        self.in_doubt_since.read().map(|since| clock::now().since(since))
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// How many locks it holds. Changes that other threads make at this moment may be missing.
    #[must_use]
    pub fn locks_held(&self) -> usize {
        self.holdings.total()
    }

    /// Its name, or else its address.
    #[must_use]
    pub fn label(&self) -> String {
        self.name()
            .map_or_else(|| self.address().to_string(), |name| String::from_utf8_lossy(&name).into_owned())
    }
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo").field("id", &self.id).field("label", &self.label()).finish()
    }
}
