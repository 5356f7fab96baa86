/*
 * lockd: named locks, held only by processes that are still there.
 *
 * Generated from the sources of liblockd; do not edit.
 *
 * A session is one owner of locks. lock_open opens a session in this process; lock_connect opens one
 * on a server, and lock_connect_and_acquire waits for the server and for locks, too. The other calls
 * are the same for both:
 *
 *     lock_session *session = lock_open(NULL, "invoices");
 *     uint64_t token;
 *     if (lock_acquire(session, "invoice/4711", LOCK_EXCLUSIVE, 5000, &token) == LOCK_OK) {
 *         ...
 *         lock_release(session, "invoice/4711");
 *     }
 *     lock_close(session);
 *
 * Rules for every function:
 *
 * - Linking. `pkg-config --cflags --libs lockd`, with --static for liblockd.a.
 * - Handles (lock_broker, lock_session, lock_server) are made by one function and freed by its
 *   counterpart, exactly once (or by lock_close_all). For a handle that is NULL, a call returns
 *   LOCK_INVALID and never crashes; freeing NULL does nothing.
 * - Strings end with a zero byte. They stay the caller's: the library copies what it still needs after the
 *   call. Text that functions return belongs to the library; do not free it. Text that lock_list
 *   writes belongs to the caller, who frees it with lock_list_free.
 * - Outputs are written only on LOCK_OK.
 * - Threads. Every function may be called from every thread, and several threads may use one handle
 *   at once. Only the function that frees the handle must be called when no other call is using it.
 * - Signals. The library installs no handlers and raises no SIGPIPE. Its own threads, which exist
 *   only while a lock_server runs, have all signals blocked. No function may be called from a signal
 *   handler.
 * - Thread cancellation (pthread_cancel) is disabled inside every function: none of them is a
 *   cancellation point, and afterwards the thread has its old cancellation state. Asynchronous
 *   cancellation must not be enabled in a thread that calls the library.
 * - The library's descriptors belong to the library. If another part of the program closes the
 *   descriptor of a session all the same, or closes all descriptors, calls of the session return
 *   LOCK_LOST, and the library does not touch another file that has the same number by then. A call that
 *   is waiting at that moment notices within some seconds.
 * - If a server does not answer, no call waits for longer than its dead-peer timeout (25 seconds,
 *   unless configured otherwise). The exceptions are lock_connect, lock_connect_and_acquire and calls
 *   that wait for a lock: they wait for up to their own time limit, and without one for ever.
 *   lock_wait_certain waits for up to its own time limit, too, but while the session holds a lock,
 *   not for longer than it can be in doubt (lock_connect).
 *   lock_cancel and lock_end end every call of a session.
 * - The library prints nothing and never ends the process.
 * - fork. Handles belong to the process that made them. In a forked child, each call with an
 *   inherited handle returns LOCK_FORKED (or NULL, or -1) and changes nothing. The functions that
 *   free handles free only the handle: its content stays in the child's memory, unused, since a
 *   thread of the parent may have been changing it at the fork. The parent's connections are closed in the child
 *   before fork returns there. The child opens sessions of its own, and has its own default broker.
 * - exec closes the library's descriptors, so all locks of the process that calls exec are freed.
 */


#ifndef LOCKD_H
#define LOCKD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * The result of a call. The numbers never change, and no number ever gets another meaning.
 *
 * If a call that takes a lock or changes its mode returns any status except LOCK_OK, LOCK_PENDING,
 * LOCK_INTERRUPTED, LOCK_LOST and LOCK_DOUBT, it has changed nothing. After LOCK_DOUBT a
 * conversion that was under way may have been done, and the place of lock_wait is kept. A
 * lock_release that returns LOCK_DOUBT has given the name up. After every status except LOCK_OK and
 * LOCK_PENDING, lock_last_error has a text for this call. It says more than lock_strerror where
 * more is known: above all after LOCK_INVALID, LOCK_REFUSED, LOCK_DEADLOCK, LOCK_LOST, LOCK_IO and
 * LOCK_INTERNAL, and after LOCK_ALREADY_HELD if the lock is held in another mode.
 */
typedef enum lock_status {
  /**
   * Done: the lock is held or freed, or the question is answered.
   */
  LOCK_OK = 0,
  /**
   * The session has a place in the queue, and does not hold the lock yet, or not yet in the mode
   * it asked for. From lock_enqueue and lock_enqueue_convert: lock_wait waits there. From a call
   * that would have taken a place: the session already has one, in the mode that the call asks
   * for (in another mode it is LOCK_INVALID). lock_wait waits there, unless another thread waits
   * there in lock_acquire.
   */
  LOCK_PENDING = 1,
  /**
   * Not granted within the time limit. With a limit of zero: another session holds the lock or
   * waits for it. From a call without a time limit: the server has not answered.
   */
  LOCK_TIMEOUT = 2,
  /**
   * The session neither holds this lock nor waits for it. From lock_wait: it has no place there.
   */
  LOCK_NOT_HELD = 3,
  /**
   * The session already holds this lock, perhaps in another mode than the call asks for:
   * lock_held_mode tells the mode, and lock_convert changes it. The session is one owner: if two
   * threads share it, only one of them may believe that it got the lock.
   */
  LOCK_ALREADY_HELD = 4,
  /**
   * Waiting would close a cycle of sessions that wait for each other. lock_last_error names
   * them; if there are more than 16, it names the first 16 and says how many there are. A server
   * may tell only the number.
   */
  LOCK_DEADLOCK = 5,
  /**
   * lock_cancel ended the call, or another thread that uses this session gave up its place in the
   * queue or received its outcome. From lock_connect_and_acquire: its report function ended it.
   */
  LOCK_CANCELLED = 6,
  /**
   * A signal handler ran while the thread waited. The session keeps its place in the queue: the
   * same call again, in the same mode, or lock_wait, goes on waiting there; lock_release gives it
   * up. Only lock_connect_and_acquire keeps nothing.
   */
  LOCK_INTERRUPTED = 7,
  /**
   * The call is invalid: NULL where it is not allowed, an unknown mode, a name that is too long,
   * a malformed address. Also if the session already waits for the lock, but in another mode than
   * the call asks for, or for several locks otherwise than all of them at once: what lock_wait
   * would return is then not what the call asks for. lock_release or lock_cancel gives that place
   * up.
   */
  LOCK_INVALID = 8,
  /**
   * Refused: a limit of the broker or server is reached, the server is stopping, it is older
   * than what is asked for (lock_at_most), or it grants nothing yet because the server before it
   * did not stop cleanly.
   */
  LOCK_REFUSED = 9,
  /**
   * The session has ended, perhaps because its connection is lost, and with it all its locks.
   * Nothing reconnects it. Close the session and open a new one. With several servers: the server
   * that the name belongs to is lost; lock_check says whether the session has lost any lock. From
   * lock_connect_and_acquire: there was no server.
   */
  LOCK_LOST = 10,
  /**
   * The handle was inherited by a forked child. It belongs to the parent alone, and nothing was
   * done.
   */
  LOCK_FORKED = 11,
  /**
   * The operating system has reported an error, for example that an address to listen on is in
   * use.
   */
  LOCK_IO = 12,
  /**
   * A bug in this library. If it was a call of a session, the session is lost.
   */
  LOCK_INTERNAL = 13,
  /**
   * Only from a session that resumes (lock_connect): it has lost its connection and is connecting
   * again. It may still have its locks, and may have lost them. So nothing may be begun under a
   * lock now; lock_check, or lock_wait_certain, tells whether it was resumed (LOCK_OK) or is lost
   * (LOCK_LOST).
   */
  LOCK_DOUBT = 14,
} lock_status;

/**
 * What lock_connect_and_acquire tells a lock_report. The function takes these as `uint32_t`. There
 * may be more of them in a later version: a program must ignore those that it does not know.
 */
typedef enum lock_event {
  /**
   * There is no server now, or the connection to it is lost, for the reason given. Comes for
   * every attempt that fails, so a program that prints it should do so once. The next attempt
   * follows after a random pause, the first time of at most half a second, later of at most four.
   */
  LOCK_EVENT_NO_SERVER = 0,
  /**
   * The locks are not free, and from now on the call waits in the queue. If the server grants
   * nothing at all yet, the reason says why; otherwise it is NULL.
   */
  LOCK_EVENT_WAITING = 1,
  /**
   * Nothing has changed: a signal handler has run in this thread, or a second has passed.
   */
  LOCK_EVENT_STILL_WAITING = 2,
} lock_event;

/**
 * How a lock is held. The functions take these as `uint32_t`, and also what lock_at_most makes: a
 * lock that several sessions hold, but only so many. Modes are no flags and cannot be combined.
 */
typedef enum lock_mode {
  /**
   * One holder alone.
   */
  LOCK_EXCLUSIVE = 0,
  /**
   * Any number of holders, none of them exclusive. So the plain number 1 is no limit; a limit of
   * 1 is LOCK_EXCLUSIVE, and lock_at_most(1) returns that.
   */
  LOCK_SHARED = 1,
} lock_mode;

/**
 * The locks of this process. Made by lock_broker_new, freed by lock_broker_free. Every function
 * that takes a broker also takes NULL, which means the default broker of the process.
 */
typedef struct lock_broker lock_broker;

/**
 * Listeners and connections that serve a broker to the network. Made by lock_serve or
 * lock_serve_with, freed by lock_server_stop.
 */
typedef struct lock_server lock_server;

/**
 * One owner of locks, in this process or on servers. Made by lock_open, lock_connect or
 * lock_connect_and_acquire, freed by lock_close.
 */
typedef struct lock_session lock_session;

/**
 * A function of the program that lock_connect_and_acquire calls while it waits: at each change, as
 * soon as a signal handler has run in the thread, and about once a second at least. So a program
 * that wants to end the wait, from a signal handler or from another thread, sets a variable that
 * this function returns.
 *
 * It runs in the thread that has called lock_connect_and_acquire, and should not take long. It may
 * call other functions of the library. It must return: no longjmp, no exception, no end of the
 * thread. pthread_cancel has no effect in it. If it forks and returns in the child, the call ends
 * there with LOCK_FORKED.
 *
 * @param event    A lock_event.
 * @param reason   More about the event, in UTF-8, until the function returns; or NULL.
 * @param context  As passed to lock_connect_and_acquire.
 *
 * @return 0 to go on waiting; anything else ends the wait.
 */
typedef int (*lock_report)(uint32_t event, const char *reason, void *context);

/**
 * The state of a lock, filled in by lock_inspect. It will never have other members; new functions
 * will return anything new.
 */
typedef struct lock_info {
  /**
   * The fencing token of this session's grant; 0 if it does not hold the lock.
   */
  uint64_t token;
  /**
   * The number of sessions that hold the lock; 0: it is free.
   */
  uint64_t holders;
  /**
   * The number of requests that wait for it.
   */
  uint64_t waiters;
  /**
   * The mode in which it is held, a lock_mode; LOCK_EXCLUSIVE if it is free. LOCK_SHARED also if
   * the number of holders is limited, as programs that know no limits expect: lock_inspect_slots
   * tells the limit, and lock_held_mode the mode of this session.
   */
  uint32_t mode;
  /**
   * Whether this session holds it.
   */
  bool held;
  /**
   * Whether this session has a place in its queue.
   */
  bool waiting;
  /**
   * Whether the last exclusive holder vanished without releasing it, so that its work may be
   * half done. While a session holds the lock exclusively: whether the exclusive holder before
   * it vanished: the new holder can still see this, and the holder after that is told only if the
   * new holder vanishes too.
   */
  bool orphaned;
} lock_info;

/**
 * How many sessions hold a lock, and how many more may, all at one moment. Filled in by
 * lock_inspect_slots. It will never have other members.
 */
typedef struct lock_slots {
  /**
   * The number of sessions that hold the lock; 0: it is free.
   */
  uint64_t holders;
  /**
   * The number of requests that wait for it. They come before any new request.
   */
  uint64_t waiters;
  /**
   * The limit in force: the smallest of its holders' limits, which is 1 if it is held
   * exclusively. 0: there is no limit, because it is free or all its holders have it
   * LOCK_SHARED.
   */
  uint32_t limit;
  /**
   * How many more sessions can hold it, as far as its holders are concerned: the limit in force
   * without the holders. UINT32_MAX: any number, because there is no limit. A request has a
   * limit of its own, too.
   */
  uint32_t free;
} lock_slots;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The mode of a lock that has at most n holders, for every function that takes a mode:
 *
 *   status = lock_acquire(session, "gpu", lock_at_most(4), 5000, &token);
 *
 * A holder is promised that there are never more than n holders, itself included, while it holds
 * the lock. So a lock is granted if, with the new holder, there are no more holders than its own n
 * and than the n of every other holder. LOCK_EXCLUSIVE is n = 1, and LOCK_SHARED has no limit.
 * Programs that name different limits need no agreement: the smallest limit of those that hold the
 * lock is in force (lock_inspect_slots tells it).
 *
 * Waiters are served first come, first served, whatever their limits: the first one that has to
 * wait delays all others. A slot is free at the moment at which its holder releases it or has
 * ended. `orphaned` in lock_info is about exclusive holders only: the next holder is not told that
 * a limited one vanished. (A server counts that, as sharedOrphans in its statistics, and logs it.)
 *
 * LOCK_DEADLOCK is returned if the session would wait in a cycle in which each session waits for
 * one that must go first: for a holder of an exclusive lock, or for every holder of a lock that it
 * wants exclusively. A session that waits because a limit is reached waits until enough of the
 * holders have gone, no matter which. Such a wait is never refused, even if in fact all of the
 * holders wait for this session. So where that could happen, wait with a time limit.
 *
 * A limit always comes from this function. A plain number above 1 is LOCK_INVALID everywhere, but
 * the plain number 1 is LOCK_SHARED, which is no limit at all. Modes are no flags, and no numbers
 * to count with: lock_at_most(4) | LOCK_SHARED is LOCK_INVALID, and so is lock_at_most(4) + 1.
 *
 * A server that is older than limited locks is asked for nothing: the call returns LOCK_REFUSED.
 *
 * @param n  From 1 to 16777215.
 * @return   The mode; LOCK_EXCLUSIVE for 1. For any other n a number that is no mode, and every
 *           function that takes a mode returns LOCK_INVALID for it.
 *
 * Any thread; never blocks.
 */
uint32_t lock_at_most(uint32_t n);

/**
 * The meaning of a status, in a few words of English.
 *
 * @param status  A lock_status; for any other number the text says that it is not one.
 * @return        Static text, never NULL.
 *
 * Any thread; never blocks.
 */
const char *lock_strerror(int status);

/**
 * Why the last failed call of this thread failed, such as the address that could not be reached,
 * or the sessions of a deadlock. If nothing is known beyond the status, it is the text of
 * lock_strerror. The text is complete: print it instead of that of lock_strerror, not after it. A
 * call that returns LOCK_OK, or LOCK_PENDING because it has taken a place, leaves it as it was.
 *
 * @return  Text of this thread, in UTF-8, valid until the thread's next call of this library;
 *          empty if no call has failed. Never NULL.
 *
 * Any thread; never blocks.
 */
const char *lock_last_error(void);

/**
 * The version of the library, as MAJOR.MINOR.PATCH.
 *
 * @return  Static text, never NULL.
 *
 * Any thread; never blocks.
 */
const char *lock_version(void);

/**
 * The version of the ABI: the number in the library's soname, 1 for this header. A program that
 * loads the library at run time (dlopen, FFI) should check it first.
 *
 * Any thread; never blocks.
 */
uint32_t lock_abi_version(void);

/**
 * Makes a separate broker: names locked in it are locked only for sessions of this broker. Most
 * programs do not need one, and pass NULL to use the default broker.
 *
 * @return  The broker, to be freed with lock_broker_free.
 *
 * Any thread; never blocks.
 */
struct lock_broker *lock_broker_new(void);

/**
 * Frees the handle of a broker. If the broker has sessions or servers, these continue: its locks stay until
 * the last of them is closed or stopped.
 *
 * @param broker  May be NULL. Must not be used any more, nor be in use by another thread.
 *
 * Any thread; never blocks. In a forked child it frees the handle and does not touch the parent's
 * broker.
 */
void lock_broker_free(struct lock_broker *broker);

/**
 * Opens a session in this process: one owner of locks in its broker.
 *
 * A session may be used by several threads at once, and a call that waits does not delay the
 * others. But the session is one owner: threads that compete for locks each open a session of
 * their own.
 *
 * @param broker  The broker; NULL: the default one.
 * @param owner   The session's name in listings and deadlock reports, in UTF-8. Anything beyond
 *                256 bytes is cut off. May be NULL.
 *
 * @return  The session, to be freed with lock_close; NULL if the broker was made by the parent
 *          process of a fork; then lock_last_error says so.
 *
 * Any thread; never blocks.
 */
struct lock_session *lock_open(struct lock_broker *broker, const char *owner);

/**
 * Opens a session on a server. It has the same calls as a session in this process.
 *
 * The session holds its locks while its connection is alive. If the connection breaks, or the
 * server cannot be reached any more, every call returns LOCK_LOST, and it does so before the
 * server gives the locks to another session. Nothing reconnects by itself, unless this is asked
 * for: see below.
 *
 * One server may be at several places, tcp://HOST:PORT,HOST:PORT: the members of a cluster, of which
 * one is active. The library looks for that one, in the order given; a place that says nothing has
 * two seconds at most while others are left. If none is active, the server is away, and
 * lock_last_error says why for each place. What follows a ? stands after the last place.
 *
 * Several servers, separated by commas and each with its scheme, share the names. Each name belongs
 * to one of them, the same one for every client that is given the same addresses (without a ? and
 * what follows it, and with the places of a server in any order), in any order. Connecting succeeds if at least one server answers. A server that does not answer, or
 * that is lost later, takes its names with it: every call with such a name returns LOCK_LOST, as
 * do lock_list and a lock_release_all that includes such a name, and no other server is asked for
 * the name. Other names are not affected, until lock_check returns LOCK_LOST: that is when the
 * session holds a lock or waits for one on a lost server, or when all servers are lost.
 *
 * Over TLS the server must show a certificate for HOST, signed by somebody this program trusts. A
 * server that asks for a secret is shown it. Certificates, keys and the secret are read from
 * files, which follow a ? in the address, separated by &, as in
 * tls://example.org:20934?ca=/etc/lockd/ca.pem (certificates and keys in PEM; file names have no
 * escapes):
 *
 * - ca=FILE: the authorities trusted to sign the server's certificate. Without it, those that the
 *   system trusts: the file named by the environment variable SSL_CERT_FILE, or a well-known one;
 * - cert=FILE and key=FILE: the program's own certificate, if the server asks for one, and its
 *   key, which may be in the same file;
 * - auth-token-file=FILE, also for tcp://HOST:PORT: the file with the server's secret. Without it,
 *   the file named by the environment variable LOCKD_AUTH_TOKEN_FILE, if that is set. The secret
 *   itself is never part of an address, because others may see addresses.
 *
 * Sessions that resume: tcp://HOST:PORT?resume, tls://HOST:PORT?ca=FILE&resume or
 * unix:/PATH?resume asks for a session that survives the end of its connection, a restart or a
 * crash of the server. The server must have a state directory; lock_resumable tells whether it
 * offers this. When such a session loses its connection while it holds a lock, it is in doubt: the
 * server keeps the locks for a while, and the library connects again and shows what it holds. Then
 * the session continues with the same locks and tokens, or it is lost. While it is in doubt,
 * nothing may be begun on the strength of a lock: another session may get it as soon as this one
 * is lost. Work that is under way may go on to the next point where it can wait; there, call
 * lock_wait_certain, which waits for the verdict: resumed, or lost. Only what the lock does not
 * protect may go on after a loss. No proxy that ends TCP connections may be between the two: if it
 * dies, the server takes that for the end of the session, and frees its locks at once.
 *
 * There is no thread that does this: every call of the session goes on with connecting. The
 * verdict comes at the latest 16.5 seconds after the library sent the last request that the server
 * has answered (with the usual dead-peer timeout of 25 seconds). If that is past when the
 * connection ends, the session is lost at once. So call lock_check every second or so, also while
 * all is well: it asks the server when the last answer is some seconds old. Calls that wait do so,
 * too. A session that holds nothing begins anew, and its calls that wait go on waiting.
 *
 * In doubt, the calls do this: lock_acquire, lock_acquire_all, lock_wait and lock_convert to fewer
 * holders wait for up to their time limit, and then ask again, at the end of the queue; at the
 * limit they return LOCK_DOUBT. All others return LOCK_DOUBT at once. lock_release and
 * lock_release_all give the names up all the same: the server frees the locks when the session is
 * resumed or lost. A release that was sent before waits for the verdict, at most for the server's
 * dead-peer timeout. lock_close, lock_end and lock_abandon end the session. They free its locks at
 * once only as far as the server can be reached; otherwise the server frees them in its time, as
 * those of a session that does not come back.
 *
 * @param url         tcp://HOST:PORT, tls://HOST:PORT or unix:/PATH; or an address as
 *                    lock_server_address returns it and a server logs it: message://HOST:PORT,
 *                    message+tls://HOST:PORT or message+unix:/PATH; or several, separated by
 *                    commas. Without :PORT the port is 20934. A part without a scheme is another
 *                    place of the server before it.
 * @param owner       As for lock_open.
 * @param timeout_ms  How long connecting may take in all, in milliseconds; negative: without
 *                    limit. Each of several servers gets an equal share of the time left. The
 *                    resolver's time does not count.
 *
 * @return  The session, to be freed with lock_close; or NULL. Then lock_last_error says why, for
 *          each of several servers: the address is malformed; the server cannot be reached,
 *          does not answer in time, or is a standby; it is not lockd, or does not show a trusted certificate; one
 *          side speaks TLS and the other does not; or it refuses this client. Only the text tells
 *          these cases apart; there is no status for them.
 *
 * Any thread; blocks.
 */
struct lock_session *lock_connect(const char *url,
                                  const char *owner,
                                  int64_t timeout_ms);

/**
 * Ends a session in an orderly way and frees it: its locks are freed as if they had been released,
 * and its places in queues are given up.
 *
 * @param session  May be NULL. Must not be used any more, nor be in use by another thread. To end
 *                 the calls that other threads are in, call lock_end; once they have returned, the
 *                 session can be closed.
 *
 * Any thread; waits for nothing, not even for a server that does not answer. (A server that takes
 * no bytes at the moment only notices the end of the connection, as if the program had crashed:
 * then the locks are orphaned.) If the session is in doubt (lock_connect), its locks are free at
 * once only as far as the server can be reached; otherwise in the server's time. In a forked child
 * it frees the handle, and the parent keeps its locks: the child's copy of the connection was
 * closed at the fork.
 */
void lock_close(struct lock_session *session);

/**
 * Ends a session in an orderly way without freeing its handle: its locks are freed as if they had
 * been released, and its places in queues are given up. On a server this closes the connection.
 * Calls of the session that are in progress in other threads return LOCK_LOST, and so do all later
 * ones. The handle must still be freed with lock_close. In doubt, as for lock_close.
 *
 * @param session  The session. It may have ended already.
 *
 * @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread, but not a signal handler; waits for nothing.
 */
enum lock_status lock_end(struct lock_session *session);

/**
 * Ends a session as lock_end does, but as if the program had crashed: the next exclusive holder of
 * each lock that the session held exclusively is told that the lock is orphaned (lock_info), since
 * the work under it may be half done. For a program that could not finish what it did under a
 * lock, and continues to run. In doubt, as for lock_close.
 *
 * @param session  The session. If it has ended already, this changes nothing.
 *
 * @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread, but not a signal handler; waits for nothing.
 */
enum lock_status lock_abandon(struct lock_session *session);

/**
 * Closes every session that the calling thread has opened and that is still open. For a host that
 * runs one script after another in the same process, where a script may end without closing its
 * sessions: the host calls this before the next script begins. Since such a script may have ended
 * in the middle of its work, its locks count as orphaned, as after lock_abandon.
 *
 * The handles must not be used any more, as after lock_close, nor be in use by another thread.
 * Brokers and servers are not affected. Neither are sessions that other threads have opened, even
 * if this thread has used them.
 *
 * @return How many sessions were closed; 0 also if a bug in this library (LOCK_INTERNAL) prevented
 *         that.
 *
 * Any thread; waits for nothing. In a forked child, sessions that were opened before the fork do
 * not count and stay as they are: unusable, and to be freed with lock_close.
 */
size_t lock_close_all(void);

/**
 * Whether the session is alive and so still has its locks. For a loop that must stop when they are
 * lost.
 *
 * @param session  The session.
 *
 * @return LOCK_OK: it is alive, as far as can be known without asking the server;
 *         LOCK_LOST: it has ended, and with it all its locks; lock_last_error says why. On a server
 *         this is also the case if another part of the program has closed the connection's
 *         descriptor. On several servers: the session holds a lock or waits for one on a server
 *         that is lost, or all servers are lost. A lost server where it does neither makes no
 *         difference. Locks on the other servers stay held until they are released or the session
 *         is closed;
 *         LOCK_DOUBT: only from a session that resumes. It has lost its connection; this call has
 *         gone on with connecting again. See lock_connect. On several servers: if that is so for
 *         one where the session holds a lock, and none is lost;
 *         LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; never blocks. If the session resumes, this asks the server now and then, without
 * waiting for the answer: see lock_connect.
 */
enum lock_status lock_check(struct lock_session *session);

/**
 * Waits for up to timeout_ms for the verdict: whether the session has its locks. For a program that
 * has been told LOCK_DOUBT, or is at a point where it can wait. For a session that does not resume
 * it is lock_check.
 *
 * @param session     The session.
 * @param timeout_ms  In milliseconds; negative: for as long as it takes. While the session holds a
 *                    lock, the verdict comes within the time that lock_connect names.
 *
 * @return LOCK_OK: the session is alive, and has its locks;
 *         LOCK_LOST: as from lock_check;
 *         LOCK_DOUBT: there is no verdict yet, which is no loss: call it again. Before the time is
 *         over only if lock_cancel or a signal handler has ended the wait;
 *         LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; blocks. lock_cancel and lock_end end it.
 */
enum lock_status lock_wait_certain(struct lock_session *session, int64_t timeout_ms);

/**
 * Whether the session resumes when it loses its connection: its address has asked for that
 * (lock_connect), and the server offers it; of several servers, each of them.
 *
 * @param session  The session.
 *
 * @return 1 or 0; -1 if session is NULL, in a forked child, or if a bug in this library
 *         (LOCK_INTERNAL) prevented the answer.
 *
 * Any thread; never blocks.
 */
int lock_resumable(struct lock_session *session);

/**
 * A descriptor for poll(2) that becomes readable when a session on a server is lost. It also
 * becomes readable when something else has arrived for the session, such as the grant of a
 * lock that lock_enqueue has asked for. So when it is readable, call lock_check, which reads
 * everything that has arrived and returns LOCK_OK or LOCK_LOST, or LOCK_DOUBT if the session
 * resumes.
 *
 * A loop that has places in queues must call lock_wait with a limit of 0 for each of them before
 * it polls, every time: any call of the session may have read the grant along with its own answer,
 * and then the descriptor is not readable any more.
 *
 * If the network is cut, poll alone may be too late: before Linux 6.15 the descriptor may become
 * readable only after the server has given the locks to somebody else, and on any Linux it may
 * never become readable while this machine drops what it sends to the server. lock_check tells in
 * time. So give poll a timeout of about a second, call lock_check each time poll returns, and call
 * it before each step that needs the lock.
 *
 * After a loss the descriptor stays readable: when lock_check has returned LOCK_LOST, stop polling, or the
 * loop spins.
 *
 * For a session that resumes, it becomes readable when doubt begins, when it ends, and in between
 * whenever lock_check would go on with connecting. LOCK_DOUBT is no loss: continue to poll. Then
 * call lock_check at least every second, as always: it also asks the server.
 *
 * It is meaningful only while no call of the session is in progress. Do not read from it, and do
 * not close it: it belongs to the session. On several servers it is readable if one of the
 * connections is, so also when a server is lost where nothing is held: then lock_check returns
 * LOCK_OK, and the descriptor does not report that server any more.
 *
 * @param session  The session.
 *
 * @return The descriptor, the same one for the whole life of the session; -1 if there is none: for
 *         a session in this process, in a forked child, or if session is NULL.
 *
 * Any thread; never blocks.
 */
int lock_lost_fd(struct lock_session *session);

/**
 * Ends every call of a session that is in progress in another thread. Waits for locks,
 * lock_enqueue, lock_inspect, lock_inspect_slots and lock_list return LOCK_CANCELLED and leave the
 * session as it was: a lock that was to be converted stays held as before. Places where no call
 * waits are given up; the next lock_wait for such a place returns LOCK_CANCELLED, unless another
 * call with the same name has succeeded in between. A grant that came first stays, and its call
 * returns LOCK_OK; on a server, a grant has come when it has arrived in this process.
 *
 * Giving something up cannot be taken back. So lock_release, lock_release_all and lock_convert to
 * a mode that allows more holders continue for up to a second, in which a working server confirms
 * them. If it does not, the session ends, and they return LOCK_LOST.
 *
 * @param session  The session.
 *
 * @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread, but not a signal handler; waits for nothing, not even for a server that takes no
 * bytes.
 */
enum lock_status lock_cancel(struct lock_session *session);

/**
 * Opens a session on a server and acquires locks with it, waiting for up to timeout_ms in all.
 * Waits through whatever happens to the server meanwhile: that it is not up yet, stops, restarts
 * or crashes, or that the network fails. For jobs and workers that only need the lock some time:
 * while they wait they hold nothing, so a lost connection costs them no more than their place in
 * the queue. The call then connects again, after random pauses of up to half a second at first and
 * four seconds later, and waits at the end of the queue.
 *
 * From its return on, the session is like one of lock_connect with the same address. If the call
 * fails, nothing is left of it, neither a session nor a place in a queue.
 *
 * @param url         As for lock_connect. Of several servers, only the one that the names belong
 *                    to is asked, and waited for; calls of the session with names of the others
 *                    return LOCK_LOST.
 * @param owner       As for lock_open.
 * @param names       The names, as for lock_acquire_all.
 * @param modes       As many modes; NULL: all exclusive.
 * @param n           The number of names: from 1 to 1024.
 * @param timeout_ms  In milliseconds; 0: one attempt, without waiting for a lock; negative:
 *                    without limit. Each attempt to connect takes 10 seconds at most, and no
 *                    longer than timeout_ms unless that is 0. The resolver's time does not count.
 * @param report      Is told what happens, and can end the wait: see lock_report. May be NULL.
 * @param context     Is passed to report. May be NULL.
 * @param token       Receives the fencing token, as from lock_acquire_all. May be NULL.
 * @param session     Receives the session, to be freed with lock_close.
 *
 * @return LOCK_OK: the session holds the locks, as after lock_acquire;
 *         LOCK_TIMEOUT: there is a server, but it has not granted the locks in time;
 *         LOCK_LOST: there was no server when the time was over, or the connection to it was lost
 *         and the time was over before there was another one. lock_last_error says why;
 *         LOCK_CANCELLED: report has ended the wait;
 *         LOCK_INTERRUPTED: report is NULL, and a signal handler has run in this thread. Unlike
 *         after other calls, no place is kept;
 *         LOCK_FORKED: report has forked, and this is the child;
 *         LOCK_INTERNAL;
 *         a mistake that waiting does not cure, at once. LOCK_INVALID: the address, a name, a mode
 *         or NULL, or names that belong to different servers. LOCK_REFUSED: one side speaks TLS
 *         and the other does not, a certificate or the secret is not accepted, it is no lockd or
 *         one that is older than limited locks, or a limit of the server is reached. LOCK_IO: the
 *         host's name is unknown, or the cause is in this program: a file that cannot be read, no
 *         permission, no descriptors left.
 *
 * A handler that runs just before the thread begins to sleep does not wake it. With report, the
 * call looks up a second later; without it, it goes on waiting. While the resolver looks for the
 * host, nothing is noticed.
 *
 * Any thread; blocks.
 */
enum lock_status lock_connect_and_acquire(const char *url,
                                          const char *owner,
                                          const char *const *names,
                                          const uint32_t *modes,
                                          size_t n,
                                          int64_t timeout_ms,
                                          lock_report report,
                                          void *context,
                                          uint64_t *token,
                                          struct lock_session **session);

/**
 * Acquires a lock, waiting for up to timeout_ms. Waiters are served first come, first served.
 *
 * @param session     The session.
 * @param name        The lock's name: any bytes except zero, 1024 of them at most; it may be
 *                    empty.
 * @param mode        LOCK_EXCLUSIVE, LOCK_SHARED, or lock_at_most(n): n holders at most.
 * @param timeout_ms  In milliseconds; 0: do not wait; negative: without limit.
 * @param token       Receives the fencing token on LOCK_OK: a number higher than that of every
 *                    earlier grant of this name, below 2^53. If every holder is exclusive, what
 *                    the lock protects can remember the highest one for each name, and refuse a
 *                    lower one. Holders at the same time have different ones, so what a shared or
 *                    limited lock protects must not refuse the lower one. Tokens of different
 *                    names cannot be compared. May be NULL.
 *
 * @return LOCK_OK: the session holds the lock. On a server: it was granted on a connection that
 *         was alive when the answer was read;
 *         LOCK_TIMEOUT, LOCK_ALREADY_HELD, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID,
 *         LOCK_REFUSED, LOCK_LOST, LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL;
 *         LOCK_PENDING: the session already has a place in this queue, in the same mode, where
 *         lock_wait waits. If it has one in another mode, LOCK_INVALID;
 *         LOCK_INTERRUPTED: on a server only. A signal handler ran in this thread. The session
 *         keeps its place in the queue, for the rest of timeout_ms. The same call again, in the
 *         same mode, or lock_wait, goes on waiting; lock_release gives the place up.
 *
 * Any thread; blocks, for up to a second longer than timeout_ms if the server does not answer.
 * lock_cancel and lock_end end it.
 */
enum lock_status lock_acquire(struct lock_session *session,
                              const char *name,
                              uint32_t mode,
                              int64_t timeout_ms,
                              uint64_t *token);

/**
 * Acquires several locks at once or none of them, waiting for up to timeout_ms until all are free
 * at the same time. Holds none of them while it waits, so such calls never deadlock among
 * themselves.
 *
 * @param session     The session.
 * @param names       The names, all different, each as for lock_acquire, and with at most 131072
 *                    bytes together. On several servers all must belong to the same one.
 * @param modes       As many modes; NULL: all exclusive.
 * @param n           The number of names: from 1 to 1024.
 * @param timeout_ms  As for lock_acquire.
 * @param token       Receives the fencing token, one for all of them: higher than that of every
 *                    earlier grant of each of them. May be NULL.
 *
 * @return As lock_acquire. LOCK_ALREADY_HELD if the session holds any of them. LOCK_PENDING only
 *         if it already has one place for all of them, in the same modes; LOCK_INVALID if it waits
 *         for any of them otherwise. After LOCK_INTERRUPTED there is one place for all of them:
 *         call lock_wait or lock_release with any of the names.
 *
 * Any thread; blocks, as lock_acquire.
 */
enum lock_status lock_acquire_all(struct lock_session *session,
                                  const char *const *names,
                                  const uint32_t *modes,
                                  size_t n,
                                  int64_t timeout_ms,
                                  uint64_t *token);

/**
 * Changes the mode of a lock that the session holds, without releasing it, from any mode to any
 * other. To one that allows more holders, as from LOCK_EXCLUSIVE to LOCK_SHARED or from
 * lock_at_most(2) to lock_at_most(4), it does not wait for other sessions. To one that allows
 * fewer, it waits until there are no more holders than that, ahead of everybody who waits for the
 * lock. If two sessions that hold the lock both want it exclusively, the second one's call is a
 * deadlock.
 *
 * @param session     The session.
 * @param name        The name.
 * @param mode        The new mode.
 * @param timeout_ms  As for lock_acquire.
 *
 * @return LOCK_OK: the lock is held in this mode (or was already). If the mode allows fewer
 *         holders than before, the lock has a new token, which lock_token returns;
 *         LOCK_NOT_HELD: the session does not hold it;
 *         LOCK_PENDING: another thread waits to change it to this mode, or lock_enqueue_convert has
 *         taken a place for that. If it is to be changed to yet another mode, LOCK_INVALID;
 *         LOCK_TIMEOUT, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED: it is held as
 *         before;
 *         LOCK_LOST, LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL;
 *         LOCK_INTERRUPTED: on a server only. The lock is held as before, and has the new mode
 *         once enough of the other holders are gone, unless that takes longer than timeout_ms. The
 *         same call again, or lock_wait, returns the outcome; lock_cancel ends the attempt.
 *
 * To a mode that allows more holders, on a server: the conversion cannot be taken back, since
 * others may have come in. If the server does not confirm it in time, it is unknown what the
 * session holds, so the session ends: LOCK_LOST. In time means: within timeout_ms and a second,
 * within the server's dead-peer timeout, and within a second of lock_cancel.
 *
 * Any thread; blocks, as lock_acquire.
 */
enum lock_status lock_convert(struct lock_session *session,
                              const char *name,
                              uint32_t mode,
                              int64_t timeout_ms);

/**
 * Takes a place in a lock's queue without waiting there: the first half of lock_acquire, for
 * callers that must do something else now and then while they wait. lock_wait is the second half.
 *
 * @param session  The session.
 * @param name     The name.
 * @param mode     As for lock_acquire.
 *
 * @return LOCK_OK: the lock was free, and the session holds it; lock_token returns its token;
 *         LOCK_PENDING: the session has a place in the queue (or had one already, in the same
 *         mode). When its turn comes, the session holds the lock, even if lock_wait is never
 *         called; lock_release gives up the place or the lock. On a server, lock_inspect and
 *         lock_convert treat the session as waiting until lock_wait has returned the grant;
 *         LOCK_INVALID: also if the session already has a place in another mode, which it keeps;
 *         LOCK_TIMEOUT: the server has not answered within its dead-peer timeout; the session has
 *         no place;
 *         LOCK_ALREADY_HELD, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_REFUSED, LOCK_LOST, LOCK_DOUBT, LOCK_FORKED,
 *         LOCK_INTERNAL.
 *
 * Any thread; waits only for the server, at most for its dead-peer timeout.
 */
enum lock_status lock_enqueue(struct lock_session *session,
                              const char *name,
                              uint32_t mode);

/**
 * Asks for another mode of a lock that the session holds, without waiting for it: the first half
 * of lock_convert, as lock_enqueue is the first half of lock_acquire. lock_wait is the second
 * half. A conversion to a mode that allows more holders never has to wait.
 *
 * To give up the place but keep the lock, call lock_cancel, which also ends every other wait of
 * the session, and then lock_wait: LOCK_CANCELLED means that the lock is held as before, LOCK_OK
 * that it had been converted first. lock_release gives up the place and the lock.
 *
 * @param session  The session.
 * @param name     The name.
 * @param mode     The new mode.
 *
 * @return LOCK_OK: the lock is held in that mode (or was already). If the mode allows fewer
 *         holders than before, the lock has a new token, which lock_token returns;
 *         LOCK_PENDING: the session has a place ahead of everybody who waits for the lock (or had
 *         one already, for the same mode), and holds the lock as it did. When enough of the other
 *         holders are gone, the lock has the new mode, even if lock_wait is never called; on a
 *         server, lock_inspect shows it as held as before and as waited for until lock_wait has
 *         returned the grant;
 *         LOCK_NOT_HELD: the session does not hold it;
 *         LOCK_TIMEOUT: the server has not answered within its dead-peer timeout. The session has
 *         no place, and the lock is held as before;
 *         LOCK_INVALID: also if the session already has a place for another mode, which it keeps;
 *         LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED: it is held as before;
 *         LOCK_LOST: also as for lock_convert to a mode that allows more holders;
 *         LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; waits only for the server, at most for its dead-peer timeout.
 */
enum lock_status lock_enqueue_convert(struct lock_session *session,
                                      const char *name,
                                      uint32_t mode);

/**
 * Waits for up to timeout_ms at a place that lock_enqueue or lock_enqueue_convert has taken, or
 * that an interrupted call has kept.
 *
 * @param session     The session.
 * @param name        The name.
 * @param timeout_ms  As for lock_acquire; 0: only look whether the lock has been granted.
 * @param token       Receives the fencing token on LOCK_OK. May be NULL.
 *
 * @return LOCK_OK: the session holds the lock in the mode it asked for;
 *         LOCK_TIMEOUT: not granted yet. The session keeps its place, however often this happens. The
 *         exception is the place of an interrupted call whose own timeout_ms is over: it is gone,
 *         and the next lock_wait returns LOCK_NOT_HELD;
 *         LOCK_INTERRUPTED: on a server only. A signal handler ran in this thread; the session
 *         keeps its place;
 *         LOCK_NOT_HELD: there is no such place; perhaps its outcome has been returned already.
 *         This says nothing about the lock itself, which the session may hold: lock_token tells;
 *         LOCK_CANCELLED: lock_cancel or lock_release has given up the place. If lock_cancel has
 *         given up a place that was to convert a lock, the lock is held as before;
 *         LOCK_DEADLOCK: on a server only, if the call was interrupted before the server had
 *         answered it;
 *         LOCK_INVALID, LOCK_REFUSED, LOCK_LOST, LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; blocks.
 */
enum lock_status lock_wait(struct lock_session *session,
                           const char *name,
                           int64_t timeout_ms,
                           uint64_t *token);

/**
 * Releases a lock, and the next waiter gets it at the same moment; or gives up the session's place
 * in the lock's queue (for all the names, if lock_acquire_all took it).
 *
 * @param session  The session.
 * @param name     The name.
 *
 * @return LOCK_OK: done. On a server: it has confirmed it;
 *         LOCK_NOT_HELD: the session neither holds the lock nor waits for it;
 *         LOCK_LOST: the session has ended. On a server also: the server has not confirmed the
 *         release within its dead-peer timeout, or not within a second of lock_cancel. Then it is
 *         unknown what the session holds, so the session ends, and with it all its locks;
 *         LOCK_DOUBT: the session is in doubt (lock_connect). The name is given up all the same;
 *         LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; waits only for the server, at most for its dead-peer timeout.
 */
enum lock_status lock_release(struct lock_session *session, const char *name);

/**
 * Releases several locks, or gives up the places in their queues, however they were acquired.
 *
 * @param session  The session.
 * @param names    The names.
 * @param n        The number of names; 0 does nothing.
 *
 * @return As lock_release. LOCK_NOT_HELD if that is so for any of them; the others are released
 *         all the same.
 *
 * Any thread; waits as lock_release does.
 */
enum lock_status lock_release_all(struct lock_session *session, const char *const *names, size_t n);

/**
 * The fencing token of a lock that the session holds. Use it after calls that do not return it:
 * lock_convert, and lock_enqueue and lock_enqueue_convert that return LOCK_OK. Asks no server; it
 * returns what the session's own calls have learned. So after one of these calls it is the token
 * of that grant, unless another thread of the session has changed what is held in the meantime.
 *
 * @param session  The session.
 * @param name     The name.
 * @param token    Receives the token. May be NULL, to ask only whether the lock is held.
 *
 * @return LOCK_OK: the lock is held, as far as can be known without asking the server;
 *         LOCK_NOT_HELD: it is not held. On a server also for a lock that lock_enqueue has asked
 *         for, until lock_wait has returned the grant;
 *         LOCK_LOST, LOCK_DOUBT, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; never blocks.
 */
enum lock_status lock_token(struct lock_session *session, const char *name, uint64_t *token);

/**
 * The mode in which the session holds a lock, such as lock_at_most(4); other holders may have
 * other modes. Asks no server, as lock_token.
 *
 * @param session  The session.
 * @param name     The name.
 * @param mode     Receives the mode, as functions take it: it can be passed to lock_convert later,
 *                 to have the lock as it was. May be NULL.
 *
 * @return As lock_token.
 *
 * Any thread; never blocks.
 */
enum lock_status lock_held_mode(struct lock_session *session, const char *name, uint32_t *mode);

/**
 * Returns the current state of a lock.
 *
 * @param session  The session.
 * @param name     The name.
 * @param out      Receives the state on LOCK_OK.
 *
 * @return LOCK_OK;
 *         LOCK_TIMEOUT: the server has not answered within its dead-peer timeout;
 *         LOCK_CANCELLED: lock_cancel came before the answer. In both cases the session is as it
 *         was;
 *         LOCK_INVALID, LOCK_REFUSED, LOCK_LOST, LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; waits only for the server, at most for its dead-peer timeout.
 */
enum lock_status lock_inspect(struct lock_session *session,
                              const char *name,
                              struct lock_info *out);

/**
 * Returns the limit of a lock that is in force, its holders and its free slots.
 *
 * @param session  The session.
 * @param name     The name.
 * @param out      Receives them on LOCK_OK.
 *
 * @return As lock_inspect.
 *
 * Any thread; waits as lock_inspect does.
 */
enum lock_status lock_inspect_slots(struct lock_session *session,
                                    const char *name,
                                    struct lock_slots *out);

/**
 * Lists the locks of the session's broker or server that any session holds or waits for: one page
 * of them, in the order of the bytes of their names.
 *
 * The page is a JSON object, as the command list of docs/protocol.md returns it, but without its
 * status:
 *
 *   {"locks":[{"lockName":"invoice/4711","mode":"exclusive",
 *              "holders":[{"address":"127.0.0.1:60916","name":"invoices","token":1795,"heldFor":9.5,
 *                          "session":12,"inDoubt":1.25}],
 *              "waiters":[{"address":"unix:7","name":null,"mode":"shared","waitingFor":0.25,
 *                          "session":14}]}],
 *    "more":false}
 *
 * `mode` is null if there are only waiters. If the number of holders is limited, `mode` is shared,
 * and `limit` is present: for the lock the limit in force, for a holder and a waiter its own.
 * `orphaned` is present, and true, if lock_inspect would say so. `session` is the number of the
 * session, by which a holder of one lock is found among the waiters for another. `inDoubt` is
 * present only for a session that can resume and has lost its connection: for how many seconds.
 * `heldFor` counts from the grant, or from when the session resumed at a later server. For a name
 * that is not UTF-8, `lockNameHex` has its bytes in hexadecimal, and `lockName` has the same name
 * with a replacement character for what is not UTF-8. If `more` is true, ask for the next page
 * with the bytes of the last name as `after`. The pages are no snapshot, but a lock that is there
 * all the time is on exactly one page. On several servers the page covers all of them, and a name
 * is shown as it is on the server that it belongs to.
 *
 * @param session  The session.
 * @param prefix   Only names that begin with this. NULL: all.
 * @param after    Only names that come after this one. NULL: from the first.
 * @param limit    The number of locks, 1000 at most; 0: 100. A page has fewer if its JSON would be
 *                 longer than a quarter of a mebibyte. If a single lock is longer than that, some
 *                 of its holders and waiters are left out, and counted as `moreHolders` and
 *                 `moreWaiters`. A page has more locks if it would end with a name that has a zero
 *                 byte in it, which `after` cannot express: then it goes on to the next name
 *                 without one.
 * @param json     Receives the page, to be freed with lock_list_free. UTF-8, ending with a zero
 *                 byte.
 *
 * @return LOCK_OK;
 *         LOCK_INVALID: session or json is NULL; on a server also: prefix or after is longer than
 *         a request may be, which is a mebibyte;
 *         LOCK_REFUSED: the server does not let clients list (--no-dump), or does not know this command;
 *         LOCK_TIMEOUT, LOCK_CANCELLED: as for lock_inspect;
 *         LOCK_LOST, LOCK_DOUBT, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; waits only for the server, as lock_inspect does. It looks at every name, so it takes a
 * while if there are a million; no other call is delayed by that.
 */
enum lock_status lock_list(struct lock_session *session,
                           const char *prefix,
                           const char *after,
                           uint64_t limit,
                           char **json);

/**
 * Frees a page that lock_list has returned.
 *
 * @param json  May be NULL. Must not be used any more.
 *
 * Any thread; never blocks. Also in a forked child.
 */
void lock_list_free(char *json);

/**
 * Serves a broker to other processes. Starts threads: one for each address, one for maintenance,
 * and one for each connection, all with all signals blocked. Sessions in this program continue to
 * use the broker as before.
 *
 * @param broker  The broker; NULL: the default one.
 * @param listen  The addresses to listen on, separated by commas: PROTOCOL://HOST:PORT or
 *                PROTOCOL+unix:PATH, where PROTOCOL is lockd, glockd or message (which
 *                lock_connect speaks); glockd+ws is glockd in WebSocket. Port 0 takes a free port,
 *                which lock_server_address returns. A Unix socket accepts only this user. For TLS,
 *                a secret and more see lock_serve_with.
 * @param allow   The addresses that may connect over TCP, separated by commas: IP or IP/BITS. NULL
 *                or empty: this machine only, whatever address is bound.
 * @param out     Receives the server, to be stopped with lock_server_stop.
 *
 * @return LOCK_OK;
 *         LOCK_INVALID: listen or out is NULL, or an address is malformed;
 *         LOCK_IO: an address cannot be bound, or a thread cannot be started; then nothing is
 *         served;
 *         LOCK_FORKED: the broker is that of a parent process; LOCK_INTERNAL.
 *
 * Any thread. If listen has host names, blocks while they are resolved.
 */
enum lock_status lock_serve(struct lock_broker *broker,
                            const char *listen,
                            const char *allow,
                            struct lock_server **out);

/**
 * As lock_serve, but with any options of a server: those of the program lockd (`lockd serve --help`),
 * by their long names without the dashes, with their values as text. `listen` must be among them.
 *
 * ```c
 * const char *names[] = {"listen", "allow", "tls-cert", "tls-key", "no-dump"};
 * const char *values[] = {"message+tls://0.0.0.0:20934", "10.0.0.0/8", "cert.pem", "key.pem", "true"};
 * status = lock_serve_with(NULL, names, values, 5, &server);
 * ```
 *
 * An option that takes no value on the command line is "true" or "false" here. `listen`, `allow`
 * and `ws-origin` take several values, separated by commas or as several options of that name. An
 * option that is not given has the value that lock_serve uses.
 *
 * - locks-max, locks-per-connection-max, waits-per-connection-max and name-max are limits of the
 *   broker, so they also apply to the sessions in this program.
 * - state-dir makes the broker continue where the last broker with that directory ended, as `lockd
 *   --state-dir`. It must come before any other use of the broker (lock_open, lock_serve). If the
 *   directory is new, nothing is granted until the dead-peer timeout has passed, unless
 *   first-start says that there was no server before.
 *   lock_server_stop of this server then ends the broker: nothing is granted any more, not even to
 *   sessions in this program.
 * - http, http-host, config, check, pidfile, user and log-level are only for the program lockd,
 *   and are refused.
 *
 * @param broker  The broker; NULL: the default one.
 * @param names   The options' names.
 * @param values  As many values.
 * @param n       The number of options.
 * @param out     Receives the server, to be stopped with lock_server_stop.
 *
 * @return LOCK_OK;
 *         LOCK_INVALID: out, names or values is NULL, or an element of names or values is NULL;
 *         there is no such option; a value is malformed, or names a file that cannot be read: then
 *         lock_last_error begins with the option's name;
 *         LOCK_IO: an address cannot be bound, a thread cannot be started, or the state directory
 *         cannot be used;
 *         LOCK_FORKED: the broker is that of a parent process; LOCK_INTERNAL. Unless it is
 *         LOCK_OK, nothing is served.
 *
 * Any thread. Reads files. If there are host names among the addresses, blocks while they are
 * resolved.
 */
enum lock_status lock_serve_with(struct lock_broker *broker,
                                 const char *const *names,
                                 const char *const *values,
                                 size_t n,
                                 struct lock_server **out);

/**
 * An address that a server listens on, in the form in which lock_serve takes it. lock_connect
 * takes it too if the protocol is message. For port 0 it has the port that was taken; the path of
 * a Unix socket is absolute.
 *
 * @param server  The server.
 * @param index   Which address, counted from 0, in the order in which they were given to lock_serve. A host
 *                name that has several addresses counts once for each, in their order.
 * @param buf     Receives the address, with a zero byte at its end.
 * @param len     The size of buf in bytes. 300 are enough for any address except one with a long
 *                host name.
 *
 * @return LOCK_OK;
 *         LOCK_INVALID: server or buf is NULL, there is no such address, or buf is too small (then
 *         lock_last_error says how many bytes are needed, and nothing is written);
 *         LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; never blocks.
 */
enum lock_status lock_server_address(const struct lock_server *server,
                                     size_t index,
                                     char *buf,
                                     size_t len);

/**
 * Stops a server and frees it: closes its listeners and connections, frees the locks of those
 * connections, and joins every thread it started. The broker and the sessions in this program stay
 * as they are.
 *
 * @param server  May be NULL. Must not be used any more, nor be in use by another thread.
 *
 * If the server was given a state directory (lock_serve_with), the broker ends too. The next start
 * with that directory grants at once if all clients that held locks could be told that they are
 * lost. If some of them can resume (lock_connect), it grants as soon as they are back, or after
 * the dead-peer timeout; if one could not be told, only after the dead-peer timeout. If sessions
 * in this program still hold locks of the broker, no other server can use the directory until the
 * process ends.
 *
 * Any thread; blocks until the threads have ended, normally for milliseconds. But a client that
 * holds locks and cannot be told that they are lost takes up to the dead-peer timeout (25 seconds
 * unless configured otherwise), and a client that asked for time to end its work takes up to twice
 * that. If another part of the program has closed the server's descriptors, it may block for ever.
 * In a forked child it frees the handle and does not touch the parent's server.
 */
void lock_server_stop(struct lock_server *server);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LOCKD_H */
