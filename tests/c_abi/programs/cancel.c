/* lock_cancel from another thread ends every kind of wait, in this process and on a server, and
 * leaves nothing behind. Argument: a server, or none. */
#include "waiting.h"

static int argc_;
static char **argv_;

static void a_wait_is_cancelled(verb verb) {
    lock_info info;
    lock_session *holder = open_session(argc_, argv_, "holder");
    lock_session *waiter = open_session(argc_, argv_, "waiter");
    uint32_t mode = verb == CONVERT ? LOCK_SHARED : LOCK_EXCLUSIVE;
    call call = {.verb = verb, .session = waiter, .name = "lock", .limit = -1};
    EXPECT(LOCK_OK, lock_acquire(holder, "lock", mode, -1, NULL));
    if (verb == CONVERT) {
        EXPECT(LOCK_OK, lock_acquire(waiter, "lock", LOCK_SHARED, 0, NULL));
    } else if (verb == WAIT) {
        EXPECT(LOCK_PENDING, lock_enqueue(waiter, "lock", LOCK_EXCLUSIVE));
    }
    start(&call);
    AWAIT(waiters(holder, "lock") == 1);
    /* A cancel that comes before the thread has begun to wait has no effect, so it is repeated. */
    AWAIT(call.is_done || (lock_cancel(waiter), false));
    EXPECT(LOCK_CANCELLED, finish(&call));
    EXPECT(LOCK_OK, lock_inspect(waiter, "lock", &info));
    CHECK(info.held == (verb == CONVERT) && !info.waiting && info.waiters == 0);
    EXPECT(LOCK_OK, lock_check(waiter));
    EXPECT(LOCK_NOT_HELD, lock_wait(waiter, "lock", 0, NULL));
    EXPECT(LOCK_OK, lock_release(holder, "lock"));
    lock_release(waiter, "lock");
    EXPECT(LOCK_OK, lock_acquire(waiter, "lock", LOCK_EXCLUSIVE, -1, NULL));
    lock_close(waiter);
    lock_close(holder);
}

int main(int argc, char **argv) {
    argc_ = argc;
    argv_ = argv;
    for (int verb = ACQUIRE; verb < VERBS; verb++) {
        a_wait_is_cancelled(verb);
    }
    return 0;
}
