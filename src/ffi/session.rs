//! `lock_session`: one owner of locks, in this process or on servers, and everything it does.

use std::ffi::{c_char, c_int};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::arguments::{handle, label, limit, mode, modes, name, names, own, text, write};
use super::broker::{broker_of, lock_broker};
use super::guard::{Returned, Uncancellable, guard, guard_and};
use super::opened::Opened;
use super::status::{Failure, lock_status};
use crate::broker::{AcquireError, Attempt, Mode, NAMES_AT_ONCE_MAX};
use crate::client::ConnectOptions;
use crate::os::fork::OfThisProcess;
use crate::session::Session;

/// One owner of locks, in this process or on a server. Made by lock_open or lock_connect, freed by
/// lock_close.
pub struct lock_session {
    session: OfThisProcess<Session>,
    pub(super) opened: Opened,
}

impl lock_session {
    /// As lock_abandon; of a parent's session nothing is changed.
    pub(super) fn abandon(&self) {
        if let Some(session) = self.session.get() {
            session.abandon();
        }
    }
}

fn boxed(session: Session) -> *mut lock_session {
    let opened = Opened::here();
    let handle = Box::into_raw(Box::new(lock_session { session: OfThisProcess::new(session), opened }));
    opened.enter(handle);
    handle
}

/// Runs the body of a call of a session. A panic in it leaves the session in doubt, so that ends it.
///
/// # Safety
/// `session` is NULL, or was made by this library and not freed, and is not freed during the call.
pub(super) unsafe fn guard_session<R: Returned>(
    session: *const lock_session,
    body: impl FnOnce(&Session) -> Result<R, Failure>,
) -> R {
    let usable = || {
        // SAFETY: the caller's promise.
        own(&unsafe { handle(session, "session") }?.session)
    };
    // Calls of sessions in this process, which are to be fast, come to no cancellation point.
    let is_remote = usable().is_ok_and(Session::is_remote);
    let _until_return = is_remote.then(Uncancellable::begin);
    if !is_remote {
        Uncancellable::prepare_thread();
    }
    guard_and(|| body(usable()?), || usable().map_or((), Session::abandon))
}

/// Opens a session in this process: one owner of locks in its broker.
///
/// Threads that contend with one another open a session each. A session may be used by several threads at
/// once, and a call that waits holds up no other; but to the broker they are one owner.
///
/// @param broker  The broker; NULL: the default one.
/// @param owner   What the session is called in listings and deadlock reports, in UTF-8. What is longer than 256
///                bytes is cut off. May be NULL.
///
/// @return  The session, to be freed with lock_close; NULL if the broker is that of a parent process
///          (LOCK_FORKED), which lock_last_error says.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_open(broker: *mut lock_broker, owner: *const c_char) -> *mut lock_session {
    guard(|| {
        // SAFETY: the caller passes a broker or NULL.
        let broker = unsafe { broker_of(broker) }?;
        // SAFETY: the caller passes a string or NULL.
        let owner = unsafe { label(owner) };
        Ok(boxed(Session::open(&broker, owner.as_deref())))
    })
}

/// Opens a session on a server. Its calls are the same as those of a session in this process.
///
/// The locks are held for as long as the connection stands. If it breaks, or the server cannot be reached
/// any more, every call says LOCK_LOST: before the server gives the locks to somebody else. Nothing ever
/// reconnects by itself.
///
/// Several servers, separated by commas, share the names: each name belongs to one of them, the same one for
/// every client that is given the same addresses (without a ? and what follows it), in any order. The session
/// begins if at least one server answers. A server that does not answer, or is gone later, takes its names with
/// it: every call with one of them says LOCK_LOST, as do lock_list and a lock_release_all with such a name, and
/// no other server is asked for it. Other names are not affected, until lock_check says LOCK_LOST: that is when a
/// server is gone where the session holds a lock or waits for one, or when all of them are gone.
///
/// Over TLS the server must show a certificate for HOST, signed by somebody this program trusts; a server that
/// asks for a secret is shown it. What is needed for that stands in files, which are named behind a ?, separated
/// by &, as in tls://example.org:20934?ca=/etc/lockd/ca.pem (certificates and keys in PEM; without any escapes):
///
/// - ca=FILE: whom to trust to sign the server's certificate; without it whom the system trusts, which is the file
///   in SSL_CERT_FILE in the environment, or a well-known one;
/// - cert=FILE and key=FILE: the program's own certificate, if the server asks for one, and its key, which may
///   stand in the same file;
/// - auth-token-file=FILE, also behind tcp://HOST:PORT: the server's secret; without it the one in the file in
///   LOCKD_AUTH_TOKEN_FILE in the environment, if that is set. The secret itself never stands in an address,
///   which others may get to see.
///
/// @param url         tcp://HOST:PORT, tls://HOST:PORT or unix:/PATH, or what lock_server_address says and a server
///                    logs: message://HOST:PORT, message+tls://HOST:PORT or message+unix:/PATH; or several,
///                    separated by commas. Without :PORT the port is 20934.
/// @param owner       As for lock_open.
/// @param timeout_ms  How long it may take in all, in milliseconds; negative: without limit. Of several servers
///                    each has an equal share of the time that is left. The resolver's time does not count.
///
/// @return  The session, to be freed with lock_close; NULL if there is none, and lock_last_error says why, of
///          several servers for each: the address makes no sense; the server cannot be reached, or does not
///          answer in time; it is no lockd or not the right one, speaks TLS where this program does not or the
///          other way round, or refuses this client. There is no status that tells these apart: the text does.
///
/// Any thread; blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_connect(
    url: *const c_char,
    owner: *const c_char,
    timeout_ms: i64,
) -> *mut lock_session {
    guard(|| {
        // SAFETY: the caller passes a string or NULL.
        let url = unsafe { text(url, "url") }?;
        // SAFETY: the caller passes a string or NULL.
        let owner = unsafe { label(owner) };
        let timeout = limit(timeout_ms).unwrap_or(Duration::MAX);
        let options = ConnectOptions {
            owner: owner.as_deref(),
            timeout,
            interruptible: true,
            ..ConnectOptions::default()
        };
        Ok(boxed(Session::connect_with(url, &options)?))
    })
}

/// Acquires a lock, waiting its turn for up to timeout_ms. First come, first served.
///
/// @param session     The session.
/// @param name        The lock's name: any bytes but zero, 1024 of them at most; the empty name is one too.
/// @param mode        LOCK_EXCLUSIVE or LOCK_SHARED.
/// @param timeout_ms  In milliseconds; 0: do not wait; negative: without limit.
/// @param token       Receives the fencing token on LOCK_OK: a number higher than that of every earlier
///                    grant of any name, below 2^53. May be NULL.
///
/// @return LOCK_OK: the session holds the lock. On a server: granted on a connection that was alive when the
///         answer was read;
///         LOCK_TIMEOUT, LOCK_ALREADY_HELD, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED,
///         LOCK_LOST, LOCK_FORKED, LOCK_INTERNAL;
///         LOCK_PENDING: the session has a place in this queue already; lock_wait waits there;
///         LOCK_INTERRUPTED: on a server only. A signal handler ran in this thread; the place in the queue is
///         kept, and timeout_ms goes on. The same call again, or lock_wait, goes on waiting; lock_release
///         gives the place up.
///
/// Any thread; blocks, for up to a second longer than timeout_ms if the server does not answer. lock_cancel
/// and lock_end end it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_acquire(
    session: *mut lock_session,
    name: *const c_char,
    mode: u32,
    timeout_ms: i64,
    token: *mut u64,
) -> lock_status {
    let body = |session: &Session| {
        // SAFETY: the caller passes a string or NULL.
        let name = unsafe { self::name(name) }?;
        let grant = session.acquire(name, self::mode(mode)?, limit(timeout_ms))?;
        // SAFETY: the caller passes a number's address or NULL.
        unsafe { write(token, grant.token) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Acquires several locks at once or none of them, waiting for up to timeout_ms until all can be had. Holds
/// nothing while it waits, so such calls never deadlock among themselves.
///
/// @param session     The session.
/// @param names       The names, all different, as for lock_acquire, and with 131072 bytes together at most. On
///                    several servers all must belong to the same one.
/// @param modes       As many modes; NULL: all exclusive.
/// @param n           How many: from 1 to 1024.
/// @param timeout_ms  As for lock_acquire.
/// @param token       Receives the fencing token, one for all of them. May be NULL.
///
/// @return As lock_acquire. LOCK_ALREADY_HELD or LOCK_PENDING if that is so for any of them. The place that
///         LOCK_INTERRUPTED keeps is one for all of them: lock_wait or lock_release with any of the names.
///
/// Any thread; blocks, as lock_acquire.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_acquire_all(
    session: *mut lock_session,
    names: *const *const c_char,
    modes: *const u32,
    n: usize,
    timeout_ms: i64,
    token: *mut u64,
) -> lock_status {
    let body = |session: &Session| {
        if n > NAMES_AT_ONCE_MAX {
            return Err(Failure::invalid(format_args!("more than {NAMES_AT_ONCE_MAX} names at once")));
        }
        // SAFETY: the caller passes `n` strings or NULL.
        let names = unsafe { self::names(names, n) }?;
        // SAFETY: the caller passes `n` numbers or NULL.
        let modes = unsafe { self::modes(modes, n) }?;
        let wants: Vec<(&[u8], Mode)> = names.into_iter().zip(modes).collect();
        let grant = session.acquire_all(&wants, limit(timeout_ms))?;
        // SAFETY: the caller passes a number's address or NULL.
        unsafe { write(token, grant.token) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Changes the mode of a lock that the session holds, without letting it go. To LOCK_SHARED it waits for
/// nobody; to LOCK_EXCLUSIVE it waits, ahead of everybody who waits for the lock, until the other holders
/// have gone. When two sessions do that with the same lock, the second one's call is a deadlock.
///
/// @param session     The session.
/// @param name        The name.
/// @param mode        The new mode.
/// @param timeout_ms  As for lock_acquire.
///
/// @return LOCK_OK, also if it was held so before. A lock made exclusive has a new token; lock_token tells it;
///         LOCK_NOT_HELD: the session does not hold it;
///         LOCK_PENDING: another thread is just making it exclusive, or lock_enqueue_convert has taken a place
///         for that;
///         LOCK_TIMEOUT, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED: it is held as before;
///         LOCK_LOST, LOCK_FORKED, LOCK_INTERNAL;
///         LOCK_INTERRUPTED: on a server only. It is held as before, and is made exclusive when it can be,
///         unless that takes longer than timeout_ms: the same call again, or lock_wait, hears of it;
///         lock_cancel ends the attempt.
///
/// To LOCK_SHARED on a server: what gives up exclusiveness cannot be taken back. If the server has not
/// confirmed it within timeout_ms and a second or within its dead-peer timeout, whichever is over first, or not
/// within a second of lock_cancel, it is unknown what the session holds. So that ends the session: LOCK_LOST.
///
/// Any thread; blocks, as lock_acquire.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_convert(
    session: *mut lock_session,
    name: *const c_char,
    mode: u32,
    timeout_ms: i64,
) -> lock_status {
    let body = |session: &Session| {
        // SAFETY: the caller passes a string or NULL.
        let name = unsafe { self::name(name) }?;
        session.convert(name, self::mode(mode)?, limit(timeout_ms))?;
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Takes a place in a lock's queue without waiting there: the first half of lock_acquire, for callers that
/// must look up from waiting now and then. lock_wait is the second half.
///
/// @param session  The session.
/// @param name     The name.
/// @param mode     LOCK_EXCLUSIVE or LOCK_SHARED.
///
/// @return LOCK_OK: it could be had at once and is held; lock_token tells its token;
///         LOCK_PENDING: the session has a place in the queue, now or already before. Should lock_wait never
///         be called, the session holds the lock all the same once it is its turn; lock_release gives
///         up the one or the other. On a server it counts as waited for, in lock_inspect and to
///         lock_convert, until lock_wait has told that it is held;
///         LOCK_TIMEOUT: on a server that has not answered within its dead-peer timeout; there is no place;
///         LOCK_ALREADY_HELD, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED, LOCK_LOST,
///         LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; waits for nobody but the server, and for that no longer than its dead-peer timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_enqueue(
    session: *mut lock_session,
    name: *const c_char,
    mode: u32,
) -> lock_status {
    let body = |session: &Session| {
        // SAFETY: the caller passes a string or NULL.
        let name = unsafe { self::name(name) }?;
        Ok(place(session.enqueue(name, self::mode(mode)?)?))
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Asks for another mode of a lock that the session holds, without waiting for it: the first half of
/// lock_convert, as lock_enqueue is that of lock_acquire. lock_wait is the second half. To LOCK_SHARED there
/// is nothing to wait for.
///
/// To give it up and keep the lock as it is held, call lock_cancel, which ends every other wait of the
/// session, too, and then lock_wait: LOCK_CANCELLED says that it is held as before, and LOCK_OK that it had
/// become exclusive first. lock_release gives up the place and the lock with it.
///
/// @param session  The session.
/// @param name     The name.
/// @param mode     The new mode.
///
/// @return LOCK_OK: it is held in that mode, at once or already before. If it was made exclusive it has a new
///         token; lock_token tells it;
///         LOCK_PENDING: the session has a place ahead of everybody who waits for the lock, now or already
///         before, and holds the lock as it did. Should lock_wait never be called, the lock becomes exclusive
///         all the same once the other holders have gone; on a server lock_inspect shows it as held before
///         and as waited for until lock_wait has told;
///         LOCK_NOT_HELD: the session does not hold it;
///         LOCK_TIMEOUT: on a server that has not answered within its dead-peer timeout. There is no place, and
///         it is held as before;
///         LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED: it is held as before;
///         LOCK_LOST: also as of lock_convert to LOCK_SHARED;
///         LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; waits for nobody but the server, and for that no longer than its dead-peer timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_enqueue_convert(
    session: *mut lock_session,
    name: *const c_char,
    mode: u32,
) -> lock_status {
    let body = |session: &Session| {
        // SAFETY: the caller passes a string or NULL.
        let name = unsafe { self::name(name) }?;
        Ok(place(session.enqueue_convert(name, self::mode(mode)?)?))
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// What a call says that takes a place unless there is no need to.
fn place(attempt: Attempt) -> lock_status {
    match attempt {
        Attempt::Granted(_) => lock_status::LOCK_OK,
        Attempt::Queued => lock_status::LOCK_PENDING,
    }
}

/// Waits for up to timeout_ms at a place that lock_enqueue or lock_enqueue_convert has taken, or that a call
/// that was interrupted has kept.
///
/// @param session     The session.
/// @param name        The name.
/// @param timeout_ms  As for lock_acquire; 0: only look whether the lock has been granted.
/// @param token       Receives the fencing token on LOCK_OK. May be NULL.
///
/// @return LOCK_OK: the session holds the lock as it asked for it;
///         LOCK_TIMEOUT: not yet. The place is kept, as often as that happens (unless it is that of an
///         interrupted call whose own timeout_ms is over: then it is gone, and the next lock_wait says
///         LOCK_NOT_HELD);
///         LOCK_INTERRUPTED: on a server only. A signal handler ran in this thread; the place is kept;
///         LOCK_NOT_HELD: there is no such place, perhaps since its outcome has been told already. That says
///         nothing of the lock itself, which the session may hold: lock_token tells;
///         LOCK_CANCELLED: lock_cancel or lock_release has given up the place. One that lock_cancel has given up
///         and that was to make a lock exclusive leaves it held as before;
///         LOCK_DEADLOCK: on a server only, of a call that was interrupted before the server had answered it;
///         LOCK_INVALID, LOCK_REFUSED, LOCK_LOST, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_wait(
    session: *mut lock_session,
    name: *const c_char,
    timeout_ms: i64,
    token: *mut u64,
) -> lock_status {
    let body = |session: &Session| {
        // SAFETY: the caller passes a string or NULL.
        let name = unsafe { self::name(name) }?;
        let grant = session.wait(name, limit(timeout_ms)).map_err(|error| match error {
            // As of the lock it would be wrong: the session may hold it.
            AcquireError::NotHeld => Failure::new(
                lock_status::LOCK_NOT_HELD,
                "the session has no place in this lock's queue of which the outcome is still to be told",
            ),
            error => error.into(),
        })?;
        // SAFETY: the caller passes a number's address or NULL.
        unsafe { write(token, grant.token) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Frees a lock, which goes to the next waiter in the same moment, or gives up the session's place in its
/// queue (of all the names, if it is that of lock_acquire_all).
///
/// @param session  The session.
/// @param name     The name.
///
/// @return LOCK_OK: on a server: it has confirmed it;
///         LOCK_NOT_HELD: the session neither holds it nor waits for it;
///         LOCK_LOST: the session has ended. On a server also: it has not confirmed the release within its
///         dead-peer timeout, or not within a second of lock_cancel. What the session holds is unknown then,
///         so that ends it, and with it all its locks;
///         LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; waits for nobody but the server, and for that no longer than its dead-peer timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_release(session: *mut lock_session, name: *const c_char) -> lock_status {
    let body = |session: &Session| {
        // SAFETY: the caller passes a string or NULL.
        let name = unsafe { self::name(name) }?;
        session.release(name)?;
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Frees several locks, or gives up the places in their queues, however they were acquired.
///
/// @param session  The session.
/// @param names    The names.
/// @param n        How many; 0 does nothing.
///
/// @return As lock_release. LOCK_NOT_HELD if that is so for any of them; the others are freed all the same.
///
/// Any thread; waits as lock_release does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_release_all(
    session: *mut lock_session,
    names: *const *const c_char,
    n: usize,
) -> lock_status {
    let body = |session: &Session| {
        // SAFETY: the caller passes `n` strings or NULL.
        let names = unsafe { self::names(names, n) }?;
        session.release_all(&names)?;
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Whether the session stands, and with it its locks: for a loop that must stop when they are gone.
///
/// @param session  The session.
///
/// @return LOCK_OK: it stands, as far as can be known without asking the server;
///         LOCK_LOST: it has ended, and with it all its locks, on a server also because another part of the program
///         has closed the connection's descriptor. With several servers: one is gone where the session holds a lock
///         or waits for one, or all are gone. A server where it does neither makes no difference. What it holds on
///         others stays held there until it is released or the session closed;
///         LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_check(session: *mut lock_session) -> lock_status {
    let body = |session: &Session| match session.is_alive() {
        true => Ok(lock_status::LOCK_OK),
        false => Err(Failure::plain(lock_status::LOCK_LOST)),
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// A descriptor for poll(2) that becomes readable when a session on a server is lost. It does so too when
/// there is something else to read for the session, such as the grant of a lock that lock_enqueue has
/// asked for: so call lock_check, which reads what there is and says LOCK_LOST or LOCK_OK.
///
/// A loop that has places in queues calls lock_wait with a limit of 0 for each of them every time before it
/// polls: any call of the session may have read the grant along with its own answer, and then there is
/// nothing left to be readable.
///
/// If the network is cut, poll alone may tell too late: before Linux 6.15 the descriptor may become readable only
/// after the server has given the locks to somebody else, and on any Linux it may not become readable at all while
/// this machine drops what it sends to the server. lock_check tells in time. So give poll a timeout of about a
/// second, call lock_check each time it returns, and call it before each step that needs the lock.
///
/// It stays readable after a loss: once lock_check has said LOCK_LOST, stop polling it, or the loop spins.
///
/// Means something while no call of the session is in progress. Do not read from it, nor close it: it is the
/// session's. With several servers it is readable when that is so for one of them, so also when one is gone
/// where nothing is held: then lock_check says LOCK_OK, and the descriptor tells of that server no more.
///
/// @param session  The session.
///
/// @return The descriptor, the same for as long as the session lives; -1 if there is none: for a session in
///         this process, in a forked child, or if session is NULL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_lost_fd(session: *mut lock_session) -> c_int {
    let body = |session: &Session| Ok(session.lost_fd().map_or(-1, |fd| fd.as_raw_fd()));
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Ends every call of a session that is in progress in another thread. Waits for locks, lock_enqueue,
/// lock_inspect and lock_list return LOCK_CANCELLED and leave the session as it was: what was to be made
/// exclusive stays held as it is. Places that nobody waits at are given up, of which the next lock_wait says
/// LOCK_CANCELLED, unless another call with the same name has succeeded in between. A grant that came first
/// stands, and its call returns LOCK_OK; on a server that is one that has arrived.
///
/// Giving something up cannot be taken back. So lock_release, lock_release_all and lock_convert to LOCK_SHARED
/// go on for a second, in which a server that is well confirms them. If it does not, that ends the session: they
/// return LOCK_LOST.
///
/// @param session  The session.
///
/// @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread, but not a signal handler; waits for nothing, also not for a server that takes no bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_cancel(session: *mut lock_session) -> lock_status {
    let body = |session: &Session| {
        session.cancel();
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}
