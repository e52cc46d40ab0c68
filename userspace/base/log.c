// SPDX-License-Identifier: BSD-2-Clause
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *program_name = "wiretoll";
static enum log_level max_level = LOG_LEVEL_INFO;
static bool under_journald;

static const struct {
	enum log_level level;
	const char *name;
} level_names[] = {
	{LOG_LEVEL_ERROR, "error"},
	{LOG_LEVEL_WARNING, "warning"},
	{LOG_LEVEL_INFO, "info"},
	{LOG_LEVEL_DEBUG, "debug"},
};

void log_setup(const char *program, enum log_level level)
{
	program_name = program;
	max_level = level;
	under_journald = getenv("JOURNAL_STREAM") != NULL;
}

int log_level_parse(const char *text, enum log_level *ret_level)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++)
		if (strcmp(text, level_names[i].name) == 0) {
			*ret_level = level_names[i].level;
			return 0;
		}
	return -EINVAL;
}

static const char *level_name(enum log_level level)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++)
		if (level_names[i].level == level)
			return level_names[i].name;
	return "log";
}

void log_write(enum log_level level, const char *format, ...)
{
	int saved_errno = errno;
	char line[2048];
	size_t used = 0;
	va_list args;
	int written;

	if (level > max_level)
		return;
	if (under_journald) {
		written = snprintf(line, sizeof(line), "<%d>", level);
	} else {
		struct timespec now;
		struct tm utc;
		char stamp[32];

		clock_gettime(CLOCK_REALTIME, &now);
		gmtime_r(&now.tv_sec, &utc);
		strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
		written = snprintf(line, sizeof(line), "%s.%03ldZ %s[%d] %s: ", stamp, now.tv_nsec / 1000000,
				   program_name, (int)getpid(), level_name(level));
	}
	used = (size_t)written;

	va_start(args, format);
	written = vsnprintf(line + used, sizeof(line) - used - 1, format, args);
	va_end(args);
	if (written > 0)
		used += (size_t)written;
	if (used > sizeof(line) - 2)
		used = sizeof(line) - 2;
	line[used++] = '\n';

	/* One write per line, so that lines of several processes on one stream do not mix. */
	ssize_t ignored = write(STDERR_FILENO, line, used);
	(void)ignored;
	errno = saved_errno;
}
