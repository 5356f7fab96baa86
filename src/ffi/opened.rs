//! How sessions end; and which of them are open, by the thread that opened them, so that a thread can close all of
//! its own.
//!
//! Sessions and threads go by numbers that are never given twice, as an address can be: one thread's session,
//! once closed, leaves its address to a new session of another thread.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use super::arguments::free;
use super::guard::guard;
use super::session::{guard_session, lock_session};
use super::status::lock_status;
use crate::os::fork::OneEachProcess;
use crate::os::sync::ProcessMutex;
use crate::session::Session;

/// Which of the open sessions one is.
#[derive(Clone, Copy)]
pub(super) struct Opened {
    /// The thread that opened it.
    thread: u64,
    session: u64,
}

/// A handle that may go from thread to thread.
struct Handle(*mut lock_session);

// SAFETY: what is behind a handle may be used by every thread; the handle is used by who takes it out.
unsafe impl Send for Handle {}

/// The sessions of each thread that has some open.
type Sessions = BTreeMap<u64, BTreeMap<u64, Handle>>;

/// Locked for a moment when a session is opened or closed, and with no other lock. The child of a fork has its
/// own, in which those of its parent are not.
static OPEN: OneEachProcess<ProcessMutex<Sessions>> = OneEachProcess::new();

fn open() -> &'static ProcessMutex<Sessions> {
    OPEN.get(|| ProcessMutex::new(Sessions::new()))
}

/// The next number of a thread or a session.
fn next() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

fn this_thread() -> u64 {
    thread_local! {
        // Without a destructor, so that it is there also while the thread ends.
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    if NUMBER.get() == 0 {
        NUMBER.set(next());
    }
    NUMBER.get()
}

impl Opened {
    /// One that this thread opens.
    pub(super) fn here() -> Self {
        Self { thread: this_thread(), session: next() }
    }

    /// From now on it is among those that lock_close_all closes.
    pub(super) fn enter(self, handle: *mut lock_session) {
        open().lock().entry(self.thread).or_default().insert(self.session, Handle(handle));
    }

    /// Somebody closes it, in whichever thread. It is not there if that is a child of its process.
    pub(super) fn forget(self) {
        let mut open = open().lock();
        if let Some(sessions) = open.get_mut(&self.thread) {
            sessions.remove(&self.session);
            if sessions.is_empty() {
                open.remove(&self.thread);
            }
        }
    }
}

/// Ends a session in an orderly way: frees all its locks as if they had been released, gives up its places in
/// queues, and frees the session itself.
///
/// @param session  May be NULL. Must not be used any more, nor be in use by another thread: lock_end ends the
///                 calls that other threads are in, and when they have returned it can be closed.
///
/// Any thread; waits for nothing, also not for a server that does not answer. (One that takes no bytes just now
/// learns only that the connection has ended, as of a program that has crashed: then the locks are orphaned.) In
/// a forked child it frees the handle, and the parent's locks stay: the child's copy of the connection was closed
/// at the fork.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_close(session: *mut lock_session) {
    guard(|| {
        // SAFETY: the caller passes a session or NULL.
        if let Some(session) = unsafe { session.as_ref() } {
            session.opened.forget();
        }
        // SAFETY: made from a box, or NULL, and given back here for good.
        unsafe { free(session) }
    });
}

/// Ends a session in an orderly way, without freeing its handle: frees all its locks as if they had been released,
/// and gives up its places in queues; on a server by closing the connection. Calls of the session that are in
/// progress in other threads return LOCK_LOST, and so do all later ones. It is still to be freed with lock_close.
///
/// @param session  The session. May have ended already.
///
/// @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread, but not a signal handler; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_end(session: *mut lock_session) -> lock_status {
    let body = |session: &Session| {
        session.close();
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// As lock_end, but as if the program had crashed: the next exclusive holder of each lock that the session held
/// exclusively is told that it is orphaned (lock_info), since the work under it may be half done. For a program
/// that could not finish what it did under a lock, and lives on.
///
/// @param session  The session. May have ended already; then this changes nothing.
///
/// @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread, but not a signal handler; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_abandon(session: *mut lock_session) -> lock_status {
    let body = |session: &Session| {
        session.abandon();
        Ok(lock_status::LOCK_OK)
    };
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Closes every session that the calling thread has opened and that is still open. For a host that runs one
/// script after another in the same process, each of which may end without having closed what it opened: it
/// calls this before the next one begins. As such a script may have ended in the middle of its work, its locks
/// count as orphaned, as after lock_abandon.
///
/// The handles must not be used any more, as after lock_close, nor be in use by another thread. Brokers and
/// servers stay. Sessions that other threads have opened stay, too, also if this thread has used them; what
/// this thread opened and another one has closed is not there any more.
///
/// @return How many there were; 0 also if a bug in this library (LOCK_INTERNAL) kept it from closing them.
///
/// Any thread; does not wait for anybody. In a forked child those that were opened before the fork do not
/// count, and stay as they are: dead, and to be freed with lock_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_close_all() -> usize {
    guard(|| {
        let own = open().lock().remove(&this_thread()).unwrap_or_default();
        let count = own.len();
        // SAFETY: each was made from a box and is taken out of the list once; nobody uses it any more, as the
        // caller sees to.
        let sessions = own.into_values().map(|handle| unsafe { Box::from_raw(handle.0) });
        sessions.for_each(|session| session.abandon());
        Ok(count)
    })
}
