// SPDX-License-Identifier: BSD-2-Clause
/*
 * Loaded before the agent's libraries: its wall clock is off by as many nanoseconds as the file CLOCK_OFFSET
 * says, and is set when a test writes to it. The boot clock, and the kernel's own timers, stay as they are.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NSEC_PER_SEC 1000000000LL

static const volatile int64_t *open_offset(void)
{
	const char *path = getenv("CLOCK_OFFSET");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *map = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);

	if (fd >= 0)
		close(fd);
	return map == MAP_FAILED ? NULL : map;
}

int clock_gettime(clockid_t clock, struct timespec *ret_time)
{
	static int (*real)(clockid_t, struct timespec *);
	static const volatile int64_t *offset;
	int64_t ns;
	int r;

	if (!real) {
		real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
		offset = open_offset();
	}
	r = real(clock, ret_time);
	if (r != 0 || clock != CLOCK_REALTIME || !offset)
		return r;
	ns = ret_time->tv_sec * NSEC_PER_SEC + ret_time->tv_nsec + *offset;
	*ret_time = (struct timespec){ns / NSEC_PER_SEC, ns % NSEC_PER_SEC};
	return 0;
}
