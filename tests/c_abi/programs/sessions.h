/* For the programs with several sessions: sessions in this process or on the server given to the
 * program, calls that wait in a separate thread, and waiting until a lock is in a given state. */
#ifndef SESSIONS_H
#define SESSIONS_H

#include "check.h"

static int argument_count;
static char **arguments;

static inline lock_session *new_session(const char *owner) {
    return open_session(argument_count, arguments, owner);
}

static inline bool is_local(void) {
    return argument_count < 2;
}

/* A call that waits without a time limit, in a separate thread. */
typedef struct call {
    enum { ACQUIRE, ACQUIRE_ALL, CONVERT, ENQUEUE, WAIT } verb;
    lock_session *session;
    const char *name;
    const char *second_name;
    uint32_t mode;
    lock_status status;
    uint64_t token;
    pthread_t thread;
} call;

static inline void *run_call(void *arg) {
    call *c = arg;
    const char *names[] = {c->name, c->second_name};
    switch (c->verb) {
    case ACQUIRE:
        c->status = lock_acquire(c->session, c->name, c->mode, -1, &c->token);
        break;
    case ACQUIRE_ALL:
        c->status = lock_acquire_all(c->session, names, NULL, 2, -1, &c->token);
        break;
    case CONVERT:
        c->status = lock_convert(c->session, c->name, c->mode, -1);
        break;
    case ENQUEUE:
        c->status = lock_enqueue(c->session, c->name, c->mode);
        break;
    case WAIT:
        c->status = lock_wait(c->session, c->name, -1, &c->token);
        break;
    }
    return NULL;
}

static inline void begin(call *c) {
    CHECK(pthread_create(&c->thread, NULL, run_call, c) == 0);
}

static inline lock_status finish(call *c) {
    CHECK(pthread_join(c->thread, NULL) == 0);
    return c->status;
}

static inline lock_info look(lock_session *session, const char *name) {
    lock_info info;
    EXPECT(LOCK_OK, lock_inspect(session, name, &info));
    return info;
}

/* Waits until `waiters` requests wait for the lock. */
static inline lock_info await_waiters(lock_session *session, const char *name, uint64_t waiters) {
    AWAIT(look(session, name).waiters == waiters);
    return look(session, name);
}

/* Waits until `holders` sessions hold the lock. */
static inline lock_info await_holders(lock_session *session, const char *name, uint64_t holders) {
    AWAIT(look(session, name).holders == holders);
    return look(session, name);
}

#endif
