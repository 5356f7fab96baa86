/*
 * server: serves locks with any options of the program lockd, given as NAME=VALUE.
 *
 *     server listen=message://127.0.0.1:20934 dead-peer-timeout=30 no-dump=true
 *
 * With state-dir=DIRECTORY, the tokens of each name rise from one run to the next, and after an
 * unclean stop the next run observes a grace. So the server must be started before the program
 * opens a session of its own.
 *
 * It prints the addresses, and serves until SIGINT or SIGTERM. The exit status is 0, or 1 if it
 * cannot serve.
 */
#define _POSIX_C_SOURCE 200809L

#include <lockd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { OPTIONS_MAX = 64 };

int main(int argc, char **argv) {
    const char *names[OPTIONS_MAX], *values[OPTIONS_MAX];
    size_t n = 0;
    for (int i = 1; i < argc && n < OPTIONS_MAX; i++) {
        char *equals = strchr(argv[i], '=');
        if (equals == NULL) {
            fprintf(stderr, "%s is not NAME=VALUE\n", argv[i]);
            return 1;
        }
        *equals = 0;
        names[n] = argv[i];
        values[n++] = equals + 1;
    }

    /* Block them before anything is served: sigwait below waits for them. */
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, NULL);

    lock_server *server;
    if (lock_serve_with(NULL, names, values, n, &server) != LOCK_OK) {
        fprintf(stderr, "cannot serve: %s\n", lock_last_error());
        return 1;
    }
    char address[300];
    for (size_t i = 0; lock_server_address(server, i, address, sizeof address) == LOCK_OK; i++) {
        printf("listening on %s\n", address);
    }
    fflush(stdout);

    int signal;
    sigwait(&stop, &signal);
    lock_server_stop(server);
    return 0;
}
