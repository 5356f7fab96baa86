//! The primitives the broker's shell is built from, in one place, so that a model checker can be
//! put in their stead. Everything outside the shell is plain data and needs none of them.

pub(crate) use parking_lot::{Condvar, Mutex, RwLock};
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Arc, OnceLock};
