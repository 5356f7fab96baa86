//! A session of this process whose calls block: the calling thread waits until its request is
//! answered. It has the same calls as a session on a server ([`crate::client::RemoteSession`]).

use std::collections::HashMap;
use std::time::Duration;

use crate::broker::clock::{self, Stamp};
use crate::broker::lifecycle::CallRefused;
use crate::broker::listing::{Page, PageQuery};
use crate::broker::mode::Mode;
use crate::broker::name::{Key, LockName, Space};
use crate::broker::outcome::{
    AcquireError, Attempt, Grant, Held, Inspection, Outcome, ReleaseError, Released,
};
use crate::broker::rules::Ticket;
use crate::broker::session::ObservedSession;
use crate::broker::session_info::{Observer, SessionInfo, Wait, truncate_owner};
use crate::broker::shell::Shell;
use crate::os::sync::{Arc, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering};

/// How often a waiting thread checks whether the broker has failed. A broker that has failed wakes
/// no thread.
const BROKER_POLL: Duration = Duration::from_secs(1);

/// One owner of locks in this process.
///
/// May be shared between threads: each call is atomic, and a call that waits does not delay the
/// others. But a session is *one* owner: a thread that asks for a lock which another thread of the
/// same session holds gets [`AcquireError::AlreadyHeld`] at once. Threads that compete for a lock
/// open a session each.
///
/// Time limits: `None` waits without limit, zero does not wait. When the session is dropped, its
/// locks are freed. That is an orderly end, unless the thread that drops it is panicking: then the
/// work under its locks may be half done, and the next exclusive holder is told so, as with a
/// poisoned mutex.
pub struct LocalSession {
    session: ObservedSession,
    waits: Arc<WaitOutcomes>,
    tickets: AtomicU64,
    enqueued: EnqueuedRequests,
}

/// A request that was queued by [`enqueue`](LocalSession::enqueue) or
/// [`enqueue_convert`](LocalSession::enqueue_convert).
#[derive(Clone, Copy, PartialEq, Eq)]
struct EnqueuedRequest {
    ticket: Ticket,
    mode: Mode,
    /// What the session held when it was queued: nothing, unless it is a conversion.
    held_before: Option<Held>,
}

/// The enqueued requests whose outcome has not been collected yet.
#[derive(Default)]
struct EnqueuedRequests {
    by_name: Mutex<HashMap<LockName, EnqueuedRequest>>,
    /// The size of `by_name`: nearly every session has none, and need not lock the mutex then.
    count: AtomicUsize,
}

impl EnqueuedRequests {
    fn insert(&self, name: LockName, request: EnqueuedRequest) -> Option<EnqueuedRequest> {
        self.change(|by_name| by_name.insert(name, request))
    }

    fn get(&self, name: &LockName) -> Option<EnqueuedRequest> {
        self.by_name.lock().get(name).copied()
    }

    /// A thread that has learned from another one of an enqueued request gets false.
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn remove(&self, name: &[u8]) -> Option<EnqueuedRequest> {
        self.change(|by_name| by_name.remove(&LockName::new(name)))
    }

    /// Removes this request, unless another thread has enqueued another one for the name since.
    fn forget(&self, name: &LockName, request: EnqueuedRequest) {
        self.change(|by_name| {
            if by_name.get(name) == Some(&request) {
                by_name.remove(name);
            }
        });
    }

    fn change<R>(&self, change: impl FnOnce(&mut HashMap<LockName, EnqueuedRequest>) -> R) -> R {
        let mut by_name = self.by_name.lock();
        let result = change(&mut by_name);
        self.count.store(by_name.len(), Ordering::Relaxed);
        result
    }
}

/// The waits whose outcome a thread will ask for.
#[derive(Default)]
struct WaitOutcomes {
    by_ticket: Mutex<HashMap<Ticket, ExpectedOutcome>>,
    changed: Condvar,
}

struct ExpectedOutcome {
    wants: Vec<(LockName, Mode)>,
    /// `None` while the wait goes on.
    outcome: Option<Outcome>,
}

impl WaitOutcomes {
    fn forget(&self, ticket: Ticket) {
        self.by_ticket.lock().remove(&ticket);
    }

    /// The error of a request for `wants`, if the broker has said that the session waits for one of
    /// them. That wait may have been granted since; a thread can still ask for its outcome then.
    fn already_waiting(&self, wants: &[(LockName, Mode)]) -> AcquireError {
        let by_ticket = self.by_ticket.lock();
        let waits_for = |name: &LockName| {
            let waits = by_ticket.values().filter(|wait| wait.wants.iter().any(|(other, _)| other == name));
            let open = waits.filter(|wait| matches!(wait.outcome, None | Some(Outcome::Granted(_))));
            open.max_by_key(|wait| wait.outcome.is_none())
        };
        match wants.iter().find_map(|(name, _)| waits_for(name)) {
            Some(wait) => AcquireError::already_waiting(wants, &wait.wants),
            // The wait has ended since: there is no grant to ask for.
            None => AcquireError::AlreadyWaiting,
        }
    }
}

impl Observer for WaitOutcomes {
    fn decided(&self, ticket: Ticket, outcome: Outcome) {
        if let Some(wait) = self.by_ticket.lock().get_mut(&ticket) {
            wait.outcome = Some(outcome);
        }
    }

    fn deliver(&self) {
        self.changed.notify_all();
    }
}

impl LocalSession {
    pub(super) fn open(shell: &Arc<Shell>, owner: Option<&str>) -> Self {
        let waits = Arc::new(WaitOutcomes::default());
        let session = ObservedSession::open(shell, |id| format!("local:{id}"), waits.clone());
        // Cannot fail: a truncated name is never too long.
        let _ = session.info().set_name(owner.map(|owner| truncate_owner(owner).as_bytes()));
        Self { session, waits, tickets: AtomicU64::new(0), enqueued: EnqueuedRequests::default() }
    }

    /// What identifies this session to others.
    #[must_use]
    pub fn info(&self) -> &Arc<SessionInfo> {
        self.session.info()
    }

    /// As [`Session::acquire`](crate::Session::acquire).
    pub fn acquire(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        match self.session.try_acquire(Space::Main, name, mode) {
            Err(AcquireError::TimedOut | AcquireError::NotYet(_)) if limit != Some(Duration::ZERO) => {
                self.acquire_all(&[(LockName::new(name), mode)], limit)
            }
            Err(AcquireError::AlreadyWaiting) => {
                Err(self.waits.already_waiting(&[(LockName::new(name), mode)]))
            }
            answer => answer,
        }
    }

    /// As [`Session::acquire_all`](crate::Session::acquire_all).
    pub fn acquire_all(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        let keys: Vec<(Key, Mode)> =
            wants.iter().map(|(name, mode)| (Key::main(name.clone()), *mode)).collect();
        self.blocking(wants, limit, |wait| self.session.acquire(&keys, wait))
    }

    /// As [`Session::convert`](crate::Session::convert).
    pub fn convert(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        let wants = [(LockName::new(name), mode)];
        let converted =
            self.blocking(&wants, limit, |wait| self.session.convert(Space::Main, name, mode, wait));
        if converted.is_ok() {
            self.forget_cancelled(name);
        }
        converted
    }

    /// As [`Session::release`](crate::Session::release).
    pub fn release(&self, name: &[u8]) -> Result<Released, ReleaseError> {
        if !self.enqueued.is_empty()
            && let Some(request) = self.enqueued.remove(name)
        {
            self.waits.forget(request.ticket);
        }
        self.session.release(Space::Main, name)
    }

    /// As [`Session::enqueue`](crate::Session::enqueue).
    pub fn enqueue(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        match self.session.try_acquire(Space::Main, name, mode) {
            Ok(grant) => {
                self.forget_cancelled(name);
                Ok(Attempt::Granted(grant))
            }
            Err(AcquireError::TimedOut | AcquireError::NotYet(_)) => {
                let wants = [(Key::main(name), mode)];
                self.enqueue_by(name, mode, None, |wait| self.session.acquire(&wants, wait))
            }
            Err(AcquireError::AlreadyWaiting) => {
                Err(self.waits.already_waiting(&[(LockName::new(name), mode)]))
            }
            Err(error) => Err(error),
        }
    }

    /// As [`Session::enqueue_convert`](crate::Session::enqueue_convert).
    pub fn enqueue_convert(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        let before = self.inspect(name).held;
        self.enqueue_by(name, mode, before, |wait| self.session.convert(Space::Main, name, mode, wait))
    }

    fn enqueue_by(
        &self,
        name: &[u8],
        mode: Mode,
        held_before: Option<Held>,
        attempt: impl FnOnce(Option<Wait>) -> Result<Attempt, AcquireError>,
    ) -> Result<Attempt, AcquireError> {
        let wants = [(LockName::new(name), mode)];
        let ticket = self.expect_outcome(&wants);
        let attempt = attempt(Some(Wait { ticket, limit: None }));
        let unused = match attempt {
            // An earlier request for the name may have ended, and its outcome was never collected.
            Ok(Attempt::Queued) => {
                let request = EnqueuedRequest { ticket, mode, held_before };
                self.enqueued.insert(LockName::new(name), request).map(|earlier| earlier.ticket)
            }
            _ => Some(ticket),
        };
        if let Some(ticket) = unused {
            self.waits.forget(ticket);
        }
        if attempt == Err(AcquireError::AlreadyWaiting) {
            return Err(self.waits.already_waiting(&wants));
        }
        if let Ok(Attempt::Granted(_)) = attempt {
            self.forget_cancelled(name);
        }
        attempt
    }

    /// To be called when a call has succeeded: that an earlier enqueued request was cancelled does
    /// not matter any more.
    fn forget_cancelled(&self, name: &[u8]) {
        if self.enqueued.is_empty() {
            return;
        }
        let name = LockName::new(name);
        if let Some(request) = self.enqueued.get(&name)
            && self.is_cancelled(request)
        {
            self.forget(&name, request);
        }
    }

    fn forget(&self, name: &LockName, request: EnqueuedRequest) {
        self.waits.forget(request.ticket);
        self.enqueued.forget(name, request);
    }

    fn is_cancelled(&self, request: EnqueuedRequest) -> bool {
        let by_ticket = self.waits.by_ticket.lock();
        by_ticket.get(&request.ticket).is_some_and(|wait| wait.outcome == Some(Outcome::Cancelled))
    }

    /// As [`Session::wait`](crate::Session::wait).
    pub fn wait(&self, name: &[u8], limit: Option<Duration>) -> Result<Grant, AcquireError> {
        let name = LockName::new(name);
        if !self.session.is_alive() {
            return granted(Outcome::Lost);
        }
        let Some(request) = self.enqueued.get(&name) else { return Err(AcquireError::NotHeld) };
        if self.is_outdated(&name, request) {
            self.forget(&name, request);
            return Err(AcquireError::NotHeld);
        }
        let deadline = limit.map(|limit| clock::now().after(limit));
        let Some(outcome) = self.outcome_by(request.ticket, deadline) else {
            return Err(AcquireError::TimedOut);
        };
        self.enqueued.forget(&name, request);
        let grant = granted(outcome)?;
        // Since the grant, another call may have released the lock, or made its mode wider.
        let is_held = |held: Held| held.token >= grant.token && held.mode <= request.mode;
        if self.inspect(name.as_bytes()).held.is_some_and(is_held) {
            Ok(grant)
        } else {
            Err(AcquireError::NotHeld)
        }
    }

    /// Whether the request was cancelled and another call has changed since what the session holds.
    /// Then the request no longer counts: `Cancelled` would say that the lock is held as before.
    fn is_outdated(&self, name: &LockName, request: EnqueuedRequest) -> bool {
        self.is_cancelled(request) && self.inspect(name.as_bytes()).held != request.held_before
    }

    /// As [`Session::cancel`](crate::Session::cancel).
    pub fn cancel(&self) {
        let waiting = |(&ticket, wait): (&Ticket, &ExpectedOutcome)| wait.outcome.is_none().then_some(ticket);
        let tickets: Vec<Ticket> = self.waits.by_ticket.lock().iter().filter_map(waiting).collect();
        for ticket in tickets {
            self.session.cancel(ticket);
        }
    }

    /// As [`Session::inspect`](crate::Session::inspect).
    #[must_use]
    pub fn inspect(&self, name: &[u8]) -> Inspection {
        self.session.inspect(Space::Main, name)
    }

    /// A page of the locks of its broker, as from [`Broker::page`](super::Broker::page).
    #[must_use]
    pub fn page(&self, query: &PageQuery) -> Page {
        self.session.shell.page(query, false)
    }

    /// As [`Session::is_alive`](crate::Session::is_alive).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.session.is_alive()
    }

    /// As [`Session::close`](crate::Session::close).
    pub fn close(&self) {
        self.session.close();
    }

    /// As [`Session::abandon`](crate::Session::abandon).
    pub fn abandon(&self) {
        self.session.abandon();
    }

    /// Makes a request for `wants` and waits for up to `limit` for its outcome.
    fn blocking(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
        attempt: impl FnOnce(Option<Wait>) -> Result<Attempt, AcquireError>,
    ) -> Result<Grant, AcquireError> {
        let wait =
            (limit != Some(Duration::ZERO)).then(|| Wait { ticket: self.expect_outcome(wants), limit });
        let attempt = attempt(wait);
        if let Some(wait) = wait
            && attempt != Ok(Attempt::Queued)
        {
            self.waits.forget(wait.ticket);
        }
        match (attempt, wait) {
            (Ok(Attempt::Granted(grant)), _) => Ok(grant),
            (Ok(Attempt::Queued), Some(wait)) => granted(self.outcome(wait.ticket, limit)),
            (Ok(Attempt::Queued), None) => unreachable!("a request without a wait is not queued"),
            (Err(AcquireError::AlreadyWaiting), _) => Err(self.waits.already_waiting(wants)),
            (Err(error), _) => Err(error),
        }
    }

    fn expect_outcome(&self, wants: &[(LockName, Mode)]) -> Ticket {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let wait = ExpectedOutcome { wants: wants.to_vec(), outcome: None };
        self.waits.by_ticket.lock().insert(ticket, wait);
        ticket
    }

    /// Waits until the broker has decided. When the time limit has passed, this thread has the
    /// broker end the wait.
    fn outcome(&self, ticket: Ticket, limit: Option<Duration>) -> Outcome {
        let mut sleep = limit;
        loop {
            let until = sleep.map(|sleep| clock::now().after(sleep));
            if let Some(outcome) = self.outcome_by(ticket, until) {
                return outcome;
            }
            sleep = self.session.expire();
        }
    }

    /// Waits for the outcome; `None` if `deadline` passes first.
    fn outcome_by(&self, ticket: Ticket, deadline: Option<Stamp>) -> Option<Outcome> {
        let mut by_ticket = self.waits.by_ticket.lock();
        loop {
            // Checked first: a lock that was granted before the session ended is lost with it.
            if !self.session.is_alive() {
                return Some(Outcome::Lost);
            }
            match by_ticket.get(&ticket).map(|wait| wait.outcome) {
                Some(None) => {}
                Some(outcome) => {
                    by_ticket.remove(&ticket);
                    return outcome;
                }
                // Another thread has given up the wait by a release.
                None => return Some(Outcome::Cancelled),
            }
            let rest = deadline.map_or(Duration::MAX, |deadline| deadline.since(clock::now()));
            if rest.is_zero() {
                return None;
            }
            by_ticket = self.waits.changed.wait_timeout(by_ticket, rest.min(BROKER_POLL)).0;
        }
    }
}

impl Drop for LocalSession {
    /// Does nothing for a session that was closed or abandoned before.
    fn drop(&mut self) {
        if std::thread::panicking() { self.abandon() } else { self.close() }
    }
}

fn granted(outcome: Outcome) -> Result<Grant, AcquireError> {
    match outcome {
        Outcome::Granted(grant) => Ok(grant),
        Outcome::TimedOut => Err(AcquireError::TimedOut),
        Outcome::Cancelled => Err(AcquireError::Cancelled),
        Outcome::Lost => Err(CallRefused::SessionEnded.into()),
        Outcome::Stopping => Err(CallRefused::Shut.into()),
    }
}
