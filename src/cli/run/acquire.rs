//! Getting the lock and giving it back, in a way that a signal ends at once: threads ask the server, and this one
//! looks after the signals meanwhile.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{AcquireError, Grant, Mode, ReleaseError};
use lockd::client::{ConnectError, ConnectOptions};
use nix::sys::signal::Signal;

use super::ending::Ending;
use super::explain::{Explained, Refused, explain};
use super::signals::Signals;
use super::wait::{Waited, within};

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a release waits for the server to confirm it. By then a connection that is cut is known to be.
const CONFIRM_LIMIT: Duration = Duration::from_secs(20);
/// How long the server may take to hear, after a signal, that the lock is not wanted any more. Then the end of the
/// session says so.
const GIVE_UP_LIMIT: Duration = Duration::from_millis(500);
/// How long it may take to find out why the session was lost.
const REASON_LIMIT: Duration = Duration::from_millis(500);

/// What is to be had.
#[derive(Clone)]
pub(super) struct Demand {
    pub(super) urls: String,
    pub(super) owner: String,
    /// How long the server is asked to keep the locks after it has ended the session.
    pub(super) wind_down: Duration,
    pub(super) names: Vec<OsString>,
    pub(super) mode: Mode,
    pub(super) limit: Option<Duration>,
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
    NoServer(ConnectError),
    Refused(AcquireError),
}

/// Waits for the lock.
///
/// # Errors
/// How `lockd run` ends without it.
pub(super) fn acquire(demand: &Demand, signals: &Signals) -> Result<Hold, Ending> {
    let asking = Arc::new(OnceLock::new());
    let (wanted, set) = (demand.clone(), asking.clone());
    let waited = within(None, Some(signals), "lockd-acquire", move || ask(&wanted, &set))
        .map_err(|error| Ending::Failed(format!("waiting for the lock: {error}")))?;
    let lost = || Ending::NoServer("there is no session".to_owned());
    match waited {
        Waited::Done(Had::Grant(grant)) => {
            let session = asking.get().ok_or_else(lost)?.session.clone();
            Ok(Hold { session, grant, names: demand.names.clone() })
        }
        Waited::Done(Had::NoServer(error)) => Err(Ending::NoServer(error.to_string())),
        Waited::Done(Had::Refused(error)) => {
            Err(refusal(error, demand, asking.get().ok_or_else(lost)?, signals))
        }
        Waited::Signal(signal) => {
            // Without a session nothing is asked for yet; nor will it be, since the thread ends with the process.
            if let Some(Asking { session, .. }) = asking.get() {
                give_up(session, &demand.names);
            }
            Err(interrupted(signal))
        }
        // There is no limit.
        Waited::Late => Err(Ending::Failed("waiting for the lock has ended by itself".to_owned())),
    }
}

/// Connects, says who asks, and waits for the lock.
fn ask(demand: &Demand, asking: &OnceLock<Asking>) -> Had {
    let options = ConnectOptions {
        owner: Some(&demand.owner),
        timeout: CONNECT_LIMIT,
        wind_down: demand.wind_down,
        ..ConnectOptions::default()
    };
    let Asking { session, .. } = match Session::connect_with(&demand.urls, &options) {
        Ok(connected) => {
            asking.get_or_init(|| Asking { session: Arc::new(connected), since: Instant::now() })
        }
        Err(error) => return Had::NoServer(error),
    };
    let names: Vec<&[u8]> = demand.names.iter().map(|name| name.as_bytes()).collect();
    let had = match names.as_slice() {
        [name] => session.acquire(name, demand.mode, demand.limit),
        names => {
            let wants: Vec<_> = names.iter().map(|&name| (name, demand.mode)).collect();
            session.acquire_all(&wants, demand.limit)
        }
    };
    had.map_or_else(Had::Refused, Had::Grant)
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

fn interrupted(signal: Signal) -> Ending {
    Ending::Interrupted(u8::try_from(signal as i32).unwrap_or_default())
}

fn refusal(error: AcquireError, demand: &Demand, asking: &Asking, signals: &Signals) -> Ending {
    let limit = match (error, demand.limit) {
        (AcquireError::TimedOut, Some(limit)) => limit,
        (AcquireError::NotYet(reason), _) => return Ending::Busy(reason),
        (AcquireError::Lost(reason) | AcquireError::Stopping(reason), _) => return Ending::NoServer(reason),
        (error, _) => return Ending::Failed(error.to_string()),
    };
    let waited = (!limit.is_zero()).then_some((asking.since, limit));
    match explain(&Refused { names: &demand.names, waited }, &asking.session, signals) {
        Explained::Signal(signal) => interrupted(signal),
        Explained::Words(words) if limit.is_zero() => Ending::Busy(words),
        Explained::Words(words) => Ending::TimedOut(words),
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
        Err(interrupted(signal))
    }

    /// Gives the locks back, if they have been held until now, which the session knows: it is told of a loss before
    /// the server gives the locks to others. What comes of giving them back changes nothing about that; a signal
    /// ends the wait for the server's word.
    ///
    /// # Errors
    /// If the locks were lost before.
    pub(super) fn release(self, signals: &Signals) -> Result<(), String> {
        if !self.session.stands() {
            let reason = self.loss();
            self.session.close();
            return Err(reason);
        }
        let (session, names) = (self.session.clone(), self.names.clone());
        let work = move || release_all(&session, &names);
        let released = within(Some(CONFIRM_LIMIT), Some(signals), "lockd-release", work);
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
