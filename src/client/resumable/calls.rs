//! The calls about locks. Each is made on the present connection. If that ends meanwhile, a call
//! that waits asks again once the session has a connection, as a new request within its time limit;
//! a call that does not wait ends with `Doubt`.

use std::time::Duration;

use super::ReconnectingSession;
use super::waits::{Patience, Unmade};
use crate::broker::{AcquireError, Attempt, Grant, Held, Inspection, LockName, Mode, check_set};
use crate::client::session::{Belief, InspectError, RememberedPlace, RemoteSession};
use crate::client::session_state::SessionState;
use crate::client::wait_hook::WaitHook;
use crate::os::sync::Arc;
use crate::wire::message::{ListRequest, LockPage};

impl ReconnectingSession {
    /// As [`Session::acquire`](crate::Session::acquire).
    pub(in crate::client) fn acquire(
        &self,
        name: &[u8],
        mode: Mode,
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        let wants = [(LockName::new(name), mode)];
        self.lock(&wants, limit, |session, rest| session.acquire(name, mode, rest))
    }

    /// As [`Session::acquire_all`](crate::Session::acquire_all).
    pub(in crate::client) fn acquire_all(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        check_set(wants.iter().map(|(name, _)| ((), name)))?;
        self.lock(wants, limit, |session, rest| session.acquire_all(wants, rest))
    }

    /// As [`RemoteSession::acquire_with_hook`]. Its caller holds nothing, and connects again itself:
    /// the end of the connection is `Lost`.
    pub(in crate::client) fn acquire_with_hook(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
        hook: &mut WaitHook<'_>,
    ) -> Result<Grant, AcquireError> {
        self.usable_now()?.acquire_with_hook(wants, limit, hook)
    }

    fn lock(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
        ask: impl Fn(&RemoteSession, Option<Duration>) -> Result<Grant, AcquireError>,
    ) -> Result<Grant, AcquireError> {
        let patience = self.patience(limit);
        self.with_belief(|belief| belief.take_kept(wants));
        loop {
            let session =
                self.usable(&patience).map_err(|unmade| self.keep_if(unmade, wants, false, &patience))?;
            match ask(&session, patience.rest()) {
                Err(AcquireError::Lost(_)) => self.note_loss(&session),
                decided => return decided,
            }
        }
    }

    /// As [`Session::convert`](crate::Session::convert).
    pub(in crate::client) fn convert(
        &self,
        name: &[u8],
        mode: Mode,
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        let patience = self.patience(limit);
        let wants = [(LockName::new(name), mode)];
        let widens = self.with_belief(|belief| {
            belief.take_kept(&wants);
            belief.held.get(&wants[0].0).is_some_and(|held| mode > held.mode)
        });
        if widens == Some(true) {
            self.usable_now()?;
        }
        loop {
            let session =
                self.usable(&patience).map_err(|unmade| self.keep_if(unmade, &wants, true, &patience))?;
            match session.convert(name, mode, patience.rest()) {
                // To a mode that allows more holders: the session claims that mode, so once it is
                // resumed it holds the lock in that mode, and this finds it so.
                Err(AcquireError::Lost(_)) => self.note_loss(&session),
                decided => return decided,
            }
        }
    }

    /// As [`Session::enqueue`](crate::Session::enqueue).
    pub(in crate::client) fn enqueue(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        self.at_once(|session| session.enqueue(name, mode), |error| matches!(error, AcquireError::Lost(_)))
    }

    /// As [`Session::enqueue_convert`](crate::Session::enqueue_convert).
    pub(in crate::client) fn enqueue_convert(
        &self,
        name: &[u8],
        mode: Mode,
    ) -> Result<Attempt, AcquireError> {
        let is_lost = |error: &AcquireError| matches!(error, AcquireError::Lost(_));
        self.at_once(|session| session.enqueue_convert(name, mode), is_lost)
    }

    /// As [`Session::wait`](crate::Session::wait).
    pub(in crate::client) fn wait(
        &self,
        name: &[u8],
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        let patience = self.patience(limit);
        let locked = LockName::new(name);
        let has_place = |belief: &mut Belief| {
            if belief.cancelled.remove(&locked) {
                return Err(AcquireError::Cancelled);
            }
            if belief.is_waiting(&locked) { Ok(()) } else { Err(AcquireError::NotHeld) }
        };
        loop {
            self.with_belief(has_place).unwrap_or(Ok(()))?;
            let session = self.usable(&patience)?;
            match session.wait(name, patience.rest()) {
                Err(AcquireError::Lost(_)) => self.note_loss(&session),
                decided => return decided,
            }
        }
    }

    /// As [`Session::held`](crate::Session::held).
    pub(in crate::client) fn held(&self, name: &[u8]) -> Result<Option<Held>, InspectError> {
        self.at_once(|session| session.held(name), is_lost)
    }

    /// As [`Session::inspect`](crate::Session::inspect).
    pub(in crate::client) fn inspect(&self, name: &[u8]) -> Result<Inspection, InspectError> {
        self.at_once(|session| session.inspect(name), is_lost)
    }

    /// As [`RemoteSession::list`].
    pub(in crate::client) fn list(&self, request: &ListRequest) -> Result<LockPage, InspectError> {
        self.at_once(|session| session.list(request), is_lost)
    }

    /// As [`Session::cancel`](crate::Session::cancel).
    pub(in crate::client) fn cancel(&self) {
        let mut shared = self.shared.lock();
        shared.cancels = shared.cancels.wrapping_add(1);
        if let Some(belief) = shared.machine.belief() {
            belief.cancel_places();
        }
        shared.waiters.iter().for_each(|waker| waker.wake());
        shared.current.cancel();
    }

    /// Waits for up to `limit` until it is certain whether the session has its locks.
    pub(in crate::client) fn wait_certain(&self, limit: Option<Duration>) -> SessionState {
        let patience = self.patience(limit);
        loop {
            let state = self.peek();
            if !matches!(state, SessionState::InDoubt { .. }) {
                return state;
            }
            if self.usable(&patience).is_err() {
                // The time is over, or it is lost.
                return self.peek();
            }
            // The new connection may have ended again by now.
        }
    }

    /// As [`state`](Self::state), but a program that polls in another thread has not been told.
    fn peek(&self) -> SessionState {
        let mut shared = self.shared.lock();
        self.step(&mut shared);
        self.arm(&mut shared);
        shared.state()
    }

    /// Makes a call that does not wait for a connection.
    fn at_once<T, E: From<Unmade>>(
        &self,
        call: impl Fn(&RemoteSession) -> Result<T, E>,
        is_lost: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        loop {
            let session: Arc<RemoteSession> = self.usable_now()?;
            match call(&session) {
                Err(error) if is_lost(&error) => self.note_loss(&session),
                decided => return decided,
            }
        }
    }

    /// `None` while there is a connection.
    fn with_belief<T>(&self, work: impl FnOnce(&mut Belief) -> T) -> Option<T> {
        self.shared.lock().machine.belief().map(work)
    }

    /// The error of a call that has not been made. An interrupted call keeps a place, for which it
    /// may come back.
    fn keep_if(
        &self,
        unmade: Unmade,
        wants: &[(LockName, Mode)],
        converts: bool,
        patience: &Patience,
    ) -> AcquireError {
        if unmade == Unmade::Interrupted {
            let (wants, until) = (wants.to_vec(), patience.deadline);
            let place = RememberedPlace { wants, converts, is_kept: true, until };
            self.with_belief(|belief| belief.places.push(place));
        }
        unmade.into()
    }
}

fn is_lost(error: &InspectError) -> bool {
    matches!(error, InspectError::Lost(_))
}
