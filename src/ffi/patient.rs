//! A session on a server and its locks in one call, which waits for the server too. Knows how C is
//! told what happens meanwhile, and which statuses the failures have. The wait itself, and what is
//! waited through, are the session's.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ops::ControlFlow;
use std::ptr;
use std::sync::Arc;

use super::arguments::{is_null, label, limit, own, text, wants, write};
use super::guard::guard;
use super::session_registry::{lock_session, register};
use super::status::{Failure, c_text, lock_status};
use crate::broker::AcquireError;
use crate::client::ConnectOptions;
use crate::os::fork::NotInherited;
use crate::session::Session;
use crate::session::patient::{WaitError, WaitEvent};

/// What lock_connect_and_acquire tells a lock_report. The function takes these as `uint32_t`. There
/// may be more of them in a later version: a program must ignore those that it does not know.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum lock_event {
    /// There is no server now, or the connection to it is lost, for the reason given. Comes for
    /// every attempt that fails, so a program that prints it should do so once. The next attempt
    /// follows after a random pause, the first time of at most half a second, later of at most four.
    LOCK_EVENT_NO_SERVER = 0,
    /// The locks are not free, and from now on the call waits in the queue. If the server grants
    /// nothing at all yet, the reason says why; otherwise it is NULL.
    LOCK_EVENT_WAITING = 1,
    /// Nothing has changed: a signal handler has run in this thread, or a second has passed.
    LOCK_EVENT_STILL_WAITING = 2,
}

/// A function of the program that lock_connect_and_acquire calls while it waits: at each change, as
/// soon as a signal handler has run in the thread, and about once a second at least. So a program
/// that wants to end the wait, from a signal handler or from another thread, sets a variable that
/// this function returns.
///
/// It runs in the thread that has called lock_connect_and_acquire, and should not take long. It may
/// call other functions of the library. It must return: no longjmp, no exception, no end of the
/// thread. pthread_cancel has no effect in it. If it forks and returns in the child, the call ends
/// there with LOCK_FORKED.
///
/// @param event    A lock_event.
/// @param reason   More about the event, in UTF-8, until the function returns; or NULL.
/// @param context  As passed to lock_connect_and_acquire.
///
/// @return 0 to go on waiting; anything else ends the wait.
pub type lock_report =
    Option<unsafe extern "C" fn(event: u32, reason: *const c_char, context: *mut c_void) -> c_int>;

/// Opens a session on a server and acquires locks with it, waiting for up to timeout_ms in all.
/// Waits through whatever happens to the server meanwhile: that it is not up yet, stops, restarts
/// or crashes, or that the network fails. For jobs and workers that only need the lock some time:
/// while they wait they hold nothing, so a lost connection costs them no more than their place in
/// the queue. The call then connects again, after random pauses of up to half a second at first and
/// four seconds later, and waits at the end of the queue.
///
/// From its return on, the session is like one of lock_connect with the same address. If the call
/// fails, nothing is left of it, neither a session nor a place in a queue.
///
/// @param url         As for lock_connect. Of several servers, only the one that the names belong
///                    to is asked, and waited for; calls of the session with names of the others
///                    return LOCK_LOST.
/// @param owner       As for lock_open.
/// @param names       The names, as for lock_acquire_all.
/// @param modes       As many modes; NULL: all exclusive.
/// @param n           The number of names: from 1 to 1024.
/// @param timeout_ms  In milliseconds; 0: one attempt, without waiting for a lock; negative:
///                    without limit. Each attempt to connect takes 10 seconds at most, and no
///                    longer than timeout_ms unless that is 0. The resolver's time does not count.
/// @param report      Is told what happens, and can end the wait: see lock_report. May be NULL.
/// @param context     Is passed to report. May be NULL.
/// @param token       Receives the fencing token, as from lock_acquire_all. May be NULL.
/// @param session     Receives the session, to be freed with lock_close.
///
/// @return LOCK_OK: the session holds the locks, as after lock_acquire;
///         LOCK_TIMEOUT: there is a server, but it has not granted the locks in time;
///         LOCK_LOST: there was no server when the time was over, or the connection to it was lost
///         and the time was over before there was another one. lock_last_error says why;
///         LOCK_CANCELLED: report has ended the wait;
///         LOCK_INTERRUPTED: report is NULL, and a signal handler has run in this thread. Unlike
///         after other calls, no place is kept;
///         LOCK_FORKED: report has forked, and this is the child;
///         LOCK_INTERNAL;
///         a mistake that waiting does not cure, at once. LOCK_INVALID: the address, a name, a mode
///         or NULL, or names that belong to different servers. LOCK_REFUSED: one side speaks TLS
///         and the other does not, a certificate or the secret is not accepted, it is no lockd or
///         one that is older than limited locks, or a limit of the server is reached. LOCK_IO: the
///         host's name is unknown, or the cause is in this program: a file that cannot be read, no
///         permission, no descriptors left.
///
/// A handler that runs just before the thread begins to sleep does not wake it. With report, the
/// call looks up a second later; without it, it goes on waiting. While the resolver looks for the
/// host, nothing is noticed.
///
/// Any thread; blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_connect_and_acquire(
    url: *const c_char,
    owner: *const c_char,
    names: *const *const c_char,
    modes: *const u32,
    n: usize,
    timeout_ms: i64,
    report: lock_report,
    context: *mut c_void,
    token: *mut u64,
    session: *mut *mut lock_session,
) -> lock_status {
    guard(|| {
        if session.is_null() {
            return Err(is_null("session"));
        }
        // SAFETY: the caller passes a string or NULL.
        let url = unsafe { text(url, "url") }?;
        // SAFETY: the caller passes a string or NULL.
        let owner = unsafe { label(owner) };
        // SAFETY: the caller passes `n` strings or NULL, and `n` numbers or NULL.
        let wants = unsafe { wants(names, modes, n) }?;
        let options =
            ConnectOptions { owner: owner.as_deref(), interruptible: true, ..ConnectOptions::default() };
        let callback = ReportCallback { report, context, process: NotInherited::new(()) };
        let tell = |event: WaitEvent<'_>| callback.tell(event);
        let acquired = Session::connect_and_acquire(url, &wants, limit(timeout_ms), &options, tell);
        own(&callback.process)?;
        let (acquired, grant) = acquired.map_err(|error| callback.failure(error))?;
        #[expect(clippy::expect_used, reason = "the callback keeps no reference to the session")]
        let acquired = Arc::into_inner(acquired).expect("the only reference");
        // SAFETY: the caller passes a number's address or NULL.
        unsafe { write(token, grant.token) };
        // SAFETY: the caller passes the address of a pointer; NULL has been refused above.
        unsafe { write(session, register(acquired)) };
        Ok(lock_status::LOCK_OK)
    })
}

/// Tells the program what happens.
struct ReportCallback {
    report: lock_report,
    context: *mut c_void,
    /// Whether this is still the process that made the call.
    process: NotInherited<()>,
}

impl ReportCallback {
    fn tell(&self, event: WaitEvent<'_>) -> ControlFlow<()> {
        let (event, reason) = match event {
            WaitEvent::NoServer { reason } => (lock_event::LOCK_EVENT_NO_SERVER, Some(reason)),
            WaitEvent::Waiting { not_yet } => (lock_event::LOCK_EVENT_WAITING, not_yet),
            WaitEvent::Interrupted if self.report.is_none() => return ControlFlow::Break(()),
            WaitEvent::Interrupted | WaitEvent::StillWaiting => (lock_event::LOCK_EVENT_STILL_WAITING, None),
            WaitEvent::Connected(_) => return ControlFlow::Continue(()),
        };
        let Some(report) = self.report else { return ControlFlow::Continue(()) };
        let reason: Option<CString> = reason.map(c_text);
        let reason = reason.as_ref().map_or(ptr::null(), |reason| reason.as_ptr());
        // SAFETY: the caller passes a function that takes these arguments.
        let ends = unsafe { report(event as u32, reason, self.context) } != 0;
        // A child that was forked in there must not wait in its parent's place.
        if ends || self.process.get().is_none() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn failure(&self, error: WaitError) -> Failure {
        if error.is_absence() {
            return Failure::new(lock_status::LOCK_LOST, error);
        }
        match error {
            WaitError::Connect(error) => error.into(),
            // Unlike other refusals, waiting for longer would have helped.
            WaitError::Acquire(error @ AcquireError::NotYet(_)) => {
                Failure::new(lock_status::LOCK_TIMEOUT, error)
            }
            WaitError::Acquire(AcquireError::Interrupted) if self.report.is_some() => {
                AcquireError::Cancelled.into()
            }
            // The usual text would say that a place is kept.
            WaitError::Acquire(AcquireError::Interrupted) => {
                Failure::new(lock_status::LOCK_INTERRUPTED, "a signal handler ran while waiting")
            }
            WaitError::Acquire(error) => error.into(),
        }
    }
}
