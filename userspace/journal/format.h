/* SPDX-License-Identifier: BSD-2-Clause */
/* A record on disk, little endian. For the journal and its tests only. */
#ifndef WIRETOLL_JOURNAL_FORMAT_H
#define WIRETOLL_JOURNAL_FORMAT_H

#include "base/base.h"

#define JOURNAL_MAGIC 0x314a5457u /* "WTJ1" */

enum journal_kind {
	JOURNAL_DATA = 1,
	JOURNAL_ACK = 2, /* the payload is the acknowledged sequence, 8 bytes */
};

struct journal_header {
	uint32_t magic;
	uint32_t length; /* of the payload that follows */
	uint64_t sequence;
	uint32_t kind;
	uint32_t crc; /* of header, this field being 0, and payload */
};

_Static_assert(sizeof(struct journal_header) == 24, "layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are written as they are in memory");

uint32_t journal_crc(const struct journal_header *header, const void *payload);

/*
 * Reads the record at the beginning of `data`. Returns its whole size, or 0 when there is none that is whole,
 * valid, and numbered `sequence`.
 */
size_t journal_record_at(const void *data, size_t available, uint64_t sequence,
			 struct journal_header *ret_header);

#endif
