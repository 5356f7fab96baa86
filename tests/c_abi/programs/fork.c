/* A forked child is not its parent: the handles that it inherits do nothing, it keeps none of the
 * parent's connections open, and it can have its own locks. Argument: a directory for sockets. */
#include <sys/prctl.h>

#include "inherited.h"

static inherited all;
static lock_session *rival;
static char tcp[ADDRESS_BYTES];
static char unix_listen[ADDRESS_BYTES];
static char unix_url[ADDRESS_BYTES];
static const char *directory;
static numbers before;
static uint64_t tokens[SESSIONS];

static void set_up(void) {
    char listen[2 * ADDRESS_BYTES];
    snprintf(unix_listen, sizeof unix_listen, "message+unix:%s/parent.sock", directory);
    snprintf(unix_url, sizeof unix_url, "unix:%s/parent.sock", directory);
    snprintf(listen, sizeof listen, "message://127.0.0.1:0,%s", unix_listen);
    all.broker = lock_broker_new();
    all.server = serve(all.broker, listen, tcp);
    all.sessions[0] = lock_open(NULL, "parent");
    all.sessions[1] = lock_connect(tcp, "parent", 10000);
    all.sessions[2] = lock_connect(unix_url, "parent", 10000);
    rival = lock_open(all.broker, "rival");
    EXPECT(LOCK_OK, lock_acquire(rival, "queued", LOCK_EXCLUSIVE, 0, NULL));
    for (int i = 0; i < SESSIONS; i++) {
        CHECK(all.sessions[i] != NULL);
        EXPECT(LOCK_OK, lock_acquire(all.sessions[i], "held", LOCK_SHARED, -1, &tokens[i]));
    }
    EXPECT(LOCK_PENDING, lock_enqueue(all.sessions[1], "queued", LOCK_EXCLUSIVE));
    EXPECT(LOCK_PENDING, lock_enqueue(all.sessions[2], "queued", LOCK_EXCLUSIVE));
}

static void expect_unchanged(void) {
    char address[ADDRESS_BYTES];
    lock_info info;
    for (int i = 0; i < SESSIONS; i++) {
        lock_session *session = all.sessions[i];
        EXPECT(LOCK_OK, lock_inspect(session, "held", &info));
        CHECK(info.held && info.token == tokens[i] && info.holders == (i == 0 ? 1 : 2));
        EXPECT(LOCK_ALREADY_HELD, lock_acquire(session, "held", LOCK_SHARED, 0, NULL));
        EXPECT(LOCK_OK, lock_check(session));
        EXPECT(LOCK_OK, lock_acquire(session, "more", LOCK_EXCLUSIVE, -1, NULL));
        EXPECT(LOCK_OK, lock_release(session, "more"));
        EXPECT(LOCK_OK, lock_inspect(session, "queued", &info));
        CHECK(info.waiting == (i != 0) && info.waiters == (i == 0 ? 0 : 2));
    }
    EXPECT(LOCK_OK, lock_server_address(all.server, 0, address, sizeof address));
    CHECK(strcmp(address, tcp) == 0);
}

/* Runs the body in a child. Afterwards everything in the parent must be unchanged. */
static void in_child(pid_t (*make)(void), void (*body)(void)) {
    pid_t pid = make();
    if (pid == 0) {
        body();
        exit(0);
    }
    await_child(pid);
    expect_unchanged();
}

static void calls_do_nothing(void) {
    expect_forked(&all);
}

static void closing_all_closes_only_the_childs_own_sessions(void) {
    CHECK(lock_close_all() == 0);
    expect_forked(&all);
    CHECK(lock_open(NULL, "child") != NULL && lock_connect(tcp, "child", 10000) != NULL);
    CHECK(lock_close_all() == 2);
    free_all(&all);
    CHECK(lock_close_all() == 0);
}

static void freeing_inherited_handles_frees_no_lock(void) {
    free_all(&all);
}

static void no_descriptor_is_inherited(void) {
    CHECK(same(descriptors(), before));
    free_all(&all);
    CHECK(same(descriptors(), before));
}

static void expect_taken(const char *url) {
    lock_session *session = lock_connect(url, "child", 10000);
    CHECK(session != NULL);
    EXPECT(LOCK_TIMEOUT, lock_acquire(session, "held", LOCK_EXCLUSIVE, 0, NULL));
    /* lock_close does not wait for the server, which may still have to free the lock of the child's
     * last session. */
    EXPECT(LOCK_OK, lock_acquire(session, "child", LOCK_EXCLUSIVE, DEADLINE_SECONDS * 1000, NULL));
    CHECK(waiters(session, "queued") == 2);
    lock_close(session);
}

static void use_server(lock_broker *broker, const char *listen) {
    char address[ADDRESS_BYTES];
    lock_server *server = serve(broker, listen, address);
    lock_session *far = lock_connect(address, "far", 10000);
    lock_session *near = lock_open(broker, "near");
    CHECK(far != NULL && near != NULL);
    EXPECT(LOCK_OK, lock_acquire(near, "own", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(far, "own", LOCK_EXCLUSIVE));
    lock_close(near);
    EXPECT(LOCK_OK, lock_wait(far, "own", -1, NULL));
    lock_close(far);
    lock_server_stop(server);
}

static void a_child_has_its_own_locks(void) {
    char listen[ADDRESS_BYTES];
    lock_session *session = lock_open(NULL, "child");
    CHECK(session != NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "held", LOCK_EXCLUSIVE, 0, NULL));
    expect_taken(tcp);
    expect_taken(unix_url);
    snprintf(listen, sizeof listen, "message+unix:%s/child-%d.sock", directory, (int)getpid());
    use_server(NULL, listen);
    lock_broker *broker = lock_broker_new();
    use_server(broker, "message://127.0.0.1:0");
    lock_broker_free(broker);
    expect_forked(&all);
    lock_close(session);
}

static void a_grandchild_cannot_use_inherited_handles_either(void) {
    char address[ADDRESS_BYTES];
    inherited own = {.broker = lock_broker_new()};
    own.server = serve(own.broker, "message://127.0.0.1:0", address);
    own.sessions[0] = lock_open(NULL, "child");
    own.sessions[1] = lock_open(own.broker, "child");
    own.sessions[2] = lock_connect(address, "child", 10000);
    EXPECT(LOCK_OK, lock_acquire(own.sessions[0], "held", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(own.sessions[2], "held", LOCK_EXCLUSIVE, 0, NULL));
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(same(descriptors(), before));
        expect_forked(&all);
        expect_forked(&own);
        a_child_has_its_own_locks();
        free_all(&own);
        free_all(&all);
        exit(0);
    }
    await_child(pid);
    for (int i = 0; i < SESSIONS; i++) {
        EXPECT(LOCK_OK, lock_check(own.sessions[i]));
    }
    EXPECT(LOCK_TIMEOUT, lock_acquire(own.sessions[1], "held", LOCK_SHARED, 0, NULL));
    free_all(&own);
}

/* Takes the lock, forks a child that lives until it reads a byte from `stay`, and waits to be
 * killed. */
static void hold_with_child(const char *url, int ready, int stay) {
    char byte = 0;
    lock_session *session = lock_connect(url, "killed", 10000);
    CHECK(session != NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "orphan", LOCK_EXCLUSIVE, 0, NULL));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        pid_t own = getpid();
        CHECK(write(ready, &own, sizeof own) == sizeof own);
        CHECK(read(stay, &byte, 1) == 1 && byte == 'x');
        lock_close(session);
        exit(0);
    }
    for (;;) {
        pause();
    }
}

static void a_killed_parent_frees_its_locks(const char *url) {
    int ready[2], stay[2];
    pid_t grandchild;
    lock_session *waiter = lock_connect(url, "waiter", 10000);
    CHECK(waiter != NULL && pipe(ready) == 0 && pipe(stay) == 0);
    pid_t holder = fork();
    CHECK(holder >= 0);
    if (holder == 0) {
        hold_with_child(url, ready[1], stay[0]);
    }
    CHECK(read(ready[0], &grandchild, sizeof grandchild) == sizeof grandchild);
    EXPECT(LOCK_PENDING, lock_enqueue(waiter, "orphan", LOCK_EXCLUSIVE));
    kill_child(holder);
    EXPECT(LOCK_OK, lock_wait(waiter, "orphan", DEADLINE_SECONDS * 1000, NULL));
    lock_close(waiter);
    /* The grandchild was running all the time: it still reads this. */
    CHECK(write(stay[1], "x", 1) == 1);
    await_child(grandchild);
    for (int i = 0; i < 2; i++) {
        close(ready[i]);
        close(stay[i]);
    }
}

/* Even if a child still has the connection, because it was made without the fork handlers. */
static void closing_frees_the_lock_although_a_child_lives_on(const char *url) {
    lock_session *session = lock_connect(url, "closed", 10000);
    EXPECT(LOCK_OK, lock_acquire(session, "left", LOCK_EXCLUSIVE, -1, NULL));
    pid_t child = _Fork();
    if (child == 0) {
        for (;;) {
            pause();
        }
    }
    lock_close(session);
    EXPECT(LOCK_OK, lock_acquire(rival, "left", LOCK_EXCLUSIVE, DEADLINE_SECONDS * 1000, NULL));
    EXPECT(LOCK_OK, lock_release(rival, "left"));
    kill_child(child);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    directory = argv[1];
    /* Children of a killed child become children of this process, which can wait for them. */
    CHECK(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0);
    before = descriptors();
    set_up();
    in_child(fork, calls_do_nothing);
    in_child(_Fork, calls_do_nothing);
    in_child(fork, closing_all_closes_only_the_childs_own_sessions);
    in_child(_Fork, closing_all_closes_only_the_childs_own_sessions);
    in_child(fork, freeing_inherited_handles_frees_no_lock);
    in_child(fork, no_descriptor_is_inherited);
    in_child(fork, a_child_has_its_own_locks);
    in_child(fork, a_grandchild_cannot_use_inherited_handles_either);
    closing_frees_the_lock_although_a_child_lives_on(tcp);
    closing_frees_the_lock_although_a_child_lives_on(unix_url);
    a_killed_parent_frees_its_locks(tcp);
    a_killed_parent_frees_its_locks(unix_url);
    expect_unchanged();
    CHECK(lock_close_all() == SESSIONS + 1);
    memset(all.sessions, 0, sizeof all.sessions);
    free_all(&all);
    CHECK(same(descriptors(), before));
    return 0;
}
