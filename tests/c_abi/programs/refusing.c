/* Servers that refuse, or reply in unusual ways. Arguments: a server, and its behaviour: stopping
 * (it stops granting once four calls wait), blind (it does not allow inspecting locks, and does not
 * know the command list), old (it does not know limited locks), silent (it does not report that a
 * request has to wait), late (it finds a deadlock, and reports it only when a lock is inspected). */
#include <signal.h>
#include <stdatomic.h>

#include "sessions.h"

static void stopping(void) {
    lock_session *session = new_session("session"), *other = new_session("other");
    EXPECT(LOCK_OK, lock_acquire(other, "busy", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(other, "busy too", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, "busy", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "busy too", LOCK_EXCLUSIVE));
    lock_session *third = new_session("third"), *fourth = new_session("fourth");
    call waits[] = {
        {.verb = WAIT, .session = session, .name = "busy too"},
        {.verb = ACQUIRE, .session = third, .name = "busy"},
        {.verb = ACQUIRE_ALL, .session = fourth, .name = "busy", .second_name = "free"},
        {.verb = CONVERT, .session = session, .name = "busy"},
    };
    for (int i = 0; i < 4; i++) {
        begin(&waits[i]);
    }
    for (int i = 0; i < 4; i++) {
        EXPECT(LOCK_REFUSED, finish(&waits[i]));
        CHECK(waits[i].token == 0);
    }
    const char *names[] = {"free", "free too"};
    EXPECT(LOCK_REFUSED, lock_acquire(session, "free", LOCK_EXCLUSIVE, -1, NULL));
    CHECK(strstr(lock_last_error(), "stopping"));
    EXPECT(LOCK_REFUSED, lock_acquire_all(session, names, NULL, 2, -1, NULL));
    EXPECT(LOCK_REFUSED, lock_enqueue(session, "free", LOCK_EXCLUSIVE));
    EXPECT(LOCK_REFUSED, lock_convert(session, "busy", LOCK_EXCLUSIVE, -1));
    EXPECT(LOCK_REFUSED, lock_enqueue_convert(session, "busy", LOCK_EXCLUSIVE));
    EXPECT(LOCK_OK, lock_check(session));
    CHECK(look(session, "busy").held);
    EXPECT(LOCK_OK, lock_release(session, "busy"));
    lock_close(session);
    lock_close(other);
    lock_close(third);
    lock_close(fourth);
}

static void blind(void) {
    lock_session *session = new_session("session");
    lock_info info = {.token = 7};
    EXPECT(LOCK_REFUSED, lock_inspect(session, "name", &info));
    CHECK(strstr(lock_last_error(), "inspecting is disabled") && info.token == 7);
    char *json = NULL;
    EXPECT(LOCK_REFUSED, lock_list(session, NULL, NULL, 0, &json));
    CHECK(strstr(lock_last_error(), "does not know the command list") && json == NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "name", LOCK_EXCLUSIVE, -1, NULL));
    lock_close(session);
}

static void old(void) {
    const char *names[] = {"name", "name too"};
    const uint32_t two = lock_at_most(2), modes[] = {LOCK_SHARED, two};
    lock_session *session = new_session("session"), *opened = NULL;
    uint64_t token = 7;
    EXPECT(LOCK_REFUSED, lock_acquire(session, "name", two, -1, &token));
    CHECK(strstr(lock_last_error(), "older than limited locks"));
    EXPECT(LOCK_REFUSED, lock_acquire_all(session, names, modes, 2, -1, &token));
    EXPECT(LOCK_REFUSED, lock_enqueue(session, "name", two));
    EXPECT(LOCK_REFUSED, lock_connect_and_acquire(arguments[1], "opened", names, &two, 1, -1, NULL, NULL, &token,
                                                  &opened));
    CHECK(token == 7 && opened == NULL);
    /* It would have been granted exclusively. */
    CHECK(look(session, "name").holders + look(session, "name too").holders == 0);
    EXPECT(LOCK_OK, lock_acquire(session, "name", LOCK_SHARED, -1, &token));
    EXPECT(LOCK_REFUSED, lock_convert(session, "name", two, -1));
    EXPECT(LOCK_REFUSED, lock_enqueue_convert(session, "name", two));
    uint32_t mode = 7;
    EXPECT(LOCK_OK, lock_held_mode(session, "name", &mode));
    CHECK(mode == LOCK_SHARED && look(session, "name").token == token);
    EXPECT(LOCK_OK, lock_acquire(session, "name too", lock_at_most(1), -1, NULL));
    lock_slots seen;
    EXPECT(LOCK_OK, lock_inspect_slots(session, "name too", &seen));
    CHECK(seen.limit == 1 && seen.holders == 1 && seen.free == 0);
    EXPECT(LOCK_REFUSED, lock_convert(session, "name too", two, -1));
    EXPECT(LOCK_REFUSED, lock_enqueue_convert(session, "name too", two));
    EXPECT(LOCK_OK, lock_check(session));
    lock_close(session);
}

static void silent(void) {
    lock_session *session = new_session("session"), *holder = new_session("holder");
    EXPECT(LOCK_OK, lock_acquire(holder, "name", LOCK_EXCLUSIVE, 0, NULL));
    call enqueue = {.verb = ENQUEUE, .session = session, .name = "name"};
    begin(&enqueue);
    await_waiters(holder, "name", 1);
    EXPECT(LOCK_OK, lock_cancel(session));
    EXPECT(LOCK_CANCELLED, finish(&enqueue));
    await_waiters(holder, "name", 0);
    EXPECT(LOCK_NOT_HELD, lock_wait(session, "name", -1, NULL));
    lock_close(session);
    lock_close(holder);
}

static atomic_bool is_back;

static void *acquire_and_come_back(void *session) {
    EXPECT(LOCK_INTERRUPTED, lock_acquire(session, "name", LOCK_EXCLUSIVE, -1, NULL));
    is_back = true;
    return NULL;
}

static void handle(int signal) {
    (void)signal;
}

static void late(void) {
    struct sigaction action = {.sa_handler = handle};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    lock_session *session = new_session("session");
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, acquire_and_come_back, session) == 0);
    /* The first signals may come before the thread waits. */
    for (int tries = 0; !is_back; tries++) {
        CHECK(tries < 20000);
        pthread_kill(thread, SIGUSR1);
        nap();
    }
    CHECK(pthread_join(thread, NULL) == 0);
    look(session, "name");
    uint64_t token = 7;
    EXPECT(LOCK_DEADLOCK, lock_wait(session, "name", -1, &token));
    CHECK(strstr(lock_last_error(), "this one") && strstr(lock_last_error(), "that one") && token == 7);
    EXPECT(LOCK_NOT_HELD, lock_wait(session, "name", -1, NULL));
    lock_close(session);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    argument_count = argc;
    arguments = argv;
    if (strcmp(argv[2], "stopping") == 0) {
        stopping();
    } else if (strcmp(argv[2], "blind") == 0) {
        blind();
    } else if (strcmp(argv[2], "old") == 0) {
        old();
    } else if (strcmp(argv[2], "late") == 0) {
        late();
    } else {
        silent();
    }
    return 0;
}
