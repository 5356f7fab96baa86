/* For the programs that list locks: pages, and the names on them. */
#ifndef PAGES_H
#define PAGES_H

#include "sessions.h"

enum { SHOWN_MAX = 1100, SHOWN_BYTES = 64 };

/* A page as received, and the names on it as they are written in JSON between the quotes. */
typedef struct page {
    char *json;
    int count;
    char names[SHOWN_MAX][SHOWN_BYTES];
    bool more;
} page;

static inline page *list(lock_session *session, const char *prefix, const char *after, uint64_t limit) {
    static const char KEY[] = "{\"lockName\":\"";
    page *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    EXPECT(LOCK_OK, lock_list(session, prefix, after, limit, &p->json));
    CHECK(strncmp(p->json, "{\"locks\":[", 10) == 0);
    for (const char *at = p->json; (at = strstr(at, KEY)) != NULL;) {
        at += sizeof KEY - 1;
        size_t length = strcspn(at, "\"");
        CHECK(p->count < SHOWN_MAX && length < SHOWN_BYTES);
        memcpy(p->names[p->count++], at, length);
    }
    const char *end = strrchr(p->json, ']');
    CHECK(end != NULL);
    p->more = strcmp(end, "],\"more\":true}") == 0;
    CHECK(p->more || strcmp(end, "],\"more\":false}") == 0);
    CHECK(p->count > 0 || !p->more);
    return p;
}

static inline void free_page(page *p) {
    lock_list_free(p->json);
    free(p);
}

/* The number of names on all pages together. The names must be in order and without repetition, and
 * every page except the last must have `limit` names. */
static inline int count_all(lock_session *session, const char *prefix, int limit) {
    char last[SHOWN_BYTES] = "";
    int count = 0;
    bool more = true;
    while (more) {
        page *p = list(session, prefix, count > 0 ? last : NULL, (uint64_t)limit);
        for (int i = 0; i < p->count; i++) {
            CHECK(count + i == 0 || strcmp(last, p->names[i]) < 0);
            strcpy(last, p->names[i]);
        }
        more = p->more;
        CHECK(more ? p->count == limit : p->count <= limit);
        count += p->count;
        free_page(p);
    }
    return count;
}

#endif
