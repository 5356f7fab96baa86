/* Connecting fails: lock_connect returns NULL, and lock_last_error gives the reason and names the
 * address. Arguments: a directory for sockets. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "servers.h"

static void fails(const char *url, int64_t timeout_ms, const char *detail) {
    CHECK(lock_connect(url, "owner", timeout_ms) == NULL);
    if (strstr(lock_last_error(), detail) == NULL) {
        fprintf(stderr, "%s does not say %s\n", lock_last_error(), detail);
        exit(1);
    }
}

static void malformed_addresses(void) {
    static const struct {
        const char *url, *detail;
    } TABLE[] = {
        {NULL, "url is NULL"},
        {"", "tcp://, tls:// or unix:/"},
        {"127.0.0.1:20934", "127.0.0.1:20934"},
        {"http://127.0.0.1", "http://127.0.0.1"},
        {"lockd://127.0.0.1:2626", "lockd://127.0.0.1:2626"},
        {"tcp://", "HOST"},
        {"tcp://127.0.0.1:0", "port"},
        {"tcp://127.0.0.1:65536", "port"},
        {"tcp://::1", "[ ]"},
        {"unix:relative", "unix:relative"},
        {"unix:", "begin with /"},
        {"tcp://\xff", "UTF-8"},
        {"tcp://127.0.0.1:1,", "separated by commas"},
        {"tcp://127.0.0.1:1,tcp://127.0.0.1:1", "twice"},
        {"tcp://127.0.0.1:1?ca=/nonexistent", "for tls://"},
        {"tls://127.0.0.1:1?ca=/nonexistent", "/nonexistent"},
        {"tcp://127.0.0.1:1?auth-token-file=/nonexistent", "/nonexistent"},
        {"tls://127.0.0.1:1?secret=x", "auth-token-file=FILE"},
    };
    for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++) {
        fails(TABLE[i].url, -1, TABLE[i].detail);
    }
}

/* Binds a port, so that no other program takes it. The caller decides whether to listen on it. */
static int bind_port(char *url, size_t size) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(fd, (struct sockaddr *)&address, length) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    snprintf(url, size, "tcp://127.0.0.1:%d", ntohs(address.sin_port));
    return fd;
}

static void no_listener_at_the_address(const char *directory) {
    char url[ADDRESS_BYTES];
    int fd = bind_port(url, sizeof url);
    fails(url, -1, url);
    fails(url, 10000, "refused");
    snprintf(url, sizeof url, "unix:%s/nobody", directory);
    fails(url, -1, url);
    close(fd);
}

static void a_listener_that_does_not_answer(void) {
    char url[ADDRESS_BYTES];
    int fd = bind_port(url, sizeof url);
    CHECK(listen(fd, 10) == 0);
    fails(url, 50, url);
    fails(url, 0, url);
    close(fd);
}

static void a_server_of_another_protocol(void) {
    char address[ADDRESS_BYTES], url[300];
    lock_server *server = serve(NULL, "lockd://127.0.0.1:0", address);
    snprintf(url, sizeof url, "tcp%s", strstr(address, "://"));
    fails(url, 500, url);
    lock_server_stop(server);
}

static void no_time(const char *directory) {
    char listen[ADDRESS_BYTES], address[300];
    snprintf(listen, sizeof listen, "message+unix:%s/no-time", directory);
    lock_server *server = serve(NULL, listen, address);
    fails(address, 0, address);
    lock_close(open_session(2, (char *[]){NULL, address}, NULL));
    lock_session *session = lock_connect(address, NULL, INT64_MIN);
    CHECK(session != NULL);
    lock_close(session);
    session = lock_connect(address, "\xff", INT64_MAX);
    CHECK(session != NULL);
    lock_close(session);
    lock_server_stop(server);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    malformed_addresses();
    no_listener_at_the_address(argv[1]);
    a_listener_that_does_not_answer();
    a_server_of_another_protocol();
    no_time(argv[1]);
    return 0;
}
