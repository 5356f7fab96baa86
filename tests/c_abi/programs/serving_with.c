/* Serving with options by their names: what lock_serve_with accepts and refuses, that a state
 * directory is kept, and that a relative path is reported as an absolute one, so that every client
 * finds it. Arguments: a directory. */
#include "servers.h"

static const char *directory;

static void refused(const char *name, const char *value, const char *detail) {
    const char *names[] = {"listen", name}, *values[] = {"message://127.0.0.1:0", value};
    lock_server *const untouched = (lock_server *)&directory;
    lock_server *server = untouched;
    EXPECT(LOCK_INVALID, lock_serve_with(NULL, names, values, 2, &server));
    CHECK(server == untouched);
    if (strstr(lock_last_error(), detail) == NULL || (name != NULL && strstr(lock_last_error(), name) == NULL)) {
        fprintf(stderr, "%s does not say %s of %s\n", lock_last_error(), detail, name == NULL ? "NULL" : name);
        exit(1);
    }
}

static void invalid_options_are_reported_by_name(void) {
    refused("lisen", "message://127.0.0.1:0", "no such option");
    refused("--line-max", "9", "write it as \"line-max\"");
    refused("line_max", "9", "write it as \"line-max\"");
    refused("ws-origin", "example.org", "no origin");
    refused("listen", "message+unix:@name", "abstract");
    refused("line-max", "many", "many");
    refused("line-max", "0", "0");
    refused("no-dump", "perhaps", "perhaps");
    refused("dead-peer-timeout", "1", "12");
    refused("tls-cert", "/nonexistent", "tls-key");
    refused("auth-token-file", "/nonexistent", "/nonexistent");
    refused("user", "nobody", "program");
    refused("pidfile", "/tmp/pid", "program");
    refused("http", "127.0.0.1:0", "lockd");
    refused("config", "/etc/lockd.toml", "lockd");
    refused(NULL, "", "names[1] is NULL");
    refused("line-max", NULL, "the value is NULL");
    refused("line-max", "\xff", "UTF-8");

    const char *names[] = {"line-max"}, *values[] = {"9"};
    lock_server *server = NULL;
    EXPECT(LOCK_INVALID, lock_serve_with(NULL, names, values, 1, &server));
    CHECK(strstr(lock_last_error(), "listen"));
    EXPECT(LOCK_INVALID, lock_serve_with(NULL, NULL, values, 1, &server));
    EXPECT(LOCK_INVALID, lock_serve_with(NULL, names, NULL, 1, &server));
    EXPECT(LOCK_INVALID, lock_serve_with(NULL, NULL, NULL, 0, &server));
    EXPECT(LOCK_INVALID, lock_serve_with(NULL, names, values, 1, NULL));
    CHECK(server == NULL);
}

/* Serves with one more option, and writes the address. A state directory may be new. */
static lock_status serve_with(lock_broker *broker, const char *listen, const char *name, const char *value,
                              lock_server **server, char *address) {
    const char *names[] = {"listen", "allow", "first-start", name};
    const char *values[] = {listen, "127.0.0.0/8,::1", "yes", value};
    lock_status status = lock_serve_with(broker, names, values, 4, server);
    if (status == LOCK_OK) {
        EXPECT(LOCK_OK, lock_server_address(*server, 0, address, ADDRESS_BYTES));
    }
    return status;
}

static void the_options_take_effect(void) {
    lock_broker *broker = lock_broker_new();
    lock_server *server;
    char address[ADDRESS_BYTES], *json = NULL;
    EXPECT(LOCK_OK, serve_with(broker, "message://127.0.0.1:0", "no-dump", "true", &server, address));
    lock_session *session = open_session(2, (char *[]){NULL, address}, NULL);
    EXPECT(LOCK_REFUSED, lock_list(session, NULL, NULL, 0, &json));
    lock_close(session);
    lock_server_stop(server);

    /* A limit belongs to the broker: it holds for local and remote sessions, and for the next
     * server too. */
    EXPECT(LOCK_OK, serve_with(broker, "message://127.0.0.1:0", "locks-per-connection-max", "1", &server, address));
    lock_server_stop(server);
    server = serve(broker, "message://127.0.0.1:0", address);
    lock_session *sessions[] = {open_session(2, (char *[]){NULL, address}, NULL), lock_open(broker, NULL)};
    for (int i = 0; i < 2; i++) {
        EXPECT(LOCK_OK, lock_acquire(sessions[i], i ? "here" : "there", LOCK_EXCLUSIVE, 0, NULL));
        EXPECT(LOCK_REFUSED, lock_acquire(sessions[i], "one more", LOCK_EXCLUSIVE, 0, NULL));
        lock_close(sessions[i]);
    }
    lock_server_stop(server);
    lock_broker_free(broker);
}

static void a_relative_path_is_reported_as_an_absolute_one(void) {
    char address[ADDRESS_BYTES], start[600], expected[700];
    CHECK(getcwd(start, sizeof start) != NULL && chdir(directory) == 0);
    snprintf(expected, sizeof expected, "message+unix:%s/relative.sock", directory);
    lock_server *server = serve(NULL, "message+unix:relative.sock", address);
    CHECK(chdir(start) == 0);
    CHECK(strcmp(address, expected) == 0);
    lock_close(open_session(2, (char *[]){NULL, address}, NULL));
    lock_server_stop(server);
    CHECK(access(address + strlen("message+unix:"), F_OK) != 0);
}

static uint64_t token_of_a_grant(lock_broker *broker) {
    uint64_t token = 0;
    lock_session *session = lock_open(broker, NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "kept", LOCK_EXCLUSIVE, 0, &token));
    lock_close(session);
    return token;
}

static void tokens_in_a_state_directory_rise_from_run_to_run(void) {
    char state[600], address[ADDRESS_BYTES];
    uint64_t last = 0;
    snprintf(state, sizeof state, "%s/state", directory);
    for (int run = 0; run < 3; run++) {
        lock_broker *broker = lock_broker_new();
        lock_server *server, *second;
        EXPECT(LOCK_OK, serve_with(broker, "message://127.0.0.1:0", "state-dir", state, &server, address));
        /* The directory is in use, also for another broker. */
        lock_broker *other = lock_broker_new();
        EXPECT(LOCK_IO, serve_with(other, "message://127.0.0.1:0", "state-dir", state, &second, address));
        CHECK(strstr(lock_last_error(), state));
        lock_broker_free(other);
        uint64_t token = token_of_a_grant(broker);
        CHECK(token > last);
        last = token;
        lock_server_stop(server);
        /* The broker has shut with it. */
        lock_session *session = lock_open(broker, NULL);
        EXPECT(LOCK_REFUSED, lock_acquire(session, "kept", LOCK_EXCLUSIVE, 0, NULL));
        lock_close(session);
        lock_broker_free(broker);
    }
}

static void a_state_directory_stays_in_use_while_a_local_session_holds_a_lock(void) {
    char state[600], address[ADDRESS_BYTES];
    lock_server *server, *second;
    /* Not a directory that another run of this program may have left behind: it would require a
     * grace. */
    snprintf(state, sizeof state, "%s/held-%ld", directory, (long)getpid());
    lock_broker *broker = lock_broker_new(), *next = lock_broker_new();
    EXPECT(LOCK_OK, serve_with(broker, "message://127.0.0.1:0", "state-dir", state, &server, address));
    lock_session *session = lock_open(broker, NULL);
    EXPECT(LOCK_OK, lock_acquire(session, "held", LOCK_EXCLUSIVE, 0, NULL));
    lock_server_stop(server);
    EXPECT(LOCK_OK, lock_check(session));
    EXPECT(LOCK_IO, serve_with(next, "message://127.0.0.1:0", "state-dir", state, &second, address));
    lock_close(session);
    lock_broker_free(broker);
    lock_broker_free(next);
}

static void a_broker_in_use_takes_no_state_directory(void) {
    char state[600], address[ADDRESS_BYTES];
    lock_server *server = NULL;
    snprintf(state, sizeof state, "%s/too late", directory);
    lock_broker *broker = lock_broker_new();
    lock_session *session = lock_open(broker, NULL);
    EXPECT(LOCK_INVALID, serve_with(broker, "message://127.0.0.1:0", "state-dir", state, &server, address));
    CHECK(strstr(lock_last_error(), "state-dir: the broker is in use"));
    CHECK(server == NULL && access(state, F_OK) != 0);
    lock_close(session);
    lock_broker_free(broker);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    directory = argv[1];
    invalid_options_are_reported_by_name();
    the_options_take_effect();
    a_relative_path_is_reported_as_an_absolute_one();
    tokens_in_a_state_directory_rise_from_run_to_run();
    a_state_directory_stays_in_use_while_a_local_session_holds_a_lock();
    a_broker_in_use_takes_no_state_directory();
    return 0;
}
