/* Places in queues, cancelling, inspecting locks, and the names that sessions and locks can have:
 * in this process, or on a server. Arguments: [server]. */
#include "sessions.h"

static void a_free_lock_is_granted_at_once(void) {
    lock_session *session = new_session("session");
    EXPECT(LOCK_OK, lock_enqueue(session, "free", LOCK_SHARED));
    lock_info info = look(session, "free");
    CHECK(info.held && !info.waiting && info.token > 0 && info.mode == LOCK_SHARED);
    EXPECT(LOCK_NOT_HELD, lock_wait(session, "free", -1, NULL));
    lock_close(session);
}

static void a_wait_that_times_out_keeps_the_place(void) {
    lock_session *holder = new_session("holder"), *session = new_session("session");
    uint64_t token = 7, last = 0;
    EXPECT(LOCK_OK, lock_acquire(holder, "place", LOCK_EXCLUSIVE, 0, &last));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "place", LOCK_EXCLUSIVE));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "place", LOCK_EXCLUSIVE));
    EXPECT(LOCK_TIMEOUT, lock_wait(session, "place", 0, &token));
    EXPECT(LOCK_TIMEOUT, lock_wait(session, "place", 1, &token));
    CHECK(token == 7);
    lock_info info = look(session, "place");
    CHECK(info.waiting && !info.held && info.waiters == 1);
    EXPECT(LOCK_OK, lock_release(holder, "place"));
    EXPECT(LOCK_OK, lock_wait(session, "place", -1, &token));
    CHECK(token > last);
    info = look(session, "place");
    CHECK(info.held && !info.waiting && info.token == token);
    EXPECT(LOCK_NOT_HELD, lock_wait(session, "place", 0, NULL));
    lock_close(holder);
    lock_close(session);
}

static void a_release_gives_up_the_place(void) {
    lock_session *holder = new_session("holder"), *session = new_session("session");
    EXPECT(LOCK_OK, lock_acquire(holder, "given up", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "given up", LOCK_EXCLUSIVE));
    EXPECT(LOCK_OK, lock_release(session, "given up"));
    CHECK(look(holder, "given up").waiters == 0);
    EXPECT(LOCK_NOT_HELD, lock_wait(session, "given up", -1, NULL));
    EXPECT(LOCK_NOT_HELD, lock_release(session, "given up"));
    lock_close(holder);
    lock_close(session);
}

static void a_place_without_a_waiting_thread_is_granted_too(void) {
    lock_session *holder = new_session("holder"), *session = new_session("session");
    EXPECT(LOCK_OK, lock_acquire(holder, "turn", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "turn", LOCK_EXCLUSIVE));
    EXPECT(LOCK_OK, lock_release(holder, "turn"));
    EXPECT(LOCK_TIMEOUT, lock_acquire(holder, "turn", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_release(session, "turn"));
    CHECK(look(holder, "turn").holders == 0);
    lock_close(holder);
    lock_close(session);
}

static void inspecting_shows_the_state_of_the_lock(void) {
    lock_session *a = new_session("a"), *b = new_session("b"), *c = new_session("c");
    lock_info info = look(a, "shown");
    CHECK(info.token == 0 && info.holders == 0 && info.waiters == 0 && info.mode == LOCK_EXCLUSIVE);
    CHECK(!info.held && !info.waiting && !info.orphaned);

    uint64_t token = 0;
    EXPECT(LOCK_OK, lock_acquire(a, "shown", LOCK_SHARED, 0, &token));
    EXPECT(LOCK_OK, lock_acquire(b, "shown", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(c, "shown", LOCK_EXCLUSIVE));
    info = look(a, "shown");
    CHECK(info.token == token && info.holders == 2 && info.waiters == 1 && info.mode == LOCK_SHARED);
    CHECK(info.held && !info.waiting && !info.orphaned);
    info = look(c, "shown");
    CHECK(info.token == 0 && info.holders == 2 && info.waiters == 1 && info.mode == LOCK_SHARED);
    CHECK(!info.held && info.waiting && !info.orphaned);
    /* Otherwise c would be granted the lock when the others close, and leave it orphaned for the
     * next program. */
    EXPECT(LOCK_OK, lock_release(c, "shown"));
    lock_close(a);
    lock_close(b);
    lock_close(c);
}

static void a_closed_session_leaves_no_orphan(void) {
    lock_session *next = new_session("next");
    for (int ended_before = 0; ended_before <= 1; ended_before++) {
        lock_session *leaving = new_session("leaving");
        EXPECT(LOCK_OK, lock_acquire(leaving, "orderly", LOCK_EXCLUSIVE, 0, NULL));
        if (ended_before) {
            EXPECT(LOCK_OK, lock_end(leaving));
            EXPECT(LOCK_OK, lock_abandon(leaving));
        }
        lock_close(leaving);
        EXPECT(LOCK_OK, lock_acquire(next, "orderly", LOCK_EXCLUSIVE, -1, NULL));
        CHECK(!look(next, "orderly").orphaned);
        EXPECT(LOCK_OK, lock_release(next, "orderly"));
    }
    lock_close(next);
}

static void a_lock_is_orphaned_until_the_next_holder_releases(void) {
    lock_session *vanishing = new_session("vanishing"), *next = new_session("next");
    EXPECT(LOCK_OK, lock_acquire(vanishing, "orphan", LOCK_EXCLUSIVE, 0, NULL));
    CHECK(!look(next, "orphan").orphaned);
    EXPECT(LOCK_OK, lock_abandon(vanishing));
    EXPECT(LOCK_LOST, lock_check(vanishing));
    lock_close(vanishing);
    CHECK(await_holders(next, "orphan", 0).orphaned);
    EXPECT(LOCK_OK, lock_acquire(next, "orphan", LOCK_EXCLUSIVE, 0, NULL));
    CHECK(look(next, "orphan").orphaned);
    EXPECT(LOCK_OK, lock_release(next, "orphan"));
    CHECK(!look(next, "orphan").orphaned);
    EXPECT(LOCK_OK, lock_acquire(next, "orphan", LOCK_EXCLUSIVE, 0, NULL));
    CHECK(!look(next, "orphan").orphaned);
    EXPECT(LOCK_OK, lock_release(next, "orphan"));
    lock_close(next);
}

static void a_vanished_reader_leaves_no_orphan(void) {
    lock_session *vanishing = new_session("vanishing"), *next = new_session("next");
    EXPECT(LOCK_OK, lock_acquire(vanishing, "read only", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_OK, lock_abandon(vanishing));
    lock_close(vanishing);
    CHECK(!await_holders(next, "read only", 0).orphaned);
    lock_close(next);
}

/* Starts the call, waits until `waiters` requests wait for its lock, and cancels the session's
 * waits. */
static void cancel(call *c, lock_session *holder, uint64_t waiters) {
    begin(c);
    await_waiters(holder, c->name, waiters);
    EXPECT(LOCK_OK, lock_cancel(c->session));
    EXPECT(LOCK_CANCELLED, finish(c));
    CHECK(c->token == 0);
    await_waiters(holder, c->name, 0);
}

static void every_wait_can_be_cancelled_from_another_thread(void) {
    lock_session *holder = new_session("holder"), *session = new_session("session");
    EXPECT(LOCK_OK, lock_acquire(holder, "cancelled", LOCK_SHARED, 0, NULL));
    cancel(&(call){.verb = ACQUIRE, .session = session, .name = "cancelled"}, holder, 1);
    cancel(&(call){.verb = ACQUIRE_ALL, .session = session, .name = "cancelled", .second_name = "other"},
           holder, 1);
    CHECK(look(holder, "other").waiters == 0);
    EXPECT(LOCK_PENDING, lock_enqueue(session, "cancelled", LOCK_EXCLUSIVE));
    cancel(&(call){.verb = WAIT, .session = session, .name = "cancelled"}, holder, 1);

    uint64_t token = 0;
    EXPECT(LOCK_OK, lock_acquire(session, "cancelled", LOCK_SHARED, 0, &token));
    cancel(&(call){.verb = CONVERT, .session = session, .name = "cancelled"}, holder, 1);
    lock_info info = look(session, "cancelled");
    CHECK(info.held && info.mode == LOCK_SHARED && info.token == token);

    EXPECT(LOCK_OK, lock_cancel(session));
    EXPECT(LOCK_OK, lock_check(session));
    lock_close(holder);
    lock_close(session);
}

static void a_place_without_a_waiting_thread_is_cancelled_too(void) {
    lock_session *holder = new_session("holder"), *session = new_session("session");
    EXPECT(LOCK_OK, lock_acquire(holder, "deserted", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "deserted", LOCK_EXCLUSIVE));
    EXPECT(LOCK_OK, lock_cancel(session));
    await_waiters(holder, "deserted", 0);
    EXPECT(LOCK_CANCELLED, lock_wait(session, "deserted", -1, NULL));
    EXPECT(LOCK_NOT_HELD, lock_wait(session, "deserted", -1, NULL));
    lock_close(holder);
    lock_close(session);
}

static void a_cancelled_place_is_forgotten_when_the_lock_is_requested_again(void) {
    lock_session *holder = new_session("holder"), *session = new_session("session");
    EXPECT(LOCK_OK, lock_acquire(holder, "again", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "again", LOCK_EXCLUSIVE));
    EXPECT(LOCK_OK, lock_cancel(session));
    EXPECT(LOCK_OK, lock_release(holder, "again"));
    EXPECT(LOCK_OK, lock_acquire(session, "again", LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_NOT_HELD, lock_wait(session, "again", -1, NULL));
    CHECK(look(session, "again").held);
    lock_close(holder);
    lock_close(session);
}

static void another_threads_release_ends_the_wait(void) {
    lock_session *holder = new_session("holder"), *session = new_session("session");
    EXPECT(LOCK_OK, lock_acquire(holder, "taken back", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "taken back", LOCK_EXCLUSIVE));
    call wait = {.verb = WAIT, .session = session, .name = "taken back"};
    begin(&wait);
    EXPECT(LOCK_OK, lock_release(session, "taken back"));
    lock_status status = finish(&wait);
    /* NOT_HELD if the thread began to wait only after the release. */
    CHECK(status == LOCK_CANCELLED || status == LOCK_NOT_HELD);

    wait = (call){.verb = ACQUIRE, .session = session, .name = "taken back"};
    begin(&wait);
    await_waiters(holder, "taken back", 1);
    EXPECT(LOCK_OK, lock_release(session, "taken back"));
    EXPECT(LOCK_CANCELLED, finish(&wait));
    lock_close(holder);
    lock_close(session);
}

static void every_string_up_to_1024_bytes_is_a_name(void) {
    char longest[1025], nearly[1025];
    memset(longest, 'n', 1024);
    longest[1024] = 0;
    strcpy(nearly, longest);
    nearly[1023] = 'N';
    const char *names[] = {"", " ", "\xff\xfe", "\xff", "\xc3\xbc", "\"\\\n\x01", longest, nearly};
    enum { NAMES = sizeof names / sizeof *names };
    lock_session *session = new_session("session"), *other = new_session("other");
    for (int i = 0; i < NAMES; i++) {
        EXPECT(LOCK_OK, lock_acquire(session, names[i], LOCK_EXCLUSIVE, 0, NULL));
        EXPECT(LOCK_TIMEOUT, lock_acquire(other, names[i], LOCK_EXCLUSIVE, 0, NULL));
        CHECK(look(session, names[i]).held);
    }
    EXPECT(LOCK_OK, lock_release_all(session, names, NAMES));
    EXPECT(LOCK_OK, lock_acquire_all(other, names, NULL, NAMES, 0, NULL));
    EXPECT(LOCK_OK, lock_release_all(other, names, NAMES));
    lock_close(session);
    lock_close(other);
}

/* The error text of a deadlock between two sessions with these names. */
static const char *deadlock_between(const char *first, const char *second) {
    lock_session *a = new_session(first), *b = new_session(second);
    /* On a server, the sessions of the last call may not have ended yet. */
    EXPECT(LOCK_OK, lock_acquire(a, "left", LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(b, "right", LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(b, "left", LOCK_EXCLUSIVE));
    EXPECT(LOCK_DEADLOCK, lock_acquire(a, "right", LOCK_EXCLUSIVE, -1, NULL));
    static char detail[1024];
    snprintf(detail, sizeof detail, "%s", lock_last_error());
    EXPECT(LOCK_OK, lock_release(a, "left"));
    EXPECT(LOCK_OK, lock_wait(b, "left", -1, NULL));
    lock_close(a);
    lock_close(b);
    return detail;
}

static void a_deadlock_names_its_sessions(void) {
    const char *detail = deadlock_between("invoices", "r\xc3\xa9sum\xc3\xa9s");
    CHECK(strstr(detail, "invoices") && strstr(detail, "r\xc3\xa9sum\xc3\xa9s"));
    detail = deadlock_between(NULL, "somebody");
    /* A session without a name is described by its address. */
    CHECK(strstr(detail, "somebody") && strstr(detail, "\xe2\x86\x92"));
    CHECK(!is_local() || strstr(detail, "local:"));
    detail = deadlock_between("not \xff UTF-8", "");
    CHECK(strstr(detail, "not \xef\xbf\xbd UTF-8"));
}

int main(int argc, char **argv) {
    argument_count = argc;
    arguments = argv;
    a_free_lock_is_granted_at_once();
    a_wait_that_times_out_keeps_the_place();
    a_release_gives_up_the_place();
    a_place_without_a_waiting_thread_is_granted_too();
    inspecting_shows_the_state_of_the_lock();
    a_closed_session_leaves_no_orphan();
    a_lock_is_orphaned_until_the_next_holder_releases();
    a_vanished_reader_leaves_no_orphan();
    every_wait_can_be_cancelled_from_another_thread();
    a_place_without_a_waiting_thread_is_cancelled_too();
    a_cancelled_place_is_forgotten_when_the_lock_is_requested_again();
    another_threads_release_ends_the_wait();
    every_string_up_to_1024_bytes_is_a_name();
    a_deadlock_names_its_sessions();
    return 0;
}
