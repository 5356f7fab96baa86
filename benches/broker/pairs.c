/* Acquires and releases 64 names in turn, and prints the nanoseconds for a pair: the minimum over 20 runs of 1,024
 * pairs, as in the Rust program. */
#include <lockd.h>

#include <stdio.h>
#include <time.h>

enum { NAMES = 64, PAIRS = 1024, TIMES = 20 };

static char names[NAMES][23];

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e9 + time.tv_nsec;
}

static int pairs(lock_session *session)
{
	for (int n = 0; n < PAIRS; n++) {
		const char *name = names[n % NAMES];
		if (lock_acquire(session, name, LOCK_EXCLUSIVE, -1, NULL) != LOCK_OK)
			return -1;
		if (lock_release(session, name) != LOCK_OK)
			return -1;
	}
	return 0;
}

int main(void)
{
	lock_session *session = lock_open(NULL, NULL);
	double least = 1e9;

	for (int n = 0; n < NAMES; n++)
		snprintf(names[n], sizeof names[n], "f%0*d", 9 + n % 13, n);
	for (int n = 0; n < TIMES; n++) {
		double start = now();
		if (pairs(session) != 0) {
			fprintf(stderr, "%s\n", lock_last_error());
			return 1;
		}
		double taken = (now() - start) / PAIRS;
		if (taken < least)
			least = taken;
	}
	printf("%.2f\n", least);
	lock_close(session);
	return 0;
}
