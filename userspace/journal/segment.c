// SPDX-License-Identifier: BSD-2-Clause
#include "journal/segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"

const char *segment_name(uint64_t first, char buffer[static SEGMENT_NAME_SIZE])
{
	snprintf(buffer, SEGMENT_NAME_SIZE, "%016" PRIx64 ".wtj", first);
	return buffer;
}

bool segment_name_parse(const char *name, uint64_t *ret_first)
{
	char again[SEGMENT_NAME_SIZE];
	uint64_t first;

	if (strlen(name) != SEGMENT_NAME_SIZE - 1 || sscanf(name, "%16" SCNx64, &first) != 1)
		return false;
	if (strcmp(segment_name(first, again), name) != 0)
		return false;
	*ret_first = first;
	return true;
}

int segment_list_add(struct segment_list *list, const struct segment *segment)
{
	struct segment *larger = realloc(list->segments, (list->n + 1) * sizeof(*list->segments));

	if (!larger)
		return -ENOMEM;
	list->segments = larger;
	larger[list->n++] = *segment;
	return 0;
}

static int compare_segments(const void *a, const void *b)
{
	const struct segment *left = a, *right = b;

	return (left->first > right->first) - (left->first < right->first);
}

int segment_list_drop_oldest(int folder_fd, const char *ending, struct segment_list *list)
{
	char name[SEGMENT_NAME_SIZE], path[SEGMENT_PATH_SIZE];

	snprintf(path, sizeof(path), "%s%s", segment_name(list->segments[0].first, name), ending);
	if (unlinkat(folder_fd, path, 0) < 0)
		return -errno;
	list->n--;
	memmove(list->segments, list->segments + 1, list->n * sizeof(*list->segments));
	return 0;
}

static int add_entry(int folder_fd, const char *name, const char *ending, struct segment_list *list)
{
	char without[SEGMENT_NAME_SIZE];
	struct segment segment = {0};
	struct stat status;

	if (strlen(name) < SEGMENT_NAME_SIZE - 1 || strcmp(name + SEGMENT_NAME_SIZE - 1, ending) != 0)
		return 0;
	snprintf(without, sizeof(without), "%s", name);
	if (!segment_name_parse(without, &segment.first))
		return 0;
	if (fstatat(folder_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	segment.size = (size_t)status.st_size;
	return segment_list_add(list, &segment);
}

int segment_list_read(int folder_fd, const char *ending, struct segment_list *ret_list)
{
	int fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	struct segment_list list = {0};
	struct dirent *entry;
	int r = 0;

	if (!folder) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (entry = readdir(folder)))
		r = add_entry(folder_fd, entry->d_name, ending, &list);
	closedir(folder);
	if (r < 0) {
		free(list.segments);
		return r;
	}
	if (list.n > 0)
		qsort(list.segments, list.n, sizeof(*list.segments), compare_segments);
	*ret_list = list;
	return 0;
}

static size_t size_of_page(size_t at, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), end = (at / page + 1) * page;

	return (end < size ? end : size) - at;
}

int segment_load(int folder_fd, const char *name, struct content *ret_content)
{
	_cleanup_close_ int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC);
	struct content content = {0};
	struct stat status;
	size_t size;
	ssize_t got;

	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	size = (size_t)status.st_size;
	content.data = calloc(1, size + 1);
	if (!content.data)
		return -ENOMEM;
	while (content.size < size) {
		got = pread(fd, content.data + content.size, size - content.size, (off_t)content.size);
		if (got < 0 && errno == EIO) {
			content.is_unreadable = true;
			got = (ssize_t)size_of_page(content.size, size);
		}
		if (got < 0) {
			int r = -errno;

			free(content.data);
			return r;
		}
		if (got == 0)
			break;
		content.size += (size_t)got;
	}
	*ret_content = content;
	return 0;
}

void content_free(struct content *content)
{
	free(content->data);
}

int segment_replace(int folder_fd, const char *name, const struct content *content, size_t size)
{
	_cleanup_close_ int fd =
		openat(folder_fd, SEGMENT_RESCUED, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = fd < 0 ? -errno : file_write_all(fd, content->data, size);

	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(folder_fd, SEGMENT_RESCUED, folder_fd, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(folder_fd, SEGMENT_RESCUED, 0);
	return r == 0 && fsync(folder_fd) < 0 ? -errno : r;
}

int segment_allocate(int folder_fd, const char *name, size_t size)
{
	_cleanup_close_ int fd = openat(folder_fd, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r = 0;

	if (fd < 0)
		return -errno;
	/* A file system that cannot allocate has the space taken as it is written. */
	if (fallocate(fd, 0, 0, (off_t)size) < 0 && errno != EOPNOTSUPP)
		r = -errno;
	/* Its size is on the disk before a record relies on it. */
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(folder_fd, name, 0);
	return r;
}
