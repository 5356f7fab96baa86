//! Giving up locks and places in queues. A release has succeeded only when the server has confirmed
//! it. If it is not confirmed, it is unknown what the session holds, so the session ends.

use std::collections::HashSet;
use std::time::Instant;

use super::{ANSWER_MARGIN, RemoteSession};
use crate::broker::{LockName, ReleaseError, Released};
use crate::client::connection::{Lost, OnSignal, ReplyWait};
use crate::client::reply_reader::ServerReply;
use crate::wire::message::{LockResult, Status};

/// A release that has been sent, and that the server has not confirmed yet.
#[derive(Clone)]
pub(in crate::client) struct PendingRelease {
    /// The number of names that were to be given up.
    pub(in crate::client) wanted: usize,
    /// What was given up, for each name that was held or waited for.
    pub(in crate::client) released: Vec<Released>,
    /// The requests that the server must confirm.
    requests: Vec<u64>,
    /// Why it could not be sent.
    lost: Option<Lost>,
}

impl RemoteSession {
    /// As [`Session::release`](crate::Session::release).
    pub fn release(&self, name: &[u8]) -> Result<Released, ReleaseError> {
        let released = self.confirm(self.begin_release(&[LockName::new(name)])?)?;
        released.first().copied().ok_or(ReleaseError::NotHeld)
    }

    /// As [`Session::release_all`](crate::Session::release_all).
    pub fn release_all(&self, names: &[LockName]) -> Result<(), ReleaseError> {
        self.finish_release_all(self.begin_release(names)?)
    }

    /// The second half of [`release_all`](Self::release_all): waits until the server has confirmed
    /// it.
    pub(in crate::client) fn finish_release_all(&self, pending: PendingRelease) -> Result<(), ReleaseError> {
        let wanted = pending.wanted;
        if self.confirm(pending)?.len() < wanted { Err(ReleaseError::NotHeld) } else { Ok(()) }
    }

    /// The first half of [`release_all`](Self::release_all): gives the names up, and sends that to
    /// the server without waiting for its answers.
    pub(in crate::client) fn begin_release(
        &self,
        names: &[LockName],
    ) -> Result<PendingRelease, ReleaseError> {
        let (mut released, mut unlocked, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        let mut gone_with_others = HashSet::new();
        let mut view = self.view.lock();
        for name in names {
            let Some(given) = view.give_up(name) else {
                // An earlier name may have given up a request that this name belonged to.
                released.extend(gone_with_others.remove(name).then_some(Released::Place));
                continue;
            };
            released.push(given.released);
            if let Some(id) = given.request {
                self.connection.forget(id);
            }
            match given.names.len() {
                ..=1 => unlocked.extend(given.names),
                // All in one request: with its first name the place leaves all its queues, and for
                // names in a second request the server would answer that there is nothing to give
                // up. It is not too long, since it is shorter than the request that took the place.
                _ => {
                    requests.push(self.unlock_request(&given.names)?);
                    gone_with_others.extend(given.names.into_iter().filter(|other| other != name));
                }
            }
        }
        requests.extend(self.unlock_requests(unlocked)?);
        self.note_holding(&view);
        let posted = self.connection.post(&requests.iter().collect::<Vec<_>>());
        drop(view);
        self.connection.flush();
        let requests = requests.into_iter().map(|request| request.id).collect();
        Ok(PendingRelease { wanted: names.len(), released, requests, lost: posted.err() })
    }

    /// Waits until the server has confirmed a release. Returns what was given up, for each name
    /// that was held or waited for.
    pub(in crate::client) fn confirm(&self, pending: PendingRelease) -> Result<Vec<Released>, ReleaseError> {
        let PendingRelease { wanted, released, requests, lost } = pending;
        lost.map_or(Ok(()), Err)?;
        let mut deadline = self.answered_by();
        // All confirmations are awaited before any error is returned.
        let confirmed: Vec<_> =
            requests.into_iter().map(|id| self.confirm_unlock(id, &mut deadline)).collect();
        confirmed.into_iter().collect::<Result<(), _>>()?;
        if released.len() < wanted {
            // If the session is lost, `Lost` is the better answer than `NotHeld`.
            self.connection.check()?;
        }
        Ok(released)
    }

    fn confirm_unlock(&self, id: u64, deadline: &mut Instant) -> Result<(), ReleaseError> {
        // No other call knows of the request, so it is never forgotten.
        let Some(reply) = self.confirmation(id, deadline, "release")? else { return Ok(()) };
        match self.read::<LockResult>(&reply)?.status {
            Status::Ok => Ok(()),
            Status::NotFound => Err(ReleaseError::NotHeld),
            other => Err(self.lost(format!("the server would not unlock: {other:?}")).into()),
        }
    }

    /// Waits for the reply to a request that gives something up; `None` if it was forgotten. The
    /// request cannot be taken back, so a cancelled call waits for up to another [`ANSWER_MARGIN`],
    /// in which a working server confirms it. If the reply does not come, it is unknown what the
    /// session holds, so this ends the session.
    pub(super) fn confirmation(
        &self,
        id: u64,
        deadline: &mut Instant,
        what: &str,
    ) -> Result<Option<ServerReply>, Lost> {
        let mut is_cancelled = false;
        loop {
            match self.connection.wait(&[id], Some(*deadline), OnSignal::Continue)? {
                ReplyWait::Reply(_, reply) => return Ok(Some(reply)),
                ReplyWait::Forgotten => return Ok(None),
                ReplyWait::TimedOut if is_cancelled => {
                    return Err(
                        self.lost(format!("the {what} was cancelled, and the server does not confirm it"))
                    );
                }
                ReplyWait::TimedOut => {
                    return Err(self.lost(format!("the server has not confirmed the {what} in time")));
                }
                ReplyWait::Cancelled if !is_cancelled => {
                    is_cancelled = true;
                    *deadline = (*deadline).min(Instant::now() + ANSWER_MARGIN);
                }
                ReplyWait::Cancelled | ReplyWait::Interrupted => {}
            }
        }
    }
}
