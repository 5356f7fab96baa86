//! Giving up locks and places in queues. What a session has given up counts as given up only when the server has
//! confirmed it; if it cannot be confirmed, nobody knows what is held, and the session ends.

use std::collections::HashSet;
use std::time::Instant;

use super::{GRACE, RemoteSession};
use crate::broker::{LockName, ReleaseError, Released};
use crate::client::connection::{Lost, Signals, Waited};
use crate::client::input::Reply;
use crate::wire::message::{LockResult, Status};

/// Locks and places that were given up, of which the server has not confirmed anything yet.
pub(in crate::client) struct GivingUp {
    /// The number of names.
    wanted: usize,
    /// What was given up, for each name at which there was something.
    released: Vec<Released>,
    /// The requests that tell the server.
    requests: Vec<u64>,
}

impl RemoteSession {
    /// Gives up the lock, or the place in its queue, and waits until the server has confirmed it. A call
    /// that waits for it in another thread ends with `Cancelled`.
    ///
    /// # Errors
    /// [`ReleaseError`]; `Lost` also if the server has not confirmed it within its dead-peer timeout, or not
    /// within a second of a [`cancel`](Self::cancel): that ends the session, so that nothing stays locked.
    pub fn release(&self, name: &[u8]) -> Result<Released, ReleaseError> {
        let released = self.give_up(&[LockName::new(name)])?;
        released.first().copied().ok_or(ReleaseError::NotHeld)
    }

    /// Gives up all these locks and places.
    ///
    /// # Errors
    /// As of [`release`](Self::release); `NotHeld` if there was nothing to give up for some of them; the others
    /// are given up all the same.
    pub fn release_all(&self, names: &[LockName]) -> Result<(), ReleaseError> {
        self.finish_release_all(self.begin_release(names)?)
    }

    /// The second half of [`release_all`](Self::release_all): waits until the server has confirmed it.
    pub(in crate::client) fn finish_release_all(&self, given_up: GivingUp) -> Result<(), ReleaseError> {
        let wanted = given_up.wanted;
        if self.hear_given_up(given_up)?.len() < wanted { Err(ReleaseError::NotHeld) } else { Ok(()) }
    }

    /// What was given up, for each name at which there was something.
    fn give_up(&self, names: &[LockName]) -> Result<Vec<Released>, ReleaseError> {
        self.hear_given_up(self.begin_release(names)?)
    }

    /// Gives up these locks and places, and sends that to the server, without waiting for its answers.
    pub(in crate::client) fn begin_release(&self, names: &[LockName]) -> Result<GivingUp, ReleaseError> {
        let (mut released, mut unlocked, mut requests) = (Vec::new(), Vec::new(), Vec::new());
        let mut of_places = HashSet::new();
        let mut claims = self.claims.lock();
        for name in names {
            let Some(given) = claims.give_up(name) else {
                // It may have gone with a place that an earlier one of the names stood for.
                released.extend(of_places.remove(name).then_some(Released::Place));
                continue;
            };
            released.push(given.released);
            if let Some(id) = given.request {
                self.connection.forget(id);
            }
            match given.names.len() {
                ..=1 => unlocked.extend(given.names),
                // In one piece, however many: with its first name the place leaves all its queues, and of
                // the names in a second request the server would say that there is nothing to give up. It
                // is shorter than the request that took the place.
                _ => {
                    requests.push(self.unlock_request(&given.names)?);
                    of_places.extend(given.names.into_iter().filter(|other| other != name));
                }
            }
        }
        requests.extend(self.unlock_requests(unlocked)?);
        self.connection.post(&requests.iter().collect::<Vec<_>>())?;
        drop(claims);
        self.connection.flush();
        let requests = requests.into_iter().map(|request| request.id).collect();
        Ok(GivingUp { wanted: names.len(), released, requests })
    }

    fn hear_given_up(&self, given_up: GivingUp) -> Result<Vec<Released>, ReleaseError> {
        let GivingUp { wanted, released, requests } = given_up;
        let mut deadline = self.answered_by();
        let heard: Vec<_> = requests.into_iter().map(|id| self.hear_unlocked(id, &mut deadline)).collect();
        heard.into_iter().collect::<Result<(), _>>()?;
        if released.len() < wanted {
            // Perhaps because all is gone.
            self.connection.check()?;
        }
        Ok(released)
    }

    fn hear_unlocked(&self, id: u64, deadline: &mut Instant) -> Result<(), ReleaseError> {
        // Nobody but this call knows of the request, so nobody forgets it.
        let Some(reply) = self.confirmation(id, deadline, "release")? else { return Ok(()) };
        match self.read::<LockResult>(&reply)?.status {
            Status::Ok => Ok(()),
            Status::NotFound => Err(ReleaseError::NotHeld),
            other => Err(self.lost(format!("the server would not unlock: {other:?}")).into()),
        }
    }

    /// The reply to a request that gives something up; `None` if it was forgotten. What has been given up
    /// cannot be taken back, so a cancelled call waits on for a moment, in which a server that is well confirms
    /// it. If the reply does not come, what the session holds is unknown, and that ends the session.
    pub(super) fn confirmation(
        &self,
        id: u64,
        deadline: &mut Instant,
        what: &str,
    ) -> Result<Option<Reply>, Lost> {
        let mut is_cancelled = false;
        loop {
            match self.connection.wait(&[id], Some(*deadline), Signals::Ignored)? {
                Waited::Reply(_, reply) => return Ok(Some(reply)),
                Waited::Forgotten => return Ok(None),
                Waited::TimedOut if is_cancelled => {
                    return Err(
                        self.lost(format!("the {what} was cancelled, and the server does not confirm it"))
                    );
                }
                Waited::TimedOut => {
                    return Err(self.lost(format!("the server has not confirmed the {what} in time")));
                }
                Waited::Cancelled if !is_cancelled => {
                    is_cancelled = true;
                    *deadline = (*deadline).min(Instant::now() + GRACE);
                }
                Waited::Cancelled | Waited::Interrupted => {}
            }
        }
    }
}
