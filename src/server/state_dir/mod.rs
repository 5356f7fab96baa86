//! The state directory: what one run of a broker leaves to the next, so that after a restart no
//! lock is granted that an old holder may still believe to hold, and no name gets a fencing token
//! that it had before. Knows the broker, one file, and the shortest possible dead-peer timeout; no sockets.
//!
//! A run that is killed, alone or with its machine, cannot tell the holders of its locks. Holders
//! on other machines find out by themselves within the dead-peer timeout. So the next run, which
//! sees that this one did not stop cleanly, grants nothing for that long: the *grace*. A run cannot
//! write down every token that it gives. Instead it writes down in advance a number that its tokens
//! will stay below, and the next run begins there.

mod directory;
#[cfg(fuzzing)]
pub mod fuzz_driver;
mod record;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use directory::Directory;
use record::Record;
use serde::{Deserialize, Serialize};

use crate::broker::{Broker, Limits};
use crate::os::Keepalive;
use crate::os::sync::{Arc, Condvar, Mutex};
use crate::os::thread::{SignalsBlocked, Thread};

/// The number of tokens that are reserved in advance. They last for minutes at any rate that a
/// server can reach, so a disk may be slow for that long; and they are few enough that tokens stay
/// below 2^53 through millions of restarts.
const TOKENS_RESERVED: u64 = 1 << 30;
/// The interval at which the keeper checks how many tokens are left.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// While the keeper cannot write, it logs that at this interval.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The stack of the keeper's thread. It is address space; only what is used becomes memory.
const STACK_BYTES: usize = 1 << 20;

/// Makes the directory for [`resume`] unless it exists, accessible to its owner only, and gives it
/// to this user and group. To be called before the process becomes that user. A symbolic link to
/// the directory is followed only if it belongs to root or to the user of this process.
///
/// # Errors
/// If the directory cannot be made or given away, or if the path is not a directory. The message
/// names the path.
pub fn prepare_for(directory: &Path, uid: u32, gid: u32) -> io::Result<()> {
    directory::make_for(directory, uid, gid).map_err(|error| named(directory, &error))
}

/// Makes a broker that continues where the last one with this state directory ended, and the keeper
/// of that directory. The broker's fencing tokens are higher than all tokens of the last one. If
/// the last one did not stop cleanly, or its own grace was not over, nothing is granted until its
/// dead-peer timeout has passed from now on: [`Broker::grace`] tells how much of it is left.
///
/// `dead_peer_timeout` is the timeout of the server that will serve the broker. Starts a thread, in
/// which all signals are blocked.
///
/// # Errors
/// If the directory cannot be used, if another process uses it, or if its file is damaged or was
/// not written by lockd. Nothing in the directory has been changed then. The message names the
/// directory.
pub fn resume(directory: &Path, limits: Limits, dead_peer_timeout: Duration) -> io::Result<(Broker, Keeper)> {
    Keeper::resume(directory, limits, dead_peer_timeout).map_err(|error| named(directory, &error))
}

/// Goes on as the keeper of a directory for the same run of the same broker, in a new image of the
/// process: nothing is written, there is no new grace, and the reserved tokens stay reserved.
/// `locked` is the descriptor of [`KeeperRest::directory`], through which the directory has been
/// locked all the time; `path` is for messages.
///
/// # Errors
/// If the thread cannot be started. The message names the directory.
pub fn go_on(path: &Path, locked: OwnedFd, snapshot: &KeeperSnapshot, broker: &Broker) -> io::Result<Keeper> {
    Keeper::go_on(path, locked, snapshot, broker).map_err(|error| named(path, &error))
}

fn named(directory: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("state directory {}: {error}", directory.display()))
}

/// The timeout that is in effect: a server raises shorter ones to the minimum.
fn effective(dead_peer_timeout: Duration) -> Duration {
    dead_peer_timeout.max(Keepalive::DEAD_PEER_TIMEOUT_MIN)
}

/// Keeps the state directory of a running broker: reserves tokens in advance and ends the grace, in
/// a thread of its own. If it is dropped, or the process ends, the next run has a grace, unless
/// [`stopped`](Self::stopped) was called before.
pub struct Keeper {
    shared: Arc<KeeperState>,
    thread: Option<Thread>,
}

/// What the keeper shares with its thread.
struct KeeperState {
    broker: Broker,
    /// The directory, and the record that was last written there.
    kept: Mutex<(Directory, Record)>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    /// When the grace will be over; `None` once it is over.
    grace_ends: Option<Instant>,
    /// Whether the thread is to end.
    stop: bool,
    /// Whether the thread is to begin nothing.
    rest: bool,
    /// Whether the thread writes, or calls the broker.
    is_busy: bool,
}

impl Progress {
    fn new(grace_ends: Option<Instant>) -> Self {
        Self { grace_ends, stop: false, rest: false, is_busy: false }
    }
}

/// What a keeper knows, as data: for [`go_on`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeeperSnapshot {
    /// Every fencing token of the run is lower than this, as the record on disk says.
    pub tokens_end: u64,
    /// The recorded time until all clients know of the end of the run, in seconds.
    pub dead_peer_timeout: u64,
    /// Whether nothing is granted yet after an unclean stop.
    pub in_grace: bool,
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
        let kept = self.shared.kept.lock();
        let record = &kept.1;
        let dead_peer_timeout = record.dead_peer_timeout.as_secs();
        KeeperSnapshot { tokens_end: record.tokens_end, dead_peer_timeout, in_grace }
    }

    /// The number of the descriptor by which the directory is locked. It stays open as long as the
    /// keeper.
    #[must_use]
    pub fn directory(&self) -> RawFd {
        self.shared.kept.lock().0.as_fd().as_raw_fd()
    }
}

impl Drop for KeeperRest<'_> {
    fn drop(&mut self) {
        self.shared.progress.lock().rest = false;
        self.shared.changed.notify_all();
    }
}

impl Keeper {
    fn resume(path: &Path, limits: Limits, dead_peer_timeout: Duration) -> io::Result<(Broker, Self)> {
        let directory = Directory::lock(path)?;
        let last = directory.read()?;
        let grace = last.as_ref().filter(|last| !last.stopped).map(|last| last.dead_peer_timeout);
        let first = last.map_or(0, |last| last.tokens_end).max(Broker::first_token_by_clock());
        let record = Record {
            tokens_end: first.saturating_add(TOKENS_RESERVED),
            // If this run ends in its grace, the next one must still wait for the clients of the
            // last one.
            dead_peer_timeout: grace.unwrap_or_default().max(effective(dead_peer_timeout)),
            stopped: false,
        };
        directory.write(&record)?;
        let broker = Broker::resumed(limits, &(first..record.tokens_end), grace);
        let grace_ends = grace.and_then(|grace| Instant::now().checked_add(grace));
        let keeper = Self::start(directory, record, &broker, grace_ends)?;
        Ok((broker, keeper))
    }

    fn go_on(path: &Path, locked: OwnedFd, snapshot: &KeeperSnapshot, broker: &Broker) -> io::Result<Self> {
        let directory = Directory::locked(path, locked)?;
        let record = Record {
            tokens_end: snapshot.tokens_end,
            dead_peer_timeout: Duration::from_secs(snapshot.dead_peer_timeout),
            stopped: false,
        };
        let grace_ends = snapshot.in_grace.then(|| Instant::now() + broker.grace());
        Self::start(directory, record, broker, grace_ends)
    }

    fn start(
        directory: Directory,
        record: Record,
        broker: &Broker,
        grace_ends: Option<Instant>,
    ) -> io::Result<Self> {
        let shared = Arc::new(KeeperState {
            broker: broker.clone(),
            kept: Mutex::new((directory, record)),
            progress: Mutex::new(Progress::new(grace_ends)),
            changed: Condvar::new(),
        });
        let keeper = shared.clone();
        let _blocked = SignalsBlocked::new()?;
        let thread = Thread::start(c"lockd-state", STACK_BYTES, move || keeper.run())?;
        Ok(Self { shared, thread: Some(thread) })
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
                let text = "the state directory is being written";
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
    /// that held a lock knows that it has lost it. Then the next run grants at once, unless this
    /// run's own grace was not over.
    ///
    /// # Errors
    /// If it cannot be recorded. Then the next run has a grace.
    pub fn stopped(mut self) -> io::Result<()> {
        self.end();
        let over = self.shared.progress.lock().grace_ends.is_none();
        let tokens_end = self.shared.broker.next_token();
        self.shared.update(|record| {
            record.tokens_end = tokens_end;
            record.stopped = over;
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

impl KeeperState {
    fn run(&self) {
        let mut logged = None;
        while self.sleep() {
            if let Err(error) = self.keep_ahead()
                && logged.is_none_or(|logged: Instant| logged.elapsed() >= LOG_INTERVAL)
            {
                logged = Some(Instant::now());
                log::error!(
                    "the state directory cannot be written, and locks are granted until the fencing tokens run out: {error}"
                );
            }
        }
    }

    /// Sleeps until the tokens are to be checked, and ends the grace when it is over. False once
    /// the thread is to end.
    fn sleep(&self) -> bool {
        let mut progress = self.progress.lock();
        progress.is_busy = false;
        self.changed.notify_all();
        let left = |ends: Instant| ends.saturating_duration_since(Instant::now());
        if !progress.stop {
            let sleep = progress.grace_ends.map_or(CHECK_INTERVAL, |ends| left(ends).min(CHECK_INTERVAL));
            progress = self.changed.wait_timeout(progress, sleep).0;
        }
        while progress.rest && !progress.stop {
            progress = self.changed.wait_timeout(progress, CHECK_INTERVAL).0;
        }
        if progress.stop {
            return false;
        }
        progress.is_busy = true;
        if progress.grace_ends.is_some_and(|ends| left(ends).is_zero()) {
            progress.grace_ends = None;
            drop(progress);
            self.broker.end_grace();
            log::info!("locks are granted from now on");
        }
        true
    }

    /// Reserves more tokens when half of the reserved ones have been given.
    fn keep_ahead(&self) -> io::Result<()> {
        let next = self.broker.next_token();
        let reserved = self.kept.lock().1.tokens_end;
        if reserved.saturating_sub(next) > TOKENS_RESERVED / 2 {
            return Ok(());
        }
        let end = next.saturating_add(TOKENS_RESERVED);
        debug_assert!(end >= reserved, "reserved tokens are never taken back");
        self.update(|record| record.tokens_end = end)?;
        // Only now: a token must not be given before the record on disk covers it.
        self.broker.set_tokens_end(end);
        Ok(())
    }

    /// Changes the record, on disk first.
    fn update(&self, change: impl FnOnce(&mut Record)) -> io::Result<()> {
        let mut kept = self.kept.lock();
        let (directory, record) = &mut *kept;
        let mut changed = record.clone();
        change(&mut changed);
        if changed != *record {
            directory.write(&changed)?;
            *record = changed;
        }
        Ok(())
    }
}
