//! What the C functions that call a session have in common: the guard around the call, and the
//! arguments that most of them take.

use std::ffi::c_char;

use super::arguments::{name, write};
use super::guard::{Returned, Uncancellable, guard, guard_and};
use super::session_registry::{lock_session, session_of};
use super::status::{Failure, lock_status};
use crate::session::Session;

/// Runs the body of a call of a session. If it panics, the session is abandoned, because its state
/// is in doubt.
///
/// # Safety
/// `session` is NULL, or was made by this library and not freed, and is not freed during the call.
pub(super) unsafe fn guard_session<R: Returned>(
    session: *const lock_session,
    body: impl FnOnce(&Session) -> Result<R, Failure>,
) -> R {
    // SAFETY: the caller's promise.
    let session = match unsafe { session_of(session) } {
        Ok(session) => session,
        Err(failure) => return guard(|| Err(failure)),
    };
    // A call of a session in this process reaches no cancellation point, so it is spared the cost
    // of this.
    let _until_return = session.is_remote().then(Uncancellable::begin);
    guard_and(|| body(session), || session.abandon())
}

/// Runs a call of a session that cannot fail.
///
/// # Safety
/// As for [`guard_session`].
pub(super) unsafe fn guard_action(session: *const lock_session, body: impl FnOnce(&Session)) -> lock_status {
    let body = |session: &Session| {
        body(session);
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller's promise.
    unsafe { guard_session(session, body) }
}

/// Runs a call that is about one name.
///
/// # Safety
/// As for [`guard_session`] and [`name`].
pub(super) unsafe fn guard_named(
    session: *const lock_session,
    name: *const c_char,
    body: impl FnOnce(&Session, &[u8]) -> Result<lock_status, Failure>,
) -> lock_status {
    let body = |session: &Session| {
        // SAFETY: the caller's promise.
        let name = unsafe { self::name(name) }?;
        body(session, name)
    };
    // SAFETY: the caller's promise.
    unsafe { guard_session(session, body) }
}

/// Runs a call about one name that returns a fencing token, and writes the token to `token`.
///
/// # Safety
/// As for [`guard_named`] and [`write`].
pub(super) unsafe fn guard_token(
    session: *const lock_session,
    name: *const c_char,
    token: *mut u64,
    body: impl FnOnce(&Session, &[u8]) -> Result<u64, Failure>,
) -> lock_status {
    let body = |session: &Session, name: &[u8]| {
        let value = body(session, name)?;
        // SAFETY: the caller's promise.
        unsafe { write(token, value) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller's promise.
    unsafe { guard_named(session, name, body) }
}
