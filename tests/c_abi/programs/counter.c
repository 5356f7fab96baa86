/* Eight threads, each with its own session, increment a counter that only the lock protects: no
 * increment may be lost. Arguments: [server [increments]]. */
#include "check.h"

enum { THREADS = 8 };

static long increments = 100000;

static volatile long counter;
static atomic_long counter_of_server;
static int argc_;
static char **argv_;

static void *work(void *unused) {
    lock_session *session = open_session(argc_, argv_, "counter");
    (void)unused;
    for (int i = 0; i < increments / THREADS; i++) {
        EXPECT(LOCK_OK, lock_acquire(session, "counter", LOCK_EXCLUSIVE, -1, NULL));
        if (argc_ > 1) {
            add_one(&counter_of_server);
        } else {
            counter = counter + 1;
        }
        EXPECT(LOCK_OK, lock_release(session, "counter"));
    }
    lock_close(session);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS];
    argc_ = argc;
    argv_ = argv;
    if (argc > 2) {
        increments = strtol(argv[2], NULL, 10);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, NULL) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK((argc > 1 ? counter_of_server : counter) == increments);
    return 0;
}
