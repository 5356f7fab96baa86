//! `lock_broker`: the locks of one process, and the default broker.

use super::arguments::{free, own};
use super::guard::guard;
use super::status::Failure;
use crate::broker::Broker;
use crate::fork::{OfThisProcess, OneEachProcess};

/// The locks of this process. Made by lock_broker_new, freed by lock_broker_free; wherever a broker is
/// taken, NULL means the default broker, which every process has.
pub struct lock_broker(OfThisProcess<Broker>);

static DEFAULT: OneEachProcess<Broker> = OneEachProcess::new();

/// The broker behind a handle, or the default one.
///
/// # Safety
/// `broker` is NULL, or was made by `lock_broker_new` and not freed, and is not freed during the call.
pub(super) unsafe fn broker_of(broker: *const lock_broker) -> Result<Broker, Failure> {
    // SAFETY: the caller's promise.
    match unsafe { broker.as_ref() } {
        Some(broker) => own(&broker.0).cloned(),
        None => Ok(DEFAULT.get(Broker::default).clone()),
    }
}

/// Makes a broker of one's own: names locked in it are locked for sessions of this broker alone. Most
/// programs need none, and use the default broker by passing NULL.
///
/// @return  The broker, to be freed with lock_broker_free.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn lock_broker_new() -> *mut lock_broker {
    guard(|| Ok(Box::into_raw(Box::new(lock_broker(OfThisProcess::new(Broker::default()))))))
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
