/* Pages of locks: the holders and waiters of each name, in this process or on a server. Arguments:
 * [server [zeros]]; zeros: another session holds names that C cannot express. */
#include "pages.h"

enum { MANY = 250 };

static void holders_and_waiters_are_shown(void) {
    lock_session *alice = new_session("alice"), *bob = new_session("b\"ob"), *unnamed = new_session(NULL);
    uint64_t token;
    char expected[200];
    EXPECT(LOCK_OK, lock_acquire(alice, "list/x", LOCK_EXCLUSIVE, -1, &token));
    EXPECT(LOCK_OK, lock_acquire(alice, "list/s", LOCK_SHARED, -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(unnamed, "list/s", LOCK_SHARED, -1, NULL));
    EXPECT(LOCK_PENDING, lock_enqueue(bob, "list/x", LOCK_SHARED));
    page *p = list(unnamed, "list/", NULL, 0);
    CHECK(p->count == 2 && !p->more);
    CHECK(strcmp(p->names[0], "list/s") == 0 && strcmp(p->names[1], "list/x") == 0);
    const char *s = strstr(p->json, "{\"lockName\":\"list/s\",\"mode\":\"shared\",\"holders\":[{\"address\":\"");
    const char *x = strstr(p->json, "{\"lockName\":\"list/x\",\"mode\":\"exclusive\",\"holders\":[{\"address\":\"");
    CHECK(s != NULL && x != NULL && s < x);
    CHECK(strstr(s, "\"name\":null,\"token\":") && strstr(s, "\"waiters\":[]}"));
    snprintf(expected, sizeof expected, "\"name\":\"alice\",\"token\":%" PRIu64 ",\"heldFor\":", token);
    const char *holder = strstr(x, expected);
    CHECK(holder != NULL);
    CHECK(strstr(holder, "\"waiters\":[{\"address\":\""));
    CHECK(strstr(holder, "\"name\":\"b\\\"ob\",\"mode\":\"shared\",\"waitingFor\":"));
    CHECK((strstr(x, "\"address\":\"local:") != NULL) == is_local());
    free_page(p);
    EXPECT(LOCK_OK, lock_release(bob, "list/x"));
    EXPECT(LOCK_OK, lock_abandon(alice));
    lock_close(alice);
    await_holders(unnamed, "list/x", 0);
    EXPECT(LOCK_OK, lock_acquire(unnamed, "list/x", LOCK_EXCLUSIVE, -1, NULL));
    p = list(unnamed, "list/x", NULL, 0);
    CHECK(strstr(p->json, "\"mode\":\"exclusive\",\"orphaned\":true,\"holders\":[{"));
    free_page(p);
    /* Otherwise the lock would be orphaned for the next program. */
    EXPECT(LOCK_OK, lock_release(unnamed, "list/x"));
    lock_close(bob);
    lock_close(unnamed);
}

static void a_released_lock_is_not_shown(void) {
    lock_session *session = new_session("session");
    EXPECT(LOCK_OK, lock_acquire(session, "gone", LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_release(session, "gone"));
    page *p = list(session, "gone", NULL, 10);
    CHECK(strcmp(p->json, "{\"locks\":[],\"more\":false}") == 0);
    free_page(p);
    lock_close(session);
}

static void pages_follow_one_another(void) {
    static char text[MANY][16];
    lock_session *session = new_session("session");
    for (int i = 0; i < MANY; i++) {
        snprintf(text[i], sizeof text[i], "page/%d", i);
        EXPECT(LOCK_OK, lock_acquire(session, text[i], i % 2 == 0 ? LOCK_EXCLUSIVE : LOCK_SHARED, -1, NULL));
    }
    int limits[] = {1, 7, 125, MANY - 1, MANY, MANY + 1, 1000};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        CHECK(count_all(session, "page/", limits[i]) == MANY);
    }
    CHECK(count_all(session, "page/24", 4) == 11);
    page *p = list(session, "page/", NULL, 0);
    CHECK(p->count == 100 && p->more);
    free_page(p);
    p = list(session, "page/", NULL, UINT64_MAX);
    CHECK(p->count == MANY && !p->more);
    free_page(p);
    p = list(session, "page/", "page/98", 5);
    CHECK(p->count == 1 && !p->more && strcmp(p->names[0], "page/99") == 0);
    free_page(p);
    p = list(session, "page/", "q", 5);
    CHECK(p->count == 0 && !p->more);
    free_page(p);
    p = list(session, NULL, "page/98", 1);
    CHECK(p->count == 1 && strcmp(p->names[0], "page/99") == 0);
    free_page(p);
    lock_close(session);
}

static void a_page_has_at_most_a_thousand_names(void) {
    static char text[1001][16];
    const char *names[1001];
    lock_session *session = new_session("session");
    for (int i = 0; i < 1001; i++) {
        snprintf(text[i], sizeof text[i], "long/%04d", i);
        names[i] = text[i];
    }
    EXPECT(LOCK_OK, lock_acquire_all(session, names, NULL, 1001, -1, NULL));
    page *p = list(session, "long/", "", UINT64_MAX);
    CHECK(p->count == 1000 && p->more && strcmp(p->names[999], names[999]) == 0);
    free_page(p);
    lock_close(session);
}

static void any_bytes_are_a_name(void) {
    lock_session *session = new_session("session");
    EXPECT(LOCK_OK, lock_acquire(session, "bytes/\xff\x01", LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, "bytes/\xff\x02", LOCK_EXCLUSIVE, -1, NULL));
    EXPECT(LOCK_OK, lock_acquire(session, "bytes/\xc3\xbc", LOCK_EXCLUSIVE, -1, NULL));
    page *p = list(session, "bytes/", NULL, 2);
    CHECK(p->count == 2 && p->more && strcmp(p->names[0], "bytes/\xc3\xbc") == 0);
    CHECK(strstr(p->json, "\"lockName\":\"bytes/\xef\xbf\xbd\\u0001\",\"lockNameHex\":\"62797465732fff01\""));
    free_page(p);
    p = list(session, "bytes/\xff", "bytes/\xff\x01", 2);
    CHECK(p->count == 1 && !p->more && strstr(p->json, "\"lockNameHex\":\"62797465732fff02\""));
    free_page(p);
    lock_close(session);
}

static void null_arguments_are_invalid(void) {
    char mark = 0, *json = &mark;
    lock_session *session = new_session("session");
    EXPECT(LOCK_INVALID, lock_list(NULL, NULL, NULL, 0, &json));
    EXPECT(LOCK_INVALID, lock_list(session, NULL, NULL, 0, NULL));
    CHECK(strstr(lock_last_error(), "json is NULL"));
    CHECK(json == &mark);
    lock_list_free(NULL);
    lock_close(session);
}

/* The names are "zero", and "zero" followed by a zero byte and a digit from 1 to 9; and the same
 * with "zerp". */
static void a_page_never_ends_with_a_name_with_a_zero_byte(void) {
    static const char ZERO[] = "\\u0000";
    for (uint64_t limit = 1; limit < 25; limit++) {
        lock_session *session = new_session("session");
        char last[SHOWN_BYTES] = "";
        int count = 0;
        bool more = true;
        while (more) {
            page *p = list(session, "zer", count > 0 ? last : NULL, limit);
            more = p->more;
            count += p->count;
            strcpy(last, p->names[p->count - 1]);
            CHECK(!more || strstr(last, ZERO) == NULL);
            free_page(p);
        }
        CHECK(count == 20 && strstr(last, "zerp") && strstr(last, ZERO));
        lock_close(session);
    }
}

int main(int argc, char **argv) {
    argument_count = argc;
    arguments = argv;
    if (argc > 2) {
        a_page_never_ends_with_a_name_with_a_zero_byte();
        return 0;
    }
    holders_and_waiters_are_shown();
    a_released_lock_is_not_shown();
    pages_follow_one_another();
    a_page_has_at_most_a_thousand_names();
    any_bytes_are_a_name();
    null_arguments_are_invalid();
    return 0;
}
