/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A journal read from outside: nothing is locked, changed or cut off, and the one who writes it may go on.
 * For people and programs that look at it.
 */
#ifndef WIRETOLL_JOURNAL_READER_H
#define WIRETOLL_JOURNAL_READER_H

#include "journal/journal.h"
#include "journal/segment.h"

struct reader_record {
	const char *segment; /* the file's name */
	size_t offset;       /* of its header in that file */
	uint64_t sequence;
	enum journal_kind kind;
	uint32_t crc;
	const void *payload; /* gone after the call */
	size_t length;
};

struct reader_fault {
	char segment[SEGMENT_NAME_SIZE];
	size_t offset;
	const char *reason;
};

/* Stops at the first non-zero result and returns it. */
typedef int (*reader_fn)(const struct reader_record *record, void *data);

/*
 * Calls fn for each record of a segment, or of all segments of a folder, in order. -EBADMSG with the first
 * fault: a record that is not whole and valid, or a number left out. -ENOENT for a folder without segments,
 * -EINVAL for a file whose name is no segment's. A record that is being written counts as not there.
 */
WT_MUST_CHECK int journal_inspect(const char *path, reader_fn fn, void *data, struct reader_fault *ret_fault);

#endif
