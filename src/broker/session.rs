//! One owner of locks, as the broker's shell sees it: who it is, and the calls it makes, none of which
//! blocks. A request that has to wait says so, and the session's [`Observer`] is told how the wait
//! ended: by the thread that ended it, without a thread of its own. The server's connections and the
//! blocking [`LocalSession`](super::LocalSession) are built on this.

use std::fmt;
use std::time::Duration;

use crate::broker::name::{Key, Space};
use crate::broker::outcome::{
    AcquireError, Attempt, Grant, Inspection, Mode, Outcome, ReleaseError, Released,
};
use crate::broker::rules::{Slot, Ticket};
use crate::broker::shell::core::Inner;
use crate::broker::shell::held::HeldCount;
use crate::os::sync::{Arc, AtomicBool, AtomicU32, Ordering, RwLock};

/// Is told how a session's waits end. If it panics, the broker has failed: nobody would know what else was to be
/// told.
pub trait Observer: Send + Sync {
    /// A wait has ended. Called in the order in which the waits of the session end and exactly once for each, by
    /// the thread that ended the wait, or by one that calls the session: a call about a contended name returns when
    /// the observer has been told of all that was decided before. No lock of the table is held, so nobody waits but
    /// this thread and those that call the same session. Must not call that session.
    fn decided(&self, ticket: Ticket, outcome: Outcome);

    /// Waits have ended: now is the time to pass it on. Called after [`decided`](Self::decided), once or
    /// more, with no lock held, by whichever thread ended the wait. May do anything.
    fn deliver(&self);
}

/// How long a request is ready to wait.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    /// What the observer will be told the outcome under; unique among the waits of the session.
    pub ticket: Ticket,
    /// After how long the wait is over; `None`: never. The session's owner sees to it by calling
    /// [`ObservedSession::expire`] in time.
    pub limit: Option<Duration>,
}

/// The longest name that a session can register, in bytes: it stands in listings beside every lock that the session
/// holds or waits for.
pub const OWNER_BYTES_MAX: usize = 256;

/// The name of an owner, shortened to [`OWNER_BYTES_MAX`] if it is longer.
#[must_use]
pub fn truncate_owner(owner: &str) -> &str {
    &owner[..owner.floor_char_boundary(OWNER_BYTES_MAX)]
}

/// Who a session is, to others.
pub struct SessionInfo {
    id: u64,
    address: Box<str>,
    name: RwLock<Option<Arc<[u8]>>>,
    pub(super) slot: Slot,
    pub(super) ended: AtomicBool,
    /// How many decisions its observer is still to be told of.
    pub(super) untold: AtomicU32,
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
            untold: AtomicU32::new(0),
            held: HeldCount::new(),
        }
    }

    /// A number no other session of this broker ever has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it is: the peer's address, or `local:ID` for a session in this process.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The name it goes by, if it has registered one.
    #[must_use]
    pub fn name(&self) -> Option<Arc<[u8]>> {
        self.name.read().clone()
    }

    /// Registers the name it goes by in listings and in the circles of deadlocks, or forgets it. False if the name
    /// is longer than [`OWNER_BYTES_MAX`]: then nothing changes.
    #[must_use]
    pub fn set_name(&self, name: Option<&[u8]>) -> bool {
        if name.is_some_and(|name| name.len() > OWNER_BYTES_MAX) {
            return false;
        }
        *self.name.write() = name.map(Arc::from);
        true
    }

    /// From now on it goes by its address.
    pub fn forget_name(&self) {
        *self.name.write() = None;
    }

    /// How many locks it holds.
    #[must_use]
    pub fn locks_held(&self) -> usize {
        self.held.in_all()
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

/// One owner of locks. When it is dropped or [ended](Self::end), all its locks are freed and all its
/// waits leave their queues; so too when it [leaves](Self::leave). Safe to share between threads.
pub struct ObservedSession {
    pub(super) broker: Arc<Inner>,
    pub(super) info: Arc<SessionInfo>,
}

impl ObservedSession {
    /// Who this session is to others.
    #[must_use]
    pub fn info(&self) -> &Arc<SessionInfo> {
        &self.info
    }

    /// Acquires `name` if that is possible at once. Every request for one name starts here: nearly always it
    /// is granted, by the name's lane, and nothing need be prepared for a wait. Only a request that fails with
    /// `TimedOut` or `NotYet`, and is ready to wait, goes on to [`acquire`](Self::acquire).
    ///
    /// # Errors
    /// [`AcquireError`], but for `Deadlock` and `Cancelled`; `TimedOut` if another session holds the lock or
    /// waits for it.
    pub fn try_acquire(&self, space: Space, name: &[u8], mode: Mode) -> Result<Grant, AcquireError> {
        self.broker.try_acquire(&self.info, space, name, mode)
    }

    /// Acquires all of `wants` at once or none. If they cannot be granted at once, a request with `wait` takes
    /// its place in their queues, and the observer is told how it ends.
    ///
    /// The table decides this, not the lanes: for one name, call [`try_acquire`](Self::try_acquire) first.
    ///
    /// # Errors
    /// [`AcquireError`], but for `Cancelled`; `TimedOut` only without `wait`.
    pub fn acquire(&self, wants: &[(Key, Mode)], wait: Option<Wait>) -> Result<Attempt, AcquireError> {
        self.broker.acquire(&self.info, wants, wait)
    }

    /// Changes the mode of a held lock without letting it go; to shared that never waits.
    ///
    /// # Errors
    /// [`AcquireError`], but for `Cancelled`; `TimedOut` only without `wait`.
    pub fn convert(
        &self,
        space: Space,
        name: &[u8],
        mode: Mode,
        wait: Option<Wait>,
    ) -> Result<Attempt, AcquireError> {
        self.broker.convert(&self.info, space, name, mode, wait)
    }

    /// Gives up the lock, or the place in its queue. The outcome of a wait given up so is `Cancelled`.
    ///
    /// # Errors
    /// [`ReleaseError`]
    pub fn release(&self, space: Space, name: &[u8]) -> Result<Released, ReleaseError> {
        self.broker.release(&self.info, space, name)
    }

    /// Takes a waiting request back; its outcome is `Cancelled`. False if it had ended already, in
    /// which case the observer has been told how.
    pub fn cancel(&self, ticket: Ticket) -> bool {
        self.broker.cancel(&self.info, ticket)
    }

    /// Ends the waits whose limit has come. Returns how long it is until the next one's does; `None` if
    /// there is none.
    pub fn expire(&self) -> Option<Duration> {
        self.broker.expire(&self.info)
    }

    /// Ends all waits of the session; its locks stay.
    pub fn end_waits(&self) {
        self.broker.end_waits(self.info.slot, Outcome::Lost);
    }

    /// The lock as it stands now. A session that has ended is shown a name that nobody holds.
    #[must_use]
    pub fn inspect(&self, space: Space, name: &[u8]) -> Inspection {
        self.broker.inspect(&self.info, space, name).unwrap_or_default()
    }

    /// Whether the session stands: it has not ended, and the broker has not failed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.info.ended.load(Ordering::Acquire) && !self.broker.is_broken()
    }

    /// Ends a session that has vanished: its waits leave their queues, its locks are freed and count as orphans.
    /// Every later call says `Lost`. Locks are freed some at a time, so that a session that holds a million
    /// does not keep everyone else waiting.
    pub fn end(&self) {
        self.broker.end_session(&self.info, true);
    }

    /// The same for a session that has said goodbye: its locks count as released, and the next holder is told of
    /// nothing. Does nothing if the session has ended before.
    pub fn leave(&self) {
        self.broker.end_session(&self.info, false);
    }
}

impl Drop for ObservedSession {
    fn drop(&mut self) {
        self.end();
    }
}
