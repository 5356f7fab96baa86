/* The texts of statuses and errors: every status has a text, every other number is reported as no
 * status, and every thread has its own last error. Also the versions. */
#include <limits.h>

#include "sessions.h"

static void every_status_has_its_own_text(void) {
    for (int i = LOCK_OK; i <= LOCK_DOUBT; i++) {
        const char *text = lock_strerror(i);
        CHECK(text[0] != 0 && text == lock_strerror(i));
        CHECK(strcmp(text, lock_strerror(-1)) != 0);
        for (int j = LOCK_OK; j < i; j++) {
            CHECK(strcmp(text, lock_strerror(j)) != 0);
        }
    }
}

static void other_numbers_are_no_status(void) {
    static const int OTHERS[] = {-1, LOCK_DOUBT + 1, 255, -LOCK_DEADLOCK, INT_MAX, INT_MIN};
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        CHECK(strstr(lock_strerror(OTHERS[i]), "no status"));
    }
}

static void *fail_in_another_thread(void *session) {
    CHECK(lock_last_error()[0] == 0);
    EXPECT(LOCK_NOT_HELD, lock_release(session, "nothing"));
    CHECK(strcmp(lock_last_error(), lock_strerror(LOCK_NOT_HELD)) == 0);
    return NULL;
}

static void every_thread_has_its_own_last_error(void) {
    lock_session *session = lock_open(NULL, NULL);
    CHECK(lock_last_error()[0] == 0);
    EXPECT(LOCK_INVALID, lock_acquire(session, "name", 77, 0, NULL));
    CHECK(strstr(lock_last_error(), "77 is no mode"));
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, fail_in_another_thread, session) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    CHECK(strstr(lock_last_error(), "77 is no mode"));
    lock_close(session);
}

static void a_success_does_not_change_the_last_error(void) {
    lock_session *session = lock_open(NULL, NULL);
    EXPECT(LOCK_INVALID, lock_check(NULL));
    EXPECT(LOCK_OK, lock_check(session));
    CHECK(strstr(lock_last_error(), "session is NULL"));
    lock_close(session);
    CHECK(strstr(lock_last_error(), "session is NULL"));
}

static void the_last_error_is_the_text_of_the_status_without_details(void) {
    lock_session *session = lock_open(NULL, NULL), *other = lock_open(NULL, NULL);
    EXPECT(LOCK_OK, lock_acquire(other, "name", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(session, "name", LOCK_EXCLUSIVE));
    EXPECT(LOCK_TIMEOUT, lock_wait(session, "name", 0, NULL));
    CHECK(strcmp(lock_last_error(), lock_strerror(LOCK_TIMEOUT)) == 0);
    EXPECT(LOCK_PENDING, lock_acquire(session, "name", LOCK_EXCLUSIVE, -1, NULL));
    CHECK(strcmp(lock_last_error(), lock_strerror(LOCK_PENDING)) == 0);
    EXPECT(LOCK_ALREADY_HELD, lock_acquire(other, "name", LOCK_EXCLUSIVE, -1, NULL));
    CHECK(strcmp(lock_last_error(), lock_strerror(LOCK_ALREADY_HELD)) == 0);
    /* The session holds the lock, so the text must not say that it does not. */
    EXPECT(LOCK_NOT_HELD, lock_wait(other, "name", 0, NULL));
    CHECK(strstr(lock_last_error(), "no place") && !strstr(lock_last_error(), "not hold"));
    CHECK(!strstr(lock_strerror(LOCK_NOT_HELD), "not hold"));
    EXPECT(LOCK_OK, lock_cancel(session));
    EXPECT(LOCK_CANCELLED, lock_wait(session, "name", -1, NULL));
    CHECK(strcmp(lock_last_error(), lock_strerror(LOCK_CANCELLED)) == 0);
    lock_close(session);
    lock_close(other);
}

static void the_library_has_the_version_of_the_header(void) {
    int parts[3];
    CHECK(lock_abi_version() == 1);
    CHECK(sscanf(lock_version(), "%d.%d.%d", &parts[0], &parts[1], &parts[2]) == 3);
}

int main(void) {
    every_status_has_its_own_text();
    other_numbers_are_no_status();
    every_thread_has_its_own_last_error();
    a_success_does_not_change_the_last_error();
    the_last_error_is_the_text_of_the_status_without_details();
    the_library_has_the_version_of_the_header();
    return 0;
}
