/* SPDX-License-Identifier: BSD-2-Clause */
/* A second's sample as the journal keeps it: totals of the slots that changed, and of the interface. */
#ifndef WIRETOLL_AGENT_SAMPLE_RECORD_H
#define WIRETOLL_AGENT_SAMPLE_RECORD_H

#include "agent/batch.h"
#include "agent/slots.h"

#define SAMPLE_ACTIVE    1 /* neither: the interface was down */
#define SAMPLE_SUSPENDED 2
#define SAMPLE_EXHAUSTED 4

struct sample_head {
	uint8_t epoch[UUID_SIZE];
	uint8_t boot_id[UUID_SIZE];
	int64_t utc_ns, boot_ns;
	uint64_t counted;
	uint64_t cycle, grant_seq, cycle_counted; /* cycle 0: no grant */
	uint32_t flags;                           /* SAMPLE_* */
	uint32_t n;                               /* entries that follow */
};

struct sample_entry {
	uint32_t slot, incarnation;
	uint8_t peer_id[UUID_SIZE];
	uint64_t upload_bytes, download_bytes;
	uint64_t upload_packets, download_packets;
	uint64_t refused_bytes, undelivered;
};

_Static_assert(sizeof(struct sample_head) == 88, "layout on disk");
_Static_assert(sizeof(struct sample_entry) == 72, "layout on disk");

/* The entry of a slot. */
struct sample_entry sample_entry_of(const struct slots *slots, uint32_t slot);

/*
 * The sum of an entry's counts. Each of them only grows within an incarnation, so two entries of it with the
 * same sum are the same.
 */
uint64_t sample_entry_sum(const struct sample_entry *entry);

/* Whole and as long as it says. The entries follow the head. Returns -EINVAL. */
WT_MUST_CHECK int sample_record_check(const void *payload, size_t length, struct sample_head *ret_head);

/* Entry i of a record that was checked. */
struct sample_entry sample_record_entry(const void *payload, uint32_t i);

#endif
