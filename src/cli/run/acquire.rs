//! Acquires the lock and releases it. A signal ends each wait at once: other threads talk to the
//! server, while this one watches for signals.

use std::ffi::{OsStr, OsString};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockd::broker::{AcquireError, Grant, Mode, ReleaseError};
use lockd::client::{ConnectOptions, SessionState};
use lockd::{Session, WaitError, WaitEvent};
use nix::sys::signal::Signal;

use super::ancestors::Ancestors;
use super::boot_clock::boot_clock;
use super::explain::{DeniedRequest, explain, headline};
use super::outcome::RunOutcome;
use super::progress::{Talk, WaitProgress, WaitState};
use super::signals::SignalQueue;
use super::spare::{server_of, spare_last_holder, uptime};
use super::wait::{WaitOutcome, run_within};
use crate::cli::messages::MessageWriter;
use crate::cli::text::printable_argument;

/// How long a release waits for the server's confirmation. A connection that is cut is known to be
/// cut by then.
const CONFIRM_LIMIT: Duration = Duration::from_secs(20);
/// How long the server may take to confirm, after a signal, that the lock is given up. After that
/// the session is closed, which has the same effect.
const GIVE_UP_LIMIT: Duration = Duration::from_millis(500);
/// How long it may take to find out, when the time is over, whether the server is back.
const BACK_LIMIT: Duration = Duration::from_millis(500);

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
    /// Whether the session is to survive the end of its connection.
    pub(super) resume: bool,
    pub(super) names: Vec<OsString>,
    pub(super) mode: Mode,
    /// The time limit; zero to try only, `None` to wait without limit.
    pub(super) limit: Option<Duration>,
    /// How long each attempt to connect may take.
    pub(super) connect_timeout: Duration,
    /// What is said while this waits.
    pub(super) talk: Talk,
    /// The locks that cannot be acquired while this process runs.
    pub(super) ancestors: Ancestors,
}

/// Locks that are held, and the session that holds them.
pub(super) struct HeldLocks {
    pub(super) session: Arc<Session>,
    pub(super) grant: Grant,
    pub(super) names: Vec<OsString>,
    urls: String,
}

/// Connects and waits for the locks. Waits for the server too, unless the locks are only tried.
///
/// # Errors
/// The outcome of `lockd run` if the locks are not granted.
pub(super) fn acquire(
    request: &AcquireRequest,
    signals: &SignalQueue,
    messages: &MessageWriter,
) -> Result<HeldLocks, RunOutcome> {
    let AcquireRequest { names, mode, start, limit, talk, .. } = request;
    let progress = Arc::new(WaitProgress::new((names, *mode), (*start, *limit), *talk, messages));
    let failed = |error: io::Error| RunOutcome::Failed(format!("the wait for the lock failed: {error}"));
    progress.narrate().map_err(failed)?;
    let (thread_request, thread_progress) = (request.clone(), progress.clone());
    let limit = request.time_left().map(|rest| rest.saturating_add(SERVER_MARGIN));
    let work = move || connect_and_acquire(&thread_request, &thread_progress);
    let outcome = run_within(limit, Some(signals), "lockd-acquire", work);
    // From now on the thread opens no further session.
    let state = progress.end();
    match outcome.map_err(failed)? {
        WaitOutcome::Done(Ok((session, grant))) => {
            progress.tell_granted();
            Ok(HeldLocks { session, grant, names: names.clone(), urls: request.urls.clone() })
        }
        WaitOutcome::Done(Err(error)) if error.is_absence() => Err(no_server(request, &error, signals)),
        WaitOutcome::Done(Err(WaitError::Acquire(error))) => Err(refused(error, state, request, signals)),
        WaitOutcome::Done(Err(error)) => Err(RunOutcome::Failed(error.to_string())),
        WaitOutcome::Signal(signal) => {
            give_up_waiting(&state, request);
            Err(RunOutcome::interrupted(signal, &request.names))
        }
        WaitOutcome::Late => {
            give_up_waiting(&state, request);
            // The server would have answered by now.
            let reason = state.no_server.unwrap_or_else(|| format!("{} does not answer", request.urls));
            Err(RunOutcome::NoServer(format!("{}: no server: {reason}", request.timeout_text())))
        }
    }
}

impl AcquireRequest {
    /// Whether the locks are only tried.
    fn is_try(&self) -> bool {
        self.limit == Some(Duration::ZERO)
    }

    /// How much of the time limit is left; `None` without a limit, or if the locks are only tried.
    fn time_left(&self) -> Option<Duration> {
        let limit = self.limit.filter(|limit| !limit.is_zero())?;
        Some(limit.saturating_sub(self.start.elapsed()))
    }

    /// The servers, and a name of the one that the locks belong to.
    fn place(&self) -> (&str, &OsStr) {
        (&self.urls, self.names.first().map_or(OsStr::new(""), OsString::as_os_str))
    }

    fn timeout_text(&self) -> String {
        let waited = self.limit.map(|limit| (self.start, limit));
        headline(&DeniedRequest { names: &self.names, mode: self.mode, waited, not_yet: None })
    }
}

fn connect_and_acquire(
    request: &AcquireRequest,
    progress: &WaitProgress,
) -> Result<(Arc<Session>, Grant), WaitError> {
    let options = ConnectOptions {
        owner: Some(&request.owner),
        timeout: request.connect_timeout,
        wind_down: request.wind_down,
        resume: request.resume,
        ..ConnectOptions::default()
    };
    let wants: Vec<_> = request.names.iter().map(|name| (name.as_bytes(), request.mode)).collect();
    // A wait whose time is over already is still none that only tries.
    let rest = request.time_left().map(|rest| rest.max(Duration::from_millis(1)));
    let limit = if request.is_try() { Some(Duration::ZERO) } else { rest };
    let held_by_ancestor = || {
        let session = progress.session()?;
        request.ancestors.held_name(&session, &request.names, request.mode)
    };
    let mut was_away = false;
    // In the server's grace an outer `lockd run` may not have resumed yet, and hold the lock later.
    let mut was_in_grace = false;
    let granted = Session::connect_and_acquire(&request.urls, &wants, limit, &options, |event| {
        progress.note(event)?;
        match event {
            WaitEvent::NoServer { .. } => {
                (was_away, was_in_grace) = (true, false);
                return ControlFlow::Continue(());
            }
            WaitEvent::Connected(session) if was_away => {
                spare_last_holder(request.place(), request.wind_down, session, progress)?;
                return ControlFlow::Continue(());
            }
            WaitEvent::Waiting { not_yet } => was_in_grace = not_yet.is_some(),
            WaitEvent::StillWaiting if was_in_grace => {}
            _ => return ControlFlow::Continue(()),
        }
        if let Some(name) = held_by_ancestor() {
            progress.note_ancestor(Some(name));
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    if request.is_try() && matches!(granted, Err(WaitError::Acquire(AcquireError::TimedOut))) {
        progress.note_ancestor(held_by_ancestor());
    }
    granted
}

fn give_up_waiting(state: &WaitState, request: &AcquireRequest) {
    // Without a session no lock has been requested, and none will be.
    if let Some((session, _)) = &state.session {
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

/// The outcome if there was no server at the last attempt.
fn no_server(request: &AcquireRequest, error: &WaitError, signals: &SignalQueue) -> RunOutcome {
    if request.is_try() {
        return RunOutcome::NoServer(error.to_string());
    }
    let text = request.timeout_text();
    // The last attempt is some seconds ago if the time ended in a pause. By now the server may be
    // back, and then nobody needs to look for it.
    let (urls, name) = request.place();
    let (urls, name) = (urls.to_owned(), name.to_owned());
    let work = move || uptime(&urls, &name);
    match run_within(Some(BACK_LIMIT), Some(signals), "lockd-back", work) {
        Ok(WaitOutcome::Signal(signal)) => RunOutcome::interrupted(signal, &request.names),
        Ok(WaitOutcome::Done(Some(_))) => RunOutcome::TimedOut(format!(
            "{text}: the server is there now, but was not at the last attempt: {error}"
        )),
        _ => RunOutcome::NoServer(format!("{text}: no server: {error}")),
    }
}

fn refused(
    error: AcquireError,
    state: WaitState,
    request: &AcquireRequest,
    signals: &SignalQueue,
) -> RunOutcome {
    let WaitState { session, not_yet, held_by_ancestor, .. } = state;
    match (error, held_by_ancestor) {
        (AcquireError::Cancelled, Some(name)) => {
            let name = printable_argument(&name);
            RunOutcome::Failed(format!(
                "{name}: held by a lockd run that this one runs under: it would wait for ever"
            ))
        }
        (AcquireError::TimedOut, held_by_ancestor) => {
            let Some((session, since)) = session else {
                return RunOutcome::TimedOut(request.timeout_text());
            };
            let waited = request.limit.filter(|_| !request.is_try()).map(|limit| (since, limit));
            let denied = DeniedRequest { names: &request.names, mode: request.mode, waited, not_yet };
            match (explain(&denied, &request.urls, &session, signals), held_by_ancestor) {
                (Err(signal), _) => RunOutcome::interrupted(signal, &request.names),
                (Ok(text), Some(_)) => {
                    RunOutcome::Busy(format!("{text}; this one runs under that lockd run"))
                }
                (Ok(text), None) if request.is_try() => RunOutcome::Busy(text),
                (Ok(text), None) => RunOutcome::TimedOut(text),
            }
        }
        // There was no time left to spare the last holder.
        (AcquireError::Cancelled, None) => {
            let reason = not_yet.unwrap_or_else(|| "it is not waited for any more".to_owned());
            RunOutcome::TimedOut(format!("{}: {reason}", request.timeout_text()))
        }
        (AcquireError::NotYet(reason), _) if request.is_try() => RunOutcome::Busy(reason),
        (AcquireError::NotYet(reason), _) => {
            RunOutcome::TimedOut(format!("{}: {reason}", request.timeout_text()))
        }
        (error, _) => RunOutcome::Failed(error.to_string()),
    }
}

impl HeldLocks {
    /// Why the locks are lost, if they are. Locks that are in doubt are not lost yet.
    pub(super) fn loss(&self) -> Option<String> {
        match self.session.state() {
            SessionState::Alive | SessionState::InDoubt { left: Some(_), .. } => None,
            // A session that has nothing to lose does not have these locks.
            SessionState::InDoubt { left: None, reason, .. } | SessionState::Lost { reason } => Some(reason),
        }
    }

    /// The address of their server.
    pub(super) fn server(&self) -> String {
        let name = self.names.first().map_or(OsStr::new(""), OsString::as_os_str);
        server_of(&self.urls, name).map_or_else(|| self.urls.clone(), |server| server.to_string())
    }

    /// Releases the locks if a signal has arrived that ends a process.
    ///
    /// # Errors
    /// The outcome of `lockd run` in that case.
    pub(super) fn unless_interrupted(self, signals: &SignalQueue) -> Result<Self, RunOutcome> {
        match signals.next_ending() {
            Some(signal) => Err(self.interrupted(signal)),
            None => Ok(self),
        }
    }

    /// The locks, if they are held, and a time by the [`boot_clock`] at which they were. If they are
    /// in doubt, waits until
    /// they are not: nothing may be begun before that.
    ///
    /// # Errors
    /// The outcome of `lockd run` if they are lost, or if a signal arrives that ends a process.
    pub(super) fn unless_lost(self, signals: &SignalQueue) -> Result<(Self, Duration), RunOutcome> {
        loop {
            let seen = boot_clock();
            let reason = match self.session.state() {
                SessionState::Alive => return Ok((self, seen)),
                SessionState::InDoubt { left: Some(_), .. } => {
                    let session = self.session.clone();
                    let work = move || session.wait_certain(None);
                    match run_within(None, Some(signals), "lockd-doubt", work) {
                        Ok(WaitOutcome::Signal(signal)) => return Err(self.interrupted(signal)),
                        Ok(_) => continue,
                        Err(error) => error.to_string(),
                    }
                }
                SessionState::InDoubt { left: None, reason, .. } | SessionState::Lost { reason } => reason,
            };
            self.session.close();
            let text = format!("the lock was lost before the command was started: {reason}");
            return Err(RunOutcome::Lost(text));
        }
    }

    fn interrupted(&self, signal: Signal) -> RunOutcome {
        give_up(&self.session, &self.names);
        RunOutcome::interrupted(signal, &self.names)
    }

    /// Releases the locks, if they have been held until now. The session knows: it learns of a loss
    /// before the server grants the locks to others. The result of the release does not change
    /// that. If they are in doubt, nobody else has them yet, and the release waits until the session
    /// has resumed, so that they are free soon. A signal ends the wait for the server's
    /// confirmation; if one has already arrived (`is_in_a_hurry`), the wait is short.
    ///
    /// # Errors
    /// If the locks were lost before the release.
    pub(super) fn release(self, signals: &SignalQueue, is_in_a_hurry: bool) -> Result<(), String> {
        if let Some(reason) = self.loss() {
            self.session.close();
            return Err(reason);
        }
        let (session, names) = (self.session.clone(), self.names.clone());
        let limit = if is_in_a_hurry { GIVE_UP_LIMIT } else { CONFIRM_LIMIT };
        let work = move || {
            let _ = session.wait_certain(Some(limit));
            release_all(&session, &names)
        };
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
