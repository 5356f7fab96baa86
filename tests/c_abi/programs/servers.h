/* For the programs that serve locks. */
#ifndef SERVERS_H
#define SERVERS_H

#include <poll.h>

#include "sessions.h"

/* Waits until the session is lost, as a program should. */
static inline void await_loss(lock_session *session) {
    struct pollfd fd = {.fd = lock_lost_fd(session), .events = POLLIN};
    do {
        CHECK(poll(&fd, 1, 20000) == 1);
    } while (lock_check(session) == LOCK_OK);
    EXPECT(LOCK_LOST, lock_check(session));
}

#endif
