/* lock_connect_and_acquire waits through the absence of its server, and says how it failed.
 * Argument: a directory for sockets. */
#include <sys/stat.h>

#include "patient.h"

static const char *directory;
static char listen_at[ADDRESS_BYTES];
static char url[ADDRESS_BYTES];

/* A new address, at which nothing listens yet. */
static void take_address(const char *name) {
    snprintf(listen_at, sizeof listen_at, "message+unix:%s/%s", directory, name);
    snprintf(url, sizeof url, "unix:%s/%s", directory, name);
}

static lock_session *connect_as(const char *owner) {
    lock_session *session = lock_connect(url, owner, 10000);
    CHECK(session != NULL);
    return session;
}

static void expect_held(patient *patient, const char *name) {
    lock_info info;
    uint64_t token = 0;
    EXPECT(LOCK_OK, lock_inspect(patient->session, name, &info));
    CHECK(info.held && info.holders == 1 && info.token == patient->token);
    EXPECT(LOCK_OK, lock_token(patient->session, name, &token));
    CHECK(token == patient->token);
}

static void a_server_that_comes_later(void) {
    char address[ADDRESS_BYTES];
    take_address("later");
    patient patient = patient_for(url);
    start_patient(&patient);
    AWAIT(patient.events[LOCK_EVENT_NO_SERVER] >= 2);
    CHECK(strstr(patient.reason[LOCK_EVENT_NO_SERVER], url) != NULL);
    lock_server *server = serve(NULL, listen_at, address);
    EXPECT(LOCK_OK, finish_patient(&patient));
    CHECK(patient.events[LOCK_EVENT_WAITING] == 0);
    expect_held(&patient, "lock");
    /* From now on it is a session like any other. */
    EXPECT(LOCK_OK, lock_acquire(patient.session, "another", LOCK_SHARED, 0, NULL));
    CHECK(lock_lost_fd(patient.session) >= 0);
    CHECK(lock_close_all() == 0 && "another thread has opened it");
    lock_server_stop(server);
    AWAIT(lock_check(patient.session) == LOCK_LOST);
    lock_close(patient.session);
}

/* Two wait while their server crashes. Each then has its turn, once. */
static void a_server_that_crashes_and_comes_back(void) {
    char address[ADDRESS_BYTES];
    take_address("crash");
    pid_t server = serve_elsewhere(listen_at, address);
    lock_session *holder = connect_as("holder");
    EXPECT(LOCK_OK, lock_acquire(holder, "lock", LOCK_EXCLUSIVE, 0, NULL));
    patient patients[] = {patient_for(url), patient_for(url)};
    for (int i = 0; i < 2; i++) {
        start_patient(&patients[i]);
        AWAIT(patients[i].events[LOCK_EVENT_WAITING] == 1);
        CHECK(patients[i].reason[LOCK_EVENT_WAITING][0] == '\0');
    }
    kill_child(server);
    for (int i = 0; i < 2; i++) {
        AWAIT(patients[i].events[LOCK_EVENT_NO_SERVER] >= 1);
    }
    server = serve_elsewhere(listen_at, address);
    AWAIT(patients[0].is_done || patients[1].is_done);
    int first = patients[1].is_done;
    AWAIT(patients[1 - first].events[LOCK_EVENT_WAITING] >= 2);
    EXPECT(LOCK_OK, finish_patient(&patients[first]));
    expect_held(&patients[first], "lock");
    CHECK(!patients[1 - first].is_done);
    EXPECT(LOCK_LOST, lock_check(holder));
    lock_session *observer = connect_as("observer");
    AWAIT(waiters(observer, "lock") == 1);
    EXPECT(LOCK_OK, lock_release(patients[first].session, "lock"));
    EXPECT(LOCK_OK, finish_patient(&patients[1 - first]));
    expect_held(&patients[1 - first], "lock");
    CHECK(patients[1 - first].token > patients[first].token);
    lock_close(patients[0].session);
    lock_close(patients[1].session);
    lock_close(observer);
    lock_close(holder);
    kill_child(server);
}

static void expect_nothing_left(lock_session *session) {
    AWAIT(waiters(session, "lock") == 0);
}

static void the_time_limit(void) {
    char address[ADDRESS_BYTES];
    take_address("limit");
    patient absent = patient_for(url);
    absent.limit = 300;
    start_patient(&absent);
    EXPECT(LOCK_LOST, finish_patient(&absent));
    CHECK(absent.events[LOCK_EVENT_NO_SERVER] >= 1 && strstr(absent.error, url) != NULL);
    patient try = patient_for(url);
    try.limit = 0;
    start_patient(&try);
    EXPECT(LOCK_LOST, finish_patient(&try));
    CHECK(try.events[LOCK_EVENT_NO_SERVER] == 0);

    lock_server *server = serve(NULL, listen_at, address);
    lock_session *holder = connect_as("holder");
    EXPECT(LOCK_OK, lock_acquire(holder, "lock", LOCK_EXCLUSIVE, 0, NULL));
    for (int64_t limit = 0; limit <= 2000; limit += 2000) {
        patient busy = patient_for(url);
        busy.limit = limit;
        start_patient(&busy);
        EXPECT(LOCK_TIMEOUT, finish_patient(&busy));
        CHECK(busy.events[LOCK_EVENT_WAITING] == (limit > 0));
        expect_nothing_left(holder);
    }
    EXPECT(LOCK_OK, lock_release(holder, "lock"));
    patient free = patient_for(url);
    free.limit = 0;
    free.is_silent = true;
    start_patient(&free);
    EXPECT(LOCK_OK, finish_patient(&free));
    /* The server is lost while it waits, and the time is over before there is another one. */
    patient lost = patient_for(url);
    lost.limit = 5000;
    start_patient(&lost);
    AWAIT(lost.events[LOCK_EVENT_WAITING] == 1);
    lock_server_stop(server);
    EXPECT(LOCK_LOST, finish_patient(&lost));
    CHECK(lost.events[LOCK_EVENT_NO_SERVER] >= 1);
    lock_close(free.session);
    lock_close(holder);
}

static void a_stop_while_it_waits(void) {
    char address[ADDRESS_BYTES];
    take_address("stop");
    lock_broker *broker = lock_broker_new();
    lock_server *server = serve(broker, listen_at, address);
    lock_session *holder = lock_open(broker, "holder");
    EXPECT(LOCK_OK, lock_acquire(holder, "lock", LOCK_EXCLUSIVE, 0, NULL));
    patient patient = patient_for(url);
    start_patient(&patient);
    AWAIT(patient.events[LOCK_EVENT_WAITING] == 1);
    lock_server_stop(server);
    AWAIT(patient.events[LOCK_EVENT_NO_SERVER] >= 1);
    expect_nothing_left(holder);
    server = serve(broker, listen_at, address);
    /* It does not forget that the lock is still held. */
    AWAIT(patient.events[LOCK_EVENT_WAITING] == 2 && waiters(holder, "lock") == 1);
    EXPECT(LOCK_OK, lock_release(holder, "lock"));
    EXPECT(LOCK_OK, finish_patient(&patient));
    lock_close(patient.session);
    lock_close(holder);
    lock_server_stop(server);
    lock_broker_free(broker);
}

static int never(uint32_t event, const char *reason, void *context) {
    (void)event, (void)reason, (void)context;
    CHECK(false && "it does not wait");
    return 1;
}

static lock_status mistake(const char *at, const char *const *names, const uint32_t *modes, size_t n) {
    uint64_t token = 7;
    lock_session *session = NULL;
    lock_status status = lock_connect_and_acquire(at, NULL, names, modes, n, -1, never, NULL, &token, &session);
    CHECK(token == 7 && session == NULL);
    return status;
}

static void mistakes_are_returned_at_once(void) {
    const char *names[] = {"lock", "other", "lock"}, *null_name[] = {"lock", NULL};
    uint32_t modes[] = {LOCK_SHARED, 7};
    static char too_long[1026];
    memset(too_long, 'x', sizeof too_long - 1);
    take_address("absent");
    EXPECT(LOCK_INVALID, mistake(NULL, names, NULL, 1));
    EXPECT(LOCK_INVALID, mistake("nonsense", names, NULL, 1));
    EXPECT(LOCK_INVALID, mistake("tcp://localhost:0,", names, NULL, 1));
    EXPECT(LOCK_INVALID, mistake("\xff", names, NULL, 1));
    EXPECT(LOCK_INVALID, mistake(url, NULL, NULL, 1));
    EXPECT(LOCK_INVALID, mistake(url, names, NULL, 0));
    EXPECT(LOCK_INVALID, mistake(url, NULL, NULL, 0));
    EXPECT(LOCK_INVALID, mistake(url, names, NULL, 1025));
    EXPECT(LOCK_INVALID, mistake(url, names, NULL, 3));
    EXPECT(LOCK_INVALID, mistake(url, null_name, NULL, 2));
    EXPECT(LOCK_INVALID, mistake(url, (const char *[]){too_long}, NULL, 1));
    EXPECT(LOCK_INVALID, mistake(url, names, modes, 2));
    EXPECT(LOCK_INVALID, lock_connect_and_acquire(url, NULL, names, NULL, 1, -1, never, NULL, NULL, NULL));
    EXPECT(LOCK_IO, mistake("tls://127.0.0.1:1?ca=/nonexistent", names, NULL, 1));

    /* A server that asks for a secret. */
    char secret[ADDRESS_BYTES], address[ADDRESS_BYTES];
    snprintf(secret, sizeof secret, "%s/secret", directory);
    FILE *file = fopen(secret, "w");
    CHECK(file != NULL && fchmod(fileno(file), 0600) == 0);
    CHECK(fputs("a secret that is long enough", file) > 0 && fclose(file) == 0);
    const char *options[] = {"listen", "auth-token-file"}, *values[] = {"message://127.0.0.1:0", secret};
    lock_server *server = NULL;
    EXPECT(LOCK_OK, lock_serve_with(NULL, options, values, 2, &server));
    EXPECT(LOCK_OK, lock_server_address(server, 0, address, sizeof address));
    EXPECT(LOCK_REFUSED, mistake(address, names, NULL, 1));
    CHECK(strstr(lock_last_error(), "secret") != NULL);
    lock_server_stop(server);
}

/* A server whose predecessor crashed grants nothing yet. That is no mistake. */
static void a_server_that_grants_nothing_yet(void) {
    char state[ADDRESS_BYTES];
    take_address("grace");
    snprintf(state, sizeof state, "%s/state", directory);
    const char *options[] = {"listen", "state-dir"}, *values[] = {listen_at, state};
    lock_server *server = NULL;
    pid_t first = fork();
    if (first == 0) {
        EXPECT(LOCK_OK, lock_serve_with(lock_broker_new(), options, values, 2, &server));
        _exit(0);
    }
    await_child(first);
    lock_broker *broker = lock_broker_new();
    EXPECT(LOCK_OK, lock_serve_with(broker, options, values, 2, &server));
    for (int64_t limit = 0; limit <= 2000; limit += 2000) {
        patient early = patient_for(url);
        early.limit = limit;
        start_patient(&early);
        EXPECT(LOCK_TIMEOUT, finish_patient(&early));
        CHECK(early.events[LOCK_EVENT_WAITING] == (limit > 0));
        /* Why, it is told when it begins to wait, or at the end if it does not wait. */
        const char *why = limit > 0 ? early.reason[LOCK_EVENT_WAITING] : early.error;
        CHECK(strcmp(why, "") != 0 && strcmp(why, lock_strerror(LOCK_TIMEOUT)) != 0);
    }
    lock_server_stop(server);
    lock_broker_free(broker);
}

static void several_names(void) {
    char address[ADDRESS_BYTES];
    lock_info info;
    const char *names[] = {"one", "two"};
    uint32_t modes[] = {LOCK_SHARED, LOCK_EXCLUSIVE};
    take_address("several");
    lock_server *server = serve(NULL, listen_at, address);
    lock_session *holder = connect_as("holder"), *session = NULL;
    uint64_t token = 0;
    EXPECT(LOCK_OK,
           lock_connect_and_acquire(url, NULL, names, modes, 2, 0, NULL, NULL, &token, &session));
    EXPECT(LOCK_OK, lock_inspect(session, "one", &info));
    CHECK(info.held && info.mode == LOCK_SHARED && info.token == token);
    EXPECT(LOCK_OK, lock_inspect(session, "two", &info));
    CHECK(info.held && info.mode == LOCK_EXCLUSIVE && info.token == token);
    CHECK(lock_close_all() == 2);

    holder = connect_as("holder");
    EXPECT(LOCK_OK, lock_acquire(holder, "two", LOCK_EXCLUSIVE, -1, NULL));
    patient patient = patient_for(url);
    patient.names[0] = "one", patient.names[1] = "two", patient.n = 2;
    start_patient(&patient);
    AWAIT(waiters(holder, "two") == 1);
    EXPECT(LOCK_OK, lock_inspect(holder, "one", &info));
    CHECK(info.holders == 0);
    EXPECT(LOCK_OK, lock_release(holder, "two"));
    EXPECT(LOCK_OK, finish_patient(&patient));
    expect_held(&patient, "one");
    expect_held(&patient, "two");
    lock_close(patient.session);
    lock_close(holder);
    lock_server_stop(server);
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    directory = argv[1];
    a_server_that_comes_later();
    a_server_that_crashes_and_comes_back();
    the_time_limit();
    a_stop_while_it_waits();
    mistakes_are_returned_at_once();
    a_server_that_grants_nothing_yet();
    several_names();
    return 0;
}
