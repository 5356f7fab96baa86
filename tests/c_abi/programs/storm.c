/* Signal handlers run all the time: no increment of a counter is lost, and calls that wait only for
 * the server are never interrupted. Arguments: a server, and the number of increments. */
#include <sys/time.h>

#include "waiting.h"

enum { THREADS = 4 };

static const char *url;
static int increments;
static atomic_long counter;
static atomic_int interruptions;
static atomic_int working;

static void set_timer(long microseconds) {
    struct timeval every = {.tv_usec = microseconds};
    CHECK(setitimer(ITIMER_REAL, &(struct itimerval){every, every}, NULL) == 0);
}

static lock_status resumed(lock_session *session, int round) {
    lock_status status = lock_acquire(session, "counter", LOCK_EXCLUSIVE, -1, NULL);
    while (status == LOCK_INTERRUPTED) {
        interruptions++;
        /* Half of the rounds continue the wait in one of the two ways, half in the other. */
        status = round % 2 == 0 ? lock_wait(session, "counter", -1, NULL)
                                : lock_acquire(session, "counter", LOCK_EXCLUSIVE, -1, NULL);
    }
    return status;
}

static void *increment(void *unused) {
    lock_session *session = lock_connect(url, "counter", 10000);
    (void)unused;
    CHECK(session != NULL);
    for (int i = 0; i < increments / THREADS; i++) {
        EXPECT(LOCK_OK, resumed(session, i));
        add_one(&counter);
        EXPECT(LOCK_OK, lock_release(session, "counter"));
    }
    lock_close(session);
    working--;
    return NULL;
}

static void no_increment_is_lost(void) {
    pthread_t threads[THREADS];
    working = THREADS;
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, increment, NULL) == 0);
    }
    for (; working > 0; nap()) {
        for (int i = 0; i < THREADS; i++) {
            pthread_kill(threads[i], SIGALRM);
        }
    }
    for (int i = 0; i < THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(counter == increments / THREADS * THREADS);
    CHECK(interruptions > 0);
}

static void calls_that_wait_only_for_the_server_are_not_interrupted(void) {
    lock_info info;
    lock_session *holder = lock_connect(url, "holder", 10000);
    lock_session *other = lock_connect(url, "other", 10000);
    CHECK(holder != NULL && other != NULL);
    int before = handled;
    for (int i = 0; i < increments || handled < before + 100; i++) {
        EXPECT(LOCK_OK, lock_enqueue(holder, "free", LOCK_EXCLUSIVE));
        EXPECT(LOCK_PENDING, lock_enqueue(other, "free", LOCK_SHARED));
        EXPECT(LOCK_OK, lock_inspect(other, "free", &info));
        CHECK(info.waiting && !info.held && info.waiters == 1);
        EXPECT(LOCK_OK, lock_convert(holder, "free", LOCK_SHARED, -1));
        EXPECT(LOCK_OK, lock_release(holder, "free"));
        EXPECT(LOCK_OK, lock_release(other, "free"));
        EXPECT(LOCK_OK, lock_check(other));
        EXPECT(LOCK_OK, lock_inspect(other, "free", &info));
        CHECK(info.holders == 0 && info.waiters == 0);
    }
    lock_close(other);
    lock_close(holder);
}

static void sessions_and_servers_come_and_go(void) {
    char address[ADDRESS_BYTES];
    int before = handled;
    while (handled < before + 20) {
        lock_session *session = lock_connect(url, "short", 10000);
        CHECK(session != NULL);
        lock_close(session);
        lock_server *server = serve(NULL, "message://127.0.0.1:0", address);
        session = lock_connect(address, "short", 10000);
        CHECK(session != NULL);
        lock_server_stop(server);
        lock_close(session);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    url = argv[1];
    increments = atoi(argv[2]);
    handle(SIGALRM, 0);
    set_timer(1000);
    calls_that_wait_only_for_the_server_are_not_interrupted();
    sessions_and_servers_come_and_go();
    set_timer(0);
    no_increment_is_lost();
    return 0;
}
