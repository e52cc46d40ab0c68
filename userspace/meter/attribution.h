/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The attribution table's writer. It works on memory that programs read at the same time, so it never moves
 * what is there: each change becomes visible by one store of one word. A process may die between any two
 * stores; repeating what it did, after attribution_recover(), makes it whole.
 */
#ifndef WIRETOLL_METER_ATTRIBUTION_H
#define WIRETOLL_METER_ATTRIBUTION_H

#include "base/base.h"
#include "base/cidr.h"

#include <wiretoll/attribution.h>

struct attribution_counts;

struct attribution_table {
	/* The maps: shared with the programs, and with the next process. */
	struct wt_table *heads;
	struct wt_window_line *windows;
	struct wt_bucket4 *buckets4;
	struct wt_bucket6 *buckets6;
	struct wt_hint_line *hint_lines;
	struct wt_incarnations *incarnations;
	uint32_t capacity; /* in slots; all sizes follow from it */
	/* Derived from them by attribution_recover(). */
	struct attribution_counts *counts;
};

/*
 * Counts what is there, which setting and deleting need, and mends what an earlier process may have left
 * behind. In time proportional to the table. Returns -ENOMEM.
 */
WT_MUST_CHECK int attribution_recover(struct attribution_table *table);
/* Frees the counts, not the maps. */
void attribution_release(struct attribution_table *table);

/* The prefix must be a network, the slot below the capacity. -ENOSPC when the table is full. */
WT_MUST_CHECK int attribution_set(struct attribution_table *table, const struct cidr *prefix,
				  const struct wt_attribution *attribution);
/* -ENOENT when it is not there. */
WT_MUST_CHECK int attribution_delete(struct attribution_table *table, const struct cidr *prefix);

typedef int (*attribution_fn)(const struct cidr *prefix, const struct wt_attribution *attribution,
			      void *data);
/* In no order; stops at the first non-zero result and returns it. fn may delete the prefix that it is given.
 */
WT_MUST_CHECK int attribution_for_each(const struct attribution_table *table, attribution_fn fn, void *data);

#endif
