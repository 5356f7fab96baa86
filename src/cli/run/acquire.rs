//! Getting the lock and giving it back, in a way that a signal ends at once: threads ask the server, and this one
//! looks after the signals meanwhile.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{AcquireError, Grant, Mode, ReleaseError};
use lockd::client::{ConnectError, ConnectOptions};

use super::ancestors::Ancestors;
use super::ending::Ending;
use super::explain::{Explained, Refused, explain, headline};
use super::signals::Signals;
use super::wait::{Waited, within};
use crate::cli::text::printable_argument;

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a release waits for the server to confirm it. By then a connection that is cut is known to be.
const CONFIRM_LIMIT: Duration = Duration::from_secs(20);
/// How long the server may take to hear, after a signal, that the lock is not wanted any more. Then the end of the
/// session says so.
const GIVE_UP_LIMIT: Duration = Duration::from_millis(500);
/// How long it may take to find out why the session was lost.
const REASON_LIMIT: Duration = Duration::from_millis(500);

/// How much longer than its time limit a wait may take, so that the server's own word comes first.
const SERVER_WORD: Duration = Duration::from_millis(500);

/// What is to be had.
#[derive(Clone)]
pub(super) struct Demand {
    /// From when on `limit` counts.
    pub(super) start: Instant,
    pub(super) urls: String,
    pub(super) owner: String,
    /// How long the server is asked to keep the locks after it has ended the session.
    pub(super) wind_down: Duration,
    pub(super) names: Vec<OsString>,
    pub(super) mode: Mode,
    pub(super) limit: Option<Duration>,
    /// What cannot be had while this process runs.
    pub(super) ancestors: Ancestors,
}

/// Locks that are held.
pub(super) struct Hold {
    pub(super) session: Arc<Session>,
    pub(super) grant: Grant,
    names: Vec<OsString>,
}

/// What is under way.
struct Asking {
    session: Arc<Session>,
    /// When it took its place in the queue, or a little before.
    since: Instant,
}

/// What the thread comes back with.
enum Had {
    Grant(Grant),
    NoSession(ConnectError),
    Refused(Refusal),
}

/// Why the lock was not granted.
struct Refusal {
    error: AcquireError,
    /// Why the server granted nothing yet when it was first asked, if it did not.
    not_yet: Option<String>,
    /// The name that an ancestor holds, if one does.
    of_ancestor: Option<OsString>,
}

/// Waits for the lock.
///
/// # Errors
/// How `lockd run` ends without it.
pub(super) fn acquire(demand: &Demand, signals: &Signals) -> Result<Hold, Ending> {
    let asking = Arc::new(OnceLock::new());
    let (wanted, set) = (demand.clone(), asking.clone());
    let limit = demand.time_left().map(|rest| rest + SERVER_WORD);
    let waited = within(limit, Some(signals), "lockd-acquire", move || ask(&wanted, &set))
        .map_err(|error| Ending::Failed(format!("waiting for the lock: {error}")))?;
    let lost = || Ending::NoServer("there is no session".to_owned());
    match waited {
        Waited::Done(Had::Grant(grant)) => {
            let session = asking.get().ok_or_else(lost)?.session.clone();
            Ok(Hold { session, grant, names: demand.names.clone() })
        }
        Waited::Done(Had::NoSession(error)) => Err(no_session(&error, demand)),
        Waited::Done(Had::Refused(refusal)) => {
            Err(refused(refusal, demand, asking.get().ok_or_else(lost)?, signals))
        }
        Waited::Signal(signal) => {
            give_up_asking(&asking, demand);
            Err(Ending::interrupted(signal, &demand.names))
        }
        Waited::Late => {
            give_up_asking(&asking, demand);
            Err(Ending::TimedOut(format!("{}: {} does not answer", demand.not_had_in_time(), demand.urls)))
        }
    }
}

impl Demand {
    /// How much of the time limit is left; `None` if there is none, or if nothing is to be waited for at all.
    fn time_left(&self) -> Option<Duration> {
        let limit = self.limit.filter(|limit| !limit.is_zero())?;
        Some(limit.saturating_sub(self.start.elapsed()))
    }

    fn not_had_in_time(&self) -> String {
        let waited = self.limit.map(|limit| (self.start, limit));
        headline(&Refused { names: &self.names, waited, not_yet: None })
    }
}

/// Connects, says who asks, and waits for the lock.
fn ask(demand: &Demand, asking: &OnceLock<Asking>) -> Had {
    let options = ConnectOptions {
        owner: Some(&demand.owner),
        timeout: demand.time_left().map_or(CONNECT_LIMIT, |rest| rest.min(CONNECT_LIMIT)),
        wind_down: demand.wind_down,
        ..ConnectOptions::default()
    };
    let Asking { session, .. } = match Session::connect_with(&demand.urls, &options) {
        Ok(connected) => {
            asking.get_or_init(|| Asking { session: Arc::new(connected), since: Instant::now() })
        }
        Err(error) => return Had::NoSession(error),
    };
    // First without waiting: only then is it known why there is a wait.
    let refused = |error, not_yet, of_ancestor| Had::Refused(Refusal { error, not_yet, of_ancestor });
    let not_yet = match request(session, demand, Some(Duration::ZERO)) {
        Ok(grant) => return Had::Grant(grant),
        Err(AcquireError::TimedOut) => match demand.ancestors.held_name(session, &demand.names) {
            Some(name) => return refused(AcquireError::TimedOut, None, Some(name)),
            None => None,
        },
        Err(AcquireError::NotYet(reason)) => Some(reason),
        Err(error) => return refused(error, None, None),
    };
    let waited = match (demand.limit, not_yet.clone()) {
        (Some(Duration::ZERO), Some(reason)) => Err(AcquireError::NotYet(reason)),
        (Some(Duration::ZERO), None) => Err(AcquireError::TimedOut),
        _ => request(session, demand, demand.time_left()),
    };
    waited.map_or_else(|error| refused(error, not_yet, None), Had::Grant)
}

fn request(session: &Session, demand: &Demand, limit: Option<Duration>) -> Result<Grant, AcquireError> {
    let names: Vec<&[u8]> = demand.names.iter().map(|name| name.as_bytes()).collect();
    match names.as_slice() {
        [name] => session.acquire(name, demand.mode, limit),
        names => {
            let wants: Vec<_> = names.iter().map(|&name| (name, demand.mode)).collect();
            session.acquire_all(&wants, limit)
        }
    }
}

fn give_up_asking(asking: &OnceLock<Asking>, demand: &Demand) {
    // Without a session nothing is asked for yet; nor will it be, since the thread ends with the process.
    if let Some(Asking { session, .. }) = asking.get() {
        give_up(session, &demand.names);
    }
}

/// Leaves the queue, or gives back what has been granted at that moment, and ends the session. A server that
/// answers frees the lock without telling the next holder that its predecessor has vanished.
fn give_up(session: &Arc<Session>, names: &[OsString]) {
    let (asked, names) = (session.clone(), names.to_vec());
    // Whatever comes of it, the end of the session frees the lock.
    let _ = within(Some(GIVE_UP_LIMIT), None, "lockd-give-up", move || release_all(&asked, &names));
    session.close();
}

fn release_all(session: &Session, names: &[OsString]) -> Result<(), ReleaseError> {
    session.release_all(&names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>())
}

fn no_session(error: &ConnectError, demand: &Demand) -> Ending {
    if !error.kind().is_absence() {
        Ending::Failed(error.to_string())
    } else if demand.time_left().is_some_and(|rest| rest.is_zero()) {
        Ending::TimedOut(format!("{}: {error}", demand.not_had_in_time()))
    } else {
        Ending::NoServer(error.to_string())
    }
}

fn refused(refusal: Refusal, demand: &Demand, asking: &Asking, signals: &Signals) -> Ending {
    let Refusal { error, not_yet, of_ancestor } = refusal;
    let is_try = demand.limit == Some(Duration::ZERO);
    match (error, of_ancestor) {
        (AcquireError::TimedOut, Some(name)) if !is_try => {
            let name = printable_argument(&name);
            Ending::Failed(format!(
                "{name}: held by a lockd run that this one runs under: it would wait for ever"
            ))
        }
        (AcquireError::TimedOut, of_ancestor) => {
            let waited = demand.limit.filter(|_| !is_try).map(|limit| (asking.since, limit));
            let words =
                match explain(&Refused { names: &demand.names, waited, not_yet }, &asking.session, signals) {
                    Explained::Signal(signal) => return Ending::interrupted(signal, &demand.names),
                    Explained::Words(words) => words,
                };
            match of_ancestor {
                Some(_) => Ending::Busy(format!("{words}; this one runs under that lockd run")),
                None if is_try => Ending::Busy(words),
                None => Ending::TimedOut(words),
            }
        }
        (AcquireError::NotYet(reason), _) if is_try => Ending::Busy(reason),
        (AcquireError::NotYet(reason), _) => {
            Ending::TimedOut(format!("{}: {reason}", demand.not_had_in_time()))
        }
        (AcquireError::Lost(reason) | AcquireError::Stopping(reason), _) => {
            // The other servers have hidden until now that there is none for these names, perhaps by a mistake.
            let never_there =
                demand.names.iter().find_map(|name| asking.session.connect_error(name.as_bytes()));
            never_there.map_or(Ending::NoServer(reason), |error| no_session(error, demand))
        }
        (error, _) => Ending::Failed(error.to_string()),
    }
}

impl Hold {
    /// Why the lock is lost. Does not wait for any server for long.
    pub(super) fn loss(&self) -> String {
        let (session, names) = (self.session.clone(), self.names.clone());
        let reason = move || names.iter().find_map(|name| session.inspect(name.as_bytes()).err());
        match within(Some(REASON_LIMIT), None, "lockd-reason", reason) {
            Ok(Waited::Done(Some(error))) => error.to_string(),
            _ => "the session has ended".to_owned(),
        }
    }

    /// If a signal has come that ends a process, gives the locks back.
    ///
    /// # Errors
    /// How `lockd run` ends then.
    pub(super) fn unless_interrupted(self, signals: &Signals) -> Result<Self, Ending> {
        let Some(signal) = signals.next_ending() else { return Ok(self) };
        give_up(&self.session, &self.names);
        Err(Ending::interrupted(signal, &self.names))
    }

    /// Gives the locks back, if they have been held until now, which the session knows: it is told of a loss before
    /// the server gives the locks to others. What comes of giving them back changes nothing about that; a signal
    /// ends the wait for the server's word. If one has come already (`is_in_a_hurry`), that is a short one.
    ///
    /// # Errors
    /// If the locks were lost before.
    pub(super) fn release(self, signals: &Signals, is_in_a_hurry: bool) -> Result<(), String> {
        if !self.session.is_alive() {
            let reason = self.loss();
            self.session.close();
            return Err(reason);
        }
        let (session, names) = (self.session.clone(), self.names.clone());
        let work = move || release_all(&session, &names);
        let limit = if is_in_a_hurry { GIVE_UP_LIMIT } else { CONFIRM_LIMIT };
        let released = within(Some(limit), Some(signals), "lockd-release", work);
        self.session.close();
        match released {
            Ok(Waited::Done(Err(error @ ReleaseError::NotHeld))) => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    /// Ends the session. The server may have kept the locks until now.
    pub(super) fn close(&self) {
        self.session.close();
    }
}
