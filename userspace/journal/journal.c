// SPDX-License-Identifier: BSD-2-Clause
#include "journal/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "journal/format.h"

#define SEGMENT_BYTES_DEFAULT (4u << 20)
#define SEGMENT_NAME_LENGTH   20 /* sixteen hexadecimal digits and ".wtj" */

struct segment {
	uint64_t first; /* sequence of its first record, and its name */
	size_t bytes;   /* of valid records */
};

struct journal {
	int folder_fd; /* holds the lock */
	size_t segment_bytes;
	struct segment *segments; /* oldest first; the last one is written to */
	size_t n_segments;
	int fd; /* the last segment; -1: none yet */
	uint64_t next_sequence;
	uint64_t acknowledged;
	uint64_t acknowledged_durably;
	/* The open append: an acknowledgement that is due goes in front of the record. */
	char *write_buffer;
	size_t write_length;
	uint64_t write_records;
	uint64_t write_acknowledges;
};

static const char *segment_name(uint64_t first, char buffer[static SEGMENT_NAME_LENGTH + 1])
{
	snprintf(buffer, SEGMENT_NAME_LENGTH + 1, "%016" PRIx64 ".wtj", first);
	return buffer;
}

static bool parse_segment_name(const char *name, uint64_t *ret_first)
{
	char again[SEGMENT_NAME_LENGTH + 1];
	uint64_t first;

	if (strlen(name) != SEGMENT_NAME_LENGTH || sscanf(name, "%16" SCNx64, &first) != 1)
		return false;
	if (strcmp(segment_name(first, again), name) != 0)
		return false;
	*ret_first = first;
	return true;
}

static int add_segment(struct journal *journal, uint64_t first)
{
	struct segment *larger =
		realloc(journal->segments, (journal->n_segments + 1) * sizeof(*journal->segments));

	if (!larger)
		return -ENOMEM;
	journal->segments = larger;
	larger[journal->n_segments++] = (struct segment){.first = first};
	return 0;
}

static int compare_segments(const void *a, const void *b)
{
	const struct segment *left = a, *right = b;

	return (left->first > right->first) - (left->first < right->first);
}

static int list_segments(struct journal *journal)
{
	int fd = openat(journal->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *folder = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	uint64_t first;
	int r = 0;

	if (!folder) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (entry = readdir(folder)))
		if (parse_segment_name(entry->d_name, &first))
			r = add_segment(journal, first);
	closedir(folder);
	if (journal->n_segments > 0)
		qsort(journal->segments, journal->n_segments, sizeof(*journal->segments), compare_segments);
	return r;
}

struct mapping {
	const char *data;
	size_t size;
};

static void unmap(struct mapping *mapping)
{
	if (mapping->size > 0)
		munmap((void *)mapping->data, mapping->size);
}

static int map_segment(const struct journal *journal, const struct segment *segment,
		       struct mapping *ret_mapping)
{
	char name[SEGMENT_NAME_LENGTH + 1];
	_cleanup_close_ int fd =
		openat(journal->folder_fd, segment_name(segment->first, name), O_RDONLY | O_CLOEXEC);
	struct stat status;
	void *data = NULL;

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

/* Walks the records of a segment; sets its valid length and the journal's positions. */
static int scan_segment(struct journal *journal, struct segment *segment, bool *ret_whole)
{
	struct mapping WT_CLEANUP(unmap) mapping = {0};
	struct journal_header header;
	size_t size;
	int r = map_segment(journal, segment, &mapping);

	if (r < 0)
		return r;
	segment->bytes = 0;
	while ((size = journal_record_at(mapping.data + segment->bytes, mapping.size - segment->bytes,
					 journal->next_sequence, &header)) > 0) {
		if (header.kind == JOURNAL_ACK)
			memcpy(&journal->acknowledged, mapping.data + segment->bytes + sizeof(header),
			       sizeof(journal->acknowledged));
		segment->bytes += size;
		journal->next_sequence++;
	}
	*ret_whole = segment->bytes == mapping.size;
	return 0;
}

/* What stands behind an invalid record cannot be told from invention: it is kept, but not as a segment. */
static int set_aside(struct journal *journal, size_t from)
{
	for (size_t i = from; i < journal->n_segments; i++) {
		char name[SEGMENT_NAME_LENGTH + 1], aside[SEGMENT_NAME_LENGTH + 5];

		segment_name(journal->segments[i].first, name);
		snprintf(aside, sizeof(aside), "%s.bad", name);
		if (renameat(journal->folder_fd, name, journal->folder_fd, aside) < 0)
			return -errno;
	}
	journal->n_segments = from;
	return 0;
}

static int open_last_segment(struct journal *journal)
{
	const struct segment *last = &journal->segments[journal->n_segments - 1];
	char name[SEGMENT_NAME_LENGTH + 1];

	journal->fd = openat(journal->folder_fd, segment_name(last->first, name), O_RDWR | O_CLOEXEC);
	if (journal->fd < 0)
		return -errno;
	if (ftruncate(journal->fd, (off_t)last->bytes) < 0 || fdatasync(journal->fd) < 0)
		return -errno;
	return 0;
}

static int replay(struct journal *journal)
{
	bool whole = true;
	size_t valid = 0;
	int r = list_segments(journal);

	if (r < 0 || journal->n_segments == 0)
		return r;
	journal->next_sequence = journal->segments[0].first;
	while (whole && valid < journal->n_segments) {
		if (journal->segments[valid].first != journal->next_sequence)
			break;
		r = scan_segment(journal, &journal->segments[valid], &whole);
		if (r < 0)
			return r;
		valid++;
	}
	r = set_aside(journal, valid);
	if (r < 0)
		return r;
	journal->acknowledged_durably = journal->acknowledged;
	return open_last_segment(journal);
}

int journal_open(const struct journal_options *options, struct journal **ret_journal)
{
	struct journal *journal = calloc(1, sizeof(*journal));
	int r;

	if (!journal)
		return -ENOMEM;
	journal->fd = -1;
	journal->next_sequence = 1;
	journal->segment_bytes = options->segment_bytes ? options->segment_bytes : SEGMENT_BYTES_DEFAULT;
	r = file_make_folder(options->folder, 0700);
	journal->folder_fd = r < 0 ? -1 : open(options->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r == 0 && journal->folder_fd < 0)
		r = -errno;
	if (r == 0 && flock(journal->folder_fd, LOCK_EX | LOCK_NB) < 0)
		r = errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (r == 0)
		r = replay(journal);
	if (r < 0) {
		journal_close(journal);
		return r;
	}
	*ret_journal = journal;
	return 0;
}

void journal_close(struct journal *journal)
{
	if (!journal)
		return;
	if (journal->fd >= 0)
		close(journal->fd);
	if (journal->folder_fd >= 0)
		close(journal->folder_fd);
	free(journal->write_buffer);
	free(journal->segments);
	free(journal);
}

int journal_for_each(struct journal *journal, journal_fn fn, void *data)
{
	int r = 0;

	for (size_t i = 0; i < journal->n_segments && r == 0; i++) {
		const struct segment *segment = &journal->segments[i];
		struct mapping WT_CLEANUP(unmap) mapping = {0};
		struct journal_header header;
		uint64_t sequence = segment->first;
		size_t size;

		r = map_segment(journal, segment, &mapping);
		for (size_t at = 0; r == 0 && at < segment->bytes; at += size, sequence++) {
			size = journal_record_at(mapping.data + at, segment->bytes - at, sequence, &header);
			if (size == 0)
				return -EIO;
			if (header.kind != JOURNAL_DATA)
				continue;
			r = fn(&(struct journal_record){sequence, mapping.data + at + sizeof(header),
							header.length, sequence <= journal->acknowledged},
			       data);
		}
	}
	return r;
}

/* The segment that holds a record; NULL when it is not kept. */
static const struct segment *segment_of(const struct journal *journal, uint64_t sequence)
{
	if (sequence >= journal->next_sequence)
		return NULL;
	for (size_t i = journal->n_segments; i-- > 0;)
		if (journal->segments[i].first <= sequence)
			return &journal->segments[i];
	return NULL;
}

int journal_read(struct journal *journal, uint64_t sequence, char **ret_payload, size_t *ret_length)
{
	const struct segment *segment = segment_of(journal, sequence);
	struct mapping WT_CLEANUP(unmap) mapping = {0};
	struct journal_header header;
	size_t at = 0;
	char *payload;
	int r;

	if (!segment)
		return -ENOENT;
	r = map_segment(journal, segment, &mapping);
	if (r < 0)
		return r;
	/* Headers lead from record to record; only the one that is wanted has its checksum computed. */
	for (uint64_t number = segment->first; number < sequence; number++) {
		if (at + sizeof(header) > segment->bytes)
			return -EIO;
		memcpy(&header, mapping.data + at, sizeof(header));
		at += sizeof(header) + header.length;
	}
	if (at > segment->bytes ||
	    journal_record_at(mapping.data + at, segment->bytes - at, sequence, &header) == 0)
		return -EIO;
	if (header.kind != JOURNAL_DATA)
		return -ENOENT;
	payload = malloc(header.length + 1);
	if (!payload)
		return -ENOMEM;
	memcpy(payload, mapping.data + at + sizeof(header), header.length);
	payload[header.length] = '\0';
	*ret_payload = payload;
	*ret_length = header.length;
	return 0;
}

static int begin_segment(struct journal *journal)
{
	char name[SEGMENT_NAME_LENGTH + 1];
	_cleanup_close_ int fd = openat(journal->folder_fd, segment_name(journal->next_sequence, name),
					O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int r;

	if (fd < 0)
		return -errno;
	if (fsync(journal->folder_fd) < 0)
		return -errno;
	r = add_segment(journal, journal->next_sequence);
	if (r < 0)
		return r;
	if (journal->fd >= 0)
		close(journal->fd);
	journal->fd = TAKE_FD(fd);
	return 0;
}

static void put_record(struct journal *journal, enum journal_kind kind, const void *payload, size_t length)
{
	struct journal_header header = {.magic = JOURNAL_MAGIC,
					.length = (uint32_t)length,
					.sequence = journal->next_sequence + journal->write_records,
					.kind = kind};
	char *to = journal->write_buffer + journal->write_length;

	header.crc = journal_crc(&header, payload);
	memcpy(to, &header, sizeof(header));
	memcpy(to + sizeof(header), payload, length);
	journal->write_length += sizeof(header) + length;
	journal->write_records++;
}

/* Fills the write buffer with the acknowledgement, if one is due, and the record, if there is one. */
static int prepare(struct journal *journal, const void *payload, size_t length, struct journal_write *ret)
{
	const struct segment *last;
	int r;

	if (journal->write_buffer)
		return -EBUSY;
	if (length > JOURNAL_RECORD_MAX)
		return -EFBIG;
	last = journal->n_segments ? &journal->segments[journal->n_segments - 1] : NULL;
	if (!last || last->bytes >= journal->segment_bytes) {
		r = begin_segment(journal);
		if (r < 0)
			return r;
		last = &journal->segments[journal->n_segments - 1];
	}
	journal->write_buffer = malloc(2 * sizeof(struct journal_header) + sizeof(uint64_t) + length);
	if (!journal->write_buffer)
		return -ENOMEM;
	journal->write_length = 0;
	journal->write_records = 0;
	journal->write_acknowledges = journal->acknowledged;
	if (journal->acknowledged != journal->acknowledged_durably)
		put_record(journal, JOURNAL_ACK, &journal->acknowledged, sizeof(journal->acknowledged));
	if (payload)
		put_record(journal, JOURNAL_DATA, payload, length);
	*ret = (struct journal_write){journal->fd, journal->write_buffer, journal->write_length,
				      (off_t)last->bytes,
				      journal->next_sequence + journal->write_records - 1};
	return 0;
}

int journal_prepare(struct journal *journal, const void *payload, size_t length,
		    struct journal_write *ret_write)
{
	return prepare(journal, payload ? payload : "", length, ret_write);
}

int journal_finish(struct journal *journal, int result)
{
	struct segment *last = &journal->segments[journal->n_segments - 1];

	free(TAKE_PTR(journal->write_buffer));
	if (result < 0) {
		/* Part of it may be on disk; the next record must not follow behind a torn one. */
		if (ftruncate(journal->fd, (off_t)last->bytes) < 0)
			return -errno;
		return result;
	}
	last->bytes += journal->write_length;
	journal->next_sequence += journal->write_records;
	journal->acknowledged_durably = journal->write_acknowledges;
	return 0;
}

static int write_through(const struct journal_write *write)
{
	size_t done = 0;

	while (done < write->length) {
		ssize_t written = pwrite(write->fd, (const char *)write->data + done, write->length - done,
					 write->offset + (off_t)done);

		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return -errno;
		done += (size_t)written;
	}
	return fdatasync(write->fd) < 0 ? -errno : 0;
}

int journal_append(struct journal *journal, const void *payload, size_t length, uint64_t *ret_sequence)
{
	struct journal_write write;
	int r = journal_prepare(journal, payload, length, &write);

	if (r < 0)
		return r;
	r = journal_finish(journal, write_through(&write));
	if (r == 0 && ret_sequence)
		*ret_sequence = write.sequence;
	return r;
}

void journal_acknowledge(struct journal *journal, uint64_t sequence)
{
	if (sequence > journal->acknowledged && sequence < journal->next_sequence)
		journal->acknowledged = sequence;
}

void journal_acknowledge_all(struct journal *journal)
{
	journal_acknowledge(journal, journal->next_sequence - 1);
}

int journal_flush(struct journal *journal)
{
	struct journal_write write;
	int r;

	if (journal->acknowledged == journal->acknowledged_durably)
		return 0;
	r = prepare(journal, NULL, 0, &write);
	if (r < 0)
		return r;
	return journal_finish(journal, write_through(&write));
}

uint64_t journal_acknowledged(const struct journal *journal)
{
	return journal->acknowledged;
}

int journal_expire(struct journal *journal, int64_t before_utc_ns)
{
	size_t expired = 0;
	int r = 0;

	/* The last segment stays: it holds the sequence. */
	while (expired + 1 < journal->n_segments) {
		char name[SEGMENT_NAME_LENGTH + 1];
		struct stat status;

		if (journal->segments[expired + 1].first > journal->acknowledged + 1)
			break;
		segment_name(journal->segments[expired].first, name);
		if (fstatat(journal->folder_fd, name, &status, 0) < 0 ||
		    status.st_mtim.tv_sec * NSEC_PER_SEC + status.st_mtim.tv_nsec >= before_utc_ns)
			break;
		if (unlinkat(journal->folder_fd, name, 0) < 0) {
			r = -errno;
			break;
		}
		expired++;
	}
	journal->n_segments -= expired;
	memmove(journal->segments, journal->segments + expired,
		journal->n_segments * sizeof(*journal->segments));
	return r;
}
