//! Mutexes, condition variables and atomics for broker, server and client, in one place, so that a
//! model checker can replace them. Knows nothing of what they protect.
//!
//! The mutexes keep all their state in themselves. A mutex that keeps its waiting threads in a
//! table of the whole process, as parking_lot does, would leave parts of that table locked for good
//! in a forked child, by threads that only the parent has.
//!
//! With `--cfg explore="loom"` or `--cfg explore="shuttle"`, all of them come from the model
//! checker. It then runs scenarios in every order in which their threads can meet, or in very many.

#[cfg(all(test, any(explore = "loom", explore = "shuttle")))]
pub(crate) mod explore;
#[cfg(any(explore = "loom", explore = "shuttle"))]
mod model_checked;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod ordinary {
    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence};

    pub(crate) use rustix::time::clock_gettime;
    pub(crate) use rustix_futex_sync::{Condvar, Mutex, MutexGuard, RwLock};
}

pub(crate) use std::sync::atomic::Ordering;
pub(crate) use std::sync::{Arc, Weak};

#[cfg(any(explore = "loom", explore = "shuttle"))]
pub(crate) use model_checked::*;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
pub(crate) use ordinary::*;
/// A mutex that no model checker replaces, for state of the whole process, which outlives a checked
/// scenario.
pub(crate) use rustix_futex_sync::Mutex as ProcessMutex;

/// Whether a model checker is in place. Tables are made small then, so that there are few orders to
/// try.
pub(crate) const IS_MODEL_CHECKED: bool = cfg!(any(explore = "loom", explore = "shuttle"));
