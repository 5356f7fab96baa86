//! What a broker leaves to the next run of it, so that a restart neither grants what somebody may still
//! believe to hold, nor gives a fencing token twice: the state directory. Knows the broker, a file, and the
//! shortest dead-peer timeout there is; no sockets.
//!
//! A run that is killed, or whose machine is, cannot tell the holders of its locks. Those on other machines
//! find out by themselves, within the dead-peer timeout. So the next run, which sees that this one was not
//! stopped, grants nothing for that long: the *grace*. And since no run can note each token it gives, it
//! notes ahead what it will stay below, and the next one begins there.

mod directory;
#[cfg(fuzzing)]
pub mod fuzz_driver;
mod record;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use directory::Directory;
use record::Record;

use crate::broker::{Broker, Limits};
use crate::os::Keepalive;
use crate::os::sync::{Arc, Condvar, Mutex};
use crate::os::thread::{SignalsBlocked, Thread};

/// How many tokens are reserved ahead: minutes at any rate that a server can reach, so that a disk may be
/// slow for as long; and few enough that tokens stay below 2^53 through millions of restarts.
const RESERVE: u64 = 1 << 30;
/// How often the keeper looks how many are left.
const LOOK: Duration = Duration::from_secs(1);
/// How often it says that it cannot write.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Reserved, not used.
const STACK_BYTES: usize = 1 << 20;

/// Makes the directory for [`resume`], for its owner alone, unless it is there, and gives it to this user and group:
/// before the process becomes that user. A link to it is followed only if it is root's or this process's own.
///
/// # Errors
/// If it cannot be made or given away, or is no directory; the message names it.
pub fn prepare_for(directory: &Path, uid: u32, gid: u32) -> io::Result<()> {
    directory::make_for(directory, uid, gid).map_err(|error| named(directory, &error))
}

/// A broker that goes on where the last one with this state directory ended, and the keeper of that
/// directory. Its fencing tokens are higher than all of that one. If that one did not stop cleanly, or its
/// own grace was not over, then nothing is granted before its dead-peer timeout has passed from now on:
/// [`Broker::grace`] tells how much is left.
///
/// `dead_peer_timeout` is that of the server that will serve the broker. Starts a thread, in which all
/// signals are blocked.
///
/// # Errors
/// If the directory cannot be used, another process uses it, or what it holds is damaged or not a lockd's:
/// then nothing there has been changed. The message names it.
pub fn resume(directory: &Path, limits: Limits, dead_peer_timeout: Duration) -> io::Result<(Broker, Keeper)> {
    Keeper::resume(directory, limits, dead_peer_timeout).map_err(|error| named(directory, &error))
}

fn named(directory: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("state directory {}: {error}", directory.display()))
}

/// No server goes by less, whatever it was told.
fn least(dead_peer_timeout: Duration) -> Duration {
    dead_peer_timeout.max(Keepalive::DEAD_PEER_TIMEOUT_MIN)
}

/// Keeps the state directory of a running broker: reserves tokens ahead and ends the grace, in a thread of
/// its own. If it is dropped, or the process ends, the next run has a grace; unless it was told that this
/// one has [stopped](Self::stopped).
pub struct Keeper {
    shared: Arc<Shared>,
    thread: Option<Thread>,
}

struct Shared {
    broker: Broker,
    /// The directory, and what stands in it, or may.
    kept: Mutex<(Directory, Record)>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

struct Progress {
    /// When the grace is over; `None` once it is.
    grace_ends: Option<Instant>,
    stop: bool,
}

impl Keeper {
    fn resume(path: &Path, limits: Limits, dead_peer_timeout: Duration) -> io::Result<(Broker, Self)> {
        let directory = Directory::take(path)?;
        let last = directory.read()?;
        let grace = last.as_ref().filter(|last| !last.stopped).map(|last| last.dead_peer_timeout);
        let first = last.map_or(0, |last| last.tokens_end).max(Broker::first_token_by_clock());
        let record = Record {
            tokens_end: first.saturating_add(RESERVE),
            // Should this run end in its grace, then clients of the last one are still to be waited for.
            dead_peer_timeout: grace.unwrap_or_default().max(least(dead_peer_timeout)),
            stopped: false,
        };
        directory.write(&record)?;
        let broker = Broker::resumed(limits, &(first..record.tokens_end), grace);
        let grace_ends = grace.and_then(|grace| Instant::now().checked_add(grace));
        let shared = Arc::new(Shared {
            broker: broker.clone(),
            kept: Mutex::new((directory, record)),
            progress: Mutex::new(Progress { grace_ends, stop: false }),
            changed: Condvar::new(),
        });
        let keeper = shared.clone();
        let _blocked = SignalsBlocked::new()?;
        let thread = Thread::start(c"lockd-state", STACK_BYTES, move || keeper.run())?;
        Ok((broker, Self { shared, thread: Some(thread) }))
    }

    /// Notes that the server's dead-peer timeout is about to be this one. Until this has returned, no client
    /// may go by it.
    ///
    /// # Errors
    /// If it cannot be noted: then the timeout must stay as it is.
    pub fn set_dead_peer_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.shared.update(|record| {
            // Clients that have connected before go by the old one.
            record.dead_peer_timeout = record.dead_peer_timeout.max(least(timeout));
        })
    }

    /// Notes that the broker has stopped cleanly: it grants nothing any more, and everyone who held a lock of
    /// it knows that it has ended. The next run grants at once, then; unless this one's grace was not over.
    ///
    /// # Errors
    /// If it cannot be noted: then the next run has a grace.
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

impl Shared {
    fn run(&self) {
        let mut said = None;
        while self.sleep() {
            if let Err(error) = self.keep_ahead()
                && said.is_none_or(|said: Instant| said.elapsed() >= SAY_AGAIN)
            {
                said = Some(Instant::now());
                log::error!(
                    "the state directory cannot be written, and locks are granted until the fencing tokens run out: {error}"
                );
            }
        }
    }

    /// Waits until it is time to look at the tokens, and ends the grace when it is time for that. False once
    /// the keeper is to end.
    fn sleep(&self) -> bool {
        let mut progress = self.progress.lock();
        let rest = |ends: Instant| ends.saturating_duration_since(Instant::now());
        if !progress.stop {
            let sleep = progress.grace_ends.map_or(LOOK, |ends| rest(ends).min(LOOK));
            progress = self.changed.wait_timeout(progress, sleep).0;
        }
        if progress.stop {
            return false;
        }
        if progress.grace_ends.is_some_and(|ends| rest(ends).is_zero()) {
            progress.grace_ends = None;
            drop(progress);
            self.broker.end_grace();
            log::info!("locks are granted from now on");
        }
        true
    }

    /// Reserves more tokens when half of what is reserved is gone.
    fn keep_ahead(&self) -> io::Result<()> {
        let next = self.broker.next_token();
        let reserved = self.kept.lock().1.tokens_end;
        if reserved.saturating_sub(next) > RESERVE / 2 {
            return Ok(());
        }
        let end = next.saturating_add(RESERVE);
        self.update(|record| record.tokens_end = end)?;
        // Only now: what is given must have been noted before.
        self.broker.set_tokens_end(end);
        Ok(())
    }

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
