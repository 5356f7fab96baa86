/* Calls of lock_connect_and_acquire, each in a separate thread. The thread counts what it is told,
 * and ends the wait when the program says so. */
#ifndef PATIENT_H
#define PATIENT_H

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "check.h"

enum { EVENTS = 3 };

typedef struct patient {
    /* What it asks for. */
    const char *url;
    const char *names[2];
    size_t n;
    int64_t limit;
    bool is_silent;
    /* It ends its wait at this event, if that is not negative, and at any event once `stop` is
     * set. */
    int stop_at;
    atomic_bool stop;
    /* How it went. */
    atomic_int events[EVENTS];
    char reason[EVENTS][1000];
    pthread_t thread;
    /* The same, as the thread itself knows it. */
    pthread_t caller;
    atomic_bool is_done;
    lock_status status;
    uint64_t token;
    lock_session *session;
    char error[1000];
} patient;

static inline int note_event(uint32_t event, const char *reason, void *context) {
    patient *patient = context;
    CHECK(event < EVENTS && pthread_equal(patient->caller, pthread_self()));
    snprintf(patient->reason[event], sizeof patient->reason[event], "%s", reason ? reason : "");
    patient->events[event]++;
    return patient->stop || (int)event == patient->stop_at;
}

static inline lock_status ask_patiently(patient *patient) {
    return lock_connect_and_acquire(patient->url, "patient", patient->names, NULL, patient->n, patient->limit,
                                    patient->is_silent ? NULL : note_event, patient, &patient->token,
                                    &patient->session);
}

static inline void *run_patient(void *argument) {
    patient *patient = argument;
    patient->caller = pthread_self();
    patient->status = ask_patiently(patient);
    snprintf(patient->error, sizeof patient->error, "%s", lock_last_error());
    patient->is_done = true;
    return NULL;
}

/* A call that waits for "lock" without a time limit. */
static inline patient patient_for(const char *url) {
    return (patient){.url = url, .names = {"lock"}, .n = 1, .limit = -1, .stop_at = -1};
}

static inline void start_patient(patient *patient) {
    CHECK(pthread_create(&patient->thread, NULL, run_patient, patient) == 0);
}

static inline lock_status finish_patient(patient *patient) {
    AWAIT(patient->is_done);
    CHECK(pthread_join(patient->thread, NULL) == 0);
    CHECK((patient->session != NULL) == (patient->status == LOCK_OK));
    CHECK((patient->token != 0) == (patient->status == LOCK_OK));
    return patient->status;
}

/* Addresses at which a client waits without an answer: a Unix socket and a TCP port that accept no
 * further connection, because those that wait to be accepted are too many already; and a port that
 * accepts connections and says nothing, for a client that speaks TLS and for one that does not. */
enum { MUTE_UNIX, MUTE_TCP, MUTE_HELLO, MUTE_TLS, MUTES };

typedef struct mute {
    char url[ADDRESS_BYTES];
    int listener;
    int fillers[16];
    int count;
} mute;

/* Connects until the next connection has to wait. */
static inline void fill(mute *mute, int family, const struct sockaddr *address, socklen_t length) {
    CHECK(listen(mute->listener, 0) == 0);
    for (;;) {
        int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        CHECK(fd >= 0 && mute->count < 16);
        mute->fillers[mute->count++] = fd;
        if (connect(fd, address, length) != 0) {
            struct pollfd connecting = {.fd = fd, .events = POLLOUT};
            if (errno == EAGAIN || poll(&connecting, 1, 200) == 0) {
                return;
            }
        }
    }
}

/* How many of them there are. That of TLS needs a certificate ca.pem in the directory. */
static inline int mutes(const char *directory) {
    char path[ADDRESS_BYTES];
    snprintf(path, sizeof path, "%s/ca.pem", directory);
    return access(path, R_OK) == 0 ? MUTES : MUTE_TLS;
}

static inline mute make_mute(int kind, const char *directory) {
    mute mute = {0};
    if (kind == MUTE_UNIX) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        snprintf(address.sun_path, sizeof address.sun_path, "%s/mute", directory);
        snprintf(mute.url, sizeof mute.url, "unix:%s/mute", directory);
        unlink(address.sun_path);
        mute.listener = socket(AF_UNIX, SOCK_STREAM, 0);
        CHECK(bind(mute.listener, (struct sockaddr *)&address, sizeof address) == 0);
        fill(&mute, AF_UNIX, (struct sockaddr *)&address, sizeof address);
        return mute;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    mute.listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(mute.listener, (struct sockaddr *)&address, length) == 0);
    CHECK(getsockname(mute.listener, (struct sockaddr *)&address, &length) == 0);
    int port = ntohs(address.sin_port);
    if (kind == MUTE_TLS) {
        snprintf(mute.url, sizeof mute.url, "tls://127.0.0.1:%d?ca=%s/ca.pem", port, directory);
    } else {
        snprintf(mute.url, sizeof mute.url, "tcp://127.0.0.1:%d", port);
    }
    if (kind == MUTE_TCP) {
        fill(&mute, AF_INET, (struct sockaddr *)&address, length);
    } else {
        CHECK(listen(mute.listener, 100) == 0);
    }
    return mute;
}

static inline void end_mute(mute *mute) {
    for (int i = 0; i < mute->count; i++) {
        close(mute->fillers[i]);
    }
    close(mute->listener);
}

#endif
