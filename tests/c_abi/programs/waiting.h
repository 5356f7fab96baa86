/* Calls that wait, each in a separate thread, and are interrupted, cancelled or granted from
 * outside. */
#ifndef WAITING_H
#define WAITING_H

#include "check.h"

typedef enum verb { ACQUIRE, ACQUIRE_ALL, CONVERT, WAIT, VERBS } verb;

typedef struct call {
    verb verb;
    lock_session *session;
    const char *name;
    int64_t limit;
    pthread_t thread;
    lock_status status;
    atomic_bool is_done;
} call;

/* The call of each verb, in exclusive mode. */
static inline lock_status ask(verb verb, lock_session *session, const char *name, int64_t limit) {
    const char *names[] = {"spare", name};
    switch (verb) {
    case ACQUIRE:
        return lock_acquire(session, name, LOCK_EXCLUSIVE, limit, NULL);
    case ACQUIRE_ALL:
        return lock_acquire_all(session, names, NULL, 2, limit, NULL);
    case CONVERT:
        return lock_convert(session, name, LOCK_EXCLUSIVE, limit);
    default:
        return lock_wait(session, name, limit, NULL);
    }
}

static inline void *run_call(void *argument) {
    call *call = argument;
    call->status = ask(call->verb, call->session, call->name, call->limit);
    call->is_done = true;
    return NULL;
}

static inline void start(call *call) {
    call->is_done = false;
    CHECK(pthread_create(&call->thread, NULL, run_call, call) == 0);
}

static inline lock_status finish(call *call) {
    AWAIT(call->is_done);
    CHECK(pthread_join(call->thread, NULL) == 0);
    return call->status;
}

static atomic_int handled;

static inline void count_signal(int signal) {
    (void)signal;
    handled++;
}

static inline void handle(int signal, int flags) {
    struct sigaction action = {.sa_handler = count_signal, .sa_flags = flags};
    CHECK(sigaction(signal, &action, NULL) == 0);
}

/* Runs a signal handler in the thread of the call until that has ended the call. Once is enough if
 * the signal comes while the thread waits, but that cannot be seen from outside. */
static inline lock_status interrupt(call *call) {
    AWAIT(call->is_done || (pthread_kill(call->thread, SIGUSR1), false));
    return finish(call);
}

#endif
