/* Limited locks: how modes are made, who may hold a lock together, queues, sets, conversions between
 * any two modes, and what is shown. In this process, or on a server. Arguments: [server]. */
#include "sessions.h"

enum { LIMIT_MAX = 16777215 };

static lock_slots slots(lock_session *session, const char *name) {
    lock_slots seen;
    EXPECT(LOCK_OK, lock_inspect_slots(session, name, &seen));
    return seen;
}

/* The limit in force, the holders and the free slots. */
static bool has(lock_session *session, const char *name, uint32_t limit, uint64_t holders, uint32_t free) {
    lock_slots seen = slots(session, name);
    return seen.limit == limit && seen.holders == holders && seen.free == free;
}

static uint32_t held_mode(lock_session *session, const char *name) {
    uint32_t mode = 7;
    EXPECT(LOCK_OK, lock_held_mode(session, name, &mode));
    EXPECT(LOCK_OK, lock_held_mode(session, name, NULL));
    return mode;
}

static uint64_t token_of(lock_session *session, const char *name) {
    uint64_t token = 0;
    EXPECT(LOCK_OK, lock_token(session, name, &token));
    return token;
}

static lock_status try(lock_session *session, const char *name, uint32_t mode) {
    return lock_acquire(session, name, mode, 0, NULL);
}

/* Several sessions of a test, closed together. On a server their locks must be free before the next
 * test begins, so they are released first. */
enum { CREW = 5 };
typedef struct crew {
    lock_session *at[CREW];
} crew;

static crew new_crew(void) {
    static const char *const owners[CREW] = {"a", "b", "c", "d", "e"};
    crew crew;
    for (int i = 0; i < CREW; i++) {
        crew.at[i] = new_session(owners[i]);
    }
    return crew;
}

static void end(crew *crew, const char *name) {
    for (int i = 0; i < CREW; i++) {
        (void)lock_release(crew->at[i], name);
        lock_close(crew->at[i]);
    }
}

static void no_mode(lock_session *session, uint32_t mode) {
    const char *names[] = {"none", "none too"};
    const uint32_t modes[] = {LOCK_SHARED, mode};
    uint64_t token = 7;
    EXPECT(LOCK_INVALID, lock_acquire(session, "none", mode, -1, &token));
    CHECK(strstr(lock_last_error(), "no mode"));
    EXPECT(LOCK_INVALID, lock_acquire_all(session, names, modes, 2, -1, &token));
    EXPECT(LOCK_INVALID, lock_enqueue(session, "none", mode));
    EXPECT(LOCK_INVALID, lock_convert(session, "held", mode, -1));
    EXPECT(LOCK_INVALID, lock_enqueue_convert(session, "held", mode));
    CHECK(token == 7 && held_mode(session, "held") == lock_at_most(3));
    CHECK(look(session, "none").holders + look(session, "none").waiters == 0);
}

static void a_limit_is_made_by_lock_at_most_only(void) {
    static const uint32_t no_limits[] = {0, LIMIT_MAX + 1, 1 << 30, (uint32_t)-1};
    static const uint32_t limits[] = {2, 3, 255, 256, 65536, LIMIT_MAX};
    lock_session *session = new_session("session");
    EXPECT(LOCK_OK, try(session, "held", lock_at_most(3)));
    for (size_t i = 0; i < sizeof no_limits / sizeof *no_limits; i++) {
        no_mode(session, lock_at_most(no_limits[i]));
        CHECK(strstr(lock_last_error(), "1 to 16777215"));
    }
    /* Numbers that a program may have read from a configuration. */
    for (uint32_t number = 2; number < 20; number++) {
        no_mode(session, number);
    }
    no_mode(session, LIMIT_MAX);
    no_mode(session, 1U << 30);
    no_mode(session, (1U << 30) + 1);
    no_mode(session, 4);
    CHECK(strcmp(lock_last_error(), "4 is no mode; use lock_at_most(4)") == 0);
    /* Modes are no flags, and no numbers to count with. */
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        no_mode(session, lock_at_most(limits[i]) | LOCK_SHARED);
        CHECK(strstr(lock_last_error(), "cannot be combined"));
        no_mode(session, lock_at_most(limits[i]) + 1);
        no_mode(session, lock_at_most(limits[i]) - 1);
    }
    CHECK(lock_at_most(1) == LOCK_EXCLUSIVE);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        CHECK(lock_at_most(limits[i]) != LOCK_EXCLUSIVE && lock_at_most(limits[i]) != LOCK_SHARED);
        EXPECT(LOCK_OK, try(session, "limit", lock_at_most(limits[i])));
        CHECK(held_mode(session, "limit") == lock_at_most(limits[i]));
        CHECK(has(session, "limit", limits[i], 1, limits[i] - 1));
        EXPECT(LOCK_OK, lock_release(session, "limit"));
    }
    EXPECT(LOCK_OK, lock_release(session, "held"));
    lock_close(session);
}

static void no_more_hold_it_than_the_limit_and_a_slot_goes_to_the_first_in_the_queue(void) {
    crew crew = new_crew();
    lock_session **at = crew.at;
    uint32_t two = lock_at_most(2);
    uint64_t first = 0, second = 0, third = 7;
    EXPECT(LOCK_OK, lock_acquire(at[0], "gpu", two, 0, &first));
    EXPECT(LOCK_OK, lock_acquire(at[1], "gpu", two, -1, &second));
    EXPECT(LOCK_ALREADY_HELD, try(at[1], "gpu", two));
    EXPECT(LOCK_TIMEOUT, lock_acquire(at[2], "gpu", two, 0, &third));
    EXPECT(LOCK_TIMEOUT, lock_acquire(at[2], "gpu", two, 1, &third));
    CHECK(first < second && third == 7 && has(at[4], "gpu", 2, 2, 0));

    call waits[] = {
        {.verb = ACQUIRE, .session = at[2], .name = "gpu", .mode = two},
        {.verb = ACQUIRE, .session = at[3], .name = "gpu", .mode = two},
    };
    for (uint64_t i = 0; i < 2; i++) {
        begin(&waits[i]);
        await_waiters(at[4], "gpu", i + 1);
    }
    EXPECT(LOCK_OK, lock_release(at[0], "gpu"));
    EXPECT(LOCK_OK, finish(&waits[0]));
    lock_slots seen = slots(at[4], "gpu");
    CHECK(waits[0].token > second && seen.holders == 2 && seen.waiters == 1 && seen.free == 0);
    EXPECT(LOCK_OK, lock_release(at[2], "gpu"));
    EXPECT(LOCK_OK, finish(&waits[1]));
    CHECK(waits[1].token > waits[0].token && has(at[4], "gpu", 2, 2, 0));
    end(&crew, "gpu");
}

static void the_smallest_limit_of_the_holders_is_in_force(void) {
    crew crew = new_crew();
    lock_session **at = crew.at;
    CHECK(has(at[0], "mixed", 0, 0, UINT32_MAX));
    EXPECT(LOCK_OK, try(at[0], "mixed", LOCK_SHARED));
    CHECK(has(at[4], "mixed", 0, 1, UINT32_MAX));
    EXPECT(LOCK_OK, try(at[1], "mixed", lock_at_most(4)));
    CHECK(has(at[4], "mixed", 4, 2, 2));
    EXPECT(LOCK_TIMEOUT, try(at[2], "mixed", lock_at_most(2)));
    EXPECT(LOCK_OK, try(at[2], "mixed", lock_at_most(3)));
    CHECK(has(at[4], "mixed", 3, 3, 0));
    uint32_t others[] = {LOCK_SHARED, LOCK_EXCLUSIVE, lock_at_most(4), lock_at_most(LIMIT_MAX)};
    for (int i = 0; i < 4; i++) {
        EXPECT(LOCK_TIMEOUT, try(at[3], "mixed", others[i]));
    }
    /* The smallest limit holds for as long as it is held. */
    EXPECT(LOCK_OK, lock_release(at[2], "mixed"));
    EXPECT(LOCK_OK, try(at[3], "mixed", LOCK_SHARED));
    EXPECT(LOCK_OK, try(at[2], "mixed", LOCK_SHARED));
    CHECK(has(at[4], "mixed", 4, 4, 0));
    EXPECT(LOCK_OK, lock_release(at[1], "mixed"));
    CHECK(has(at[4], "mixed", 0, 3, UINT32_MAX));

    lock_info info = look(at[0], "mixed");
    CHECK(info.mode == LOCK_SHARED && info.holders == 3 && held_mode(at[0], "mixed") == LOCK_SHARED);
    end(&crew, "mixed");
}

static void an_exclusive_holder_excludes_limited_ones_and_they_exclude_it(void) {
    lock_session *a = new_session("a"), *b = new_session("b");
    EXPECT(LOCK_OK, try(a, "alone", lock_at_most(1)));
    CHECK(look(a, "alone").mode == LOCK_EXCLUSIVE && has(b, "alone", 1, 1, 0));
    EXPECT(LOCK_TIMEOUT, try(b, "alone", lock_at_most(4)));
    EXPECT(LOCK_OK, lock_release(a, "alone"));
    EXPECT(LOCK_OK, try(b, "alone", lock_at_most(4)));
    EXPECT(LOCK_TIMEOUT, try(a, "alone", LOCK_EXCLUSIVE));
    CHECK(look(b, "alone").mode == LOCK_SHARED);
    EXPECT(LOCK_OK, lock_release(b, "alone"));
    lock_close(a);
    lock_close(b);
}

static void no_request_overtakes_one_that_needs_more_slots(void) {
    crew crew = new_crew();
    lock_session **at = crew.at;
    EXPECT(LOCK_OK, try(at[0], "order", lock_at_most(4)));
    EXPECT(LOCK_OK, try(at[1], "order", lock_at_most(4)));
    EXPECT(LOCK_PENDING, lock_enqueue(at[2], "order", lock_at_most(2)));
    EXPECT(LOCK_TIMEOUT, try(at[3], "order", lock_at_most(4)));
    EXPECT(LOCK_PENDING, lock_enqueue(at[3], "order", LOCK_SHARED));
    EXPECT(LOCK_PENDING, lock_enqueue(at[3], "order", LOCK_SHARED));
    EXPECT(LOCK_PENDING, try(at[3], "order", LOCK_SHARED));
    EXPECT(LOCK_OK, lock_release(at[0], "order"));
    EXPECT(LOCK_OK, lock_wait(at[2], "order", -1, NULL));
    EXPECT(LOCK_TIMEOUT, lock_wait(at[3], "order", 0, NULL));
    EXPECT(LOCK_OK, lock_release(at[2], "order"));
    EXPECT(LOCK_OK, lock_wait(at[3], "order", -1, NULL));
    CHECK(has(at[4], "order", 4, 2, 2));
    end(&crew, "order");
}

static void expect_another_mode(lock_status status, const char *mode) {
    EXPECT(LOCK_INVALID, status);
    CHECK(strstr(lock_last_error(), "already waits for the lock in another mode"));
    CHECK(strstr(lock_last_error(), mode));
}

/* Otherwise lock_wait would return LOCK_OK to a program that then holds the lock in a mode that it
 * has not asked for last. */
static void a_place_is_not_taken_for_one_in_another_mode(void) {
    crew crew = new_crew();
    lock_session **at = crew.at;
    const char *names[] = {"place", "free"};
    const uint32_t fours[] = {lock_at_most(4), lock_at_most(4)};
    EXPECT(LOCK_OK, try(at[0], "place", LOCK_EXCLUSIVE));
    EXPECT(LOCK_PENDING, lock_enqueue(at[1], "place", lock_at_most(4)));
    expect_another_mode(lock_enqueue(at[1], "place", lock_at_most(2)), "at most 4");
    expect_another_mode(lock_enqueue(at[1], "place", LOCK_EXCLUSIVE), "at most 4");
    expect_another_mode(lock_acquire(at[1], "place", LOCK_EXCLUSIVE, 0, NULL), "at most 4");
    expect_another_mode(lock_acquire(at[1], "place", LOCK_SHARED, -1, NULL), "at most 4");
    expect_another_mode(lock_acquire_all(at[1], names, NULL, 2, -1, NULL), "at most 4");
    EXPECT(LOCK_PENDING, lock_enqueue(at[1], "place", lock_at_most(4)));
    EXPECT(LOCK_PENDING, lock_acquire(at[1], "place", lock_at_most(4), -1, NULL));
    EXPECT(LOCK_PENDING, lock_acquire_all(at[1], names, fours, 1, -1, NULL));
    /* That place is for one of the two names only. */
    EXPECT(LOCK_INVALID, lock_acquire_all(at[1], names, fours, 2, -1, NULL));
    CHECK(strstr(lock_last_error(), "one of these locks"));
    CHECK(slots(at[2], "place").waiters == 1 && slots(at[2], "free").holders == 0);
    EXPECT(LOCK_OK, lock_release(at[0], "place"));
    EXPECT(LOCK_OK, lock_wait(at[1], "place", -1, NULL));
    CHECK(held_mode(at[1], "place") == lock_at_most(4));

    EXPECT(LOCK_OK, try(at[0], "place", LOCK_SHARED));
    EXPECT(LOCK_PENDING, lock_enqueue_convert(at[1], "place", LOCK_EXCLUSIVE));
    expect_another_mode(lock_enqueue_convert(at[1], "place", lock_at_most(2)), "exclusive");
    expect_another_mode(lock_enqueue_convert(at[1], "place", LOCK_SHARED), "exclusive");
    expect_another_mode(lock_convert(at[1], "place", lock_at_most(2), 0), "exclusive");
    expect_another_mode(lock_convert(at[1], "place", LOCK_SHARED, -1), "exclusive");
    EXPECT(LOCK_PENDING, lock_enqueue_convert(at[1], "place", LOCK_EXCLUSIVE));
    EXPECT(LOCK_PENDING, lock_convert(at[1], "place", LOCK_EXCLUSIVE, -1));
    EXPECT(LOCK_OK, lock_release(at[1], "place"));

    call wait = {.verb = ACQUIRE, .session = at[1], .name = "place"};
    begin(&wait);
    await_waiters(at[2], "place", 1);
    expect_another_mode(lock_enqueue(at[1], "place", lock_at_most(4)), "exclusive");
    EXPECT(LOCK_PENDING, lock_enqueue(at[1], "place", LOCK_EXCLUSIVE));
    EXPECT(LOCK_OK, lock_release(at[0], "place"));
    EXPECT(LOCK_OK, finish(&wait));
    CHECK(held_mode(at[1], "place") == LOCK_EXCLUSIVE);
    end(&crew, "place");
}

static void a_lock_held_in_another_mode_is_reported_so(void) {
    lock_session *session = new_session("session");
    const char *names[] = {"mine"};
    EXPECT(LOCK_OK, try(session, "mine", lock_at_most(4)));
    EXPECT(LOCK_ALREADY_HELD, try(session, "mine", lock_at_most(4)));
    CHECK(strcmp(lock_last_error(), lock_strerror(LOCK_ALREADY_HELD)) == 0);
    EXPECT(LOCK_ALREADY_HELD, try(session, "mine", lock_at_most(2)));
    CHECK(strstr(lock_last_error(), "in another mode, which lock_convert changes"));
    EXPECT(LOCK_ALREADY_HELD, lock_enqueue(session, "mine", LOCK_SHARED));
    CHECK(strstr(lock_last_error(), "in another mode"));
    EXPECT(LOCK_ALREADY_HELD, lock_acquire_all(session, names, NULL, 1, 0, NULL));
    CHECK(strstr(lock_last_error(), "in another mode"));
    EXPECT(LOCK_OK, lock_release(session, "mine"));
    lock_close(session);
}

static void a_wait_for_a_slot_is_cancelled_and_ends_in_time(void) {
    crew crew = new_crew();
    lock_session **at = crew.at;
    uint32_t two = lock_at_most(2);
    EXPECT(LOCK_OK, try(at[0], "slot", two));
    EXPECT(LOCK_OK, try(at[1], "slot", two));
    EXPECT(LOCK_TIMEOUT, lock_acquire(at[2], "slot", two, 5, NULL));
    call wait = {.verb = ACQUIRE, .session = at[2], .name = "slot", .mode = two};
    begin(&wait);
    await_waiters(at[4], "slot", 1);
    EXPECT(LOCK_OK, lock_cancel(at[2]));
    EXPECT(LOCK_CANCELLED, finish(&wait));
    await_waiters(at[4], "slot", 0);
    EXPECT(LOCK_NOT_HELD, lock_release(at[2], "slot"));

    EXPECT(LOCK_PENDING, lock_enqueue(at[2], "slot", two));
    EXPECT(LOCK_OK, lock_cancel(at[2]));
    EXPECT(LOCK_CANCELLED, lock_wait(at[2], "slot", -1, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(at[2], "slot", two));
    EXPECT(LOCK_OK, lock_release(at[2], "slot"));
    CHECK(slots(at[2], "slot").waiters == 0);
    /* What was given up takes no slot. */
    EXPECT(LOCK_OK, lock_release(at[0], "slot"));
    CHECK(has(at[2], "slot", 2, 1, 1));
    EXPECT(LOCK_OK, try(at[3], "slot", two));
    end(&crew, "slot");
}

static void a_set_has_a_limit_for_each_name(void) {
    const char *names[] = {"set 1", "set 2", "set 3"};
    const uint32_t modes[] = {lock_at_most(2), LOCK_EXCLUSIVE, lock_at_most(3)};
    lock_session *a = new_session("a"), *b = new_session("b"), *c = new_session("c");
    uint64_t token = 7, first = 0;
    EXPECT(LOCK_OK, lock_acquire(a, names[0], lock_at_most(2), -1, &first));
    EXPECT(LOCK_OK, try(b, names[0], lock_at_most(4)));
    EXPECT(LOCK_TIMEOUT, lock_acquire_all(c, names, modes, 3, 0, &token));
    EXPECT(LOCK_TIMEOUT, lock_acquire_all(c, names, modes, 3, 1, &token));
    CHECK(token == 7 && look(c, names[1]).holders + look(c, names[2]).holders == 0);
    EXPECT(LOCK_OK, lock_release(b, names[0]));
    EXPECT(LOCK_OK, lock_acquire_all(c, names, modes, 3, 0, &token));
    CHECK(token > first && has(b, names[0], 2, 2, 0) && has(b, names[1], 1, 1, 0) && has(b, names[2], 3, 1, 2));
    for (int i = 0; i < 3; i++) {
        CHECK(token_of(c, names[i]) == token && held_mode(c, names[i]) == modes[i]);
    }
    EXPECT(LOCK_OK, lock_release_all(c, names, 3));
    EXPECT(LOCK_OK, lock_release(a, names[0]));
    lock_close(a);
    lock_close(b);
    lock_close(c);
}

/* How many holders a mode allows, for comparisons. */
static const uint32_t ORDER[] = {1, 2, 3, 1000, UINT32_MAX};
enum { MODES = sizeof ORDER / sizeof *ORDER };

static uint32_t mode_at(int i) {
    return i == MODES - 1 ? LOCK_SHARED : lock_at_most(ORDER[i]);
}

static void a_sole_holder_converts_between_any_two_modes(void) {
    lock_session *session = new_session("session");
    for (int pair = 0; pair < 2 * MODES * MODES; pair++) {
        int from = pair / 2 % MODES, to = pair / 2 / MODES;
        uint64_t token = 0;
        EXPECT(LOCK_NOT_HELD, lock_convert(session, "any", mode_at(to), -1));
        EXPECT(LOCK_NOT_HELD, lock_enqueue_convert(session, "any", mode_at(to)));
        EXPECT(LOCK_OK, lock_acquire(session, "any", mode_at(from), -1, &token));
        if (pair % 2 == 0) {
            EXPECT(LOCK_OK, lock_convert(session, "any", mode_at(to), -1));
        } else {
            EXPECT(LOCK_OK, lock_enqueue_convert(session, "any", mode_at(to)));
        }
        CHECK(held_mode(session, "any") == mode_at(to));
        CHECK(look(session, "any").mode == (to == 0 ? LOCK_EXCLUSIVE : LOCK_SHARED));
        CHECK(slots(session, "any").limit == (to == MODES - 1 ? 0 : ORDER[to]));
        /* A mode that allows fewer holders has a new token, because it is a new promise. */
        CHECK(to < from ? token_of(session, "any") > token : token_of(session, "any") == token);
        CHECK(look(session, "any").token == token_of(session, "any"));
        EXPECT(LOCK_OK, lock_release(session, "any"));
    }
    lock_close(session);
}

static void a_conversion_to_fewer_holders_waits_ahead_of_the_queue(void) {
    crew crew = new_crew();
    lock_session **at = crew.at;
    uint64_t before = 0, after = 7;
    EXPECT(LOCK_OK, lock_acquire(at[0], "fewer", lock_at_most(4), 0, &before));
    EXPECT(LOCK_OK, try(at[1], "fewer", lock_at_most(4)));
    EXPECT(LOCK_OK, try(at[2], "fewer", LOCK_SHARED));
    /* Three hold it, and a limit of three admits them. */
    EXPECT(LOCK_OK, lock_convert(at[0], "fewer", lock_at_most(3), 0));
    CHECK(token_of(at[0], "fewer") > before && has(at[4], "fewer", 3, 3, 0));
    before = token_of(at[0], "fewer");

    EXPECT(LOCK_TIMEOUT, lock_convert(at[0], "fewer", lock_at_most(2), 0));
    EXPECT(LOCK_TIMEOUT, lock_convert(at[0], "fewer", lock_at_most(2), 1));
    EXPECT(LOCK_PENDING, lock_enqueue(at[3], "fewer", LOCK_SHARED));
    EXPECT(LOCK_PENDING, lock_enqueue_convert(at[0], "fewer", lock_at_most(2)));
    EXPECT(LOCK_PENDING, lock_convert(at[0], "fewer", lock_at_most(2), 0));
    EXPECT(LOCK_TIMEOUT, lock_wait(at[0], "fewer", 1, &after));
    CHECK(after == 7 && held_mode(at[0], "fewer") == lock_at_most(3) && token_of(at[0], "fewer") == before);
    CHECK(look(at[0], "fewer").waiting && look(at[0], "fewer").waiters == 2);
    EXPECT(LOCK_OK, lock_cancel(at[0]));
    EXPECT(LOCK_CANCELLED, lock_wait(at[0], "fewer", -1, NULL));
    CHECK(held_mode(at[0], "fewer") == lock_at_most(3) && token_of(at[0], "fewer") == before);

    EXPECT(LOCK_PENDING, lock_enqueue_convert(at[0], "fewer", lock_at_most(2)));
    EXPECT(LOCK_OK, lock_release(at[1], "fewer"));
    EXPECT(LOCK_OK, lock_wait(at[0], "fewer", -1, &after));
    CHECK(after > before && token_of(at[0], "fewer") == after && has(at[4], "fewer", 2, 2, 0));
    EXPECT(LOCK_TIMEOUT, lock_wait(at[3], "fewer", 0, NULL));
    end(&crew, "fewer");
}

static void a_conversion_to_more_holders_lets_waiters_in(void) {
    crew crew = new_crew();
    lock_session **at = crew.at;
    uint64_t token = 0;
    EXPECT(LOCK_OK, lock_acquire(at[0], "more", LOCK_EXCLUSIVE, 0, &token));
    EXPECT(LOCK_PENDING, lock_enqueue(at[1], "more", lock_at_most(3)));
    EXPECT(LOCK_PENDING, lock_enqueue(at[2], "more", LOCK_SHARED));
    EXPECT(LOCK_PENDING, lock_enqueue(at[3], "more", LOCK_SHARED));
    EXPECT(LOCK_OK, lock_convert(at[0], "more", lock_at_most(2), 0));
    EXPECT(LOCK_OK, lock_wait(at[1], "more", -1, NULL));
    EXPECT(LOCK_TIMEOUT, lock_wait(at[2], "more", 0, NULL));
    EXPECT(LOCK_OK, lock_enqueue_convert(at[0], "more", LOCK_SHARED));
    EXPECT(LOCK_OK, lock_wait(at[2], "more", -1, NULL));
    EXPECT(LOCK_TIMEOUT, lock_wait(at[3], "more", 0, NULL));
    CHECK(token_of(at[0], "more") == token && has(at[4], "more", 3, 3, 0));
    EXPECT(LOCK_OK, lock_convert(at[1], "more", lock_at_most(4), 0));
    EXPECT(LOCK_OK, lock_wait(at[3], "more", -1, NULL));
    end(&crew, "more");
}

static void a_deadlock_is_found_among_exclusive_wishes_and_never_among_slots(void) {
    crew crew = new_crew();
    lock_session **at = crew.at;
    EXPECT(LOCK_OK, try(at[0], "circle", lock_at_most(4)));
    EXPECT(LOCK_OK, try(at[1], "circle", lock_at_most(4)));
    call convert = {.verb = CONVERT, .session = at[0], .name = "circle", .mode = LOCK_EXCLUSIVE};
    begin(&convert);
    await_waiters(at[4], "circle", 1);
    EXPECT(LOCK_DEADLOCK, lock_convert(at[1], "circle", LOCK_EXCLUSIVE, -1));
    CHECK(held_mode(at[1], "circle") == lock_at_most(4));
    EXPECT(LOCK_OK, lock_release(at[1], "circle"));
    EXPECT(LOCK_OK, finish(&convert));
    EXPECT(LOCK_OK, lock_release(at[0], "circle"));

    /* Any one of the holders suffices, so none of them is known to be in the way. */
    for (int i = 0; i < 3; i++) {
        EXPECT(LOCK_OK, try(at[i], "circle", lock_at_most(3)));
    }
    EXPECT(LOCK_PENDING, lock_enqueue_convert(at[0], "circle", lock_at_most(2)));
    EXPECT(LOCK_PENDING, lock_enqueue_convert(at[1], "circle", lock_at_most(2)));
    EXPECT(LOCK_OK, lock_release(at[2], "circle"));
    EXPECT(LOCK_OK, lock_wait(at[0], "circle", -1, NULL));
    EXPECT(LOCK_OK, lock_wait(at[1], "circle", -1, NULL));
    CHECK(has(at[4], "circle", 2, 2, 0));
    end(&crew, "circle");
}

static void a_slot_is_free_when_its_holder_has_ended_and_nothing_is_orphaned(void) {
    crew crew = new_crew();
    lock_session **at = crew.at;
    EXPECT(LOCK_OK, try(at[0], "ended", lock_at_most(2)));
    EXPECT(LOCK_OK, try(at[1], "ended", lock_at_most(2)));
    EXPECT(LOCK_PENDING, lock_enqueue(at[2], "ended", lock_at_most(2)));
    EXPECT(LOCK_OK, lock_abandon(at[0]));
    EXPECT(LOCK_OK, lock_wait(at[2], "ended", -1, NULL));
    CHECK(has(at[4], "ended", 2, 2, 0) && !look(at[4], "ended").orphaned);
    EXPECT(LOCK_LOST, lock_held_mode(at[0], "ended", NULL));
    end(&crew, "ended");
}

static void what_is_shown(void) {
    lock_session *a = new_session("a"), *b = new_session("b");
    uint32_t mode = 7;
    char *json = NULL;
    lock_slots seen = {.holders = 7};
    EXPECT(LOCK_NOT_HELD, lock_held_mode(a, "shown", &mode));
    EXPECT(LOCK_OK, try(a, "shown", lock_at_most(5)));
    EXPECT(LOCK_OK, try(b, "shown", lock_at_most(2)));
    CHECK(held_mode(a, "shown") == lock_at_most(5) && held_mode(b, "shown") == lock_at_most(2));
    lock_info info = look(a, "shown");
    CHECK(info.mode == LOCK_SHARED && info.holders == 2 && info.held && info.token == token_of(a, "shown"));
    EXPECT(LOCK_OK, lock_list(a, "shown", NULL, 0, &json));
    CHECK(strstr(json, "\"mode\":\"shared\",\"limit\":2") && strstr(json, "\"limit\":5"));
    lock_list_free(json);

    EXPECT(LOCK_INVALID, lock_held_mode(NULL, "shown", &mode));
    EXPECT(LOCK_INVALID, lock_held_mode(a, NULL, &mode));
    EXPECT(LOCK_INVALID, lock_inspect_slots(NULL, "shown", &seen));
    EXPECT(LOCK_INVALID, lock_inspect_slots(a, NULL, &seen));
    EXPECT(LOCK_INVALID, lock_inspect_slots(a, "shown", NULL));
    CHECK(strstr(lock_last_error(), "out is NULL"));
    EXPECT(LOCK_OK, lock_release(b, "shown"));
    EXPECT(LOCK_OK, lock_end(b));
    EXPECT(LOCK_LOST, lock_inspect_slots(b, "shown", &seen));
    CHECK(mode == 7 && seen.holders == 7);
    EXPECT(LOCK_OK, lock_release(a, "shown"));
    lock_close(a);
    lock_close(b);
}

static void a_session_is_opened_together_with_a_slot(void) {
    if (is_local()) {
        return;
    }
    const char *names[] = {"opened"};
    const uint32_t modes[] = {lock_at_most(2)};
    lock_session *sessions[2], *third = NULL;
    for (int i = 0; i < 2; i++) {
        EXPECT(LOCK_OK, lock_connect_and_acquire(arguments[1], "opened", names, modes, 1, -1, NULL, NULL, NULL,
                                                 &sessions[i]));
        CHECK(held_mode(sessions[i], "opened") == lock_at_most(2));
    }
    EXPECT(LOCK_TIMEOUT, lock_connect_and_acquire(arguments[1], "third", names, modes, 1, 0, NULL, NULL, NULL,
                                                  &third));
    const uint32_t none[] = {lock_at_most(0)};
    EXPECT(LOCK_INVALID, lock_connect_and_acquire(arguments[1], "none", names, none, 1, -1, NULL, NULL, NULL,
                                                  &third));
    CHECK(third == NULL && has(sessions[0], "opened", 2, 2, 0));
    lock_close(sessions[0]);
    lock_close(sessions[1]);
}

int main(int argc, char **argv) {
    argument_count = argc;
    arguments = argv;
    a_limit_is_made_by_lock_at_most_only();
    no_more_hold_it_than_the_limit_and_a_slot_goes_to_the_first_in_the_queue();
    the_smallest_limit_of_the_holders_is_in_force();
    an_exclusive_holder_excludes_limited_ones_and_they_exclude_it();
    no_request_overtakes_one_that_needs_more_slots();
    a_place_is_not_taken_for_one_in_another_mode();
    a_lock_held_in_another_mode_is_reported_so();
    a_wait_for_a_slot_is_cancelled_and_ends_in_time();
    a_set_has_a_limit_for_each_name();
    a_sole_holder_converts_between_any_two_modes();
    a_conversion_to_fewer_holders_waits_ahead_of_the_queue();
    a_conversion_to_more_holders_lets_waiters_in();
    a_deadlock_is_found_among_exclusive_wishes_and_never_among_slots();
    a_slot_is_free_when_its_holder_has_ended_and_nothing_is_orphaned();
    what_is_shown();
    a_session_is_opened_together_with_a_slot();
    return 0;
}
