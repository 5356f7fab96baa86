/*
 * guarded_work: runs a command while it holds a lock on a server, and not a moment longer.
 *
 *     guarded_work URL NAME COMMAND [ARGUMENT...]
 *
 * It waits its turn for the lock NAME, and runs the command with the fencing token in the
 * environment, as LOCK_TOKEN. If the lock is lost in the meantime, the command and all processes
 * that it has started are killed at once, because another client may be granted the lock soon.
 * SIGTERM and SIGINT are passed on to the command. The command runs in its own process group, so it
 * cannot read from the terminal. Background processes that it leaves running when it ends are not
 * guarded any more.
 *
 * Exit status:
 *     the command's status, or 128 + N if signal N killed it: the lock was held to its end;
 *     128 + N if signal N came during the wait for the lock: the command was not run;
 *     122  the lock was lost: the command was killed, or had ended before the loss was noticed;
 *     123  no lock: no server, a deadlock, a limit; the command was not run;
 *     125  wrong arguments, or an error of the operating system;
 *     127  the command could not be run.
 */
#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <lockd.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STATUS_LOST = 122, STATUS_NOT_HAD = 123, STATUS_FAILED = 125, STATUS_NOT_RUN = 127 };
enum { CHECK_MS = 1000 };

/* A byte is written here for every signal, so that poll also sees a signal that comes just before
 * it. */
static int signal_pipe[2];
/* The last SIGTERM or SIGINT that has not been handled yet, or 0. */
static volatile sig_atomic_t stop_signal;

static void on_signal(int signal) {
    int saved = errno;
    if (signal != SIGCHLD) {
        stop_signal = signal;
    }
    ssize_t written = write(signal_pipe[1], "", 1);
    /* If the pipe is full, poll returns anyway. */
    (void)written;
    errno = saved;
}

static bool catch_signals(void) {
    const int signals[] = {SIGTERM, SIGINT, SIGCHLD};
    struct sigaction action = {.sa_handler = on_signal};
    if (pipe(signal_pipe) != 0) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        if (fcntl(signal_pipe[i], F_SETFL, O_NONBLOCK) != 0 || fcntl(signal_pipe[i], F_SETFD, FD_CLOEXEC) != 0) {
            return false;
        }
    }
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
        if (sigaction(signals[i], &action, NULL) != 0) {
            return false;
        }
    }
    return true;
}

/* Sleeps until a signal has come or the session's descriptor is readable, and never longer than
 * CHECK_MS. If the network is cut, lock_check and lock_wait detect the loss in time, but before
 * Linux 6.15 the descriptor may become readable too late. */
static bool sleep_until_something_happens(lock_session *session) {
    struct pollfd watched[2] = {
        {.fd = lock_lost_fd(session), .events = POLLIN},
        {.fd = signal_pipe[0], .events = POLLIN},
    };
    char drained[64];
    if (poll(watched, 2, CHECK_MS) < 0 && errno != EINTR) {
        perror("guarded_work: poll");
        return false;
    }
    while (read(signal_pipe[0], drained, sizeof drained) > 0) {
    }
    return true;
}

/* Waits for the lock. LOCK_INTERRUPTED: a signal asked the program to stop, and the place in the
 * queue was given up. LOCK_IO: poll failed. */
static lock_status await_lock(lock_session *session, const char *name) {
    lock_status status = lock_enqueue(session, name, LOCK_EXCLUSIVE);
    /* Any other status means no place in the queue, also LOCK_TIMEOUT from a server that does not
     * reply. */
    if (status != LOCK_PENDING) {
        return status;
    }
    /* The place is kept however a wait ends, unless by a grant. lock_wait checks whether the lock
     * has been granted. Check before poll, not only after it: a call may have read the grant
     * together with its own reply. */
    do {
        if (stop_signal != 0) {
            lock_release(session, name);
            return LOCK_INTERRUPTED;
        }
        status = lock_wait(session, name, 0, NULL);
        if (status == LOCK_TIMEOUT && !sleep_until_something_happens(session)) {
            return LOCK_IO;
        }
    } while (status == LOCK_TIMEOUT || status == LOCK_INTERRUPTED);
    return status;
}

/* Starts the command in its own process group. Returns -1 and sets errno on failure. */
static pid_t start(char **command) {
    pid_t self = getpid();
    pid_t child = fork();
    if (child == 0) {
        /* If this process is killed, its lock is released: then the command must not continue. */
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == self) {
            execvp(command[0], command);
            fprintf(stderr, "guarded_work: %s: %s\n", command[0], strerror(errno));
        }
        _exit(STATUS_NOT_RUN);
    }
    if (child > 0) {
        /* Here as well, because either of the two processes may run first. */
        setpgid(child, child);
    }
    return child;
}

/* Kills the command and all processes that it has started. */
static int kill_command(pid_t child, int result) {
    kill(-child, SIGKILL);
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {
    }
    return result;
}

/* Waits until the command has ended. Returns the exit status of this program. */
static int guard(lock_session *session, const char *name, pid_t child) {
    int status;
    pid_t ended = 0;
    while (ended == 0) {
        if (!sleep_until_something_happens(session)) {
            return kill_command(child, STATUS_FAILED);
        }
        if (lock_check(session) != LOCK_OK) {
            fprintf(stderr, "guarded_work: the command is killed: %s\n", lock_last_error());
            return kill_command(child, STATUS_LOST);
        }
        int signal = stop_signal;
        if (signal != 0) {
            stop_signal = 0;
            kill(-child, signal);
        }
        ended = waitpid(child, &status, WNOHANG);
    }
    /* If the server confirms the release, the lock was held until now. */
    if (lock_release(session, name) != LOCK_OK) {
        fprintf(stderr, "guarded_work: the lock was not held to the end: %s\n", lock_last_error());
        return STATUS_LOST;
    }
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static int run(lock_session *session, const char *name, char **command) {
    char token[32];
    lock_info info;
    lock_status status = await_lock(session, name);
    if (status == LOCK_INTERRUPTED) {
        return 128 + stop_signal;
    }
    if (status == LOCK_OK) {
        status = lock_inspect(session, name, &info);
    }
    if (status == LOCK_IO) {
        return STATUS_FAILED;
    }
    if (status != LOCK_OK) {
        fprintf(stderr, "guarded_work: no lock: %s\n", lock_last_error());
        return STATUS_NOT_HAD;
    }
    if (info.orphaned) {
        fprintf(stderr, "guarded_work: the last holder vanished; its work may be half done\n");
    }
    snprintf(token, sizeof token, "%" PRIu64, info.token);
    pid_t child = setenv("LOCK_TOKEN", token, 1) == 0 ? start(command) : -1;
    if (child < 0) {
        perror("guarded_work");
        return STATUS_FAILED;
    }
    return guard(session, name, child);
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: guarded_work URL NAME COMMAND [ARGUMENT...]\n");
        return STATUS_FAILED;
    }
    if (!catch_signals()) {
        perror("guarded_work");
        return STATUS_FAILED;
    }
    lock_session *session = lock_connect(argv[1], "guarded_work", 10000);
    if (session == NULL) {
        fprintf(stderr, "guarded_work: no session: %s\n", lock_last_error());
        return STATUS_NOT_HAD;
    }
    int result = run(session, argv[2], argv + 3);
    lock_close(session);
    return result;
}
