// SPDX-License-Identifier: BSD-2-Clause
#include "journal/format.h"

#include <string.h>

#include "base/crc32c.h"

uint32_t journal_crc(uint32_t before, const struct journal_header *header, const void *payload)
{
	struct journal_header covered = *header;

	covered.crc = 0;
	return crc32c(crc32c(before, &covered, sizeof(covered)), payload, header->length);
}

size_t journal_record_at(const void *data, size_t available, uint64_t sequence, uint32_t before,
			 struct journal_header *ret_header)
{
	struct journal_header header;

	if (available < sizeof(header))
		return 0;
	memcpy(&header, data, sizeof(header));
	if (header.magic != JOURNAL_MAGIC || header.sequence != sequence ||
	    header.length > JOURNAL_RECORD_MAX || header.length > available - sizeof(header))
		return 0;
	if (header.kind == JOURNAL_ACK && header.length != sizeof(uint64_t))
		return 0;
	if (journal_crc(before, &header, (const char *)data + sizeof(header)) != header.crc)
		return 0;
	*ret_header = header;
	return sizeof(header) + header.length;
}
