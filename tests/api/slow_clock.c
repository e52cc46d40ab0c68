// SPDX-License-Identifier: BSD-2-Clause
/*
 * For LD_PRELOAD: a clock since boot that goes 100 times slower. What a program does within milliseconds of
 * it may take a busy machine seconds.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <time.h>

#define SLOWER       100
#define BEFORE       1000 /* seconds that it is ahead: the machine may have booted just now */
#define NSEC_PER_SEC 1000000000LL

int clock_gettime(clockid_t clock, struct timespec *now)
{
	int (*next)(clockid_t, struct timespec *) =
		(int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
	int r = next(clock, now);
	int64_t ns;

	if (r || clock != CLOCK_BOOTTIME)
		return r;
	ns = (now->tv_sec * NSEC_PER_SEC + now->tv_nsec) / SLOWER;
	now->tv_sec = BEFORE + ns / NSEC_PER_SEC;
	now->tv_nsec = ns % NSEC_PER_SEC;
	return 0;
}
