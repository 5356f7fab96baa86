/* Acquiring, releasing and converting, for one name and for several, among sessions that contend:
 * in this process, or on a server. Arguments: [server]. */
#include "sessions.h"

static void the_tokens_of_each_name_rise(void) {
    static const char *const names[] = {"tokens", "tokens too"};
    lock_session *a = new_session("a"), *b = new_session("b");
    uint64_t last[] = {0, 0};
    for (int i = 0; i < 12; i++) {
        uint64_t token = 0;
        lock_session *session = i % 2 == 0 ? a : b;
        int which = i % 3 == 0;
        const char *name = names[which];
        EXPECT(LOCK_OK, lock_acquire(session, name, LOCK_EXCLUSIVE, 0, &token));
        CHECK(token > last[which] && token < UINT64_C(1) << 53);
        CHECK(look(session, name).token == token);
        last[which] = token;
        EXPECT(LOCK_OK, lock_release(session, name));
        if (i % 4 == 0) {
            /* One token for both, above all earlier ones of each. */
            EXPECT(LOCK_OK, lock_acquire_all(session, names, NULL, 2, 0, &token));
            CHECK(token > last[0] && token > last[1] && token < UINT64_C(1) << 53);
            last[0] = last[1] = token;
            EXPECT(LOCK_OK, lock_release_all(session, names, 2));
        }
    }
    lock_close(a);
    lock_close(b);
}

static void a_try_for_a_busy_lock_does_not_wait(void) {
    lock_session *holder = new_session("holder"), *other = new_session("other");
    uint64_t token = 7;
    EXPECT(LOCK_OK, lock_acquire(holder, "busy", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_TIMEOUT, lock_acquire(other, "busy", LOCK_EXCLUSIVE, 0, &token));
    EXPECT(LOCK_TIMEOUT, lock_acquire(other, "busy", LOCK_SHARED, 1, &token));
    CHECK(token == 7);
    CHECK(look(other, "busy").waiters == 0);
    EXPECT(LOCK_OK, lock_release(holder, "busy"));
    EXPECT(LOCK_OK, lock_acquire(other, "busy", LOCK_EXCLUSIVE, 0, &token));
    CHECK(token > 7);
    lock_close(holder);
    lock_close(other);
}

static void a_release_lets_the_waiter_in(void) {
    lock_session *holder = new_session("holder"), *waiter = new_session("waiter");
    call wait = {.verb = ACQUIRE, .session = waiter, .name = "door"};
    uint64_t token = 0;
    EXPECT(LOCK_OK, lock_acquire(holder, "door", LOCK_EXCLUSIVE, -1, &token));
    begin(&wait);
    CHECK(await_waiters(holder, "door", 1).held);
    EXPECT(LOCK_OK, lock_release(holder, "door"));
    EXPECT(LOCK_OK, finish(&wait));
    CHECK(wait.token > token);
    EXPECT(LOCK_TIMEOUT, lock_acquire(holder, "door", LOCK_EXCLUSIVE, 0, NULL));
    lock_close(holder);
    lock_close(waiter);
}

static void first_come_first_served(void) {
    enum { WAITERS = 4 };
    lock_session *holder = new_session("holder");
    call waits[WAITERS];
    EXPECT(LOCK_OK, lock_acquire(holder, "queue", LOCK_EXCLUSIVE, 0, NULL));
    for (unsigned i = 0; i < WAITERS; i++) {
        waits[i] = (call){.verb = ACQUIRE, .session = new_session("waiter"), .name = "queue"};
        begin(&waits[i]);
        await_waiters(holder, "queue", i + 1);
    }
    EXPECT(LOCK_OK, lock_release(holder, "queue"));
    for (unsigned i = 0; i < WAITERS; i++) {
        EXPECT(LOCK_OK, finish(&waits[i]));
        CHECK(look(holder, "queue").waiters == WAITERS - 1 - i);
        CHECK(i == 0 || waits[i].token > waits[i - 1].token);
        EXPECT(LOCK_OK, lock_release(waits[i].session, "queue"));
        lock_close(waits[i].session);
    }
    lock_close(holder);
}

static void no_request_overtakes_a_waiter(void) {
    lock_session *reader = new_session("reader"), *writer = new_session("writer");
    lock_session *newcomer = new_session("newcomer");
    call wait = {.verb = ACQUIRE, .session = writer, .name = "overtaking"};
    EXPECT(LOCK_OK, lock_acquire(reader, "overtaking", LOCK_SHARED, 0, NULL));
    begin(&wait);
    await_waiters(reader, "overtaking", 1);
    EXPECT(LOCK_TIMEOUT, lock_acquire(newcomer, "overtaking", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_OK, lock_release(reader, "overtaking"));
    EXPECT(LOCK_OK, finish(&wait));
    lock_close(reader);
    lock_close(writer);
    lock_close(newcomer);
}

static void readers_exclude_a_writer_and_a_writer_excludes_all(void) {
    lock_session *a = new_session("a"), *b = new_session("b"), *c = new_session("c");
    EXPECT(LOCK_OK, lock_acquire(a, "book", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(b, "book", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_TIMEOUT, lock_acquire(c, "book", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_release(a, "book"));
    EXPECT(LOCK_TIMEOUT, lock_acquire(c, "book", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_release(b, "book"));
    EXPECT(LOCK_OK, lock_acquire(c, "book", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_TIMEOUT, lock_acquire(a, "book", LOCK_SHARED, 0, NULL));
    lock_close(a);
    lock_close(b);
    lock_close(c);
}

static void a_conversion_gives_a_new_token_and_lets_readers_in_again(void) {
    lock_session *session = new_session("converter"), *reader = new_session("reader");
    uint64_t token = 0;
    EXPECT(LOCK_OK, lock_acquire(session, "page", LOCK_SHARED, 0, &token));
    EXPECT(LOCK_OK, lock_convert(session, "page", LOCK_SHARED, 0));
    EXPECT(LOCK_OK, lock_convert(session, "page", LOCK_EXCLUSIVE, 0));
    lock_info info = look(session, "page");
    CHECK(info.held && info.mode == LOCK_EXCLUSIVE && info.token > token);
    EXPECT(LOCK_OK, lock_convert(session, "page", LOCK_EXCLUSIVE, 0));

    call wait = {.verb = ACQUIRE, .session = reader, .name = "page", .mode = LOCK_SHARED};
    begin(&wait);
    await_waiters(session, "page", 1);
    EXPECT(LOCK_OK, lock_convert(session, "page", LOCK_SHARED, 0));
    EXPECT(LOCK_OK, finish(&wait));
    info = look(session, "page");
    CHECK(info.held && info.mode == LOCK_SHARED && info.holders == 2);
    lock_close(session);
    lock_close(reader);
}

static uint64_t token_of(lock_session *session, const char *name) {
    uint64_t token = 0;
    EXPECT(LOCK_OK, lock_token(session, name, &token));
    EXPECT(LOCK_OK, lock_token(session, name, NULL));
    CHECK(token != 0 && token == look(session, name).token);
    return token;
}

static void the_token_of_every_grant_can_be_read(void) {
    lock_session *session = new_session("tokens"), *other = new_session("other");
    uint64_t token = 7;
    EXPECT(LOCK_NOT_HELD, lock_token(session, "token", &token));
    EXPECT(LOCK_OK, lock_enqueue(session, "token", LOCK_SHARED));
    EXPECT(LOCK_NOT_HELD, lock_token(other, "token", &token));
    CHECK(token == 7);
    uint64_t first = token_of(session, "token");
    EXPECT(LOCK_OK, lock_convert(session, "token", LOCK_EXCLUSIVE, -1));
    uint64_t second = token_of(session, "token");
    CHECK(second > first);
    EXPECT(LOCK_OK, lock_enqueue_convert(session, "token", LOCK_SHARED));
    CHECK(token_of(session, "token") == second);
    EXPECT(LOCK_OK, lock_enqueue_convert(session, "token", LOCK_EXCLUSIVE));
    CHECK(token_of(session, "token") > second);
    EXPECT(LOCK_PENDING, lock_enqueue(other, "token", LOCK_EXCLUSIVE));
    EXPECT(LOCK_NOT_HELD, lock_token(other, "token", &token));
    EXPECT(LOCK_OK, lock_release(session, "token"));
    EXPECT(LOCK_NOT_HELD, lock_token(session, "token", &token));
    EXPECT(LOCK_OK, lock_wait(other, "token", -1, &token));
    CHECK(token_of(other, "token") == token);
    EXPECT(LOCK_INVALID, lock_token(NULL, "token", &token));
    EXPECT(LOCK_INVALID, lock_token(session, NULL, &token));
    EXPECT(LOCK_OK, lock_end(other));
    EXPECT(LOCK_LOST, lock_token(other, "token", &token));
    lock_close(session);
    lock_close(other);
}

static void a_conversion_waits_for_other_readers_ahead_of_the_queue(void) {
    lock_session *session = new_session("converter"), *reader = new_session("reader");
    lock_session *writer = new_session("writer");
    uint64_t token = 0;
    EXPECT(LOCK_OK, lock_acquire(session, "draft", LOCK_SHARED, 0, &token));
    EXPECT(LOCK_OK, lock_acquire(reader, "draft", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_TIMEOUT, lock_convert(session, "draft", LOCK_EXCLUSIVE, 0));
    EXPECT(LOCK_TIMEOUT, lock_convert(session, "draft", LOCK_EXCLUSIVE, 1));
    lock_info info = look(session, "draft");
    CHECK(info.held && !info.waiting && info.mode == LOCK_SHARED && info.token == token);

    EXPECT(LOCK_PENDING, lock_enqueue(writer, "draft", LOCK_EXCLUSIVE));
    call convert = {.verb = CONVERT, .session = session, .name = "draft"};
    begin(&convert);
    await_waiters(reader, "draft", 2);
    EXPECT(LOCK_OK, lock_release(reader, "draft"));
    EXPECT(LOCK_OK, finish(&convert));
    info = look(session, "draft");
    CHECK(info.held && info.mode == LOCK_EXCLUSIVE && info.token > token && info.waiters == 1);
    EXPECT(LOCK_TIMEOUT, lock_wait(writer, "draft", 0, NULL));
    lock_close(session);
    EXPECT(LOCK_OK, lock_wait(writer, "draft", -1, NULL));
    lock_close(reader);
    lock_close(writer);
}

static const char *const SET[] = {"set 1", "set 2", "set 3"};

static void all_are_acquired_or_none(void) {
    lock_session *session = new_session("set"), *other = new_session("other");
    uint64_t token = 7, last = 0;
    EXPECT(LOCK_OK, lock_acquire(other, SET[1], LOCK_SHARED, 0, &last));
    EXPECT(LOCK_TIMEOUT, lock_acquire_all(session, SET, NULL, 3, 0, &token));
    EXPECT(LOCK_TIMEOUT, lock_acquire_all(session, SET, NULL, 3, 1, &token));
    CHECK(token == 7);
    for (int i = 0; i < 3; i++) {
        lock_info info = look(session, SET[i]);
        CHECK(!info.held && info.waiters == 0 && info.holders == (i == 1));
    }
    uint32_t modes[] = {LOCK_EXCLUSIVE, LOCK_SHARED, LOCK_SHARED};
    EXPECT(LOCK_OK, lock_acquire_all(session, SET, modes, 3, 0, &token));
    CHECK(token > last && token < UINT64_C(1) << 53);
    for (int i = 0; i < 3; i++) {
        lock_info info = look(session, SET[i]);
        CHECK(info.held && info.token == token && info.mode == modes[i]);
    }
    EXPECT(LOCK_OK, lock_release_all(session, SET, 3));
    EXPECT(LOCK_TIMEOUT, lock_acquire(session, SET[1], LOCK_EXCLUSIVE, 0, NULL));
    lock_close(session);
    lock_close(other);
}

static void a_set_is_held_in_no_part_while_it_waits(void) {
    lock_session *session = new_session("set"), *other = new_session("other");
    call wait = {.verb = ACQUIRE_ALL, .session = session, .name = SET[0], .second_name = SET[1]};
    /* On a server, the sessions of the last test may not have ended yet. */
    EXPECT(LOCK_OK, lock_acquire(other, SET[1], LOCK_EXCLUSIVE, -1, NULL));
    begin(&wait);
    await_waiters(other, SET[1], 1);
    lock_info info = look(other, SET[0]);
    CHECK(info.holders == 0 && info.waiters == 1);
    EXPECT(LOCK_OK, lock_release(other, SET[1]));
    EXPECT(LOCK_OK, finish(&wait));
    CHECK(look(session, SET[0]).token == wait.token && look(session, SET[1]).token == wait.token);
    lock_close(session);
    lock_close(other);
}

static void releasing_a_set_releases_the_names_that_are_held(void) {
    lock_session *session = new_session("set"), *other = new_session("other");
    EXPECT(LOCK_OK, lock_acquire(session, SET[0], LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(other, SET[1], LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, SET[2], LOCK_SHARED, -1, NULL));
    EXPECT(LOCK_NOT_HELD, lock_release_all(session, SET, 3));
    CHECK(look(other, SET[0]).holders == 0 && look(other, SET[2]).holders == 0);
    CHECK(look(other, SET[1]).held);
    EXPECT(LOCK_OK, lock_release_all(session, SET, 0));
    EXPECT(LOCK_OK, lock_release_all(session, NULL, 0));
    lock_close(session);
    lock_close(other);
}

int main(int argc, char **argv) {
    argument_count = argc;
    arguments = argv;
    the_tokens_of_each_name_rise();
    a_try_for_a_busy_lock_does_not_wait();
    a_release_lets_the_waiter_in();
    first_come_first_served();
    no_request_overtakes_a_waiter();
    readers_exclude_a_writer_and_a_writer_excludes_all();
    a_conversion_gives_a_new_token_and_lets_readers_in_again();
    the_token_of_every_grant_can_be_read();
    a_conversion_waits_for_other_readers_ahead_of_the_queue();
    all_are_acquired_or_none();
    a_set_is_held_in_no_part_while_it_waits();
    releasing_a_set_releases_the_names_that_are_held();
    return 0;
}
