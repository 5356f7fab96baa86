/* Calls to a server that is stopped (its kernel still answers for it) or that reads nothing:
 * lock_cancel and lock_end end them from another thread, and do not wait themselves. Argument: a
 * directory for a socket. */
#include "check.h"

/* The calls that wait only for the server's reply. `shared` and `exclusive` are held in those
 * modes. */
typedef enum verb {
    RELEASE, RELEASE_ALL, TO_SHARED, INSPECT, INSPECT_SLOTS, LIST, ENQUEUE, ENQUEUE_CONVERT, VERBS
} verb;

typedef struct call {
    verb verb;
    lock_session *session;
    lock_status status;
    atomic_bool is_done;
    pthread_t thread;
} call;

static char address[ADDRESS_BYTES];
static pid_t server;

static lock_status ask(verb verb, lock_session *session) {
    const char *const names[] = {"exclusive", "shared"};
    lock_info info;
    lock_slots slots;
    char *json = NULL;
    switch (verb) {
    case RELEASE:
        return lock_release(session, "exclusive");
    case RELEASE_ALL:
        return lock_release_all(session, names, 2);
    case TO_SHARED:
        return lock_convert(session, "exclusive", LOCK_SHARED, -1);
    case INSPECT:
        return lock_inspect(session, "exclusive", &info);
    case INSPECT_SLOTS:
        return lock_inspect_slots(session, "exclusive", &slots);
    case LIST:
        return lock_list(session, NULL, NULL, 0, &json);
    case ENQUEUE:
        return lock_enqueue(session, "other", LOCK_EXCLUSIVE);
    default:
        return lock_enqueue_convert(session, "shared", LOCK_EXCLUSIVE);
    }
}

static void *run_call(void *argument) {
    call *call = argument;
    call->status = ask(call->verb, call->session);
    call->is_done = true;
    return NULL;
}

static bool gives_up(verb verb) {
    return verb == RELEASE || verb == RELEASE_ALL || verb == TO_SHARED;
}

/* Ends the call with `end`, repeatedly: a call that has not begun is not affected. */
static lock_status end_call(verb verb, lock_session *session, lock_status (*end)(lock_session *)) {
    call call = {.verb = verb, .session = session};
    CHECK(pthread_create(&call.thread, NULL, run_call, &call) == 0);
    AWAIT(call.is_done || (end(session), false));
    CHECK(pthread_join(call.thread, NULL) == 0);
    return call.status;
}

/* The server may still reply until all its threads have stopped. */
static void stop_server(void) {
    int status;
    CHECK(kill(server, SIGSTOP) == 0);
    CHECK(waitpid(server, &status, WUNTRACED) == server && WIFSTOPPED(status));
}

static void a_call_is_ended(verb verb) {
    lock_session *cancelled = lock_connect(address, "cancelled", 10000);
    lock_session *ended = lock_connect(address, "ended", 10000);
    CHECK(cancelled != NULL && ended != NULL);
    EXPECT(LOCK_OK, lock_acquire(cancelled, "exclusive", LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(cancelled, "shared", LOCK_SHARED, -1, NULL));
    stop_server();
    lock_status status = end_call(verb, cancelled, lock_cancel);
    EXPECT(gives_up(verb) ? LOCK_LOST : LOCK_CANCELLED, status);
    EXPECT(gives_up(verb) ? LOCK_LOST : LOCK_OK, lock_check(cancelled));
    EXPECT(LOCK_LOST, end_call(ENQUEUE, ended, lock_end));
    EXPECT(LOCK_LOST, lock_check(ended));
    EXPECT(LOCK_LOST, lock_release(ended, "exclusive"));
    EXPECT(LOCK_OK, lock_end(ended));
    lock_close(ended);
    lock_close(cancelled);
    CHECK(kill(server, SIGCONT) == 0);
}

/* A session in this process: its locks are released, and waiting calls fail. */
static void a_session_of_this_process_is_ended(void) {
    lock_session *ended = lock_open(NULL, "ended"), *holder = lock_open(NULL, "holder");
    EXPECT(LOCK_OK, lock_acquire(ended, "its own", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(holder, "exclusive", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(ended, "exclusive", LOCK_EXCLUSIVE));
    EXPECT(LOCK_OK, lock_end(ended));
    EXPECT(LOCK_LOST, lock_wait(ended, "exclusive", -1, NULL));
    EXPECT(LOCK_LOST, lock_check(ended));
    EXPECT(LOCK_OK, lock_acquire(holder, "its own", LOCK_EXCLUSIVE, -1, NULL));
    CHECK(waiters(holder, "exclusive") == 0);
    lock_close(ended);
    lock_close(holder);
    EXPECT(LOCK_INVALID, lock_end(NULL));
}

int main(int argc, char **argv) {
    char listen[ADDRESS_BYTES];
    CHECK(argc == 2);
    snprintf(listen, sizeof listen, "message+unix:%s/sock", argv[1]);
    server = serve_elsewhere(listen, address);
    for (int verb = RELEASE; verb < VERBS; verb++) {
        a_call_is_ended(verb);
    }
    kill_child(server);
    a_session_of_this_process_is_ended();
    return 0;
}
