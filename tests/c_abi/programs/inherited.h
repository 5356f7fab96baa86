/* Handles of every kind, created in one process and misused in its child. */
#ifndef INHERITED_H
#define INHERITED_H

#include "check.h"

enum { SESSIONS = 3 };

typedef struct inherited {
    lock_broker *broker;
    lock_server *server;
    /* In this process, over TCP, over a Unix socket. Each holds "held" of its broker in shared
     * mode. */
    lock_session *sessions[SESSIONS];
} inherited;

static inline void expect_forked_session(lock_session *session) {
    const char *names[] = {"held", "other"};
    lock_info info = {.holders = 77};
    lock_slots slots = {.holders = 77};
    uint64_t token = 77;
    uint32_t mode = 77;
    char *json = NULL;
    EXPECT(LOCK_FORKED, lock_acquire(session, "other", LOCK_EXCLUSIVE, -1, &token));
    EXPECT(LOCK_FORKED, lock_acquire(session, "held", LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_FORKED, lock_acquire_all(session, names, NULL, 2, -1, &token));
    EXPECT(LOCK_FORKED, lock_convert(session, "held", LOCK_EXCLUSIVE, -1));
    EXPECT(LOCK_FORKED, lock_enqueue(session, "other", LOCK_SHARED));
    EXPECT(LOCK_FORKED, lock_enqueue_convert(session, "held", LOCK_EXCLUSIVE));
    EXPECT(LOCK_FORKED, lock_wait(session, "queued", -1, &token));
    EXPECT(LOCK_FORKED, lock_release(session, "held"));
    EXPECT(LOCK_FORKED, lock_release_all(session, names, 2));
    EXPECT(LOCK_FORKED, lock_inspect(session, "held", &info));
    EXPECT(LOCK_FORKED, lock_inspect_slots(session, "held", &slots));
    EXPECT(LOCK_FORKED, lock_token(session, "held", &token));
    EXPECT(LOCK_FORKED, lock_held_mode(session, "held", &mode));
    EXPECT(LOCK_FORKED, lock_list(session, NULL, NULL, 0, &json));
    EXPECT(LOCK_FORKED, lock_check(session));
    EXPECT(LOCK_FORKED, lock_cancel(session));
    CHECK(lock_lost_fd(session) == -1);
    CHECK(token == 77 && mode == 77 && info.holders == 77 && slots.holders == 77 && json == NULL);
}

static inline void expect_forked(const inherited *all) {
    char address[ADDRESS_BYTES];
    lock_server *server = NULL;
    for (int i = 0; i < SESSIONS; i++) {
        expect_forked_session(all->sessions[i]);
    }
    CHECK(lock_open(all->broker, "child") == NULL);
    CHECK(strcmp(lock_last_error(), lock_strerror(LOCK_FORKED)) == 0);
    EXPECT(LOCK_FORKED, lock_serve(all->broker, "message://127.0.0.1:0", NULL, &server));
    EXPECT(LOCK_FORKED, lock_server_address(all->server, 0, address, sizeof address));
    CHECK(server == NULL);
}

/* Frees all handles, in the process that created them or in a child. */
static inline void free_all(const inherited *all) {
    for (int i = 0; i < SESSIONS; i++) {
        lock_close(all->sessions[i]);
    }
    lock_server_stop(all->server);
    lock_broker_free(all->broker);
}

#endif
