// SPDX-License-Identifier: BSD-2-Clause
#include "cli/up_control.h"
#include "base/file.h"
#include "cli/signals.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

const char *up_join(const char *folder, const char *name, up_path path)
{
	snprintf(path, sizeof(up_path), "%s/%s", folder, name);
	return path;
}

int up_fail(int error, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	text[strcspn(text, "\n")] = '\0';
	fprintf(stderr, "wiretoll up: %s\n", text);
	return error;
}

int up_make_folder(const char *path, uid_t uid, mode_t mode)
{
	int r = file_make_folder(path, mode);

	if (r == 0 && (chmod(path, mode) < 0 || lchown(path, uid, (gid_t)-1) < 0))
		r = -errno;
	return r < 0 ? up_fail(r, "could not make the folder %s: %s", path, strerror(-r)) : 0;
}

int up_remove_folder(const char *path)
{
	/* Out of the terminal's reach, as all that this program starts: it ends what it began. */
	const char *argv[] = {"rm", "-rf", "--one-file-system", "--", path, NULL};
	struct spawn spawn = {.argv = argv, .new_session = true};

	return spawn_run(spawn, NULL, NULL, NULL) == 0 ? 0 : up_fail(-EIO, "could not remove %s", path);
}

int up_run_api(const struct up *up, uid_t uid, const char *const *arguments, char **ret_output)
{
	up_path program;
	const char *argv[12] = {up_join(up->programs, "wiretoll-api", program)};
	struct spawn spawn = {.argv = argv, .uid = uid, .new_session = true};
	_cleanup_free_ char *error = NULL;
	int r;

	for (size_t i = 0; arguments[i] && i + 2 < ARRAY_SIZE(argv); i++)
		argv[i + 1] = arguments[i];
	r = spawn_run(spawn, NULL, ret_output, &error);
	if (r != 0)
		return up_fail(r < 0 ? r : -EIO, "wiretoll-api %s failed: %s", arguments[0],
			       r < 0 ? strerror(-r) : error);
	return 0;
}

void up_own_url(const struct up *up, char url[static 128])
{
	static const char any6[] = "[::]:", any4[] = "0.0.0.0:";
	const char *listen = up->listen[0];

	if (strncmp(listen, any6, strlen(any6)) == 0)
		snprintf(url, 128, "https://[::1]:%s", listen + strlen(any6));
	else if (strncmp(listen, any4, strlen(any4)) == 0)
		snprintf(url, 128, "https://127.0.0.1:%s", listen + strlen(any4));
	else
		snprintf(url, 128, "https://%.100s", listen);
}

void sample_say(const char *format, ...)
{
	va_list args;

	fputs("sample: ", stdout);
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
}

/* The parent's signals are blocked here, too: they are asked for between two steps. */
int sample_wait(int milliseconds)
{
	struct timespec timeout = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
	const sigset_t stops = signals_that_end();
	int number;

	do {
		number = sigtimedwait(&stops, NULL, &timeout);
	} while (number < 0 && errno == EINTR);
	return number > 0 ? -EINTR : 0;
}
