/* A module that loads the library for itself, and knows nothing of other modules that do so too. */
#include <dlfcn.h>

#include "lockd.h"

const char *module_begin(void);
int module_try(const char *name);
void module_end(void);

static void *library;
static lock_session *session;

static void *symbol(const char *name) {
    return dlsym(library, name);
}

/* Returns NULL, or an error message. */
const char *module_begin(void) {
    lock_session *(*open)(lock_broker *, const char *);
    library = dlopen("liblockd.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return dlerror();
    }
    *(void **)&open = symbol("lock_open");
    session = open(NULL, "module");
    return session == NULL ? "no session" : NULL;
}

int module_try(const char *name) {
    lock_status (*acquire)(lock_session *, const char *, uint32_t, int64_t, uint64_t *);
    *(void **)&acquire = symbol("lock_acquire");
    return acquire(session, name, LOCK_EXCLUSIVE, 0, NULL);
}

void module_end(void) {
    void (*close)(lock_session *);
    *(void **)&close = symbol("lock_close");
    close(session);
    dlclose(library);
}
