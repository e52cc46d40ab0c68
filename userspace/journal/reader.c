// SPDX-License-Identifier: BSD-2-Clause
#include "journal/reader.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "journal/format.h"

/* A record at the very end may be half written: it is looked at again before it is called a fault. */
#define LOOKS   10
#define LOOK_NS (20 * 1000000L)

struct reader {
	int folder_fd;
	reader_fn fn;
	void *data;
	uint64_t next; /* sequence; 0: any */
	struct reader_fault *fault;
};

static int fault(struct reader *reader, const char *segment, size_t offset, const char *reason)
{
	*reader->fault = (struct reader_fault){.offset = offset, .reason = reason};
	snprintf(reader->fault->segment, sizeof(reader->fault->segment), "%s", segment);
	return -EBADMSG;
}

static bool is_empty(const char *data, size_t size)
{
	return size == 0 || (data[0] == 0 && memcmp(data, data + 1, size - 1) == 0);
}

/* The records from `at` on. 0: the end is reached, and it is empty; -EBADMSG: *at is where it goes wrong. */
static int read_records(struct reader *reader, const char *name, const struct content *content, size_t *at,
			uint32_t *crc)
{
	struct journal_header header;
	size_t size;
	int r = 0;

	while (r == 0 && (size = journal_record_at(content->data + *at, content->size - *at, reader->next,
						   *crc, &header)) > 0) {
		r = reader->fn(&(struct reader_record){name, *at, header.sequence, header.kind, header.crc,
						       content->data + *at + sizeof(header), header.length},
			       reader->data);
		*at += size;
		*crc = header.crc;
		reader->next++;
	}
	if (r != 0)
		return r;
	return is_empty(content->data + *at, content->size - *at) ? 0 : -EBADMSG;
}

static int read_segment(struct reader *reader, uint64_t first, bool last)
{
	const struct timespec pause = {.tv_nsec = LOOK_NS};
	char name[SEGMENT_NAME_SIZE];
	uint32_t crc = 0;
	size_t at = 0;
	int r = -EBADMSG;

	segment_name(first, name);
	if (reader->next == 0)
		reader->next = first;
	if (first != reader->next)
		return fault(reader, name, 0, "records are left out before it");
	for (int look = 0; r == -EBADMSG && look < (last ? LOOKS : 1); look++) {
		struct content WT_CLEANUP(content_free) content = {0};

		if (look > 0)
			nanosleep(&pause, NULL);
		r = segment_load(reader->folder_fd, name, &content);
		if (r == 0)
			r = read_records(reader, name, &content, &at, &crc);
	}
	return r == -EBADMSG ? fault(reader, name, at, "no whole and valid record") : r;
}

static int read_folder(struct reader *reader)
{
	struct segment_list list = {0};
	int r = segment_list_read(reader->folder_fd, "", &list);

	if (r == 0 && list.n == 0)
		r = -ENOENT;
	for (size_t i = 0; i < list.n && r == 0; i++) {
		r = read_segment(reader, list.segments[i].first, i + 1 == list.n);
		/* Given up by its writer since it was listed. */
		if (r == -ENOENT && i + 1 < list.n) {
			reader->next = 0;
			r = 0;
		}
	}
	free(list.segments);
	return r;
}

int journal_inspect(const char *path, reader_fn fn, void *data, struct reader_fault *ret_fault)
{
	struct reader reader = {.folder_fd = -1, .fn = fn, .data = data, .fault = ret_fault};
	char folder[PATH_MAX], name[PATH_MAX];
	struct stat status;
	uint64_t first = 0;
	bool is_folder;
	int r;

	if (stat(path, &status) < 0)
		return -errno;
	if (snprintf(folder, sizeof(folder), "%s", path) >= (int)sizeof(folder))
		return -ENAMETOOLONG;
	memcpy(name, folder, sizeof(name));
	is_folder = S_ISDIR(status.st_mode);
	if (!is_folder && !segment_name_parse(basename(name), &first))
		return -EINVAL;
	reader.folder_fd = open(is_folder ? folder : dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (reader.folder_fd < 0)
		return -errno;
	r = is_folder ? read_folder(&reader) : read_segment(&reader, first, true);
	close(reader.folder_fd);
	return r;
}
