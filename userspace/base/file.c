// SPDX-License-Identifier: BSD-2-Clause
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_read(const char *path, size_t max, char **ret_text, size_t *ret_length)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0, size = 4096;
	char *text;

	if (fd < 0)
		return -errno;
	text = malloc(size);
	if (!text)
		return -ENOMEM;
	for (;;) {
		ssize_t got = read(fd, text + used, size - used - 1);
		int error = errno;

		if (got < 0 && error == EINTR)
			continue;
		if (got < 0 || used + (size_t)got > max) {
			sodium_memzero(text, size);
			free(text);
			return got < 0 ? -error : -EFBIG;
		}
		used += (size_t)got;
		if (got == 0)
			break;
		if (used == size - 1) {
			/* Not realloc(): the file may hold a secret, and a moved block would stay behind. */
			char *larger = malloc(size * 2);

			if (larger)
				memcpy(larger, text, used);
			sodium_memzero(text, size);
			free(text);
			if (!larger)
				return -ENOMEM;
			text = larger;
			size *= 2;
		}
	}
	text[used] = '\0';
	*ret_text = text;
	if (ret_length)
		*ret_length = used;
	return 0;
}

int file_write_all(int fd, const void *data, size_t length)
{
	const char *next = data;

	while (length > 0) {
		ssize_t written = write(fd, next, length);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return -errno;
		next += written;
		length -= (size_t)written;
	}
	return 0;
}

int file_sync_folder_of(const char *path)
{
	char copy[PATH_MAX];

	snprintf(copy, sizeof(copy), "%s", path);

	_cleanup_close_ int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

int file_replace(const char *path, const void *data, size_t length, mode_t mode)
{
	char temporary[PATH_MAX];
	int r;

	if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
		return -ENAMETOOLONG;
	/* What an earlier crash left may have another owner or mode: begin with a file of our own. */
	if (unlink(temporary) < 0 && errno != ENOENT)
		return -errno;

	_cleanup_close_ int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	r = fchmod(fd, mode) < 0 ? -errno : file_write_all(fd, data, length);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && rename(temporary, path) < 0)
		r = -errno;
	if (r < 0) {
		unlink(temporary);
		return r;
	}
	return file_sync_folder_of(path);
}

int file_make_folder(const char *path, mode_t mode)
{
	char partial[PATH_MAX];
	size_t length = strlen(path);

	if (length == 0)
		return -EINVAL;
	if (length >= sizeof(partial))
		return -ENAMETOOLONG;
	memcpy(partial, path, length + 1);
	for (char *slash = strchr(partial + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(partial, 0755) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(path, mode) < 0 && errno != EEXIST ? -errno : 0;
}
