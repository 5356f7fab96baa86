//! A session on one server that survives the end of its connection: it connects again and resumes.
//! Has the calls of [`RemoteSession`], each of which is made on the present connection, and decides
//! what becomes of a call when that ends. [`Session`](crate::Session) says what that means to
//! programs.
//!
//! - `machine`: the states between two connections, and the verdict. Start reading here.
//! - `reconnect`: connecting again, without waiting. `rounds`: where.
//! - `drive`: does what the machine says. There is no thread: whichever call runs drives it.
//! - `waits`: how calls wait for the verdict.
//! - `calls`, `releases`: the calls.
//! - `watch`: the descriptor by which a program polls it.
//!
//! A [`RemoteSession`] is one connection, and is lost for good with it. What it believes to hold is
//! taken from it once, after it was lost, and is given to the next one when that is accepted. In
//! between, the machine has it.
//!
//! The mutex of `Shared` is taken before those of a `RemoteSession`. No call waits under it.

mod calls;
mod drive;
mod machine;
mod reconnect;
mod releases;
mod rounds;
#[cfg(test)]
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod tests;
mod waits;
mod watch;

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::connect_error::{ConnectError, ConnectErrorKind, ConnectRefusal};
use super::dial::{ConnectOptions, resolve};
use super::places::try_places;
use super::session::RemoteSession;
use super::session_state::SessionState;
use super::url::{ServerPlace, ServerUrl};
use super::wait_hook::WaitHook;
use crate::os::boot_clock::BootTime;
use crate::os::socket::{PollFlags, Waker};
use crate::os::sync::{Arc, Mutex};
use machine::{Condition, Machine};
use reconnect::Reconnect;
pub(super) use releases::BegunRelease;
use rounds::Rounds;
use watch::Watch;

pub(crate) struct ReconnectingSession {
    url: ServerUrl,
    owner: Option<String>,
    wind_down: Duration,
    interruptible: bool,
    watch: Watch,
    shared: Mutex<Shared>,
}

struct Shared {
    machine: Machine,
    /// The present connection, or the last one.
    current: Arc<RemoteSession>,
    attempt: Option<Reconnect>,
    /// The attempts since the connection has ended that have failed, and why the last one has.
    failures: u64,
    last_failure: Option<String>,
    /// Attempts that are not used any more, and must not end before the session's fate is known.
    left_open: Vec<Reconnect>,
    rounds: Rounds,
    resolved_at: Instant,
    /// Releases that are under way.
    unconfirmed: usize,
    /// How often the calls in progress were cancelled.
    cancels: u64,
    /// Of the threads that wait for the verdict.
    waiters: Vec<Arc<Waker>>,
    /// The state has changed, and a program that polls has not been told.
    has_news: bool,
}

impl ReconnectingSession {
    /// Connects, and asks the server to let the session be resumed. If it does not offer that, the
    /// session is returned as it is.
    pub(super) fn connect(
        url: &ServerUrl,
        options: &ConnectOptions<'_>,
        hook: &mut WaitHook<'_>,
    ) -> Result<Result<Self, RemoteSession>, ConnectError> {
        let attempt = |place: &ServerPlace, timeout, hook: &mut WaitHook<'_>| {
            let options = ConnectOptions { timeout, ..*options };
            let addresses = resolve(place)?;
            Ok((RemoteSession::connect_at(url, place, &addresses, &options, true, hook)?, addresses))
        };
        let ((session, addresses), active) = try_places(url, options.timeout, hook, attempt)?;
        let Some(terms) = session.resume_terms() else { return Ok(Err(session)) };
        if url.is_group() {
            session.may_be_elsewhere();
        }
        // Now, since a session in doubt has no time to resolve names.
        let others =
            |(at, place)| if at == active { addresses.clone() } else { resolve(place).unwrap_or_default() };
        let rounds = Rounds::new(url.places().iter().enumerate().map(others).collect(), active);
        let local =
            |error: std::io::Error| ConnectRefusal::new(ConnectErrorKind::Local, error.to_string()).of(url);
        let shared = Shared {
            machine: Machine::new(terms, BootTime::now()),
            current: Arc::new(session),
            attempt: None,
            failures: 0,
            last_failure: None,
            left_open: Vec::new(),
            rounds,
            resolved_at: Instant::now(),
            unconfirmed: 0,
            cancels: 0,
            waiters: Vec::new(),
            has_news: false,
        };
        let watch = Watch::new().map_err(local)?;
        watch.add(&*shared.current, PollFlags::IN);
        Ok(Ok(Self {
            url: url.clone(),
            owner: options.owner.map(str::to_owned),
            wind_down: options.wind_down,
            interruptible: options.interruptible,
            watch,
            shared: Mutex::new(shared),
        }))
    }

    fn options(&self) -> ConnectOptions<'_> {
        ConnectOptions {
            owner: self.owner.as_deref(),
            wind_down: self.wind_down,
            interruptible: self.interruptible,
            resume: true,
            ..ConnectOptions::default()
        }
    }

    /// What it is now. Never waits; goes on with connecting again, and asks the server if its last
    /// answer is old.
    pub(super) fn state(&self) -> SessionState {
        let mut shared = self.shared.lock();
        self.step(&mut shared);
        // The program that polls is being told.
        shared.has_news = false;
        self.arm(&mut shared);
        shared.state()
    }

    /// As far as the last server has said.
    pub(super) fn is_resumable(&self) -> bool {
        self.shared.lock().machine.is_resumable()
    }

    /// How often it was resumed.
    pub(super) fn resumes(&self) -> u64 {
        self.shared.lock().machine.resumes()
    }

    /// Whether it holds a lock or waits for one, in its own view.
    pub(super) fn holds_or_waits(&self) -> bool {
        let shared = &mut *self.shared.lock();
        match shared.machine.belief() {
            Some(belief) => belief.holds_or_waits(),
            None => shared.current.holds_or_waits(),
        }
    }

    /// Ends the session, as [`Session::close`](crate::Session::close).
    pub(super) fn close(&self) {
        self.end(RemoteSession::close);
    }

    /// As [`Session::abandon`](crate::Session::abandon).
    pub(super) fn abandon(&self) {
        self.end(RemoteSession::abandon);
    }
}

impl Shared {
    fn state(&self) -> SessionState {
        match self.machine.condition() {
            Condition::Standing => SessionState::Alive,
            Condition::Away { reason, limit } => {
                let left = limit.map(|limit| BootTime::now().until(limit));
                let (failures, last_failure) = (self.failures, self.last_failure.clone());
                SessionState::InDoubt { reason: reason.to_owned(), left, failures, last_failure }
            }
            Condition::Lost { reason } => SessionState::Lost { reason: reason.to_owned() },
        }
    }
}

/// Readable when [`state`](ReconnectingSession::state) would do something.
impl AsFd for ReconnectingSession {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

/// The end of its connections is the client's word that its work has ended.
impl Drop for ReconnectingSession {
    fn drop(&mut self) {
        if std::thread::panicking() { self.abandon() } else { self.close() }
    }
}
