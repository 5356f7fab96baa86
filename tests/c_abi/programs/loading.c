/* The library is loaded and unloaded at run time, as PHP and plug-ins do. After unloading, nothing
 * is left that would run code that has gone, and all modules that load it share one default broker.
 * Arguments: two modules that load it too. */
#include <dlfcn.h>

#include "lockd.h"

/* The functions that are used here. Each is called through a pointer to the loaded function, under
 * its own name, also in check.h. */
#define FUNCTIONS(each)                                                              \
    each(lock_abi_version) each(lock_strerror) each(lock_last_error) each(lock_open) \
    each(lock_connect) each(lock_close) each(lock_acquire) each(lock_release)        \
    each(lock_inspect) each(lock_check) each(lock_serve) each(lock_server_address)   \
    each(lock_server_stop)

#define DECLARE(name) static __typeof__(&name) name##_;
FUNCTIONS(DECLARE)

#define lock_abi_version lock_abi_version_
#define lock_strerror lock_strerror_
#define lock_last_error lock_last_error_
#define lock_open lock_open_
#define lock_connect lock_connect_
#define lock_close lock_close_
#define lock_acquire lock_acquire_
#define lock_release lock_release_
#define lock_inspect lock_inspect_
#define lock_check lock_check_
#define lock_serve lock_serve_
#define lock_server_address lock_server_address_
#define lock_server_stop lock_server_stop_

#include "check.h"

static void *found(void *thing) {
    if (thing == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return thing;
}

#define FIND(name) *(void **)&name##_ = found(dlsym(library, #name));

static void *load(void) {
    void *library = found(dlopen("liblockd.so.1", RTLD_NOW | RTLD_LOCAL));
    FUNCTIONS(FIND)
    CHECK(lock_abi_version() == 1);
    return library;
}

static void used_and_unloaded(void) {
    char address[ADDRESS_BYTES];
    numbers before = descriptors();
    void *library = load();
    lock_server *server = serve(NULL, "message://127.0.0.1:0", address);
    lock_session *near = lock_open(NULL, "near"), *far = lock_connect(address, "far", 10000);
    CHECK(near != NULL && far != NULL);
    EXPECT(LOCK_OK, lock_acquire(near, "lock", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_TIMEOUT, lock_acquire(far, "lock", LOCK_EXCLUSIVE, 0, NULL));
    EXPECT(LOCK_OK, lock_release(near, "lock"));
    EXPECT(LOCK_OK, lock_acquire(far, "lock", LOCK_EXCLUSIVE, 0, NULL));
    lock_close(far);
    lock_close(near);
    lock_server_stop(server);
    CHECK(dlclose(library) == 0);
    CHECK(same(descriptors(), before));
    AWAIT(threads().count == 1);
}

/* A thread that ends after the library was unloaded runs the destructors that the library has
 * registered in it. */
static void *unload_in_thread(void *unused) {
    (void)unused;
    void *library = load();
    EXPECT(LOCK_INVALID, lock_check(NULL));
    CHECK(dlclose(library) == 0);
    return NULL;
}

static void unloaded_by_a_thread_that_ends(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, unload_in_thread, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* Servers and sessions that were not closed keep working, and are unchanged when the library is
 * loaded again. */
static void unloaded_in_use(void) {
    char address[ADDRESS_BYTES];
    void *library = load();
    lock_server *server = serve(NULL, "message://127.0.0.1:0", address);
    lock_session *holder = lock_open(NULL, "holder");
    EXPECT(LOCK_OK, lock_acquire(holder, "kept", LOCK_EXCLUSIVE, 0, NULL));
    CHECK(dlclose(library) == 0);

    library = load();
    lock_session *far = lock_connect(address, "far", 10000);
    CHECK(far != NULL);
    EXPECT(LOCK_TIMEOUT, lock_acquire(far, "kept", LOCK_EXCLUSIVE, 0, NULL));
    CHECK(dlclose(library) == 0);

    library = load();
    EXPECT(LOCK_OK, lock_check(holder));
    EXPECT(LOCK_OK, lock_release(holder, "kept"));
    EXPECT(LOCK_OK, lock_acquire(far, "kept", LOCK_EXCLUSIVE, -1, NULL));
    lock_close(holder);
    lock_server_stop(server);
    lock_close(far);
    CHECK(dlclose(library) == 0);
}

/* A child of a process that has unloaded the library still runs the library's fork handlers. */
static void forked_after_unloading(void) {
    pid_t pid = fork();
    if (pid == 0) {
        used_and_unloaded();
        exit(0);
    }
    await_child(pid);
}

typedef struct module {
    void *library;
    const char *(*begin)(void);
    int (*try)(const char *);
    void (*end)(void);
} module;

static module load_module(const char *path) {
    module module = {.library = found(dlopen(path, RTLD_NOW | RTLD_LOCAL))};
    *(void **)&module.begin = found(dlsym(module.library, "module_begin"));
    *(void **)&module.try = found(dlsym(module.library, "module_try"));
    *(void **)&module.end = found(dlsym(module.library, "module_end"));
    const char *problem = module.begin();
    if (problem != NULL) {
        fprintf(stderr, "%s: %s\n", path, problem);
        exit(1);
    }
    return module;
}

static void unload_module(module module) {
    module.end();
    CHECK(dlclose(module.library) == 0);
}

static void modules_share_the_default_broker(const char *one, const char *other) {
    void *library = load();
    module first = load_module(one), second = load_module(other);
    lock_session *own = lock_open(NULL, "program");
    CHECK(first.begin != second.begin);
    EXPECT(LOCK_OK, first.try("shared"));
    EXPECT(LOCK_TIMEOUT, second.try("shared"));
    EXPECT(LOCK_TIMEOUT, lock_acquire(own, "shared", LOCK_EXCLUSIVE, 0, NULL));
    unload_module(first);
    EXPECT(LOCK_OK, second.try("shared"));
    EXPECT(LOCK_TIMEOUT, lock_acquire(own, "shared", LOCK_EXCLUSIVE, 0, NULL));
    unload_module(second);
    EXPECT(LOCK_OK, lock_acquire(own, "shared", LOCK_EXCLUSIVE, 0, NULL));
    lock_close(own);
    CHECK(dlclose(library) == 0);
}

/* The process ends while a server runs and a lock is held, in a library that was unloaded. */
static void ends_in_use(void) {
    char address[ADDRESS_BYTES];
    pid_t pid = fork();
    if (pid == 0) {
        void *library = load();
        serve(NULL, "message://127.0.0.1:0", address);
        lock_session *far = lock_connect(address, "far", 10000);
        EXPECT(LOCK_OK, lock_acquire(far, "kept", LOCK_EXCLUSIVE, 0, NULL));
        CHECK(dlclose(library) == 0);
        exit(0);
    }
    await_child(pid);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    for (int i = 0; i < 3; i++) {
        used_and_unloaded();
        unloaded_by_a_thread_that_ends();
        forked_after_unloading();
    }
    unloaded_in_use();
    modules_share_the_default_broker(argv[1], argv[2]);
    ends_in_use();
    return 0;
}
