/* Children forked while the parent's threads are in the middle of library calls: no child hangs on
 * a lock that a thread of its parent held, each can use the library, and the parent's work
 * continues undisturbed. Arguments: a directory for sockets, and the number of children. */
#include "inherited.h"

enum { LOCAL = 2, REMOTE = 2, RIVALS = 2, WORKERS = LOCAL + REMOTE + RIVALS + 2, CHILD_THREADS = 2 };

static const char *directory;
static inherited all;
static char url[ADDRESS_BYTES];
static atomic_bool is_over;
static volatile long local_counter, remote_counter;
static atomic_long local_sum, remote_sum;
static atomic_long rounds[WORKERS];

static void add(lock_session *session, const char *name, volatile long *counter, atomic_long *sum) {
    EXPECT(LOCK_OK, lock_acquire(session, name, LOCK_EXCLUSIVE, -1, NULL));
    *counter = *counter + 1;
    EXPECT(LOCK_OK, lock_release(session, name));
    atomic_fetch_add(sum, 1);
}

static void contend_here(int number) {
    lock_session *session = lock_open(NULL, "local");
    while (!is_over) {
        add(session, "counter", &local_counter, &local_sum);
        rounds[number]++;
    }
    lock_close(session);
}

static void contend_there(int number) {
    lock_session *session = lock_connect(url, "rival", 10000);
    CHECK(session != NULL);
    while (!is_over) {
        add(session, "counter", &remote_counter, &remote_sum);
        rounds[number]++;
    }
    lock_close(session);
}

/* Two threads share one session, so that one of them often reads for both. */
static void share_one_session(int number) {
    char name[20];
    snprintf(name, sizeof name, "own/%d", number);
    while (!is_over) {
        lock_info info;
        EXPECT(LOCK_OK, lock_acquire(all.sessions[2], name, LOCK_EXCLUSIVE, -1, NULL));
        EXPECT(LOCK_OK, lock_inspect(all.sessions[2], name, &info));
        CHECK(info.held);
        EXPECT(LOCK_OK, lock_release(all.sessions[2], name));
        rounds[number]++;
    }
}

static void come_and_go(int number) {
    while (!is_over) {
        lock_broker *broker = lock_broker_new();
        lock_session *here = lock_open(broker, "short");
        lock_session *there = lock_connect(url, "short", 10000);
        CHECK(here != NULL && there != NULL);
        EXPECT(LOCK_OK, lock_acquire(here, "short", LOCK_EXCLUSIVE, 0, NULL));
        lock_broker_free(broker);
        lock_close(there);
        lock_close(here);
        rounds[number]++;
    }
}

static void serve_and_stop(int number) {
    char address[ADDRESS_BYTES];
    while (!is_over) {
        lock_server *server = serve(NULL, "message://127.0.0.1:0", address);
        lock_session *session = lock_connect(address, "short", 10000);
        CHECK(session != NULL);
        lock_server_stop(server);
        lock_close(session);
        rounds[number]++;
    }
}

static void *work(void *argument) {
    int number = (int)(intptr_t)argument;
    if (number < LOCAL) {
        contend_here(number);
    } else if (number < LOCAL + REMOTE) {
        share_one_session(number);
    } else if (number < LOCAL + REMOTE + RIVALS) {
        contend_there(number);
    } else if (number == WORKERS - 1) {
        serve_and_stop(number);
    } else {
        come_and_go(number);
    }
    return NULL;
}

static volatile long child_counter;
static atomic_long child_sum;

static void *contend_in_child(void *broker) {
    lock_session *session = lock_open(broker, "child");
    CHECK(session != NULL);
    for (int i = 0; i < 20; i++) {
        add(session, "counter", &child_counter, &child_sum);
    }
    lock_close(session);
    return NULL;
}

static void run_threads(lock_broker *broker) {
    pthread_t threads[CHILD_THREADS];
    for (int i = 0; i < CHILD_THREADS; i++) {
        CHECK(pthread_create(&threads[i], NULL, contend_in_child, broker) == 0);
    }
    for (int i = 0; i < CHILD_THREADS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(child_counter == child_sum && child_sum == 20 * CHILD_THREADS);
}

static void run_server(lock_broker *broker, int number) {
    char listen[ADDRESS_BYTES], address[ADDRESS_BYTES];
    snprintf(listen, sizeof listen, "message+unix:%s/child-%d.sock", directory, number);
    lock_server *server = serve(broker, number % 2 == 0 ? listen : "message://127.0.0.1:0", address);
    lock_session *session = lock_connect(address, "child", 10000);
    CHECK(session != NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "counter", LOCK_EXCLUSIVE, -1, NULL));
    lock_close(session);
    lock_server_stop(server);
}

static void be_a_child(int number) {
    expect_forked(&all);
    /* In some children before the rest, in some after it: freeing inherited handles must not affect
     * new ones. */
    if (number % 3 == 0) {
        free_all(&all);
    }
    lock_session *session = lock_open(NULL, "child");
    EXPECT(LOCK_OK, lock_acquire(session, "counter", LOCK_EXCLUSIVE, 0, NULL));
    lock_broker *broker = lock_broker_new();
    run_threads(broker);
    run_server(broker, number);
    lock_broker_free(broker);
    /* Sessions that the parent's threads have opened are not closed here. */
    CHECK(lock_check(session) == LOCK_OK && lock_close_all() == 1);
    if (number % 3 != 0) {
        free_all(&all);
    }
    exit(0);
}

static void set_up(void) {
    char listen[ADDRESS_BYTES];
    snprintf(listen, sizeof listen, "message+unix:%s/parent.sock", directory);
    all.broker = lock_broker_new();
    all.server = serve(all.broker, listen, url);
    all.sessions[0] = lock_open(NULL, "idle");
    all.sessions[1] = lock_open(all.broker, "idle");
    all.sessions[2] = lock_connect(url, "shared", 10000);
    CHECK(all.sessions[2] != NULL);
}

int main(int argc, char **argv) {
    pthread_t threads[WORKERS];
    CHECK(argc == 3);
    directory = argv[1];
    set_up();
    for (int i = 0; i < WORKERS; i++) {
        CHECK(pthread_create(&threads[i], NULL, work, (void *)(intptr_t)i) == 0);
    }
    for (int i = 0; i < WORKERS; i++) {
        AWAIT(rounds[i] > 0);
    }
    for (int number = 0, count = atoi(argv[2]); number < count; number++) {
        pid_t pid = fork();
        if (pid == 0) {
            be_a_child(number);
        }
        await_child(pid);
    }
    is_over = true;
    for (int i = 0; i < WORKERS; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
    }
    CHECK(local_counter == local_sum && remote_counter == remote_sum);
    EXPECT(LOCK_OK, lock_check(all.sessions[2]));
    free_all(&all);
    return 0;
}
