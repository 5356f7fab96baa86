//! Getting the lock, in a way that a signal ends at once. A thread connects and waits, and this one looks after
//! the signals meanwhile.

use std::ffi::OsString;
use std::io::{self, PipeReader};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{AcquireError, Grant, Mode, ReleaseError};
use lockd::client::ConnectError;
use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::ending::Ending;
use super::explain::{self, Refused};
use super::signals::Signals;

/// How long connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How often a wait is cancelled that a signal has ended, until it has noticed: it may not have begun.
const CANCEL_AGAIN: Duration = Duration::from_millis(10);
/// How long a release waits for the server to confirm it. By then a connection that is cut is known to be.
const CONFIRM_LIMIT: Duration = Duration::from_secs(20);

/// What is to be had.
#[derive(Clone)]
pub(super) struct Demand {
    pub(super) urls: String,
    pub(super) owner: String,
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
    let (thread, done) = ask(demand, asking.clone()).map_err(|error| Ending::Failed(error.to_string()))?;
    let signal = await_either(&done, signals).map_err(|error| Ending::Failed(error.to_string()))?;
    if let Some(signal) = signal {
        return Err(give_up(thread, &done, &asking, demand, signal));
    }
    let had = thread.join().map_err(|_| Ending::Failed("the waiting thread has failed".to_owned()))?;
    let lost = || Ending::NoServer("there is no session".to_owned());
    match had {
        Had::Grant(grant) => {
            let session = asking.get().ok_or_else(lost)?.session.clone();
            Ok(Hold { session, grant, names: demand.names.clone() })
        }
        Had::NoServer(error) => Err(Ending::NoServer(error.to_string())),
        Had::Refused(error) => Err(refusal(error, demand, asking.get().ok_or_else(lost)?)),
    }
}

/// Starts the thread. What it returns beside is readable once that has ended.
fn ask(demand: &Demand, asking: Arc<OnceLock<Asking>>) -> io::Result<(JoinHandle<Had>, PipeReader)> {
    let (done, doing) = io::pipe()?;
    let demand = demand.clone();
    let work = move || {
        let _doing = doing;
        let connected = Session::connect(&demand.urls, Some(&demand.owner), CONNECT_LIMIT);
        let Asking { session, .. } = match connected {
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
    };
    Ok((Builder::new().name("lockd-acquire".to_owned()).spawn(work)?, done))
}

/// Waits until the thread has ended, or a signal ends the wait.
fn await_either(done: &PipeReader, signals: &Signals) -> io::Result<Option<Signal>> {
    loop {
        let mut fds = [PollFd::new(done, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
        wait_for(&mut fds, None)?;
        let is_done = !fds[0].revents().is_empty();
        while let Some(received) = signals.next() {
            if received.is_ending() {
                return Ok(Some(received.signal));
            }
            if received.signal == Signal::SIGTSTP {
                super::stop_this_process();
            }
        }
        if is_done {
            return Ok(None);
        }
    }
}

/// A signal has come: leaves the queue, or gives back what has been granted at that moment.
fn give_up(
    thread: JoinHandle<Had>,
    done: &PipeReader,
    asking: &OnceLock<Asking>,
    demand: &Demand,
    signal: Signal,
) -> Ending {
    let number = u8::try_from(signal as i32).unwrap_or_default();
    loop {
        // Nothing is asked for yet; nor will it be, since the process ends with this thread.
        let Some(asking) = asking.get() else { return Ending::Interrupted(number) };
        asking.session.cancel();
        let mut fds = [PollFd::new(done, PollFlags::IN)];
        if wait_for(&mut fds, Some(CANCEL_AGAIN)).is_err() || !fds[0].revents().is_empty() {
            break;
        }
    }
    if let (Ok(Had::Grant(grant)), Some(Asking { session, .. })) = (thread.join(), asking.get()) {
        // Whether that succeeds or not, the session ends.
        let _ = Hold { session: session.clone(), grant, names: demand.names.clone() }.release();
    }
    Ending::Interrupted(number)
}

fn refusal(error: AcquireError, demand: &Demand, asking: &Asking) -> Ending {
    let limit = match (error, demand.limit) {
        (AcquireError::TimedOut, Some(limit)) => limit,
        (AcquireError::Lost(reason), _) => return Ending::NoServer(reason),
        (error, _) => return Ending::Failed(error.to_string()),
    };
    let waited = (!limit.is_zero()).then_some((asking.since, limit));
    let words = explain::explain(&Refused { names: &demand.names, waited }, &asking.session);
    if limit.is_zero() { Ending::Busy(words) } else { Ending::TimedOut(words) }
}

impl Hold {
    /// Why the lock is lost; `None` as long as it is not known to be.
    pub(super) fn loss(&self) -> Option<String> {
        if self.session.stands() {
            return None;
        }
        let name = self.names.first().map(|name| name.as_bytes()).unwrap_or_default();
        let reason = self.session.inspect(name).err().map(|error| error.to_string());
        Some(reason.unwrap_or_else(|| "the session has ended".to_owned()))
    }

    /// Gives the locks back, and makes sure that they were held until then.
    ///
    /// # Errors
    /// If they were not.
    pub(super) fn release(self) -> Result<(), String> {
        let names = self.names;
        let released = within(CONFIRM_LIMIT, &self.session, move |session| {
            let names: Vec<&[u8]> = names.iter().map(|name| name.as_bytes()).collect();
            session.release_all(&names)
        });
        match released {
            Some(Ok(())) => Ok(()),
            Some(Err(ReleaseError::Lost(reason))) => Err(reason),
            Some(Err(error)) => Err(error.to_string()),
            // The server hangs. While the connection stands, so did the lock.
            None if self.session.stands() => Ok(()),
            None => Err("the session has ended".to_owned()),
        }
    }
}

/// Does something that asks the server, for as long as this; `None` if it has not answered by then.
pub(super) fn within<T: Send + 'static>(
    limit: Duration,
    session: &Arc<Session>,
    work: impl FnOnce(&Session) -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = channel();
    let session = session.clone();
    let work = move || {
        // Nobody may be there any more to hear it.
        let _ = tell.send(work(&session));
    };
    Builder::new().name("lockd-ask".to_owned()).spawn(work).ok()?;
    told.recv_timeout(limit).ok()
}

/// Waits for one of these, or so long. A signal handler that ran is no reason to return.
pub(super) fn wait_for(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    match poll(fds, limit.as_ref()) {
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::INTR) => {
            fds.iter_mut().for_each(PollFd::clear_revents);
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Something to be polled for reading.
pub(super) fn readable<Fd: AsFd>(fd: &Fd) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::IN)
}
