/* Invalid arguments return LOCK_INVALID, for a session in this process and on a server, and change
 * nothing: NULL, unknown modes, names that are too long, invalid sets. Also NULL where it is
 * allowed. Arguments: [server]. */
#include "sessions.h"

enum { LENGTH_MAX = 1024, AT_ONCE_MAX = 1024 };

#define INVALID(call) EXPECT(LOCK_INVALID, call)

static char too_long[LENGTH_MAX + 2];
static const char *const ONE[] = {"one"};

static void no_session(void) {
    uint64_t token = 7;
    lock_info info = {.token = 7};
    INVALID(lock_acquire(NULL, "one", LOCK_EXCLUSIVE, -1, &token));
    INVALID(lock_acquire_all(NULL, ONE, NULL, 1, -1, &token));
    INVALID(lock_convert(NULL, "one", LOCK_EXCLUSIVE, -1));
    INVALID(lock_enqueue(NULL, "one", LOCK_EXCLUSIVE));
    INVALID(lock_enqueue_convert(NULL, "one", LOCK_EXCLUSIVE));
    INVALID(lock_wait(NULL, "one", -1, &token));
    INVALID(lock_release(NULL, "one"));
    INVALID(lock_release_all(NULL, ONE, 1));
    INVALID(lock_release_all(NULL, NULL, 0));
    INVALID(lock_inspect(NULL, "one", &info));
    INVALID(lock_check(NULL));
    INVALID(lock_cancel(NULL));
    CHECK(strstr(lock_last_error(), "session is NULL"));
    CHECK(lock_lost_fd(NULL) == -1);
    CHECK(token == 7 && info.token == 7);
}

/* Calls every verb with an invalid name. */
static void no_name(lock_session *session, const char *name, const char *detail) {
    const char *names[] = {"one", name};
    uint64_t token = 7;
    lock_info info = {.token = 7};
    INVALID(lock_acquire(session, name, LOCK_EXCLUSIVE, -1, &token));
    CHECK(strstr(lock_last_error(), detail));
    INVALID(lock_acquire(session, name, LOCK_SHARED, 0, NULL));
    INVALID(lock_acquire_all(session, names, NULL, 2, -1, &token));
    CHECK(strstr(lock_last_error(), detail));
    INVALID(lock_convert(session, name, LOCK_EXCLUSIVE, -1));
    INVALID(lock_enqueue(session, name, LOCK_EXCLUSIVE));
    INVALID(lock_enqueue_convert(session, name, LOCK_EXCLUSIVE));
    INVALID(lock_wait(session, name, -1, &token));
    INVALID(lock_release(session, name));
    INVALID(lock_inspect(session, name, &info));
    CHECK(strstr(lock_last_error(), detail));
    CHECK(token == 7 && info.token == 7);

    EXPECT(LOCK_OK, lock_acquire(session, "one", LOCK_EXCLUSIVE, 0, NULL));
    INVALID(lock_release_all(session, names, 2));
    CHECK(look(session, "one").held);
    EXPECT(LOCK_OK, lock_release(session, "one"));
}

static void no_mode(lock_session *session, uint32_t mode) {
    const uint32_t modes[] = {LOCK_SHARED, mode};
    const char *names[] = {"one", "two"};
    uint64_t token = 7;
    EXPECT(LOCK_OK, lock_acquire(session, "held", LOCK_SHARED, 0, NULL));
    INVALID(lock_acquire(session, "one", mode, -1, &token));
    CHECK(strstr(lock_last_error(), "mode"));
    INVALID(lock_acquire_all(session, names, modes, 2, -1, &token));
    INVALID(lock_convert(session, "held", mode, -1));
    INVALID(lock_enqueue(session, "one", mode));
    INVALID(lock_enqueue_convert(session, "held", mode));
    CHECK(token == 7 && look(session, "one").holders == 0);
    CHECK(look(session, "held").mode == LOCK_SHARED);
    EXPECT(LOCK_OK, lock_release(session, "held"));
}

static void no_set(lock_session *session) {
    static char text[AT_ONCE_MAX + 1][8];
    const char *names[AT_ONCE_MAX + 1], *twice[] = {"one", "two", "one"};
    uint64_t token = 7;
    for (int i = 0; i <= AT_ONCE_MAX; i++) {
        snprintf(text[i], sizeof text[i], "%d", i);
        names[i] = text[i];
    }
    INVALID(lock_acquire_all(session, NULL, NULL, 1, -1, &token));
    INVALID(lock_acquire_all(session, NULL, NULL, 0, -1, &token));
    INVALID(lock_acquire_all(session, ONE, NULL, 0, -1, &token));
    INVALID(lock_acquire_all(session, twice, NULL, 3, -1, &token));
    CHECK(strstr(lock_last_error(), "twice"));
    INVALID(lock_acquire_all(session, names, NULL, AT_ONCE_MAX + 1, -1, &token));
    INVALID(lock_acquire_all(session, names, NULL, SIZE_MAX, -1, &token));
    CHECK(strstr(lock_last_error(), "1024"));
    INVALID(lock_release_all(session, NULL, 1));
    CHECK(token == 7 && look(session, "0").holders == 0 && look(session, "one").holders == 0);

    EXPECT(LOCK_OK, lock_acquire_all(session, names, NULL, AT_ONCE_MAX, -1, &token));
    CHECK(token > 7);
    EXPECT(LOCK_OK, lock_acquire(session, names[AT_ONCE_MAX], LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_release_all(session, names, AT_ONCE_MAX + 1));
    EXPECT(LOCK_OK, lock_acquire(session, "one", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, "two", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_NOT_HELD, lock_release_all(session, twice, 3));
    CHECK(look(session, "one").holders == 0 && look(session, "two").holders == 0);
}

static void no_output_argument(lock_session *session) {
    INVALID(lock_inspect(session, "one", NULL));
    CHECK(strstr(lock_last_error(), "out is NULL"));
    EXPECT(LOCK_OK, lock_acquire(session, "one", LOCK_EXCLUSIVE, INT64_MAX, NULL));
    EXPECT(LOCK_OK, lock_release(session, "one"));
    EXPECT(LOCK_OK, lock_acquire_all(session, ONE, NULL, 1, INT64_MIN, NULL));
    EXPECT(LOCK_OK, lock_release(session, "one"));
}

static void freeing_null(void) {
    lock_close(NULL);
    lock_broker_free(NULL);
    lock_server_stop(NULL);
}

int main(int argc, char **argv) {
    argument_count = argc;
    arguments = argv;
    memset(too_long, 'n', LENGTH_MAX + 1);
    lock_session *session = new_session(NULL);
    no_session();
    no_name(session, NULL, "NULL");
    no_name(session, too_long, "longer than 1024 bytes");
    no_mode(session, 2);
    no_mode(session, UINT32_MAX);
    no_set(session);
    no_output_argument(session);
    freeing_null();
    EXPECT(LOCK_OK, lock_check(session));
    CHECK((lock_lost_fd(session) == -1) == is_local());
    lock_close(session);
    return 0;
}
