//! A session and its locks in one call, which waits for the server too: who only waits holds
//! nothing, so a lost connection costs no more than the place in the queue. Decides which failures
//! are waited through; the calls themselves are [`Session`]'s.
//!
//! A grant counts only on the session that it came on. A session that is lost is closed before the
//! next one is opened, and nothing is asked of it any more. So there is never a choice between two
//! grants, and never a second place in the queue for longer than the server takes to notice the end
//! of the first connection.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Backend, Session};
use crate::broker::{AcquireError, Grant, LockName, Mode};
use crate::client::{
    BadUrl, ConnectError, ConnectOptions, HookReason, RetryPacer, ServerUrl, SessionGroup, WaitHook,
};

/// How long one attempt to connect may take, if the options do not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What happens while [`Session::connect_and_acquire`] waits.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub enum WaitEvent<'a> {
    /// There is no server now, or the connection is lost. An earlier session has been closed. The
    /// next attempt follows after a pause.
    NoServer {
        /// Why.
        reason: &'a str,
    },
    /// The session is open; nothing has been asked yet. While the session waits in the queue, its
    /// [`cancel`](Session::cancel) in another thread ends the wait.
    Connected(&'a Arc<Session>),
    /// The locks are not free, and from now on the session waits in the queue.
    Waiting {
        /// The server's reason for granting nothing at all yet, if it has one.
        not_yet: Option<&'a str>,
    },
    /// A signal handler has run in this thread, and the options say that such a wait is
    /// [interruptible](ConnectOptions::interruptible). The wait goes on where it was, also at its
    /// place in the queue, unless `report` ends it: then it fails with `Interrupted`.
    Interrupted,
    /// Nothing has changed for about a second.
    StillWaiting,
}

/// Why [`Session::connect_and_acquire`] has acquired nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum WaitError {
    /// There is no session: a mistake, or the server was absent when the time limit was over.
    Connect(ConnectError),
    /// The locks were not granted. `Lost` and `Stopping`: the connection was lost, and the time
    /// limit was over before there was another one.
    Acquire(AcquireError),
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Acquire(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for WaitError {}

impl From<BadUrl> for WaitError {
    fn from(error: BadUrl) -> Self {
        Self::Connect(error.into())
    }
}

impl From<ConnectError> for WaitError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl From<AcquireError> for WaitError {
    fn from(error: AcquireError) -> Self {
        Self::Acquire(error)
    }
}

impl WaitError {
    /// Whether there was no server, as opposed to a server that did not grant the locks, and to a
    /// mistake that no waiting cures.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        match self {
            Self::Connect(error) => error.kind().is_absence(),
            Self::Acquire(error) => {
                matches!(error, AcquireError::Lost(_) | AcquireError::Doubt(_) | AcquireError::Stopping(_))
            }
        }
    }

    fn reason(&self) -> String {
        match self {
            Self::Acquire(
                AcquireError::Lost(reason) | AcquireError::Doubt(reason) | AcquireError::Stopping(reason),
            ) => reason.clone(),
            _ => self.to_string(),
        }
    }
}

impl Session {
    /// Opens a session and acquires all these locks with it, within `limit`. Until they are granted,
    /// it waits through whatever happens to the server: that it is not up yet, restarts or crashes,
    /// or that the network fails. It then connects again, after random pauses that grow to some
    /// seconds, and waits at the end of the queue. Once it has returned, the session is like any
    /// other: nothing reconnects it.
    ///
    /// `limit` includes everything; `None` waits for as long as it takes, and zero tries once and
    /// waits for nothing, except for one attempt to connect. Each attempt takes up to
    /// [`options.timeout`](ConnectOptions::timeout) (10 s by default), and no longer than `limit`;
    /// only resolving names may take longer.
    ///
    /// Of several servers, only the one that the names belong to is asked, and waited for. Calls of
    /// the session on names of the others fail.
    ///
    /// `report` is told what happens, and ends the wait with [`ControlFlow::Break`]. It is called
    /// in this thread, so it should not take long; and at least about once a second, so that it can
    /// end the wait for a reason of its own. (It is not called while a host's name is resolved.)
    ///
    /// ```no_run
    /// use lockd::{Session, WaitEvent, broker::Mode, client::ConnectOptions};
    /// use std::ops::ControlFlow;
    ///
    /// let options = ConnectOptions { owner: Some("nightly"), ..ConnectOptions::default() };
    /// let wants = [(&b"report"[..], Mode::Exclusive)];
    /// let (session, grant) =
    ///     Session::connect_and_acquire("tcp://127.0.0.1:20934", &wants, None, &options, |event| {
    ///         if let WaitEvent::NoServer { reason } = event {
    ///             eprintln!("still trying: {reason}");
    ///         }
    ///         ControlFlow::Continue(())
    ///     })?;
    /// println!("token {}", grant.token);
    /// session.release(b"report")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`WaitError`]: at once for a mistake that no waiting cures, and when `limit` is over.
    /// `Cancelled` if `report` has ended the wait, or [`cancel`](Self::cancel); `Interrupted` if
    /// `report` has ended it because of a signal handler. The session is then dropped, and with it
    /// its place in the queue.
    pub fn connect_and_acquire(
        urls: &str,
        wants: &[(&[u8], Mode)],
        limit: Option<Duration>,
        options: &ConnectOptions<'_>,
        report: impl FnMut(WaitEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(Arc<Self>, Grant), WaitError> {
        let servers = ServerUrl::parse_list(urls)?;
        let wants: Vec<_> = wants.iter().map(|(name, mode)| (LockName::new(name), *mode)).collect();
        let server = SessionGroup::common_server(&servers, &wants)?;
        let limit = TimeLimit::new(limit);
        let mut pacer = RetryPacer::new();
        let mut reporter = Reporter { report, is_interruptible: options.interruptible };
        loop {
            let options = ConnectOptions { timeout: limit.connect_timeout(options.timeout), ..*options };
            let mut lasted = Duration::ZERO;
            let connected =
                reporter.with_hook(|hook| SessionGroup::connect_to_one(&servers, server, &options, hook));
            let failure = match connected? {
                Ok(group) => {
                    let session = Arc::new(Self(Backend::Servers(group)));
                    let begun = Instant::now();
                    let granted = acquire_once(&session, &wants, &limit, &mut reporter);
                    match granted.map_err(WaitError::from) {
                        Ok(grant) => return Ok((session, grant)),
                        Err(error) => {
                            // Before the next session is opened: see the top of this file.
                            if error.is_absence() {
                                session.close();
                                lasted = begun.elapsed();
                            }
                            error
                        }
                    }
                }
                Err(error) => error.into(),
            };
            if !failure.is_absence() || limit.is_try() {
                return Err(failure);
            }
            reporter.tell(WaitEvent::NoServer { reason: &failure.reason() })?;
            let pause = pacer.pause(lasted);
            let pause = limit.rest().map_or(pause, |rest| rest.min(pause));
            reporter.with_hook(|hook| hook.sleep(pause))?;
            if limit.rest() == Some(Duration::ZERO) {
                return Err(failure);
            }
        }
    }
}

/// Asks for the locks on this session, and waits for them.
fn acquire_once(
    session: &Arc<Session>,
    wants: &[(LockName, Mode)],
    limit: &TimeLimit,
    reporter: &mut Reporter<impl FnMut(WaitEvent<'_>) -> ControlFlow<()>>,
) -> Result<Grant, AcquireError> {
    reporter.tell(WaitEvent::Connected(session))?;
    // First without waiting: only then is it known that there will be a wait, and why.
    let tried = reporter.with_hook(|hook| session.acquire_with_hook(wants, Some(Duration::ZERO), hook));
    let refused = match tried? {
        Err(error @ (AcquireError::TimedOut | AcquireError::NotYet(_))) if !limit.is_try() => error,
        result => return result,
    };
    let not_yet = match &refused {
        AcquireError::NotYet(reason) => Some(reason.as_str()),
        _ => None,
    };
    reporter.tell(WaitEvent::Waiting { not_yet })?;
    match limit.rest() {
        // As far as the server has said, it still grants nothing.
        Some(Duration::ZERO) => Err(refused),
        rest => reporter.with_hook(|hook| session.acquire_with_hook(wants, rest, hook))?,
    }
}

/// Reports to the caller of the whole wait.
struct Reporter<R> {
    report: R,
    is_interruptible: bool,
}

impl<R: FnMut(WaitEvent<'_>) -> ControlFlow<()>> Reporter<R> {
    fn tell(&mut self, event: WaitEvent<'_>) -> Result<(), AcquireError> {
        let flow = (self.report)(event);
        if flow.is_break() { Err(AcquireError::Cancelled) } else { Ok(()) }
    }

    /// Runs a call that waits, and reports what its thread is told meanwhile. If the caller has then
    /// ended the wait, the call has failed, and its own error does not matter.
    fn with_hook<T>(&mut self, wait: impl FnOnce(&mut WaitHook<'_>) -> T) -> Result<T, AcquireError> {
        let mut ended = None;
        let mut call = |reason| {
            let (event, error) = match reason {
                HookReason::Signal => (WaitEvent::Interrupted, AcquireError::Interrupted),
                HookReason::Tick => (WaitEvent::StillWaiting, AcquireError::Cancelled),
            };
            let flow = (self.report)(event);
            if flow.is_break() {
                ended = Some(error);
            }
            flow
        };
        let result = wait(&mut WaitHook::new(self.is_interruptible, &mut call));
        ended.map_or(Ok(result), Err)
    }
}

/// The time limit of the whole wait.
struct TimeLimit {
    limit: Option<Duration>,
    /// `None` for no limit, and for a limit beyond the clock's range.
    deadline: Option<Instant>,
}

impl TimeLimit {
    fn new(limit: Option<Duration>) -> Self {
        Self { limit, deadline: limit.and_then(|limit| Instant::now().checked_add(limit)) }
    }

    /// Whether nothing is waited for.
    fn is_try(&self) -> bool {
        self.limit == Some(Duration::ZERO)
    }

    fn rest(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// How long the next attempt to connect may take.
    fn connect_timeout(&self, asked_for: Duration) -> Duration {
        let each = if asked_for == Duration::MAX { CONNECT_TIMEOUT } else { asked_for };
        match self.rest() {
            Some(rest) if !self.is_try() => rest.min(each),
            _ => each,
        }
    }
}
