//! How a session acquires, converts, awaits and releases locks.

use std::ffi::c_char;

use super::arguments::{limit, names, wants, write};
use super::modes::mode;
use super::session_call::{guard_named, guard_session, guard_token};
use super::session_registry::lock_session;
use super::status::{Failure, lock_status};
use crate::broker::{AcquireError, Attempt};
use crate::session::Session;

/// Acquires a lock, waiting for up to timeout_ms. Waiters are served first come, first served.
///
/// @param session     The session.
/// @param name        The lock's name: any bytes except zero, 1024 of them at most; it may be
///                    empty.
/// @param mode        LOCK_EXCLUSIVE, LOCK_SHARED, or lock_at_most(n): n holders at most.
/// @param timeout_ms  In milliseconds; 0: do not wait; negative: without limit.
/// @param token       Receives the fencing token on LOCK_OK: a number higher than that of every
///                    earlier grant of this name, below 2^53. If every holder is exclusive, what
///                    the lock protects can remember the highest one for each name, and refuse a
///                    lower one. Holders at the same time have different ones, so what a shared or
///                    limited lock protects must not refuse the lower one. Tokens of different
///                    names cannot be compared. May be NULL.
///
/// @return LOCK_OK: the session holds the lock. On a server: it was granted on a connection that
///         was alive when the answer was read;
///         LOCK_TIMEOUT, LOCK_ALREADY_HELD, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID,
///         LOCK_REFUSED, LOCK_LOST, LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL;
///         LOCK_PENDING: the session already has a place in this queue, in the same mode, where
///         lock_wait waits. If it has one in another mode, LOCK_INVALID;
///         LOCK_INTERRUPTED: on a server only. A signal handler ran in this thread. The session
///         keeps its place in the queue, for the rest of timeout_ms. The same call again, in the
///         same mode, or lock_wait, goes on waiting; lock_release gives the place up.
///
/// Any thread; blocks, for up to a second longer than timeout_ms if the server does not answer.
/// lock_cancel and lock_end end it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_acquire(
    session: *mut lock_session,
    name: *const c_char,
    mode: u32,
    timeout_ms: i64,
    token: *mut u64,
) -> lock_status {
    let body = |session: &Session, name: &[u8]| {
        let mode = self::mode(mode)?;
        let acquired = session.acquire(name, mode, limit(timeout_ms));
        Ok(acquired.map_err(|error| Failure::of_request(error, &[mode]))?.token)
    };
    // SAFETY: the caller passes a session that is not being closed, a string, and a number's
    // address, or NULLs.
    unsafe { guard_token(session, name, token, body) }
}

/// Acquires several locks at once or none of them, waiting for up to timeout_ms until all are free
/// at the same time. Holds none of them while it waits, so such calls never deadlock among
/// themselves.
///
/// @param session     The session.
/// @param names       The names, all different, each as for lock_acquire, and with at most 131072
///                    bytes together. On several servers all must belong to the same one.
/// @param modes       As many modes; NULL: all exclusive.
/// @param n           The number of names: from 1 to 1024.
/// @param timeout_ms  As for lock_acquire.
/// @param token       Receives the fencing token, one for all of them: higher than that of every
///                    earlier grant of each of them. May be NULL.
///
/// @return As lock_acquire. LOCK_ALREADY_HELD if the session holds any of them. LOCK_PENDING only
///         if it already has one place for all of them, in the same modes; LOCK_INVALID if it waits
///         for any of them otherwise. After LOCK_INTERRUPTED there is one place for all of them:
///         call lock_wait or lock_release with any of the names.
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
        // SAFETY: the caller passes `n` strings or NULL, and `n` numbers or NULL.
        let wants = unsafe { wants(names, modes, n) }?;
        let acquired = session.acquire_all(&wants, limit(timeout_ms));
        let modes = || wants.iter().map(|(_, mode)| *mode).collect::<Vec<_>>();
        let grant = acquired.map_err(|error| Failure::of_request(error, &modes()))?;
        // SAFETY: the caller passes a number's address or NULL.
        unsafe { write(token, grant.token) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Changes the mode of a lock that the session holds, without releasing it, from any mode to any
/// other. To one that allows more holders, as from LOCK_EXCLUSIVE to LOCK_SHARED or from
/// lock_at_most(2) to lock_at_most(4), it does not wait for other sessions. To one that allows
/// fewer, it waits until there are no more holders than that, ahead of everybody who waits for the
/// lock. If two sessions that hold the lock both want it exclusively, the second one's call is a
/// deadlock.
///
/// @param session     The session.
/// @param name        The name.
/// @param mode        The new mode.
/// @param timeout_ms  As for lock_acquire.
///
/// @return LOCK_OK: the lock is held in this mode (or was already). If the mode allows fewer
///         holders than before, the lock has a new token, which lock_token returns;
///         LOCK_NOT_HELD: the session does not hold it;
///         LOCK_PENDING: another thread waits to change it to this mode, or lock_enqueue_convert has
///         taken a place for that. If it is to be changed to yet another mode, LOCK_INVALID;
///         LOCK_TIMEOUT, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED: it is held as
///         before;
///         LOCK_LOST, LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL;
///         LOCK_INTERRUPTED: on a server only. The lock is held as before, and has the new mode
///         once enough of the other holders are gone, unless that takes longer than timeout_ms. The
///         same call again, or lock_wait, returns the outcome; lock_cancel ends the attempt.
///
/// To a mode that allows more holders, on a server: the conversion cannot be taken back, since
/// others may have come in. If the server does not confirm it in time, it is unknown what the
/// session holds, so the session ends: LOCK_LOST. In time means: within timeout_ms and a second,
/// within the server's dead-peer timeout, and within a second of lock_cancel.
///
/// Any thread; blocks, as lock_acquire.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_convert(
    session: *mut lock_session,
    name: *const c_char,
    mode: u32,
    timeout_ms: i64,
) -> lock_status {
    let body = |session: &Session, name: &[u8]| {
        session.convert(name, self::mode(mode)?, limit(timeout_ms))?;
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, and a string, or NULLs.
    unsafe { guard_named(session, name, body) }
}

/// Takes a place in a lock's queue without waiting there: the first half of lock_acquire, for
/// callers that must do something else now and then while they wait. lock_wait is the second half.
///
/// @param session  The session.
/// @param name     The name.
/// @param mode     As for lock_acquire.
///
/// @return LOCK_OK: the lock was free, and the session holds it; lock_token returns its token;
///         LOCK_PENDING: the session has a place in the queue (or had one already, in the same
///         mode). When its turn comes, the session holds the lock, even if lock_wait is never
///         called; lock_release gives up the place or the lock. On a server, lock_inspect and
///         lock_convert treat the session as waiting until lock_wait has returned the grant;
///         LOCK_INVALID: also if the session already has a place in another mode, which it keeps;
///         LOCK_TIMEOUT: the server has not answered within its dead-peer timeout; the session has
///         no place;
///         LOCK_ALREADY_HELD, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_REFUSED, LOCK_LOST, LOCK_DOUBT, LOCK_FORKED,
///         LOCK_INTERNAL.
///
/// Any thread; waits only for the server, at most for its dead-peer timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_enqueue(
    session: *mut lock_session,
    name: *const c_char,
    mode: u32,
) -> lock_status {
    let body = |session: &Session, name: &[u8]| {
        let mode = self::mode(mode)?;
        let attempt = session.enqueue(name, mode);
        Ok(status_of(attempt.map_err(|error| Failure::of_request(error, &[mode]))?))
    };
    // SAFETY: the caller passes a session that is not being closed, and a string, or NULLs.
    unsafe { guard_named(session, name, body) }
}

/// Asks for another mode of a lock that the session holds, without waiting for it: the first half
/// of lock_convert, as lock_enqueue is the first half of lock_acquire. lock_wait is the second
/// half. A conversion to a mode that allows more holders never has to wait.
///
/// To give up the place but keep the lock, call lock_cancel, which also ends every other wait of
/// the session, and then lock_wait: LOCK_CANCELLED means that the lock is held as before, LOCK_OK
/// that it had been converted first. lock_release gives up the place and the lock.
///
/// @param session  The session.
/// @param name     The name.
/// @param mode     The new mode.
///
/// @return LOCK_OK: the lock is held in that mode (or was already). If the mode allows fewer
///         holders than before, the lock has a new token, which lock_token returns;
///         LOCK_PENDING: the session has a place ahead of everybody who waits for the lock (or had
///         one already, for the same mode), and holds the lock as it did. When enough of the other
///         holders are gone, the lock has the new mode, even if lock_wait is never called; on a
///         server, lock_inspect shows it as held as before and as waited for until lock_wait has
///         returned the grant;
///         LOCK_NOT_HELD: the session does not hold it;
///         LOCK_TIMEOUT: the server has not answered within its dead-peer timeout. The session has
///         no place, and the lock is held as before;
///         LOCK_INVALID: also if the session already has a place for another mode, which it keeps;
///         LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED: it is held as before;
///         LOCK_LOST: also as for lock_convert to a mode that allows more holders;
///         LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; waits only for the server, at most for its dead-peer timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_enqueue_convert(
    session: *mut lock_session,
    name: *const c_char,
    mode: u32,
) -> lock_status {
    let body =
        |session: &Session, name: &[u8]| Ok(status_of(session.enqueue_convert(name, self::mode(mode)?)?));
    // SAFETY: the caller passes a session that is not being closed, and a string, or NULLs.
    unsafe { guard_named(session, name, body) }
}

fn status_of(attempt: Attempt) -> lock_status {
    match attempt {
        Attempt::Granted(_) => lock_status::LOCK_OK,
        Attempt::Queued => lock_status::LOCK_PENDING,
    }
}

/// Waits for up to timeout_ms at a place that lock_enqueue or lock_enqueue_convert has taken, or
/// that an interrupted call has kept.
///
/// @param session     The session.
/// @param name        The name.
/// @param timeout_ms  As for lock_acquire; 0: only look whether the lock has been granted.
/// @param token       Receives the fencing token on LOCK_OK. May be NULL.
///
/// @return LOCK_OK: the session holds the lock in the mode it asked for;
///         LOCK_TIMEOUT: not granted yet. The session keeps its place, however often this happens. The
///         exception is the place of an interrupted call whose own timeout_ms is over: it is gone,
///         and the next lock_wait returns LOCK_NOT_HELD;
///         LOCK_INTERRUPTED: on a server only. A signal handler ran in this thread; the session
///         keeps its place;
///         LOCK_NOT_HELD: there is no such place; perhaps its outcome has been returned already.
///         This says nothing about the lock itself, which the session may hold: lock_token tells;
///         LOCK_CANCELLED: lock_cancel or lock_release has given up the place. If lock_cancel has
///         given up a place that was to convert a lock, the lock is held as before;
///         LOCK_DEADLOCK: on a server only, if the call was interrupted before the server had
///         answered it;
///         LOCK_INVALID, LOCK_REFUSED, LOCK_LOST, LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_wait(
    session: *mut lock_session,
    name: *const c_char,
    timeout_ms: i64,
    token: *mut u64,
) -> lock_status {
    let body = |session: &Session, name: &[u8]| match session.wait(name, limit(timeout_ms)) {
        Ok(grant) => Ok(grant.token),
        // The usual text would say that the session does not hold the lock, which it may.
        Err(AcquireError::NotHeld) => Err(Failure::new(
            lock_status::LOCK_NOT_HELD,
            "the session has no place in this lock's queue of which the outcome is still to be told",
        )),
        Err(error) => Err(error.into()),
    };
    // SAFETY: the caller passes a session that is not being closed, a string, and a number's
    // address, or NULLs.
    unsafe { guard_token(session, name, token, body) }
}

/// Releases a lock, and the next waiter gets it at the same moment; or gives up the session's place
/// in the lock's queue (for all the names, if lock_acquire_all took it).
///
/// @param session  The session.
/// @param name     The name.
///
/// @return LOCK_OK: done. On a server: it has confirmed it;
///         LOCK_NOT_HELD: the session neither holds the lock nor waits for it;
///         LOCK_LOST: the session has ended. On a server also: the server has not confirmed the
///         release within its dead-peer timeout, or not within a second of lock_cancel. Then it is
///         unknown what the session holds, so the session ends, and with it all its locks;
///         LOCK_DOUBT: the session is in doubt (lock_connect). The name is given up all the same;
///         LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; waits only for the server, at most for its dead-peer timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_release(session: *mut lock_session, name: *const c_char) -> lock_status {
    let body = |session: &Session, name: &[u8]| {
        session.release(name)?;
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, and a string, or NULLs.
    unsafe { guard_named(session, name, body) }
}

/// Releases several locks, or gives up the places in their queues, however they were acquired.
///
/// @param session  The session.
/// @param names    The names.
/// @param n        The number of names; 0 does nothing.
///
/// @return As lock_release. LOCK_NOT_HELD if that is so for any of them; the others are released
///         all the same.
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
