//! What the broker knows of each session, and the interface through which it tells the session how
//! its waits end. Plain values; knows neither the lanes nor the table.

use std::fmt;
use std::time::Duration;

use crate::broker::hasher::LANES;
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
pub struct SessionInfo {
    id: u64,
    address: Box<str>,
    name: RwLock<Option<Arc<[u8]>>>,
    pub(super) slot: Slot,
    /// Set once, when the session ends. Read with the lane or the table locked: see
    /// [`Lifecycle::check`](super::lifecycle::Lifecycle::check).
    pub(super) ended: AtomicBool,
    /// How many outcomes its observer has not been told yet.
    pub(super) pending_notifications: AtomicU32,
    pub(super) held: HeldCount,
}

impl SessionInfo {
    pub(super) fn new(id: u64, slot: Slot, address: String) -> Self {
        Self {
            id,
            address: address.into(),
            name: RwLock::new(None),
            slot,
            ended: AtomicBool::new(false),
            pending_notifications: AtomicU32::new(0),
            held: HeldCount::new(),
        }
    }

    /// A number no other session of this broker ever has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The peer's address, or `local:ID` for a session in this process.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
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

    /// How many locks it holds. Changes that other threads make at this moment may be missing.
    #[must_use]
    pub fn locks_held(&self) -> usize {
        self.held.total()
    }

    /// Its name, or else its address.
    #[must_use]
    pub fn label(&self) -> String {
        self.name()
            .map_or_else(|| self.address.to_string(), |name| String::from_utf8_lossy(&name).into_owned())
    }
}

impl fmt::Debug for SessionInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionInfo").field("id", &self.id).field("label", &self.label()).finish()
    }
}

/// How many locks a session holds, for the limit on them: a count for each lane, by its number, and
/// one for the table. Each count changes only under the mutex of its lane or of the table, so that
/// a load and a store suffice; one count for all would cost an atomic operation for every lock.
pub(super) struct HeldCount([AtomicU32; LANES + 1]);

impl HeldCount {
    /// The number of the count for locks in the table.
    pub(super) const TABLE: usize = LANES;

    fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU32::new(0)))
    }

    pub(super) fn add(&self, part: usize, more: usize) {
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        self.0[part].store(self.0[part].load(Ordering::Relaxed).saturating_add(more), Ordering::Relaxed);
    }

    /// Counts one lock less.
    pub(super) fn subtract_one(&self, part: usize) {
        let count = self.0[part].load(Ordering::Relaxed);
        debug_assert!(count > 0, "a lock that was never counted is given up");
        self.0[part].store(count.saturating_sub(1), Ordering::Relaxed);
    }

    /// A lock has gone from this lane to the table. The caller has both locked.
    pub(super) fn move_to_table(&self, lane: usize) {
        self.subtract_one(lane);
        self.add(Self::TABLE, 1);
    }

    pub(super) fn in_part(&self, part: usize) -> usize {
        self.0[part].load(Ordering::Relaxed) as usize
    }

    /// The sum of all counts. Changes that other threads make at this moment may be missing.
    pub(super) fn total(&self) -> usize {
        self.0.iter().map(|count| count.load(Ordering::Relaxed) as usize).sum()
    }
}
