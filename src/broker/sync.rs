//! The primitives the broker's shell is built from, in one place, so that a model checker can be
//! put in their stead. Everything outside the shell is plain data and needs none of them.
//!
//! The locks keep all their state in themselves. One that has a table of waiting threads for the whole
//! process, as parking_lot has, would leave a forked child with parts of that table locked for good, by
//! threads that only its parent has.

pub(crate) use rustix_futex_sync::{Condvar, Mutex, MutexGuard, RwLock};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, OnceLock};
