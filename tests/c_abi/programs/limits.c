/* A session that waits for 10,000 names cannot wait for more: further waits are refused, and
 * requests that do not have to wait succeed. Arguments: [server]. */
#include "sessions.h"

enum { REQUESTS = 10, AT_ONCE = 1000, MANY = REQUESTS * AT_ONCE };

static char text[MANY][8];
static const char *names[MANY];
static lock_session *session, *holder;

/* Each name of a set counts. */
static void *wait_for_set(void *first) {
    EXPECT(LOCK_CANCELLED, lock_acquire_all(session, first, NULL, AT_ONCE, -1, NULL));
    return NULL;
}

/* Another session holds all of the names, and this one waits for each. */
static void wait_for_many(pthread_t *threads) {
    for (int i = 0; i < MANY; i++) {
        snprintf(text[i], sizeof text[i], "%d", i);
        names[i] = text[i];
    }
    for (int i = 0; i < REQUESTS; i++) {
        const char **set = names + i * AT_ONCE;
        EXPECT(LOCK_OK, lock_acquire_all(holder, set, NULL, AT_ONCE, 0, NULL));
        CHECK(pthread_create(&threads[i], NULL, wait_for_set, set) == 0);
        await_waiters(holder, set[0], 1);
    }
}

static void waiting_for_more_is_refused(void) {
    const char *set[] = {"free", "busy"};
    uint64_t token = 7;
    EXPECT(LOCK_REFUSED, lock_acquire(session, "busy", LOCK_EXCLUSIVE, -1, &token));
    CHECK(strstr(lock_last_error(), "as many locks as it may"));
    EXPECT(LOCK_REFUSED, lock_acquire_all(session, set, NULL, 2, -1, &token));
    EXPECT(LOCK_REFUSED, lock_enqueue(session, "busy", LOCK_EXCLUSIVE));
    EXPECT(LOCK_REFUSED, lock_convert(session, "shared", LOCK_EXCLUSIVE, -1));
    CHECK(token == 7 && look(session, "shared").mode == LOCK_SHARED && look(session, "shared").held);
    CHECK(look(session, "busy").waiters == 0 && look(session, "free").waiters == 0);
    EXPECT(LOCK_TIMEOUT, lock_acquire(session, "busy", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, "free", LOCK_EXCLUSIVE, 0, NULL));
}

int main(int argc, char **argv) {
    pthread_t threads[REQUESTS];
    argument_count = argc;
    arguments = argv;
    session = new_session("session");
    holder = new_session("holder");
    EXPECT(LOCK_OK, lock_acquire(holder, "busy", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(holder, "shared", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, "shared", LOCK_SHARED, 0, NULL));
    wait_for_many(threads);
    waiting_for_more_is_refused();
    /* Releasing one name of a set gives up the place of the whole set. */
    EXPECT(LOCK_OK, lock_release(session, names[0]));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "busy", LOCK_EXCLUSIVE));
    EXPECT(LOCK_OK, lock_cancel(session));
    for (int i = 0; i < REQUESTS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    EXPECT(LOCK_OK, lock_release_all(holder, names, MANY));
    lock_close(session);
    lock_close(holder);
    return 0;
}
