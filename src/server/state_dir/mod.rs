//! The state directory: what one run of a broker leaves to the next, so that after a restart no
//! lock is granted that an old holder may still believe to hold, and no name gets a fencing token
//! that it had before; and so that a session can resume at a later run. Knows the broker, two files,
//! and the shortest possible dead-peer timeout; no sockets.
//!
//! A run that is killed, alone or with its machine, cannot tell the holders of its locks. Holders
//! on other machines find out by themselves within the dead-peer timeout. So the next run, which
//! sees that this one did not stop cleanly, grants nothing for that long: the *grace*. A run cannot
//! write down every token that it gives. Instead it writes down in advance a number that its tokens
//! will stay below, and the next run begins there.
//!
//! - `run`: what a running broker has of its directory, and when its grace is over. `keeper`: the
//!   thread that does it.
//! - `resumption`: what a server asks and tells the keeper about sessions that resume.
//! - `burial`: writing the tombstones of many sessions at once.
//! - `record` and `tombstones`: the two files as text. `directory`: the files themselves.

mod burial;
mod directory;
#[cfg(fuzzing)]
pub mod fuzz_driver;
mod keeper;
mod record;
pub(super) mod resumption;
mod run;
#[cfg(test)]
mod tests;
mod tombstones;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

pub use keeper::{Keeper, KeeperRest};
pub use resumption::Resumption;
pub use run::{GraceCause, KeeperSessionsSnapshot, KeeperSnapshot};

use crate::broker::{Broker, Limits};

/// Makes the directory for [`resume`] unless it exists, accessible to its owner only, and gives it
/// to this user and group. To be called before the process becomes that user. A symbolic link to
/// the directory is followed only if it belongs to root or to the user of this process.
///
/// # Errors
/// If the directory cannot be made or given away, or if the path is not a directory. The message
/// names the path.
pub fn prepare_for(directory: &Path, uid: u32, gid: u32) -> io::Result<()> {
    directory::make_for(directory, uid, gid).map_err(|error| named(directory, &error))
}

/// Makes a broker that continues where the last one with this state directory ended, and the keeper
/// of that directory. The broker's fencing tokens are higher than all tokens of the last one. If
/// the last one did not stop cleanly, or its own grace was not over, nothing is granted until its
/// dead-peer timeout has passed from now on: [`Broker::grace`] tells how much of it is left. If it
/// has stopped cleanly while sessions that can resume held locks, that is over as soon as all of
/// them are back.
///
/// A directory that is new may replace one that is lost, so it begins with such a grace, too. With
/// `is_first_start` it does not: then there must be no client of an earlier server that still
/// believes in a lock. A directory that is not new is not affected by that.
///
/// `dead_peer_timeout` is the timeout of the server that will serve the broker. Starts a thread, in
/// which all signals are blocked.
///
/// # Errors
/// If the directory cannot be used, if another process uses it, or if its file is damaged or was
/// not written by lockd. Nothing in the directory has been changed then. The message names the
/// directory.
pub fn resume(
    directory: &Path,
    limits: Limits,
    dead_peer_timeout: Duration,
    is_first_start: bool,
) -> io::Result<(Broker, Keeper)> {
    Keeper::resume(directory, limits, dead_peer_timeout, is_first_start)
        .map_err(|error| named(directory, &error))
}

/// Goes on as the keeper of a directory for the same run of the same broker, in a new image of the
/// process: nothing is written, there is no new grace, and the reserved tokens stay reserved.
/// `locked` is the descriptor of [`KeeperRest::directory`], through which the directory has been
/// locked all the time; `path` is for messages.
///
/// # Errors
/// If the thread cannot be started. The message names the directory.
pub fn go_on(path: &Path, locked: OwnedFd, snapshot: &KeeperSnapshot, broker: &Broker) -> io::Result<Keeper> {
    Keeper::go_on(path, locked, snapshot, broker).map_err(|error| named(path, &error))
}

fn named(directory: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("state directory {}: {error}", directory.display()))
}
