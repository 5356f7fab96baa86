//! What a session that may be resumed needs of its connections: it leaves a lost one with what it
//! believes to have, and goes on with that on another one. Knows one connection at a time.

use std::time::Instant;

use super::hello::{Features, accept_hello, introduce};
use super::local_view::LocalView;
use super::{Belief, RememberedPlace, RemoteSession, ResumeTerms};
use crate::broker::{AcquireError, LockName};
use crate::client::connection::{Lost, OnSignal, ServerConnection};
use crate::client::dial::ConnectOptions;
use crate::os::boot_clock::BootTime;
use crate::os::sync::Mutex;
use crate::wire::message::{HelloResult, LockNames, LockRequest};

impl RemoteSession {
    /// A session on a connection that the server has just accepted, by this answer to a request
    /// that was sent then. It goes on with `belief`, and gives up the locks `unlocked` first of all.
    /// If it cannot, the connection is lost.
    pub(in crate::client) fn go_on(
        connection: ServerConnection,
        hello: &HelloResult,
        sent: BootTime,
        belief: Belief,
        unlocked: Vec<LockName>,
        options: &ConnectOptions<'_>,
    ) -> Self {
        connection.keep_proof(Some(sent));
        if !options.wind_down.is_zero() {
            connection.stay_open_until_closed();
        }
        let accepted = accept_hello(&connection, hello);
        let features = accepted.unwrap_or_else(|refusal| {
            connection.fail(refusal.reason);
            Features { limit: false }
        });
        let session = Self {
            connection,
            view: Mutex::new(LocalView::of(&belief)),
            on_signal: OnSignal::interrupt_if(options.interruptible),
            features,
            resume: ResumeTerms::of(hello),
        };
        // If this fails the connection is lost, as its next user will see.
        let _ = session.restore(belief.places, unlocked, options.owner);
        session
    }

    fn restore(
        &self,
        places: Vec<RememberedPlace>,
        unlocked: Vec<LockName>,
        owner: Option<&str>,
    ) -> Result<(), Lost> {
        let mut view = self.view.lock();
        let unlock = self.unlock_requests(unlocked)?;
        self.connection.post_unheard(&unlock.iter().collect::<Vec<_>>())?;
        introduce(&self.connection, owner)?;
        for place in places {
            // It was allowed before, so only the server can refuse it.
            let _ = self.take_again(&mut view, place);
        }
        self.note_holding(&view);
        drop(view);
        self.connection.flush();
        Ok(())
    }

    /// Asks for a place that the session had on an earlier connection.
    fn take_again(&self, view: &mut LocalView, place: RememberedPlace) -> Result<(), AcquireError> {
        let RememberedPlace { wants, converts, is_kept, until } = place;
        let limit = until.map(|until| until.saturating_duration_since(Instant::now()));
        let request = match wants.as_slice() {
            [(name, mode)] if converts => self.convert_request(name, *mode, limit)?,
            [want] => self.lock_request(&LockRequest { names: LockNames::One(want.clone()), limit })?,
            wants => self.lock_request(&LockRequest { names: LockNames::Set(wants.to_vec()), limit })?,
        };
        let id = request.id;
        match wants.first() {
            Some((name, mode)) if converts => drop(view.ask_to_convert(id, name.clone(), *mode, !is_kept)?),
            _ => view.ask(id, wants, !is_kept)?,
        }
        view.limit(id, until);
        let _entered = if is_kept { view.keep(id) } else { view.tell_queued(id) };
        self.connection.post(&[&request])?;
        Ok(())
    }

    /// With what the session can be resumed, if the server has told.
    pub(in crate::client) fn resume_terms(&self) -> Option<ResumeTerms> {
        self.resume
    }

    /// When the latest of all answered requests was sent.
    pub(in crate::client) fn proof(&self) -> Option<BootTime> {
        self.connection.proof()
    }

    /// When [`check`](Self::check) has something to do: to ask the server, or to stop waiting for
    /// its answer.
    pub(in crate::client) fn proof_step_at(&self) -> Option<BootTime> {
        self.connection.proof_step_at()
    }

    /// The server may be at another place by now, if it does not answer on this connection.
    pub(in crate::client) fn may_be_elsewhere(&self) {
        self.connection.may_be_elsewhere();
    }

    /// Whether it is alive, and why not.
    pub(in crate::client) fn check(&self) -> Result<(), Lost> {
        self.connection.check()
    }

    /// What the session believes to have. Its connection is lost, so that nothing is granted on it
    /// any more; and this was not called before.
    pub(in crate::client) fn belief(&self) -> Belief {
        self.view.lock().belief()
    }

    /// Ends the lost connection without a word, since the session goes on on another one.
    pub(in crate::client) fn reset(&self) {
        self.connection.reset();
    }

    /// Whether a session that may be resumed needs a proof that is not old.
    pub(super) fn note_holding(&self, view: &LocalView) {
        if self.resume.is_some() {
            self.connection.set_proof_needed(view.holds());
        }
    }

    /// As [`or_abandon`](Self::or_abandon), for a request with a place that a caller may come back
    /// for: a session that may be resumed takes the place again.
    pub(super) fn or_leave<T>(&self, id: u64, result: Result<T, Lost>) -> Result<T, Lost> {
        if self.resume.is_some() { result } else { self.or_abandon(id, result) }
    }
}
