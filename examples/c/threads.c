/*
 * threads: threads of one process that share its broker.
 *
 * Workers make transfers between accounts. Each transfer locks its two accounts in one call, so
 * that only one worker uses an account at a time and no two workers wait for each other; transfers
 * between other accounts continue at the same time. Only the locks protect the accounts.
 *
 *     threads [TRANSFERS]
 *
 * The exit status is 0 if the sum of all accounts has not changed, else 1.
 */
#define _POSIX_C_SOURCE 200809L

#include <lockd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORKERS = 4, ACCOUNTS = 5, OPENING_BALANCE = 1000 };

static long balances[ACCOUNTS];
static atomic_long transfers_left = 10000;

/* Moves an amount from one account to another, or nothing if the balance is too low. */
static lock_status transfer(lock_session *session, int from, int to, long amount) {
    char from_name[32], to_name[32];
    const char *names[2] = {from_name, to_name};
    snprintf(from_name, sizeof from_name, "account/%d", from);
    snprintf(to_name, sizeof to_name, "account/%d", to);

    /* NULL: both in exclusive mode. -1: wait without a time limit. NULL: the fencing token is not
     * needed. */
    lock_status status = lock_acquire_all(session, names, NULL, 2, -1, NULL);
    if (status != LOCK_OK) {
        return status;
    }
    if (balances[from] >= amount) {
        balances[from] -= amount;
        balances[to] += amount;
    }
    return lock_release_all(session, names, 2);
}

/* A worker. Returns NULL on success. */
static void *work(void *argument) {
    unsigned number = *(const unsigned *)argument;
    char owner[32];
    snprintf(owner, sizeof owner, "worker %u", number);

    /* One session for each worker: a session is one owner, and the workers contend with one
     * another. */
    lock_session *session = lock_open(NULL, owner);
    if (session == NULL) {
        fprintf(stderr, "%s: no session: %s\n", owner, lock_last_error());
        return argument;
    }
    lock_status status = LOCK_OK;
    unsigned dice = number;
    while (status == LOCK_OK && atomic_fetch_sub(&transfers_left, 1) > 0) {
        dice = dice * 1664525u + 1013904223u;
        int from = (int)(dice >> 16) % ACCOUNTS;
        int to = (from + 1 + (int)(dice >> 24) % (ACCOUNTS - 1)) % ACCOUNTS;
        status = transfer(session, from, to, (long)(dice >> 8) % 100);
    }
    if (status != LOCK_OK) {
        fprintf(stderr, "%s: no transfer: %s\n", owner, lock_last_error());
    }
    lock_close(session);
    return status == LOCK_OK ? NULL : argument;
}

int main(int argc, char **argv) {
    pthread_t threads[WORKERS];
    unsigned numbers[WORKERS];
    unsigned started = 0;
    int result = EXIT_SUCCESS;

    if (argc > 1) {
        atomic_store(&transfers_left, strtol(argv[1], NULL, 10));
    }
    long transfers = atomic_load(&transfers_left);
    for (int account = 0; account < ACCOUNTS; account++) {
        balances[account] = OPENING_BALANCE;
    }

    while (started < WORKERS) {
        numbers[started] = started;
        int error = pthread_create(&threads[started], NULL, work, &numbers[started]);
        if (error != 0) {
            fprintf(stderr, "no thread: %s\n", strerror(error));
            result = EXIT_FAILURE;
            break;
        }
        started++;
    }
    for (unsigned i = 0; i < started; i++) {
        void *failed;
        if (pthread_join(threads[i], &failed) != 0 || failed != NULL) {
            result = EXIT_FAILURE;
        }
    }

    long total = 0;
    for (int account = 0; account < ACCOUNTS; account++) {
        total += balances[account];
    }
    printf("%ld transfers by %u workers: %ld in all accounts, %d to begin with\n", transfers, started, total,
           ACCOUNTS * OPENING_BALANCE);
    return total == ACCOUNTS * OPENING_BALANCE ? result : EXIT_FAILURE;
}
