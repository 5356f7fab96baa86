/* Serving a broker: the results of lock_serve and lock_server_address, which clients may connect,
 * and that handles can be freed in any order. Arguments: a directory for sockets. */
#include "servers.h"

static const char *directory;

/* Formats an address in the directory. */
static const char *in_directory(const char *format) {
    static char text[2][600];
    static int turn;
    turn = !turn;
    snprintf(text[turn], sizeof text[turn], format, directory, directory);
    return text[turn];
}

static void refused_to_serve(lock_status status, const char *listen, const char *allow, const char *detail) {
    lock_server *const untouched = (lock_server *)&directory;
    lock_server *server = untouched;
    EXPECT(status, lock_serve(NULL, listen, allow, &server));
    CHECK(server == untouched);
    if (strstr(lock_last_error(), detail) == NULL) {
        fprintf(stderr, "%s does not say %s\n", lock_last_error(), detail);
        exit(1);
    }
}

static void malformed_addresses_are_invalid(void) {
    static const struct {
        const char *listen, *allow, *detail;
    } TABLE[] = {
        {NULL, NULL, "listen is NULL"},
        {"", NULL, "PROTOCOL://"},
        {"127.0.0.1:0", NULL, "127.0.0.1:0"},
        {"message://127.0.0.1", NULL, "message://127.0.0.1"},
        {"message://:0", NULL, "message://:0"},
        {"message://127.0.0.1:65536", NULL, "65536"},
        {"message+unix:", NULL, "message+unix:"},
        {"http://127.0.0.1:0", NULL, "http"},
        {"message://127.0.0.1:0,", NULL, "PROTOCOL://"},
        {"message://127.0.0.1:0,nothing", NULL, "nothing"},
        {"message://\xff:0", NULL, "UTF-8"},
        {"message://127.0.0.1:0", "localhost", "localhost"},
        {"message://127.0.0.1:0", "10.0.0.0/33", "10.0.0.0/33"},
        {"message://127.0.0.1:0", "127.0.0.1,,::1", "\"\""},
        {"message://127.0.0.1:0", "\xff", "UTF-8"},
    };
    for (size_t i = 0; i < sizeof TABLE / sizeof *TABLE; i++) {
        refused_to_serve(LOCK_INVALID, TABLE[i].listen, TABLE[i].allow, TABLE[i].detail);
    }
    EXPECT(LOCK_INVALID, lock_serve(NULL, "message://127.0.0.1:0", NULL, NULL));
    CHECK(strstr(lock_last_error(), "out is NULL"));
}

static void an_address_that_cannot_be_bound_is_an_error_and_nothing_is_served(void) {
    char address[ADDRESS_BYTES];
    lock_server *server = serve(NULL, "message://127.0.0.1:0", address);
    refused_to_serve(LOCK_IO, address, NULL, address + strlen("message://"));
    refused_to_serve(LOCK_IO, in_directory("message+unix:%s/none/socket"), NULL, "none/socket");

    const char *half = in_directory("message+unix:%s/half,message+unix:%s/none/socket");
    refused_to_serve(LOCK_IO, half, NULL, "none/socket");
    const char *socket = in_directory("message+unix:%s/half");
    CHECK(lock_connect(socket, NULL, 10000) == NULL);
    lock_server *second = serve(NULL, socket, address);
    refused_to_serve(LOCK_IO, socket, NULL, "half");
    lock_close(open_session(2, (char *[]){NULL, address}, NULL));
    lock_server_stop(second);
    lock_server_stop(server);
}

static void addresses_are_reported_with_their_ports(void) {
    const char *listen = in_directory("lockd://127.0.0.1:0, glockd+unix:%s/told ,message://127.0.0.1:0");
    lock_server *server = NULL;
    EXPECT(LOCK_OK, lock_serve(NULL, listen, "", &server));
    char buf[ADDRESS_BYTES], untouched[300];
    memset(buf, 'x', sizeof buf);
    memset(untouched, 'x', sizeof untouched);
    EXPECT(LOCK_INVALID, lock_server_address(server, 3, buf, sizeof buf));
    CHECK(strstr(lock_last_error(), "3 addresses"));
    EXPECT(LOCK_INVALID, lock_server_address(server, SIZE_MAX, buf, sizeof buf));
    EXPECT(LOCK_INVALID, lock_server_address(server, 0, NULL, sizeof buf));
    EXPECT(LOCK_INVALID, lock_server_address(NULL, 0, buf, sizeof buf));
    EXPECT(LOCK_INVALID, lock_server_address(server, 0, buf, 0));
    CHECK(memcmp(buf, untouched, sizeof buf) == 0);

    EXPECT(LOCK_OK, lock_server_address(server, 0, buf, sizeof buf));
    CHECK(strncmp(buf, "lockd://127.0.0.1:", 18) == 0 && strcmp(buf + 18, "0") != 0);
    EXPECT(LOCK_OK, lock_server_address(server, 1, buf, sizeof buf));
    CHECK(strcmp(buf, in_directory("glockd+unix:%s/told")) == 0);

    size_t size = strlen(buf) + 1;
    char needed[32];
    snprintf(needed, sizeof needed, "%zu bytes", size);
    memset(buf, 'x', sizeof buf);
    EXPECT(LOCK_INVALID, lock_server_address(server, 1, buf, size - 1));
    CHECK(strstr(lock_last_error(), needed) && memcmp(buf, untouched, sizeof buf) == 0);
    EXPECT(LOCK_OK, lock_server_address(server, 1, buf, size));
    CHECK(buf[size - 1] == 0 && buf[size] == 'x');

    EXPECT(LOCK_OK, lock_server_address(server, 2, buf, sizeof buf));
    lock_close(open_session(2, (char *[]){NULL, buf}, NULL));
    lock_server_stop(server);
}

static bool lets_this_machine_in(const char *allow) {
    lock_server *server = NULL;
    char address[ADDRESS_BYTES];
    EXPECT(LOCK_OK, lock_serve(NULL, "message://127.0.0.1:0", allow, &server));
    EXPECT(LOCK_OK, lock_server_address(server, 0, address, sizeof address));
    lock_session *session = lock_connect(address, NULL, 10000);
    CHECK(session != NULL || strstr(lock_last_error(), address));
    bool may_connect = session != NULL;
    lock_close(session);
    lock_server_stop(server);
    return may_connect;
}

static void only_listed_addresses_may_connect(void) {
    CHECK(lets_this_machine_in(NULL));
    CHECK(lets_this_machine_in(""));
    CHECK(lets_this_machine_in("10.0.0.0/8, 127.0.0.1"));
    CHECK(!lets_this_machine_in("10.0.0.0/8"));
}

static void brokers_share_no_locks(void) {
    lock_broker *broker = lock_broker_new(), *another = lock_broker_new();
    CHECK(broker != NULL && another != NULL);
    lock_session *sessions[] = {lock_open(broker, NULL), lock_open(another, NULL), lock_open(NULL, NULL)};
    for (int i = 0; i < 3; i++) {
        EXPECT(LOCK_OK, lock_acquire(sessions[i], "same", LOCK_EXCLUSIVE, 0, NULL));
    }
    for (int i = 0; i < 3; i++) {
        lock_close(sessions[i]);
    }
    lock_broker_free(broker);
    lock_broker_free(another);
}

static void a_broker_lives_until_its_last_session_and_server_end(void) {
    char address[ADDRESS_BYTES];
    lock_broker *broker = lock_broker_new();
    lock_server *server = serve(broker, "message://127.0.0.1:0", address);
    lock_session *here = lock_open(broker, "here");
    lock_broker_free(broker);
    lock_session *there = lock_connect(address, "there", -1);
    CHECK(there != NULL);
    EXPECT(LOCK_OK, lock_acquire(there, "name", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_TIMEOUT, lock_acquire(here, "name", LOCK_EXCLUSIVE, 0, NULL));
    lock_server_stop(server);
    EXPECT(LOCK_OK, lock_acquire(here, "name", LOCK_EXCLUSIVE, -1, NULL));
    lock_close(there);
    lock_close(here);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    directory = argv[1];
    malformed_addresses_are_invalid();
    an_address_that_cannot_be_bound_is_an_error_and_nothing_is_served();
    addresses_are_reported_with_their_ports();
    only_listed_addresses_may_connect();
    brokers_share_no_locks();
    a_broker_lives_until_its_last_session_and_server_end();
    return 0;
}
