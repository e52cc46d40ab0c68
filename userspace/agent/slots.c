// SPDX-License-Identifier: BSD-2-Clause
#include "agent/slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool totals_equal(const struct meter_totals *a, const struct meter_totals *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

struct meter_totals totals_subtract(const struct meter_totals *a, const struct meter_totals *b)
{
	return (struct meter_totals){
		.upload_bytes = a->upload_bytes - b->upload_bytes,
		.upload_packets = a->upload_packets - b->upload_packets,
		.download_bytes = a->download_bytes - b->download_bytes,
		.download_packets = a->download_packets - b->download_packets,
		.refused_bytes = a->refused_bytes - b->refused_bytes,
		.refused_packets = a->refused_packets - b->refused_packets,
	};
}

int slots_create(uint32_t capacity, struct slots *ret_slots)
{
	struct slots slots = {.capacity = capacity, .end = 1, .n_buckets = 16};

	while (slots.n_buckets < 2 * capacity)
		slots.n_buckets *= 2;
	/* Large and zero: pages that no peer has touched cost no memory. */
	slots.slots = calloc(capacity, sizeof(*slots.slots));
	slots.buckets = calloc(slots.n_buckets, sizeof(*slots.buckets));
	if (!slots.slots || !slots.buckets) {
		slots_free(&slots);
		return -ENOMEM;
	}
	slots.slots[WT_SLOT_UNATTRIBUTED].flags = WT_OWNER_IN_USE;
	*ret_slots = slots;
	return 0;
}

void slots_free(struct slots *slots)
{
	free(slots->slots);
	free(slots->buckets);
	*slots = (struct slots){0};
}

static uint32_t first_bucket(const uint8_t *peer_id)
{
	uint64_t hash;

	memcpy(&hash, peer_id, sizeof(hash));
	return (uint32_t)((hash * 0x9e3779b97f4a7c15ULL) >> 32);
}

static uint32_t *bucket_of(const struct slots *slots, const uint8_t *peer_id)
{
	for (uint32_t i = first_bucket(peer_id);; i++) {
		uint32_t *bucket = &slots->buckets[i & (slots->n_buckets - 1)];

		if (*bucket == 0 || uuid_equal(slots->slots[*bucket].peer_id, peer_id))
			return bucket;
	}
}

void slots_restore(struct slots *slots, uint32_t slot, const struct wt_owner *owner)
{
	struct slot *at = &slots->slots[slot];

	if (owner->incarnation == 0)
		return;
	memcpy(at->peer_id, owner->peer_id, UUID_SIZE);
	at->incarnation = owner->incarnation;
	at->flags = owner->flags & WT_OWNER_RETIRING ? WT_OWNER_RETIRING : owner->flags;
	if (slot >= slots->end)
		slots->end = slot + 1;
	if (at->flags == WT_OWNER_IN_USE)
		*bucket_of(slots, at->peer_id) = slot;
}

void slots_restore_base(struct slots *slots, uint32_t slot, uint32_t incarnation,
			const struct meter_totals *base, uint64_t undelivered)
{
	struct slot *at;

	if (slot >= slots->end)
		return;
	at = &slots->slots[slot];
	if (at->flags == 0 && at->incarnation < incarnation)
		at->incarnation = incarnation;
	if (at->incarnation != incarnation)
		return;
	at->base = *base;
	at->undelivered = at->audit.undelivered = at->audit.kept = undelivered;
}

uint32_t slots_find(const struct slots *slots, const uint8_t peer_id[static UUID_SIZE])
{
	return *bucket_of(slots, peer_id);
}

static uint32_t lowest_free(const struct slots *slots)
{
	if (slots->end < slots->capacity)
		return slots->end;
	for (uint32_t slot = 1; slot < slots->end; slot++)
		if (slots->slots[slot].flags == 0)
			return slot;
	return 0;
}

int slots_assign(struct slots *slots, const uint8_t peer_id[static UUID_SIZE], uint32_t *ret_slot)
{
	uint32_t slot = lowest_free(slots);
	struct slot *at = &slots->slots[slot];
	struct meter_totals cell;

	if (slot == 0)
		return -ENOSPC;
	cell = (struct meter_totals){
		.upload_bytes = at->base.upload_bytes + at->sampled.upload_bytes,
		.upload_packets = at->base.upload_packets + at->sampled.upload_packets,
		.download_bytes = at->base.download_bytes + at->sampled.download_bytes,
		.download_packets = at->base.download_packets + at->sampled.download_packets,
		.refused_bytes = at->base.refused_bytes + at->sampled.refused_bytes,
		.refused_packets = at->base.refused_packets + at->sampled.refused_packets,
	};
	*at = (struct slot){
		.incarnation = at->incarnation + 1, .flags = WT_OWNER_IN_USE, .known = true, .base = cell};
	memcpy(at->peer_id, peer_id, UUID_SIZE);
	if (slot >= slots->end)
		slots->end = slot + 1;
	*bucket_of(slots, peer_id) = slot;
	*ret_slot = slot;
	return 0;
}

/* Open addressing without tombstones: the peers behind it, up to the next hole, move up where they are then
 * still found: nothing else is touched.
 */
static void forget_peer(struct slots *slots, uint32_t slot)
{
	uint32_t mask = slots->n_buckets - 1;
	uint32_t hole = (uint32_t)(bucket_of(slots, slots->slots[slot].peer_id) - slots->buckets);

	if (slots->buckets[hole] != slot)
		return;
	for (uint32_t i = (hole + 1) & mask; slots->buckets[i] != 0; i = (i + 1) & mask) {
		uint32_t home = first_bucket(slots->slots[slots->buckets[i]].peer_id);

		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		slots->buckets[hole] = slots->buckets[i];
		hole = i;
	}
	slots->buckets[hole] = 0;
}

void slots_retire(struct slots *slots, uint32_t slot)
{
	slots->slots[slot].flags = WT_OWNER_RETIRING;
	slots->slots[slot].retire_seq = 0;
	forget_peer(slots, slot);
}

void slots_release(struct slots *slots, uint32_t slot)
{
	bool was_in_use = slots->slots[slot].flags == WT_OWNER_IN_USE;

	slots->slots[slot].flags = 0;
	if (was_in_use)
		forget_peer(slots, slot);
}

struct wt_owner slots_owner(const struct slots *slots, uint32_t slot)
{
	const struct slot *at = &slots->slots[slot];
	struct wt_owner owner = {.incarnation = at->incarnation, .flags = at->flags};

	memcpy(owner.peer_id, at->peer_id, UUID_SIZE);
	return owner;
}

bool slots_sample(struct slots *slots, uint32_t slot, const struct meter_totals *cell)
{
	struct slot *at = &slots->slots[slot];
	struct meter_totals now = totals_subtract(cell, &at->base);

	if (totals_equal(&now, &at->sampled))
		return false;
	at->sampled = now;
	return true;
}
