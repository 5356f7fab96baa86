//! The locks of one process. No sockets, no bytes of any protocol, no logging, no threads of its own.
//!
//! - `table`: the rules of a lock, whole, as a pure state machine. Start reading here.
//! - `lane`: the fast lane for names that only one session is concerned with.
//! - `core`: the shell around both: mutexes, the clock, sessions, who is told what.
//! - [`ObservedSession`]: one owner, calls that never block, an [`Observer`] that hears how waits end.
//! - [`LocalSession`]: the same with calls that block, for threads of this process.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod blocks;
mod clock;
mod fast_lane;
mod hasher;
mod histogram;
mod limits;
mod listing;
mod local;
#[cfg(test)]
mod model;
mod name;
mod outcome;
mod rules;
mod session;
mod shell;
mod stats;
#[cfg(test)]
mod tests;
mod tokens;

pub(crate) use shell::admission::check_set;
use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::os::sync::Arc;
pub use histogram::Histogram;
use limits::LimitGauges;
pub use limits::{Limits, NAMES_AT_ONCE_MAX, NAMES_BYTES_MAX};
pub use listing::{HolderInfo, LockInfo, Page, PageQuery, WaiterInfo};
pub use local::LocalSession;
pub use name::{Key, LockName, Space};
pub use outcome::{
    AcquireError, Attempt, Cycle, Grant, Held, Inspection, Mode, Outcome, ReleaseError, Released,
};
pub use rules::Ticket;
pub use session::{OWNER_BYTES_MAX, ObservedSession, Observer, SessionInfo, Wait, truncate_owner};
pub use stats::Stats;
use tokens::Tokens;

/// How many orphaned names a lane remembers. Names spread evenly, so the newest 65,536 in all are
/// remembered for certain but for a chance too small to matter; and never more than twice as many.
const MARKS_PER_LANE: usize = 2 * 65_536 / shell::core::LANES;

/// The locks of this process, and the sessions that hold them. Cheap to clone: clones are the same broker.
///
/// Lives until the last clone and the last session are gone.
#[derive(Clone)]
pub struct Broker {
    inner: Arc<shell::core::Inner>,
}

impl Default for Broker {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Broker {
    /// A broker with no locks, whose fencing tokens start from the clock.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let tokens = Tokens::starting_at(Self::first_token_by_clock());
        Self { inner: Arc::new(shell::core::Inner::new(limits, tokens, None)) }
    }

    /// A broker that goes on where an earlier one ended. Its fencing tokens begin with `tokens.start`, and
    /// rather than give one that is not below `tokens.end`, as that is [set](Self::set_tokens_end) by then, it
    /// fails. With a `grace` it grants nothing until it is [opened](Self::end_grace): who does not wait is
    /// told [`AcquireError::NotYet`] and how much is left of so long a time, who does waits in the queue.
    pub(crate) fn resumed(limits: Limits, tokens: &Range<u64>, grace: Option<Duration>) -> Self {
        let tokens = Tokens::between(tokens.start, tokens.end);
        Self { inner: Arc::new(shell::core::Inner::new(limits, tokens, grace)) }
    }

    /// The fencing token to begin with where nothing is known of an earlier run.
    pub(crate) fn first_token_by_clock() -> u64 {
        clock::wall_micros()
    }

    /// The next fencing token, or a lower one if others are at work.
    pub(crate) fn next_token(&self) -> u64 {
        self.inner.tokens.peek()
    }

    pub(crate) fn set_tokens_end(&self, end: u64) {
        self.inner.tokens.set_end(end);
    }

    /// Ends the grace, if there is one: grants from now on, first of all to those who wait.
    pub(crate) fn end_grace(&self) {
        self.inner.end_grace();
    }

    /// How long it is until the broker grants anything: longer than zero only after a start from a
    /// [state directory](crate::server::state_dir) that was not left by a clean stop.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.inner.gate.grace()
    }

    /// Opens a session for threads of this process; `owner` is what it is called in listings, of which the first
    /// [`OWNER_BYTES_MAX`] bytes count.
    #[must_use]
    pub fn open(&self, owner: Option<&str>) -> LocalSession {
        LocalSession::open(&self.inner, owner)
    }

    /// Opens a session whose calls never block, for the peer at `address`; `observer` is told how its
    /// waits end.
    #[must_use]
    pub fn attach(&self, address: &str, observer: Arc<dyn Observer>) -> ObservedSession {
        self.inner.open(|_| address.to_owned(), observer)
    }

    /// Ends all waits of one of this broker's sessions; its locks stay. Does nothing once the session has ended.
    pub(crate) fn end_waits(&self, session: &SessionInfo) {
        self.inner.end_waits_of(session);
    }

    /// A page of the locks held or waited for, in the order of their names. Costs a look at every name
    /// there is, but holds nobody up for long.
    #[must_use]
    pub fn page(&self, query: &PageQuery) -> Page {
        self.inner.page(query, false)
    }

    /// The same, of those locks alone that have waiters.
    #[must_use]
    pub fn page_with_waiters(&self, query: &PageQuery) -> Page {
        self.inner.page(query, true)
    }

    /// Shows every lock that is held or waited for to `each`, in no order, until it breaks off.
    pub fn for_each_lock<B>(&self, each: impl FnMut(LockInfo) -> ControlFlow<B>) -> Option<B> {
        self.inner.for_each_lock(each)
    }

    /// Shows every lock that the session holds to `each`, until that breaks off. One that somebody else begins to be
    /// concerned with meanwhile may be shown twice.
    pub(crate) fn for_each_held<B>(
        &self,
        session: &SessionInfo,
        each: impl FnMut(&Key, Mode) -> ControlFlow<B>,
    ) -> Option<B> {
        self.inner.for_each_held(session, each)
    }

    /// All sessions there are, in no order.
    pub(crate) fn sessions(&self) -> Vec<Arc<SessionInfo>> {
        self.inner.sessions.infos()
    }

    /// One lock; `None` if nobody holds it or waits for it.
    #[must_use]
    pub fn lock_info(&self, space: Space, name: &[u8]) -> Option<LockInfo> {
        let key = self.inner.key(space, name);
        self.inner.lock_info(&key.to_owned())
    }

    /// What there is now and what has been done since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Measures how long locks are held, for [`Stats::hold_times`]; to be called before there are any. Costs each
    /// release a look at the clock, so it is for those who show it.
    pub fn measure_holds(&self) {
        self.inner.measures_holds.store(true, Relaxed);
    }

    /// The limits that hold now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner.limits.get()
    }

    /// Sets other limits. What exceeds them already stays.
    pub fn set_limits(&self, limits: Limits) {
        self.inner.limits.set(limits);
    }

    /// Grants nothing any more, for good: waits end with [`Outcome::Stopping`], acquires are refused.
    /// Locks that are held stay so until they are released or their sessions end.
    pub fn shut(&self) {
        self.inner.shut();
    }

    /// Whether the broker has been [shut](Self::shut), or has failed: then it grants nothing any more.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.inner.gate.is_shut()
    }

    /// Whether the broker has failed: a bug has left its state in doubt, and it refuses every call
    /// rather than guess. A server must stop then; a new broker starts with no locks.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.inner.is_broken()
    }
}
