//! The keeper: what one run of a broker leaves to the next, so that after a restart no lock is
//! granted that an old holder may still believe to hold, and no name gets a fencing token that it
//! had before; and so that a session can resume at a later run. Knows the broker and the shortest
//! possible dead-peer timeout; no sockets, and not where the records are kept: that is a `Store`.
//!
//! A run that is killed, alone or with its machine, cannot tell the holders of its locks. Holders
//! on other machines find out by themselves within the dead-peer timeout. So the next run, which
//! sees that this one did not stop cleanly, grants nothing for that long: the *grace*. A run cannot
//! write down every token that it gives. Instead it writes down in advance a number that its tokens
//! will stay below, and the next run begins there.
//!
//! - `next_run`: what a run must do after what was found of the last one. `run`: what a running
//!   broker has of its records, and when its grace is over. `running`: the thread that does it.
//! - `resumption`: what a server asks and tells the keeper about sessions that resume.
//! - `burial`: writing the tombstones of many sessions at once.
//! - `record` and `tombstones`: what is kept, as text. `store`: what a place for it must do.

mod burial;
#[cfg(fuzzing)]
pub mod fuzz_driver;
pub(super) mod next_run;
pub(super) mod record;
pub(super) mod resumption;
mod run;
mod running;
pub(super) mod store;
#[cfg(test)]
mod tests;
pub(super) mod tombstones;

pub use next_run::GraceCause;
pub use resumption::Resumption;
pub use run::{KeeperSessionsSnapshot, KeeperSnapshot};
pub use running::{Keeper, KeeperRest};
