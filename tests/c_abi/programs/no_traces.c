/* The library leaves no traces in a program: no threads except those of a server, no signal
 * handlers, no signals, no descriptors that a program started by exec would inherit. Arguments: a
 * server, and a directory for sockets. */
#include <fcntl.h>

#include "check.h"

static const char *url;
static const char *directory;
static numbers fds_before;
static struct sigaction actions[NSIG];

static void remember_actions(void) {
    for (int number = 1; number < NSIG; number++) {
        sigaction(number, NULL, &actions[number]);
    }
}

static void expect_same_actions(void) {
    for (int number = 1; number < NSIG; number++) {
        struct sigaction now = {.sa_handler = SIG_DFL};
        sigaction(number, NULL, &now);
        CHECK(now.sa_handler == actions[number].sa_handler);
        CHECK(now.sa_flags == actions[number].sa_flags);
    }
}

static void expect_close_on_exec(void) {
    numbers now = descriptors();
    CHECK(now.count > fds_before.count);
    for (int i = 0; i < now.count; i++) {
        if (!contains(&fds_before, now.at[i])) {
            CHECK(fcntl(now.at[i], F_GETFD) & FD_CLOEXEC);
        }
    }
}

/* The signals that a thread of this process has blocked, as the kernel reports them. */
static uint64_t blocked(int thread) {
    char path[64], line[256];
    uint64_t mask = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", thread);
    FILE *status = fopen(path, "r");
    CHECK(status != NULL);
    while (fgets(line, sizeof line, status) != NULL) {
        sscanf(line, "SigBlk: %" SCNx64, &mask);
    }
    fclose(status);
    return mask;
}

/* All signals that a program can block. */
static uint64_t all_blocked(void) {
    sigset_t all, before;
    sigfillset(&all);
    CHECK(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    uint64_t mask = blocked(getpid());
    CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    return mask;
}

static void use(lock_session *session) {
    const char *names[] = {"one", "two"};
    lock_info info;
    CHECK(session != NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "lock", LOCK_SHARED, -1, NULL));
    EXPECT(LOCK_OK, lock_convert(session, "lock", LOCK_EXCLUSIVE, -1));
    EXPECT(LOCK_OK, lock_acquire_all(session, names, NULL, 2, -1, NULL));
    EXPECT(LOCK_OK, lock_inspect(session, "lock", &info));
    EXPECT(LOCK_OK, lock_release_all(session, names, 2));
    EXPECT(LOCK_OK, lock_cancel(session));
    EXPECT(LOCK_OK, lock_check(session));
    EXPECT(LOCK_OK, lock_release(session, "lock"));
    EXPECT(LOCK_OK, lock_enqueue(session, "lock", LOCK_EXCLUSIVE));
    EXPECT(LOCK_NOT_HELD, lock_wait(session, "lock", 0, NULL));
}

static void sessions_leave_no_traces(void) {
    lock_broker *broker = lock_broker_new();
    lock_session *sessions[] = {lock_open(NULL, "a"), lock_open(broker, "b"), lock_connect(url, "c", 10000)};
    for (int i = 0; i < 3; i++) {
        use(sessions[i]);
    }
    CHECK(lock_connect("unix:/nowhere/at/all.sock", NULL, 1000) == NULL);
    CHECK(lock_connect("nonsense", NULL, 1000) == NULL);
    CHECK(threads().count == 1);
    expect_same_actions();
    expect_close_on_exec();
    for (int i = 0; i < 3; i++) {
        lock_close(sessions[i]);
    }
    lock_broker_free(broker);
    CHECK(same(descriptors(), fds_before));
}

static void a_server_leaves_no_traces(void) {
    char listen[2 * ADDRESS_BYTES], address[ADDRESS_BYTES];
    uint64_t all = all_blocked(), own = blocked(getpid());
    snprintf(listen, sizeof listen, "message://127.0.0.1:0,lockd://127.0.0.1:0,message+unix:%s/traces.sock",
             directory);
    lock_server *server = serve(NULL, listen, address), *none = NULL;
    EXPECT(LOCK_INVALID, lock_serve(NULL, "nonsense", NULL, &none));
    EXPECT(LOCK_IO, lock_serve(NULL, address, NULL, &none));
    lock_session *session = lock_connect(address, "far", 10000);
    use(session);
    numbers running = threads();
    CHECK(running.count == 1 + 3 + 1 + 1);
    for (int i = 0; i < running.count; i++) {
        if (running.at[i] != getpid()) {
            /* A new thread starts with them blocked. While the C library initializes it, it also
             * has signals blocked that no program can block. */
            CHECK((blocked(running.at[i]) & all) == all);
        }
    }
    CHECK(blocked(getpid()) == own);
    expect_same_actions();
    expect_close_on_exec();
    lock_server_stop(server);
    EXPECT(LOCK_LOST, lock_check(session));
    lock_close(session);
    CHECK(same(descriptors(), fds_before));
    /* A joined thread may still be listed for a moment. */
    AWAIT(threads().count == 1);
    expect_same_actions();
}

/* SIGPIPE from writing to the server would end this process. */
static void a_server_vanishes(const char *listen) {
    char address[ADDRESS_BYTES];
    pid_t server = serve_elsewhere(listen, address);
    lock_session *session = lock_connect(address, "writer", 10000);
    lock_session *pair[] = {lock_connect(address, "a", 10000), lock_connect(address, "b", 10000)};
    CHECK(pair[0] != NULL && pair[1] != NULL);
    use(session);
    kill_child(server);
    for (int i = 0; i < 10; i++) {
        EXPECT(LOCK_LOST, lock_acquire(session, "other", LOCK_EXCLUSIVE, -1, NULL));
    }
    EXPECT(LOCK_LOST, lock_release(session, "lock"));
    EXPECT(LOCK_OK, lock_cancel(session));
    EXPECT(LOCK_LOST, lock_enqueue(pair[0], "other", LOCK_EXCLUSIVE));
    lock_close(session);
    lock_close(pair[0]);
    lock_close(pair[1]);
}

/* SIGPIPE from writing to a client would end this process too. */
static void clients_vanish(const char *listen) {
    char address[ADDRESS_BYTES], byte;
    int ends[2];
    CHECK(pipe(ends) == 0);
    lock_server *server = serve(NULL, listen, address);
    for (int i = 0; i < 10; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            lock_session *session = lock_connect(address, "client", 10000);
            use(session);
            CHECK(write(ends[1], "x", 1) == 1);
            for (;;) {
                EXPECT(LOCK_OK, lock_acquire(session, "busy", LOCK_EXCLUSIVE, -1, NULL));
                EXPECT(LOCK_OK, lock_release(session, "busy"));
            }
        }
        CHECK(read(ends[0], &byte, 1) == 1);
        kill_child(pid);
    }
    lock_session *session = lock_connect(address, "last", 10000);
    CHECK(session != NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "busy", LOCK_EXCLUSIVE, -1, NULL));
    lock_close(session);
    lock_server_stop(server);
    close(ends[0]);
    close(ends[1]);
}

int main(int argc, char **argv) {
    char listen[2 * ADDRESS_BYTES];
    CHECK(argc == 3);
    url = argv[1];
    directory = argv[2];
    CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
    fds_before = descriptors();
    remember_actions();
    CHECK(threads().count == 1);
    sessions_leave_no_traces();
    a_server_leaves_no_traces();
    snprintf(listen, sizeof listen, "message+unix:%s/vanishing.sock", directory);
    a_server_vanishes("message://127.0.0.1:0");
    a_server_vanishes(listen);
    clients_vanish("message://127.0.0.1:0");
    clients_vanish(listen);
    expect_same_actions();
    CHECK(same(descriptors(), fds_before));
    return 0;
}
