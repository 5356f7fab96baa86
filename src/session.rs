//! One owner of locks, wherever the locks are: in this process or on servers. Has the same calls
//! for both, and passes each on to the session that carries it out. Decides nothing about locks.

pub(crate) mod patient;

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::broker::{
    AcquireError, Attempt, Broker, Grant, Held, Inspection, LocalSession, LockName, Mode, PageQuery,
    ReleaseError, Released, Space,
};
use crate::client::{ConnectError, ConnectOptions, InspectError, SessionGroup, SessionState, WaitHook};
use crate::wire::message::{ListRequest, LockPage};

/// One owner of locks, in this process or on servers.
///
/// A session may be shared between threads. Each call is atomic, and a call that waits does not
/// delay the others. But a session is *one* owner: if one thread asks for a lock that another
/// thread of the same session holds, it gets [`AcquireError::AlreadyHeld`] at once. Threads that
/// compete for locks each need a session of their own.
///
/// A time limit of `None` waits without limit, and zero does not wait. A call to a server that does
/// not answer returns at most a second after its time limit. A call without a time limit that waits
/// only for the server returns within the server's dead-peer timeout.
///
/// When the connection to a server is lost, the session has lost its locks on that server, unless it
/// was asked to [resume](#sessions-that-resume). (A caller who only waits holds nothing:
/// [`connect_and_acquire`](Self::connect_and_acquire) waits through a restart of the server.) When
/// the session is dropped, its locks are freed: dropping [closes](Self::close) it, but in a thread
/// that is panicking it [abandons](Self::abandon) it, because work under the locks may be half
/// done.
///
/// A forked child must not use or drop a session of its parent, since another thread of the parent
/// may have been changing it. (A session of the C API detects this itself.)
///
/// ```
/// use lockd::Session;
/// use lockd::broker::{AcquireError, Broker, Mode};
/// use std::time::Duration;
///
/// let broker = Broker::default();
/// let (writer, other) = (Session::open(&broker, Some("writer")), Session::open(&broker, None));
///
/// let grant = writer.acquire(b"report", Mode::Exclusive, Some(Duration::from_secs(5)))?;
/// println!("may write; the storage must refuse any token of this name below {}", grant.token);
///
/// let busy = other.acquire(b"report", Mode::Shared, Some(Duration::ZERO));
/// assert_eq!(busy, Err(AcquireError::TimedOut));
///
/// writer.release(b"report")?;
/// assert!(other.acquire(b"report", Mode::Shared, Some(Duration::ZERO)).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Sessions that resume
///
/// `?resume` after the address of a server, or [`ConnectOptions::resume`], asks for a session that
/// survives the end of its connection, a restart or a crash of the server. The server must have a
/// state directory; [`is_resumable`](Self::is_resumable) tells whether it offers this.
///
/// When such a session loses its connection while it holds a lock, it is *in doubt*
/// ([`SessionState::InDoubt`]): the server keeps the locks for a while, and the session connects
/// again and shows what it holds. Then it goes on with the same locks and tokens, or it is lost.
/// While it is in doubt, nothing may be begun on the strength of a lock: another session gets it as
/// soon as this one is lost. Work that is under way may go on to the next point where it can wait;
/// there, call [`wait_certain`](Self::wait_certain).
///
/// No thread does this: every call of the session goes on with connecting. The doubt is over at the
/// latest 16.5 seconds after the session sent the last request that the server has answered (with
/// the usual dead-peer timeout of 25 seconds). If that is past when the connection ends, the session
/// is lost at once. So call [`state`](Self::state) every second or so, also while all is well: it
/// asks the server when the last answer is some seconds old. Calls that wait do so, too.
///
/// In doubt, [`acquire`](Self::acquire), [`acquire_all`](Self::acquire_all), [`wait`](Self::wait)
/// and [`convert`](Self::convert) to fewer holders wait for up to their time limit, and then ask
/// again at the end of the queue; at the limit they fail with [`AcquireError::Doubt`]. All other
/// calls fail with `Doubt` at once. [`release`](Self::release) gives the names up all the same, and
/// the server frees the locks when the session is resumed or lost. A release that was sent before
/// waits for certainty, at most for the dead-peer timeout. [`close`](Self::close) ends the session.
///
/// A session that holds nothing is never lost: it begins anew when there is a server, and its calls
/// that wait go on waiting.
///
/// # Limited locks
///
/// [`Mode::at_most`] makes the mode of a lock that several sessions may hold, but only so many. It
/// returns `None` for 0, since no session could hold such a lock, and for more than
/// [`HolderLimit::MAX`](crate::broker::HolderLimit::MAX). The mode goes wherever a mode goes. A
/// holder is promised that there are never more holders than its own mode allows, itself included,
/// while it holds the lock. So programs that name different limits need no agreement: the smallest
/// limit of those that hold the lock is in force. Exclusive is a limit of 1, and shared has no
/// limit.
///
/// ```
/// use lockd::Session;
/// use lockd::broker::{AcquireError, Broker, Mode};
/// use std::time::Duration;
///
/// /// Two licences for four workers. A limit that is not constant may be 0 or too large:
/// /// `Mode::at_most(number).ok_or("a limit must be from 1 to 16777215")?`.
/// const LICENCES: Mode = Mode::at_most(2).unwrap();
/// const NOW: Option<Duration> = Some(Duration::ZERO);
///
/// let broker = Broker::default();
/// let workers: Vec<Session> = (0..4).map(|_| Session::open(&broker, None)).collect();
/// workers[0].acquire(b"licence", LICENCES, NOW)?;
/// workers[1].acquire(b"licence", LICENCES, NOW)?;
/// assert_eq!(workers[2].acquire(b"licence", LICENCES, NOW), Err(AcquireError::TimedOut));
///
/// let seen = workers[2].inspect(b"licence")?;
/// assert_eq!((seen.limit(), seen.holders, seen.free_slots()), (Some(2), 2, Some(0)));
///
/// // A slot is free as soon as its holder has released it or has ended.
/// workers[0].abandon();
/// workers[2].acquire(b"licence", LICENCES, NOW)?;
///
/// // For maintenance: waits for the other holders, ahead of the queue.
/// workers[1].close();
/// workers[2].convert(b"licence", Mode::Exclusive, NOW)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// Waiters are served first come, first served, whatever their limits. [`Grant::orphaned`] is about
/// exclusive holders only. Holders at the same time have different tokens, so the storage must not
/// refuse the lower one. A wait is refused as a deadlock if it would close a cycle in which each
/// session waits for one that must go first: for a holder of an exclusive lock, or for every holder
/// of a lock that it wants exclusively. A session that waits because a limit is reached waits until
/// enough of the holders have gone, no matter which. Such a wait is never refused, even if in fact
/// all of them wait for this session: where that could happen, give it a time limit. A server that
/// is older than limited locks is asked for nothing: the call ends with [`AcquireError::Refused`].
pub struct Session(Backend);

/// What carries the calls out. The calls about one name are those of [`LocalSession`] and of
/// [`RemoteSession`](crate::client::RemoteSession), which have the same signatures.
enum Backend {
    Local(LocalSession),
    /// On one server, or on several.
    Servers(SessionGroup),
}

/// Makes a call at the backend; a call about `name`, at the session that is responsible for the
/// name.
macro_rules! call {
    ($session:ident, $call:ident()) => {
        match &$session.0 {
            Backend::Local(session) => session.$call(),
            Backend::Servers(group) => group.$call(),
        }
    };
    ($session:ident, $name:expr, $call:ident($($argument:expr),*)) => {
        match &$session.0 {
            Backend::Local(session) => session.$call($($argument),*),
            Backend::Servers(group) => group.session_for($name)?.$call($($argument),*),
        }
    };
}

impl Session {
    /// Opens a session in this process. `owner` is its name in listings and deadlock reports.
    #[must_use]
    pub fn open(broker: &Broker, owner: Option<&str>) -> Self {
        Self(Backend::Local(broker.open(owner)))
    }

    /// Opens a session on a server, `tcp://HOST:PORT` or `unix:/PATH` (see
    /// [`ServerUrl`](crate::client::ServerUrl)), or on several servers, separated by commas.
    /// Connecting takes up to `timeout` in all; only resolving names may take longer. `owner` is
    /// the session's name in listings and deadlock reports.
    ///
    /// A server that may be at several places (`tcp://a,b,c`) is looked for at each in turn; see
    /// [`ServerUrl`](crate::client::ServerUrl).
    ///
    /// Several servers share the names. Each name belongs to one of them, and every client that is
    /// given the same addresses, written alike and in any order, finds the same one (the places of a
    /// server may be in any order, too). The servers
    /// are tried one after another, each for an equal share of the time left. One that answers is
    /// enough.
    ///
    /// A server that did not answer, or that is lost later, takes its names with it: every call on
    /// such a name ends with `Lost`. No other server is asked for the name, because another session
    /// may hold it on the server that only this client cannot reach. A deadlock is found among the
    /// names of one server, but not across servers.
    ///
    /// # Errors
    /// [`ConnectError`] if there is no session on any of the servers.
    pub fn connect(urls: &str, owner: Option<&str>, timeout: Duration) -> Result<Self, ConnectError> {
        Self::connect_with(urls, &ConnectOptions { owner, timeout, ..ConnectOptions::default() })
    }

    /// As [`connect`](Self::connect), with all [options](ConnectOptions).
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect_with(urls: &str, options: &ConnectOptions<'_>) -> Result<Self, ConnectError> {
        Ok(Self(Backend::Servers(SessionGroup::connect_with(urls, options)?)))
    }

    /// If there has been no session from the start on the server that `name` belongs to, so that
    /// every call on `name` ends with `Lost`: why not. `None` if there was one, even if it is lost
    /// by now.
    #[must_use]
    pub fn connect_error(&self, name: &[u8]) -> Option<&ConnectError> {
        match &self.0 {
            Backend::Local(_) => None,
            Backend::Servers(group) => group.connect_error(name),
        }
    }

    /// Whether it is on a server.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.0, Backend::Servers(_))
    }

    /// Acquires the lock, waiting for up to `limit`. Waiters are served first come, first served.
    ///
    /// On a server, `Ok` means that the server granted the lock on a connection that was still
    /// alive when the reply was read.
    ///
    /// # Errors
    /// [`AcquireError`]; `TimedOut` if it was not granted within `limit`.
    pub fn acquire(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        call!(self, name, acquire(name, mode, limit))
    }

    /// Acquires all these locks at once or none of them, waiting for up to `limit` until all are
    /// free at the same time. Holds none of them while it waits. All get the same token, which is
    /// higher than all earlier tokens of each of them.
    ///
    /// # Errors
    /// [`AcquireError`]; `Invalid` also if the names belong to different servers, which cannot
    /// grant them together.
    pub fn acquire_all(
        &self,
        wants: &[(&[u8], Mode)],
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        let wants: Vec<_> = wants.iter().map(|(name, mode)| (LockName::new(name), *mode)).collect();
        match &self.0 {
            Backend::Local(session) => session.acquire_all(&wants, limit),
            Backend::Servers(group) => group.acquire_all(&wants, limit),
        }
    }

    /// As [`acquire_all`](Self::acquire_all), but on a server it calls the hook while it waits. If
    /// the hook ends the wait, nothing is acquired.
    fn acquire_with_hook(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
        hook: &mut WaitHook<'_>,
    ) -> Result<Grant, AcquireError> {
        match &self.0 {
            Backend::Local(session) => session.acquire_all(wants, limit),
            Backend::Servers(group) => group.acquire_with_hook(wants, limit, hook),
        }
    }

    /// Changes the mode of a held lock without releasing it, from any mode to any other. To a mode
    /// that allows fewer holders, such as exclusive: waits for up to `limit` until there are no
    /// more holders than that, ahead of the queue, and the grant has a new token. To a mode that
    /// allows more holders, such as shared: never waits for another session, and keeps the token.
    ///
    /// On a server a conversion to a mode that allows more holders cannot be taken back, since
    /// others may have come in. If the server does not confirm it in time, it is unknown what the
    /// session holds, so the session ends: `Lost`. In time means: before `limit` plus one second,
    /// before the server's dead-peer timeout, and within a second of a [`cancel`](Self::cancel).
    ///
    /// # Errors
    /// [`AcquireError`]; except for `Lost` the lock is then held as before.
    pub fn convert(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        call!(self, name, convert(name, mode, limit))
    }

    /// Asks for the lock without waiting for it: `Granted` if it is free, otherwise `Queued`. A
    /// queued request keeps its place, and [`wait`](Self::wait) returns its outcome.
    ///
    /// # Errors
    /// [`AcquireError`]; `AlreadyWaiting` if the session already has a place in this mode, and
    /// `Invalid` if it has one in another mode: [`wait`](Self::wait) would return a grant in that
    /// mode. `TimedOut` if the server does not answer within its dead-peer timeout: then the session
    /// has no place in the queue.
    pub fn enqueue(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        call!(self, name, enqueue(name, mode))
    }

    /// Asks for another mode of a held lock without waiting for it: `Granted` if it can be had at
    /// once, as one that allows more holders always can, otherwise `Queued`, and
    /// [`wait`](Self::wait) returns the outcome. [`cancel`](Self::cancel) gives the place up and
    /// leaves the lock held as it was; [`release`](Self::release) gives up the lock too.
    ///
    /// # Errors
    /// As for [`convert`](Self::convert) and [`enqueue`](Self::enqueue); the lock is then held as
    /// before.
    pub fn enqueue_convert(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        call!(self, name, enqueue_convert(name, mode))
    }

    /// Waits for up to `limit` for a request that [`enqueue`](Self::enqueue) or
    /// [`enqueue_convert`](Self::enqueue_convert) has queued, or that an interrupted call has left
    /// in the queue. After `TimedOut` the request keeps its place, unless the time limit of the
    /// interrupted call is over.
    ///
    /// # Errors
    /// [`AcquireError`]; `NotHeld` if there is no such request.
    pub fn wait(&self, name: &[u8], limit: Option<Duration>) -> Result<Grant, AcquireError> {
        call!(self, name, wait(name, limit))
    }

    /// Releases the lock, or gives up the place in its queue. On a server it waits until the server
    /// has confirmed it. A call of another thread that waits for the lock ends with `Cancelled`.
    ///
    /// # Errors
    /// [`ReleaseError`]; `Lost` also if the server does not confirm it within its dead-peer
    /// timeout, or within a second of a [`cancel`](Self::cancel). That ends the session, so that
    /// nothing stays locked.
    pub fn release(&self, name: &[u8]) -> Result<Released, ReleaseError> {
        call!(self, name, release(name))
    }

    /// Releases all these locks and gives up all these places. The names may belong to different
    /// servers.
    ///
    /// # Errors
    /// As for [`release`](Self::release), for any of the names; the others are released all the
    /// same. `Lost` takes precedence over `NotHeld`.
    pub fn release_all(&self, names: &[&[u8]]) -> Result<(), ReleaseError> {
        match &self.0 {
            Backend::Local(session) => {
                // A request for several names is given up with the first of them. The others then
                // count as given up too, each once: a name that is listed twice was held only once.
                let mut waiting: HashSet<&[u8]> =
                    names.iter().copied().filter(|name| session.inspect(name).waiting).collect();
                let mut result = Ok(());
                for name in names {
                    let was_waiting = waiting.remove(name);
                    let released = session.release(name).map(drop);
                    let is_gone = was_waiting && released == Err(ReleaseError::NotHeld);
                    result = result.and(if is_gone { Ok(()) } else { released });
                }
                result
            }
            Backend::Servers(group) => {
                group.release_all(&names.iter().map(|name| LockName::new(name)).collect::<Vec<_>>())
            }
        }
    }

    /// What this session holds on the name, and in which mode, as far as its own calls have
    /// learned. Asks no server, and never blocks. On a server, a request that
    /// [`enqueue`](Self::enqueue) has queued counts as waiting until [`wait`](Self::wait) has
    /// returned its grant.
    ///
    /// # Errors
    /// `Lost` if the session has ended, or its connection to the server that the name belongs to,
    /// as far as can be known without waiting.
    pub fn held(&self, name: &[u8]) -> Result<Option<Held>, InspectError> {
        match &self.0 {
            Backend::Local(session) if session.is_alive() => Ok(session.inspect(name).held),
            Backend::Local(_) => Err(closed()),
            Backend::Servers(group) => group.session_for(name)?.held(name),
        }
    }

    /// The lock's current state: how many sessions hold it, how many more may
    /// ([`Inspection::free_slots`]), and how many requests wait.
    ///
    /// # Errors
    /// [`InspectError`]
    pub fn inspect(&self, name: &[u8]) -> Result<Inspection, InspectError> {
        match &self.0 {
            Backend::Local(session) if session.is_alive() => Ok(session.inspect(name)),
            Backend::Local(_) => Err(closed()),
            Backend::Servers(group) => group.session_for(name)?.inspect(name),
        }
    }

    /// One page of all locks that are held or waited for: those whose names begin with `prefix` and
    /// come after `after`, in the order of their bytes. It has up to `limit` locks, 1000 at most,
    /// and 100 if `limit` is 0; fewer if they have many holders and waiters. If
    /// [`more`](LockPage::more) is set, ask again with the last
    /// [name](crate::wire::message::ListedLock::name) as `after`. The pages are no snapshot, but a
    /// lock that is there all the time is on exactly one page.
    ///
    /// On several servers the page covers all of them. A name that is locked on several servers, by
    /// clients that were given other addresses, is listed once: as it is on the server that it
    /// belongs to here.
    ///
    /// ```
    /// # use lockd::{Session, broker::{Broker, Mode}};
    /// # use std::time::Duration;
    /// # let session = Session::open(&Broker::default(), None);
    /// session.acquire(b"invoice/4711", Mode::Exclusive, Some(Duration::ZERO))?;
    /// let page = session.list(b"invoice/", None, 100)?;
    /// assert_eq!((page.locks[0].lock_name.as_str(), page.more), ("invoice/4711", false));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InspectError`]; `Lost` if any of several servers is lost, because its locks are unknown.
    pub fn list(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<LockPage, InspectError> {
        let (prefix, after) = (LockName::new(prefix), after.map(LockName::new));
        let limit = if limit == 0 { ListRequest::LIMIT } else { limit.min(ListRequest::LIMIT_MAX) };
        match &self.0 {
            Backend::Local(session) => {
                let page = session.page(&PageQuery { space: Space::Main, prefix, after, limit });
                // The locks of a broker that has failed are unknown.
                if session.is_alive() { Ok(page.into()) } else { Err(closed()) }
            }
            Backend::Servers(group) => group.list(&ListRequest { prefix, limit, after, waiting: false }),
        }
    }

    /// Ends every call of this session that is in progress, in any thread, without waiting for
    /// anything. Waits for locks, [`inspect`](Self::inspect) and [`list`](Self::list) end with
    /// `Cancelled`; but a grant that came first stays. A release, or a conversion to a mode that
    /// allows more holders, cannot be taken back: if the server does not confirm it within a
    /// second, the session ends, and the call returns `Lost`.
    pub fn cancel(&self) {
        call!(self, cancel())
    }

    /// Whether the session is alive, and with it its locks, as far as can be known without waiting.
    /// On several servers: whether it is alive on every server where it holds a lock or waits for
    /// one, and on at least one. False for a session that is [in doubt](Self::state).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match &self.0 {
            Backend::Local(session) => session.is_alive(),
            Backend::Servers(group) => group.state() == SessionState::Alive,
        }
    }

    /// Whether the session has its locks, as far as can be known without waiting. A session that
    /// [resumes](Self#sessions-that-resume) goes on with connecting again in this call, and asks
    /// the server if its last answer is old; so call this now and then.
    #[must_use]
    pub fn state(&self) -> SessionState {
        match &self.0 {
            Backend::Local(session) if session.is_alive() => SessionState::Alive,
            Backend::Local(_) => SessionState::Lost { reason: CLOSED.to_owned() },
            Backend::Servers(group) => group.state(),
        }
    }

    /// Waits for up to `limit` until it is certain whether the session has its locks: returns
    /// `InDoubt` only if it still is when the time is over.
    #[must_use]
    pub fn wait_certain(&self, limit: Option<Duration>) -> SessionState {
        match &self.0 {
            Backend::Local(_) => self.state(),
            Backend::Servers(group) => group.wait_certain(limit),
        }
    }

    /// Whether the session [resumes](Self#sessions-that-resume) if it loses its connection: it was
    /// asked for, and the server offers it (of several servers: each of them).
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        matches!(&self.0, Backend::Servers(group) if group.is_resumable())
    }

    /// How often the session has lost its connection and was resumed with its locks.
    #[must_use]
    pub fn resumes(&self) -> u64 {
        match &self.0 {
            Backend::Local(_) => 0,
            Backend::Servers(group) => group.resumes(),
        }
    }

    /// A descriptor for `poll(2)`; `None` for a session in this process. If it is readable while no
    /// call of this session is in progress, the session may be lost, and
    /// [`is_alive`](Self::is_alive) tells.
    ///
    /// It may become readable too late: before Linux 6.15 perhaps only after the server has given
    /// the locks to somebody else. If this host itself drops what it sends, it may never become
    /// readable. So also call `is_alive` about once a second, and before each step that needs a
    /// lock.
    #[must_use]
    pub fn lost_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Backend::Local(_) => None,
            Backend::Servers(group) => Some(group.as_fd()),
        }
    }

    /// Ends the session in an orderly way: its locks are freed as if they had been released. Calls
    /// in progress in other threads, and all later ones, end with `Lost`. Waits for nothing: a
    /// server that takes no bytes at the moment only notices the end of the connection, as if the
    /// session had been [abandoned](Self::abandon).
    pub fn close(&self) {
        call!(self, close())
    }

    /// Ends the session as if the process had ended: the next exclusive holder of each lock that
    /// this session held exclusively is told that the work under it may be half done
    /// ([`Grant::orphaned`]). For a program that could not finish what it did under a lock.
    pub fn abandon(&self) {
        call!(self, abandon())
    }
}

fn closed() -> InspectError {
    InspectError::Lost(CLOSED.to_owned())
}

const CLOSED: &str = "it was closed";
