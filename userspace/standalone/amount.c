// SPDX-License-Identifier: BSD-2-Clause
#include "standalone/amount.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static const char *const period_names[PERIODS] = {"ever", "day", "month"};

static const struct {
	const char *name;
	uint64_t bytes;
} units[] = {
	{"", 1},
	{"B", 1},
	{"kB", 1000},
	{"MB", 1000000},
	{"GB", 1000000000},
	{"TB", 1000000000000},
	{"PB", 1000000000000000},
	{"KiB", 1ULL << 10},
	{"MiB", 1ULL << 20},
	{"GiB", 1ULL << 30},
	{"TiB", 1ULL << 40},
	{"PiB", 1ULL << 50},
};

const char *period_name(enum period period)
{
	return period_names[period];
}

int period_parse(const char *text, enum period *ret_period)
{
	for (enum period period = 0; period < PERIODS; period++) {
		if (strcmp(text, period_names[period]) != 0)
			continue;
		*ret_period = period;
		return 0;
	}
	return -EINVAL;
}

static int parse_unit(const char *text, size_t length, uint64_t *ret_bytes)
{
	for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
		if (strlen(units[i].name) != length || strncasecmp(units[i].name, text, length) != 0)
			continue;
		*ret_bytes = units[i].bytes;
		return 0;
	}
	return -EINVAL;
}

/* Digits with at most one point between them: the number is digits / scale. Returns what stands behind, or
 * NULL. */
static const char *parse_decimal(const char *text, unsigned __int128 *ret_digits, uint64_t *ret_scale)
{
	unsigned __int128 digits = 0;
	uint64_t scale = 1;
	bool point = false;

	for (; isdigit((unsigned char)*text) || (*text == '.' && !point); text++) {
		if (*text == '.') {
			point = true;
			if (!isdigit((unsigned char)text[1]))
				return NULL;
			continue;
		}
		if (digits > UINT64_MAX || scale >= 1000000000000000000ULL)
			return NULL;
		digits = digits * 10 + (unsigned)(*text - '0');
		if (point)
			scale *= 10;
	}
	*ret_digits = digits;
	*ret_scale = scale;
	return text;
}

int amount_parse(const char *text, struct amount *ret_amount)
{
	unsigned __int128 digits, bytes;
	enum period period = PERIOD_EVER;
	uint64_t scale, unit;
	const char *rest;
	size_t length;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	rest = parse_decimal(text, &digits, &scale);
	if (!rest)
		return -EINVAL;
	rest += *rest == ' ';
	length = strcspn(rest, "/");
	if (parse_unit(rest, length, &unit) < 0)
		return -EINVAL;
	if (rest[length] == '/' && (period_parse(rest + length + 1, &period) < 0 || period == PERIOD_EVER))
		return -EINVAL;
	bytes = digits * unit;
	if (bytes % scale != 0)
		return -EINVAL;
	if (bytes / scale > INT64_MAX)
		return -ERANGE;
	*ret_amount = (struct amount){.bytes = (uint64_t)(bytes / scale), .period = period};
	return 0;
}

static int64_t shifted_start(enum period period, int64_t utc_ns, int shift)
{
	time_t seconds = (time_t)(utc_ns / NSEC_PER_SEC);
	struct tm time;

	gmtime_r(&seconds, &time);
	time.tm_hour = time.tm_min = time.tm_sec = 0;
	if (period == PERIOD_MONTH) {
		time.tm_mday = 1;
		time.tm_mon += shift;
	} else {
		time.tm_mday += shift;
	}
	return (int64_t)timegm(&time) * NSEC_PER_SEC;
}

int64_t period_start(enum period period, int64_t utc_ns)
{
	return period == PERIOD_EVER ? 0 : shifted_start(period, utc_ns, 0);
}

int64_t period_end(enum period period, int64_t utc_ns)
{
	return period == PERIOD_EVER ? INT64_MAX : shifted_start(period, utc_ns, 1);
}
