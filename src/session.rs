//! One owner of locks, wherever they are: in this process or on servers. Offers the same calls for both and
//! passes each on; decides nothing.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use crate::broker::{
    AcquireError, Attempt, Broker, Grant, Held, Inspection, LocalSession, LockName, Mode, PageQuery,
    ReleaseError, Released, Space,
};
use crate::client::{ConnectError, ConnectOptions, InspectError, SessionGroup};
use crate::wire::message::{ListRequest, LockPage};

/// One owner of locks, in this process or on servers.
///
/// May be shared between threads: each call is atomic, and one that waits holds up no other. But a
/// session is *one* owner: a thread that asks for what another thread of the same session holds is told
/// [`AcquireError::AlreadyHeld`], at once. Threads that contend with one another open a session each.
///
/// Time limits: `None` waits without limit, zero does not wait. Calls without a limit of their own that ask a
/// server end within its dead-peer timeout, see [`client::RemoteSession`](crate::client::RemoteSession). When the session
/// is dropped, its locks are freed: that is to [close](Self::close) it, unless the thread is panicking. Then it is
/// to [abandon](Self::abandon) it, since what was done under the locks may be half done.
///
/// In a forked child a session of its parent's must not be used, nor dropped: another thread may have been
/// changing it. (A session of the C API says so by itself.)
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
/// println!("may write, and says {} to whatever keeps late writers out", grant.token);
///
/// let busy = other.acquire(b"report", Mode::Shared, Some(Duration::ZERO));
/// assert_eq!(busy, Err(AcquireError::TimedOut));
///
/// writer.release(b"report")?;
/// assert!(other.acquire(b"report", Mode::Shared, Some(Duration::ZERO)).is_ok());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session(Place);

enum Place {
    Here(LocalSession),
    There(SessionGroup),
}

impl Session {
    /// Opens a session in this process; `owner` is what it is called in listings.
    #[must_use]
    pub fn open(broker: &Broker, owner: Option<&str>) -> Self {
        Self(Place::Here(broker.open(owner)))
    }

    /// Opens a session on a server, `tcp://HOST:PORT` or `unix:/PATH`, or on several, separated by commas,
    /// over which the names are spread (see [`SessionGroup`]). Of several, one that answers is enough: every call
    /// on a name of another one ends with `Lost`. It takes up to `timeout` in all; only resolving names may take
    /// longer. `owner` is what it is called in listings.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect(urls: &str, owner: Option<&str>, timeout: Duration) -> Result<Self, ConnectError> {
        Self::connect_with(urls, &ConnectOptions { owner, timeout, ..ConnectOptions::default() })
    }

    /// As [`connect`](Self::connect), with all the [options](ConnectOptions) there are.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect_with(urls: &str, options: &ConnectOptions<'_>) -> Result<Self, ConnectError> {
        Ok(Self(Place::There(SessionGroup::connect_with(urls, options)?)))
    }

    /// Why every call on this name ends with `Lost` from the start, if it does (see
    /// [`SessionGroup::connect_error`]).
    #[must_use]
    pub fn connect_error(&self, name: &[u8]) -> Option<&ConnectError> {
        match &self.0 {
            Place::Here(_) => None,
            Place::There(servers) => servers.connect_error(name),
        }
    }

    /// Whether it is on a server.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(self.0, Place::There(_))
    }

    /// Acquires the lock, waiting for up to `limit`, first come, first served.
    ///
    /// # Errors
    /// [`AcquireError`]; `TimedOut` if it was not granted within `limit`.
    pub fn acquire(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        match &self.0 {
            Place::Here(session) => session.acquire(name, mode, limit),
            Place::There(servers) => servers.acquire(name, mode, limit),
        }
    }

    /// Acquires all these locks at once or none of them, waiting for up to `limit` until all can be had.
    /// Holds nothing while it waits. All of them get the same token.
    ///
    /// # Errors
    /// [`AcquireError`]; `Invalid` also if the names belong to different servers.
    pub fn acquire_all(
        &self,
        wants: &[(&[u8], Mode)],
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        let wants: Vec<_> = wants.iter().map(|(name, mode)| (LockName::new(name), *mode)).collect();
        match &self.0 {
            Place::Here(session) => session.acquire_all(&wants, limit),
            Place::There(servers) => servers.acquire_all(&wants, limit),
        }
    }

    /// Changes the mode of a held lock without letting it go. To exclusive it waits for up to `limit` for
    /// the other holders to go, and the grant carries a new token; to shared it does not wait for anybody.
    ///
    /// # Errors
    /// [`AcquireError`]; the lock is then held as before.
    pub fn convert(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        match &self.0 {
            Place::Here(session) => session.convert(name, mode, limit),
            Place::There(servers) => servers.convert(name, mode, limit),
        }
    }

    /// Takes a place in the queue without waiting there: `Granted` if the lock could be had at once, else
    /// `Queued`, and [`wait`](Self::wait) hears what becomes of it.
    ///
    /// # Errors
    /// [`AcquireError`]
    pub fn enqueue(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        match &self.0 {
            Place::Here(session) => session.enqueue(name, mode),
            Place::There(servers) => servers.enqueue(name, mode),
        }
    }

    /// Asks for another mode of a held lock without waiting for it: `Granted` if it could be had at once, as
    /// shared always can, else `Queued`, and [`wait`](Self::wait) hears what becomes of it.
    /// [`cancel`](Self::cancel) gives the place up and leaves the lock as it was held;
    /// [`release`](Self::release) gives up the lock, too.
    ///
    /// # Errors
    /// [`AcquireError`]; the lock is then held as before.
    pub fn enqueue_convert(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        match &self.0 {
            Place::Here(session) => session.enqueue_convert(name, mode),
            Place::There(servers) => servers.enqueue_convert(name, mode),
        }
    }

    /// Waits for up to `limit` at the place that [`enqueue`](Self::enqueue) or
    /// [`enqueue_convert`](Self::enqueue_convert) took, or that an interrupted call has kept. `TimedOut`
    /// keeps the place.
    ///
    /// # Errors
    /// [`AcquireError`]; `NotHeld` if there is no such place.
    pub fn wait(&self, name: &[u8], limit: Option<Duration>) -> Result<Grant, AcquireError> {
        match &self.0 {
            Place::Here(session) => session.wait(name, limit),
            Place::There(servers) => servers.wait(name, limit),
        }
    }

    /// Gives up the lock, or the place in its queue.
    ///
    /// # Errors
    /// [`ReleaseError`]
    pub fn release(&self, name: &[u8]) -> Result<Released, ReleaseError> {
        match &self.0 {
            Place::Here(session) => session.release(name),
            Place::There(servers) => servers.release(name),
        }
    }

    /// Gives up all these locks and places.
    ///
    /// # Errors
    /// [`ReleaseError`] if there is one for any of them; the others are given up all the same.
    pub fn release_all(&self, names: &[&[u8]]) -> Result<(), ReleaseError> {
        match &self.0 {
            Place::Here(session) => {
                // The place of a request for several names goes with the first of them. But a name that is given
                // twice is given up once.
                let mut waiting: HashSet<&[u8]> =
                    names.iter().copied().filter(|name| session.inspect(name).waiting).collect();
                let mut result = Ok(());
                for name in names {
                    let was_waiting = waiting.remove(name);
                    let released = session.release(name).map(drop);
                    let has_gone = was_waiting && released == Err(ReleaseError::NotHeld);
                    result = result.and(if has_gone { Ok(()) } else { released });
                }
                result
            }
            Place::There(servers) => {
                servers.release_all(&names.iter().map(|name| LockName::new(name)).collect::<Vec<_>>())
            }
        }
    }

    /// What this session holds on the name, by what it has been told: asks no server, and never blocks. On a server
    /// a place that [`enqueue`](Self::enqueue) took counts as waited for until [`wait`](Self::wait) has told that
    /// it was granted.
    ///
    /// # Errors
    /// `Lost` if the session has ended, or, on several servers, that on the server the name belongs to.
    pub fn held(&self, name: &[u8]) -> Result<Option<Held>, InspectError> {
        match &self.0 {
            Place::Here(session) if session.is_alive() => Ok(session.inspect(name).held),
            Place::Here(_) => Err(closed()),
            Place::There(servers) => servers.held(name),
        }
    }

    /// The lock as it stands now.
    ///
    /// # Errors
    /// [`InspectError`]
    pub fn inspect(&self, name: &[u8]) -> Result<Inspection, InspectError> {
        match &self.0 {
            Place::Here(session) if session.is_alive() => Ok(session.inspect(name)),
            Place::Here(_) => Err(closed()),
            Place::There(servers) => servers.inspect(name),
        }
    }

    /// A page of the locks that anybody holds or waits for: those whose names begin with `prefix`, in the order
    /// of their bytes, from behind `after`. As many as `limit` says, 1000 at most, and 100 if it is 0; fewer if
    /// they have many holders and waiters. While there are [`more`](LockPage::more), ask again with the last
    /// [name](crate::wire::message::ListedLock::name) as `after`. No snapshot: but a lock that stays
    /// throughout is on exactly one page.
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
    /// [`InspectError`]
    pub fn list(&self, prefix: &[u8], after: Option<&[u8]>, limit: usize) -> Result<LockPage, InspectError> {
        let (prefix, after) = (LockName::new(prefix), after.map(LockName::new));
        let limit = if limit == 0 { ListRequest::LIMIT } else { limit.min(ListRequest::LIMIT_MAX) };
        match &self.0 {
            Place::Here(session) => {
                let page = session.page(&PageQuery { space: Space::Main, prefix, after, limit });
                // Of a broker that has failed there is nothing to be seen.
                if session.is_alive() { Ok(page.into()) } else { Err(closed()) }
            }
            Place::There(servers) => servers.list(&ListRequest { prefix, limit, after }),
        }
    }

    /// Ends every call of this session that is in progress, in whichever thread, without waiting for anything:
    /// waits for locks, [`inspect`](Self::inspect) and [`list`](Self::list) with `Cancelled`. A grant that came
    /// first stands. A release, or a conversion to shared, cannot be taken back: if the server does not
    /// confirm it within a second, that ends the session, and the call returns `Lost`.
    pub fn cancel(&self) {
        match &self.0 {
            Place::Here(session) => session.cancel(),
            Place::There(servers) => servers.cancel(),
        }
    }

    /// Whether the session stands, and with it its locks, as far as can be known without waiting. On several
    /// servers: whether every server is there where it holds a lock or waits for one, and at least one is.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match &self.0 {
            Place::Here(session) => session.is_alive(),
            Place::There(servers) => servers.is_alive(),
        }
    }

    /// A descriptor for `poll(2)`: readable while no call of this session is in progress, the session may
    /// be lost, and [`is_alive`](Self::is_alive) tells. Where this host itself drops all that it sends, only
    /// `is_alive` tells; and before Linux 6.15 the descriptor may become readable only after the server has given
    /// the locks to somebody else. So also call `is_alive` about once a second, and before each step that needs a
    /// lock. `None` for a session in this process.
    #[must_use]
    pub fn lost_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Place::Here(_) => None,
            Place::There(servers) => Some(servers.as_fd()),
        }
    }

    /// Ends the session in an orderly way: frees its locks as if they had been released. Calls that are in progress
    /// in other threads end with `Lost`, and so do all later ones. Waits for nothing: a server that takes no bytes
    /// just now learns of it as of an [abandoned](Self::abandon) session.
    pub fn close(&self) {
        match &self.0 {
            Place::Here(session) => session.close(),
            Place::There(servers) => servers.close(),
        }
    }

    /// The same, but as if the process had ended: the next exclusive holder of each lock that this session held
    /// exclusively is told that its work may be half done ([`Grant::orphaned`]). For a program that could not
    /// finish what it did under a lock.
    pub fn abandon(&self) {
        match &self.0 {
            Place::Here(session) => session.abandon(),
            Place::There(servers) => servers.abandon(),
        }
    }
}

fn closed() -> InspectError {
    InspectError::Lost("it was closed".to_owned())
}
