/* A session that resumes: what its calls return while the server is away, a poll loop through the
 * doubt, and the verdict. Argument: a directory for the socket and the state of the server. */
#include <poll.h>

#include "check.h"

static char listen_at[2 * ADDRESS_BYTES], state[2 * ADDRESS_BYTES], url[2 * ADDRESS_BYTES];

/* Runs of the same server, one after another: each in a child, until that is killed. */
static pid_t start(void) {
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        const char *names[] = {"listen", "state-dir", "dead-peer-timeout", "first-start"};
        const char *values[] = {listen_at, state, "12", "true"};
        lock_server *server;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        EXPECT(LOCK_OK, lock_serve_with(NULL, names, values, 4, &server));
        CHECK(write(ready[1], "r", 1) == 1);
        for (;;) {
            pause();
        }
    }
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    return child;
}

static void end(pid_t server) {
    CHECK(kill(server, SIGKILL) == 0);
    CHECK(waitpid(server, NULL, 0) == server);
}

static lock_session *connect_to(const char *address) {
    lock_session *session = lock_connect(address, "c", 10000);
    CHECK(session != NULL);
    return session;
}

/* What a poll loop does until lock_check returns this. */
static void poll_until(lock_session *session, lock_status wanted) {
    struct pollfd fd = {.fd = lock_lost_fd(session), .events = POLLIN};
    lock_status status;
    time_t end = seconds() + DEADLINE_SECONDS;
    while ((status = lock_check(session)) != wanted) {
        CHECK(status == LOCK_OK || status == LOCK_DOUBT);
        CHECK(seconds() < end);
        CHECK(poll(&fd, 1, 1000) >= 0);
    }
}

static void only_a_session_that_asks_for_it_resumes(void) {
    lock_session *local = lock_open(NULL, "local"), *plain = connect_to(listen_at + strlen("message+"));
    CHECK(lock_resumable(local) == 0);
    CHECK(lock_resumable(plain) == 0);
    CHECK(lock_resumable(NULL) == -1);
    EXPECT(LOCK_OK, lock_wait_certain(local, -1));
    EXPECT(LOCK_OK, lock_wait_certain(plain, 0));
    EXPECT(LOCK_INVALID, lock_wait_certain(NULL, 0));
    EXPECT(LOCK_OK, lock_end(local));
    EXPECT(LOCK_LOST, lock_wait_certain(local, -1));
    lock_close(local);
    lock_close(plain);
}

static void calls_in_doubt(lock_session *session) {
    lock_info info;
    char *json;
    uint64_t token = 77;
    EXPECT(LOCK_DOUBT, lock_acquire(session, "b", LOCK_SHARED, 0, &token));
    EXPECT(LOCK_DOUBT, lock_acquire(session, "b", LOCK_SHARED, 1, &token));
    EXPECT(LOCK_DOUBT, lock_enqueue(session, "b", LOCK_SHARED));
    EXPECT(LOCK_DOUBT, lock_enqueue_convert(session, "a", LOCK_SHARED));
    EXPECT(LOCK_DOUBT, lock_convert(session, "a", LOCK_SHARED, -1));
    EXPECT(LOCK_DOUBT, lock_inspect(session, "a", &info));
    EXPECT(LOCK_DOUBT, lock_list(session, "", NULL, 0, &json));
    EXPECT(LOCK_DOUBT, lock_token(session, "a", &token));
    EXPECT(LOCK_DOUBT, lock_release(session, "released"));
    EXPECT(LOCK_DOUBT, lock_check(session));
    EXPECT(LOCK_DOUBT, lock_wait_certain(session, 0));
    CHECK(token == 77);
    CHECK(strstr(lock_strerror(LOCK_DOUBT), "doubt") && strstr(lock_last_error(), "doubt"));
}

int main(int argc, char **argv) {
    uint64_t token, same;
    CHECK(argc == 2);
    snprintf(listen_at, sizeof listen_at, "message+unix:%s/s", argv[1]);
    snprintf(state, sizeof state, "%s/state", argv[1]);
    snprintf(url, sizeof url, "unix:%s/s?resume", argv[1]);
    pid_t server = start();
    only_a_session_that_asks_for_it_resumes();
    lock_session *session = connect_to(url), *other = connect_to(url);
    CHECK(lock_resumable(session) == 1);
    EXPECT(LOCK_OK, lock_acquire(session, "a", LOCK_EXCLUSIVE, 0, &token));
    EXPECT(LOCK_OK, lock_acquire(session, "released", LOCK_EXCLUSIVE, 0, NULL));

    end(server);
    poll_until(session, LOCK_DOUBT);
    calls_in_doubt(session);
    server = start();
    poll_until(session, LOCK_OK);
    EXPECT(LOCK_OK, lock_token(session, "a", &same));
    CHECK(same == token);
    EXPECT(LOCK_NOT_HELD, lock_token(session, "released", &same));
    EXPECT(LOCK_OK, lock_wait_certain(other, -1));
    EXPECT(LOCK_TIMEOUT, lock_acquire(other, "a", LOCK_SHARED, 1, NULL));

    /* Without a server the doubt ends with the loss. */
    end(server);
    EXPECT(LOCK_LOST, lock_wait_certain(session, -1));
    EXPECT(LOCK_LOST, lock_check(session));
    EXPECT(LOCK_LOST, lock_acquire(session, "a", LOCK_SHARED, -1, NULL));
    /* What holds nothing is not lost, and waits for the next server. */
    EXPECT(LOCK_DOUBT, lock_wait_certain(other, 1));
    server = start();
    EXPECT(LOCK_OK, lock_wait_certain(other, -1));
    lock_close(session);
    lock_close(other);
    end(server);
    return 0;
}
