/*
 * daemon: a program that serves its locks to other processes, and uses them itself.
 *
 * It manages a spool. A process that writes to the spool holds the lock "spool" in shared mode; the
 * daemon's own threads hold it in exclusive mode while they tidy up. Writers are other processes,
 * which connect.
 *
 *     daemon ADDRESS...        for example message://127.0.0.1:0 message+unix:/run/spool/locks.sock
 *
 * It prints each address that it listens on. SIGTERM and SIGINT stop it, with status 0. Status 1
 * means that it could not do its work, status 2 that it was called with wrong arguments.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <lockd.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TIDIERS = 2, PAUSE_MS = 20, ADDRESS_LEN = 300 };

struct tidier {
    pthread_t thread;
    lock_session *session;
    unsigned long rounds;
    bool failed;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t stopped = PTHREAD_COND_INITIALIZER;
static bool stopping;

/* Sleeps for the pause between two rounds. Returns whether there should be another round. */
static bool pause_between_rounds(void) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PAUSE_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;

    pthread_mutex_lock(&mutex);
    while (!stopping && pthread_cond_timedwait(&stopped, &mutex, &until) != ETIMEDOUT) {
    }
    bool goes_on = !stopping;
    pthread_mutex_unlock(&mutex);
    return goes_on;
}

static void *tidy(void *argument) {
    struct tidier *tidier = argument;
    while (pause_between_rounds()) {
        /* A time limit, although lock_cancel ends the wait: the cancel may come just before the
         * wait begins. */
        lock_status status = lock_acquire(tidier->session, "spool", LOCK_EXCLUSIVE, 500, NULL);
        if (status == LOCK_TIMEOUT || status == LOCK_CANCELLED) {
            continue;
        }
        if (status == LOCK_OK) {
            /* No process writes now. The work would be done here. */
            tidier->rounds++;
            status = lock_release(tidier->session, "spool");
        }
        if (status != LOCK_OK) {
            fprintf(stderr, "daemon: tidying has stopped: %s\n", lock_last_error());
            tidier->failed = true;
            /* The main thread waits for signals, and stops cleanly when one comes. */
            kill(getpid(), SIGTERM);
            break;
        }
    }
    return NULL;
}

static bool start(struct tidier *tidier) {
    tidier->session = lock_open(NULL, "tidier");
    if (tidier->session == NULL) {
        fprintf(stderr, "daemon: no session: %s\n", lock_last_error());
        return false;
    }
    int error = pthread_create(&tidier->thread, NULL, tidy, tidier);
    if (error != 0) {
        fprintf(stderr, "daemon: no thread: %s\n", strerror(error));
        lock_close(tidier->session);
        return false;
    }
    return true;
}

static void stop(struct tidier *tidiers, int count) {
    pthread_mutex_lock(&mutex);
    stopping = true;
    pthread_cond_broadcast(&stopped);
    pthread_mutex_unlock(&mutex);
    for (int i = 0; i < count; i++) {
        /* Ends the thread's wait for a writer. */
        lock_cancel(tidiers[i].session);
        pthread_join(tidiers[i].thread, NULL);
        lock_close(tidiers[i].session);
    }
}

/* Joins the addresses for lock_serve. The caller frees the result. */
static char *join_with_commas(char **parts, int count) {
    size_t len = 1;
    for (int i = 0; i < count; i++) {
        len += strlen(parts[i]) + 1;
    }
    char *joined = malloc(len);
    if (joined != NULL) {
        joined[0] = '\0';
        for (int i = 0; i < count; i++) {
            strcat(strcat(joined, i == 0 ? "" : ","), parts[i]);
        }
    }
    return joined;
}

static lock_server *serve(char **addresses, int count) {
    lock_server *server;
    char *listen = join_with_commas(addresses, count);
    if (listen == NULL) {
        perror("daemon");
        return NULL;
    }
    /* The first NULL is the default broker, which lock_open(NULL, ...) uses too. The second NULL
     * allows clients of this machine only. */
    lock_status status = lock_serve(NULL, listen, NULL, &server);
    free(listen);
    if (status != LOCK_OK) {
        fprintf(stderr, "daemon: cannot serve: %s\n", lock_last_error());
        return NULL;
    }
    for (int i = 0; i < count; i++) {
        char address[ADDRESS_LEN];
        if (lock_server_address(server, (size_t)i, address, sizeof address) == LOCK_OK) {
            printf("listening on %s\n", address);
        }
    }
    /* A program that reads these lines from a pipe waits for them. */
    fflush(stdout);
    return server;
}

int main(int argc, char **argv) {
    struct tidier tidiers[TIDIERS] = {0};
    int started = 0;
    sigset_t signals;
    int signal;

    if (argc < 2) {
        fprintf(stderr, "usage: daemon ADDRESS...\n");
        return 2;
    }

    /* Before any other thread exists: every thread inherits the mask, and the signals wait for
     * sigwait. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);

    lock_server *server = serve(argv + 1, argc - 1);
    if (server == NULL) {
        return EXIT_FAILURE;
    }
    while (started < TIDIERS && start(&tidiers[started])) {
        started++;
    }
    if (started == TIDIERS) {
        sigwait(&signals, &signal);
    }

    /* Stop the threads first. When the server stops, it releases its clients' locks, and a thread
     * that is still waiting for one would be granted it before the client that held it has noticed.
     */
    stop(tidiers, started);
    lock_server_stop(server);

    bool failed = started < TIDIERS;
    unsigned long rounds = 0;
    for (int i = 0; i < started; i++) {
        rounds += tidiers[i].rounds;
        failed = failed || tidiers[i].failed;
    }
    printf("stopped after %lu rounds\n", rounds);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
