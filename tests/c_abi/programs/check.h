/* What the programs of this directory check with: a condition that does not hold is told, and ends the
 * program with status 1. */
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lockd.h"

#define CHECK(condition)                                                                    \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: %s (last error: %s)\n", __FILE__, __LINE__, #condition, \
                    lock_last_error());                                                     \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

/* The call must return this status. */
#define EXPECT(status, call)                                                               \
    do {                                                                                   \
        lock_status got_ = (call);                                                         \
        if (got_ != (status)) {                                                            \
            fprintf(stderr, "%s:%d: %s is %d (%s), not %s (last error: %s)\n", __FILE__,   \
                    __LINE__, #call, got_, lock_strerror(got_), #status, lock_last_error()); \
            exit(1);                                                                       \
        }                                                                                  \
    } while (0)

/* The session that a test is about: in this process, or on the server given as the first argument. */
static inline lock_session *open_session(int argc, char **argv, const char *owner) {
    lock_session *session = argc > 1 ? lock_connect(argv[1], owner, 10000) : lock_open(NULL, owner);
    CHECK(session != NULL);
    return session;
}

#endif
