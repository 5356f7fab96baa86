/* Checks for the programs of this directory. A condition that does not hold is printed and ends the
 * program with status 1. */
#ifndef CHECK_H
#define CHECK_H

#include <dirent.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

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

/* Long enough for the slowest machine: an event that has not happened by then will not happen. */
enum { DEADLINE_SECONDS = 60 };

static inline time_t seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static inline void nap(void) {
    nanosleep(&(struct timespec){0, 1000000}, NULL);
}

/* The condition must become true before the deadline. */
#define AWAIT(condition)                                                        \
    do {                                                                        \
        for (time_t end_ = seconds() + DEADLINE_SECONDS; !(condition); nap()) { \
            CHECK(seconds() < end_ && "not before the deadline: " #condition);  \
        }                                                                       \
    } while (0)

/* Opens the session under test: in this process, or on the server that is the first argument. */
static inline lock_session *open_session(int argc, char **argv, const char *owner) {
    lock_session *session = argc > 1 ? lock_connect(argv[1], owner, 10000) : lock_open(NULL, owner);
    CHECK(session != NULL);
    return session;
}

/* Adds one to a counter that only a lock on a server protects: a separate read and write, not an
 * atomic addition. The accesses are atomic only because the order of the holders comes from another
 * process, which a tool that looks for data races in this one cannot know. */
static inline void add_one(atomic_long *unprotected) {
    long seen = atomic_load_explicit(unprotected, memory_order_relaxed);
    atomic_store_explicit(unprotected, seen + 1, memory_order_relaxed);
}

/* How many sessions wait for a lock. */
static inline uint64_t waiters(lock_session *session, const char *name) {
    lock_info info;
    EXPECT(LOCK_OK, lock_inspect(session, name, &info));
    return info.waiters;
}

/* The process must end by itself with status 0. */
static inline void await_child(pid_t pid) {
    int status = -1;
    pid_t ended = 0;
    time_t end = seconds() + DEADLINE_SECONDS;
    CHECK(pid > 0);
    while ((ended = waitpid(pid, &status, WNOHANG)) == 0 && seconds() < end) {
        nap();
    }
    if (ended == 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    CHECK(ended == pid && "the child has ended");
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Kills a process, whatever it is doing. */
static inline void kill_child(pid_t pid) {
    int status;
    CHECK(kill(pid, SIGKILL) == 0);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* The descriptors or threads of this process, as /proc/self/fd or /proc/self/task lists them. */
enum { NUMBERS_MAX = 256 };
typedef struct numbers {
    int count;
    int at[NUMBERS_MAX];
} numbers;

static inline int ascending(const void *a, const void *b) {
    return *(const int *)a - *(const int *)b;
}

static inline numbers list_numbers(const char *path) {
    numbers found = {0};
    DIR *directory = opendir(path);
    CHECK(directory != NULL);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        int number = atoi(entry->d_name);
        int is_own = strstr(path, "/fd") != NULL && number == dirfd(directory);
        if (entry->d_name[0] != '.' && !is_own) {
            CHECK(found.count < NUMBERS_MAX);
            found.at[found.count++] = number;
        }
    }
    closedir(directory);
    qsort(found.at, (size_t)found.count, sizeof found.at[0], ascending);
    return found;
}

static inline numbers descriptors(void) {
    numbers found = list_numbers("/proc/self/fd");
    /* Valgrind keeps its own descriptors above the limit. */
    while (found.count > 0 && found.at[found.count - 1] >= sysconf(_SC_OPEN_MAX)) {
        found.count--;
    }
    return found;
}

static inline numbers threads(void) {
    return list_numbers("/proc/self/task");
}

static inline int same(numbers a, numbers b) {
    return a.count == b.count && memcmp(a.at, b.at, (size_t)a.count * sizeof a.at[0]) == 0;
}

static inline int contains(const numbers *all, int number) {
    for (int i = 0; i < all->count; i++) {
        if (all->at[i] == number) {
            return 1;
        }
    }
    return 0;
}

/* Serves a broker at an address such as message://127.0.0.1:0, and returns the actual address. */
enum { ADDRESS_BYTES = 300 };
static inline lock_server *serve(lock_broker *broker, const char *listen, char *address) {
    lock_server *server = NULL;
    EXPECT(LOCK_OK, lock_serve(broker, listen, NULL, &server));
    EXPECT(LOCK_OK, lock_server_address(server, 0, address, ADDRESS_BYTES));
    return server;
}

/* Starts a server in a separate process, so that it can be killed. */
static inline pid_t serve_elsewhere(const char *listen, char *address) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        char own[ADDRESS_BYTES] = "";
        /* The server must end even if the program fails. */
        CHECK(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
        serve(NULL, listen, own);
        CHECK(write(ends[1], own, sizeof own) == sizeof own);
        for (;;) {
            pause();
        }
    }
    CHECK(read(ends[0], address, ADDRESS_BYTES) == ADDRESS_BYTES);
    close(ends[0]);
    close(ends[1]);
    return pid;
}

#endif
