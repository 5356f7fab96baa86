//! The life of a session: how it is opened, whether it is alive, and how it and its calls are
//! ended.

use std::ffi::{c_char, c_int};
use std::os::fd::AsRawFd;
use std::time::Duration;

use super::arguments::{label, limit, text};
use super::broker::{broker_of, lock_broker};
use super::guard::guard;
use super::session_call::{guard_action, guard_session};
use super::session_registry::{abandon_all_of_this_thread, close, lock_session, register};
use super::status::{Failure, lock_status};
use crate::client::{ConnectOptions, InspectError, SessionState};
use crate::session::Session;

/// Opens a session in this process: one owner of locks in its broker.
///
/// A session may be used by several threads at once, and a call that waits does not delay the
/// others. But the session is one owner: threads that compete for locks each open a session of
/// their own.
///
/// @param broker  The broker; NULL: the default one.
/// @param owner   The session's name in listings and deadlock reports, in UTF-8. Anything beyond
///                256 bytes is cut off. May be NULL.
///
/// @return  The session, to be freed with lock_close; NULL if the broker was made by the parent
///          process of a fork; then lock_last_error says so.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_open(broker: *mut lock_broker, owner: *const c_char) -> *mut lock_session {
    guard(|| {
        // SAFETY: the caller passes a broker or NULL.
        let broker = unsafe { broker_of(broker) }?;
        // SAFETY: the caller passes a string or NULL.
        let owner = unsafe { label(owner) };
        Ok(register(Session::open(&broker, owner.as_deref())))
    })
}

/// Opens a session on a server. It has the same calls as a session in this process.
///
/// The session holds its locks while its connection is alive. If the connection breaks, or the
/// server cannot be reached any more, every call returns LOCK_LOST, and it does so before the
/// server gives the locks to another session. Nothing reconnects by itself, unless this is asked
/// for: see below.
///
/// One server may be at several places, tcp://HOST:PORT,HOST:PORT: the members of a cluster, of which
/// one is active. The library looks for that one, in the order given; a place that says nothing has
/// two seconds at most while others are left. If none is active, the server is away, and
/// lock_last_error says why for each place. What follows a ? stands after the last place.
///
/// Several servers, separated by commas and each with its scheme, share the names. Each name belongs
/// to one of them, the same one for every client that is given the same addresses (without a ? and
/// what follows it, and with the places of a server in any order), in any order. Connecting succeeds if at least one server answers. A server that does not answer, or
/// that is lost later, takes its names with it: every call with such a name returns LOCK_LOST, as
/// do lock_list and a lock_release_all that includes such a name, and no other server is asked for
/// the name. Other names are not affected, until lock_check returns LOCK_LOST: that is when the
/// session holds a lock or waits for one on a lost server, or when all servers are lost.
///
/// Over TLS the server must show a certificate for HOST, signed by somebody this program trusts. A
/// server that asks for a secret is shown it. Certificates, keys and the secret are read from
/// files, which follow a ? in the address, separated by &, as in
/// tls://example.org:20934?ca=/etc/lockd/ca.pem (certificates and keys in PEM; file names have no
/// escapes):
///
/// - ca=FILE: the authorities trusted to sign the server's certificate. Without it, those that the
///   system trusts: the file named by the environment variable SSL_CERT_FILE, or a well-known one;
/// - cert=FILE and key=FILE: the program's own certificate, if the server asks for one, and its
///   key, which may be in the same file;
/// - auth-token-file=FILE, also for tcp://HOST:PORT: the file with the server's secret. Without it,
///   the file named by the environment variable LOCKD_AUTH_TOKEN_FILE, if that is set. The secret
///   itself is never part of an address, because others may see addresses.
///
/// Sessions that resume: tcp://HOST:PORT?resume, tls://HOST:PORT?ca=FILE&resume or
/// unix:/PATH?resume asks for a session that survives the end of its connection, a restart or a
/// crash of the server. The server must have a state directory; lock_resumable tells whether it
/// offers this. When such a session loses its connection while it holds a lock, it is in doubt: the
/// server keeps the locks for a while, and the library connects again and shows what it holds. Then
/// the session continues with the same locks and tokens, or it is lost. While it is in doubt,
/// nothing may be begun on the strength of a lock: another session may get it as soon as this one
/// is lost. Work that is under way may go on to the next point where it can wait; there, call
/// lock_wait_certain, which waits for the verdict: resumed, or lost. Only what the lock does not
/// protect may go on after a loss. No proxy that ends TCP connections may be between the two: if it
/// dies, the server takes that for the end of the session, and frees its locks at once.
///
/// There is no thread that does this: every call of the session goes on with connecting. The
/// verdict comes at the latest 16.5 seconds after the library sent the last request that the server
/// has answered (with the usual dead-peer timeout of 25 seconds). If that is past when the
/// connection ends, the session is lost at once. So call lock_check every second or so, also while
/// all is well: it asks the server when the last answer is some seconds old. Calls that wait do so,
/// too. A session that holds nothing begins anew, and its calls that wait go on waiting.
///
/// In doubt, the calls do this: lock_acquire, lock_acquire_all, lock_wait and lock_convert to fewer
/// holders wait for up to their time limit, and then ask again, at the end of the queue; at the
/// limit they return LOCK_DOUBT. All others return LOCK_DOUBT at once. lock_release and
/// lock_release_all give the names up all the same: the server frees the locks when the session is
/// resumed or lost. A release that was sent before waits for the verdict, at most for the server's
/// dead-peer timeout. lock_close, lock_end and lock_abandon end the session. They free its locks at
/// once only as far as the server can be reached; otherwise the server frees them in its time, as
/// those of a session that does not come back.
///
/// @param url         tcp://HOST:PORT, tls://HOST:PORT or unix:/PATH; or an address as
///                    lock_server_address returns it and a server logs it: message://HOST:PORT,
///                    message+tls://HOST:PORT or message+unix:/PATH; or several, separated by
///                    commas. Without :PORT the port is 20934. A part without a scheme is another
///                    place of the server before it.
/// @param owner       As for lock_open.
/// @param timeout_ms  How long connecting may take in all, in milliseconds; negative: without
///                    limit. Each of several servers gets an equal share of the time left. The
///                    resolver's time does not count.
///
/// @return  The session, to be freed with lock_close; or NULL. Then lock_last_error says why, for
///          each of several servers: the address is malformed; the server cannot be reached,
///          does not answer in time, or is a standby; it is not lockd, or does not show a trusted certificate; one
///          side speaks TLS and the other does not; or it refuses this client. Only the text tells
///          these cases apart; there is no status for them.
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
        Ok(register(Session::connect_with(url, &options)?))
    })
}

/// Ends a session in an orderly way and frees it: its locks are freed as if they had been released,
/// and its places in queues are given up.
///
/// @param session  May be NULL. Must not be used any more, nor be in use by another thread. To end
///                 the calls that other threads are in, call lock_end; once they have returned, the
///                 session can be closed.
///
/// Any thread; waits for nothing, not even for a server that does not answer. (A server that takes
/// no bytes at the moment only notices the end of the connection, as if the program had crashed:
/// then the locks are orphaned.) If the session is in doubt (lock_connect), its locks are free at
/// once only as far as the server can be reached; otherwise in the server's time. In a forked child
/// it frees the handle, and the parent keeps its locks: the child's copy of the connection was
/// closed at the fork.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_close(session: *mut lock_session) {
    // SAFETY: the caller passes a session that is not used any more, or NULL.
    guard(|| unsafe { close(session) });
}

/// Ends a session in an orderly way without freeing its handle: its locks are freed as if they had
/// been released, and its places in queues are given up. On a server this closes the connection.
/// Calls of the session that are in progress in other threads return LOCK_LOST, and so do all later
/// ones. The handle must still be freed with lock_close. In doubt, as for lock_close.
///
/// @param session  The session. It may have ended already.
///
/// @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread, but not a signal handler; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_end(session: *mut lock_session) -> lock_status {
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_action(session, Session::close) }
}

/// Ends a session as lock_end does, but as if the program had crashed: the next exclusive holder of
/// each lock that the session held exclusively is told that the lock is orphaned (lock_info), since
/// the work under it may be half done. For a program that could not finish what it did under a
/// lock, and continues to run. In doubt, as for lock_close.
///
/// @param session  The session. If it has ended already, this changes nothing.
///
/// @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread, but not a signal handler; waits for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_abandon(session: *mut lock_session) -> lock_status {
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_action(session, Session::abandon) }
}

/// Closes every session that the calling thread has opened and that is still open. For a host that
/// runs one script after another in the same process, where a script may end without closing its
/// sessions: the host calls this before the next script begins. Since such a script may have ended
/// in the middle of its work, its locks count as orphaned, as after lock_abandon.
///
/// The handles must not be used any more, as after lock_close, nor be in use by another thread.
/// Brokers and servers are not affected. Neither are sessions that other threads have opened, even
/// if this thread has used them.
///
/// @return How many sessions were closed; 0 also if a bug in this library (LOCK_INTERNAL) prevented
///         that.
///
/// Any thread; waits for nothing. In a forked child, sessions that were opened before the fork do
/// not count and stay as they are: unusable, and to be freed with lock_close.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_close_all() -> usize {
    // SAFETY: the caller uses the sessions of this thread no more.
    guard(|| Ok(unsafe { abandon_all_of_this_thread() }))
}

/// Whether the session is alive and so still has its locks. For a loop that must stop when they are
/// lost.
///
/// @param session  The session.
///
/// @return LOCK_OK: it is alive, as far as can be known without asking the server;
///         LOCK_LOST: it has ended, and with it all its locks; lock_last_error says why. On a server
///         this is also the case if another part of the program has closed the connection's
///         descriptor. On several servers: the session holds a lock or waits for one on a server
///         that is lost, or all servers are lost. A lost server where it does neither makes no
///         difference. Locks on the other servers stay held until they are released or the session
///         is closed;
///         LOCK_DOUBT: only from a session that resumes. It has lost its connection; this call has
///         gone on with connecting again. See lock_connect. On several servers: if that is so for
///         one where the session holds a lock, and none is lost;
///         LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; never blocks. If the session resumes, this asks the server now and then, without
/// waiting for the answer: see lock_connect.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_check(session: *mut lock_session) -> lock_status {
    let body = |session: &Session| status_of(session.state());
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Waits for up to timeout_ms for the verdict: whether the session has its locks. For a program that
/// has been told LOCK_DOUBT, or is at a point where it can wait. For a session that does not resume
/// it is lock_check.
///
/// @param session     The session.
/// @param timeout_ms  In milliseconds; negative: for as long as it takes. While the session holds a
///                    lock, the verdict comes within the time that lock_connect names.
///
/// @return LOCK_OK: the session is alive, and has its locks;
///         LOCK_LOST: as from lock_check;
///         LOCK_DOUBT: there is no verdict yet, which is no loss: call it again. Before the time is
///         over only if lock_cancel or a signal handler has ended the wait;
///         LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread; blocks. lock_cancel and lock_end end it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_wait_certain(session: *mut lock_session, timeout_ms: i64) -> lock_status {
    let body = |session: &Session| status_of(session.wait_certain(limit(timeout_ms)));
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

fn status_of(state: SessionState) -> Result<lock_status, Failure> {
    match state {
        SessionState::Alive => Ok(lock_status::LOCK_OK),
        SessionState::InDoubt { reason, .. } => Err(Failure::from(InspectError::Doubt(reason))),
        SessionState::Lost { reason } => Err(Failure::from(InspectError::Lost(reason))),
    }
}

/// Whether the session resumes when it loses its connection: its address has asked for that
/// (lock_connect), and the server offers it; of several servers, each of them.
///
/// @param session  The session.
///
/// @return 1 or 0; -1 if session is NULL, in a forked child, or if a bug in this library
///         (LOCK_INTERNAL) prevented the answer.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_resumable(session: *mut lock_session) -> c_int {
    let body = |session: &Session| Ok(c_int::from(session.is_resumable()));
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// A descriptor for poll(2) that becomes readable when a session on a server is lost. It also
/// becomes readable when something else has arrived for the session, such as the grant of a
/// lock that lock_enqueue has asked for. So when it is readable, call lock_check, which reads
/// everything that has arrived and returns LOCK_OK or LOCK_LOST, or LOCK_DOUBT if the session
/// resumes.
///
/// A loop that has places in queues must call lock_wait with a limit of 0 for each of them before
/// it polls, every time: any call of the session may have read the grant along with its own answer,
/// and then the descriptor is not readable any more.
///
/// If the network is cut, poll alone may be too late: before Linux 6.15 the descriptor may become
/// readable only after the server has given the locks to somebody else, and on any Linux it may
/// never become readable while this machine drops what it sends to the server. lock_check tells in
/// time. So give poll a timeout of about a second, call lock_check each time poll returns, and call
/// it before each step that needs the lock.
///
/// After a loss the descriptor stays readable: when lock_check has returned LOCK_LOST, stop polling, or the
/// loop spins.
///
/// For a session that resumes, it becomes readable when doubt begins, when it ends, and in between
/// whenever lock_check would go on with connecting. LOCK_DOUBT is no loss: continue to poll. Then
/// call lock_check at least every second, as always: it also asks the server.
///
/// It is meaningful only while no call of the session is in progress. Do not read from it, and do
/// not close it: it belongs to the session. On several servers it is readable if one of the
/// connections is, so also when a server is lost where nothing is held: then lock_check returns
/// LOCK_OK, and the descriptor does not report that server any more.
///
/// @param session  The session.
///
/// @return The descriptor, the same one for the whole life of the session; -1 if there is none: for
///         a session in this process, in a forked child, or if session is NULL.
///
/// Any thread; never blocks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_lost_fd(session: *mut lock_session) -> c_int {
    let body = |session: &Session| Ok(session.lost_fd().map_or(-1, |fd| fd.as_raw_fd()));
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_session(session, body) }
}

/// Ends every call of a session that is in progress in another thread. Waits for locks,
/// lock_enqueue, lock_inspect, lock_inspect_slots and lock_list return LOCK_CANCELLED and leave the
/// session as it was: a lock that was to be converted stays held as before. Places where no call
/// waits are given up; the next lock_wait for such a place returns LOCK_CANCELLED, unless another
/// call with the same name has succeeded in between. A grant that came first stays, and its call
/// returns LOCK_OK; on a server, a grant has come when it has arrived in this process.
///
/// Giving something up cannot be taken back. So lock_release, lock_release_all and lock_convert to
/// a mode that allows more holders continue for up to a second, in which a working server confirms
/// them. If it does not, the session ends, and they return LOCK_LOST.
///
/// @param session  The session.
///
/// @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
///
/// Any thread, but not a signal handler; waits for nothing, not even for a server that takes no
/// bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lock_cancel(session: *mut lock_session) -> lock_status {
    // SAFETY: the caller passes a session that is not being closed, or NULL.
    unsafe { guard_action(session, Session::cancel) }
}
