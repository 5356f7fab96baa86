/*
 * lockd: named locks, held only by processes that are still there.
 *
 * Made from the sources of liblockd; not to be edited.
 *
 * A name is locked by a session, which is one owner of locks. lock_open opens a session in this process;
 * lock_connect opens one on a server. All that follows is the same for both:
 *
 *     lock_session *session = lock_open(NULL, "invoices");
 *     uint64_t token;
 *     if (lock_acquire(session, "invoice/4711", LOCK_EXCLUSIVE, 5000, &token) == LOCK_OK) {
 *         ...
 *         lock_release(session, "invoice/4711");
 *     }
 *     lock_close(session);
 *
 * What holds for every function:
 *
 * - Linking. `pkg-config --cflags --libs lockd`, with --static for liblockd.a.
 * - Handles (lock_broker, lock_session, lock_server) are made by one function and freed by its
 *   counterpart, exactly once (or by lock_close_all). A handle that is NULL is a status, LOCK_INVALID, never
 *   a crash; freeing NULL does nothing.
 * - Strings end with a zero byte, are copied where they are needed longer than the call, and stay the
 *   caller's. Text that functions return is the library's; do not free it. The text that lock_list writes
 *   is the caller's, and freed with lock_list_free.
 * - Outputs are written on LOCK_OK only.
 * - Threads. Every function may be called from every thread, and several threads may use one handle at
 *   once. The exception is the function that frees it: nothing else may be using the handle then.
 * - Signals. The library installs no handlers, raises no SIGPIPE, and its own threads, which there are
 *   only while a lock_server runs, have all signals blocked. No function may be called from a signal
 *   handler.
 * - Thread cancellation (pthread_cancel) is disabled inside every function: none is a cancellation point, and
 *   the thread's state is afterwards what it was before. Asynchronous cancellation must not be enabled in a
 *   thread that calls the library.
 * - Descriptors of the library are its own. If another part of the program closes that of a session all the
 *   same, or all that are open, the session is LOCK_LOST, and what has the number by then is left alone.
 *   A call that is waiting just then notices within some seconds.
 * - A server that does not answer keeps no call waiting for longer than its dead-peer timeout (25 seconds,
 *   unless it was told otherwise). Calls that wait for a lock, and lock_connect, keep to their own time limit
 *   instead, if they have one. lock_cancel and lock_end end every call of a session.
 * - It prints nothing, and never ends the process.
 * - fork. Handles are their process's own. In a forked child each call with an inherited one returns
 *   LOCK_FORKED (or NULL, or -1) and changes nothing. The functions that free it free the handle; what was
 *   behind it stays in the child's memory, out of use, since a thread of the parent may have been at work
 *   on it. The connections of the parent are closed in the child before fork returns there. The child
 *   opens sessions of its own; its default broker is its own, too.
 * - exec. Descriptors of the library are not inherited through exec; the locks go with the process.
 */


#ifndef LOCKD_H
#define LOCKD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * What a call came to. The numbers never change, and none is ever given another meaning.
 *
 * Of a call that takes a lock or changes its mode, any status but LOCK_OK, LOCK_PENDING, LOCK_INTERRUPTED
 * and LOCK_LOST means that it has changed nothing. lock_last_error says more about a status that is not
 * LOCK_OK.
 */
typedef enum lock_status {
  /**
   * Done: the lock is held, or freed, or the question is answered.
   */
  LOCK_OK = 0,
  /**
   * The session has a place in the queue, and does not hold the lock yet, or not yet in the mode it asked
   * for. From lock_enqueue and lock_enqueue_convert: lock_wait waits there. From a call that would have taken a place: the session had one already, at which lock_wait
   * waits, unless another thread is waiting there in lock_acquire.
   */
  LOCK_PENDING = 1,
  /**
   * Not granted within the time limit. For a limit of zero: somebody else holds it, or waits for it. Of a
   * call without a time limit: the server has not answered.
   */
  LOCK_TIMEOUT = 2,
  /**
   * The session does not hold this lock, nor wait for it. From lock_wait: it has no place there to wait at.
   */
  LOCK_NOT_HELD = 3,
  /**
   * The session holds this lock already. It is one owner: of two threads that share it, only one
   * may believe that it got the lock.
   */
  LOCK_ALREADY_HELD = 4,
  /**
   * Waiting would close a circle of sessions that wait for each other. lock_last_error names them; of more
   * than 16 only the first 16, and says how many there are. A server may tell the number alone.
   */
  LOCK_DEADLOCK = 5,
  /**
   * lock_cancel ended the call, or another thread of the session released the place in the queue, or has
   * been told its outcome.
   */
  LOCK_CANCELLED = 6,
  /**
   * A signal handler ran while the thread waited. The place in the queue is kept: the same call again,
   * or lock_wait, goes on waiting there; lock_release gives it up.
   */
  LOCK_INTERRUPTED = 7,
  /**
   * The call makes no sense: NULL where it may not be, an unknown mode, a name too long, an address
   * that is none.
   */
  LOCK_INVALID = 8,
  /**
   * Not allowed: a limit is reached, or the server is stopping, or it grants nothing yet because the one
   * before it did not stop cleanly.
   */
  LOCK_REFUSED = 9,
  /**
   * The session has ended, its connection perhaps, and with it all its locks. Nothing reconnects: the
   * locks are gone. Close it, and open another one. On several servers it is the one that the name belongs to
   * that is gone; lock_check says whether the session has lost anything.
   */
  LOCK_LOST = 10,
  /**
   * The handle was inherited by a forked child. It is its parent's alone, and nothing was done.
   */
  LOCK_FORKED = 11,
  /**
   * The operating system said no, for example to listening on an address that is taken.
   */
  LOCK_IO = 12,
  /**
   * A bug in this library. The session, if it was a session's call, is lost.
   */
  LOCK_INTERNAL = 13,
} lock_status;

/**
 * How a lock is held. The functions take these as `uint32_t`.
 */
typedef enum lock_mode {
  /**
   * One holder, nobody else.
   */
  LOCK_EXCLUSIVE = 0,
  /**
   * Any number of holders, none of them exclusive.
   */
  LOCK_SHARED = 1,
} lock_mode;

/**
 * The locks of this process. Made by lock_broker_new, freed by lock_broker_free; wherever a broker is
 * taken, NULL means the default broker, which every process has.
 */
typedef struct lock_broker lock_broker;

/**
 * Listeners and connections that serve a broker to the network. Made by lock_serve or lock_serve_with, freed by
 * lock_server_stop.
 */
typedef struct lock_server lock_server;

/**
 * One owner of locks, in this process or on a server. Made by lock_open or lock_connect, freed by
 * lock_close.
 */
typedef struct lock_session lock_session;

/**
 * A lock as it stands, filled in by lock_inspect. It will never have other members: what there may be to
 * tell later will be told by other functions.
 */
typedef struct lock_info {
  /**
   * The fencing token of this session's grant; 0 unless `held`.
   */
  uint64_t token;
  /**
   * How many sessions hold the lock; 0: it is free.
   */
  uint64_t holders;
  /**
   * How many requests wait for it.
   */
  uint64_t waiters;
  /**
   * How it is held, a lock_mode; LOCK_EXCLUSIVE if it is free.
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
   * Whether the last exclusive holder vanished without releasing it, so that what it was at may be half
   * done. While somebody holds it exclusively: whether the one before vanished. So the new holder can
   * look, and whoever comes after it is told only if it vanishes, too.
   */
  bool orphaned;
} lock_info;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * What a status means, in a few words of English.
 *
 * @param status  A lock_status; any other number is named as none.
 * @return        Static text, never NULL.
 *
 * Any thread; never blocks.
 */
const char *lock_strerror(int status);

/**
 * What was the matter with the last call of this thread that failed: more than its status says, such as
 * the address that could not be reached, or the sessions of a deadlock.
 *
 * @return  Text of this thread, in UTF-8, valid until the thread's next call of this library; empty if
 *          none has failed. Never NULL.
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
 * The version of the ABI: the number in the library's soname, 1 for this header. A program that finds the
 * library at run time (dlopen, FFI) should make sure of it first.
 *
 * Any thread; never blocks.
 */
uint32_t lock_abi_version(void);

/**
 * Makes a broker of one's own: names locked in it are locked for sessions of this broker alone. Most
 * programs need none, and use the default broker by passing NULL.
 *
 * @return  The broker, to be freed with lock_broker_free.
 *
 * Any thread; never blocks.
 */
struct lock_broker *lock_broker_new(void);

/**
 * Frees a broker. Its sessions and servers, if it has any, go on as before: the locks live until the last
 * of them goes.
 *
 * @param broker  May be NULL. Must not be used any more, nor be in use by another thread.
 *
 * Any thread; never blocks. In a forked child it frees the handle, and touches nothing of the parent's.
 */
void lock_broker_free(struct lock_broker *broker);

/**
 * Opens a session in this process: one owner of locks in its broker.
 *
 * Threads that contend with one another open a session each. A session may be used by several threads at
 * once, and a call that waits holds up no other; but to the broker they are one owner.
 *
 * @param broker  The broker; NULL: the default one.
 * @param owner   What the session is called in listings and deadlock reports, in UTF-8. What is longer than 256
 *                bytes is cut off. May be NULL.
 *
 * @return  The session, to be freed with lock_close; NULL if the broker is that of a parent process
 *          (LOCK_FORKED), which lock_last_error says.
 *
 * Any thread; never blocks.
 */
struct lock_session *lock_open(struct lock_broker *broker,
                               const char *owner);

/**
 * Opens a session on a server. Its calls are the same as those of a session in this process.
 *
 * The locks are held for as long as the connection stands. If it breaks, or the server cannot be reached
 * any more, every call says LOCK_LOST: before the server gives the locks to somebody else. Nothing ever
 * reconnects by itself.
 *
 * Several servers, separated by commas, share the names: each name belongs to one of them, the same one for
 * every client that is given the same addresses (without a ? and what follows it), in any order. The session
 * begins if at least one server answers. A server that does not answer, or is gone later, takes its names with
 * it: every call with one of them says LOCK_LOST, as do lock_list and a lock_release_all with such a name, and
 * no other server is asked for it. Other names are not affected, until lock_check says LOCK_LOST: that is when a
 * server is gone where the session holds a lock or waits for one, or when all of them are gone.
 *
 * Over TLS the server must show a certificate for HOST, signed by somebody this program trusts; a server that
 * asks for a secret is shown it. What is needed for that stands in files, which are named behind a ?, separated
 * by &, as in tls://example.org:20934?ca=/etc/lockd/ca.pem (certificates and keys in PEM; without any escapes):
 *
 * - ca=FILE: whom to trust to sign the server's certificate; without it whom the system trusts, which is the file
 *   in SSL_CERT_FILE in the environment, or a well-known one;
 * - cert=FILE and key=FILE: the program's own certificate, if the server asks for one, and its key, which may
 *   stand in the same file;
 * - auth-token-file=FILE, also behind tcp://HOST:PORT: the server's secret; without it the one in the file in
 *   LOCKD_AUTH_TOKEN_FILE in the environment, if that is set. The secret itself never stands in an address,
 *   which others may get to see.
 *
 * @param url         tcp://HOST:PORT, tls://HOST:PORT or unix:/PATH, or what lock_server_address says and a server
 *                    logs: message://HOST:PORT, message+tls://HOST:PORT or message+unix:/PATH; or several,
 *                    separated by commas. Without :PORT the port is 20934.
 * @param owner       As for lock_open.
 * @param timeout_ms  How long it may take in all, in milliseconds; negative: without limit. Of several servers
 *                    each has an equal share of the time that is left. The resolver's time does not count.
 *
 * @return  The session, to be freed with lock_close; NULL if there is none, and lock_last_error says why, of
 *          several servers for each: the address makes no sense; the server cannot be reached, or does not
 *          answer in time; it is no lockd or not the right one, speaks TLS where this program does not or the
 *          other way round, or refuses this client. There is no status that tells these apart: the text does.
 *
 * Any thread; blocks.
 */
struct lock_session *lock_connect(const char *url,
                                  const char *owner,
                                  int64_t timeout_ms);

/**
 * Acquires a lock, waiting its turn for up to timeout_ms. First come, first served.
 *
 * @param session     The session.
 * @param name        The lock's name: any bytes but zero, 1024 of them at most; the empty name is one too.
 * @param mode        LOCK_EXCLUSIVE or LOCK_SHARED.
 * @param timeout_ms  In milliseconds; 0: do not wait; negative: without limit.
 * @param token       Receives the fencing token on LOCK_OK: a number higher than that of every earlier
 *                    grant of any name, below 2^53. May be NULL.
 *
 * @return LOCK_OK: the session holds the lock. On a server: granted on a connection that was alive when the
 *         answer was read;
 *         LOCK_TIMEOUT, LOCK_ALREADY_HELD, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED,
 *         LOCK_LOST, LOCK_FORKED, LOCK_INTERNAL;
 *         LOCK_PENDING: the session has a place in this queue already; lock_wait waits there;
 *         LOCK_INTERRUPTED: on a server only. A signal handler ran in this thread; the place in the queue is
 *         kept, and timeout_ms goes on. The same call again, or lock_wait, goes on waiting; lock_release
 *         gives the place up.
 *
 * Any thread; blocks, for up to a second longer than timeout_ms if the server does not answer. lock_cancel
 * and lock_end end it.
 */
enum lock_status lock_acquire(struct lock_session *session,
                              const char *name,
                              uint32_t mode,
                              int64_t timeout_ms,
                              uint64_t *token);

/**
 * Acquires several locks at once or none of them, waiting for up to timeout_ms until all can be had. Holds
 * nothing while it waits, so such calls never deadlock among themselves.
 *
 * @param session     The session.
 * @param names       The names, all different, as for lock_acquire, and with 131072 bytes together at most. On
 *                    several servers all must belong to the same one.
 * @param modes       As many modes; NULL: all exclusive.
 * @param n           How many: from 1 to 1024.
 * @param timeout_ms  As for lock_acquire.
 * @param token       Receives the fencing token, one for all of them. May be NULL.
 *
 * @return As lock_acquire. LOCK_ALREADY_HELD or LOCK_PENDING if that is so for any of them. The place that
 *         LOCK_INTERRUPTED keeps is one for all of them: lock_wait or lock_release with any of the names.
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
 * Changes the mode of a lock that the session holds, without letting it go. To LOCK_SHARED it waits for
 * nobody; to LOCK_EXCLUSIVE it waits, ahead of everybody who waits for the lock, until the other holders
 * have gone. When two sessions do that with the same lock, the second one's call is a deadlock.
 *
 * @param session     The session.
 * @param name        The name.
 * @param mode        The new mode.
 * @param timeout_ms  As for lock_acquire.
 *
 * @return LOCK_OK, also if it was held so before. A lock made exclusive has a new token; lock_token tells it;
 *         LOCK_NOT_HELD: the session does not hold it;
 *         LOCK_PENDING: another thread is just making it exclusive, or lock_enqueue_convert has taken a place
 *         for that;
 *         LOCK_TIMEOUT, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED: it is held as before;
 *         LOCK_LOST, LOCK_FORKED, LOCK_INTERNAL;
 *         LOCK_INTERRUPTED: on a server only. It is held as before, and is made exclusive when it can be,
 *         unless that takes longer than timeout_ms: the same call again, or lock_wait, hears of it;
 *         lock_cancel ends the attempt.
 *
 * To LOCK_SHARED on a server: what gives up exclusiveness cannot be taken back. If the server has not
 * confirmed it within timeout_ms and a second or within its dead-peer timeout, whichever is over first, or not
 * within a second of lock_cancel, it is unknown what the session holds. So that ends the session: LOCK_LOST.
 *
 * Any thread; blocks, as lock_acquire.
 */
enum lock_status lock_convert(struct lock_session *session,
                              const char *name,
                              uint32_t mode,
                              int64_t timeout_ms);

/**
 * Takes a place in a lock's queue without waiting there: the first half of lock_acquire, for callers that
 * must look up from waiting now and then. lock_wait is the second half.
 *
 * @param session  The session.
 * @param name     The name.
 * @param mode     LOCK_EXCLUSIVE or LOCK_SHARED.
 *
 * @return LOCK_OK: it could be had at once and is held; lock_token tells its token;
 *         LOCK_PENDING: the session has a place in the queue, now or already before. Should lock_wait never
 *         be called, the session holds the lock all the same once it is its turn; lock_release gives
 *         up the one or the other. On a server it counts as waited for, in lock_inspect and to
 *         lock_convert, until lock_wait has told that it is held;
 *         LOCK_TIMEOUT: on a server that has not answered within its dead-peer timeout; there is no place;
 *         LOCK_ALREADY_HELD, LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED, LOCK_LOST,
 *         LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; waits for nobody but the server, and for that no longer than its dead-peer timeout.
 */
enum lock_status lock_enqueue(struct lock_session *session,
                              const char *name,
                              uint32_t mode);

/**
 * Asks for another mode of a lock that the session holds, without waiting for it: the first half of
 * lock_convert, as lock_enqueue is that of lock_acquire. lock_wait is the second half. To LOCK_SHARED there
 * is nothing to wait for.
 *
 * To give it up and keep the lock as it is held, call lock_cancel, which ends every other wait of the
 * session, too, and then lock_wait: LOCK_CANCELLED says that it is held as before, and LOCK_OK that it had
 * become exclusive first. lock_release gives up the place and the lock with it.
 *
 * @param session  The session.
 * @param name     The name.
 * @param mode     The new mode.
 *
 * @return LOCK_OK: it is held in that mode, at once or already before. If it was made exclusive it has a new
 *         token; lock_token tells it;
 *         LOCK_PENDING: the session has a place ahead of everybody who waits for the lock, now or already
 *         before, and holds the lock as it did. Should lock_wait never be called, the lock becomes exclusive
 *         all the same once the other holders have gone; on a server lock_inspect shows it as held before
 *         and as waited for until lock_wait has told;
 *         LOCK_NOT_HELD: the session does not hold it;
 *         LOCK_TIMEOUT: on a server that has not answered within its dead-peer timeout. There is no place, and
 *         it is held as before;
 *         LOCK_DEADLOCK, LOCK_CANCELLED, LOCK_INVALID, LOCK_REFUSED: it is held as before;
 *         LOCK_LOST: also as of lock_convert to LOCK_SHARED;
 *         LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; waits for nobody but the server, and for that no longer than its dead-peer timeout.
 */
enum lock_status lock_enqueue_convert(struct lock_session *session,
                                      const char *name,
                                      uint32_t mode);

/**
 * Waits for up to timeout_ms at a place that lock_enqueue or lock_enqueue_convert has taken, or that a call
 * that was interrupted has kept.
 *
 * @param session     The session.
 * @param name        The name.
 * @param timeout_ms  As for lock_acquire; 0: only look whether the lock has been granted.
 * @param token       Receives the fencing token on LOCK_OK. May be NULL.
 *
 * @return LOCK_OK: the session holds the lock as it asked for it;
 *         LOCK_TIMEOUT: not yet. The place is kept, as often as that happens (unless it is that of an
 *         interrupted call whose own timeout_ms is over: then it is gone, and the next lock_wait says
 *         LOCK_NOT_HELD);
 *         LOCK_INTERRUPTED: on a server only. A signal handler ran in this thread; the place is kept;
 *         LOCK_NOT_HELD: there is no such place, perhaps since its outcome has been told already. That says
 *         nothing of the lock itself, which the session may hold: lock_token tells;
 *         LOCK_CANCELLED: lock_cancel or lock_release has given up the place. One that lock_cancel has given up
 *         and that was to make a lock exclusive leaves it held as before;
 *         LOCK_DEADLOCK: on a server only, of a call that was interrupted before the server had answered it;
 *         LOCK_INVALID, LOCK_REFUSED, LOCK_LOST, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; blocks.
 */
enum lock_status lock_wait(struct lock_session *session,
                           const char *name,
                           int64_t timeout_ms,
                           uint64_t *token);

/**
 * Frees a lock, which goes to the next waiter in the same moment, or gives up the session's place in its
 * queue (of all the names, if it is that of lock_acquire_all).
 *
 * @param session  The session.
 * @param name     The name.
 *
 * @return LOCK_OK: on a server: it has confirmed it;
 *         LOCK_NOT_HELD: the session neither holds it nor waits for it;
 *         LOCK_LOST: the session has ended. On a server also: it has not confirmed the release within its
 *         dead-peer timeout, or not within a second of lock_cancel. What the session holds is unknown then,
 *         so that ends it, and with it all its locks;
 *         LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; waits for nobody but the server, and for that no longer than its dead-peer timeout.
 */
enum lock_status lock_release(struct lock_session *session,
                              const char *name);

/**
 * Frees several locks, or gives up the places in their queues, however they were acquired.
 *
 * @param session  The session.
 * @param names    The names.
 * @param n        How many; 0 does nothing.
 *
 * @return As lock_release. LOCK_NOT_HELD if that is so for any of them; the others are freed all the same.
 *
 * Any thread; waits as lock_release does.
 */
enum lock_status lock_release_all(struct lock_session *session,
                                  const char *const *names,
                                  size_t n);

/**
 * Whether the session stands, and with it its locks: for a loop that must stop when they are gone.
 *
 * @param session  The session.
 *
 * @return LOCK_OK: it stands, as far as can be known without asking the server;
 *         LOCK_LOST: it has ended, and with it all its locks, on a server also because another part of the program
 *         has closed the connection's descriptor. With several servers: one is gone where the session holds a lock
 *         or waits for one, or all are gone. A server where it does neither makes no difference. What it holds on
 *         others stays held there until it is released or the session closed;
 *         LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; never blocks.
 */
enum lock_status lock_check(struct lock_session *session);

/**
 * A descriptor for poll(2) that becomes readable when a session on a server is lost. It does so too when
 * there is something else to read for the session, such as the grant of a lock that lock_enqueue has
 * asked for: so call lock_check, which reads what there is and says LOCK_LOST or LOCK_OK.
 *
 * A loop that has places in queues calls lock_wait with a limit of 0 for each of them every time before it
 * polls: any call of the session may have read the grant along with its own answer, and then there is
 * nothing left to be readable.
 *
 * If the network is cut, poll alone may tell too late: before Linux 6.15 the descriptor may become readable only
 * after the server has given the locks to somebody else, and on any Linux it may not become readable at all while
 * this machine drops what it sends to the server. lock_check tells in time. So give poll a timeout of about a
 * second, call lock_check each time it returns, and call it before each step that needs the lock.
 *
 * It stays readable after a loss: once lock_check has said LOCK_LOST, stop polling it, or the loop spins.
 *
 * Means something while no call of the session is in progress. Do not read from it, nor close it: it is the
 * session's. With several servers it is readable when that is so for one of them, so also when one is gone
 * where nothing is held: then lock_check says LOCK_OK, and the descriptor tells of that server no more.
 *
 * @param session  The session.
 *
 * @return The descriptor, the same for as long as the session lives; -1 if there is none: for a session in
 *         this process, in a forked child, or if session is NULL.
 *
 * Any thread; never blocks.
 */
int lock_lost_fd(struct lock_session *session);

/**
 * Ends every call of a session that is in progress in another thread. Waits for locks, lock_enqueue,
 * lock_inspect and lock_list return LOCK_CANCELLED and leave the session as it was: what was to be made
 * exclusive stays held as it is. Places that nobody waits at are given up, of which the next lock_wait says
 * LOCK_CANCELLED, unless another call with the same name has succeeded in between. A grant that came first
 * stands, and its call returns LOCK_OK; on a server that is one that has arrived.
 *
 * Giving something up cannot be taken back. So lock_release, lock_release_all and lock_convert to LOCK_SHARED
 * go on for a second, in which a server that is well confirms them. If it does not, that ends the session: they
 * return LOCK_LOST.
 *
 * @param session  The session.
 *
 * @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread, but not a signal handler; waits for nothing, also not for a server that takes no bytes.
 */
enum lock_status lock_cancel(struct lock_session *session);

/**
 * The fencing token of a lock that the session holds, for calls that do not tell it: lock_enqueue and
 * lock_enqueue_convert that are LOCK_OK at once, and lock_convert. Asks no server, and looks at nothing but what
 * the session itself has been told: nobody but this session's own calls can change the answer, so after one of
 * those it is the token of that grant, unless another thread of the session changes what is held meanwhile.
 *
 * @param session  The session.
 * @param name     The name.
 * @param token    Receives the token. May be NULL, to ask only whether the lock is held.
 *
 * @return LOCK_OK: it is held, as far as lock_check could tell;
 *         LOCK_NOT_HELD: it is not. On a server also of a lock that lock_enqueue has asked for, until lock_wait
 *         has told that it is held;
 *         LOCK_LOST, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; never blocks.
 */
enum lock_status lock_token(struct lock_session *session,
                            const char *name,
                            uint64_t *token);

/**
 * Looks at a lock as it stands now.
 *
 * @param session  The session.
 * @param name     The name.
 * @param out      Receives what there is to say on LOCK_OK.
 *
 * @return LOCK_OK;
 *         LOCK_TIMEOUT: the server has not answered within its dead-peer timeout;
 *         LOCK_CANCELLED: lock_cancel came before the answer. After both the session is as it was;
 *         LOCK_INVALID, LOCK_REFUSED, LOCK_LOST, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; waits for nobody but the server, and for that no longer than its dead-peer timeout.
 */
enum lock_status lock_inspect(struct lock_session *session,
                              const char *name,
                              struct lock_info *out);

/**
 * Lists the locks that anybody holds or waits for, of the session's broker or server: one page of them, in
 * the order of the bytes of their names.
 *
 * The page is an object as the result of the command list is in docs/protocol.md, but without its status:
 *
 *   {"locks":[{"lockName":"invoice/4711","mode":"exclusive",
 *              "holders":[{"address":"127.0.0.1:60916","name":"invoices","token":1795,"heldFor":0.5}],
 *              "waiters":[{"address":"unix:7","name":null,"mode":"shared","waitingFor":0.25}]}],
 *    "more":false}
 *
 * `mode` is null if there are only waiters. `orphaned` is there, and true, where lock_inspect would say so.
 * A name that is not UTF-8 has its bytes in hexadecimal as `lockNameHex`, and in `lockName` what of it can be
 * read. While `more` is true, the next page comes from behind the last name, its bytes given as `after`. That
 * is no snapshot, but a lock that stays throughout is on exactly one page. On several servers the page is one
 * of all of them, and a name is shown as it stands on the server that it belongs to.
 *
 * @param session  The session.
 * @param prefix   Only names that begin so. NULL: all.
 * @param after    Only names behind this one. NULL: from the first.
 * @param limit    How many, 1000 at most; 0: 100. A page has fewer if its JSON would be longer than a quarter of a
 *                 mebibyte; of a lock that is longer than that alone some holders and waiters are left out, and
 *                 counted as `moreHolders` and `moreWaiters`. It has more where it would end with a name that has a zero byte in it, which `after` cannot
 *                 say: then it goes on to the next one that has none.
 * @param json     Receives the page, to be freed with lock_list_free. UTF-8, ending with a zero byte.
 *
 * @return LOCK_OK;
 *         LOCK_INVALID: session or json is NULL; on a server also: prefix or after is longer than a request
 *         may be, which is a mebibyte;
 *         LOCK_REFUSED: the server lets nobody list (--no-dump), or is one that cannot;
 *         LOCK_TIMEOUT, LOCK_CANCELLED: as of lock_inspect;
 *         LOCK_LOST, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; waits for nobody but the server, as lock_inspect. It looks at every name there is, so it takes a while where
 * there are a million; nobody else waits for that.
 */
enum lock_status lock_list(struct lock_session *session,
                           const char *prefix,
                           const char *after,
                           uint64_t limit,
                           char **json);

/**
 * Frees what lock_list has made.
 *
 * @param json  May be NULL. Must not be used any more.
 *
 * Any thread; never blocks. Also in a forked child.
 */
void lock_list_free(char *json);

/**
 * Ends a session in an orderly way: frees all its locks as if they had been released, gives up its places in
 * queues, and frees the session itself.
 *
 * @param session  May be NULL. Must not be used any more, nor be in use by another thread: lock_end ends the
 *                 calls that other threads are in, and when they have returned it can be closed.
 *
 * Any thread; waits for nothing, also not for a server that does not answer. (One that takes no bytes just now
 * learns only that the connection has ended, as of a program that has crashed: then the locks are orphaned.) In
 * a forked child it frees the handle, and the parent's locks stay: the child's copy of the connection was closed
 * at the fork.
 */
void lock_close(struct lock_session *session);

/**
 * Ends a session in an orderly way, without freeing its handle: frees all its locks as if they had been released,
 * and gives up its places in queues; on a server by closing the connection. Calls of the session that are in
 * progress in other threads return LOCK_LOST, and so do all later ones. It is still to be freed with lock_close.
 *
 * @param session  The session. May have ended already.
 *
 * @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread, but not a signal handler; waits for nothing.
 */
enum lock_status lock_end(struct lock_session *session);

/**
 * As lock_end, but as if the program had crashed: the next exclusive holder of each lock that the session held
 * exclusively is told that it is orphaned (lock_info), since the work under it may be half done. For a program
 * that could not finish what it did under a lock, and lives on.
 *
 * @param session  The session. May have ended already; then this changes nothing.
 *
 * @return LOCK_OK, LOCK_INVALID, LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread, but not a signal handler; waits for nothing.
 */
enum lock_status lock_abandon(struct lock_session *session);

/**
 * Closes every session that the calling thread has opened and that is still open. For a host that runs one
 * script after another in the same process, each of which may end without having closed what it opened: it
 * calls this before the next one begins. As such a script may have ended in the middle of its work, its locks
 * count as orphaned, as after lock_abandon.
 *
 * The handles must not be used any more, as after lock_close, nor be in use by another thread. Brokers and
 * servers stay. Sessions that other threads have opened stay, too, also if this thread has used them; what
 * this thread opened and another one has closed is not there any more.
 *
 * @return How many there were; 0 also if a bug in this library (LOCK_INTERNAL) kept it from closing them.
 *
 * Any thread; does not wait for anybody. In a forked child those that were opened before the fork do not
 * count, and stay as they are: dead, and to be freed with lock_close.
 */
size_t lock_close_all(void);

/**
 * Serves a broker to other processes, from threads that this starts: one for each address, one for chores,
 * and one for each connection, all with all signals blocked. Sessions of the program's own go on using
 * the broker as before.
 *
 * @param broker  The broker; NULL: the default one.
 * @param listen  Where to listen, separated by commas: PROTOCOL://HOST:PORT or PROTOCOL+unix:PATH, where
 *                PROTOCOL is lockd, glockd or message (which lock_connect speaks); glockd+ws is glockd
 *                in WebSocket. Port 0 takes a free port; lock_server_address tells which. A Unix socket is
 *                for this user alone. For TLS, a secret and more see lock_serve_with.
 * @param allow   Who may connect over TCP, separated by commas: IP or IP/BITS. NULL or empty: this machine
 *                only, whatever address is bound.
 * @param out     Receives the server, to be stopped with lock_server_stop.
 *
 * @return LOCK_OK;
 *         LOCK_INVALID: listen or out is NULL, or an address makes no sense;
 *         LOCK_IO: an address cannot be bound, or a thread not started; then nothing is served;
 *         LOCK_FORKED: the broker is that of a parent process; LOCK_INTERNAL.
 *
 * Any thread. Blocks for as long as the resolver takes if listen has host names.
 */
enum lock_status lock_serve(struct lock_broker *broker,
                            const char *listen,
                            const char *allow,
                            struct lock_server **out);

/**
 * As lock_serve, with all that a server can be told: the options of the program lockd (`lockd serve --help`), by
 * their long names without the dashes, with values as text. `listen` must be among them.
 *
 * ```c
 * const char *names[] = {"listen", "allow", "tls-cert", "tls-key", "no-dump"};
 * const char *values[] = {"message+tls://0.0.0.0:20934", "10.0.0.0/8", "cert.pem", "key.pem", "true"};
 * status = lock_serve_with(NULL, names, values, 5, &server);
 * ```
 *
 * An option that takes no value on the command line is "true" or "false" here. `listen`, `allow` and `ws-origin`
 * take several values, separated by commas or as several options of that name. What is not given is as of
 * lock_serve.
 *
 * - locks-max, locks-per-connection-max, waits-per-connection-max and name-max are limits of the broker, and so
 *   hold for the program's own sessions too.
 * - state-dir makes the broker go on where the last one with that directory ended, as `lockd --state-dir`. It
 *   must come before any other use of the broker (lock_open, lock_serve). lock_server_stop of this server then
 *   ends the broker: nothing is granted any more, to the program's own sessions either.
 * - http, http-host, config, check, pidfile, user and log-level are for the program lockd alone, and refused.
 *
 * @param broker  The broker; NULL: the default one.
 * @param names   The options' names.
 * @param values  As many values.
 * @param n       How many.
 * @param out     Receives the server, to be stopped with lock_server_stop.
 *
 * @return LOCK_OK;
 *         LOCK_INVALID: out, names or values is NULL, or one of them; there is no such option; a value makes no
 *         sense, or names a file that cannot be read: lock_last_error begins with the option's name;
 *         LOCK_IO: an address cannot be bound, a thread not started, or the state directory not used;
 *         LOCK_FORKED: the broker is that of a parent process; LOCK_INTERNAL. If it is not LOCK_OK, nothing is
 *         served.
 *
 * Any thread. Blocks for as long as the resolver takes if there are host names among the addresses, and reads files.
 */
enum lock_status lock_serve_with(struct lock_broker *broker,
                                 const char *const *names,
                                 const char *const *values,
                                 size_t n,
                                 struct lock_server **out);

/**
 * An address that a server listens on, with the port that was taken for port 0, and the path of a Unix socket
 * made absolute: in the form in which lock_serve was given it, which lock_connect takes too if the protocol is
 * message.
 *
 * @param server  The server.
 * @param index   Which of the addresses, counted from 0 in the order given to lock_serve. A
 *                host name that has several addresses makes as many, one after the other.
 * @param buf     Receives the address, with a zero byte at its end.
 * @param len     How many bytes buf has. 300 are enough for any address but a long host name.
 *
 * @return LOCK_OK;
 *         LOCK_INVALID: server or buf is NULL, there is no such address, or buf is too small (then
 *         lock_last_error says how many bytes it takes, and nothing is written);
 *         LOCK_FORKED, LOCK_INTERNAL.
 *
 * Any thread; never blocks.
 */
enum lock_status lock_server_address(const struct lock_server *server,
                                     size_t index,
                                     char *buf,
                                     size_t len);

/**
 * Stops a server: closes its listeners and connections, frees the locks of those connections, joins every
 * thread it started, and frees it. The broker and the program's own sessions stay as they are.
 *
 * @param server  May be NULL. Must not be used any more, nor be in use by another thread.
 *
 * With a state directory (lock_serve_with) the broker ends too. The next start with that directory grants at once
 * if all who held locks could be told; else after the dead-peer timeout. If the program's own sessions still hold
 * locks of the broker, the directory stays taken until the process ends.
 *
 * Any thread; blocks until the threads have ended. That may take long: a client that holds locks and cannot be
 * told that they are lost takes the dead-peer timeout (25 seconds unless set otherwise), and one that asked for
 * time to end its work as long again, at most. If there is none, it is a matter of milliseconds. In a forked child it frees the handle, and touches nothing of the parent's.
 * If another part of the program has closed the server's descriptors, it may block for ever.
 */
void lock_server_stop(struct lock_server *server);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LOCKD_H */
