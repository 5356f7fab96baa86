/* The descriptor of lock_lost_fd in a poll loop: it is readable when the server has gone or a lock
 * was granted, and not readable otherwise. Argument: a directory for sockets. */
#include <poll.h>

#include "check.h"

enum { NAMES = 32 };

static const char *directory;
static char *names[NAMES];

static int readable(lock_session *session, int timeout_ms) {
    struct pollfd fd = {.fd = lock_lost_fd(session), .events = POLLIN};
    CHECK(fd.fd >= 0);
    int ready = poll(&fd, 1, timeout_ms);
    CHECK(ready >= 0);
    return ready;
}

static lock_session *connect_as(const char *url, const char *owner) {
    lock_session *session = lock_connect(url, owner, 10000);
    CHECK(session != NULL);
    return session;
}

static void nothing_is_reported_while_all_is_well(lock_session *session, lock_session *other) {
    int fd = lock_lost_fd(session);
    CHECK(!readable(session, 0));
    for (int i = 0; i < NAMES; i++) {
        EXPECT(LOCK_OK, lock_acquire(session, names[i], LOCK_EXCLUSIVE, -1, NULL));
        EXPECT(LOCK_TIMEOUT, lock_acquire(other, names[i], LOCK_SHARED, 0, NULL));
        EXPECT(LOCK_PENDING, lock_enqueue(other, names[i], LOCK_SHARED));
        CHECK(!readable(other, 0));
        EXPECT(LOCK_OK, lock_release(other, names[i]));
        EXPECT(LOCK_OK, lock_release(session, names[i]));
        CHECK(!readable(session, 0) && !readable(other, 0));
        EXPECT(LOCK_OK, lock_check(session));
    }
    CHECK(lock_lost_fd(session) == fd);
}

static void a_grant_is_reported(lock_session *session, lock_session *other) {
    for (int i = 0; i < NAMES; i++) {
        uint64_t token = 0;
        EXPECT(LOCK_OK, lock_acquire(other, names[i], LOCK_EXCLUSIVE, -1, NULL));
        EXPECT(LOCK_PENDING, lock_enqueue(session, names[i], LOCK_EXCLUSIVE));
        EXPECT(LOCK_TIMEOUT, lock_wait(session, names[i], 0, NULL));
        CHECK(!readable(session, 0));
        EXPECT(LOCK_OK, lock_release(other, names[i]));
        CHECK(readable(session, DEADLINE_SECONDS * 1000));
        EXPECT(LOCK_OK, lock_check(session));
        EXPECT(LOCK_OK, lock_wait(session, names[i], 0, &token));
        CHECK(token > 0 && !readable(session, 0));
        EXPECT(LOCK_OK, lock_release(session, names[i]));
    }
}

static void the_end_is_reported(lock_session *session, lock_session *other) {
    lock_info info;
    int fd = lock_lost_fd(session);
    lock_session *both[] = {session, other};
    for (int i = 0; i < 2; i++) {
        CHECK(readable(both[i], DEADLINE_SECONDS * 1000));
        EXPECT(LOCK_LOST, lock_check(both[i]));
        CHECK(readable(both[i], 0));
    }
    CHECK(lock_lost_fd(session) == fd);
    EXPECT(LOCK_LOST, lock_acquire(session, names[0], LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_LOST, lock_enqueue(session, names[0], LOCK_EXCLUSIVE));
    EXPECT(LOCK_LOST, lock_wait(session, names[0], 0, NULL));
    EXPECT(LOCK_LOST, lock_inspect(session, names[0], &info));
    EXPECT(LOCK_LOST, lock_release(session, names[0]));
    lock_close(session);
    lock_close(other);
}

static void a_server_stops(const char *listen) {
    char address[ADDRESS_BYTES];
    lock_server *server = serve(NULL, listen, address);
    lock_session *session = connect_as(address, "poll"), *other = connect_as(address, "other");
    nothing_is_reported_while_all_is_well(session, other);
    a_grant_is_reported(session, other);
    EXPECT(LOCK_OK, lock_acquire(session, names[0], LOCK_EXCLUSIVE, 0, NULL));
    lock_server_stop(server);
    the_end_is_reported(session, other);
}

static void a_connection_is_cut(const char *listen) {
    char address[ADDRESS_BYTES];
    pid_t server = serve_elsewhere(listen, address);
    lock_session *session = connect_as(address, "poll"), *other = connect_as(address, "other");
    a_grant_is_reported(session, other);
    EXPECT(LOCK_OK, lock_acquire(session, names[0], LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(other, names[0], LOCK_EXCLUSIVE));
    CHECK(!readable(session, 0) && !readable(other, 0));
    kill_child(server);
    the_end_is_reported(session, other);
}

static void one_of_several_servers_stops(const char *listen) {
    char url[3 * ADDRESS_BYTES], address[3][ADDRESS_BYTES];
    lock_server *servers[3];
    lock_broker *brokers[3];
    for (int i = 0; i < 3; i++) {
        brokers[i] = lock_broker_new();
        servers[i] = serve(brokers[i], i == 0 ? listen : "message://127.0.0.1:0", address[i]);
    }
    snprintf(url, sizeof url, "%s,%s,%s", address[0], address[1], address[2]);
    lock_session *session = connect_as(url, "poll"), *other = connect_as(url, "other");
    nothing_is_reported_while_all_is_well(session, other);
    a_grant_is_reported(session, other);
    /* Enough names that some belong to the server that stops: only then is the session lost with
     * it. */
    for (int i = 0; i < 100; i++) {
        char held[20];
        snprintf(held, sizeof held, "held/%d", i);
        EXPECT(LOCK_OK, lock_acquire(session, held, LOCK_EXCLUSIVE, 0, NULL));
    }
    lock_server_stop(servers[1]);
    CHECK(readable(session, DEADLINE_SECONDS * 1000));
    EXPECT(LOCK_LOST, lock_check(session));
    lock_close(session);
    lock_close(other);
    for (int i = 0; i < 3; i++) {
        if (i != 1) {
            lock_server_stop(servers[i]);
        }
        lock_broker_free(brokers[i]);
    }
}

static void a_local_session_has_no_descriptor(void) {
    lock_session *session = lock_open(NULL, "local");
    CHECK(lock_lost_fd(session) == -1);
    EXPECT(LOCK_OK, lock_check(session));
    lock_close(session);
    CHECK(lock_lost_fd(NULL) == -1);
}

int main(int argc, char **argv) {
    char listen[2 * ADDRESS_BYTES], name[NAMES][20];
    CHECK(argc == 2);
    directory = argv[1];
    snprintf(listen, sizeof listen, "message+unix:%s/lost.sock", directory);
    for (int i = 0; i < NAMES; i++) {
        snprintf(name[i], sizeof name[i], "name/%d", i);
        names[i] = name[i];
    }
    a_connection_is_cut("message://127.0.0.1:0");
    a_connection_is_cut(listen);
    a_server_stops("message://127.0.0.1:0");
    a_server_stops(listen);
    one_of_several_servers_stops(listen);
    a_local_session_has_no_descriptor();
    return 0;
}
