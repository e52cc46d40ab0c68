// SPDX-License-Identifier: BSD-2-Clause
#include "journal/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/file.h"
#include "journal/format.h"
#include "journal/internal.h"

/* Segments that the bound has room for at least: one written, one spare, one given up, one kept. */
#define SEGMENTS_MIN 4

static int load_segment(const struct journal *journal, const struct segment *segment,
			struct content *ret_content)
{
	char name[SEGMENT_NAME_SIZE];

	return segment_load(journal->folder_fd, segment_name(segment->first, name), ret_content);
}

/*
 * Walks the records of a segment; sets its valid length and the journal's positions. A file that the disk
 * does not give back in whole is not written to again.
 */
static int scan_segment(struct journal *journal, struct segment *segment)
{
	struct content WT_CLEANUP(content_free) content = {0};
	char name[SEGMENT_NAME_SIZE];
	struct journal_header header;
	size_t size;
	int r = load_segment(journal, segment, &content);

	if (r < 0)
		return r;
	segment->bytes = 0;
	while ((size = journal_record_at(content.data + segment->bytes, content.size - segment->bytes,
					 journal->next_sequence, segment->last_crc, &header)) > 0) {
		if (header.kind == JOURNAL_ACK)
			memcpy(&journal->acknowledged, content.data + segment->bytes + sizeof(header),
			       sizeof(journal->acknowledged));
		segment->bytes += size;
		segment->last_crc = header.crc;
		journal->next_sequence++;
	}
	if (content.is_unreadable)
		r = segment_replace(journal->folder_fd, segment_name(segment->first, name), &content,
				    segment->bytes);
	return r;
}

/* What stands behind an invalid record cannot be told from invention: it is kept, but not as a segment. */
static int set_aside(struct journal *journal, size_t from)
{
	for (size_t i = from; i < journal->list.n; i++) {
		char name[SEGMENT_NAME_SIZE], aside[SEGMENT_PATH_SIZE];

		segment_name(journal->list.segments[i].first, name);
		snprintf(aside, sizeof(aside), "%s" SEGMENT_ASIDE, name);
		if (renameat(journal->folder_fd, name, journal->folder_fd, aside) < 0)
			return -errno;
	}
	if (from == journal->list.n)
		return 0;
	journal->list.n = from;
	/* One that came back would go on with the numbers that are given anew. */
	return fsync(journal->folder_fd) < 0 ? -errno : 0;
}

static int open_last_segment(struct journal *journal)
{
	struct segment *last = last_segment(journal);
	char name[SEGMENT_NAME_SIZE];

	journal->fd = openat(journal->folder_fd, segment_name(last->first, name), O_RDWR | O_CLOEXEC);
	if (journal->fd < 0)
		return -errno;
	if (ftruncate(journal->fd, (off_t)last->bytes) < 0)
		return -errno;
	last->size = last->bytes;
	/* On a full disk the next record begins a segment of its own, or waits for space. */
	if (last->bytes < journal->segment_bytes &&
	    fallocate(journal->fd, 0, 0, (off_t)journal->segment_bytes) == 0)
		last->size = journal->segment_bytes;
	return fsync(journal->fd) < 0 ? -errno : 0;
}

static int replay(struct journal *journal)
{
	size_t valid = 0;
	int r = segment_list_read(journal->folder_fd, "", &journal->list);

	room_find_spare(journal);
	if (r < 0 || journal->list.n == 0)
		return r;
	journal->next_sequence = journal->list.segments[0].first;
	/* A segment that goes on with the next number proves that the one before is whole. */
	while (valid < journal->list.n && journal->list.segments[valid].first == journal->next_sequence) {
		r = scan_segment(journal, &journal->list.segments[valid]);
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

static void set_sizes(struct journal *journal, const struct journal_options *options)
{
	journal->segment_bytes = options->segment_bytes ? options->segment_bytes : JOURNAL_SEGMENT_BYTES;
	journal->max_bytes = options->max_bytes ? options->max_bytes : JOURNAL_MAX_BYTES;
	if (journal->max_bytes < (uint64_t)SEGMENTS_MIN * journal->segment_bytes)
		journal->max_bytes = (uint64_t)SEGMENTS_MIN * journal->segment_bytes;
}

int journal_open(const struct journal_options *options, struct journal **ret_journal)
{
	struct journal *journal = calloc(1, sizeof(*journal));
	int r;

	if (!journal)
		return -ENOMEM;
	journal->fd = -1;
	journal->next_sequence = 1;
	set_sizes(journal, options);
	r = file_make_folder(options->folder, 0700);
	if (r == 0)
		r = file_sync_folder_of(options->folder);
	journal->folder_fd = r < 0 ? -1 : open(options->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (r == 0 && journal->folder_fd < 0)
		r = -errno;
	if (r == 0 && flock(journal->folder_fd, LOCK_EX | LOCK_NB) < 0)
		r = errno == EWOULDBLOCK ? -EBUSY : -errno;
	if (r == 0)
		r = replay(journal);
	if (r == 0)
		r = segment_list_read(journal->folder_fd, SEGMENT_ASIDE, &journal->aside);
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
	free(journal->list.segments);
	free(journal->aside.segments);
	free(journal);
}

/*
 * Steps over a record that has gone bad on the disk since it was written: its checksum is what the next one
 * was written behind. Returns its size, or 0 when its length cannot be believed.
 */
static size_t step_over(const void *data, size_t available, uint64_t sequence,
			struct journal_header *ret_header)
{
	struct journal_header header;

	if (available < sizeof(header))
		return 0;
	memcpy(&header, data, sizeof(header));
	if (header.sequence != sequence || header.length > available - sizeof(header))
		return 0;
	*ret_header = header;
	return sizeof(header) + header.length;
}

static int each_of_segment(struct journal *journal, const struct segment *segment, journal_fn fn, void *data)
{
	struct content WT_CLEANUP(content_free) content = {0};
	struct journal_header header = {0};
	uint64_t sequence = segment->first;
	size_t size, end;
	int r = load_segment(journal, segment, &content);

	end = content.size < segment->bytes ? content.size : segment->bytes;
	for (size_t at = 0; r == 0 && at < end; at += size, sequence++) {
		bool is_whole;

		size = journal_record_at(content.data + at, end - at, sequence, header.crc, &header);
		is_whole = size > 0;
		if (!is_whole)
			size = step_over(content.data + at, end - at, sequence, &header);
		if (size == 0)
			break;
		if (!is_whole || header.kind == JOURNAL_ACK)
			continue;
		r = fn(&(struct journal_record){sequence, header.kind, content.data + at + sizeof(header),
						header.length, sequence <= journal->acknowledged},
		       data);
	}
	return r;
}

int journal_for_each(struct journal *journal, journal_fn fn, void *data)
{
	int r = 0;

	for (size_t i = 0; i < journal->list.n && r == 0; i++)
		r = each_of_segment(journal, &journal->list.segments[i], fn, data);
	return r;
}

/* The segment that holds a record; NULL when it is not kept. */
static const struct segment *segment_of(const struct journal *journal, uint64_t sequence)
{
	if (sequence >= journal->next_sequence)
		return NULL;
	for (size_t i = journal->list.n; i-- > 0;)
		if (journal->list.segments[i].first <= sequence)
			return &journal->list.segments[i];
	return NULL;
}

static int read_at(int fd, void *data, size_t size, size_t at)
{
	return pread(fd, data, size, (off_t)at) == (ssize_t)size ? 0 : -EIO;
}

/* Headers lead from record to record: where the one that is wanted stands, and what it was written behind. */
static int find_record(int fd, const struct segment *segment, uint64_t sequence, size_t *ret_at,
		       uint32_t *ret_before)
{
	struct journal_header header = {0};
	size_t at = 0;
	int r = 0;

	for (uint64_t number = segment->first; number < sequence && r == 0; number++) {
		if (at + sizeof(header) > segment->bytes)
			return -EIO;
		r = read_at(fd, &header, sizeof(header), at);
		at += sizeof(header) + header.length;
	}
	*ret_at = at;
	*ret_before = header.crc;
	return r;
}

/* The record at `at` with its header, allocated. */
static int load_record(int fd, const struct segment *segment, size_t at, uint64_t sequence, uint32_t before,
		       char **ret_record, struct journal_header *ret_header)
{
	struct journal_header header;
	char *record _cleanup_free_ = NULL;
	size_t size;

	if (at + sizeof(header) > segment->bytes || read_at(fd, &header, sizeof(header), at) < 0 ||
	    header.length > segment->bytes - at - sizeof(header))
		return -EIO;
	size = sizeof(header) + header.length;
	record = malloc(size);
	if (!record)
		return -ENOMEM;
	if (read_at(fd, record, size, at) < 0 ||
	    journal_record_at(record, size, sequence, before, ret_header) == 0)
		return -EIO;
	*ret_record = TAKE_PTR(record);
	return 0;
}

int journal_read(struct journal *journal, uint64_t sequence, enum journal_kind *ret_kind, char **ret_payload,
		 size_t *ret_length)
{
	const struct segment *segment = segment_of(journal, sequence);
	char name[SEGMENT_NAME_SIZE], *record _cleanup_free_ = NULL;
	_cleanup_close_ int fd = -1;
	struct journal_header header;
	uint32_t before = 0;
	size_t at = 0;
	int r;

	if (!segment)
		return -ENOENT;
	fd = openat(journal->folder_fd, segment_name(segment->first, name), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = find_record(fd, segment, sequence, &at, &before);
	if (r == 0)
		r = load_record(fd, segment, at, sequence, before, &record, &header);
	if (r < 0)
		return r;
	if (header.kind == JOURNAL_ACK)
		return -ENOENT;
	memmove(record, record + sizeof(header), header.length);
	record[header.length] = '\0';
	*ret_kind = header.kind;
	*ret_payload = TAKE_PTR(record);
	*ret_length = header.length;
	return 0;
}

static void put_record(struct journal *journal, const struct journal_entry *entry)
{
	size_t length = entry->head_length + entry->length;
	struct journal_header header = {.magic = JOURNAL_MAGIC,
					.length = (uint32_t)length,
					.sequence = journal->next_sequence + journal->write_records,
					.kind = entry->kind};
	char *to = journal->write_buffer + journal->write_length;

	if (entry->head_length)
		memcpy(to + sizeof(header), entry->head, entry->head_length);
	if (entry->length)
		memcpy(to + sizeof(header) + entry->head_length, entry->payload, entry->length);
	header.crc = journal_crc(journal->write_crc, &header, to + sizeof(header));
	memcpy(to, &header, sizeof(header));
	journal->write_length += sizeof(header) + length;
	journal->write_crc = header.crc;
	journal->write_records++;
}

/* The size of the whole append with its acknowledgement. Returns -EFBIG. */
static int measure(const struct journal_entry *entries, size_t n, size_t *ret_length)
{
	size_t length = sizeof(struct journal_header) + sizeof(uint64_t);

	for (size_t i = 0; i < n; i++) {
		if (entries[i].head_length > JOURNAL_RECORD_MAX ||
		    entries[i].length > JOURNAL_RECORD_MAX - entries[i].head_length)
			return -EFBIG;
		length += sizeof(struct journal_header) + entries[i].head_length + entries[i].length;
	}
	if (length > JOURNAL_RECORD_MAX)
		return -EFBIG;
	*ret_length = length;
	return 0;
}

/* The buffer stays for the next append: in the long run none allocates. */
static int reserve_buffer(struct journal *journal, size_t length)
{
	char *larger;

	if (length <= journal->write_size)
		return 0;
	larger = realloc(journal->write_buffer, length);
	if (!larger)
		return -ENOMEM;
	journal->write_buffer = larger;
	journal->write_size = length;
	return 0;
}

int journal_prepare(struct journal *journal, const struct journal_entry *entries, size_t n,
		    struct journal_write *ret_write)
{
	const struct segment *last;
	size_t length;
	int r;

	if (journal->write_open)
		return -EBUSY;
	r = measure(entries, n, &length);
	if (r == 0)
		r = room_for(journal, length);
	if (r == 0)
		r = reserve_buffer(journal, length);
	if (r < 0)
		return r;
	room_keep_spare(journal);
	last = last_segment(journal);
	journal->write_open = true;
	journal->write_length = 0;
	journal->write_records = 0;
	journal->write_crc = last->last_crc;
	journal->write_acknowledges = journal->acknowledged;
	if (journal->acknowledged != journal->acknowledged_durably)
		put_record(journal, &(struct journal_entry){.kind = JOURNAL_ACK,
							    .payload = &journal->acknowledged,
							    .length = sizeof(journal->acknowledged)});
	*ret_write = (struct journal_write){.fd = journal->fd,
					    .data = journal->write_buffer,
					    .offset = (off_t)last->bytes,
					    .sequence = journal->next_sequence + journal->write_records};
	for (size_t i = 0; i < n; i++)
		put_record(journal, &entries[i]);
	ret_write->length = journal->write_length;
	return 0;
}

/*
 * Part of a failed write may be on disk. Nothing ever follows it, as each record names the one before; it is
 * wiped so that it is not taken for a success after a crash, and without giving its space back if that can
 * be.
 */
static void wipe_failed(struct journal *journal, struct segment *last)
{
	if (fallocate(journal->fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)last->bytes,
		      (off_t)journal->write_length) == 0)
		return;
	if (ftruncate(journal->fd, (off_t)last->bytes) == 0 &&
	    fallocate(journal->fd, 0, 0, (off_t)last->size) < 0)
		last->size = last->bytes;
}

int journal_finish(struct journal *journal, int result)
{
	struct segment *last = last_segment(journal);

	journal->write_open = false;
	if (result < 0) {
		wipe_failed(journal, last);
		return result;
	}
	last->bytes += journal->write_length;
	last->last_crc = journal->write_crc;
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

int journal_append_entries(struct journal *journal, const struct journal_entry *entries, size_t n,
			   uint64_t *ret_first)
{
	struct journal_write write;
	int r = journal_prepare(journal, entries, n, &write);

	if (r < 0)
		return r;
	r = journal_finish(journal, write_through(&write));
	if (r == 0 && ret_first)
		*ret_first = write.sequence;
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
	if (journal->acknowledged == journal->acknowledged_durably)
		return 0;
	return journal_append_entries(journal, NULL, 0, NULL);
}

uint64_t journal_last(const struct journal *journal)
{
	return journal->next_sequence - 1;
}
