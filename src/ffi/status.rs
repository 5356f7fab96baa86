//! The statuses and modes of the C ABI, the one mapping of the crate's errors to them, and the texts that
//! go with them.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::io;

use super::guard::guard;
use crate::broker::{AcquireError, ReleaseError};
use crate::client::{ConnectError, ConnectErrorKind, InspectError};

/// How a lock is held. The functions take these as `uint32_t`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum lock_mode {
    /// One holder, nobody else.
    LOCK_EXCLUSIVE = 0,
    /// Any number of holders, none of them exclusive.
    LOCK_SHARED = 1,
}

/// What a call came to. The numbers never change, and none is ever given another meaning.
///
/// Of a call that takes a lock or changes its mode, any status but LOCK_OK, LOCK_PENDING, LOCK_INTERRUPTED
/// and LOCK_LOST means that it has changed nothing. lock_last_error says more about a status that is not
/// LOCK_OK.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum lock_status {
    /// Done: the lock is held, or freed, or the question is answered.
    LOCK_OK = 0,
    /// The session has a place in the queue, and does not hold the lock yet, or not yet in the mode it asked
    /// for. From lock_enqueue and lock_enqueue_convert: lock_wait waits there. From a call that would have taken a place: the session had one already, at which lock_wait
    /// waits, unless another thread is waiting there in lock_acquire.
    LOCK_PENDING = 1,
    /// Not granted within the time limit. For a limit of zero: somebody else holds it, or waits for it. Of a
    /// call without a time limit: the server has not answered.
    LOCK_TIMEOUT = 2,
    /// The session does not hold this lock, nor wait for it. From lock_wait: it has no place there to wait at.
    LOCK_NOT_HELD = 3,
    /// The session holds this lock already. It is one owner: of two threads that share it, only one
    /// may believe that it got the lock.
    LOCK_ALREADY_HELD = 4,
    /// Waiting would close a circle of sessions that wait for each other. lock_last_error names them; of more
    /// than 16 only the first 16, and says how many there are. A server may tell the number alone.
    LOCK_DEADLOCK = 5,
    /// lock_cancel ended the call, or another thread of the session released the place in the queue, or has
    /// been told its outcome.
    LOCK_CANCELLED = 6,
    /// A signal handler ran while the thread waited. The place in the queue is kept: the same call again,
    /// or lock_wait, goes on waiting there; lock_release gives it up.
    LOCK_INTERRUPTED = 7,
    /// The call makes no sense: NULL where it may not be, an unknown mode, a name too long, an address
    /// that is none.
    LOCK_INVALID = 8,
    /// Not allowed: a limit is reached, or the server is stopping, or it grants nothing yet because the one
    /// before it did not stop cleanly.
    LOCK_REFUSED = 9,
    /// The session has ended, its connection perhaps, and with it all its locks. Nothing reconnects: the
    /// locks are gone. Close it, and open another one. On several servers it is the one that the name belongs to
    /// that is gone; lock_check says whether the session has lost anything.
    LOCK_LOST = 10,
    /// The handle was inherited by a forked child. It is its parent's alone, and nothing was done.
    LOCK_FORKED = 11,
    /// The operating system said no, for example to listening on an address that is taken.
    LOCK_IO = 12,
    /// A bug in this library. The session, if it was a session's call, is lost.
    LOCK_INTERNAL = 13,
}

/// Why a call has not done what was asked: a status, and what lock_last_error says.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) status: lock_status,
    detail: Cow<'static, CStr>,
}

impl Failure {
    pub(super) fn new(status: lock_status, detail: impl fmt::Display) -> Self {
        let text = detail.to_string().replace('\0', "\\0");
        // It cannot fail, there being no zero byte left in it.
        Self { status, detail: CString::new(text).unwrap_or_default().into() }
    }

    pub(super) fn invalid(detail: impl fmt::Display) -> Self {
        Self::new(lock_status::LOCK_INVALID, detail)
    }

    /// One of which there is nothing to say but what it means. Allocates nothing, since some are no news
    /// to a caller that tries again and again.
    pub(super) fn plain(status: lock_status) -> Self {
        Self { status, detail: Cow::Borrowed(text(status as c_int)) }
    }
}

impl From<AcquireError> for Failure {
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
            AcquireError::Lost(_) => Self::new(lock_status::LOCK_LOST, error),
        }
    }
}

impl From<ReleaseError> for Failure {
    fn from(error: ReleaseError) -> Self {
        match error {
            ReleaseError::NotHeld => Self::plain(lock_status::LOCK_NOT_HELD),
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
            InspectError::Lost(_) => Self::new(lock_status::LOCK_LOST, error),
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        // lock_connect returns no status; its callers get the words alone.
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

fn text(status: c_int) -> &'static CStr {
    const TEXTS: [&CStr; 14] = [
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
        c"the session is lost, and with it its locks",
        c"the handle belongs to the process that this one was forked from",
        c"the operating system failed the call",
        c"a bug in lockd",
    ];
    let known = usize::try_from(status).ok().and_then(|at| TEXTS.get(at));
    known.copied().unwrap_or(c"no status of lockd")
}

thread_local! {
    static LAST_ERROR: RefCell<Cow<'static, CStr>> = const { RefCell::new(Cow::Borrowed(c"")) };
}

/// Keeps what lock_last_error will say.
pub(super) fn remember(failure: Failure) {
    // A thread that is ending may have no thread-locals any more; then it is not told.
    let _ = LAST_ERROR.try_with(|last| last.replace(failure.detail));
}

/// What a status means, in a few words of English.
///
/// @param status  A lock_status; any other number is named as none.
/// @return        Static text, never NULL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn lock_strerror(status: c_int) -> *const c_char {
    guard(|| Ok(text(status).as_ptr()))
}

/// What was the matter with the last call of this thread that failed: more than its status says, such as
/// the address that could not be reached, or the sessions of a deadlock.
///
/// @return  Text of this thread, in UTF-8, valid until the thread's next call of this library; empty if
///          none has failed. Never NULL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub extern "C" fn lock_last_error() -> *const c_char {
    guard(|| Ok(LAST_ERROR.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_told_from_what_refuses() {
        let refused = |kind| {
            let (server, reason) = ("tcp://a".to_owned(), "no".to_owned());
            ConnectError::Refused { server, reason, kind }
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
