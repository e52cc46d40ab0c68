// SPDX-License-Identifier: BSD-2-Clause
#include "agent/sample_record.h"

#include <errno.h>
#include <string.h>

struct sample_entry sample_entry_of(const struct slots *slots, uint32_t slot)
{
	const struct slot *at = &slots->slots[slot];
	struct sample_entry entry = {.slot = slot,
				     .incarnation = at->incarnation,
				     .upload_bytes = at->sampled.upload_bytes,
				     .download_bytes = at->sampled.download_bytes,
				     .upload_packets = at->sampled.upload_packets,
				     .download_packets = at->sampled.download_packets,
				     .refused_bytes = at->sampled.refused_bytes,
				     .undelivered = at->undelivered};

	memcpy(entry.peer_id, at->peer_id, UUID_SIZE);
	return entry;
}

uint64_t sample_entry_sum(const struct sample_entry *entry)
{
	return entry->upload_bytes + entry->download_bytes + entry->upload_packets + entry->download_packets +
	       entry->refused_bytes + entry->undelivered;
}

int sample_record_check(const void *payload, size_t length, struct sample_head *ret_head)
{
	struct sample_head head;

	if (length < sizeof(head))
		return -EINVAL;
	memcpy(&head, payload, sizeof(head));
	if (head.n != (length - sizeof(head)) / sizeof(struct sample_entry) ||
	    (length - sizeof(head)) % sizeof(struct sample_entry) != 0)
		return -EINVAL;
	*ret_head = head;
	return 0;
}

struct sample_entry sample_record_entry(const void *payload, uint32_t i)
{
	struct sample_entry entry;

	memcpy(&entry, (const char *)payload + sizeof(struct sample_head) + i * sizeof(entry), sizeof(entry));
	return entry;
}
