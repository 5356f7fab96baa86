//! `lock_broker`: the locks of one process, and the default broker; and the state directory of a broker, which it is
//! given by the first server that names one.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::arguments::{free, own};
use super::guard::guard;
use super::status::Failure;
use crate::broker::{Broker, Limits};
use crate::os::fork::{OfThisProcess, OneEachProcess};
use crate::os::sync::{Arc, Mutex, ProcessMutex};
use crate::server::Server;
use crate::server::state_dir::{self, Keeper};

/// How long clients are given to acknowledge the end, when a broker with a state directory stops.
const TELL_LIMIT: Duration = Duration::from_millis(500);

/// The locks of this process. Made by lock_broker_new, freed by lock_broker_free; wherever a broker is
/// taken, NULL means the default broker, which every process has.
pub struct lock_broker(OfThisProcess<Arc<Home>>);

static DEFAULT: OneEachProcess<Arc<Home>> = OneEachProcess::new();

/// State directories that stay taken until the process ends.
static TAKEN: OneEachProcess<ProcessMutex<Vec<Keeper>>> = OneEachProcess::new();

/// A broker that is made when it is first used, so that it can be given a state directory before.
#[derive(Default)]
pub(super) struct Home {
    broker: Mutex<Option<Broker>>,
    /// Locked for one step of a start or a stop, in which the state file may be written.
    keeper: Mutex<Option<Keeper>>,
}

impl Home {
    pub(super) fn broker(&self) -> Broker {
        self.broker.lock().get_or_insert_default().clone()
    }

    /// Makes the broker one that goes on where the last one with this state directory ended.
    pub(super) fn resume(&self, directory: &Path, limits: Limits, timeout: Duration) -> Result<(), Failure> {
        let is_used = || {
            Failure::invalid(
                "state-dir: the broker is in use already: a state directory is given to it before the first session",
            )
        };
        let mut kept = self.keeper.lock();
        if self.broker.lock().is_some() {
            return Err(is_used());
        }
        let (broker, keeper) = state_dir::resume(directory, limits, timeout)?;
        let mut own = self.broker.lock();
        if own.is_some() {
            drop(own);
            // Another thread has just opened a session. This one has granted nothing, and never will.
            broker.shut();
            keeper.stopped()?;
            return Err(is_used());
        }
        *own = Some(broker);
        *kept = Some(keeper);
        Ok(())
    }

    /// A server with this dead-peer timeout is about to serve the broker.
    pub(super) fn note_dead_peer_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.keeper.lock().as_ref().map_or(Ok(()), |keeper| keeper.set_dead_peer_timeout(timeout))
    }

    /// Stops the server that has brought the state directory, and with it the broker.
    pub(super) fn stop(&self, server: Server) {
        let broker = self.broker();
        // First of all nothing is granted any more.
        broker.shut();
        let failed = broker.has_failed();
        let untold = server.stop_and_tell(TELL_LIMIT);
        let Some(keeper) = self.keeper.lock().take() else { return };
        let stats = broker.stats();
        if stats.locks + stats.shared_locks > 0 {
            // Sessions of this process, or clients of another server of it, still hold locks, and nothing tells them
            // that these have ended. So the directory stays taken for as long as this process lives.
            TAKEN.get(ProcessMutex::default).lock().push(keeper);
        } else if !failed
            && untold == 0
            && let Err(error) = keeper.stopped()
        {
            log::error!("the state directory cannot be written: {error}");
        }
    }
}

/// What is behind a handle, or the default broker's.
///
/// # Safety
/// `broker` is NULL, or was made by `lock_broker_new` and not freed, and is not freed during the call.
pub(super) unsafe fn home_of(broker: *const lock_broker) -> Result<Arc<Home>, Failure> {
    // SAFETY: the caller's promise.
    match unsafe { broker.as_ref() } {
        Some(broker) => own(&broker.0).cloned(),
        None => Ok(DEFAULT.get(Arc::default).clone()),
    }
}

/// The broker behind a handle, or the default one.
///
/// # Safety
/// As of [`home_of`].
pub(super) unsafe fn broker_of(broker: *const lock_broker) -> Result<Broker, Failure> {
    // SAFETY: the caller's promise.
    Ok(unsafe { home_of(broker) }?.broker())
}

/// Makes a broker of one's own: names locked in it are locked for sessions of this broker alone. Most
/// programs need none, and use the default broker by passing NULL.
///
/// @return  The broker, to be freed with lock_broker_free.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn lock_broker_new() -> *mut lock_broker {
    guard(|| Ok(Box::into_raw(Box::new(lock_broker(OfThisProcess::new(Arc::default()))))))
}

/// Frees a broker. Its sessions and servers, if it has any, go on as before: the locks live until the last
/// of them goes.
///
/// @param broker  May be NULL. Must not be used any more, nor be in use by another thread.
///
/// Any thread; never blocks. In a forked child it frees the handle, and touches nothing of the parent's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_broker_free(broker: *mut lock_broker) {
    // SAFETY: made by `lock_broker_new` from a box, or NULL, and given back here for good.
    guard(|| unsafe { free(broker) });
}
