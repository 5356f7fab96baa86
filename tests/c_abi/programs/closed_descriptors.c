/* A program that closes all descriptors, as one that becomes a daemon does, and opens others, which
 * get the same numbers: the session is lost, no call waits for ever, and the new descriptors are
 * left alone. Arguments: the address of a server, and the address of another server. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "check.h"

enum { FIRST = 3, END = 40 };

static int listener;
static struct sockaddr_in here;

static void listen_somewhere(void) {
    socklen_t length = sizeof here;
    here.sin_family = AF_INET;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int made = socket(AF_INET, SOCK_STREAM, 0);
    /* A number outside the range that is closed. */
    listener = fcntl(made, F_DUPFD, 200);
    close(made);
    CHECK(bind(listener, (struct sockaddr *)&here, sizeof here) == 0 && listen(listener, 200) == 0);
    CHECK(getsockname(listener, (struct sockaddr *)&here, &length) == 0);
}

/* Opens another connection or another eventfd under every number that was open. */
static void reopen_the_numbers(bool connections) {
    for (int fd = FIRST; fd < END; fd++) {
        int made = connections ? socket(AF_INET, SOCK_STREAM, 0) : eventfd(1, EFD_NONBLOCK);
        CHECK(made >= 0);
        if (connections) {
            CHECK(connect(made, (struct sockaddr *)&here, sizeof here) == 0);
        }
        if (made != fd) {
            CHECK(dup2(made, fd) == fd && close(made) == 0);
        }
    }
}

/* None of them was closed, shut down, written to or read from. */
static void expect_untouched(bool connections) {
    for (int fd = FIRST; fd < END; fd++) {
        if (connections) {
            char byte;
            int theirs = accept(listener, NULL, NULL);
            CHECK(theirs >= 0);
            CHECK(recv(theirs, &byte, 1, MSG_DONTWAIT) == -1 && "neither data nor the end has come");
            CHECK(recv(fd, &byte, 1, MSG_DONTWAIT) == -1 && "it can still receive");
            CHECK(close(theirs) == 0);
        } else {
            eventfd_t value = 0;
            CHECK(eventfd_read(fd, &value) == 0 && value == 1);
        }
        CHECK(close(fd) == 0);
    }
}

typedef struct call {
    lock_session *session;
    const char *name;
    pthread_t thread;
    lock_status status;
    atomic_bool is_done;
} call;

static void *run_call(void *argument) {
    call *call = argument;
    call->status = lock_acquire(call->session, call->name, LOCK_EXCLUSIVE, -1, NULL);
    call->is_done = true;
    return NULL;
}

static void lose_descriptors(const char *urls, bool connections) {
    lock_info info;
    lock_session *session = lock_connect(urls, "session", 10000);
    CHECK(session != NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "x", LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_check(session));
    close_range(FIRST, 100, 0);
    reopen_the_numbers(connections);
    EXPECT(LOCK_LOST, lock_check(session));
    EXPECT(LOCK_LOST, lock_release(session, "x"));
    EXPECT(LOCK_LOST, lock_acquire(session, "y", LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_LOST, lock_inspect(session, "x", &info));
    EXPECT(LOCK_OK, lock_cancel(session));
    /* A child closes the descriptors that it has inherited from the library, and only those. */
    pid_t child = fork();
    if (child == 0) {
        for (int fd = FIRST; fd < END; fd++) {
            CHECK(fcntl(fd, F_GETFD) != -1);
        }
        EXPECT(LOCK_FORKED, lock_check(session));
        _exit(0);
    }
    await_child(child);
    lock_close(session);
    expect_untouched(connections);
}

/* The first call, whichever it is, reports the loss. */
static void the_first_call_reports_the_loss(const char *url) {
    lock_info info;
    char *json = NULL;
    for (int which = 0; which < 7; which++) {
        lock_session *session = lock_connect(url, "session", 10000);
        CHECK(session != NULL);
        EXPECT(LOCK_OK, lock_acquire(session, "x", LOCK_EXCLUSIVE, -1, NULL));
        close_range(FIRST, 100, 0);
        reopen_the_numbers(true);
        switch (which) {
        case 0:
            EXPECT(LOCK_LOST, lock_acquire(session, "y", LOCK_EXCLUSIVE, -1, NULL));
            break;
        case 1:
            EXPECT(LOCK_LOST, lock_release(session, "x"));
            break;
        case 2:
            EXPECT(LOCK_LOST, lock_inspect(session, "x", &info));
            break;
        case 3:
            EXPECT(LOCK_LOST, lock_list(session, NULL, NULL, 0, &json));
            break;
        case 4:
            EXPECT(LOCK_LOST, lock_convert(session, "x", LOCK_SHARED, -1));
            break;
        case 5:
            EXPECT(LOCK_LOST, lock_wait(session, "x", -1, NULL));
            break;
        default:
            EXPECT(LOCK_OK, lock_end(session));
        }
        lock_close(session);
        expect_untouched(true);
    }
}

/* Threads that wait while the descriptors are closed: one reads, the others rely on it. */
static void waiting_calls_are_told(const char *url) {
    enum { WAITS = 3 };
    static const char *const NAMES[WAITS] = {"a", "b", "c"};
    call calls[WAITS];
    lock_session *session = lock_connect(url, "session", 10000);
    lock_session *holder = lock_connect(url, "holder", 10000);
    pid_t child = fork();
    if (child == 0) {
        /* This process holds the locks and keeps its descriptors. */
        lock_close(holder);
        holder = lock_connect(url, "holder", 10000);
        for (int i = 0; i < WAITS; i++) {
            EXPECT(LOCK_OK, lock_acquire(holder, NAMES[i], LOCK_EXCLUSIVE, -1, NULL));
        }
        pause();
    }
    for (int i = 0; i < WAITS; i++) {
        lock_info info = {0};
        AWAIT(lock_inspect(holder, NAMES[i], &info) == LOCK_OK && info.holders == 1);
        calls[i] = (call){.session = session, .name = NAMES[i]};
        CHECK(pthread_create(&calls[i].thread, NULL, run_call, &calls[i]) == 0);
        AWAIT(waiters(holder, NAMES[i]) == 1);
    }
    close_range(FIRST, 100, 0);
    reopen_the_numbers(true);
    for (int i = 0; i < WAITS; i++) {
        AWAIT(calls[i].is_done);
        CHECK(pthread_join(calls[i].thread, NULL) == 0);
        CHECK(calls[i].status == LOCK_LOST);
    }
    lock_close(session);
    lock_close(holder);
    expect_untouched(true);
    kill_child(child);
}

int main(int argc, char **argv) {
    char urls[2 * ADDRESS_BYTES];
    CHECK(argc == 3);
    listen_somewhere();
    lose_descriptors(argv[1], true);
    lose_descriptors(argv[2], true);
    lose_descriptors(argv[1], false);
    snprintf(urls, sizeof urls, "%s,%s", argv[1], argv[2]);
    lose_descriptors(urls, true);
    lose_descriptors(urls, false);
    the_first_call_reports_the_loss(argv[1]);
    waiting_calls_are_told(argv[1]);
    return 0;
}
