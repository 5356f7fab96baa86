//! A session on one server, over the `message` protocol: the calls of [`Session`](crate::Session)
//! about locks of this server.
//!
//! Requests are sent in the order in which they were entered in the [`LocalView`], so the server
//! sees what the session does in the same order as the session itself. That is why a request can be
//! given up without waiting for the server: the request that takes it back follows on the same
//! connection, so the server handles it before anything newer.
//!
//! - `local_view`: what the session holds and waits for, without any I/O.
//! - `decision`: how a request ends.
//! - `releasing`: giving up locks and places in queues.
//! - `hello`: the handshake.
//! - `resuming`: how it goes from one connection to another, if it may be resumed.
//! - `belief`: what a session that may be resumed still believes to have without a connection.

mod belief;
mod decision;
mod error;
mod hello;
mod local_view;
mod releasing;
mod resuming;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connect_error::{ConnectError, ConnectErrorKind, ConnectRefusal};
use super::connection::{FramedRequest, Lost, OnSignal, REQUEST_MAX, ReplyWait, ServerConnection};
use socket2::SockAddr;

use super::dial::{ConnectOptions, deadline, dial, resolve};
use super::places::try_places;
use super::reply_reader::ServerReply;
use super::url::{ServerPlace, ServerUrl};
use super::wait_hook::WaitHook;
use crate::broker::{AcquireError, Attempt, Grant, Held, Inspection, LockName, Mode, check_set};
use crate::os::sync::Mutex;
use crate::wire::message::{
    ConvertRequest, InspectRequest, InspectResult, ListRequest, ListResult, LockNames, LockPage, LockRequest,
    LockResult, Status,
};
pub(in crate::client) use belief::{Belief, RememberedPlace, ResumeTerms};
pub use error::InspectError;
use hello::{Features, accept_hello, say_hello};
pub(in crate::client) use hello::{check_refusal, hello_request, read_hello};
use local_view::LocalView;
pub(in crate::client) use releasing::PendingRelease;

/// If the server does not answer, the client itself ends a wait this much later than the server
/// should have.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);

/// One owner of locks on one server. Most programs use [`Session`](crate::Session) instead, whose
/// calls are the same; they and the rules for sharing a session between threads are described
/// there.
///
/// The server ends a wait when its time limit is over. If the server does not answer at all, the
/// call returns within a second of its limit. Calls without a time limit that wait only for the
/// server return within its dead-peer timeout.
pub struct RemoteSession {
    connection: ServerConnection,
    view: Mutex<LocalView>,
    /// What signal handlers mean to waits for locks.
    on_signal: OnSignal,
    features: Features,
    /// With what the session can be resumed on another connection, if the server has told.
    resume: Option<ResumeTerms>,
}

impl RemoteSession {
    /// Opens a session on the server at `url` (see [`ServerUrl`]), within `timeout`; only resolving
    /// the host's name may take longer. `owner` is the session's name in listings and deadlock
    /// reports.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect(url: &str, owner: Option<&str>, timeout: Duration) -> Result<Self, ConnectError> {
        Self::connect_with(url, &ConnectOptions { owner, timeout, ..ConnectOptions::default() })
    }

    /// As [`connect`](Self::connect), with all options.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect_with(url: &str, options: &ConnectOptions<'_>) -> Result<Self, ConnectError> {
        Self::connect_to(&url.parse()?, options, &mut WaitHook::none())
    }

    pub(in crate::client) fn connect_to(
        url: &ServerUrl,
        options: &ConnectOptions<'_>,
        hook: &mut WaitHook<'_>,
    ) -> Result<Self, ConnectError> {
        let (session, _) = try_places(url, options.timeout, hook, |place, timeout, hook| {
            let options = ConnectOptions { timeout, ..*options };
            Self::connect_at(url, place, &resolve(place)?, &options, false, hook)
        })?;
        Ok(session)
    }

    /// As `connect_to`, at these addresses of the server at this place. `is_resumable` asks the server
    /// to let the session be resumed.
    pub(in crate::client) fn connect_at(
        url: &ServerUrl,
        place: &ServerPlace,
        addresses: &[SockAddr],
        options: &ConnectOptions<'_>,
        is_resumable: bool,
        hook: &mut WaitHook<'_>,
    ) -> Result<Self, ConnectError> {
        let deadline = deadline(Some(options.timeout));
        let secret =
            url.secret().map_err(|reason| ConnectRefusal::new(ConnectErrorKind::Local, reason).of(place))?;
        let connection = dial(url, place, addresses, options.timeout, hook)?;
        if is_resumable {
            connection.keep_proof(None);
        }
        let hello = say_hello(&connection, options, secret.as_ref(), deadline, hook);
        let accepted = hello.and_then(|hello| Ok((accept_hello(&connection, &hello)?, hello)));
        let (features, hello) = accepted.map_err(|refusal| refusal.of(place))?;
        let (on_signal, resume) = (OnSignal::interrupt_if(options.interruptible), ResumeTerms::of(&hello));
        Ok(Self { connection, view: Mutex::default(), on_signal, features, resume })
    }

    /// As [`Session::acquire`](crate::Session::acquire).
    pub fn acquire(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        let names = LockNames::One((LockName::new(name), mode));
        self.lock(LockRequest { names, limit }, &mut WaitHook::none())
    }

    /// As [`Session::acquire_all`](crate::Session::acquire_all).
    pub fn acquire_all(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        // The server checks the same, but only after the request has been entered in the view.
        check_set(wants.iter().map(|(name, _)| ((), name)))?;
        self.lock(LockRequest { names: LockNames::Set(wants.to_vec()), limit }, &mut WaitHook::none())
    }

    /// As [`acquire`](Self::acquire) for one lock, and as [`acquire_all`](Self::acquire_all) for
    /// several. If the hook ends the wait, the request is given up as if its time were over.
    pub(in crate::client) fn acquire_with_hook(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
        hook: &mut WaitHook<'_>,
    ) -> Result<Grant, AcquireError> {
        check_set(wants.iter().map(|(name, _)| ((), name)))?;
        let names = match wants {
            [want] => LockNames::One(want.clone()),
            wants => LockNames::Set(wants.to_vec()),
        };
        self.lock(LockRequest { names, limit }, hook)
    }

    fn lock(&self, lock: LockRequest, hook: &mut WaitHook<'_>) -> Result<Grant, AcquireError> {
        let kept = self.view.lock().resume_acquire(lock.names.as_slice());
        if let Some(id) = kept {
            return self.resume(id, lock.limit, hook);
        }
        let (until, backstop) = (deadline(lock.limit), backstop(lock.limit));
        let request = self.lock_request(&lock)?;
        let id = request.id;
        self.start(&[&request], |view| {
            view.ask(id, lock.names.into_vec(), false)?;
            view.limit(id, until);
            Ok(())
        })?;
        self.outcome(id, backstop, hook)
    }

    fn lock_request(&self, lock: &LockRequest) -> Result<FramedRequest, AcquireError> {
        lock.names.as_slice().iter().try_for_each(|&(_, mode)| self.check_mode(mode))?;
        self.request("lock", lock)
    }

    fn convert_request(
        &self,
        name: &LockName,
        mode: Mode,
        limit: Option<Duration>,
    ) -> Result<FramedRequest, AcquireError> {
        self.check_mode(mode)?;
        self.request("convert", &ConvertRequest { name: name.clone(), mode, limit })
    }

    /// A server that does not know limits would take a limited lock for an exclusive one.
    fn check_mode(&self, mode: Mode) -> Result<(), AcquireError> {
        match mode {
            Mode::Limited(_) if !self.features.limit => {
                Err(AcquireError::Refused("the server is older than limited locks".to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// As [`Session::convert`](crate::Session::convert).
    pub fn convert(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        let name = LockName::new(name);
        let kept = self.view.lock().resume_conversion(&name, mode);
        if let Some(id) = kept {
            return self.resume(id, limit, &mut WaitHook::none());
        }
        let request = self.convert_request(&name, mode, limit)?;
        let (id, backstop) = (request.id, backstop(limit));
        let mut widens = false;
        self.start(&[&request], |view| {
            widens = view.ask_to_convert(id, name, mode, false)?;
            view.limit(id, deadline(limit));
            Ok(())
        })?;
        if !widens {
            return self.outcome(id, backstop, &mut WaitHook::none());
        }
        let answered_by = self.answered_by();
        let mut deadline = backstop.map_or(answered_by, |backstop| backstop.min(answered_by));
        let confirmed = self.confirmation(id, &mut deadline, "change of the mode");
        match self.or_abandon(id, confirmed)? {
            Some(reply) => self.record_reply(id, &reply),
            // Another thread has released the lock.
            None => Err(AcquireError::Cancelled),
        }
    }

    /// Waits again for the outcome of a request whose call was interrupted. The server ends the
    /// request at its own time limit; `limit` may be earlier, and ends only this wait.
    fn resume(
        &self,
        id: u64,
        limit: Option<Duration>,
        hook: &mut WaitHook<'_>,
    ) -> Result<Grant, AcquireError> {
        let deadline = deadline(limit);
        // Reads what has come, so that a limit of zero also finds an outcome that is already there.
        self.or_abandon(id, self.connection.check())?;
        self.outcome(id, deadline, hook)
    }

    /// As [`Session::enqueue`](crate::Session::enqueue).
    pub fn enqueue(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        let name = LockName::new(name);
        let lock = LockRequest { names: LockNames::One((name.clone(), mode)), limit: None };
        let request = self.lock_request(&lock)?;
        let id = request.id;
        self.take_place(&name, &request, |view| view.ask(id, lock.names.into_vec(), true))
    }

    /// As [`Session::enqueue_convert`](crate::Session::enqueue_convert).
    pub fn enqueue_convert(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        let locked = LockName::new(name);
        let held = self.view.lock().held(&locked);
        if held.is_some_and(|held| mode > held.mode) {
            return self.convert(name, mode, None).map(Attempt::Granted);
        }
        let request = self.convert_request(&locked, mode, None)?;
        let ask =
            |view: &mut LocalView| view.ask_to_convert(request.id, locked.clone(), mode, true).map(drop);
        self.take_place(&locked, &request, ask)
    }

    /// Sends a request that may have to queue at `name`, and finds out whether it has to. A `ping`
    /// is sent after it: the server answers in order, so a request that is not answered before the
    /// ping is queued.
    fn take_place(
        &self,
        name: &LockName,
        request: &FramedRequest,
        ask: impl FnOnce(&mut LocalView) -> Result<(), AcquireError>,
    ) -> Result<Attempt, AcquireError> {
        let ping = self.request("ping", &serde_json::Map::new())?;
        let id = request.id;
        self.start(&[request, &ping], ask)?;
        let waited = self.connection.wait(&[id, ping.id], Some(self.answered_by()), OnSignal::Continue);
        let waited = self.or_abandon(id, waited)?;
        self.connection.forget(ping.id);
        match waited {
            ReplyWait::Reply(answered, reply) if answered == id => {
                self.record_reply(id, &reply).map(Attempt::Granted)
            }
            ReplyWait::Reply(..) => {
                let is_queued = self.view.lock().tell_queued(id);
                // It may have been given up. But if the connection is lost, so is the place.
                if is_queued {
                    Ok(Attempt::Queued)
                } else {
                    Ok(self.connection.check().map(|()| Attempt::Queued)?)
                }
            }
            ReplyWait::TimedOut => {
                let error = self.give_up_waiting(id);
                self.view.lock().ack_cancelled(name, id);
                Err(error)
            }
            ReplyWait::Forgotten | ReplyWait::Cancelled | ReplyWait::Interrupted => {
                Err(self.cancelled(name, id))
            }
        }
    }

    /// As [`Session::wait`](crate::Session::wait).
    pub fn wait(&self, name: &[u8], limit: Option<Duration>) -> Result<Grant, AcquireError> {
        let deadline = deadline(limit);
        let name = LockName::new(name);
        // A grant may have come some time ago, and its connection may be lost since.
        let checked = self.connection.check();
        let collected = self.view.lock().collect(&name);
        let id = match (collected, checked) {
            (Ok(id), checked) => {
                self.or_leave(id, checked)?;
                id
            }
            (Err(_), Err(lost)) => return Err(lost.into()),
            (Err(error), Ok(())) => return Err(error),
        };
        match self.or_leave(id, self.connection.wait(&[id], deadline, self.on_signal))? {
            ReplyWait::Reply(_, reply) => {
                // Another thread that waits for the same request must not wait any longer.
                self.connection.forget(id);
                self.record_reply(id, &reply)
            }
            ReplyWait::TimedOut => Err(AcquireError::TimedOut),
            ReplyWait::Interrupted => Err(AcquireError::Interrupted),
            ReplyWait::Forgotten | ReplyWait::Cancelled => Err(self.cancelled(&name, id)),
        }
    }

    /// As [`Session::cancel`](crate::Session::cancel).
    pub fn cancel(&self) {
        let mut view = self.view.lock();
        // Reads what has come, so that a grant that came first stays. If the connection is lost,
        // there is nothing to cancel.
        let _ = self.connection.check();
        for id in view.waiting() {
            if self.connection.is_unanswered(id) {
                self.take_back(&mut view, id);
            }
        }
        // What is still unanswered now is no wait for a lock.
        self.connection.cancel();
        drop(view);
        self.connection.flush();
    }

    /// As [`Session::held`](crate::Session::held).
    pub fn held(&self, name: &[u8]) -> Result<Option<Held>, InspectError> {
        let held = self.view.lock().held(&LockName::new(name));
        // Checked last: if the connection is lost, so is the lock, although the view still has it.
        self.connection.check()?;
        Ok(held)
    }

    /// As [`Session::inspect`](crate::Session::inspect).
    pub fn inspect(&self, name: &[u8]) -> Result<Inspection, InspectError> {
        let name = LockName::new(name);
        let InspectResult { mode, holders, waiters, orphaned, .. } =
            self.query("inspect", &InspectRequest { name: name.clone() }, |result: &InspectResult| {
                result.status
            })?;
        let view = self.view.lock();
        let (held, waiting) = (view.held(&name), view.is_waiting(&name));
        Ok(Inspection { mode, holders, waiters, held, waiting, orphaned })
    }

    /// A page of all locks on the server that are held or waited for.
    ///
    /// # Errors
    /// [`InspectError`]
    pub fn list(&self, request: &ListRequest) -> Result<LockPage, InspectError> {
        let ListResult { locks, more, .. } =
            self.query("list", request, |result: &ListResult| result.status)?;
        Ok(LockPage { locks, more })
    }

    /// Makes a request that changes nothing.
    fn query<R: DeserializeOwned>(
        &self,
        command: &str,
        parameters: &impl Serialize,
        status: impl FnOnce(&R) -> Status,
    ) -> Result<R, InspectError> {
        let request =
            self.connection.request(command, parameters, REQUEST_MAX).map_err(InspectError::Invalid)?;
        self.connection.post(&[&request])?;
        self.connection.flush();
        let reply = match self.connection.wait(&[request.id], Some(self.answered_by()), OnSignal::Continue)? {
            ReplyWait::Reply(_, reply) => reply,
            ReplyWait::TimedOut => {
                self.connection.forget(request.id);
                return Err(InspectError::TimedOut);
            }
            ReplyWait::Cancelled | ReplyWait::Forgotten | ReplyWait::Interrupted => {
                self.connection.forget(request.id);
                return Err(InspectError::Cancelled);
            }
        };
        let result = self.read(&reply)?;
        // The reply may have come before the connection was lost, and the lock with it.
        self.connection.check()?;
        let status = status(&result);
        if status == Status::Ok {
            return Ok(result);
        }
        let reason = self.read::<LockResult>(&reply)?.reason;
        Err(match status {
            Status::Invalid => InspectError::Invalid(reason.unwrap_or_default()),
            Status::Unknown => {
                InspectError::Refused(format!("the server does not know the command {command}"))
            }
            _ => InspectError::Refused(reason.unwrap_or_default()),
        })
    }

    /// As [`Session::is_alive`](crate::Session::is_alive).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.connection.check().is_ok()
    }

    /// Whether the session holds a lock or waits for one, in its own view. A loss of the connection
    /// does not change that by itself; a call that reports the loss, or gives the lock up, does.
    pub(in crate::client) fn holds_or_waits(&self) -> bool {
        self.view.lock().holds_or_waits()
    }

    /// As [`Session::close`](crate::Session::close).
    pub fn close(&self) {
        self.connection.close();
    }

    /// As [`Session::abandon`](crate::Session::abandon).
    pub fn abandon(&self) {
        self.connection.abandon();
    }

    /// How long to wait for an answer that has no time limit of its own.
    pub(in crate::client) fn answer_limit(&self) -> Duration {
        self.connection.answer_limit()
    }

    /// The number of requests that wait for a lock.
    #[cfg(test)]
    pub(in crate::client) fn waiting(&self) -> usize {
        self.view.lock().waiting().len()
    }

    fn request(&self, command: &str, parameters: &impl Serialize) -> Result<FramedRequest, AcquireError> {
        self.connection.request(command, parameters, REQUEST_MAX).map_err(AcquireError::Invalid)
    }

    /// Enters a request in the view and posts it in the same step, then sends it.
    fn start(
        &self,
        requests: &[&FramedRequest],
        ask: impl FnOnce(&mut LocalView) -> Result<(), AcquireError>,
    ) -> Result<(), AcquireError> {
        let mut view = self.view.lock();
        let asked = ask(&mut view);
        if asked.is_err() {
            drop(view);
            // The view may say that a lock is held that is lost.
            self.connection.check()?;
            return asked;
        }
        if let Err(lost) = self.connection.post(requests) {
            // Nothing was sent, so the request has come to nothing.
            requests.iter().for_each(|request| drop(view.decide(request.id, None)));
            return Err(lost.into());
        }
        drop(view);
        self.connection.flush();
        Ok(())
    }

    /// Reads a result. If it is unreadable, it is unknown what the session holds, so this ends the
    /// session.
    fn read<T: DeserializeOwned>(&self, reply: &ServerReply) -> Result<T, Lost> {
        let unreadable =
            |why: &dyn fmt::Display| self.lost(format!("the server's answer makes no sense: {why}"));
        let result = reply.as_ref().map_err(|error| unreadable(error))?;
        serde_json::from_str(result.get()).map_err(|error| unreadable(&error))
    }

    /// The deadline of a call that has no time limit of its own and waits only for the server.
    fn answered_by(&self) -> Instant {
        Instant::now() + self.connection.answer_limit()
    }

    /// Ends the session because of something that the server said or did not say.
    fn lost(&self, reason: String) -> Lost {
        self.connection.fail(reason.clone());
        Lost(reason)
    }
}

/// If it is readable while no call of this session is in progress, the session may be lost, and
/// [`is_alive`](RemoteSession::is_alive) tells.
impl AsFd for RemoteSession {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// The time at which the client ends a wait itself, if the server has not.
fn backstop(limit: Option<Duration>) -> Option<Instant> {
    deadline(limit.map(|limit| limit.saturating_add(ANSWER_MARGIN)))
}
