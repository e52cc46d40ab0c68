// SPDX-License-Identifier: BSD-2-Clause
#include "journal/segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

int segment_map(int folder_fd, const char *name, struct mapping *ret_mapping)
{
	_cleanup_close_ int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC);
	struct stat status;
	const void *data = ""; /* of an empty file, too, there is an address */

	if (fd < 0 || fstat(fd, &status) < 0)
		return -errno;
	if (status.st_size > 0) {
		data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (data == MAP_FAILED)
			return -errno;
	}
	*ret_mapping = (struct mapping){data, (size_t)status.st_size};
	return 0;
}

void mapping_close(struct mapping *mapping)
{
	if (mapping->size > 0)
		munmap((void *)mapping->data, mapping->size);
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
