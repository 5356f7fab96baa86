//! The state of a broker as data, and a broker made from it: for a process that replaces itself by
//! another version of the program while the sessions stay. Every later event has the outcome that
//! it would have had in the first broker.
//!
//! - `types`: the data. `as_data`: how names and modes are written in it.
//! - `collect`: a snapshot of a broker that no thread uses. `restore`: a broker from a snapshot,
//!   which is checked: it may come from another version, or from anywhere.
//!
//! What the table and the lanes give and take is in their own files of the same name.

pub(crate) mod as_data;
mod collect;
mod restore;
mod types;

pub use types::{
    BrokerSnapshot, BrokerSnapshotError, CountsSnapshot, HistogramSnapshot, HolderSnapshot, LockSnapshot,
    NameSnapshot, SessionSnapshot, WaitSnapshot, WantSnapshot,
};
