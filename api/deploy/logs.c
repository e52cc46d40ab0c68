// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/logs.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int log_file_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);

	return fd < 0 ? -errno : fd;
}

bool log_file_is_full(const char *path)
{
	struct stat status;

	return lstat(path, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > LOG_MAX;
}

static ssize_t read_end(int fd, char *text)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return -errno;

	ssize_t got = pread(fd, text, LOG_MAX, status.st_size > LOG_MAX ? status.st_size - LOG_MAX : 0);

	return got < 0 ? -errno : got;
}

int log_file_rotate(const char *path)
{
	_cleanup_close_ int fd = log_file_open(path);
	_cleanup_free_ char *text = malloc(LOG_MAX);
	char before[PATH_MAX];
	ssize_t length;
	int r;

	if (fd < 0)
		return fd;
	if (!text)
		return -ENOMEM;
	length = read_end(fd, text);
	if (length < 0)
		return (int)length;
	snprintf(before, sizeof(before), "%s.1", path);
	r = file_replace(before, text, (size_t)length, 0600);
	/* Emptied, not renamed: the program has it open. */
	return r == 0 && ftruncate(fd, 0) < 0 ? -errno : r;
}
