/* Drives liblockd through its C ABI. Each command is one call; only `check`, `notice` and `orphaned`
 * take two, as the header tells a program to ask. */
#include <poll.h>
#include <time.h>

#include "conformance.h"
#include "lockd.h"

static lock_session *session;

/* The outcome of a call; `done` is what LOCK_OK means. */
static void say_status(char *outcome, lock_status status, const char *done) {
    switch (status) {
    case LOCK_OK:
        say(outcome, "%s", done);
        break;
    case LOCK_TIMEOUT:
        say(outcome, "timeout");
        break;
    case LOCK_NOT_HELD:
        say(outcome, "not-held");
        break;
    case LOCK_PENDING: /* Another thread of this session waits for it. */
    case LOCK_ALREADY_HELD:
        say(outcome, "already");
        break;
    case LOCK_DEADLOCK:
        say(outcome, "deadlock");
        break;
    case LOCK_CANCELLED:
        say(outcome, "cancelled");
        break;
    case LOCK_INVALID:
        say(outcome, "invalid %s", lock_last_error());
        break;
    case LOCK_REFUSED:
        say(outcome, "refused %s", lock_last_error());
        break;
    case LOCK_LOST:
        say(outcome, "lost %s", lock_last_error());
        break;
    case LOCK_DOUBT:
        say(outcome, "doubt %s", lock_last_error());
        break;
    case LOCK_FORKED:
        say(outcome, "forked %s", lock_last_error());
        break;
    default:
        say(outcome, "error %s: %s", lock_strerror((int)status), lock_last_error());
    }
}

/* The C ABI tells on request whether a lock is orphaned. If that question fails, the grant was
 * granted all the same: only `check` says whether it still holds. */
static void say_granted(char *outcome, lock_status status, uint64_t token, const char *name) {
    char granted[64] = "";
    lock_info info = {0};
    if (status == LOCK_OK) {
        int orphaned = lock_inspect(session, name, &info) == LOCK_OK && info.orphaned;
        snprintf(granted, sizeof granted, "granted token=%llu%s", (unsigned long long)token,
                 orphaned ? " orphaned" : "");
    }
    say_status(outcome, status, granted);
}

static uint32_t mode_of(const char *word) {
    uint32_t limit = 0;
    if (sscanf(word, "at-most:%u", &limit) == 1) {
        return lock_at_most(limit);
    }
    return strcmp(word, "shared") == 0 ? LOCK_SHARED : LOCK_EXCLUSIVE;
}

/* The secret, if there is one, is in a file that the library is told of. */
static void set_secret(const char *secret) {
    char path[] = "/tmp/conformance-XXXXXX";
    int file = mkstemp(path);
    if (file < 0 || write(file, secret, strlen(secret)) < 0 || close(file) < 0) {
        exit(1);
    }
    setenv("LOCKD_AUTH_TOKEN_FILE", path, 1);
}

static void connect_session(const command *command, char *outcome) {
    char urls[4096] = "";
    const char *ca = getenv("CONFORMANCE_CA"), *secret = getenv("CONFORMANCE_SECRET");
    for (int i = 3; i < command->count; i++) {
        size_t used = strlen(urls);
        int trusts = ca != NULL && strncmp(command->words[i], "tls://", 6) == 0;
        const char *more = !trusts ? "" : strchr(command->words[i], '?') == NULL ? "?ca=" : "&ca=";
        snprintf(urls + used, sizeof urls - used, "%s%s%s%s", used > 0 ? "," : "", command->words[i], more,
                 trusts ? ca : "");
    }
    if (secret != NULL) {
        set_secret(secret);
    }
    /* Not lock_close: a call in the background may still use the handle. */
    lock_end(session);
    session = lock_connect(urls, name_of(command->words[1]), time_of(command->words[2]));
    if (secret != NULL) {
        unlink(getenv("LOCKD_AUTH_TOKEN_FILE"));
    }
    if (session != NULL) {
        say(outcome, "ok");
    } else {
        say(outcome, "failed %s", lock_last_error());
    }
}

static void acquire_set(const command *command, char *outcome) {
    const char *names[WORDS_MAX];
    uint32_t modes[WORDS_MAX];
    uint64_t token = 0;
    size_t count = 0;
    for (int i = 3; i < command->count; i++) {
        modes[count] = mode_of(command->words[1]);
        names[count++] = name_of(command->words[i]);
    }
    int64_t limit = time_of(command->words[2]);
    lock_status status = lock_acquire_all(session, names, modes, count, limit, &token);
    say_granted(outcome, status, token, names[0]);
}

static void inspect(const char *name, char *outcome) {
    lock_info info = {0};
    char state[64];
    lock_status status = lock_inspect(session, name, &info);
    const char *mode = info.holders == 0 ? "free" : info.mode == LOCK_SHARED ? "shared" : "exclusive";
    snprintf(state, sizeof state, info.holders == 0 ? "%s" : "%s %llu", mode,
             (unsigned long long)info.waiters);
    say_status(outcome, status, state);
}

static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* As the header says at lock_lost_fd: poll for a second at most, and check each time. Doubt is no
 * loss. */
static void notice(int64_t limit_ms, char *outcome) {
    lock_status status;
    int64_t left, end = now_ms() + limit_ms;
    while (((status = lock_check(session)) == LOCK_OK || status == LOCK_DOUBT) && (left = end - now_ms()) > 0) {
        struct pollfd lost = {.fd = lock_lost_fd(session), .events = POLLIN};
        poll(&lost, 1, left < 1000 ? (int)left : 1000);
    }
    say_status(outcome, status, "alive");
}

static void carry_out(const command *command, char *outcome) {
    char *const *words = command->words;
    const char *name = command->count > 1 && !is_command(command, "acquire-set")
                           && !is_command(command, "connect") ? name_of(words[1]) : NULL;
    uint64_t token = 0;
    if (is_command(command, "connect")) {
        connect_session(command, outcome);
    } else if (is_command(command, "acquire")) {
        lock_status status = lock_acquire(session, name, mode_of(words[2]), time_of(words[3]), &token);
        say_granted(outcome, status, token, name);
    } else if (is_command(command, "acquire-set")) {
        acquire_set(command, outcome);
    } else if (is_command(command, "convert")) {
        lock_status status = lock_convert(session, name, mode_of(words[2]), time_of(words[3]));
        /* If the token cannot be had any more, the call has said yes all the same. */
        lock_token(session, name, &token);
        say_granted(outcome, status, token, name);
    } else if (is_command(command, "release")) {
        say_status(outcome, lock_release(session, name), "ok");
    } else if (is_command(command, "check")) {
        say_status(outcome, lock_token(session, name, NULL), "held");
    } else if (is_command(command, "inspect")) {
        inspect(name, outcome);
    } else if (is_command(command, "notice")) {
        notice(time_of(words[1]), outcome);
    } else if (is_command(command, "state")) {
        say_status(outcome, lock_check(session), "alive");
    } else if (is_command(command, "certain")) {
        say_status(outcome, lock_wait_certain(session, time_of(words[1])), "alive");
    } else if (is_command(command, "cancel")) {
        say_status(outcome, lock_cancel(session), "ok");
    } else if (is_command(command, "close")) {
        /* Not lock_close, as in connect_session. */
        say_status(outcome, lock_end(session), "ok");
    }
}

int main(void) {
    return converse("can message unix tls secret several wait limit-wait shared limit convert set token orphaned\n"
                    "can check inspect background cancel fork notice bounded deadlock names resume\n"
                    "cannot zero-byte a zero byte ends a name in C",
                    carry_out);
}
