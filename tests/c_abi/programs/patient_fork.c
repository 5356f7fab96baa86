/* Forks while lock_connect_and_acquire waits: the child keeps none of its connections, and does not
 * wait in its parent's place. Argument: a directory for sockets. */
#include "patient.h"

static numbers before;
static char url[ADDRESS_BYTES];
static lock_session *holder;

static void use_the_library(void) {
    const char *names[] = {"of the child"};
    lock_session *session = NULL;
    EXPECT(LOCK_OK, lock_connect_and_acquire(url, "child", names, NULL, 1, DEADLINE_SECONDS * 1000, NULL, NULL,
                                             NULL, &session));
    EXPECT(LOCK_TIMEOUT, lock_acquire(session, "lock", LOCK_EXCLUSIVE, 0, NULL));
    CHECK(waiters(session, "lock") == 1);
    lock_close(session);
}

/* By another thread, in each phase. */
static void a_child_of_a_waiting_parent(patient *patient) {
    pid_t pid = fork();
    if (pid == 0) {
        CHECK(same(descriptors(), before));
        CHECK(lock_close_all() == 0);
        use_the_library();
        exit(0);
    }
    await_child(pid);
    CHECK(!patient->is_done);
}

static pid_t child;
static pid_t (*make_child)(void);

/* Forks once, and returns in both processes. */
static int fork_inside(uint32_t event, const char *reason, void *context) {
    (void)event, (void)reason, (void)context;
    CHECK(child >= 0 && "the child does not wait any more");
    if (child == 0) {
        child = make_child();
        if (child == 0) {
            child = -1;
        }
    }
    return 0;
}

static void fork_in_report(const char *at, int64_t limit, lock_status of_parent) {
    const char *names[] = {"lock"};
    uint64_t token = 7;
    lock_session *session = NULL;
    child = 0;
    lock_status status =
        lock_connect_and_acquire(at, "parent", names, NULL, 1, limit, fork_inside, NULL, &token, &session);
    if (child < 0) {
        EXPECT(LOCK_FORKED, status);
        CHECK(session == NULL && token == 7);
        CHECK(make_child != fork || same(descriptors(), before));
        _exit(0);
    }
    await_child(child);
    EXPECT(of_parent, status);
    CHECK(session == NULL && token == 7);
}

int main(int argc, char **argv) {
    char listen_at[ADDRESS_BYTES], address[ADDRESS_BYTES], absent[ADDRESS_BYTES];
    CHECK(argc == 2);
    before = descriptors();
    snprintf(absent, sizeof absent, "unix:%s/absent", argv[1]);
    snprintf(url, sizeof url, "unix:%s/server", argv[1]);
    snprintf(listen_at, sizeof listen_at, "message+unix:%s/server", argv[1]);
    lock_server *server = serve(NULL, listen_at, address);
    holder = lock_connect(url, "holder", 10000);
    EXPECT(LOCK_OK, lock_acquire(holder, "lock", LOCK_EXCLUSIVE, 0, NULL));

    make_child = fork;
    fork_in_report(absent, 1000, LOCK_LOST);
    fork_in_report(url, 2000, LOCK_TIMEOUT);
    /* Even if no fork handler runs, the child does nothing to its parent's connection. */
    make_child = _Fork;
    fork_in_report(url, 2000, LOCK_TIMEOUT);

    patient waiting = patient_for(url), pausing = patient_for(absent);
    start_patient(&waiting);
    start_patient(&pausing);
    AWAIT(waiters(holder, "lock") == 1 && pausing.events[LOCK_EVENT_NO_SERVER] >= 1);
    for (int i = 0; i < 5; i++) {
        a_child_of_a_waiting_parent(&waiting);
    }
    EXPECT(LOCK_OK, lock_release(holder, "lock"));
    EXPECT(LOCK_OK, finish_patient(&waiting));
    pausing.stop = true;
    EXPECT(LOCK_CANCELLED, finish_patient(&pausing));
    lock_close(waiting.session);
    lock_close(holder);
    lock_server_stop(server);
    return 0;
}
