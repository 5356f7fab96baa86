/* A process that was stopped while it waited: the lock was granted to it, and then the server ended
 * and the lock was granted to another session by the next server. When the process continues, it
 * must not believe the grant that is still in its socket. Argument: a directory for sockets. */
#include "check.h"

static char listen[ADDRESS_BYTES], address[ADDRESS_BYTES];

static void do_nothing(int signal) {
    (void)signal;
}

/* The process that waits. With `interrupted` it stops itself between two halves of its wait. */
static void wait_for_lock(bool interrupted) {
    lock_session *session = lock_connect(address, "stopped", 10000);
    CHECK(session != NULL);
    lock_status status = lock_acquire(session, "x", LOCK_EXCLUSIVE, -1, NULL);
    if (interrupted) {
        CHECK(status == LOCK_INTERRUPTED);
        raise(SIGSTOP);
        status = lock_acquire(session, "x", LOCK_EXCLUSIVE, -1, NULL);
    }
    CHECK(status == LOCK_LOST);
    EXPECT(LOCK_LOST, lock_check(session));
    lock_close(session);
    exit(0);
}

/* Sends the signal until the child has stopped: a handler that runs just before the wait begins does
 * not end it. */
static void stop(pid_t child, int signal) {
    int status;
    pid_t changed;
    do {
        kill(child, signal);
        nap();
        changed = waitpid(child, &status, WUNTRACED | WNOHANG);
    } while (changed == 0);
    CHECK(changed == child && WIFSTOPPED(status));
}

static void stop_while_waiting(bool interrupted) {
    lock_server *server = serve(NULL, listen, address);
    lock_session *holder = lock_open(NULL, "holder");
    EXPECT(LOCK_OK, lock_acquire(holder, "x", LOCK_EXCLUSIVE, 0, NULL));
    pid_t child = fork();
    if (child == 0) {
        wait_for_lock(interrupted);
    }
    AWAIT(waiters(holder, "x") == 1);
    stop(child, interrupted ? SIGUSR1 : SIGSTOP);

    /* Now the lock is granted, and right after that the server ends, and the grant with it. */
    EXPECT(LOCK_OK, lock_release(holder, "x"));
    lock_server_stop(server);
    EXPECT(LOCK_OK, lock_acquire(holder, "x", LOCK_EXCLUSIVE, -1, NULL));
    kill(child, SIGCONT);
    await_child(child);
    lock_close(holder);
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_handler = do_nothing};
    CHECK(argc == 2 && sigaction(SIGUSR1, &action, NULL) == 0);
    snprintf(listen, sizeof listen, "message+unix:%s/sock", argv[1]);
    stop_while_waiting(false);
    stop_while_waiting(true);
    return 0;
}
