// SPDX-License-Identifier: BSD-2-Clause
#include "base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define NSEC_PER_HOUR (3600 * NSEC_PER_SEC)

static int64_t read_clock(clockid_t id)
{
	struct timespec now;

	clock_gettime(id, &now);
	return now.tv_sec * NSEC_PER_SEC + now.tv_nsec;
}

int64_t clock_boot_ns(void)
{
	return read_clock(CLOCK_BOOTTIME);
}

int64_t clock_utc_ns(void)
{
	return read_clock(CLOCK_REALTIME);
}

const char *clock_format(int64_t utc_ns, char *buffer)
{
	time_t seconds = (time_t)(utc_ns / NSEC_PER_SEC);
	int64_t rest = utc_ns % NSEC_PER_SEC;
	struct tm utc;

	if (rest < 0) {
		seconds--;
		rest += NSEC_PER_SEC;
	}
	gmtime_r(&seconds, &utc);
	size_t used = strftime(buffer, CLOCK_TEXT_SIZE, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(buffer + used, CLOCK_TEXT_SIZE - used, ".%06dZ", (int)(rest / 1000));
	return buffer;
}

int clock_parse(const char *text, int64_t *ret_utc_ns)
{
	struct tm utc = {0};
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &utc);
	int64_t fraction = 0, scale = NSEC_PER_SEC, utc_ns;

	if (!rest)
		return -EINVAL;
	if (*rest == '.') {
		for (rest++; *rest >= '0' && *rest <= '9' && scale > 1; rest++) {
			scale /= 10;
			fraction += (*rest - '0') * scale;
		}
	}
	if (strcmp(rest, "Z") != 0)
		return -EINVAL;
	/* Years from 2262 on do not fit. */
	if (__builtin_mul_overflow((int64_t)timegm(&utc), NSEC_PER_SEC, &utc_ns) ||
	    __builtin_add_overflow(utc_ns, fraction, &utc_ns))
		return -EINVAL;
	*ret_utc_ns = utc_ns;
	return 0;
}

int64_t clock_hour_start(int64_t utc_ns)
{
	int64_t into_hour = utc_ns % NSEC_PER_HOUR;

	return utc_ns - (into_hour < 0 ? into_hour + NSEC_PER_HOUR : into_hour);
}
