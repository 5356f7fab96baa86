/* Makes the clocks of a process that count time run at another rate than the machine's: CLOCK_RATE
 * thousandths of it. This changes what the process reads, and for how long it asks the kernel to wait
 * by poll, timers, sleeps and futexes. The time of day is left alone, and so are the time limits of
 * sockets.
 *
 * To be preloaded. The process must read its clocks through the C library. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static double rate = 1;
/* What the machine's clocks showed when the process began. */
static long long began_monotonic, began_boottime;

static long (*real_syscall)(long, ...);
static int (*real_timer_settime)(timer_t, int, const struct itimerspec *, struct itimerspec *);
static int (*real_poll)(struct pollfd *, nfds_t, int);
static int (*real_ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
static int (*real_nanosleep)(clockid_t, int, const struct timespec *, struct timespec *);

static long long nanos(const struct timespec *time) { return time->tv_sec * 1000000000LL + time->tv_nsec; }

static struct timespec of_nanos(long long nanos) {
    return (struct timespec){.tv_sec = nanos / 1000000000, .tv_nsec = nanos % 1000000000};
}

static long long machine_now(clockid_t clock) {
    struct timespec time = {0};
    real_syscall(SYS_clock_gettime, clock, &time);
    return nanos(&time);
}

/* NULL for a clock that is left alone. */
static const long long *beginning_of(clockid_t clock) {
    switch (clock) {
    case CLOCK_MONOTONIC: case CLOCK_MONOTONIC_RAW: case CLOCK_MONOTONIC_COARSE: return &began_monotonic;
    case CLOCK_BOOTTIME: return &began_boottime;
    default: return NULL;
    }
}

static struct timespec machine_time(const struct timespec *shown, long long began) {
    long long since = nanos(shown) - began;
    return since <= 0 ? *shown : of_nanos(began + (long long)(since / rate));
}

static struct timespec machine_span(const struct timespec *span) {
    return of_nanos((long long)(nanos(span) / rate));
}

static void *original(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

__attribute__((constructor)) static void begin(void) {
    real_syscall = original("syscall");
    real_timer_settime = original("timer_settime");
    real_poll = original("poll");
    real_ppoll = original("ppoll");
    real_nanosleep = original("clock_nanosleep");
    const char *text = getenv("CLOCK_RATE");
    if (!text || (rate = atoi(text) / 1000.0) <= 0) abort();
    began_monotonic = machine_now(CLOCK_MONOTONIC);
    began_boottime = machine_now(CLOCK_BOOTTIME);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!real_syscall) return (int)syscall(SYS_clock_gettime, clock, time);
    const long long *began = beginning_of(clock);
    if (!began) return (int)real_syscall(SYS_clock_gettime, clock, time);
    *time = of_nanos(*began + (long long)((machine_now(clock) - *began) * rate));
    return 0;
}

int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *rest) {
    const long long *began = beginning_of(clock);
    struct timespec machine = !began ? *time : flags & TIMER_ABSTIME ? machine_time(time, *began) : machine_span(time);
    return real_nanosleep(clock, flags, &machine, rest);
}

/* lockd has timers by CLOCK_BOOTTIME only, and sets moments. */
int timer_settime(timer_t timer, int flags, const struct itimerspec *new, struct itimerspec *old) {
    if (!(flags & TIMER_ABSTIME) || new->it_interval.tv_sec || new->it_interval.tv_nsec) abort();
    struct itimerspec machine = {.it_value = machine_time(&new->it_value, began_boottime)};
    return real_timer_settime(timer, flags, &machine, old);
}

int poll(struct pollfd *descriptors, nfds_t count, int limit) {
    return real_poll(descriptors, count, limit <= 0 ? limit : (int)(limit / rate) + 1);
}

int ppoll(struct pollfd *descriptors, nfds_t count, const struct timespec *limit, const sigset_t *signals) {
    struct timespec machine;
    if (limit) machine = machine_span(limit);
    return real_ppoll(descriptors, count, limit ? &machine : NULL, signals);
}

/* Waits of threads for each other are system calls without a function of their own. */
long syscall(long number, ...) {
    if (!real_syscall) real_syscall = original("syscall");
    va_list arguments;
    long a[6];
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(arguments, long);
    va_end(arguments);
    struct timespec machine;
    int command = number == SYS_futex ? (int)a[1] & FUTEX_CMD_MASK : -1;
    if (command == FUTEX_WAIT && a[3]) {
        machine = machine_span((const struct timespec *)a[3]);
        a[3] = (long)&machine;
    } else if (command == FUTEX_WAIT_BITSET && a[3] && !(a[1] & FUTEX_CLOCK_REALTIME)) {
        /* It names a moment. */
        machine = machine_time((const struct timespec *)a[3], began_monotonic);
        a[3] = (long)&machine;
    }
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
