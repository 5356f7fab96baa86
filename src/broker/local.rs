//! A session of this process whose calls block: the thread that asks waits until it is answered. The
//! same calls as a session on a server ([`crate::client::RemoteSession`]) has.

use std::collections::HashMap;
use std::time::Duration;

use crate::broker::clock::{self, Stamp};
use crate::broker::listing::{Page, PageQuery};
use crate::broker::name::{Key, LockName, Space};
use crate::broker::outcome::{
    AcquireError, Attempt, Grant, Held, Inspection, Mode, Outcome, ReleaseError, Released,
};
use crate::broker::rules::Ticket;
use crate::broker::session::{ObservedSession, Observer, SessionInfo, Wait, truncate_owner};
use crate::os::sync::{Arc, AtomicU64, AtomicUsize, Condvar, Mutex, Ordering};

/// How often a thread that waits looks whether the broker still stands.
const BROKER_POLL: Duration = Duration::from_secs(1);

/// One owner of locks in this process.
///
/// May be shared between threads: each call is atomic, and one that waits holds up no other. But a
/// session is *one* owner: a thread that asks for what another thread of the same session holds is told
/// [`AcquireError::AlreadyHeld`], at once. Threads that contend with one another open a session each.
///
/// Time limits: `None` waits without limit, zero does not wait. When the session is dropped, its locks
/// are freed. That is an orderly end, unless the thread that drops it is panicking: then the work under its locks
/// may be half done, and the next exclusive holder is told so, as with a poisoned mutex.
pub struct LocalSession {
    session: ObservedSession,
    waits: Arc<Waits>,
    tickets: AtomicU64,
    queued: Queued,
}

/// A place in a queue, taken without waiting there.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    ticket: Ticket,
    /// The mode it is for.
    mode: Mode,
    /// What the session held when it took the place: nothing, unless it is to convert that.
    before: Option<Held>,
}

/// The places taken by [`enqueue`](LocalSession::enqueue) and
/// [`enqueue_convert`](LocalSession::enqueue_convert) that nobody has collected yet.
#[derive(Default)]
struct Queued {
    places: Mutex<HashMap<LockName, Place>>,
    /// How many there are, so that who has none, which is nearly everybody, need not lock the mutex.
    count: AtomicUsize,
}

impl Queued {
    fn insert(&self, name: LockName, place: Place) -> Option<Place> {
        self.change(|places| places.insert(name, place))
    }

    fn get(&self, name: &LockName) -> Option<Place> {
        self.places.lock().get(name).copied()
    }

    /// Whether there is none. Whoever has heard of a place that was taken sees that there is one.
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn remove(&self, name: &[u8]) -> Option<Place> {
        if self.is_empty() {
            return None;
        }
        self.change(|places| places.remove(&LockName::new(name)))
    }

    /// The place is over; but another thread may have taken another one at the same name since.
    fn forget(&self, name: &LockName, place: Place) {
        self.change(|places| {
            if places.get(name) == Some(&place) {
                places.remove(name);
            }
        });
    }

    fn change<R>(&self, change: impl FnOnce(&mut HashMap<LockName, Place>) -> R) -> R {
        let mut places = self.places.lock();
        let result = change(&mut places);
        self.count.store(places.len(), Ordering::Relaxed);
        result
    }
}

/// The waits somebody is to hear of, and how they ended.
#[derive(Default)]
struct Waits {
    outcomes: Mutex<HashMap<Ticket, Option<Outcome>>>,
    changed: Condvar,
}

impl Observer for Waits {
    fn decided(&self, ticket: Ticket, outcome: Outcome) {
        if let Some(entry) = self.outcomes.lock().get_mut(&ticket) {
            *entry = Some(outcome);
        }
    }

    fn deliver(&self) {
        self.changed.notify_all();
    }
}

impl LocalSession {
    pub(super) fn open(broker: &Arc<crate::broker::shell::core::Inner>, owner: Option<&str>) -> Self {
        let waits = Arc::new(Waits::default());
        let session = broker.open(|id| format!("local:{id}"), waits.clone());
        // Shortened it is never too long.
        let _ = session.info().set_name(owner.map(|owner| truncate_owner(owner).as_bytes()));
        Self { session, waits, tickets: AtomicU64::new(0), queued: Queued::default() }
    }

    /// Who this session is to others.
    #[must_use]
    pub fn info(&self) -> &Arc<SessionInfo> {
        self.session.info()
    }

    /// Acquires the lock, waiting for up to `limit`, first come, first served.
    ///
    /// # Errors
    /// [`AcquireError`]; `TimedOut` if it was not granted within `limit`.
    pub fn acquire(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        match self.session.try_acquire(Space::Main, name, mode) {
            Err(AcquireError::TimedOut | AcquireError::NotYet(_)) if limit != Some(Duration::ZERO) => {
                self.acquire_all(&[(LockName::new(name), mode)], limit)
            }
            answer => answer,
        }
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
        let wants: Vec<(Key, Mode)> =
            wants.iter().map(|(name, mode)| (Key::main(name.clone()), *mode)).collect();
        self.blocking(limit, |wait| self.session.acquire(&wants, wait))
    }

    /// Changes the mode of a held lock without letting it go. To shared that never waits; to exclusive it
    /// waits for up to `limit` for the other holders to go, and the grant carries a new token.
    ///
    /// # Errors
    /// [`AcquireError`]; the lock is then held as before.
    pub fn convert(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        let converted = self.blocking(limit, |wait| self.session.convert(Space::Main, name, mode, wait));
        if converted.is_ok() {
            self.forget_cancelled(name);
        }
        converted
    }

    /// Gives up the lock, or the place that [`enqueue`](Self::enqueue) took; with the lock also the place that
    /// [`enqueue_convert`](Self::enqueue_convert) took.
    ///
    /// # Errors
    /// [`ReleaseError`]
    pub fn release(&self, name: &[u8]) -> Result<Released, ReleaseError> {
        if let Some(place) = self.queued.remove(name) {
            self.waits.outcomes.lock().remove(&place.ticket);
        }
        self.session.release(Space::Main, name)
    }

    /// Takes a place in the queue without waiting there: `Granted` if the lock could be had at once, else
    /// `Queued`, and [`wait`](Self::wait) hears what becomes of it.
    ///
    /// # Errors
    /// [`AcquireError`]
    pub fn enqueue(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        match self.session.try_acquire(Space::Main, name, mode) {
            Err(AcquireError::TimedOut | AcquireError::NotYet(_)) => {
                self.take_place(name, mode, None, |wait| {
                    self.session.acquire(&[(Key::main(name), mode)], wait)
                })
            }
            answer => {
                if answer.is_ok() {
                    self.forget_cancelled(name);
                }
                answer.map(Attempt::Granted)
            }
        }
    }

    /// Asks for another mode of a held lock without waiting for it: `Granted` if it could be had at once, as
    /// shared always can, else `Queued`, and [`wait`](Self::wait) hears what becomes of it.
    /// [`cancel`](Self::cancel) gives the place up and leaves the lock as it was held.
    ///
    /// # Errors
    /// [`AcquireError`]; the lock is then held as before.
    pub fn enqueue_convert(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        let before = self.inspect(name).held;
        self.take_place(name, mode, before, |wait| self.session.convert(Space::Main, name, mode, wait))
    }

    fn take_place(
        &self,
        name: &[u8],
        mode: Mode,
        before: Option<Held>,
        attempt: impl FnOnce(Option<Wait>) -> Result<Attempt, AcquireError>,
    ) -> Result<Attempt, AcquireError> {
        let ticket = self.expect_outcome();
        let attempt = attempt(Some(Wait { ticket, limit: None }));
        let unheard = match attempt {
            // There may be one whose end nobody has come to hear of.
            Ok(Attempt::Queued) => {
                let other = self.queued.insert(LockName::new(name), Place { ticket, mode, before });
                other.map(|place| place.ticket)
            }
            _ => Some(ticket),
        };
        if let Some(ticket) = unheard {
            self.waits.outcomes.lock().remove(&ticket);
        }
        if let Ok(Attempt::Granted(_)) = attempt {
            self.forget_cancelled(name);
        }
        attempt
    }

    /// A call has succeeded: that an earlier place at the name was cancelled is no news any more.
    fn forget_cancelled(&self, name: &[u8]) {
        if self.queued.is_empty() {
            return;
        }
        let name = LockName::new(name);
        if let Some(place) = self.queued.get(&name)
            && self.is_cancelled(place)
        {
            self.waits.outcomes.lock().remove(&place.ticket);
            self.queued.forget(&name, place);
        }
    }

    fn is_cancelled(&self, place: Place) -> bool {
        self.waits.outcomes.lock().get(&place.ticket) == Some(&Some(Outcome::Cancelled))
    }

    /// Waits for up to `limit` at the place that [`enqueue`](Self::enqueue) or
    /// [`enqueue_convert`](Self::enqueue_convert) took. `TimedOut` keeps the place.
    ///
    /// # Errors
    /// [`AcquireError`]; `NotHeld` if there is no such place.
    pub fn wait(&self, name: &[u8], limit: Option<Duration>) -> Result<Grant, AcquireError> {
        let name = LockName::new(name);
        if !self.session.is_alive() {
            return granted(Outcome::Lost);
        }
        let Some(place) = self.queued.get(&name) else { return Err(AcquireError::NotHeld) };
        if self.is_outdated(&name, place) {
            self.waits.outcomes.lock().remove(&place.ticket);
            self.queued.forget(&name, place);
            return Err(AcquireError::NotHeld);
        }
        let deadline = limit.map(|limit| clock::now().after(limit));
        let Some(outcome) = self.outcome_by(place.ticket, deadline) else {
            return Err(AcquireError::TimedOut);
        };
        self.queued.forget(&name, place);
        let grant = granted(outcome)?;
        // The lock may have been released since, or made shared again, by a call that did not come for this.
        let is_held = |held: Held| {
            held.token >= grant.token && (held.mode == Mode::Exclusive || place.mode == Mode::Shared)
        };
        if self.inspect(name.as_bytes()).held.is_some_and(is_held) {
            Ok(grant)
        } else {
            Err(AcquireError::NotHeld)
        }
    }

    /// Whether the place was cancelled and another call has changed what is held since: then there is none,
    /// and it would be wrong to say that the wait for what is held was cancelled.
    fn is_outdated(&self, name: &LockName, place: Place) -> bool {
        self.is_cancelled(place) && self.inspect(name.as_bytes()).held != place.before
    }

    /// Ends every wait of this session, in whichever thread, with `Cancelled`. A grant that came first
    /// stands.
    pub fn cancel(&self) {
        let waiting = |(&ticket, outcome): (&Ticket, &Option<Outcome>)| outcome.is_none().then_some(ticket);
        let tickets: Vec<Ticket> = self.waits.outcomes.lock().iter().filter_map(waiting).collect();
        for ticket in tickets {
            self.session.cancel(ticket);
        }
    }

    /// The lock as it stands now.
    #[must_use]
    pub fn inspect(&self, name: &[u8]) -> Inspection {
        self.session.inspect(Space::Main, name)
    }

    /// A page of the locks of its broker; as [`Broker::page`](super::Broker::page).
    #[must_use]
    pub fn page(&self, query: &PageQuery) -> Page {
        self.session.broker.page(query)
    }

    /// Whether the session stands: it has not been closed, and the broker has not failed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.session.is_alive()
    }

    /// Ends the session in an orderly way and frees its locks. A call that waits in another thread ends with
    /// `Lost`.
    pub fn close(&self) {
        self.session.leave();
    }

    /// The same, but as if the session had vanished: the next exclusive holder of what it held exclusively is told
    /// that its work may be half done ([`Grant::orphaned`]).
    pub fn abandon(&self) {
        self.session.end();
    }

    fn blocking(
        &self,
        limit: Option<Duration>,
        attempt: impl FnOnce(Option<Wait>) -> Result<Attempt, AcquireError>,
    ) -> Result<Grant, AcquireError> {
        if limit == Some(Duration::ZERO) {
            return match attempt(None)? {
                Attempt::Granted(grant) => Ok(grant),
                Attempt::Queued => unreachable!("a request without a wait is not queued"),
            };
        }
        let ticket = self.expect_outcome();
        let attempt = attempt(Some(Wait { ticket, limit }));
        if attempt != Ok(Attempt::Queued) {
            self.waits.outcomes.lock().remove(&ticket);
        }
        match attempt? {
            Attempt::Granted(grant) => Ok(grant),
            Attempt::Queued => granted(self.outcome(ticket, limit)),
        }
    }

    fn expect_outcome(&self) -> Ticket {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        self.waits.outcomes.lock().insert(ticket, None);
        ticket
    }

    /// Waits until the broker has decided, which it does in time: this thread tells it when the limit
    /// has come.
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

    /// The outcome, if it comes by `deadline`.
    fn outcome_by(&self, ticket: Ticket, deadline: Option<Stamp>) -> Option<Outcome> {
        let mut outcomes = self.waits.outcomes.lock();
        loop {
            // First: of what was granted before the end nothing is left.
            if !self.session.is_alive() {
                return Some(Outcome::Lost);
            }
            match outcomes.get(&ticket) {
                Some(None) => {}
                Some(Some(_)) => return outcomes.remove(&ticket).flatten(),
                // Another thread has released the place meanwhile.
                None => return Some(Outcome::Cancelled),
            }
            let rest = deadline.map_or(Duration::MAX, |deadline| deadline.since(clock::now()));
            if rest.is_zero() {
                return None;
            }
            // A broker that fails can wake nobody.
            outcomes = self.waits.changed.wait_timeout(outcomes, rest.min(BROKER_POLL)).0;
        }
    }
}

/// Of a session that was closed or abandoned before nothing is left to end.
impl Drop for LocalSession {
    fn drop(&mut self) {
        if std::thread::panicking() { self.abandon() } else { self.close() }
    }
}

fn granted(outcome: Outcome) -> Result<Grant, AcquireError> {
    match outcome {
        Outcome::Granted(grant) => Ok(grant),
        Outcome::TimedOut => Err(AcquireError::TimedOut),
        Outcome::Cancelled => Err(AcquireError::Cancelled),
        Outcome::Lost => Err(AcquireError::Lost("it was closed".to_owned())),
        Outcome::Stopping => Err(AcquireError::Refused("the server is stopping".to_owned())),
    }
}
