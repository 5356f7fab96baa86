//! The locks of one process. No sockets, no bytes of any protocol, no logging, no threads of its
//! own.
//!
//! - `rules`: the rules of a lock, whole, as a pure state machine. Start reading here.
//! - `fast_lane`: names that only one session is concerned with, which is nearly all of them.
//! - `shell`: lanes and table behind their mutexes. `turns` is how the table is used, `registry`
//!   which session is notified of what it decides, `lifecycle` whether anything is granted.
//! - `snapshot`: the state of a broker as data, and a broker made from it.
//! - [`ObservedSession`]: one owner, calls that never block, an [`Observer`] that is told how waits
//!   end. `ending`: how a session ends.
//! - [`LocalSession`]: the same with calls that block, for threads of this process.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod blocks;
mod clock;
mod ending;
mod fast_lane;
mod fifo;
mod hasher;
mod histogram;
mod holdings;
mod last_grant;
mod lifecycle;
mod limit_checks;
mod limits;
mod listing;
mod local;
mod mode;
#[cfg(test)]
mod model;
mod name;
mod outcome;
mod reclaim_error;
mod registry;
mod rules;
mod session;
mod session_info;
mod shell;
pub(crate) mod snapshot;
mod stats;
#[cfg(test)]
mod tests;
mod tokens;
mod turns;

use std::ops::{ControlFlow, Range};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::os::sync::Arc;
pub use histogram::Histogram;
pub(crate) use limits::check_set;
pub use limits::{Limits, NAMES_AT_ONCE_MAX, NAMES_BYTES_MAX};
pub use listing::{HolderInfo, LockInfo, Page, PageQuery, WaiterInfo};
pub use local::LocalSession;
pub use mode::{HolderLimit, Mode};
pub use name::{Key, LockName, Space};
pub use outcome::{AcquireError, Attempt, Cycle, Grant, Held, Inspection, Outcome, ReleaseError, Released};
pub use reclaim_error::ReclaimError;
pub use rules::Ticket;
pub use session::ObservedSession;
pub use session_info::{OWNER_BYTES_MAX, Observer, SessionInfo, Wait, truncate_owner};
use shell::Shell;
pub use snapshot::{
    BrokerSnapshot, BrokerSnapshotError, CountsSnapshot, HistogramSnapshot, HolderSnapshot, LockSnapshot,
    NameSnapshot, SessionSnapshot, WaitSnapshot, WantSnapshot,
};
pub use stats::Stats;
use tokens::Tokens;

/// The locks of this process, and the sessions that hold them. Cheap to clone: clones are the same
/// broker.
///
/// Lives until the last clone and the last session have been dropped.
#[derive(Clone)]
pub struct Broker {
    shell: Arc<Shell>,
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
        Self { shell: Arc::new(Shell::new(limits, tokens, None)) }
    }

    /// A broker that continues where an earlier one ended. Its fencing tokens begin with
    /// `tokens.start`. They must stay below `tokens.end`, which
    /// [`set_tokens_end`](Self::set_tokens_end) raises: rather than give a token at or above it,
    /// the broker fails.
    ///
    /// With a `grace` it grants nothing until [`end_grace`](Self::end_grace) is called, but sessions
    /// can get back what they held before, see [`ObservedSession::reclaim`]. A request
    /// that does not wait then fails with [`AcquireError::NotYet`], which says how much of the
    /// grace is left; a request that waits is queued.
    pub(crate) fn resumed(limits: Limits, tokens: &Range<u64>, grace: Option<Duration>) -> Self {
        let tokens = Tokens::between(tokens.start, tokens.end);
        let grace_ends = grace.map(|grace| clock::now().after(grace));
        Self { shell: Arc::new(Shell::new(limits, tokens, grace_ends)) }
    }

    /// The broker of a standby: it refuses everything until it [begins](Self::begin).
    #[must_use]
    pub fn standby(limits: Limits) -> Self {
        Self { shell: Arc::new(Shell::standby(limits)) }
    }

    /// Lets the broker of a standby begin: its fencing tokens begin with `tokens.start` and stay below
    /// `tokens.end`. With a `grace` it grants nothing at first. Does nothing, and returns false, if it
    /// is no standby's, or is shut.
    pub fn begin(&self, tokens: &Range<u64>, grace: Option<Duration>) -> bool {
        self.shell.begin(tokens, grace.map(|grace| clock::now().after(grace)))
    }

    /// The first fencing token of a broker that knows nothing of an earlier run.
    pub(crate) fn first_token_by_clock() -> u64 {
        clock::wall_micros()
    }

    /// A number above every fencing token so far. Other threads may be given it meanwhile.
    pub(crate) fn next_token(&self) -> u64 {
        self.shell.next_token()
    }

    pub(crate) fn set_tokens_end(&self, end: u64) {
        self.shell.set_tokens_end(end);
    }

    /// Ends the grace, if there is one: grants from now on, first of all to the requests that wait.
    pub(crate) fn end_grace(&self) {
        self.shell.end_grace();
    }

    /// How long it is until the broker grants anything. Not zero only in the grace: after a start
    /// from a [state directory](crate::server::state_dir) that no clean stop has left.
    #[must_use]
    pub fn grace(&self) -> Duration {
        self.shell.lifecycle.grace()
    }

    /// The state of this broker as data, for a program that replaces itself by another version and
    /// keeps the sessions. To be called only while no other thread is in a call of the broker or of
    /// one of its sessions.
    ///
    /// # Errors
    /// If the broker is shut or has failed, or if it shows that a thread is in a call.
    pub fn snapshot(&self) -> Result<BrokerSnapshot, BrokerSnapshotError> {
        self.shell.snapshot()
    }

    /// A broker that continues where the one of the snapshot was, and its sessions, in the order of
    /// the snapshot. `observer_of` makes the observer of each. Fencing tokens stay below
    /// `tokens_end`: rather than give a token at or above it, the broker fails. What exceeds the
    /// limits already stays.
    ///
    /// # Errors
    /// If the snapshot is not the state of a broker, or no token is left.
    pub fn restore(
        snapshot: &BrokerSnapshot,
        limits: Limits,
        tokens_end: u64,
        observer_of: impl FnMut(&SessionSnapshot) -> Arc<dyn Observer>,
    ) -> Result<(Self, Vec<ObservedSession>), BrokerSnapshotError> {
        let (shell, sessions) = Shell::restore(snapshot, limits, tokens_end, observer_of)?;
        Ok((Self { shell }, sessions))
    }

    /// Opens a session for threads of this process. `owner` is its name in listings, cut to
    /// [`OWNER_BYTES_MAX`] bytes.
    #[must_use]
    pub fn open(&self, owner: Option<&str>) -> LocalSession {
        LocalSession::open(&self.shell, owner)
    }

    /// Opens a session whose calls never block, for the peer at `address`. `observer` is told how
    /// its waits end.
    #[must_use]
    pub fn attach(&self, address: &str, observer: Arc<dyn Observer>) -> ObservedSession {
        ObservedSession::open(&self.shell, |_| address.to_owned(), observer)
    }

    /// Ends all waits of one of this broker's sessions; its locks stay. Does nothing if the session
    /// has ended.
    pub(crate) fn end_waits(&self, session: &SessionInfo) {
        self.shell.end_waits_of(session);
    }

    /// A page of the locks that are held or waited for, ordered by name. Examines every name of the
    /// broker, but delays other threads for short times only.
    #[must_use]
    pub fn page(&self, query: &PageQuery) -> Page {
        self.shell.page(query, false)
    }

    /// The same, of those locks alone that have waiters.
    #[must_use]
    pub fn page_with_waiters(&self, query: &PageQuery) -> Page {
        self.shell.page(query, true)
    }

    /// Passes every lock that is held or waited for to `each`, in no order, until `each` breaks
    /// off.
    pub fn for_each_lock<B>(&self, each: impl FnMut(LockInfo) -> ControlFlow<B>) -> Option<B> {
        self.shell.for_each_lock(each)
    }

    /// Passes every lock that the session holds to `each`, until `each` breaks off. A lock may be
    /// passed twice if another session begins to contend for it meanwhile.
    pub(crate) fn for_each_held<B>(
        &self,
        session: &SessionInfo,
        each: impl FnMut(&Key, Mode) -> ControlFlow<B>,
    ) -> Option<B> {
        self.shell.for_each_held(session, each)
    }

    /// All open sessions, in no order.
    pub(crate) fn sessions(&self) -> Vec<Arc<SessionInfo>> {
        self.shell.sessions.infos()
    }

    /// One lock; `None` if no session holds it or waits for it.
    #[must_use]
    pub fn lock_info(&self, space: Space, name: &[u8]) -> Option<LockInfo> {
        self.shell.lock_info(&self.shell.key(space, name).to_owned())
    }

    /// The current state, and the counts since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shell.stats()
    }

    /// Measures how long locks are held, for [`Stats::hold_times`]. Must be called before any lock
    /// is held. Every release then reads the clock, so this is for programs that show the times.
    pub fn measure_holds(&self) {
        self.shell.measures_holds.store(true, Relaxed);
    }

    /// The current limits.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.shell.limits.get()
    }

    /// Sets other limits. What exceeds them already stays.
    pub fn set_limits(&self, limits: Limits) {
        self.shell.limits.set(limits);
    }

    /// Grants nothing any more, for good: waits end with [`Outcome::Stopping`], and acquires are
    /// refused. Held locks stay held until they are released or their sessions end.
    pub fn shut(&self) {
        self.shell.shut();
    }

    /// Whether the broker has been [shut](Self::shut) or has failed: in both cases it grants
    /// nothing any more.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.shell.lifecycle.is_shut()
    }

    /// Whether the broker has failed: a bug has left its state in doubt, and it refuses every call
    /// rather than guess. A server must stop then; a new broker starts with no locks.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.shell.lifecycle.has_failed()
    }
}
