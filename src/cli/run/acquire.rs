//! Acquires the lock and releases it. A signal ends each wait at once: other threads talk to the
//! server, while this one watches for signals.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{AcquireError, Grant, Mode, ReleaseError};
use lockd::client::{ConnectError, ConnectOptions};

use super::ancestors::Ancestors;
use super::explain::{DeniedRequest, explain, headline};
use super::outcome::RunOutcome;
use super::signals::SignalQueue;
use super::wait::{WaitOutcome, run_within};
use crate::cli::text::printable_argument;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a release waits for the server's confirmation. A connection that is cut is known to be
/// cut by then.
const CONFIRM_LIMIT: Duration = Duration::from_secs(20);
/// How long the server may take to confirm, after a signal, that the lock is given up. After that
/// the session is closed, which has the same effect.
const GIVE_UP_LIMIT: Duration = Duration::from_millis(500);
/// How long it may take to find out why the session was lost.
const REASON_LIMIT: Duration = Duration::from_millis(500);

/// How much longer than its time limit a wait may take, so that the server's own answer comes
/// first.
const SERVER_MARGIN: Duration = Duration::from_millis(500);

/// The locks to acquire, and how.
#[derive(Clone)]
pub(super) struct AcquireRequest {
    /// From when on `limit` counts.
    pub(super) start: Instant,
    pub(super) urls: String,
    pub(super) owner: String,
    /// How long the server is asked to keep the locks after it has ended the session.
    pub(super) wind_down: Duration,
    pub(super) names: Vec<OsString>,
    pub(super) mode: Mode,
    /// The time limit; zero to try only, `None` to wait without limit.
    pub(super) limit: Option<Duration>,
    /// The locks that cannot be acquired while this process runs.
    pub(super) ancestors: Ancestors,
}

/// Locks that are held, and the session that holds them.
pub(super) struct HeldLocks {
    pub(super) session: Arc<Session>,
    pub(super) grant: Grant,
    names: Vec<OsString>,
}

/// The session that a thread has connected and waits with, and when it joined the queue, or a
/// little earlier.
type WaitingSession = (Arc<Session>, Instant);

enum AcquireFailure {
    NoSession(ConnectError),
    Refused {
        error: AcquireError,
        /// The server's reason for granting nothing at all when it was first asked, if it had one.
        not_yet: Option<String>,
        /// The name that an outer `lockd run` holds, if one does.
        held_by_ancestor: Option<OsString>,
    },
}

/// Connects and waits for the locks.
///
/// # Errors
/// The outcome of `lockd run` if the locks are not granted.
pub(super) fn acquire(request: &AcquireRequest, signals: &SignalQueue) -> Result<HeldLocks, RunOutcome> {
    let waiting = Arc::new(OnceLock::new());
    let (thread_request, thread_waiting) = (request.clone(), waiting.clone());
    let limit = request.time_left().map(|rest| rest + SERVER_MARGIN);
    let work = move || connect_and_acquire(&thread_request, &thread_waiting);
    let outcome = run_within(limit, Some(signals), "lockd-acquire", work)
        .map_err(|error| RunOutcome::Failed(format!("waiting for the lock: {error}")))?;
    let lost = || RunOutcome::NoServer("there is no session".to_owned());
    match outcome {
        WaitOutcome::Done(Ok(grant)) => {
            let session = waiting.get().ok_or_else(lost)?.0.clone();
            Ok(HeldLocks { session, grant, names: request.names.clone() })
        }
        WaitOutcome::Done(Err(AcquireFailure::NoSession(error))) => Err(no_session(&error, request)),
        WaitOutcome::Done(Err(AcquireFailure::Refused { error, not_yet, held_by_ancestor })) => {
            let waiting = waiting.get().ok_or_else(lost)?;
            Err(refused(error, not_yet, held_by_ancestor, request, waiting, signals))
        }
        WaitOutcome::Signal(signal) => {
            give_up_waiting(&waiting, request);
            Err(RunOutcome::interrupted(signal, &request.names))
        }
        WaitOutcome::Late => {
            give_up_waiting(&waiting, request);
            Err(RunOutcome::TimedOut(format!("{}: {} does not answer", request.timeout_text(), request.urls)))
        }
    }
}

impl AcquireRequest {
    /// How much of the time limit is left; `None` without a limit, or if the locks are only tried.
    fn time_left(&self) -> Option<Duration> {
        let limit = self.limit.filter(|limit| !limit.is_zero())?;
        Some(limit.saturating_sub(self.start.elapsed()))
    }

    fn timeout_text(&self) -> String {
        let waited = self.limit.map(|limit| (self.start, limit));
        headline(&DeniedRequest { names: &self.names, waited, not_yet: None })
    }
}

fn connect_and_acquire(
    request: &AcquireRequest,
    waiting: &OnceLock<WaitingSession>,
) -> Result<Grant, AcquireFailure> {
    let options = ConnectOptions {
        owner: Some(&request.owner),
        timeout: request.time_left().map_or(CONNECT_LIMIT, |rest| rest.min(CONNECT_LIMIT)),
        wind_down: request.wind_down,
        ..ConnectOptions::default()
    };
    let connected = Session::connect_with(&request.urls, &options).map_err(AcquireFailure::NoSession)?;
    let (session, _) = waiting.get_or_init(|| (Arc::new(connected), Instant::now()));
    // First without waiting: only then is it known that there will be a wait, and why.
    let refused =
        |error, not_yet, held_by_ancestor| Err(AcquireFailure::Refused { error, not_yet, held_by_ancestor });
    let not_yet = match acquire_names(session, request, Some(Duration::ZERO)) {
        Ok(grant) => return Ok(grant),
        Err(AcquireError::TimedOut) => match request.ancestors.held_name(session, &request.names) {
            Some(name) => return refused(AcquireError::TimedOut, None, Some(name)),
            None => None,
        },
        Err(AcquireError::NotYet(reason)) => Some(reason),
        Err(error) => return refused(error, None, None),
    };
    let result = match (request.limit, not_yet.clone()) {
        (Some(Duration::ZERO), Some(reason)) => Err(AcquireError::NotYet(reason)),
        (Some(Duration::ZERO), None) => Err(AcquireError::TimedOut),
        _ => acquire_names(session, request, request.time_left()),
    };
    result.or_else(|error| refused(error, not_yet, None))
}

fn acquire_names(
    session: &Session,
    request: &AcquireRequest,
    limit: Option<Duration>,
) -> Result<Grant, AcquireError> {
    let names: Vec<&[u8]> = request.names.iter().map(|name| name.as_bytes()).collect();
    match names.as_slice() {
        [name] => session.acquire(name, request.mode, limit),
        names => {
            let wants: Vec<_> = names.iter().map(|&name| (name, request.mode)).collect();
            session.acquire_all(&wants, limit)
        }
    }
}

fn give_up_waiting(waiting: &OnceLock<WaitingSession>, request: &AcquireRequest) {
    // Without a session no lock has been requested yet. None will be, since the thread ends with
    // the process.
    if let Some((session, _)) = waiting.get() {
        give_up(session, &request.names);
    }
}

/// Leaves the queue, or releases what has just been granted, and ends the session. If the server
/// answers, it frees the lock without marking it as orphaned for the next holder.
fn give_up(session: &Arc<Session>, names: &[OsString]) {
    let (thread_session, names) = (session.clone(), names.to_vec());
    let work = move || release_all(&thread_session, &names);
    // Whatever the result, the end of the session frees the lock.
    let _ = run_within(Some(GIVE_UP_LIMIT), None, "lockd-give-up", work);
    session.close();
}

fn release_all(session: &Session, names: &[OsString]) -> Result<(), ReleaseError> {
    session.release_all(&names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>())
}

fn no_session(error: &ConnectError, request: &AcquireRequest) -> RunOutcome {
    if !error.kind().is_absence() {
        RunOutcome::Failed(error.to_string())
    } else if request.time_left().is_some_and(|rest| rest.is_zero()) {
        RunOutcome::TimedOut(format!("{}: {error}", request.timeout_text()))
    } else {
        RunOutcome::NoServer(error.to_string())
    }
}

fn refused(
    error: AcquireError,
    not_yet: Option<String>,
    held_by_ancestor: Option<OsString>,
    request: &AcquireRequest,
    (session, since): &WaitingSession,
    signals: &SignalQueue,
) -> RunOutcome {
    let is_try = request.limit == Some(Duration::ZERO);
    match (error, held_by_ancestor) {
        (AcquireError::TimedOut, Some(name)) if !is_try => {
            let name = printable_argument(&name);
            RunOutcome::Failed(format!(
                "{name}: held by a lockd run that this one runs under: it would wait for ever"
            ))
        }
        (AcquireError::TimedOut, held_by_ancestor) => {
            let waited = request.limit.filter(|_| !is_try).map(|limit| (*since, limit));
            let denied = DeniedRequest { names: &request.names, waited, not_yet };
            match (explain(&denied, &request.urls, session, signals), held_by_ancestor) {
                (Err(signal), _) => RunOutcome::interrupted(signal, &request.names),
                (Ok(text), Some(_)) => {
                    RunOutcome::Busy(format!("{text}; this one runs under that lockd run"))
                }
                (Ok(text), None) if is_try => RunOutcome::Busy(text),
                (Ok(text), None) => RunOutcome::TimedOut(text),
            }
        }
        (AcquireError::NotYet(reason), _) if is_try => RunOutcome::Busy(reason),
        (AcquireError::NotYet(reason), _) => {
            RunOutcome::TimedOut(format!("{}: {reason}", request.timeout_text()))
        }
        (AcquireError::Lost(reason) | AcquireError::Stopping(reason), _) => {
            // With several servers, the session may have been made although the server of these
            // names could not be reached, perhaps because of a mistake. Then that error is the
            // reason.
            let connect_error = request.names.iter().find_map(|name| session.connect_error(name.as_bytes()));
            connect_error.map_or(RunOutcome::NoServer(reason), |error| no_session(error, request))
        }
        (error, _) => RunOutcome::Failed(error.to_string()),
    }
}

impl HeldLocks {
    /// Why the lock is lost. Does not wait for a server for long.
    pub(super) fn loss_reason(&self) -> String {
        let (session, names) = (self.session.clone(), self.names.clone());
        let reason = move || names.iter().find_map(|name| session.inspect(name.as_bytes()).err());
        match run_within(Some(REASON_LIMIT), None, "lockd-reason", reason) {
            Ok(WaitOutcome::Done(Some(error))) => error.to_string(),
            _ => "the session has ended".to_owned(),
        }
    }

    /// Releases the locks if a signal has arrived that ends a process.
    ///
    /// # Errors
    /// The outcome of `lockd run` in that case.
    pub(super) fn unless_interrupted(self, signals: &SignalQueue) -> Result<Self, RunOutcome> {
        let Some(signal) = signals.next_ending() else { return Ok(self) };
        give_up(&self.session, &self.names);
        Err(RunOutcome::interrupted(signal, &self.names))
    }

    /// Releases the locks, if they have been held until now. The session knows: it learns of a loss
    /// before the server grants the locks to others. The result of the release does not change
    /// that. A signal ends the wait for the server's confirmation; if one has already arrived
    /// (`is_in_a_hurry`), the wait is short.
    ///
    /// # Errors
    /// If the locks were lost before the release.
    pub(super) fn release(self, signals: &SignalQueue, is_in_a_hurry: bool) -> Result<(), String> {
        if !self.session.is_alive() {
            let reason = self.loss_reason();
            self.session.close();
            return Err(reason);
        }
        let (session, names) = (self.session.clone(), self.names.clone());
        let work = move || release_all(&session, &names);
        let limit = if is_in_a_hurry { GIVE_UP_LIMIT } else { CONFIRM_LIMIT };
        let released = run_within(Some(limit), Some(signals), "lockd-release", work);
        self.session.close();
        match released {
            Ok(WaitOutcome::Done(Err(error @ ReleaseError::NotHeld))) => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    /// Ends the session. After the server has ended the connection, it may keep the locks for the
    /// command's end; this tells it that the command has ended.
    pub(super) fn close(&self) {
        self.session.close();
    }
}
