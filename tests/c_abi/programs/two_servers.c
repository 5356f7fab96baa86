/* A session on two servers: each name belongs to one of them, the same one for every session. When
 * a server has gone, its names are lost, and so is a session that holds one of them or waits for
 * one; the other server's names can still be locked. Arguments: a directory for sockets. */
#include "pages.h"
#include "servers.h"

enum { NAMES = 64, SERVERS = 2 };

/* The servers, and for each: its address, a session on its broker in this process, and the names
 * that belong to it. */
static lock_server *servers[SERVERS];
static char urls[SERVERS][ADDRESS_BYTES];
static char nowhere[ADDRESS_BYTES];
static lock_session *insiders[SERVERS];
static const char *own[SERVERS][NAMES];
static int counts[SERVERS];

static lock_session *connect_to(int first, int second, const char *owner) {
    char list[700];
    snprintf(list, sizeof list, "%s,%s", urls[first], urls[second]);
    lock_session *session = lock_connect(list, owner, 10000);
    CHECK(session != NULL);
    return session;
}

static void start(const char *directory) {
    char listen[ADDRESS_BYTES];
    /* The server that stops first: no other program can listen at its address afterwards. */
    snprintf(listen, sizeof listen, "message+unix:%s/first.sock", directory);
    snprintf(nowhere, sizeof nowhere, "unix:%s/none.sock", directory);
    const char *addresses[SERVERS] = {listen, "message://127.0.0.1:0"};
    for (int i = 0; i < SERVERS; i++) {
        lock_broker *broker = lock_broker_new();
        servers[i] = serve(broker, addresses[i], urls[i]);
        insiders[i] = lock_open(broker, "insider");
        lock_broker_free(broker);
    }
}

static void names_are_spread(lock_session *session) {
    static char text[NAMES][16];
    for (int i = 0; i < NAMES; i++) {
        snprintf(text[i], sizeof text[i], "job:%d", i);
        EXPECT(LOCK_OK, lock_acquire(session, text[i], LOCK_EXCLUSIVE, 0, NULL));
        int server = look(insiders[1], text[i]).holders == 1;
        CHECK(look(insiders[server], text[i]).holders == 1 && look(insiders[!server], text[i]).holders == 0);
        own[server][counts[server]++] = text[i];
        EXPECT(LOCK_OK, lock_release(session, text[i]));
    }
    CHECK(counts[0] > 1 && counts[1] > 1);
}

static void the_order_of_the_servers_does_not_matter(lock_session *session) {
    lock_session *other = connect_to(1, 0, "other");
    for (int i = 0; i < SERVERS; i++) {
        EXPECT(LOCK_OK, lock_acquire(session, own[i][0], LOCK_EXCLUSIVE, 0, NULL));
        EXPECT(LOCK_TIMEOUT, lock_acquire(other, own[i][0], LOCK_EXCLUSIVE, 0, NULL));
        EXPECT(LOCK_PENDING, lock_enqueue(other, own[i][0], LOCK_EXCLUSIVE));
        EXPECT(LOCK_OK, lock_release(session, own[i][0]));
        EXPECT(LOCK_OK, lock_wait(other, own[i][0], -1, NULL));
    }
    lock_close(other);
}

static void a_set_must_belong_to_one_server(lock_session *session) {
    const char *mixed[] = {own[0][0], own[1][0]};
    uint64_t token = 7;
    for (int i = 0; i < SERVERS; i++) {
        EXPECT(LOCK_OK, lock_acquire_all(session, own[i], NULL, (size_t)counts[i], -1, NULL));
        EXPECT(LOCK_OK, lock_release_all(session, own[i], (size_t)counts[i]));
    }
    EXPECT(LOCK_INVALID, lock_acquire_all(session, mixed, NULL, 2, -1, &token));
    CHECK(strstr(lock_last_error(), urls[0]) && strstr(lock_last_error(), urls[1]));
    CHECK(token == 7 && !look(session, mixed[0]).held && !look(session, mixed[1]).held);

    EXPECT(LOCK_OK, lock_acquire(session, mixed[0], LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, mixed[1], LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_release_all(session, mixed, 2));
    EXPECT(LOCK_NOT_HELD, lock_release_all(session, mixed, 2));
}

/* Also if one server has many more names than the other, and if a name is locked on both. */
static void a_page_lists_the_locks_of_both(lock_session *session) {
    for (int i = 0; i < SERVERS; i++) {
        EXPECT(LOCK_OK, lock_acquire_all(session, own[i], NULL, (size_t)counts[i], -1, NULL));
    }
    int limits[] = {1, 2, 7, NAMES - 1, NAMES, NAMES + 1};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        CHECK(count_all(session, "job:", limits[i]) == NAMES);
    }
    EXPECT(LOCK_OK, lock_release_all(session, own[0] + 1, (size_t)counts[0] - 1));
    EXPECT(LOCK_OK, lock_acquire(insiders[0], own[1][0], LOCK_SHARED, -1, NULL));
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        CHECK(count_all(session, "job:", limits[i]) == counts[1] + 1);
    }
    char *json = NULL;
    EXPECT(LOCK_OK, lock_list(session, own[1][0], NULL, 1, &json));
    CHECK(strstr(json, "\"mode\":\"exclusive\"") && !strstr(json, "\"mode\":\"shared\""));
    lock_list_free(json);
    EXPECT(LOCK_OK, lock_release(insiders[0], own[1][0]));
    EXPECT(LOCK_OK, lock_release(session, own[0][0]));
    EXPECT(LOCK_OK, lock_release_all(session, own[1], (size_t)counts[1]));
}

static void a_conversion_queues_at_its_own_server(lock_session *session) {
    for (int i = 0; i < SERVERS; i++) {
        EXPECT(LOCK_OK, lock_acquire(insiders[i], own[i][0], LOCK_SHARED, -1, NULL));
        EXPECT(LOCK_OK, lock_acquire(session, own[i][0], LOCK_SHARED, -1, NULL));
        EXPECT(LOCK_PENDING, lock_enqueue_convert(session, own[i][0], LOCK_EXCLUSIVE));
    }
    EXPECT(LOCK_OK, lock_release(insiders[0], own[0][0]));
    EXPECT(LOCK_OK, lock_wait(session, own[0][0], -1, NULL));
    EXPECT(LOCK_TIMEOUT, lock_wait(session, own[1][0], 0, NULL));
    EXPECT(LOCK_OK, lock_cancel(session));
    EXPECT(LOCK_CANCELLED, lock_wait(session, own[1][0], -1, NULL));
    for (int i = 0; i < SERVERS; i++) {
        lock_info info = look(session, own[i][0]);
        CHECK(info.held && !info.waiting && info.mode == (i == 0 ? LOCK_EXCLUSIVE : LOCK_SHARED));
        EXPECT(LOCK_OK, lock_release(session, own[i][0]));
    }
    EXPECT(LOCK_OK, lock_release(insiders[1], own[1][0]));
}

/* Each name has its own limit at its own server. */
static void a_limited_lock_has_its_slots_at_its_own_server(lock_session *session) {
    lock_session *other = connect_to(1, 0, "other"), *third = connect_to(0, 1, "third");
    for (int i = 0; i < SERVERS; i++) {
        uint32_t two = lock_at_most(2);
        lock_slots seen;
        EXPECT(LOCK_OK, lock_acquire(session, own[i][0], two, -1, NULL));
        EXPECT(LOCK_OK, lock_acquire(other, own[i][0], two, -1, NULL));
        EXPECT(LOCK_TIMEOUT, lock_acquire(third, own[i][0], two, 0, NULL));
        EXPECT(LOCK_OK, lock_inspect_slots(third, own[i][0], &seen));
        CHECK(seen.holders == 2 && seen.limit == 2 && seen.free == 0);
        CHECK(look(insiders[i], own[i][0]).holders == 2 && look(insiders[!i], own[i][0]).holders == 0);
        EXPECT(LOCK_PENDING, lock_enqueue(third, own[i][0], two));
        EXPECT(LOCK_OK, lock_release(session, own[i][0]));
        EXPECT(LOCK_OK, lock_wait(third, own[i][0], -1, NULL));
        EXPECT(LOCK_PENDING, lock_enqueue_convert(third, own[i][0], LOCK_EXCLUSIVE));
        EXPECT(LOCK_OK, lock_release(other, own[i][0]));
        EXPECT(LOCK_OK, lock_wait(third, own[i][0], -1, NULL));
        EXPECT(LOCK_OK, lock_release(third, own[i][0]));
    }
    lock_close(other);
    lock_close(third);
}

static void one_cancel_ends_the_waits_on_both(lock_session *session) {
    call waits[SERVERS];
    for (int i = 0; i < SERVERS; i++) {
        EXPECT(LOCK_OK, lock_acquire(insiders[i], own[i][0], LOCK_EXCLUSIVE, -1, NULL));
        waits[i] = (call){.verb = ACQUIRE, .session = session, .name = own[i][0]};
        begin(&waits[i]);
        await_waiters(insiders[i], own[i][0], 1);
    }
    EXPECT(LOCK_OK, lock_cancel(session));
    for (int i = 0; i < SERVERS; i++) {
        EXPECT(LOCK_CANCELLED, finish(&waits[i]));
        EXPECT(LOCK_OK, lock_release(insiders[i], own[i][0]));
    }
}

static bool is_readable(lock_session *session, int limit) {
    struct pollfd fd = {.fd = lock_lost_fd(session), .events = POLLIN};
    return poll(&fd, 1, limit) == 1;
}

/* The session held nothing on the server that has gone, or was told of everything it lost. */
static void is_whole(lock_session *session) {
    EXPECT(LOCK_OK, lock_check(session));
    CHECK(!is_readable(session, 0));
    EXPECT(LOCK_LOST, lock_acquire(session, own[0][1], LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_LOST, lock_enqueue(session, own[0][1], LOCK_EXCLUSIVE));
    lock_info info;
    EXPECT(LOCK_LOST, lock_inspect(session, own[0][1], &info));
    char *json = NULL;
    EXPECT(LOCK_LOST, lock_list(session, NULL, NULL, 0, &json));
    CHECK(json == NULL);
    EXPECT(LOCK_OK, lock_acquire(session, own[1][1], LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_release(session, own[1][1]));
    EXPECT(LOCK_OK, lock_check(session));
}

static void holds_on_both(lock_session *session) {
    EXPECT(LOCK_OK, lock_acquire(session, own[0][0], LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, own[1][0], LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_check(session));
}

static void a_holder_is_lost(lock_session *session) {
    await_loss(session);
    EXPECT(LOCK_LOST, lock_acquire(session, own[0][0], LOCK_EXCLUSIVE, -1, NULL));
    CHECK(look(session, own[1][0]).held && look(insiders[1], own[1][0]).holders == 1);
    /* The names on the other server are released all the same, and then nothing is left that is
     * lost. */
    const char *mixed[] = {own[1][2], own[0][0], own[1][0]};
    EXPECT(LOCK_LOST, lock_release_all(session, mixed, 3));
    CHECK(look(insiders[1], own[1][0]).holders == 0);
    is_whole(session);
}

static void a_place_is_lost(lock_session *session) {
    await_loss(session);
    EXPECT(LOCK_LOST, lock_wait(session, own[0][2], -1, NULL));
    is_whole(session);
}

static void a_server_that_stops_matters_only_to_sessions_that_hold_or_wait_there(lock_session *holder) {
    lock_session *idle = connect_to(0, 1, "idle"), *waiting = connect_to(1, 0, "waiting");
    lock_session *queued = connect_to(0, 1, "queued");
    holds_on_both(holder);
    EXPECT(LOCK_OK, lock_acquire(insiders[0], own[0][2], LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(queued, own[0][2], LOCK_EXCLUSIVE));
    call wait = {.verb = ACQUIRE, .session = waiting, .name = own[0][2]};
    begin(&wait);
    await_waiters(insiders[0], own[0][2], 2);

    lock_server_stop(servers[0]);
    CHECK(is_readable(idle, 20000));
    is_whole(idle);
    EXPECT(LOCK_LOST, finish(&wait));
    is_whole(waiting);
    a_place_is_lost(queued);
    a_holder_is_lost(holder);
    lock_close(idle);
    lock_close(waiting);
    lock_close(queued);
}

static void one_server_is_enough_to_connect(void) {
    lock_session *session = connect_to(1, 0, "late");
    is_whole(session);
    EXPECT(LOCK_LOST, lock_acquire(session, own[0][0], LOCK_EXCLUSIVE, -1, NULL));
    CHECK(strstr(lock_last_error(), urls[0]));
    const char *mixed[] = {own[0][0], own[1][0]};
    EXPECT(LOCK_INVALID, lock_acquire_all(session, mixed, NULL, 2, -1, NULL));
    lock_close(session);

    char list[700];
    snprintf(list, sizeof list, "%s,%s", nowhere, urls[0]);
    CHECK(lock_connect(list, NULL, 10000) == NULL);
    CHECK(strstr(lock_last_error(), nowhere) && strstr(lock_last_error(), urls[0]));
}

int main(int argc, char **argv) {
    CHECK(argc == 2);
    start(argv[1]);
    lock_session *session = connect_to(0, 1, "session");
    names_are_spread(session);
    the_order_of_the_servers_does_not_matter(session);
    a_set_must_belong_to_one_server(session);
    a_page_lists_the_locks_of_both(session);
    a_conversion_queues_at_its_own_server(session);
    a_limited_lock_has_its_slots_at_its_own_server(session);
    one_cancel_ends_the_waits_on_both(session);
    a_server_that_stops_matters_only_to_sessions_that_hold_or_wait_there(session);
    one_server_is_enough_to_connect();
    lock_close(session);
    for (int i = 0; i < SERVERS; i++) {
        lock_close(insiders[i]);
    }
    lock_server_stop(servers[1]);
    return 0;
}
