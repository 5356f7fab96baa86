/* A session whose server has stopped is lost, whatever it was doing and whatever it does next, and
 * its output arguments stay unchanged. Arguments: a directory for sockets. */
#include "servers.h"

static const char *const NAMES[] = {"one", "two"};

enum { WAITS = 4 };

/* A session that holds locks, and waits in every possible way for locks of a session in this
 * process. That session outlives the server, so its end grants nothing. */
static void wait_in_all_ways(lock_session *session, lock_session *holder, call *waits) {
    EXPECT(LOCK_OK, lock_acquire(holder, "busy", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(holder, "busy too", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(holder, "queue", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(holder, "shared", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, "shared", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, "held", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "queue", LOCK_EXCLUSIVE));
    waits[0] = (call){.verb = ACQUIRE, .session = session, .name = "busy"};
    waits[1] = (call){.verb = ACQUIRE_ALL, .session = session, .name = "busy too", .second_name = "free"};
    waits[2] = (call){.verb = CONVERT, .session = session, .name = "shared"};
    waits[3] = (call){.verb = WAIT, .session = session, .name = "queue"};
    for (int i = 0; i < WAITS; i++) {
        begin(&waits[i]);
        await_waiters(holder, waits[i].name, 1);
    }
}

static void every_call_fails(lock_session *session) {
    uint64_t token = 7;
    lock_info info = {.token = 7};
    char *json = NULL;
    EXPECT(LOCK_LOST, lock_check(session));
    CHECK(strstr(lock_last_error(), "the session has ended: "));
    EXPECT(LOCK_LOST, lock_acquire(session, "one", LOCK_EXCLUSIVE, 0, &token));
    EXPECT(LOCK_LOST, lock_acquire(session, "one", LOCK_SHARED, -1, &token));
    EXPECT(LOCK_LOST, lock_acquire(session, "held", LOCK_EXCLUSIVE, -1, &token));
    EXPECT(LOCK_LOST, lock_acquire_all(session, NAMES, NULL, 2, -1, &token));
    EXPECT(LOCK_LOST, lock_convert(session, "shared", LOCK_EXCLUSIVE, -1));
    EXPECT(LOCK_LOST, lock_convert(session, "held", LOCK_SHARED, -1));
    EXPECT(LOCK_LOST, lock_convert(session, "one", LOCK_SHARED, -1));
    EXPECT(LOCK_LOST, lock_enqueue(session, "one", LOCK_EXCLUSIVE));
    EXPECT(LOCK_LOST, lock_enqueue_convert(session, "shared", LOCK_EXCLUSIVE));
    EXPECT(LOCK_LOST, lock_enqueue_convert(session, "one", LOCK_SHARED));
    EXPECT(LOCK_LOST, lock_wait(session, "queue", -1, &token));
    EXPECT(LOCK_LOST, lock_wait(session, "one", 0, &token));
    EXPECT(LOCK_LOST, lock_release(session, "held"));
    EXPECT(LOCK_LOST, lock_release(session, "one"));
    EXPECT(LOCK_LOST, lock_release_all(session, NAMES, 2));
    EXPECT(LOCK_LOST, lock_inspect(session, "held", &info));
    CHECK(strstr(lock_last_error(), "the session has ended: "));
    EXPECT(LOCK_LOST, lock_list(session, NULL, NULL, 0, &json));
    EXPECT(LOCK_OK, lock_cancel(session));
    EXPECT(LOCK_INVALID, lock_acquire(session, NULL, LOCK_EXCLUSIVE, -1, &token));
    CHECK(token == 7 && info.token == 7 && json == NULL);
}

static void lose(const char *listen) {
    char url[ADDRESS_BYTES];
    lock_broker *broker = lock_broker_new();
    lock_server *server = serve(broker, listen, url);
    lock_session *holder = lock_open(broker, "holder"), *session = lock_connect(url, "session", 10000);
    lock_session *idle = lock_connect(url, NULL, 10000);
    call waits[WAITS];
    CHECK(holder != NULL && session != NULL && idle != NULL);
    wait_in_all_ways(session, holder, waits);
    EXPECT(LOCK_OK, lock_check(idle));
    lock_server_stop(server);
    for (int i = 0; i < WAITS; i++) {
        EXPECT(LOCK_LOST, finish(&waits[i]));
        CHECK(waits[i].token == 0);
    }
    await_loss(idle);
    every_call_fails(session);
    every_call_fails(idle);

    EXPECT(LOCK_OK, lock_check(holder));
    CHECK(look(holder, "shared").holders == 1 && look(holder, "busy").waiters == 0);
    lock_info info = look(holder, "held");
    CHECK(info.holders == 0 && info.orphaned);
    CHECK(lock_connect(url, NULL, 10000) == NULL);
    lock_close(session);
    lock_close(idle);
    lock_close(holder);
    lock_broker_free(broker);
}

int main(int argc, char **argv) {
    char listen[ADDRESS_BYTES];
    CHECK(argc == 2);
    snprintf(listen, sizeof listen, "message+unix:%s/lost.sock", argv[1]);
    lose(listen);
    lose("message://127.0.0.1:0");
    return 0;
}
