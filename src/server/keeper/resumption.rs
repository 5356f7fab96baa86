//! What a server asks and tells the keeper about sessions that resume: the
//! number of the run, the secrets, which sessions of earlier runs may come back, and which ones may
//! not because their locks were given away. Knows no connection.

use std::fmt;
use std::io;
use std::time::Duration;

use super::run::KeeperState;
use super::running::Keeper;
#[cfg(all(test, any(explore = "loom", explore = "shuttle")))]
use super::{next_run::NextRun, store::Store};
#[cfg(all(test, any(explore = "loom", explore = "shuttle")))]
use crate::broker::Broker;
use crate::os::sync::Arc;
use crate::wire::message::{ResumeId, ResumeSecret};

/// By this the sessions of a server can resume: after an outage of the network, and at a later run
/// with the same store. From [`Keeper::resumption`].
#[derive(Clone)]
pub struct Resumption {
    keeper: Arc<KeeperState>,
}

impl Keeper {
    /// For the server of this broker, so that sessions can resume.
    #[must_use]
    pub fn resumption(&self) -> Resumption {
        Resumption { keeper: self.shared.clone() }
    }
}

/// For the model checkers, which do not know the keeper's thread.
///
/// # Errors
/// If the run has no number.
#[cfg(all(test, any(explore = "loom", explore = "shuttle")))]
pub(in crate::server) fn begin_without_thread(
    store: Box<dyn Store>,
    next: NextRun,
    broker: &Broker,
) -> io::Result<Resumption> {
    Ok(Resumption { keeper: Arc::new(KeeperState::begin(store, next, broker)?) })
}

impl Resumption {
    /// The number of this run, which is higher than that of every earlier one.
    pub(in crate::server) fn epoch(&self) -> u64 {
        self.keeper.epoch
    }

    /// The secret for a session that is told this dead-peer timeout in this run.
    pub(in crate::server) fn secret(&self, id: ResumeId, timeout: Duration) -> ResumeSecret {
        self.keeper.key.secret(id, self.epoch(), timeout)
    }

    /// Whether a run with this store has told the session this.
    pub(in crate::server) fn is_secret(
        &self,
        secret: &ResumeSecret,
        id: ResumeId,
        epoch: u64,
        timeout: Duration,
    ) -> bool {
        self.keeper.key.is_secret(secret, id, epoch, timeout)
    }

    /// Whether a session that an earlier run has told this epoch may resume now.
    ///
    /// # Errors
    /// The reason why not.
    pub(in crate::server) fn check_earlier(&self, id: ResumeId, epoch: u64) -> Result<(), &'static str> {
        self.keeper.check_earlier(id, epoch)
    }

    /// The session has come back, with all that it claims. One that was refused has not: it may
    /// believe in its locks until it knows, so the grace must not end early.
    pub(in crate::server) fn settle(&self, id: ResumeId) {
        self.keeper.settle(id);
    }

    /// The grace must last for its whole time, whoever has come back.
    pub(in crate::server) fn await_all(&self) {
        self.keeper.await_all();
    }

    /// Writes down that locks of these sessions are about to be given away: none of them may resume
    /// at a later run.
    ///
    /// # Errors
    /// If it cannot be written. Then the locks must stay.
    pub(in crate::server) fn bury(&self, ids: &[ResumeId]) -> io::Result<()> {
        self.keeper.bury(ids)
    }

    /// The server has stopped, and these sessions held something.
    pub(in crate::server) fn note_held(&self, ids: Vec<ResumeId>) {
        self.keeper.note_held(ids);
    }
}

impl fmt::Debug for Resumption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumption").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}
