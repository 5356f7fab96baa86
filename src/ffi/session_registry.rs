//! `lock_session`, and which of them are open, by the thread that opened them, so that
//! `lock_close_all` can close all sessions of one thread. Makes and frees handles; calls nothing
//! else of a session.
//!
//! Sessions and threads are identified by numbers that are never reused. An address would not do:
//! if another thread closes one of this thread's sessions, a new session may get the same address.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::arguments::{free, handle, own};
use super::status::Failure;
use crate::os::fork::{NotInherited, ProcessLocal};
use crate::os::sync::ProcessMutex;
use crate::session::Session;

/// One owner of locks, in this process or on servers. Made by lock_open, lock_connect or
/// lock_connect_and_acquire, freed by lock_close.
pub struct lock_session {
    session: NotInherited<Session>,
    key: RegistryKey,
}

#[derive(Clone, Copy)]
struct RegistryKey {
    /// The thread that opened the session.
    thread: u64,
    session: u64,
}

/// A handle that may be sent between threads.
struct Handle(*mut lock_session);

// SAFETY: a `lock_session` may be used by every thread, and the handle is used only by the thread
// that takes it out of the registry.
unsafe impl Send for Handle {}

/// The open sessions of each thread that has any.
type OpenSessions = BTreeMap<u64, BTreeMap<u64, Handle>>;

/// Locked briefly when a session is opened or closed; no other lock is taken meanwhile. A forked
/// child has its own, without the sessions of its parent.
static OPEN: ProcessLocal<ProcessMutex<OpenSessions>> = ProcessLocal::new();

fn open_sessions() -> &'static ProcessMutex<OpenSessions> {
    OPEN.get(|| ProcessMutex::new(OpenSessions::new()))
}

/// The next number of a thread or a session.
fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

fn this_thread() -> u64 {
    thread_local! {
        // Has no destructor, so it can still be used while the thread ends.
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    if NUMBER.get() == 0 {
        NUMBER.set(next_number());
    }
    NUMBER.get()
}

/// A handle for a new session, which is registered as opened by this thread.
pub(super) fn register(session: Session) -> *mut lock_session {
    let key = RegistryKey { thread: this_thread(), session: next_number() };
    let handle = Box::into_raw(Box::new(lock_session { session: NotInherited::new(session), key }));
    open_sessions().lock().entry(key.thread).or_default().insert(key.session, Handle(handle));
    handle
}

/// Frees a handle, and closes its session unless that is a parent process's. Any thread may do so.
///
/// # Safety
/// As for [`free`].
pub(super) unsafe fn close(session: *mut lock_session) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    if let Some(session) = unsafe { session.as_ref() } {
        let RegistryKey { thread, session } = session.key;
        let mut open = open_sessions().lock();
        // In a child of the process that opened it, it is not in the list.
        if let Some(sessions) = open.get_mut(&thread) {
            sessions.remove(&session);
            if sessions.is_empty() {
                open.remove(&thread);
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { free(session) }
}

/// Abandons and frees every session that this thread has opened. Returns how many there were.
///
/// # Safety
/// None of these sessions is used any more.
pub(super) unsafe fn abandon_all_of_this_thread() -> usize {
    let own = open_sessions().lock().remove(&this_thread()).unwrap_or_default();
    let count = own.len();
    // SAFETY: each was made from a box and is taken out of the list once; the caller promises the
    // rest.
    let sessions = own.into_values().map(|handle| unsafe { Box::from_raw(handle.0) });
    sessions.for_each(|session| session.session.get().map_or((), Session::abandon));
    count
}

/// The session of a handle, unless it is a parent process's.
///
/// # Safety
/// `session` is NULL, or was made by this library and not freed, and is not freed for as long as
/// `'a`.
pub(super) unsafe fn session_of<'a>(session: *const lock_session) -> Result<&'a Session, Failure> {
    // SAFETY: the caller's promise.
    own(&unsafe { handle(session, "session") }?.session)
}
