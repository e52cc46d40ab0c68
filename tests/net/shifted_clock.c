// SPDX-License-Identifier: BSD-2-Clause
/*
 * For LD_PRELOAD: the wall clock of one process, as many nanoseconds ahead as WALL_CLOCK_AHEAD_NS says. The
 * clock since boot, which the kernel goes by, stays what it is.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int (*next)(clockid_t, struct timespec *) =
		(int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	const char *ahead = getenv("WALL_CLOCK_AHEAD_NS");
	int r = next(clock, now);
	long long ns;

	if (r || clock != CLOCK_REALTIME || !ahead)
		return r;
	ns = now->tv_nsec + strtoll(ahead, NULL, 10);
	now->tv_sec += ns / 1000000000;
	now->tv_nsec = ns % 1000000000;
	if (now->tv_nsec < 0) {
		now->tv_nsec += 1000000000;
		now->tv_sec--;
	}
	return 0;
}
