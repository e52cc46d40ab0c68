// SPDX-License-Identifier: BSD-2-Clause
/* The attribution table as WireGuard's allowed IPs have it. */
#include "standalone/station_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int compare(const void *left, const void *right)
{
	const struct placed_prefix *a = left, *b = right;

	return cidr_compare(&a->prefix, &b->prefix);
}

struct listing {
	struct placed_prefix *entries;
	size_t count, size;
};

static int add(struct listing *list, const struct cidr *prefix, const struct wt_attribution *attribution)
{
	if (list->count == list->size) {
		size_t size = list->size ? 2 * list->size : 64;
		struct placed_prefix *larger = realloc(list->entries, size * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		list->entries = larger;
		list->size = size;
	}
	list->entries[list->count++] = (struct placed_prefix){.prefix = *prefix, .attribution = *attribution};
	return 0;
}

static int add_placed(const struct cidr *prefix, const struct wt_attribution *attribution, void *data)
{
	return add(data, prefix, attribution);
}

static void keep(struct station *station, struct listing *list)
{
	free(station->prefixes);
	station->prefixes = list->entries;
	station->n_prefixes = list->count;
}

int prefixes_restore(struct station *station)
{
	struct listing list = {0};
	int r = meter_for_each_prefix(station->meter, add_placed, &list);

	if (list.count > 1)
		qsort(list.entries, list.count, sizeof(*list.entries), compare);
	keep(station, &list);
	return r;
}

static int list_wanted(const struct station *station, const struct wg_device *device,
		       struct listing *ret_list)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < device->n_peers; i++) {
		const struct wg_peer *peer = &device->peers[i];
		const struct record *record = history_find(&station->history, &peer->public_key);
		const struct wt_attribution attribution = {record->slot, record->incarnation};

		if (!record->slot)
			continue;
		for (size_t j = 0; r == 0 && j < peer->n_allowed_ips; j++)
			r = add(ret_list, &peer->allowed_ips[j], &attribution);
	}
	if (ret_list->count > 1)
		qsort(ret_list->entries, ret_list->count, sizeof(*ret_list->entries), compare);
	return r;
}

static bool same(const struct placed_prefix *a, const struct placed_prefix *b)
{
	return a->attribution.slot == b->attribution.slot &&
	       a->attribution.incarnation == b->attribution.incarnation;
}

/*
 * Puts what is new or another's into the table. What finds no place is taken off the list, so that it is
 * tried again; a new owner that found none leaves the old one to be deleted.
 */
static int put_wanted(struct station *station, struct listing *list)
{
	size_t placed = 0, kept = 0;

	for (size_t i = 0; i < list->count; i++) {
		const struct placed_prefix *wanted = &list->entries[i];
		int order = 1, r = 0;

		while (placed < station->n_prefixes &&
		       (order = compare(&station->prefixes[placed], wanted)) < 0)
			placed++;
		if (placed == station->n_prefixes || order != 0 || !same(&station->prefixes[placed], wanted))
			r = meter_set_prefix(station->meter, &wanted->prefix, wanted->attribution.slot,
					     wanted->attribution.incarnation);
		if (r == -ENOSPC || r == -E2BIG) {
			station->unplaced++;
			continue;
		}
		if (r < 0)
			return r;
		list->entries[kept++] = *wanted;
	}
	list->count = kept;
	return 0;
}

static int delete_unwanted(struct station *station, const struct listing *list)
{
	size_t place = 0;

	for (size_t i = 0; i < station->n_prefixes; i++) {
		const struct placed_prefix *placed = &station->prefixes[i];
		int r;

		while (place < list->count && compare(&list->entries[place], placed) < 0)
			place++;
		if (place < list->count && compare(&list->entries[place], placed) == 0)
			continue;
		r = meter_delete_prefix(station->meter, &placed->prefix);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

int prefixes_apply(struct station *station, const struct wg_device *device)
{
	struct listing list = {0};
	int r = list_wanted(station, device, &list), restored;

	if (r == 0)
		r = put_wanted(station, &list);
	if (r == 0)
		r = delete_unwanted(station, &list);
	if (r == 0) {
		keep(station, &list);
		return 0;
	}
	free(list.entries);
	/* Half done: the table itself says what it has. */
	restored = prefixes_restore(station);
	return restored < 0 ? restored : r;
}
