//! `lock_broker`: the locks of one process, and the default broker. Also the state directory of a
//! broker, which the first server that names one gives it.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::arguments::{free, own};
use super::guard::guard;
use super::status::Failure;
use crate::broker::{Broker, Limits};
use crate::os::fork::{NotInherited, ProcessLocal};
use crate::os::sync::{Arc, Mutex, ProcessMutex};
use crate::server::Server;
use crate::server::keeper::{Keeper, Resumption};
use crate::server::state_dir;

/// How long clients have to acknowledge that their locks are lost, when a broker with a state
/// directory stops.
const STOP_TELL_LIMIT: Duration = Duration::from_millis(500);

/// The locks of this process. Made by lock_broker_new, freed by lock_broker_free. Every function
/// that takes a broker also takes NULL, which means the default broker of the process.
pub struct lock_broker(NotInherited<Arc<LazyBroker>>);

static DEFAULT: ProcessLocal<Arc<LazyBroker>> = ProcessLocal::new();

/// State directories that stay in use until the process ends.
static IN_USE: ProcessLocal<ProcessMutex<Vec<Keeper>>> = ProcessLocal::new();

/// A broker that is created when it is first used, so that it can be given a state directory before
/// that.
#[derive(Default)]
pub(super) struct LazyBroker {
    broker: Mutex<Option<Broker>>,
    /// Locked for one step of a start or a stop, during which the state file may be written.
    keeper: Mutex<Option<Keeper>>,
}

impl LazyBroker {
    pub(super) fn broker(&self) -> Broker {
        self.broker.lock().get_or_insert_default().clone()
    }

    /// Creates the broker as one that continues where the last one with this state directory ended.
    pub(super) fn resume(
        &self,
        directory: &Path,
        limits: Limits,
        timeout: Duration,
        is_first_start: bool,
    ) -> Result<(), Failure> {
        let is_used = || {
            Failure::invalid(
                "state-dir: the broker is in use already: a state directory is given to it before the first session",
            )
        };
        let mut kept = self.keeper.lock();
        if self.broker.lock().is_some() {
            return Err(is_used());
        }
        let (broker, keeper) = state_dir::resume(directory, limits, timeout, is_first_start)?;
        let mut own = self.broker.lock();
        if own.is_some() {
            drop(own);
            // Another thread has just opened a session. The new broker has granted nothing and
            // never will.
            broker.shut();
            keeper.stopped()?;
            return Err(is_used());
        }
        *own = Some(broker);
        *kept = Some(keeper);
        Ok(())
    }

    /// Must be called before a server with this dead-peer timeout serves the broker.
    pub(super) fn note_dead_peer_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.keeper.lock().as_ref().map_or(Ok(()), |keeper| keeper.set_dead_peer_timeout(timeout))
    }

    /// For a server of this broker, so that sessions can resume.
    pub(super) fn resumption(&self) -> Option<Resumption> {
        self.keeper.lock().as_ref().map(Keeper::resumption)
    }

    /// Stops the server that has given it the state directory, and shuts the broker.
    pub(super) fn stop(&self, server: Server) {
        let broker = self.broker();
        // First, so that nothing is granted while clients are told that their locks are lost.
        broker.shut();
        let failed = broker.has_failed();
        let untold = server.stop_and_tell(STOP_TELL_LIMIT);
        let Some(keeper) = self.keeper.lock().take() else { return };
        let stats = broker.stats();
        if stats.locks + stats.shared_locks > 0 {
            // Sessions of this process, or clients of another server in it, still hold locks, and
            // nothing tells them that the locks have ended. If another broker took over the
            // directory, it could grant these locks again. So the directory stays in use until this
            // process ends.
            IN_USE.get(ProcessMutex::default).lock().push(keeper);
        } else if !failed
            && untold == 0
            && let Err(error) = keeper.stopped()
        {
            log::error!("the state directory cannot be written: {error}");
        }
    }
}

/// The content of a handle; for NULL, of the default broker.
///
/// # Safety
/// `broker` is NULL, or was made by `lock_broker_new` and not freed, and is not freed during the
/// call.
pub(super) unsafe fn lazy_broker_of(broker: *const lock_broker) -> Result<Arc<LazyBroker>, Failure> {
    // SAFETY: the caller's promise.
    match unsafe { broker.as_ref() } {
        Some(broker) => own(&broker.0).cloned(),
        None => Ok(DEFAULT.get(Arc::default).clone()),
    }
}

/// The broker of a handle; for NULL, the default one. Creates it if this is the first use.
///
/// # Safety
/// As for [`lazy_broker_of`].
pub(super) unsafe fn broker_of(broker: *const lock_broker) -> Result<Broker, Failure> {
    // SAFETY: the caller's promise.
    Ok(unsafe { lazy_broker_of(broker) }?.broker())
}

/// Makes a separate broker: names locked in it are locked only for sessions of this broker. Most
/// programs do not need one, and pass NULL to use the default broker.
///
/// @return  The broker, to be freed with lock_broker_free.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn lock_broker_new() -> *mut lock_broker {
    guard(|| Ok(Box::into_raw(Box::new(lock_broker(NotInherited::new(Arc::default()))))))
}

/// Frees the handle of a broker. If the broker has sessions or servers, these continue: its locks stay until
/// the last of them is closed or stopped.
///
/// @param broker  May be NULL. Must not be used any more, nor be in use by another thread.
///
/// Any thread; never blocks. In a forked child it frees the handle and does not touch the parent's
/// broker.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_broker_free(broker: *mut lock_broker) {
    // SAFETY: made by `lock_broker_new` from a box, or NULL, and not used any more.
    guard(|| unsafe { free(broker) });
}
