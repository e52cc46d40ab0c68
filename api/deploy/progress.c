// SPDX-License-Identifier: BSD-2-Clause
#include "base/file.h"
#include "base/json.h"
#include "deploy/driver.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One line a message: its kind, then its text. */
static void tell(const struct deploy_progress *progress, char kind, const char *text)
{
	char line[600];
	int length;

	if (progress->fd < 0)
		return;
	length = snprintf(line, sizeof(line) - 1, "%c%s", kind, text);
	if (length >= (int)sizeof(line) - 1)
		length = (int)sizeof(line) - 2;
	for (int i = 0; i < length; i++)
		if (line[i] == '\n')
			line[i] = ' ';
	line[length++] = '\n';
	/* Without a reader the worker is gone, and this process with it. */
	if (file_write_all(progress->fd, line, (size_t)length) < 0)
		return;
}

void progress_step(struct deploy_progress *progress, const char *step)
{
	snprintf(progress->step, sizeof(progress->step), "%s", step);
	tell(progress, 'S', step);
}

void progress_refused(const char *what, const char *reason, void *progress)
{
	_cleanup_json_ json_t *entry = json_pack("{s:s, s:s}", "what", what, "reason", reason);
	_cleanup_free_ char *text = entry ? json_dumps(entry, JSON_COMPACT) : NULL;

	if (text)
		tell(progress, 'R', text);
}

int progress_fail(struct deploy_progress *progress, int error, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	tell(progress, 'E', text);
	return error;
}
