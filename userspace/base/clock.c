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

int64_t clock_cpu_ns(void)
{
	return read_clock(CLOCK_THREAD_CPUTIME_ID);
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

/* Two or four digits, and the character behind them. */
static bool take_number(const char **text, int digits, char behind, int *ret_number)
{
	int number = 0;

	for (int i = 0; i < digits; i++, (*text)++) {
		if (**text < '0' || **text > '9')
			return false;
		number = number * 10 + (**text - '0');
	}
	*ret_number = number;
	if (behind && *(*text)++ != behind)
		return false;
	return true;
}

/* timegm() takes the 30th of February for the 2nd of March: what it changes was no date. */
static bool is_date(const struct tm *utc)
{
	struct tm normal = *utc;

	timegm(&normal);
	return normal.tm_year == utc->tm_year && normal.tm_mon == utc->tm_mon &&
	       normal.tm_mday == utc->tm_mday && normal.tm_hour == utc->tm_hour &&
	       normal.tm_min == utc->tm_min && normal.tm_sec == utc->tm_sec;
}

static bool take_fraction(const char **text, int64_t *ret_ns)
{
	int64_t scale = NSEC_PER_SEC;

	*ret_ns = 0;
	if (**text != '.')
		return true;
	for ((*text)++; **text >= '0' && **text <= '9' && scale > 1; (*text)++) {
		scale /= 10;
		*ret_ns += (**text - '0') * scale;
	}
	return scale < NSEC_PER_SEC;
}

int clock_parse(const char *text, int64_t *ret_utc_ns)
{
	struct tm utc = {0};
	int64_t fraction, utc_ns;
	int year, month;

	if (!take_number(&text, 4, '-', &year) || !take_number(&text, 2, '-', &month) ||
	    !take_number(&text, 2, 'T', &utc.tm_mday) || !take_number(&text, 2, ':', &utc.tm_hour) ||
	    !take_number(&text, 2, ':', &utc.tm_min) || !take_number(&text, 2, '\0', &utc.tm_sec) ||
	    !take_fraction(&text, &fraction) || strcmp(text, "Z") != 0)
		return -EINVAL;
	utc.tm_year = year - 1900;
	utc.tm_mon = month - 1;
	if (!is_date(&utc))
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
