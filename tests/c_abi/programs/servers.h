/* What the programs that serve locks share. */
#ifndef SERVERS_H
#define SERVERS_H

#include <poll.h>

#include "sessions.h"

/* Serves the broker there, and says where that is. */
static inline lock_server *serve(lock_broker *broker, const char *listen, char *address, size_t size) {
    lock_server *server = NULL;
    EXPECT(LOCK_OK, lock_serve(broker, listen, NULL, &server));
    CHECK(server != NULL);
    EXPECT(LOCK_OK, lock_server_address(server, 0, address, size));
    return server;
}

/* Waits until the session is lost, as a program should. */
static inline void await_loss(lock_session *session) {
    struct pollfd fd = {.fd = lock_lost_fd(session), .events = POLLIN};
    do {
        CHECK(poll(&fd, 1, 20000) == 1);
    } while (lock_check(session) == LOCK_OK);
    EXPECT(LOCK_LOST, lock_check(session));
}

#endif
