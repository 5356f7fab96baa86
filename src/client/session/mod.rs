//! A session on one server: the same calls as a session in this process
//! ([`LocalSession`](crate::broker::LocalSession)), over the `message` protocol.
//!
//! Requests go onto the wire in the order in which they were entered in the claims, so the server sees
//! what a session does in the order in which the session itself believes it to have happened. That is why
//! a request can be given up without waiting for the server: what takes it back follows it on the same
//! connection, whatever was decided meanwhile, and ahead of all that this session asks for later.

mod claims;
mod decision;
mod error;
mod greeting;
mod releasing;

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::connect_error::{ConnectError, ConnectErrorKind, Refusal};
use super::connection::{Connection, Lost, Request, Signals, Waited};
use super::dial::{ConnectOptions, deadline, dial};
use super::input::Reply;
use super::url::ServerUrl;
use crate::broker::{AcquireError, Attempt, Grant, Held, Inspection, LockName, Mode, check_set};
use crate::os::sync::Mutex;
use crate::wire::message::{
    ConvertRequest, InspectRequest, InspectResult, ListRequest, ListResult, LockPage, LockRequest,
    LockResult, Status,
};
use claims::{Claims, Kind, Place};
pub use error::InspectError;
use greeting::greet;

/// How much later than the server the client ends a wait by itself, should the server not answer.
const GRACE: Duration = Duration::from_secs(1);

/// The longest request, in bytes: what a server takes unless it was told otherwise. A longer one would
/// cost the connection.
const REQUEST_MAX: usize = 1 << 20;

/// How many names one `unlock` has at most, so that it is never too long.
const UNLOCKED_AT_ONCE: usize = 100;

/// One owner of locks on a server.
///
/// May be shared between threads: each call is atomic, and one that waits holds up no other. But a
/// session is *one* owner: a thread that asks for what another thread of the same session holds is told
/// [`AcquireError::AlreadyHeld`], at once. Threads that contend with one another open a session each.
///
/// Time limits: `None` waits without limit, zero does not wait. The server ends a wait whose time is over;
/// should it not answer at all, the call returns within a second of its limit. Calls that have no limit of
/// their own and wait for nobody but the server return within its dead-peer timeout.
/// [`cancel`](Self::cancel) ends every call in progress, and [`close`](Self::close) the session itself. When
/// the session is dropped, or its connection lost, its locks are freed; nothing ever reconnects. To drop it is to
/// close it, unless the thread is panicking: then it is [abandoned](Self::abandon).
pub struct RemoteSession {
    connection: Connection,
    claims: Mutex<Claims>,
    /// What signal handlers mean to waits for other sessions.
    signals: Signals,
}

/// The parameters of `ping`.
#[derive(Serialize)]
struct Nothing {}

impl RemoteSession {
    /// Opens a session on the server at `url` (see [`ServerUrl`]), within `timeout`; only resolving the host's
    /// name may take longer. `owner` is what it is called in listings.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect(url: &str, owner: Option<&str>, timeout: Duration) -> Result<Self, ConnectError> {
        Self::connect_with(url, &ConnectOptions { owner, timeout, ..ConnectOptions::default() })
    }

    /// Opens a session on the server at `url` (see [`ServerUrl`]) as the options say.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect_with(url: &str, options: &ConnectOptions<'_>) -> Result<Self, ConnectError> {
        Self::connect_to(&url.parse()?, options)
    }

    pub(in crate::client) fn connect_to(
        url: &ServerUrl,
        options: &ConnectOptions<'_>,
    ) -> Result<Self, ConnectError> {
        let deadline = deadline(Some(options.timeout));
        let secret = url.secret().map_err(|reason| Refusal::new(ConnectErrorKind::Local, reason).of(url))?;
        let connection = dial(url, options.timeout)?;
        greet(&connection, options, secret, deadline).map_err(|refusal| refusal.of(url))?;
        let signals = if options.interruptible { Signals::Interrupt } else { Signals::Ignored };
        Ok(Self { connection, claims: Mutex::default(), signals })
    }

    /// Acquires the lock, waiting for up to `limit`, first come, first served.
    ///
    /// `Ok` means that the server granted it on a connection that was alive when the reply was read.
    ///
    /// # Errors
    /// [`AcquireError`]; `TimedOut` if it was not granted within `limit`.
    pub fn acquire(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        self.lock(LockRequest { names: vec![(LockName::new(name), mode)], set: false, limit })
    }

    /// Acquires all these locks at once or none of them, waiting for up to `limit` until all can be had.
    /// Holds nothing while it waits. All of them get the same token.
    ///
    /// # Errors
    /// [`AcquireError`]
    pub fn acquire_all(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        // The server would find the same wrong, but after the claims were made.
        check_set(wants.iter().map(|(name, _)| ((), name)))?;
        self.lock(LockRequest { names: wants.to_vec(), set: true, limit })
    }

    fn lock(&self, lock: LockRequest) -> Result<Grant, AcquireError> {
        let kept = self.claims.lock().take_up_acquire(&lock.names);
        if let Some(id) = kept {
            return self.resume(id, lock.limit);
        }
        let backstop = backstop(lock.limit);
        let request = self.request("lock", &lock)?;
        let id = request.id;
        self.start(&[&request], |claims| claims.ask(id, lock.names, Kind::Acquire))?;
        self.outcome(id, backstop, self.signals)
    }

    /// Changes the mode of a held lock without letting it go. To shared that never waits for anybody but
    /// the server; to exclusive it waits for up to `limit` for the other holders to go, and the grant
    /// carries a new token.
    ///
    /// Giving up exclusiveness cannot be taken back. If the server has not confirmed it within `limit` and a
    /// second (and within its dead-peer timeout in any case), or not within a second of a
    /// [`cancel`](Self::cancel), it is unknown what the session holds, and so that ends it: `Lost`.
    ///
    /// # Errors
    /// [`AcquireError`]; but for `Lost` the lock is then held as before.
    pub fn convert(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        let name = LockName::new(name);
        let kept = self.claims.lock().take_up_conversion(&name, mode);
        if let Some(id) = kept {
            return self.resume(id, limit);
        }
        let request = self.request("convert", &ConvertRequest { name: name.clone(), mode, limit })?;
        let (id, backstop) = (request.id, backstop(limit));
        let way = if mode == Mode::Shared { Kind::Downgrade } else { Kind::Upgrade };
        self.start(&[&request], |claims| claims.ask_to_convert(id, name, way))?;
        match mode {
            Mode::Exclusive => self.outcome(id, backstop, self.signals),
            Mode::Shared => {
                let answered_by = self.answered_by();
                let mut deadline = backstop.map_or(answered_by, |backstop| backstop.min(answered_by));
                let confirmed = self.confirmation(id, &mut deadline, "change to shared");
                match self.or_abandon(id, confirmed)? {
                    Some(reply) => self.settle(id, &reply),
                    // Another thread has released the lock.
                    None => Err(AcquireError::Cancelled),
                }
            }
        }
    }

    /// Goes on waiting for the outcome of a request that was kept. The server ends it when its own limit has
    /// come; `limit` may come first, and nobody but this client knows of it.
    fn resume(&self, id: u64, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        let deadline = deadline(limit);
        // The outcome may be there already, which is to be seen also without waiting.
        self.or_abandon(id, self.connection.check())?;
        self.outcome(id, deadline, self.signals)
    }

    /// Takes a place in the queue without waiting for anybody but the server: `Granted` if the lock could be
    /// had at once, else `Queued`, and [`wait`](Self::wait) hears what becomes of it.
    ///
    /// # Errors
    /// [`AcquireError`]; `TimedOut` if the server has not answered within its dead-peer timeout: then there is
    /// no place.
    pub fn enqueue(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        let name = LockName::new(name);
        let lock = LockRequest { names: vec![(name.clone(), mode)], set: false, limit: None };
        let request = self.request("lock", &lock)?;
        let id = request.id;
        self.take_place(&name, &request, |claims| claims.ask(id, lock.names, Kind::Enqueue))
    }

    /// Asks for another mode of a held lock without waiting for anybody but the server: `Granted` if it could
    /// be had at once, as shared always can, else `Queued`, and [`wait`](Self::wait) hears what becomes of it.
    /// [`cancel`](Self::cancel) gives the place up and leaves the lock as it was held.
    ///
    /// # Errors
    /// As of [`convert`](Self::convert); `TimedOut` if the server has not answered within its dead-peer
    /// timeout: then there is no place.
    pub fn enqueue_convert(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        if mode == Mode::Shared {
            return self.convert(name, mode, None).map(Attempt::Granted);
        }
        let name = LockName::new(name);
        let request = self.request("convert", &ConvertRequest { name: name.clone(), mode, limit: None })?;
        let ask =
            |claims: &mut Claims| claims.ask_to_convert(request.id, name.clone(), Kind::EnqueuedUpgrade);
        self.take_place(&name, &request, ask)
    }

    /// Sends a request that may have to queue at `name`, and hears whether it has to.
    fn take_place(
        &self,
        name: &LockName,
        request: &Request,
        ask: impl FnOnce(&mut Claims) -> Result<(), AcquireError>,
    ) -> Result<Attempt, AcquireError> {
        // What is decided at once is answered before the ping behind it.
        let ping = self.request("ping", &Nothing {})?;
        let id = request.id;
        self.start(&[request, &ping], ask)?;
        let waited = self.connection.wait(&[id, ping.id], Some(self.answered_by()), Signals::Ignored);
        let waited = self.or_abandon(id, waited)?;
        self.connection.forget(ping.id);
        match waited {
            Waited::Reply(answered, reply) if answered == id => self.settle(id, &reply).map(Attempt::Granted),
            Waited::Reply(..) => Ok(Attempt::Queued),
            Waited::TimedOut => {
                let error = self.give_up_waiting(id);
                self.claims.lock().told_cancelled(name, id);
                Err(error)
            }
            Waited::Forgotten | Waited::Cancelled | Waited::Interrupted => Err(self.cancelled(name, id)),
        }
    }

    /// Waits for up to `limit` at the place that [`enqueue`](Self::enqueue) or
    /// [`enqueue_convert`](Self::enqueue_convert) took, or that an interrupted call has kept. `TimedOut` keeps the
    /// place, unless the interrupted call's own time limit was over.
    ///
    /// # Errors
    /// [`AcquireError`]; `NotHeld` if there is no such place.
    pub fn wait(&self, name: &[u8], limit: Option<Duration>) -> Result<Grant, AcquireError> {
        let deadline = deadline(limit);
        let name = LockName::new(name);
        // A grant that has lain here may have been lost since.
        let checked = self.connection.check();
        let place = self.claims.lock().place(&name);
        let id = match (place, checked) {
            (Place::Taken(id), checked) => {
                self.or_abandon(id, checked)?;
                id
            }
            (_, Err(lost)) => return Err(lost.into()),
            (Place::Cancelled, Ok(())) => return Err(AcquireError::Cancelled),
            (Place::None, Ok(())) => return Err(AcquireError::NotHeld),
        };
        match self.or_abandon(id, self.connection.wait(&[id], deadline, self.signals))? {
            Waited::Reply(_, reply) => {
                // Another thread that waits at the same place must not wait any longer.
                self.connection.forget(id);
                self.settle(id, &reply)
            }
            Waited::TimedOut => Err(AcquireError::TimedOut),
            Waited::Interrupted => Err(AcquireError::Interrupted),
            Waited::Forgotten | Waited::Cancelled => Err(self.cancelled(&name, id)),
        }
    }

    /// Ends every call of this session that is in progress, in whichever thread, without waiting for anything:
    /// waits for locks, `inspect` and `list` with `Cancelled`; a grant on its way is given back, and one that
    /// came first stands. What gives up a lock, or exclusiveness, cannot be taken back: if the server does not
    /// confirm it within a second, that ends the session, and such calls return `Lost`.
    pub fn cancel(&self) {
        let mut claims = self.claims.lock();
        // What has come is read, so that a grant among it stands. If all is lost, nothing is left to cancel.
        let _ = self.connection.check();
        for id in claims.waiting() {
            if self.connection.is_unanswered(id) {
                self.take_back(&mut claims, id);
            }
        }
        // What is still to be answered is no wait for a lock.
        self.connection.cancel();
        drop(claims);
        self.connection.flush();
    }

    /// What this session holds on the name, by what it has been told: asks nobody. A place that
    /// [`enqueue`](Self::enqueue) took counts as waited for until [`wait`](Self::wait) has told that it was granted.
    ///
    /// # Errors
    /// `Lost`, as far as can be known without waiting.
    pub fn held(&self, name: &[u8]) -> Result<Option<Held>, InspectError> {
        let held = self.claims.lock().held(&LockName::new(name));
        // Looked at afterwards: what the session believes to hold may have gone long ago.
        self.connection.check()?;
        Ok(held)
    }

    /// The lock as it stands now.
    ///
    /// # Errors
    /// [`InspectError`]
    pub fn inspect(&self, name: &[u8]) -> Result<Inspection, InspectError> {
        let name = LockName::new(name);
        let InspectResult { mode, holders, waiters, orphaned, .. } =
            self.look("inspect", &InspectRequest { name: name.clone() }, |result: &InspectResult| {
                result.status
            })?;
        let claims = self.claims.lock();
        let (held, waiting) = (claims.held(&name), claims.is_waiting(&name));
        Ok(Inspection { mode, holders, waiters, held, waiting, orphaned })
    }

    /// A page of the locks that anybody holds or waits for on the server.
    ///
    /// # Errors
    /// [`InspectError`]
    pub fn list(&self, request: &ListRequest) -> Result<LockPage, InspectError> {
        let ListResult { locks, more, .. } =
            self.look("list", request, |result: &ListResult| result.status)?;
        Ok(LockPage { locks, more })
    }

    /// Asks what changes nothing.
    fn look<R: DeserializeOwned>(
        &self,
        command: &str,
        parameters: &impl Serialize,
        status: impl FnOnce(&R) -> Status,
    ) -> Result<R, InspectError> {
        let request =
            self.connection.request(command, parameters, REQUEST_MAX).map_err(InspectError::Invalid)?;
        self.connection.post(&[&request])?;
        self.connection.flush();
        let reply = match self.connection.wait(&[request.id], Some(self.answered_by()), Signals::Ignored)? {
            Waited::Reply(_, reply) => reply,
            Waited::TimedOut => {
                self.connection.forget(request.id);
                return Err(InspectError::TimedOut);
            }
            Waited::Cancelled | Waited::Forgotten | Waited::Interrupted => {
                self.connection.forget(request.id);
                return Err(InspectError::Cancelled);
            }
        };
        let result = self.read(&reply)?;
        // The reply may have lain there since before the connection was lost, and the lock with it.
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

    /// Whether the session stands, as far as can be known without waiting.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.connection.check().is_ok()
    }

    /// Whether the session holds a lock or waits for one, by its own account: a loss of the connection changes
    /// nothing about that until a call has told of it or given the lock up.
    pub(in crate::client) fn holds_or_waits(&self) -> bool {
        self.claims.lock().hold_or_wait()
    }

    /// Ends the session in an orderly way, whereupon the server frees its locks as if they had been released. Calls
    /// that are in progress, and all later ones, end with `Lost`. Waits for nothing: a server that takes no bytes
    /// just now is told only by the end of the connection, as by [`abandon`](Self::abandon).
    pub fn close(&self) {
        self.connection.close();
    }

    /// The same, but as if this process had ended: the next exclusive holder of what the session held exclusively
    /// is told that its work may be half done ([`Grant::orphaned`]).
    pub fn abandon(&self) {
        self.connection.abandon();
    }

    /// How many requests wait for a lock.
    #[cfg(test)]
    pub(in crate::client) fn waiting(&self) -> usize {
        self.claims.lock().waiting().len()
    }

    fn request(&self, command: &str, parameters: &impl Serialize) -> Result<Request, AcquireError> {
        self.connection.request(command, parameters, REQUEST_MAX).map_err(AcquireError::Invalid)
    }

    /// Enters a request in the claims and posts it in the same step, then sends it.
    fn start(
        &self,
        requests: &[&Request],
        ask: impl FnOnce(&mut Claims) -> Result<(), AcquireError>,
    ) -> Result<(), AcquireError> {
        let mut claims = self.claims.lock();
        let asked = ask(&mut claims);
        if asked.is_err() {
            drop(claims);
            // What is believed to be held may be gone.
            self.connection.check()?;
            return asked;
        }
        if let Err(lost) = self.connection.post(requests) {
            // Nobody has been asked for anything.
            requests.iter().for_each(|request| drop(claims.decide(request.id, None)));
            return Err(lost.into());
        }
        drop(claims);
        self.connection.flush();
        Ok(())
    }

    /// Reads a result. One that cannot be read leaves it open who holds what, so it ends the session.
    fn read<T: DeserializeOwned>(&self, reply: &Reply) -> Result<T, Lost> {
        let unreadable =
            |why: &dyn fmt::Display| self.lost(format!("the server's answer makes no sense: {why}"));
        let result = reply.as_ref().map_err(|error| unreadable(error))?;
        serde_json::from_str(result.get()).map_err(|error| unreadable(&error))
    }

    /// When a call ends that has no time limit of its own and waits for nobody but the server.
    fn answered_by(&self) -> Instant {
        Instant::now() + self.connection.answer_limit()
    }

    /// Ends the session because of what the server said, or did not say.
    fn lost(&self, reason: String) -> Lost {
        self.connection.fail(reason.clone());
        Lost(reason)
    }
}

/// Readable without a call of this session in progress: the session may be lost, and
/// [`is_alive`](RemoteSession::is_alive) tells.
impl AsFd for RemoteSession {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.as_fd()
    }
}

/// When the client gives up by itself.
fn backstop(limit: Option<Duration>) -> Option<Instant> {
    deadline(limit.map(|limit| limit.saturating_add(GRACE)))
}
