//! The primitives the broker's shell is built from, in one place, so that a model checker can be
//! put in their stead. Everything outside the shell is plain data and needs none of them.
//!
//! The locks keep all their state in themselves. One that has a table of waiting threads for the whole
//! process, as parking_lot has, would leave a forked child with parts of that table locked for good, by
//! threads that only its parent has.
//!
//! Built with `--cfg explore="loom"` or `--cfg explore="shuttle"`, all of them are the checker's: what
//! threads do to each other through them is then tried in every order, or in very many.

#[cfg(all(test, any(explore = "loom", explore = "shuttle")))]
pub(crate) mod explore;
#[cfg(any(explore = "loom", explore = "shuttle"))]
mod model_checked;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod ordinary {
    pub(crate) use std::sync::OnceLock;
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize};

    pub(crate) use rustix::time::clock_gettime;
    pub(crate) use rustix_futex_sync::{Condvar, Mutex, MutexGuard, RwLock};
}

pub(crate) use std::sync::Arc;
pub(crate) use std::sync::atomic::Ordering;

#[cfg(any(explore = "loom", explore = "shuttle"))]
pub(crate) use model_checked::*;
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
pub(crate) use ordinary::*;
/// For what belongs to the process, and so is there before and after anything that a checker looks at.
pub(crate) use rustix_futex_sync::Mutex as ProcessMutex;

/// Whether a checker looks at what threads do. It must have little to look at.
pub(crate) const IS_EXPLORED: bool = cfg!(any(explore = "loom", explore = "shuttle"));
