//! Looking at locks: one lock, its token, and pages of all locks. Changes nothing.

use std::ffi::{CString, c_char};

use super::arguments::{is_null, optional_bytes, write};
use super::guard::guard;
use super::modes::number;
use super::session_call::{guard_named, guard_session, guard_token};
use super::session_registry::lock_session;
use super::status::{Failure, lock_mode, lock_status};
use crate::broker::Mode;
use crate::client::InspectError;
use crate::session::Session;
use crate::wire::message::{ListedLock, LockPage};

/// The state of a lock, filled in by lock_inspect. It will never have other members; new functions
/// will return anything new.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct lock_info {
    /// The fencing token of this session's grant; 0 if it does not hold the lock.
    pub token: u64,
    /// The number of sessions that hold the lock; 0: it is free.
    pub holders: u64,
    /// The number of requests that wait for it.
    pub waiters: u64,
    /// The mode in which it is held, a lock_mode; LOCK_EXCLUSIVE if it is free. LOCK_SHARED also if
    /// the number of holders is limited, as programs that know no limits expect: lock_inspect_slots
    /// tells the limit, and lock_held_mode the mode of this session.
    pub mode: u32,
    /// Whether this session holds it.
    pub held: bool,
    /// Whether this session has a place in its queue.
    pub waiting: bool,
    /// Whether the last exclusive holder vanished without releasing it, so that its work may be
    /// half done. While a session holds the lock exclusively: whether the exclusive holder before
    /// it vanished: the new holder can still see this, and the holder after that is told only if the
    /// new holder vanishes too.
    pub orphaned: bool,
}

/// The fencing token of a lock that the session holds. Use it after calls that do not return it:
/// lock_convert, and lock_enqueue and lock_enqueue_convert that return LOCK_OK. Asks no server; it
/// returns what the session's own calls have learned. So after one of these calls it is the token
/// of that grant, unless another thread of the session has changed what is held in the meantime.
///
/// @param session  The session.
/// @param name     The name.
/// @param token    Receives the token. May be NULL, to ask only whether the lock is held.
///
/// @return LOCK_OK: the lock is held, as far as can be known without asking the server;
///         LOCK_NOT_HELD: it is not held. On a server also for a lock that lock_enqueue has asked
///         for, until lock_wait has returned the grant;
///         LOCK_LOST, LOCK_DOUBT, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_token(
    session: *mut lock_session,
    name: *const c_char,
    token: *mut u64,
) -> lock_status {
    let body = |session: &Session, name: &[u8]| {
        let held = session.held(name)?;
        held.map(|held| held.token).ok_or_else(|| Failure::plain(lock_status::LOCK_NOT_HELD))
    };
    // SAFETY: the caller passes a session that is not being closed, a string, and a number's
    // address, or NULLs.
    unsafe { guard_token(session, name, token, body) }
}

/// The mode in which the session holds a lock, such as lock_at_most(4); other holders may have
/// other modes. Asks no server, as lock_token.
///
/// @param session  The session.
/// @param name     The name.
/// @param mode     Receives the mode, as functions take it: it can be passed to lock_convert later,
///                 to have the lock as it was. May be NULL.
///
/// @return As lock_token.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_held_mode(
    session: *mut lock_session,
    name: *const c_char,
    mode: *mut u32,
) -> lock_status {
    let body = |session: &Session, name: &[u8]| {
        let held = session.held(name)?.ok_or_else(|| Failure::plain(lock_status::LOCK_NOT_HELD))?;
        // SAFETY: the caller passes a number's address or NULL.
        unsafe { write(mode, number(held.mode)) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, and a string, or NULLs.
    unsafe { guard_named(session, name, body) }
}

/// Returns the current state of a lock.
///
/// @param session  The session.
/// @param name     The name.
/// @param out      Receives the state on LOCK_OK.
///
/// @return LOCK_OK;
///         LOCK_TIMEOUT: the server has not answered within its dead-peer timeout;
///         LOCK_CANCELLED: lock_cancel came before the answer. In both cases the session is as it
///         was;
///         LOCK_INVALID, LOCK_REFUSED, LOCK_LOST, LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; waits only for the server, at most for its dead-peer timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_inspect(
    session: *mut lock_session,
    name: *const c_char,
    out: *mut lock_info,
) -> lock_status {
    let body = |session: &Session, name: &[u8]| {
        if out.is_null() {
            return Err(is_null("out"));
        }
        let seen = session.inspect(name)?;
        let mode = match seen.mode {
            Some(Mode::Limited(_) | Mode::Shared) => lock_mode::LOCK_SHARED,
            Some(Mode::Exclusive) | None => lock_mode::LOCK_EXCLUSIVE,
        };
        let info = lock_info {
            token: seen.held.map_or(0, |held| held.token),
            holders: seen.holders as u64,
            waiters: seen.waiters as u64,
            mode: mode as u32,
            held: seen.held.is_some(),
            waiting: seen.waiting,
            orphaned: seen.orphaned,
        };
        // SAFETY: not NULL, so the caller lets it be written.
        unsafe { out.write(info) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, and a string, or NULLs.
    unsafe { guard_named(session, name, body) }
}

/// How many sessions hold a lock, and how many more may, all at one moment. Filled in by
/// lock_inspect_slots. It will never have other members.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct lock_slots {
    /// The number of sessions that hold the lock; 0: it is free.
    pub holders: u64,
    /// The number of requests that wait for it. They come before any new request.
    pub waiters: u64,
    /// The limit in force: the smallest of its holders' limits, which is 1 if it is held
    /// exclusively. 0: there is no limit, because it is free or all its holders have it
    /// LOCK_SHARED.
    pub limit: u32,
    /// How many more sessions can hold it, as far as its holders are concerned: the limit in force
    /// without the holders. UINT32_MAX: any number, because there is no limit. A request has a
    /// limit of its own, too.
    pub free: u32,
}

/// Returns the limit of a lock that is in force, its holders and its free slots.
///
/// @param session  The session.
/// @param name     The name.
/// @param out      Receives them on LOCK_OK.
///
/// @return As lock_inspect.
///
/// Any thread; waits as lock_inspect does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_inspect_slots(
    session: *mut lock_session,
    name: *const c_char,
    out: *mut lock_slots,
) -> lock_status {
    let body = |session: &Session, name: &[u8]| {
        if out.is_null() {
            return Err(is_null("out"));
        }
        let seen = session.inspect(name)?;
        let slots = lock_slots {
            holders: seen.holders as u64,
            waiters: seen.waiters as u64,
            limit: seen.limit().unwrap_or(0),
            free: seen.free_slots().unwrap_or(u32::MAX),
        };
        // SAFETY: not NULL, so the caller lets it be written.
        unsafe { out.write(slots) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, and a string, or NULLs.
    unsafe { guard_named(session, name, body) }
}

/// Lists the locks of the session's broker or server that any session holds or waits for: one page
/// of them, in the order of the bytes of their names.
///
/// The page is a JSON object, as the command list of docs/protocol.md returns it, but without its
/// status:
///
///   {"locks":[{"lockName":"invoice/4711","mode":"exclusive",
///              "holders":[{"address":"127.0.0.1:60916","name":"invoices","token":1795,"heldFor":9.5,
///                          "session":12,"inDoubt":1.25}],
///              "waiters":[{"address":"unix:7","name":null,"mode":"shared","waitingFor":0.25,
///                          "session":14}]}],
///    "more":false}
///
/// `mode` is null if there are only waiters. If the number of holders is limited, `mode` is shared,
/// and `limit` is present: for the lock the limit in force, for a holder and a waiter its own.
/// `orphaned` is present, and true, if lock_inspect would say so. `session` is the number of the
/// session, by which a holder of one lock is found among the waiters for another. `inDoubt` is
/// present only for a session that can resume and has lost its connection: for how many seconds.
/// `heldFor` counts from the grant, or from when the session resumed at a later server. For a name
/// that is not UTF-8, `lockNameHex` has its bytes in hexadecimal, and `lockName` has the same name
/// with a replacement character for what is not UTF-8. If `more` is true, ask for the next page
/// with the bytes of the last name as `after`. The pages are no snapshot, but a lock that is there
/// all the time is on exactly one page. On several servers the page covers all of them, and a name
/// is shown as it is on the server that it belongs to.
///
/// @param session  The session.
/// @param prefix   Only names that begin with this. NULL: all.
/// @param after    Only names that come after this one. NULL: from the first.
/// @param limit    The number of locks, 1000 at most; 0: 100. A page has fewer if its JSON would be
///                 longer than a quarter of a mebibyte. If a single lock is longer than that, some
///                 of its holders and waiters are left out, and counted as `moreHolders` and
///                 `moreWaiters`. A page has more locks if it would end with a name that has a zero
///                 byte in it, which `after` cannot express: then it goes on to the next name
///                 without one.
/// @param json     Receives the page, to be freed with lock_list_free. UTF-8, ending with a zero
///                 byte.
///
/// @return LOCK_OK;
///         LOCK_INVALID: session or json is NULL; on a server also: prefix or after is longer than
///         a request may be, which is a mebibyte;
///         LOCK_REFUSED: the server does not let clients list (--no-dump), or does not know this command;
///         LOCK_TIMEOUT, LOCK_CANCELLED: as for lock_inspect;
///         LOCK_LOST, LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; waits only for the server, as lock_inspect does. It looks at every name, so it takes a
/// while if there are a million; no other call is delayed by that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_list(
    session: *mut lock_session,
    prefix: *const c_char,
    after: *const c_char,
    limit: u64,
    json: *mut *mut c_char,
) -> lock_status {
    let body = |session: &Session| {
        if json.is_null() {
            return Err(is_null("json"));
        }
        // SAFETY: the caller passes a string or NULL.
        let prefix = unsafe { optional_bytes(prefix) }.unwrap_or_default();
        // SAFETY: the caller passes a string or NULL.
        let after = unsafe { optional_bytes(after) };
        let page = page(session, prefix, after, usize::try_from(limit).unwrap_or(usize::MAX))?;
        // Cannot fail: JSON has no zero bytes.
        let text = CString::new(page.to_json()).map_err(Failure::invalid)?;
        // SAFETY: not NULL, so the caller lets it be written.
        unsafe { json.write(text.into_raw()) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// A page whose last name C can pass as `after`.
fn page(
    session: &Session,
    prefix: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<LockPage, InspectError> {
    let mut page = session.list(prefix, after, limit)?;
    while let Some(last) = page.locks.last().filter(|_| page.more).and_then(ListedLock::name)
        && last.as_bytes().contains(&0)
    {
        let mut rest = session.list(prefix, Some(last.as_bytes()), usize::MAX)?;
        let has_no_zero = |lock: &ListedLock| lock.name().is_none_or(|name| !name.as_bytes().contains(&0));
        let until = rest.locks.iter().position(has_no_zero).map_or(rest.locks.len(), |at| at + 1);
        page.more = rest.more || until < rest.locks.len();
        page.locks.extend(rest.locks.drain(..until));
    }
    Ok(page)
}

/// Frees a page that lock_list has returned.
///
/// @param json  May be NULL. Must not be used any more.
///
/// Any thread; never blocks. Also in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_list_free(json: *mut c_char) {
    guard(|| {
        if !json.is_null() {
            // SAFETY: made by `lock_list` from such a string, and not used any more.
            drop(unsafe { CString::from_raw(json) });
        }
        Ok(())
    });
}
