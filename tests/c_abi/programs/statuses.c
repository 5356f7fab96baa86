/* Every verb in every situation that a session can be in with a lock. One table gives the status of
 * each, in this process and on a server. A call that fails changes nothing. Arguments: [server]. */
#include "sessions.h"

#define NAME "name"

/* The session that makes the call, another one, and a call that waits in the meantime. */
typedef struct stage {
    lock_session *self, *other;
    call waiting;
    bool waits;
} stage;

static void begin_waiting(stage *s, call waiting, uint64_t waiters) {
    s->waiting = waiting;
    s->waits = true;
    begin(&s->waiting);
    await_waiters(s->other, waiting.name, waiters);
}

static void it_is_free(stage *s) {
    (void)s;
}

static void it_is_held(stage *s) {
    EXPECT(LOCK_OK, lock_acquire(s->self, NAME, LOCK_EXCLUSIVE, 0, NULL));
}

static void another_holds_it(stage *s) {
    EXPECT(LOCK_OK, lock_acquire(s->other, NAME, LOCK_EXCLUSIVE, 0, NULL));
}

static void it_is_queued_for(stage *s) {
    another_holds_it(s);
    EXPECT(LOCK_PENDING, lock_enqueue(s->self, NAME, LOCK_EXCLUSIVE));
}

static void a_thread_waits_for_it(stage *s) {
    another_holds_it(s);
    begin_waiting(s, (call){.verb = ACQUIRE, .session = s->self, .name = NAME}, 1);
}

/* Its holder waits for what this session holds. */
static void waiting_for_it_is_a_deadlock(stage *s) {
    another_holds_it(s);
    EXPECT(LOCK_OK, lock_acquire(s->self, "circle", LOCK_EXCLUSIVE, 0, NULL));
    begin_waiting(s, (call){.verb = ACQUIRE, .session = s->other, .name = "circle"}, 1);
}

static void it_is_shared(stage *s) {
    EXPECT(LOCK_OK, lock_acquire(s->other, NAME, LOCK_SHARED, 0, NULL));
    EXPECT(LOCK_OK, lock_acquire(s->self, NAME, LOCK_SHARED, 0, NULL));
}

static void another_makes_it_exclusive(stage *s) {
    it_is_shared(s);
    begin_waiting(s, (call){.verb = CONVERT, .session = s->other, .name = NAME}, 1);
}

static void it_is_queued_to_be_exclusive(stage *s) {
    it_is_shared(s);
    EXPECT(LOCK_PENDING, lock_enqueue_convert(s->self, NAME, LOCK_EXCLUSIVE));
}

static void a_thread_makes_it_exclusive(stage *s) {
    it_is_shared(s);
    begin_waiting(s, (call){.verb = CONVERT, .session = s->self, .name = NAME}, 1);
}

static lock_status acquire(stage *s, int64_t timeout_ms) {
    return lock_acquire(s->self, NAME, LOCK_EXCLUSIVE, timeout_ms, NULL);
}

/* Needs a place for both names, which a place for one of them is not. */
static lock_status acquire_all(stage *s, int64_t timeout_ms) {
    const char *names[] = {"free", NAME};
    return lock_acquire_all(s->self, names, NULL, 2, timeout_ms, NULL);
}

static lock_status enqueue(stage *s, int64_t timeout_ms) {
    (void)timeout_ms;
    return lock_enqueue(s->self, NAME, LOCK_EXCLUSIVE);
}

static lock_status wait_(stage *s, int64_t timeout_ms) {
    return lock_wait(s->self, NAME, timeout_ms, NULL);
}

static lock_status to_exclusive(stage *s, int64_t timeout_ms) {
    return lock_convert(s->self, NAME, LOCK_EXCLUSIVE, timeout_ms);
}

static lock_status to_shared(stage *s, int64_t timeout_ms) {
    return lock_convert(s->self, NAME, LOCK_SHARED, timeout_ms);
}

static lock_status enqueue_exclusive(stage *s, int64_t timeout_ms) {
    (void)timeout_ms;
    return lock_enqueue_convert(s->self, NAME, LOCK_EXCLUSIVE);
}

static lock_status enqueue_shared(stage *s, int64_t timeout_ms) {
    (void)timeout_ms;
    return lock_enqueue_convert(s->self, NAME, LOCK_SHARED);
}

static lock_status release(stage *s, int64_t timeout_ms) {
    (void)timeout_ms;
    return lock_release(s->self, NAME);
}

static lock_status release_all(stage *s, int64_t timeout_ms) {
    const char *names[] = {NAME};
    (void)timeout_ms;
    return lock_release_all(s->self, names, 1);
}

static lock_status (*const VERBS[])(stage *, int64_t) = {
    acquire, acquire_all, enqueue, wait_, to_exclusive, to_shared, enqueue_exclusive, enqueue_shared, release, release_all};

enum { VERB_COUNT = sizeof VERBS / sizeof *VERBS };

#define OK LOCK_OK
#define PENDING LOCK_PENDING
#define TIMEOUT LOCK_TIMEOUT
#define NOT_HELD LOCK_NOT_HELD
#define ALREADY LOCK_ALREADY_HELD
#define DEADLOCK LOCK_DEADLOCK
#define INVALID LOCK_INVALID

static const struct row {
    void (*set)(stage *);
    const char *what;
    int64_t timeout_ms;
    lock_status expected[VERB_COUNT];
} TABLE[] = {
#define ROW(situation, timeout_ms) situation, #situation, timeout_ms
    /*                                       acquire   ..._all   enqueue   wait      exclus.   shared    queued e. queued s. release   ..._all */
    {ROW(it_is_free, -1),                {OK,       OK,       OK,       NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD}},
    {ROW(it_is_held, -1),                   {ALREADY,  ALREADY,  ALREADY,  NOT_HELD, OK,       OK,       OK,       OK,       OK,       OK}},
    {ROW(another_holds_it, 0),              {TIMEOUT,  TIMEOUT,  PENDING,  NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD}},
    {ROW(another_holds_it, 1),              {TIMEOUT,  TIMEOUT,  PENDING,  NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD}},
    {ROW(it_is_queued_for, 0),              {PENDING,  INVALID,  PENDING,  TIMEOUT,  NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, OK,       OK}},
    {ROW(it_is_queued_for, 1),              {PENDING,  INVALID,  PENDING,  TIMEOUT,  NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, OK,       OK}},
    {ROW(a_thread_waits_for_it, -1),        {PENDING,  INVALID,  PENDING,  NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, OK,       OK}},
    {ROW(waiting_for_it_is_a_deadlock, -1), {DEADLOCK, DEADLOCK, DEADLOCK, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD, NOT_HELD}},
    {ROW(it_is_shared, 0),                  {ALREADY,  ALREADY,  ALREADY,  NOT_HELD, TIMEOUT,  OK,       PENDING,  OK,       OK,       OK}},
    {ROW(it_is_shared, 1),                  {ALREADY,  ALREADY,  ALREADY,  NOT_HELD, TIMEOUT,  OK,       PENDING,  OK,       OK,       OK}},
    {ROW(it_is_queued_to_be_exclusive, 0),  {ALREADY,  ALREADY,  ALREADY,  TIMEOUT,  PENDING,  INVALID,  PENDING,  INVALID,  OK,       OK}},
    {ROW(it_is_queued_to_be_exclusive, 1),  {ALREADY,  ALREADY,  ALREADY,  TIMEOUT,  PENDING,  INVALID,  PENDING,  INVALID,  OK,       OK}},
    {ROW(another_makes_it_exclusive, -1),   {ALREADY,  ALREADY,  ALREADY,  NOT_HELD, DEADLOCK, OK,       DEADLOCK, OK,       OK,       OK}},
    {ROW(a_thread_makes_it_exclusive, -1),  {ALREADY,  ALREADY,  ALREADY,  NOT_HELD, PENDING,  INVALID,  PENDING,  INVALID,  OK,       OK}},
#undef ROW
};

static bool is_same(lock_info a, lock_info b) {
    return a.token == b.token && a.holders == b.holders && a.waiters == b.waiters && a.mode == b.mode &&
           a.held == b.held && a.waiting == b.waiting && a.orphaned == b.orphaned;
}

static void try(const struct row *row, int verb) {
    stage s = {.self = new_session("self"), .other = new_session("other")};
    row->set(&s);
    lock_info before = look(s.self, NAME);
    lock_status status = VERBS[verb](&s, row->timeout_ms);
    if (status != row->expected[verb]) {
        fprintf(stderr, "%s (%" PRId64 " ms), verb %d: %s (last error: %s)\n", row->what, row->timeout_ms, verb,
                lock_strerror(status), lock_last_error());
        exit(1);
    }
    if (status != LOCK_OK && status != LOCK_PENDING) {
        CHECK(is_same(look(s.self, NAME), before));
        CHECK(look(s.self, "free").holders + look(s.self, "free").waiters == 0);
    }
    EXPECT(LOCK_OK, lock_check(s.self));
    if (s.waits) {
        EXPECT(LOCK_OK, lock_cancel(s.waiting.session));
        finish(&s.waiting);
        /* A server cancels the wait later than lock_cancel returns, but before it answers this
         * request. */
        (void)look(s.waiting.session, NAME);
    }
    /* The locks must be free on the server before the next attempt begins. */
    const char *all[] = {NAME, "free", "circle"};
    (void)lock_release_all(s.self, all, 3);
    (void)lock_release_all(s.other, all, 3);
    lock_close(s.self);
    lock_close(s.other);
}

int main(int argc, char **argv) {
    argument_count = argc;
    arguments = argv;
    for (size_t row = 0; row < sizeof TABLE / sizeof *TABLE; row++) {
        for (int verb = 0; verb < VERB_COUNT; verb++) {
            try(&TABLE[row], verb);
        }
    }
    return 0;
}
