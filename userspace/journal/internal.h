/* SPDX-License-Identifier: BSD-2-Clause */
/* What the journal's own files share. */
#ifndef WIRETOLL_JOURNAL_INTERNAL_H
#define WIRETOLL_JOURNAL_INTERNAL_H

#include "journal/journal.h"
#include "journal/segment.h"

struct journal {
	int folder_fd; /* holds the lock */
	size_t segment_bytes;
	uint64_t max_bytes;
	struct segment_list list;  /* the last one is written to */
	struct segment_list aside; /* not read any more; given up before anything else */
	size_t spare_bytes;        /* of the spare segment; 0: there is none */
	int fd;                    /* the last segment; -1: none yet */
	uint64_t next_sequence;
	uint64_t acknowledged;
	uint64_t acknowledged_durably;
	/* The open append: an acknowledgement that is due goes in front of the records. Kept for the next. */
	char *write_buffer;
	size_t write_size;
	bool write_open;
	size_t write_length;
	uint64_t write_records;
	uint64_t write_acknowledges;
	uint32_t write_crc; /* of its last record */
};

static inline struct segment *last_segment(const struct journal *journal)
{
	return journal->list.n ? &journal->list.segments[journal->list.n - 1] : NULL;
}

/* room.c: makes the last segment one that has room for `length` more bytes. */
WT_MUST_CHECK int room_for(struct journal *journal, size_t length);
/* Allocates the spare segment if there is none and there is room; without room there is none. */
void room_keep_spare(struct journal *journal);
/* Takes the spare over that an earlier process has left; what else it left half made is removed. */
void room_find_spare(struct journal *journal);

#endif
