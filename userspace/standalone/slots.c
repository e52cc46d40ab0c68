// SPDX-License-Identifier: BSD-2-Clause
/* Which slot counts which peer. The history is written first: a slot that counts is always in it. */
#include "standalone/station_internal.h"

#include "base/clock.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* Longer than a packet may be between its look into the table and its count. */
#define GRACE_NS (NSEC_PER_SEC / 2)

void station_peer_id(const struct key *public_key, uint8_t ret_id[static 16])
{
	crypto_generichash(ret_id, 16, public_key->bytes, KEY_SIZE, NULL, 0);
}

static bool owns(const struct wt_owner *owner, const struct record *record)
{
	uint8_t id[16];

	station_peer_id(&record->public_key, id);
	return owner->flags && owner->incarnation == record->incarnation &&
	       memcmp(owner->peer_id, id, sizeof(id)) == 0;
}

static int add_orphan(struct station *station, uint32_t slot, const struct wt_owner *owner)
{
	struct orphan *larger =
		realloc(station->orphans, (station->n_orphans + 1) * sizeof(*station->orphans));

	if (!larger)
		return -ENOMEM;
	station->orphans = larger;
	larger[station->n_orphans] = (struct orphan){.slot = slot, .incarnation = owner->incarnation};
	memcpy(larger[station->n_orphans++].peer_id, owner->peer_id, sizeof(owner->peer_id));
	return 0;
}

int slots_restore(struct station *station)
{
	uint32_t capacity = meter_identity(station->meter)->capacity;
	_cleanup_free_ bool *known = calloc(capacity, sizeof(*known));
	struct wt_owner owner;
	int r = known ? 0 : -ENOMEM;

	/* The first record has slot 0, which needs no owner. */
	for (size_t i = 1; r == 0 && i < station->history.n_records; i++) {
		struct record *record = station->history.records[i];

		if (record->slot && record->slot < capacity &&
		    meter_get_owner(station->meter, record->slot, &owner) == 0 && owns(&owner, record)) {
			known[record->slot] = true;
			continue;
		}
		record->slot = record->incarnation = 0;
		record->cell = (struct meter_totals){0};
	}
	for (uint32_t slot = 1; r == 0 && slot < capacity; slot++) {
		if (!known[slot] && meter_get_owner(station->meter, slot, &owner) == 0 && owner.flags)
			r = add_orphan(station, slot, &owner);
	}
	return r;
}

/* A slot that counts this peer already, though the history did not know. */
static bool take_orphan(struct station *station, struct record *record)
{
	uint8_t id[16];

	station_peer_id(&record->public_key, id);
	for (size_t i = 0; i < station->n_orphans; i++) {
		struct orphan *orphan = &station->orphans[i];

		if (memcmp(orphan->peer_id, id, sizeof(id)) != 0)
			continue;
		record->slot = orphan->slot;
		record->incarnation = orphan->incarnation;
		/* Of a slot used again, nobody knows where this peer's count began: it begins now. */
		if (orphan->incarnation > 1)
			meter_read(station->meter, orphan->slot, &record->cell);
		*orphan = station->orphans[--station->n_orphans];
		return true;
	}
	return false;
}

int slots_assign(struct station *station, struct record *record)
{
	uint32_t capacity = meter_identity(station->meter)->capacity, slot = station->last_slot;
	struct wt_owner owner;

	record->cell = (struct meter_totals){0};
	if (take_orphan(station, record))
		return 0;
	/* Onwards from the last: the slot that is free for the longest time comes first. */
	for (uint32_t i = 1; i < capacity; i++) {
		slot = slot % (capacity - 1) + 1;
		if (meter_get_owner(station->meter, slot, &owner) < 0 || owner.flags)
			continue;
		station->last_slot = slot;
		record->slot = slot;
		record->incarnation = owner.incarnation + 1;
		meter_read(station->meter, slot, &record->cell);
		return 0;
	}
	return -ENOSPC;
}

int slots_own(struct station *station, const struct record *record)
{
	struct wt_owner owner = {.incarnation = record->incarnation, .flags = WT_OWNER_IN_USE};

	station_peer_id(&record->public_key, owner.peer_id);
	return meter_set_owner(station->meter, record->slot, &owner);
}

static int release(struct station *station, uint32_t slot, uint32_t incarnation)
{
	const struct wt_owner owner = {.incarnation = incarnation};
	int r = meter_clear_peer_limit(station->meter, slot);

	return r < 0 ? r : meter_set_owner(station->meter, slot, &owner);
}

static bool is_due(const struct record *record, int64_t now)
{
	return !record->present && record->slot && now - record->retired_boot_ns >= GRACE_NS;
}

bool slots_are_due(const struct station *station, int64_t now)
{
	bool due = false;

	for (size_t i = 1; !due && i < station->history.n_records; i++)
		due = is_due(station->history.records[i], now);
	return due;
}

int slots_release(struct station *station, int64_t now)
{
	int r = 0;

	for (size_t i = 1; r == 0 && i < station->history.n_records; i++) {
		struct record *record = station->history.records[i];

		if (!is_due(record, now))
			continue;
		r = release(station, record->slot, record->incarnation);
		record->slot = record->incarnation = 0;
		record->cell = (struct meter_totals){0};
		station->dirty = true;
	}
	/* Whose keys nobody knows any more. */
	while (r == 0 && station->n_orphans > 0) {
		const struct orphan *orphan = &station->orphans[--station->n_orphans];

		r = release(station, orphan->slot, orphan->incarnation);
	}
	return r;
}
