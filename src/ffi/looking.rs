//! What there is to see of locks: one of them as it stands, and all of them page by page.

use std::ffi::{CString, c_char};

use super::arguments::{is_null, name, optional_bytes, write};
use super::guard::guard;
use super::session::{guard_session, lock_session};
use super::status::{Failure, lock_mode, lock_status};
use crate::broker::Mode;
use crate::client::InspectError;
use crate::session::Session;
use crate::wire::message::{ListedLock, LockPage};

/// A lock as it stands, filled in by lock_inspect. It will never have other members: what there may be to
/// tell later will be told by other functions.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct lock_info {
    /// The fencing token of this session's grant; 0 unless `held`.
    pub token: u64,
    /// How many sessions hold the lock; 0: it is free.
    pub holders: u64,
    /// How many requests wait for it.
    pub waiters: u64,
    /// How it is held, a lock_mode; LOCK_EXCLUSIVE if it is free.
    pub mode: u32,
    /// Whether this session holds it.
    pub held: bool,
    /// Whether this session has a place in its queue.
    pub waiting: bool,
    /// Whether the last exclusive holder vanished without releasing it, so that what it was at may be half
    /// done. While somebody holds it exclusively: whether the one before vanished. So the new holder can
    /// look, and whoever comes after it is told only if it vanishes, too.
    pub orphaned: bool,
}

/// The fencing token of a lock that the session holds, for calls that do not tell it: lock_enqueue and
/// lock_enqueue_convert that are LOCK_OK at once, and lock_convert. Asks no server, and looks at nothing but what
/// the session itself has been told: nobody but this session's own calls can change the answer, so after one of
/// those it is the token of that grant, unless another thread of the session changes what is held meanwhile.
///
/// @param session  The session.
/// @param name     The name.
/// @param token    Receives the token. May be NULL, to ask only whether the lock is held.
///
/// @return LOCK_OK: it is held, as far as lock_check could tell;
///         LOCK_NOT_HELD: it is not. On a server also of a lock that lock_enqueue has asked for, until lock_wait
///         has told that it is held;
///         LOCK_LOST, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_token(
    session: *mut lock_session,
    name: *const c_char,
    token: *mut u64,
) -> lock_status {
    let body = |session: &Session| {
        // SAFETY: the caller passes a string or NULL.
        let name = unsafe { self::name(name) }?;
        let held = session.held(name)?.ok_or_else(|| Failure::plain(lock_status::LOCK_NOT_HELD))?;
        // SAFETY: the caller passes a number's address or NULL.
        unsafe { write(token, held.token) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Looks at a lock as it stands now.
///
/// @param session  The session.
/// @param name     The name.
/// @param out      Receives what there is to say on LOCK_OK.
///
/// @return LOCK_OK;
///         LOCK_TIMEOUT: the server has not answered within its dead-peer timeout;
///         LOCK_CANCELLED: lock_cancel came before the answer. After both the session is as it was;
///         LOCK_INVALID, LOCK_REFUSED, LOCK_LOST, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; waits for nobody but the server, and for that no longer than its dead-peer timeout.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_inspect(
    session: *mut lock_session,
    name: *const c_char,
    out: *mut lock_info,
) -> lock_status {
    let body = |session: &Session| {
        // SAFETY: the caller passes a string or NULL.
        let name = unsafe { self::name(name) }?;
        if out.is_null() {
            return Err(is_null("out"));
        }
        let seen = session.inspect(name)?;
        let mode = match seen.mode {
            Some(Mode::Shared) => lock_mode::LOCK_SHARED,
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
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { out.write(info) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Lists the locks that anybody holds or waits for, of the session's broker or server: one page of them, in
/// the order of the bytes of their names.
///
/// The page is an object as the result of the command list is in docs/protocol.md, but without its status:
///
///   {"locks":[{"lockName":"invoice/4711","mode":"exclusive",
///              "holders":[{"address":"127.0.0.1:60916","name":"invoices","token":1795,"heldFor":0.5}],
///              "waiters":[{"address":"unix:7","name":null,"mode":"shared","waitingFor":0.25}]}],
///    "more":false}
///
/// `mode` is null if there are only waiters. `orphaned` is there, and true, where lock_inspect would say so.
/// A name that is not UTF-8 has its bytes in hexadecimal as `lockNameHex`, and in `lockName` what of it can be
/// read. While `more` is true, the next page comes from behind the last name, its bytes given as `after`. That
/// is no snapshot, but a lock that stays throughout is on exactly one page. On several servers the page is one
/// of all of them, and a name is shown as it stands on the server that it belongs to.
///
/// @param session  The session.
/// @param prefix   Only names that begin so. NULL: all.
/// @param after    Only names behind this one. NULL: from the first.
/// @param limit    How many, 1000 at most; 0: 100. A page has fewer if its JSON would be longer than a quarter of a
///                 mebibyte; of a lock that is longer than that alone some holders and waiters are left out, and
///                 counted as `moreHolders` and `moreWaiters`. It has more where it would end with a name that has a zero byte in it, which `after` cannot
///                 say: then it goes on to the next one that has none.
/// @param json     Receives the page, to be freed with lock_list_free. UTF-8, ending with a zero byte.
///
/// @return LOCK_OK;
///         LOCK_INVALID: session or json is NULL; on a server also: prefix or after is longer than a request
///         may be, which is a mebibyte;
///         LOCK_REFUSED: the server lets nobody list (--no-dump), or is one that cannot;
///         LOCK_TIMEOUT, LOCK_CANCELLED: as of lock_inspect;
///         LOCK_LOST, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; waits for nobody but the server, as lock_inspect. It looks at every name there is, so it takes a while where
/// there are a million; nobody else waits for that.
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
        // It cannot fail: JSON has no zero bytes.
        let text = CString::new(page.to_json()).map_err(Failure::invalid)?;
        // SAFETY: not NULL, and the caller's to be written.
        unsafe { json.write(text.into_raw()) };
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// A page that C can go on from.
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
        let is_sayable = |lock: &ListedLock| lock.name().is_none_or(|name| !name.as_bytes().contains(&0));
        let until = rest.locks.iter().position(is_sayable).map_or(rest.locks.len(), |at| at + 1);
        page.more = rest.more || until < rest.locks.len();
        page.locks.extend(rest.locks.drain(..until));
    }
    Ok(page)
}

/// Frees what lock_list has made.
///
/// @param json  May be NULL. Must not be used any more.
///
/// Any thread; never blocks. Also in a forked child.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_list_free(json: *mut c_char) {
    guard(|| {
        if !json.is_null() {
            // SAFETY: made by `lock_list` from such a string, and given back here for good.
            drop(unsafe { CString::from_raw(json) });
        }
        Ok(())
    });
}
