/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A record on disk, little endian: header and payload. Each checksum covers the one before it in the same
 * segment, so that a record is valid only behind the very record it was written behind: what an earlier,
 * failed attempt left on the disk never follows what replaced it.
 */
#ifndef WIRETOLL_JOURNAL_FORMAT_H
#define WIRETOLL_JOURNAL_FORMAT_H

#include "base/base.h"
#include "journal/journal.h"

#define JOURNAL_MAGIC 0x324a5457u /* "WTJ2" */

struct journal_header {
	uint32_t magic;
	uint32_t length; /* of the payload that follows */
	uint64_t sequence;
	uint32_t kind; /* enum journal_kind */
	uint32_t crc;  /* of the record before, header with 0 here, and payload */
};

_Static_assert(sizeof(struct journal_header) == 24, "layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are written as they are in memory");

/* `before` is the checksum of the record before in the segment, 0 for the first one. */
uint32_t journal_crc(uint32_t before, const struct journal_header *header, const void *payload);

/*
 * Reads the record at the beginning of `data`. Returns its whole size, or 0 when there is none that is whole,
 * valid, numbered `sequence` and written behind the record with the checksum `before`.
 */
size_t journal_record_at(const void *data, size_t available, uint64_t sequence, uint32_t before,
			 struct journal_header *ret_header);

#endif
