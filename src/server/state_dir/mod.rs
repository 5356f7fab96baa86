//! The state directory: the store of a [keeper](crate::server::keeper) on disk. Makes a broker that
//! continues where the last one with the directory ended. Knows two files; what is in them is the
//! keeper's.

mod directory;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use directory::Directory;

use crate::broker::{Broker, Limits};
use crate::server::keeper::next_run::NextRun;
#[cfg(all(test, any(explore = "loom", explore = "shuttle")))]
use crate::server::keeper::resumption::{Resumption, begin_without_thread};
use crate::server::keeper::store::Store;
use crate::server::keeper::{Keeper, KeeperSnapshot};

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
    let resume = || {
        let (store, next, broker) = begin(directory, limits, dead_peer_timeout, is_first_start)?;
        let keeper = Keeper::begin(Box::new(store), next, &broker)?;
        Ok((broker, keeper))
    };
    resume().map_err(|error| named(directory, &error))
}

/// The run after the last one, which is written down, and its broker.
fn begin(
    path: &Path,
    limits: Limits,
    dead_peer_timeout: Duration,
    is_first_start: bool,
) -> io::Result<(Directory, NextRun, Broker)> {
    let mut directory = Directory::lock(path)?;
    let last = directory.read()?;
    let next = NextRun::after(last, directory.tombstones()?, dead_peer_timeout, is_first_start)?;
    directory.write(&next.record)?;
    if !next.has_earlier() {
        directory.keep_tombstones(&[])?;
    }
    let broker = Broker::resumed(limits, &next.tokens, next.grace.map(|(grace, _)| grace));
    Ok((directory, next, broker))
}

/// For the model checkers, which do not know the keeper's thread: a broker that grants at once.
///
/// # Errors
/// As [`resume`].
#[cfg(all(test, any(explore = "loom", explore = "shuttle")))]
pub(super) fn resume_without_thread(path: &Path) -> io::Result<(Broker, Resumption)> {
    let (store, next, broker) = begin(path, Limits::default(), Duration::from_secs(25), true)?;
    let resumption = begin_without_thread(Box::new(store), next, &broker)?;
    Ok((broker, resumption))
}

/// Goes on as the keeper of a directory for the same run of the same broker, in a new image of the
/// process: nothing is written, there is no new grace, and the reserved tokens stay reserved.
/// `locked` is the descriptor of
/// [`KeeperRest::directory`](crate::server::keeper::KeeperRest::directory), through which the
/// directory has been locked all the time; `path` is for messages.
///
/// # Errors
/// If the thread cannot be started. The message names the directory.
pub fn go_on(path: &Path, locked: OwnedFd, snapshot: &KeeperSnapshot, broker: &Broker) -> io::Result<Keeper> {
    let go_on = || {
        let mut directory = Directory::locked(path, locked)?;
        let tombstones = directory.tombstones()?;
        Keeper::go_on(Box::new(directory), tombstones, snapshot, broker)
    };
    go_on().map_err(|error| named(path, &error))
}

fn named(directory: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("state directory {}: {error}", directory.display()))
}
