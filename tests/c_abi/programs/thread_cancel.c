/* A thread with a pending cancellation calls every function of the library: each does what it
 * should, none is a cancellation point, and the thread ends at its next own cancellation point.
 * Argument: a directory for a socket. */
#include "check.h"

static char listen_[ADDRESS_BYTES], address[ADDRESS_BYTES];
static atomic_bool is_pending, is_through;

/* Makes every call, with sessions in this process or on its server. */
static void use_sessions(lock_session *session, lock_session *other) {
    const char *const names[] = {"one", "two"};
    lock_info info;
    char *json = NULL;
    uint64_t token;
    CHECK(session != NULL && other != NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "x", LOCK_EXCLUSIVE, 0, &token));
    EXPECT(LOCK_TIMEOUT, lock_acquire(other, "x", LOCK_EXCLUSIVE, 20, &token));
    EXPECT(LOCK_PENDING, lock_enqueue(other, "x", LOCK_EXCLUSIVE));
    EXPECT(LOCK_TIMEOUT, lock_wait(other, "x", 20, &token));
    EXPECT(LOCK_OK, lock_acquire(other, "y", LOCK_EXCLUSIVE, 0, &token));
    EXPECT(LOCK_DEADLOCK, lock_acquire(session, "y", LOCK_EXCLUSIVE, -1, &token));
    EXPECT(LOCK_OK, lock_convert(session, "x", LOCK_SHARED, -1));
    EXPECT(LOCK_OK, lock_enqueue_convert(session, "x", LOCK_EXCLUSIVE));
    EXPECT(LOCK_OK, lock_inspect(session, "x", &info));
    EXPECT(LOCK_OK, lock_list(session, NULL, NULL, 0, &json));
    lock_list_free(json);
    EXPECT(LOCK_OK, lock_check(session));
    lock_lost_fd(session);
    EXPECT(LOCK_OK, lock_release(session, "x"));
    EXPECT(LOCK_OK, lock_wait(other, "x", -1, &token));
    EXPECT(LOCK_OK, lock_acquire_all(session, names, NULL, 2, -1, &token));
    EXPECT(LOCK_OK, lock_release_all(session, names, 2));
    EXPECT(LOCK_OK, lock_cancel(session));
    EXPECT(LOCK_OK, lock_end(session));
    EXPECT(LOCK_LOST, lock_check(session));
    lock_close(session);
    lock_close(other);
}

static void use_everything(void) {
    CHECK(lock_abi_version() == 1 && strlen(lock_version()) > 0);
    CHECK(strlen(lock_strerror(LOCK_OK)) > 0 && lock_last_error() != NULL);
    lock_broker *broker = lock_broker_new();
    use_sessions(lock_open(broker, "one"), lock_open(broker, NULL));
    lock_server *server = serve(broker, listen_, address);
    use_sessions(lock_connect(address, "one", 10000), lock_connect(address, NULL, 10000));
    CHECK(lock_open(broker, "left open") != NULL && lock_connect(address, "left open", 10000) != NULL);
    CHECK(lock_close_all() == 2);
    lock_server_stop(server);
    CHECK(lock_connect(address, NULL, 10000) == NULL);
    lock_broker_free(broker);
}

static void *be_cancelled(void *unused) {
    (void)unused;
    while (!is_pending) {
        /* A sleep would be a cancellation point. */
    }
    use_everything();
    is_through = true;
    for (;;) {
        pause();
    }
    return NULL;
}

static lock_session *shared_session;

static void *be_cancelled_in_first_call(void *unused) {
    (void)unused;
    while (!is_pending) {
    }
    EXPECT(LOCK_DEADLOCK, lock_acquire(shared_session, "y", LOCK_EXCLUSIVE, -1, NULL));
    is_through = true;
    for (;;) {
        pause();
    }
    return NULL;
}

static void cancel(void *(*body)(void *)) {
    pthread_t thread;
    void *result = NULL;
    is_pending = is_through = false;
    CHECK(pthread_create(&thread, NULL, body, NULL) == 0);
    CHECK(pthread_cancel(thread) == 0);
    is_pending = true;
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == PTHREAD_CANCELED && is_through);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    snprintf(listen_, sizeof listen_, "message+unix:%s/sock", argv[1]);
    cancel(be_cancelled);

    /* A call that searches for a deadlock, in a thread that has not called the library before. */
    lock_session *other = lock_open(NULL, "other");
    shared_session = lock_open(NULL, "shared");
    EXPECT(LOCK_OK, lock_acquire(shared_session, "x", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(other, "y", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(other, "x", LOCK_EXCLUSIVE));
    cancel(be_cancelled_in_first_call);
    lock_close(other);
    lock_close(shared_session);
    return 0;
}
