// SPDX-License-Identifier: BSD-2-Clause
#include "base/file.h"
#include "deploy/driver.h"

#include <stdarg.h>
#include <stdio.h>
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
