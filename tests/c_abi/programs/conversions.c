/* Conversions that wait in slices: the place is kept ahead of all other waiters, and can be given
 * up without giving up the lock. In this process, or on a server. Arguments: [server]. */
#include "sessions.h"

/* The session and another one share the lock, and the session has a place in the queue to convert
 * it to exclusive. */
typedef struct stage {
    lock_session *session, *reader;
    uint64_t token;
} stage;

static stage queue_to_convert(const char *name) {
    stage s = {.session = new_session("session"), .reader = new_session("reader")};
    EXPECT(LOCK_OK, lock_acquire(s.reader, name, LOCK_SHARED, -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(s.session, name, LOCK_SHARED, -1, &s.token));
    EXPECT(LOCK_PENDING, lock_enqueue_convert(s.session, name, LOCK_EXCLUSIVE));
    return s;
}

static void end(stage *s) {
    lock_close(s->session);
    lock_close(s->reader);
}

static bool is_held(lock_session *session, const char *name, lock_mode mode, uint64_t token) {
    lock_info info = look(session, name);
    return info.held && !info.waiting && info.mode == mode && info.token == token;
}

static void a_conversion_that_need_not_wait_is_done_at_once(void) {
    lock_session *session = new_session("session");
    uint64_t token = 0;
    EXPECT(LOCK_NOT_HELD, lock_enqueue_convert(session, "at once", LOCK_EXCLUSIVE));
    EXPECT(LOCK_NOT_HELD, lock_enqueue_convert(session, "at once", LOCK_SHARED));
    EXPECT(LOCK_OK, lock_acquire(session, "at once", LOCK_SHARED, -1, &token));
    EXPECT(LOCK_OK, lock_enqueue_convert(session, "at once", LOCK_SHARED));
    CHECK(is_held(session, "at once", LOCK_SHARED, token));
    EXPECT(LOCK_OK, lock_enqueue_convert(session, "at once", LOCK_EXCLUSIVE));
    lock_info info = look(session, "at once");
    CHECK(info.held && info.mode == LOCK_EXCLUSIVE && info.token > token);
    EXPECT(LOCK_OK, lock_enqueue_convert(session, "at once", LOCK_EXCLUSIVE));
    EXPECT(LOCK_NOT_HELD, lock_wait(session, "at once", -1, NULL));
    EXPECT(LOCK_OK, lock_enqueue_convert(session, "at once", LOCK_SHARED));
    CHECK(is_held(session, "at once", LOCK_SHARED, info.token));
    lock_close(session);
}

static void the_place_is_kept_ahead_of_readers_and_writers(void) {
    stage s = queue_to_convert("kept");
    lock_session *late = new_session("late"), *writer = new_session("writer");
    uint64_t token = 7;
    EXPECT(LOCK_TIMEOUT, lock_wait(s.session, "kept", 0, &token));
    EXPECT(LOCK_PENDING, lock_enqueue(late, "kept", LOCK_SHARED));
    EXPECT(LOCK_PENDING, lock_enqueue(writer, "kept", LOCK_EXCLUSIVE));
    for (int i = 0; i < 3; i++) {
        EXPECT(LOCK_TIMEOUT, lock_wait(s.session, "kept", 1, &token));
        EXPECT(LOCK_PENDING, lock_enqueue_convert(s.session, "kept", LOCK_EXCLUSIVE));
        EXPECT(LOCK_PENDING, lock_convert(s.session, "kept", LOCK_EXCLUSIVE, 0));
        EXPECT(LOCK_TIMEOUT, lock_wait(late, "kept", 0, NULL));
    }
    lock_info info = look(s.session, "kept");
    CHECK(info.held && info.waiting && info.mode == LOCK_SHARED && info.token == s.token && info.waiters == 3);
    CHECK(token == 7);
    EXPECT(LOCK_OK, lock_release(s.reader, "kept"));
    EXPECT(LOCK_OK, lock_wait(s.session, "kept", -1, &token));
    CHECK(token > s.token && is_held(s.session, "kept", LOCK_EXCLUSIVE, token));
    EXPECT(LOCK_NOT_HELD, lock_wait(s.session, "kept", -1, NULL));
    EXPECT(LOCK_TIMEOUT, lock_wait(late, "kept", 0, NULL));
    EXPECT(LOCK_OK, lock_release(s.session, "kept"));
    EXPECT(LOCK_OK, lock_wait(late, "kept", -1, NULL));
    EXPECT(LOCK_TIMEOUT, lock_wait(writer, "kept", 0, NULL));
    lock_close(writer);
    lock_close(late);
    end(&s);
}

static void it_becomes_exclusive_without_a_waiting_thread(void) {
    stage s = queue_to_convert("unheard");
    EXPECT(LOCK_OK, lock_release(s.reader, "unheard"));
    EXPECT(LOCK_TIMEOUT, lock_acquire(s.reader, "unheard", LOCK_SHARED, 0, NULL));
    /* Over TCP the grant may arrive after that answer, which came on another connection. */
    EXPECT(LOCK_OK, lock_wait(s.session, "unheard", -1, NULL));
    end(&s);
}

/* The place is known to be gone afterwards, because requests are answered in order. */
static void a_cancel_keeps_the_lock_as_it_was(void) {
    stage s = queue_to_convert("cancelled");
    for (int i = 0; i < 2; i++) {
        EXPECT(LOCK_OK, lock_cancel(s.session));
        CHECK(is_held(s.session, "cancelled", LOCK_SHARED, s.token));
        CHECK(look(s.reader, "cancelled").waiters == 0);
        EXPECT(LOCK_ALREADY_HELD, lock_acquire(s.session, "cancelled", LOCK_SHARED, 0, NULL));
        EXPECT(LOCK_CANCELLED, lock_wait(s.session, "cancelled", -1, NULL));
        EXPECT(LOCK_NOT_HELD, lock_wait(s.session, "cancelled", -1, NULL));
        EXPECT(LOCK_PENDING, lock_enqueue_convert(s.session, "cancelled", LOCK_EXCLUSIVE));
    }
    call wait = {.verb = WAIT, .session = s.session, .name = "cancelled"};
    begin(&wait);
    /* The result is the same whether it is already waiting or begins to wait later. */
    EXPECT(LOCK_OK, lock_cancel(s.session));
    EXPECT(LOCK_CANCELLED, finish(&wait));
    CHECK(is_held(s.session, "cancelled", LOCK_SHARED, s.token));
    EXPECT(LOCK_OK, lock_release(s.reader, "cancelled"));
    EXPECT(LOCK_OK, lock_acquire(s.reader, "cancelled", LOCK_SHARED, 0, NULL));
    end(&s);
}

static void a_cancelled_place_is_forgotten_with_the_lock(void) {
    stage s = queue_to_convert("forgotten");
    EXPECT(LOCK_OK, lock_cancel(s.session));
    EXPECT(LOCK_OK, lock_release(s.session, "forgotten"));
    EXPECT(LOCK_NOT_HELD, lock_wait(s.session, "forgotten", -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(s.session, "forgotten", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_NOT_HELD, lock_wait(s.session, "forgotten", -1, NULL));
    end(&s);
}

static void a_release_gives_up_the_lock_with_the_place(void) {
    stage s = queue_to_convert("released");
    EXPECT(LOCK_OK, lock_release(s.session, "released"));
    lock_info info = look(s.reader, "released");
    CHECK(info.holders == 1 && info.waiters == 0);
    EXPECT(LOCK_NOT_HELD, lock_wait(s.session, "released", -1, NULL));
    end(&s);
}

static void the_second_of_two_conversions_is_a_deadlock(void) {
    stage s = queue_to_convert("circle");
    EXPECT(LOCK_DEADLOCK, lock_enqueue_convert(s.reader, "circle", LOCK_EXCLUSIVE));
    CHECK(strstr(lock_last_error(), "session") && strstr(lock_last_error(), "reader"));
    lock_info info = look(s.reader, "circle");
    CHECK(info.held && !info.waiting && info.mode == LOCK_SHARED && info.holders == 2);
    EXPECT(LOCK_NOT_HELD, lock_wait(s.reader, "circle", -1, NULL));
    EXPECT(LOCK_TIMEOUT, lock_wait(s.session, "circle", 0, NULL));
    EXPECT(LOCK_OK, lock_release(s.reader, "circle"));
    EXPECT(LOCK_OK, lock_wait(s.session, "circle", -1, NULL));
    end(&s);
}

/* In any case the session must not be told that a lock is exclusive when it is shared. */
static void a_conversion_back_to_shared_is_not_reported_as_exclusive(void) {
    stage s = queue_to_convert("back");
    EXPECT(LOCK_OK, lock_release(s.reader, "back"));
    lock_status status = lock_convert(s.session, "back", LOCK_SHARED, -1);
    if (status == LOCK_OK) {
        EXPECT(LOCK_NOT_HELD, lock_wait(s.session, "back", 0, NULL));
        CHECK(look(s.session, "back").mode == LOCK_SHARED);
    } else {
        /* On a server, before lock_wait has returned the grant. */
        CHECK(status == LOCK_INVALID && !is_local());
        EXPECT(LOCK_OK, lock_wait(s.session, "back", -1, NULL));
        CHECK(look(s.session, "back").mode == LOCK_EXCLUSIVE);
    }
    end(&s);
}

int main(int argc, char **argv) {
    argument_count = argc;
    arguments = argv;
    a_conversion_that_need_not_wait_is_done_at_once();
    the_place_is_kept_ahead_of_readers_and_writers();
    it_becomes_exclusive_without_a_waiting_thread();
    a_cancel_keeps_the_lock_as_it_was();
    a_cancelled_place_is_forgotten_with_the_lock();
    a_release_gives_up_the_lock_with_the_place();
    the_second_of_two_conversions_is_a_deadlock();
    a_conversion_back_to_shared_is_not_reported_as_exclusive();
    return 0;
}
