// SPDX-License-Identifier: BSD-2-Clause
/* Space: segments begin, are given up and expire, within the bound. */
#include "journal/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"

static uint64_t bytes_of(const struct segment_list *list, size_t from)
{
	uint64_t bytes = 0;

	for (size_t i = from; i < list->n; i++)
		bytes += list->segments[i].size;
	return bytes;
}

static uint64_t bytes_taken(const struct journal *journal)
{
	return journal->spare_bytes + bytes_of(&journal->list, 0) + bytes_of(&journal->aside, 0);
}

/* Whether all records of the oldest segment are acknowledged. The last one stays: it holds the sequence. */
static bool oldest_is_acknowledged(const struct journal *journal)
{
	return journal->list.n > 1 && journal->list.segments[1].first <= journal->acknowledged + 1;
}

/* Gives up what is needed least: what cannot be read, then what is acknowledged. -ENOSPC: there is nothing.
 */
static int give_up_oldest(struct journal *journal)
{
	if (journal->aside.n > 0)
		return segment_list_drop_oldest(journal->folder_fd, SEGMENT_ASIDE, &journal->aside);
	if (oldest_is_acknowledged(journal))
		return segment_list_drop_oldest(journal->folder_fd, "", &journal->list);
	return -ENOSPC;
}

/* Within the bound and the disk's space. */
static int allocate(struct journal *journal, const char *name, size_t size)
{
	int r;

	do {
		r = -ENOSPC;
		if (bytes_taken(journal) + size <= journal->max_bytes)
			r = segment_allocate(journal->folder_fd, name, size);
		if (r != -ENOSPC)
			return r;
		r = give_up_oldest(journal);
	} while (r == 0);
	return r;
}

void room_find_spare(struct journal *journal)
{
	struct stat status;

	unlinkat(journal->folder_fd, SEGMENT_RESCUED, 0);
	if (fstatat(journal->folder_fd, SEGMENT_SPARE, &status, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	/* Of another size, or one whose maker was interrupted. */
	if ((size_t)status.st_size == journal->segment_bytes)
		journal->spare_bytes = journal->segment_bytes;
	else
		unlinkat(journal->folder_fd, SEGMENT_SPARE, 0);
}

void room_keep_spare(struct journal *journal)
{
	if (journal->spare_bytes == 0 && allocate(journal, SEGMENT_SPARE, journal->segment_bytes) == 0)
		journal->spare_bytes = journal->segment_bytes;
}

static int name_segment(struct journal *journal, const char *name, size_t size)
{
	if (journal->spare_bytes < size)
		return allocate(journal, name, size);
	if (renameat(journal->folder_fd, SEGMENT_SPARE, journal->folder_fd, name) < 0)
		return -errno;
	journal->spare_bytes = 0;
	return 0;
}

static int begin_segment(struct journal *journal, size_t length)
{
	struct segment segment = {.first = journal->next_sequence,
				  .size = length > journal->segment_bytes ? length : journal->segment_bytes};
	char name[SEGMENT_NAME_SIZE];
	_cleanup_close_ int fd = -1;
	int r = name_segment(journal, segment_name(segment.first, name), segment.size);

	if (r < 0)
		return r;
	fd = openat(journal->folder_fd, name, O_RDWR | O_CLOEXEC);
	if (fd < 0 || fsync(journal->folder_fd) < 0)
		r = -errno;
	else
		r = segment_list_add(&journal->list, &segment);
	if (r < 0) {
		unlinkat(journal->folder_fd, name, 0);
		return r;
	}
	if (journal->fd >= 0)
		close(journal->fd);
	journal->fd = TAKE_FD(fd);
	return 0;
}

/* What was allocated behind the last record goes back. */
static void seal(struct journal *journal, struct segment *segment)
{
	if (journal->fd >= 0 && segment->size > segment->bytes &&
	    ftruncate(journal->fd, (off_t)segment->bytes) == 0)
		segment->size = segment->bytes;
}

int room_for(struct journal *journal, size_t length)
{
	struct segment *last = last_segment(journal);

	if (last && journal->fd >= 0 && last->bytes + length <= last->size)
		return 0;
	if (last && last->bytes == 0 && journal->fd >= 0) {
		/* Empty, and yet too small: its name is needed for the larger one. */
		char name[SEGMENT_NAME_SIZE];

		if (unlinkat(journal->folder_fd, segment_name(last->first, name), 0) < 0)
			return -errno;
		journal->list.n--;
		close(TAKE_FD(journal->fd));
	} else if (last) {
		seal(journal, last);
	}
	return begin_segment(journal, length);
}

int journal_expire(struct journal *journal, int64_t before_utc_ns)
{
	int r = 0;

	while (r == 0 && oldest_is_acknowledged(journal)) {
		char name[SEGMENT_NAME_SIZE];
		struct stat status;

		segment_name(journal->list.segments[0].first, name);
		if (fstatat(journal->folder_fd, name, &status, 0) < 0 ||
		    status.st_mtim.tv_sec * NSEC_PER_SEC + status.st_mtim.tv_nsec >= before_utc_ns)
			break;
		r = segment_list_drop_oldest(journal->folder_fd, "", &journal->list);
	}
	return r;
}

bool journal_is_tight(const struct journal *journal)
{
	size_t first = 0;

	if (journal->list.n > 0 && journal->spare_bytes == 0)
		return true;
	while (first + 1 < journal->list.n &&
	       journal->list.segments[first + 1].first <= journal->acknowledged + 1)
		first++;
	return journal->spare_bytes + bytes_of(&journal->list, first) > journal->max_bytes / 2;
}
