/* lock_close_all closes the sessions that its thread has opened and not closed, and none of other
 * threads. In this process, or on a server. Arguments: [server]. */
#include "sessions.h"

enum { LEFT_OPEN = 3, THREADS = 4, ROUNDS = 200 };

static void nothing_is_open(void) {
    CHECK(lock_close_all() == 0);
    lock_close(new_session("closed"));
    CHECK(lock_close_all() == 0);
}

/* Runs `work` in another thread while this one waits for it. */
static void *in_another_thread(void *(*work)(void *), void *argument) {
    pthread_t thread;
    void *result;
    CHECK(pthread_create(&thread, NULL, work, argument) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    return result;
}

static void *open_one(void *owner) {
    lock_session *session = new_session(owner);
    EXPECT(LOCK_OK, lock_acquire(session, "theirs", LOCK_EXCLUSIVE, -1, NULL));
    return session;
}

static void *close_one(void *session) {
    lock_close(session);
    return NULL;
}

static void sessions_that_this_thread_left_open_are_closed(void) {
    lock_session *theirs = in_another_thread(open_one, "theirs");
    static const char *const NAMES[LEFT_OPEN] = {"one", "two", "three"};
    for (int i = 0; i < LEFT_OPEN; i++) {
        lock_session *session = new_session("left open");
        EXPECT(LOCK_OK, lock_acquire(session, NAMES[i], LOCK_EXCLUSIVE, -1, NULL));
        EXPECT(LOCK_PENDING, lock_enqueue(session, "theirs", LOCK_EXCLUSIVE));
        lock_close(new_session("closed"));
    }
    CHECK(lock_close_all() == LEFT_OPEN);
    await_waiters(theirs, "theirs", 0);
    for (int i = 0; i < LEFT_OPEN; i++) {
        /* The code that left it open may have ended in the middle of its work. */
        CHECK(await_holders(theirs, NAMES[i], 0).orphaned);
        EXPECT(LOCK_OK, lock_acquire(theirs, NAMES[i], LOCK_EXCLUSIVE, -1, NULL));
        EXPECT(LOCK_OK, lock_release(theirs, NAMES[i]));
    }
    CHECK(lock_close_all() == 0);
    CHECK(look(theirs, "theirs").held);
    lock_close(theirs);
}

static void a_session_that_another_thread_closed_is_forgotten(void) {
    lock_session *session = new_session("handed over");
    in_another_thread(close_one, session);
    /* This session may be at the address of the one that was closed. */
    lock_session *theirs = in_another_thread(open_one, "theirs");
    CHECK(lock_close_all() == 0);
    EXPECT(LOCK_OK, lock_check(theirs));
    CHECK(look(theirs, "theirs").held);
    lock_close(theirs);
}

static void *open_and_close_all(void *kept) {
    lock_session *session = new_session("short");
    EXPECT(LOCK_OK, lock_acquire(session, "short", LOCK_SHARED, -1, NULL));
    CHECK(lock_close_all() == 1);
    EXPECT(LOCK_OK, lock_check(kept));
    return NULL;
}

static void another_thread_closes_only_its_own_sessions(void) {
    lock_session *kept = new_session("kept");
    EXPECT(LOCK_OK, lock_acquire(kept, "kept", LOCK_EXCLUSIVE, -1, NULL));
    in_another_thread(open_and_close_all, kept);
    CHECK(look(kept, "kept").held);
    CHECK(lock_close_all() == 1);
}

/* Slots where threads leave sessions for other threads to close. */
static _Atomic(lock_session *) handed_over[THREADS];

static void *open_close_and_hand_over(void *number) {
    int own = *(int *)number;
    for (int round = 0; round < ROUNDS; round++) {
        lock_session *left = lock_open(NULL, "left"), *closed = lock_open(NULL, "closed");
        CHECK(left != NULL && closed != NULL);
        lock_close(closed);
        lock_close(atomic_exchange(&handed_over[(own + round) % THREADS], lock_open(NULL, "handed over")));
        EXPECT(LOCK_OK, lock_check(left));
        lock_close(left);
    }
    return NULL;
}

static void threads_close_sessions_of_other_threads(void) {
    pthread_t all[THREADS];
    int numbers[THREADS];
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        CHECK(pthread_create(&all[i], NULL, open_close_and_hand_over, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(all[i], NULL) == 0);
    }
    CHECK(lock_close_all() == 0);
    for (int i = 0; i < THREADS; i++) {
        lock_close(handed_over[i]);
    }
}

static void brokers_are_not_freed(void) {
    lock_broker *broker = lock_broker_new();
    CHECK(lock_open(broker, NULL) != NULL && lock_open(broker, NULL) != NULL);
    CHECK(lock_close_all() == 2);
    lock_session *session = lock_open(broker, NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "name", LOCK_EXCLUSIVE, 0, NULL));
    lock_broker_free(broker);
    CHECK(lock_close_all() == 1);
}

int main(int argc, char **argv) {
    argument_count = argc;
    arguments = argv;
    nothing_is_open();
    sessions_that_this_thread_left_open_are_closed();
    a_session_that_another_thread_closed_is_forgotten();
    another_thread_closes_only_its_own_sessions();
    threads_close_sessions_of_other_threads();
    brokers_are_not_freed();
    return 0;
}
