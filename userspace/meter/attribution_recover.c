// SPDX-License-Identifier: BSD-2-Clause
/* The attribution table as a process finds it that may not have been alone in writing it: counted, and
 * mended. */
#include "meter/attribution_internal.h"

#include <errno.h>
#include <stdlib.h>

struct recovery {
	uint64_t lengths[WT_FAMILIES][2];
	uint8_t *beyond; /* by bucket, of one family */
};

static int count_entry(const struct attribution_table *table, const struct table_key *key,
		       const struct table_place *place, void *data)
{
	uint32_t buckets = wt_buckets(table->capacity);
	uint8_t *count = attribution_hint_count(table, key);
	struct recovery *recovery = data;

	table->counts->prefixes[key->family]++;
	table->counts->lengths[key->family][key->length]++;
	recovery->lengths[key->family][key->family == WT_IPV6 && key->length <= 64] |= key->mark;
	if (count && *count != HINT_MOST)
		++*count;
	for (uint32_t step = 0; wt_bucket_index(key->hash, step, buckets) != place->bucket; step++) {
		uint8_t *beyond = &recovery->beyond[wt_bucket_index(key->hash, step, buckets)];

		*beyond = (uint8_t)(*beyond + (*beyond != BEYOND_MOST));
	}
	return 0;
}

static uint32_t marks_counted(const uint8_t *counts, unsigned bits)
{
	uint32_t marks = 0;

	for (unsigned bit = 0; bit < bits; bit++)
		marks |= counts[bit] ? 1U << bit : 0;
	return marks;
}

/* What is 0 needs no look at its counts: a mark is stored before what it leads to. */
static void mend_hints(const struct attribution_table *table)
{
	for (uint32_t hint = 0; hint < wt_hints(table->capacity); hint++) {
		__u16 *marks4 = marks4_of(table, hint);
		__u32 *marks6 = marks6_of(table, hint);

		if (*marks4)
			STORE(*marks4, (__u16)marks_counted(table->counts->hints4[hint], MARKS4));
		if (*marks6)
			STORE(*marks6, marks_counted(table->counts->hints6[hint], MARKS6));
	}
}

static void mend_buckets(const struct attribution_table *table, int family, const uint8_t *beyond)
{
	for (uint32_t bucket = 0; bucket < wt_buckets(table->capacity); bucket++) {
		__u64 *tags = tags_of(table, family, bucket);

		if (BEYOND(*tags) != beyond[bucket])
			STORE(*tags, (*tags & ~0xffULL) | beyond[bucket]);
	}
}

/* The window repeats the entries, neither more nor less. */
static void mend_window(const struct attribution_table *table, int index)
{
	const struct wt_family *family = &table->heads->families[index];
	uint32_t first = (uint32_t)index * (wt_window_size(table->capacity) / WT_WINDOW_LINE);

	for (uint32_t offset = 0; offset < family->window_size; offset++) {
		uint32_t *slot =
			&table->windows[first + offset / WT_WINDOW_LINE].slots[offset % WT_WINDOW_LINE];
		struct table_key key = {.family = index,
					.length = index == WT_IPV4 ? 32 : 128,
					.high = family->window_high,
					.low = family->window_low + offset};
		struct table_place place;
		uint32_t exact = 0;

		attribution_finish_key(table, &key);
		if (attribution_find(table, &key, &place))
			exact = WT_ATTRIBUTED |
				(*word_at(table, index, place.bucket, place.way) & WT_SLOT_MASK);
		if (*slot != exact)
			STORE(*slot, exact);
	}
}

static int recover_family(struct attribution_table *table, int family)
{
	struct recovery recovery = {.beyond = calloc(wt_buckets(table->capacity), 1)};
	struct wt_family *head = &table->heads->families[family];
	int r = -ENOMEM;

	if (recovery.beyond)
		r = attribution_each_entry(table, family, count_entry, &recovery);
	if (r == 0) {
		mend_buckets(table, family, recovery.beyond);
		STORE(head->lengths[0], recovery.lengths[family][0]);
		STORE(head->lengths[1], recovery.lengths[family][1]);
		mend_window(table, family);
	}
	free(recovery.beyond);
	return r;
}

int attribution_recover(struct attribution_table *table)
{
	int r = 0;

	attribution_release(table);
	table->counts = calloc(1, sizeof(*table->counts));
	if (!table->counts)
		return -ENOMEM;
	table->counts->hints4 = calloc(wt_hints(table->capacity), sizeof(*table->counts->hints4));
	table->counts->hints6 = calloc(wt_hints(table->capacity), sizeof(*table->counts->hints6));
	if (!table->counts->hints4 || !table->counts->hints6)
		r = -ENOMEM;
	for (int family = 0; r == 0 && family < WT_FAMILIES; family++)
		r = recover_family(table, family);
	if (r == 0)
		mend_hints(table);
	else
		attribution_release(table);
	return r;
}

void attribution_release(struct attribution_table *table)
{
	if (table->counts) {
		free(table->counts->hints4);
		free(table->counts->hints6);
	}
	free(table->counts);
	table->counts = NULL;
}
