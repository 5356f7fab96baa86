//! The keeper of a running broker: its thread, and how it ends or is replaced by that of another
//! image of the program.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use super::next_run::{GraceCause, NextRun, effective};
use super::record::{HELD_MAX, RunEnd};
use super::run::{KeeperSessionsSnapshot, KeeperSnapshot, KeeperState};
use super::store::Store;
use super::tombstones::Tombstones;
use crate::broker::Broker;
use crate::os::sync::Arc;
use crate::os::thread::{SignalsBlocked, Thread};
use crate::wire::message::ResumeId;

/// The stack of the keeper's thread. It is address space; only what is used becomes memory.
const STACK_BYTES: usize = 1 << 20;

/// Keeps what the next run of a broker must know: reserves tokens in advance and ends the grace, in
/// a thread of its own. If it is dropped, or the process ends, the next run has a grace, unless
/// [`stopped`](Self::stopped) was called before.
pub struct Keeper {
    pub(super) shared: Arc<KeeperState>,
    thread: Option<Thread>,
    grace_cause: Option<GraceCause>,
}

/// While this exists, the keeper neither writes nor calls the broker. It goes on when this is
/// dropped.
pub struct KeeperRest<'a> {
    shared: &'a KeeperState,
}

impl KeeperRest<'_> {
    /// What the keeper knows.
    #[must_use]
    pub fn snapshot(&self) -> KeeperSnapshot {
        let in_grace = self.shared.progress.lock().grace_ends.is_some();
        let texts = |ids: &mut dyn Iterator<Item = &ResumeId>| ids.map(ResumeId::to_string).collect();
        let sessions = self.shared.sessions.lock();
        let awaited = sessions.earlier.as_ref().and_then(|earlier| earlier.awaited.as_ref());
        let awaited = awaited.map(|awaited| texts(&mut awaited.iter()));
        let buried = texts(&mut sessions.buried.iter());
        drop(sessions);
        let kept = self.shared.kept.lock();
        let record = &kept.1;
        let sessions = record.sessions.as_ref().map(|sessions| KeeperSessionsSnapshot {
            epoch: sessions.epoch,
            opened: sessions.opened,
            key: sessions.key.reveal(),
            awaited,
            buried,
        });
        let dead_peer_timeout = record.dead_peer_timeout.as_secs();
        KeeperSnapshot { tokens_end: record.tokens_end, dead_peer_timeout, in_grace, sessions }
    }

    /// The number of the descriptor by which the state directory is locked, if there is one. It
    /// stays open as long as the keeper.
    #[must_use]
    pub fn directory(&self) -> Option<RawFd> {
        self.shared.kept.lock().0.lock().map(|lock| lock.as_raw_fd())
    }
}

impl Drop for KeeperRest<'_> {
    fn drop(&mut self) {
        self.shared.progress.lock().rest = false;
        self.shared.changed.notify_all();
    }
}

impl Keeper {
    /// Keeps a run that has begun, see [`KeeperState::begin`].
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(in crate::server) fn begin(
        store: Box<dyn Store>,
        next: NextRun,
        broker: &Broker,
    ) -> io::Result<Self> {
        let grace_cause = next.grace.map(|(_, cause)| cause);
        let mut keeper = Self::start(KeeperState::begin(store, next, broker)?)?;
        keeper.grace_cause = grace_cause;
        Ok(keeper)
    }

    /// Goes on with the run of a snapshot. `tombstones` are those in the store.
    ///
    /// # Errors
    /// If the snapshot makes no sense, or the thread cannot be started.
    pub(in crate::server) fn go_on(
        store: Box<dyn Store>,
        tombstones: Tombstones,
        snapshot: &KeeperSnapshot,
        broker: &Broker,
    ) -> io::Result<Self> {
        Self::start(KeeperState::go_on(store, tombstones, snapshot, broker)?)
    }

    fn start(shared: KeeperState) -> io::Result<Self> {
        let shared = Arc::new(shared);
        let keeper = shared.clone();
        let _blocked = SignalsBlocked::new()?;
        let thread = Thread::start(c"lockd-state", STACK_BYTES, move || keeper.run())?;
        Ok(Self { shared, thread: Some(thread), grace_cause: None })
    }

    /// The number of the run, which is higher than that of every earlier one.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.shared.epoch
    }

    /// Why nothing is granted at first; `None` if locks are granted at once.
    #[must_use]
    pub fn grace_cause(&self) -> Option<GraceCause> {
        self.grace_cause
    }

    /// Makes the keeper rest, once it has finished what it does.
    ///
    /// # Errors
    /// If that is not within `limit`, for example because the disk is slow. Then it does not rest.
    pub fn rest(&self, limit: Duration) -> io::Result<KeeperRest<'_>> {
        let deadline = Instant::now() + limit;
        let mut progress = self.shared.progress.lock();
        progress.rest = true;
        while progress.is_busy {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                progress.rest = false;
                let text = "the state of this run is being written";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            progress = self.shared.changed.wait_timeout(progress, left).0;
        }
        Ok(KeeperRest { shared: &self.shared })
    }

    /// Records that the server's dead-peer timeout is about to change to `timeout`. Until this
    /// returns, no client may be told the new timeout.
    ///
    /// # Errors
    /// If it cannot be recorded. Then the server must keep its timeout.
    pub fn set_dead_peer_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.shared.update(|record| {
            // Clients that connected earlier keep the old timeout.
            record.dead_peer_timeout = record.dead_peer_timeout.max(effective(timeout));
        })
    }

    /// Records that the broker has stopped cleanly: it grants nothing any more, and every client
    /// that held a lock knows that it has lost it, but for the sessions that hold one and
    /// [can resume](super::Resumption). Then the next run grants at once, or as soon as all of those are
    /// back, unless this run's own grace was not over.
    ///
    /// # Errors
    /// If it cannot be recorded. Then the next run has a grace.
    pub fn stopped(mut self) -> io::Result<()> {
        self.end();
        let over = self.shared.progress.lock().grace_ends.is_none();
        let tokens_end = self.shared.broker.next_token();
        let held: BTreeSet<ResumeId> = self.shared.sessions.lock().held.drain(..).collect();
        self.shared.update(|record| {
            record.tokens_end = tokens_end;
            if over && held.len() <= HELD_MAX {
                record.end = RunEnd::Stopped { held };
            }
        })
    }

    fn end(&mut self) {
        self.shared.progress.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            thread.join();
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.end();
    }
}
