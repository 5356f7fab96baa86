//! Giving up locks and places. A release that was sent, and not confirmed before the connection
//! ended, has succeeded once the session is resumed: the server has released what was not claimed.

use super::machine::Condition;
use super::waits::{Patience, Unmade};
use super::{ReconnectingSession, Shared};
use crate::broker::{LockName, ReleaseError, Released};
use crate::client::session::{PendingRelease, RemoteSession};
use crate::os::sync::Arc;

/// A release that has been sent on a connection, and is not confirmed yet.
pub(in crate::client) struct BegunRelease {
    session: Arc<RemoteSession>,
    pending: PendingRelease,
    /// How often the session had been resumed before.
    resumes: u64,
    patience: Patience,
}

impl ReconnectingSession {
    /// As [`Session::release`](crate::Session::release).
    pub(in crate::client) fn release(&self, name: &[u8]) -> Result<Released, ReleaseError> {
        let released = self.confirm(self.begin_release(&[LockName::new(name)])?)?;
        released.first().copied().ok_or(ReleaseError::NotHeld)
    }

    /// As [`RemoteSession::begin_release`].
    pub(in crate::client) fn begin_release(&self, names: &[LockName]) -> Result<BegunRelease, ReleaseError> {
        let mut shared = self.shared.lock();
        self.step_if_away(&mut shared);
        let answer_limit = shared.current.answer_limit();
        match shared.machine.condition() {
            Condition::Standing => {}
            Condition::Lost { reason } => return Err(ReleaseError::Lost(reason.to_owned())),
            Condition::Away { reason, .. } => {
                let doubt = ReleaseError::Doubt(reason.to_owned());
                give_up(&mut shared, names);
                return Err(doubt);
            }
        }
        // Under the lock, so that the session cannot be in doubt before the release is known: what
        // it claims is without these names.
        let session = shared.current.clone();
        let pending = session.begin_release(names)?;
        shared.unconfirmed += 1;
        let resumes = shared.machine.resumes();
        drop(shared);
        let patience = self.patience(Some(answer_limit));
        Ok(BegunRelease { session, pending, resumes, patience })
    }

    /// As [`RemoteSession::finish_release_all`].
    pub(in crate::client) fn finish_release_all(&self, begun: BegunRelease) -> Result<(), ReleaseError> {
        let wanted = begun.pending.wanted;
        if self.confirm(begun)?.len() < wanted { Err(ReleaseError::NotHeld) } else { Ok(()) }
    }

    /// As [`RemoteSession::confirm`].
    fn confirm(&self, begun: BegunRelease) -> Result<Vec<Released>, ReleaseError> {
        let BegunRelease { session, pending, resumes, patience } = begun;
        let confirmed = match session.confirm(pending.clone()) {
            Err(ReleaseError::Lost(_)) => {
                self.note_loss(&session);
                self.verdict(resumes, &patience).map(|()| pending.released)
            }
            decided => decided,
        };
        self.shared.lock().unconfirmed -= 1;
        confirmed
    }

    /// Waits until the session has been resumed since.
    fn verdict(&self, resumes: u64, patience: &Patience) -> Result<(), ReleaseError> {
        let decide = |shared: &Shared| match shared.machine.condition() {
            _ if shared.machine.resumes() > resumes => Some(Ok(())),
            Condition::Lost { reason } => Some(Err(Unmade::Lost(reason.to_owned()))),
            Condition::Standing | Condition::Away { .. } => None,
        };
        Ok(self.wait_until(patience, decide)?)
    }
}

/// Gives the names up while there is no connection: they are not claimed, or if they have been, they
/// are unlocked as soon as the session is resumed.
fn give_up(shared: &mut Shared, names: &[LockName]) {
    if let Some(belief) = shared.machine.belief() {
        for name in names {
            belief.give_up(name);
        }
    }
}
