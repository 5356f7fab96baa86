//! The statuses and modes of the C ABI, their texts, and the one place where the crate's errors are
//! mapped to statuses. Also keeps each thread's last error.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::io;

use crate::broker::{AcquireError, Mode, ReleaseError};
use crate::client::{ConnectError, ConnectErrorKind, InspectError};

/// How a lock is held. The functions take these as `uint32_t`, and also what lock_at_most makes: a
/// lock that several sessions hold, but only so many. Modes are no flags and cannot be combined.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum lock_mode {
    /// One holder alone.
    LOCK_EXCLUSIVE = 0,
    /// Any number of holders, none of them exclusive. So the plain number 1 is no limit; a limit of
    /// 1 is LOCK_EXCLUSIVE, and lock_at_most(1) returns that.
    LOCK_SHARED = 1,
}

/// The result of a call. The numbers never change, and no number ever gets another meaning.
///
/// If a call that takes a lock or changes its mode returns any status except LOCK_OK, LOCK_PENDING,
/// LOCK_INTERRUPTED, LOCK_LOST and LOCK_DOUBT, it has changed nothing. After LOCK_DOUBT a
/// conversion that was under way may have been done, and the place of lock_wait is kept. A
/// lock_release that returns LOCK_DOUBT has given the name up. After every status except LOCK_OK and
/// LOCK_PENDING, lock_last_error has a text for this call. It says more than lock_strerror where
/// more is known: above all after LOCK_INVALID, LOCK_REFUSED, LOCK_DEADLOCK, LOCK_LOST, LOCK_IO and
/// LOCK_INTERNAL, and after LOCK_ALREADY_HELD if the lock is held in another mode.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum lock_status {
    /// Done: the lock is held or freed, or the question is answered.
    LOCK_OK = 0,
    /// The session has a place in the queue, and does not hold the lock yet, or not yet in the mode
    /// it asked for. From lock_enqueue and lock_enqueue_convert: lock_wait waits there. From a call
    /// that would have taken a place: the session already has one, in the mode that the call asks
    /// for (in another mode it is LOCK_INVALID). lock_wait waits there, unless another thread waits
    /// there in lock_acquire.
    LOCK_PENDING = 1,
    /// Not granted within the time limit. With a limit of zero: another session holds the lock or
    /// waits for it. From a call without a time limit: the server has not answered.
    LOCK_TIMEOUT = 2,
    /// The session neither holds this lock nor waits for it. From lock_wait: it has no place there.
    LOCK_NOT_HELD = 3,
    /// The session already holds this lock, perhaps in another mode than the call asks for:
    /// lock_held_mode tells the mode, and lock_convert changes it. The session is one owner: if two
    /// threads share it, only one of them may believe that it got the lock.
    LOCK_ALREADY_HELD = 4,
    /// Waiting would close a cycle of sessions that wait for each other. lock_last_error names
    /// them; if there are more than 16, it names the first 16 and says how many there are. A server
    /// may tell only the number.
    LOCK_DEADLOCK = 5,
    /// lock_cancel ended the call, or another thread that uses this session gave up its place in the
    /// queue or received its outcome. From lock_connect_and_acquire: its report function ended it.
    LOCK_CANCELLED = 6,
    /// A signal handler ran while the thread waited. The session keeps its place in the queue: the
    /// same call again, in the same mode, or lock_wait, goes on waiting there; lock_release gives it
    /// up. Only lock_connect_and_acquire keeps nothing.
    LOCK_INTERRUPTED = 7,
    /// The call is invalid: NULL where it is not allowed, an unknown mode, a name that is too long,
    /// a malformed address. Also if the session already waits for the lock, but in another mode than
    /// the call asks for, or for several locks otherwise than all of them at once: what lock_wait
    /// would return is then not what the call asks for. lock_release or lock_cancel gives that place
    /// up.
    LOCK_INVALID = 8,
    /// Refused: a limit of the broker or server is reached, the server is stopping, it is older
    /// than what is asked for (lock_at_most), or it grants nothing yet because the server before it
    /// did not stop cleanly.
    LOCK_REFUSED = 9,
    /// The session has ended, perhaps because its connection is lost, and with it all its locks.
    /// Nothing reconnects it. Close the session and open a new one. With several servers: the server
    /// that the name belongs to is lost; lock_check says whether the session has lost any lock. From
    /// lock_connect_and_acquire: there was no server.
    LOCK_LOST = 10,
    /// The handle was inherited by a forked child. It belongs to the parent alone, and nothing was
    /// done.
    LOCK_FORKED = 11,
    /// The operating system has reported an error, for example that an address to listen on is in
    /// use.
    LOCK_IO = 12,
    /// A bug in this library. If it was a call of a session, the session is lost.
    LOCK_INTERNAL = 13,
    /// Only from a session that resumes (lock_connect): it has lost its connection and is connecting
    /// again. It may still have its locks, and may have lost them. So nothing may be begun under a
    /// lock now; lock_check, or lock_wait_certain, tells whether it was resumed (LOCK_OK) or is lost
    /// (LOCK_LOST).
    LOCK_DOUBT = 14,
}

/// Why a call has failed: its status, and the text for lock_last_error.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: lock_status,
    detail: Cow<'static, CStr>,
}

impl Failure {
    pub(super) fn new(status: lock_status, detail: impl fmt::Display) -> Self {
        Self { status, detail: c_text(detail).into() }
    }

    pub(super) fn invalid(detail: impl fmt::Display) -> Self {
        Self::new(lock_status::LOCK_INVALID, detail)
    }

    /// A failure with no text beyond what its status means. Allocates nothing, since such a failure
    /// can be frequent: a caller may try again and again.
    pub(super) fn plain(status: lock_status) -> Self {
        Self { status, detail: Cow::Borrowed(text(status as c_int)) }
    }
}

/// A text for C. Zero bytes in it, which C would take for its end, are written as `\0`.
pub(super) fn c_text(text: impl fmt::Display) -> CString {
    let text = text.to_string().replace('\0', "\\0");
    // Cannot fail, since no zero byte is left.
    CString::new(text).unwrap_or_default()
}

impl Failure {
    /// Why a request for `wants` has failed. Unlike the error alone, `wants` shows whether a lock
    /// that is held already is held in another mode.
    #[cold]
    pub(super) fn of_request(error: AcquireError, wants: &[Mode]) -> Self {
        match error {
            AcquireError::AlreadyHeld(held) if !wants.contains(&held.mode) => Self {
                status: lock_status::LOCK_ALREADY_HELD,
                detail: c"the session already holds the lock in another mode, which lock_convert changes"
                    .into(),
            },
            error => error.into(),
        }
    }
}

impl From<AcquireError> for Failure {
    #[cold]
    fn from(error: AcquireError) -> Self {
        match error {
            AcquireError::TimedOut => Self::plain(lock_status::LOCK_TIMEOUT),
            AcquireError::AlreadyHeld(_) => Self::plain(lock_status::LOCK_ALREADY_HELD),
            AcquireError::AlreadyWaiting => Self::plain(lock_status::LOCK_PENDING),
            AcquireError::NotHeld => Self::plain(lock_status::LOCK_NOT_HELD),
            AcquireError::Cancelled => Self::plain(lock_status::LOCK_CANCELLED),
            AcquireError::Interrupted => Self::plain(lock_status::LOCK_INTERRUPTED),
            AcquireError::Deadlock(_) => Self::new(lock_status::LOCK_DEADLOCK, error),
            AcquireError::Invalid(_) => Self::invalid(error),
            AcquireError::Refused(_) | AcquireError::NotYet(_) | AcquireError::Stopping(_) => {
                Self::new(lock_status::LOCK_REFUSED, error)
            }
            AcquireError::Doubt(_) => Self::new(lock_status::LOCK_DOUBT, error),
            AcquireError::Lost(_) => Self::new(lock_status::LOCK_LOST, error),
        }
    }
}

impl From<ReleaseError> for Failure {
    #[cold]
    fn from(error: ReleaseError) -> Self {
        match error {
            ReleaseError::NotHeld => Self::plain(lock_status::LOCK_NOT_HELD),
            ReleaseError::Doubt(_) => Self::new(lock_status::LOCK_DOUBT, error),
            ReleaseError::Lost(_) => Self::new(lock_status::LOCK_LOST, error),
        }
    }
}

impl From<InspectError> for Failure {
    fn from(error: InspectError) -> Self {
        match error {
            InspectError::Invalid(_) => Self::invalid(error),
            InspectError::Refused(_) => Self::new(lock_status::LOCK_REFUSED, error),
            InspectError::TimedOut => Self::new(lock_status::LOCK_TIMEOUT, error),
            InspectError::Cancelled => Self::new(lock_status::LOCK_CANCELLED, error),
            InspectError::Doubt(_) => Self::new(lock_status::LOCK_DOUBT, error),
            InspectError::Lost(_) => Self::new(lock_status::LOCK_LOST, error),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        // lock_connect returns no status; its callers see only the text. In
        // lock_connect_and_acquire, an absent server is LOCK_LOST.
        let status = match error.kind() {
            ConnectErrorKind::Address => lock_status::LOCK_INVALID,
            ConnectErrorKind::Tls
            | ConnectErrorKind::WrongProtocol
            | ConnectErrorKind::Secret
            | ConnectErrorKind::Refused => lock_status::LOCK_REFUSED,
            ConnectErrorKind::UnknownHost
            | ConnectErrorKind::NotListening
            | ConnectErrorKind::Unreachable
            | ConnectErrorKind::TimedOut
            | ConnectErrorKind::Closed
            | ConnectErrorKind::Standby
            | ConnectErrorKind::Local => lock_status::LOCK_IO,
        };
        Self::new(status, error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(lock_status::LOCK_IO, error)
    }
}

pub(super) fn text(status: c_int) -> &'static CStr {
    const TEXTS: [&CStr; 15] = [
        c"done",
        c"the session has a place in the queue",
        c"not granted within the time limit",
        c"the session has no such lock, or no such place in a queue",
        c"the session already holds the lock",
        c"waiting would be a deadlock",
        c"the wait was cancelled",
        c"a signal handler ran while waiting; the place in the queue is kept",
        c"invalid argument",
        c"refused",
        c"the session and its locks are lost, or there was no server",
        c"the handle belongs to the process that this one was forked from",
        c"the operating system failed the call",
        c"a bug in lockd",
        c"the session is in doubt: it has lost its connection, and may still be resumed",
    ];
    let known = usize::try_from(status).ok().and_then(|at| TEXTS.get(at));
    known.copied().unwrap_or(c"no status of lockd")
}

thread_local! {
    static LAST_ERROR: RefCell<Cow<'static, CStr>> = const { RefCell::new(Cow::Borrowed(c"")) };
}

/// Keeps the text for lock_last_error.
pub(super) fn remember(failure: Failure) {
    // A thread that is ending may have no thread-locals any more; then the text is lost.
    let _ = LAST_ERROR.try_with(|last| last.replace(failure.detail));
}

/// The text of this thread's last failure.
pub(super) fn last_error() -> *const c_char {
    LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreachable_server_and_a_refusing_one_have_different_statuses() {
        let refused = |kind| {
            let (server, reason) = ("tcp://a".to_owned(), "no".to_owned());
            ConnectError::Refused { server, reason, kind, active: None }
        };
        let status = |error| Failure::from(error).status;
        for kind in [ConnectErrorKind::TimedOut, ConnectErrorKind::Closed, ConnectErrorKind::Local] {
            assert_eq!(status(refused(kind)), lock_status::LOCK_IO, "{kind:?}");
        }
        for kind in [ConnectErrorKind::Tls, ConnectErrorKind::WrongProtocol, ConnectErrorKind::Secret] {
            assert_eq!(status(refused(kind)), lock_status::LOCK_REFUSED, "{kind:?}");
            let several = vec![refused(ConnectErrorKind::Closed), refused(kind)];
            assert_eq!(status(ConnectError::NoneOfSeveral(several)), lock_status::LOCK_REFUSED, "{kind:?}");
        }
    }
}
