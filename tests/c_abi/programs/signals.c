/* The effect of signal handlers on waits on a server: the call ends, its place in the queue stays,
 * and a new call can wait at it, give it up or cancel it. Argument: a server. */
#include "waiting.h"

static const char *url;

static lock_session *connect_as(const char *owner) {
    lock_session *session = lock_connect(url, owner, 10000);
    CHECK(session != NULL);
    return session;
}

/* A lock, a session that holds it, and a session that waits for it in one of the possible ways. */
typedef struct scene {
    lock_session *holder;
    lock_session *waiter;
    call call;
} scene;

static void set(scene *scene, verb verb, int64_t limit) {
    uint32_t mode = verb == CONVERT ? LOCK_SHARED : LOCK_EXCLUSIVE;
    scene->holder = connect_as("holder");
    scene->waiter = connect_as("waiter");
    scene->call = (call){.verb = verb, .session = scene->waiter, .name = "lock", .limit = limit};
    EXPECT(LOCK_OK, lock_acquire(scene->holder, "lock", mode, -1, NULL));
    if (verb == CONVERT) {
        EXPECT(LOCK_OK, lock_acquire(scene->waiter, "lock", LOCK_SHARED, -1, NULL));
    }
    if (verb == WAIT) {
        EXPECT(LOCK_PENDING, lock_enqueue(scene->waiter, "lock", LOCK_EXCLUSIVE));
    }
}

/* The same, with the waiter's call interrupted. */
static void set_interrupted(scene *scene, verb verb) {
    set(scene, verb, -1);
    start(&scene->call);
    AWAIT(waiters(scene->holder, "lock") == 1);
    EXPECT(LOCK_INTERRUPTED, interrupt(&scene->call));
    CHECK(waiters(scene->waiter, "lock") == 1);
}

static void close_scene(scene *scene) {
    lock_close(scene->holder);
    lock_close(scene->waiter);
    /* The server notices a little later. */
    lock_session *next = connect_as("next");
    EXPECT(LOCK_OK, lock_acquire(next, "lock", LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_release(next, "lock"));
    lock_close(next);
}

static void expect_place(lock_session *session, bool waiting) {
    lock_info info;
    EXPECT(LOCK_OK, lock_inspect(session, "lock", &info));
    CHECK(info.waiting == waiting && info.waiters == waiting);
}

static void the_same_call_continues_in_its_place(verb verb, struct scene *scene) {
    lock_info info;
    lock_session *later = connect_as("later");
    set_interrupted(scene, verb);
    EXPECT(LOCK_PENDING, lock_enqueue(later, "lock", LOCK_EXCLUSIVE));
    CHECK(waiters(later, "lock") == 2);
    /* Twice: the place is kept any number of times. */
    start(&scene->call);
    EXPECT(LOCK_INTERRUPTED, interrupt(&scene->call));
    start(&scene->call);
    EXPECT(LOCK_OK, lock_release(scene->holder, "lock"));
    EXPECT(LOCK_OK, finish(&scene->call));
    EXPECT(LOCK_OK, lock_inspect(scene->waiter, "lock", &info));
    CHECK(info.held && info.mode == LOCK_EXCLUSIVE && info.waiters == 1);
    EXPECT(LOCK_TIMEOUT, lock_wait(later, "lock", 0, NULL));
    EXPECT(LOCK_OK, lock_release(scene->waiter, "lock"));
    EXPECT(LOCK_OK, lock_wait(later, "lock", -1, NULL));
    lock_close(later);
}

static void lock_wait_continues_too(verb verb, struct scene *scene) {
    set_interrupted(scene, verb);
    EXPECT(LOCK_TIMEOUT, lock_wait(scene->waiter, "lock", 0, NULL));
    scene->call.verb = WAIT;
    start(&scene->call);
    EXPECT(LOCK_INTERRUPTED, interrupt(&scene->call));
    EXPECT(LOCK_OK, lock_release(scene->holder, "lock"));
    EXPECT(LOCK_OK, lock_wait(scene->waiter, "lock", -1, NULL));
    EXPECT(LOCK_NOT_HELD, lock_wait(scene->waiter, "lock", 0, NULL));
    EXPECT(LOCK_OK, lock_release(scene->waiter, "lock"));
}

/* For a conversion it gives up the lock itself. */
static void lock_release_gives_up_the_place(verb verb, struct scene *scene) {
    set_interrupted(scene, verb);
    EXPECT(LOCK_OK, lock_release(scene->waiter, "lock"));
    expect_place(scene->waiter, false);
    EXPECT(LOCK_NOT_HELD, lock_wait(scene->waiter, "lock", 0, NULL));
    EXPECT(LOCK_NOT_HELD, lock_release(scene->waiter, "lock"));
}

static void lock_cancel_ends_it(verb verb, struct scene *scene) {
    lock_info info;
    set_interrupted(scene, verb);
    EXPECT(LOCK_OK, lock_cancel(scene->waiter));
    expect_place(scene->waiter, false);
    EXPECT(LOCK_OK, lock_inspect(scene->waiter, "lock", &info));
    CHECK(info.held == (verb == CONVERT));
    EXPECT(LOCK_CANCELLED, lock_wait(scene->waiter, "lock", 0, NULL));
    EXPECT(LOCK_NOT_HELD, lock_wait(scene->waiter, "lock", 0, NULL));
}

static void another_call_reports_the_place(verb verb, struct scene *scene) {
    lock_status status = verb == CONVERT ? LOCK_ALREADY_HELD : LOCK_PENDING;
    lock_status in_another_mode = verb == CONVERT ? LOCK_ALREADY_HELD : LOCK_INVALID;
    set_interrupted(scene, verb);
    EXPECT(in_another_mode, lock_acquire(scene->waiter, "lock", LOCK_SHARED, -1, NULL));
    EXPECT(in_another_mode, lock_enqueue(scene->waiter, "lock", LOCK_SHARED));
    EXPECT(status, lock_enqueue(scene->waiter, "lock", LOCK_EXCLUSIVE));
    if (verb == CONVERT) {
        EXPECT(LOCK_INVALID, lock_convert(scene->waiter, "lock", LOCK_SHARED, -1));
    }
    expect_place(scene->waiter, true);
}

static void the_time_limit_keeps_running(verb verb, struct scene *scene) {
    /* The signal may come too late, though that is unlikely: then try again. */
    for (lock_status status = LOCK_TIMEOUT; status == LOCK_TIMEOUT;) {
        set(scene, verb, 500);
        start(&scene->call);
        status = interrupt(&scene->call);
        if (status == LOCK_TIMEOUT) {
            close_scene(scene);
        } else {
            EXPECT(LOCK_INTERRUPTED, status);
        }
    }
    if (verb != WAIT) {
        EXPECT(LOCK_TIMEOUT, lock_wait(scene->waiter, "lock", -1, NULL));
        EXPECT(LOCK_NOT_HELD, lock_wait(scene->waiter, "lock", -1, NULL));
        expect_place(scene->waiter, false);
    }
}

/* Of two threads that wait in one session, one reads for both: either may be interrupted first. */
static void each_thread_has_its_own_signal(int first) {
    lock_session *holder = connect_as("holder"), *waiter = connect_as("waiter");
    call calls[] = {{.session = waiter, .name = "left", .limit = -1},
                    {.session = waiter, .name = "right", .limit = -1}};
    for (int i = 0; i < 2; i++) {
        EXPECT(LOCK_OK, lock_acquire(holder, calls[i].name, LOCK_EXCLUSIVE, -1, NULL));
        start(&calls[i]);
        AWAIT(waiters(holder, calls[i].name) == 1);
    }
    EXPECT(LOCK_INTERRUPTED, interrupt(&calls[first]));
    CHECK(!calls[1 - first].is_done);
    EXPECT(LOCK_OK, lock_release(holder, calls[1 - first].name));
    EXPECT(LOCK_OK, finish(&calls[1 - first]));
    EXPECT(LOCK_OK, lock_release(waiter, calls[1 - first].name));

    EXPECT(LOCK_OK, lock_acquire(holder, calls[1 - first].name, LOCK_EXCLUSIVE, -1, NULL));
    for (int i = 0; i < 2; i++) {
        start(&calls[i]);
        AWAIT(waiters(holder, calls[i].name) == 1);
    }
    EXPECT(LOCK_INTERRUPTED, interrupt(&calls[first]));
    EXPECT(LOCK_INTERRUPTED, interrupt(&calls[1 - first]));
    lock_close(waiter);
    lock_close(holder);
}

static void a_wait_in_this_process_is_not_interrupted(void) {
    lock_session *holder = lock_open(NULL, "holder"), *waiter = lock_open(NULL, "waiter");
    for (int verb = ACQUIRE; verb < VERBS; verb++) {
        uint32_t mode = verb == CONVERT ? LOCK_SHARED : LOCK_EXCLUSIVE;
        call call = {.verb = verb, .session = waiter, .name = "lock", .limit = -1};
        EXPECT(LOCK_OK, lock_acquire(holder, "lock", mode, 0, NULL));
        if (verb == CONVERT) {
            EXPECT(LOCK_OK, lock_acquire(waiter, "lock", mode, 0, NULL));
        } else if (verb == WAIT) {
            EXPECT(LOCK_PENDING, lock_enqueue(waiter, "lock", LOCK_EXCLUSIVE));
        }
        start(&call);
        AWAIT(waiters(holder, "lock") == 1);
        for (int i = 0; i < 20; i++) {
            int before = handled;
            CHECK(pthread_kill(call.thread, SIGUSR1) == 0);
            AWAIT(handled > before);
        }
        CHECK(!call.is_done);
        EXPECT(LOCK_OK, lock_release(holder, "lock"));
        EXPECT(LOCK_OK, finish(&call));
        EXPECT(LOCK_OK, lock_release(waiter, "lock"));
        /* Left over from acquiring several names. */
        lock_release(waiter, "spare");
    }
    lock_close(waiter);
    lock_close(holder);
}

int main(int argc, char **argv) {
    void (*const each[])(verb, struct scene *) = {
        the_same_call_continues_in_its_place, lock_wait_continues_too,           lock_release_gives_up_the_place,
        lock_cancel_ends_it,                another_call_reports_the_place, the_time_limit_keeps_running,
    };
    CHECK(argc == 2);
    url = argv[1];
    for (int flags = 0, round = 0; round < 2; round++, flags = SA_RESTART) {
        handle(SIGUSR1, flags);
        for (size_t i = 0; i < sizeof each / sizeof each[0]; i++) {
            for (int verb = ACQUIRE; verb < VERBS; verb++) {
                scene scene;
                each[i](verb, &scene);
                close_scene(&scene);
            }
        }
        each_thread_has_its_own_signal(0);
        each_thread_has_its_own_signal(1);
        a_wait_in_this_process_is_not_interrupted();
    }
    return 0;
}
