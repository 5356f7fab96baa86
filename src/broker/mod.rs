//! The broker.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod name;
pub use name::{Key, LockName, Space};

/// How a lock is held: alone, or together with other shared holders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// One holder, nobody else.
    Exclusive,
    /// Any number of holders, none of them exclusive.
    Shared,
}
