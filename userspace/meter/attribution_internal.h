/* SPDX-License-Identifier: BSD-2-Clause */
/* What the attribution table's writer and its recovery share: where things stand in the maps. */
#ifndef WIRETOLL_METER_ATTRIBUTION_INTERNAL_H
#define WIRETOLL_METER_ATTRIBUTION_INTERNAL_H

#include "meter/attribution.h"

#ifndef STORE /* the tests look at the table, or die, after each */
#define STORE(word, value) __atomic_store_n(&(word), value, __ATOMIC_RELEASE)
#endif

#define MARKS4       16 /* those that have hints */
#define MARKS6       32
#define HINT_MOST    255 /* sticks there until the next recovery */
#define BEYOND_MOST  255
#define BEYOND(tags) ((tags)&0xff)

struct attribution_counts {
	uint32_t prefixes[WT_FAMILIES];
	uint32_t lengths[WT_FAMILIES][129];
	uint8_t (*hints4)[MARKS4];
	uint8_t (*hints6)[MARKS6];
};

/* A prefix as the table has it. */
struct table_key {
	int family;
	unsigned length;
	uint64_t high, low; /* IPv4: low only */
	uint64_t mark;
	uint32_t code;     /* IPv6 */
	uint64_t identity; /* IPv4: what stands above the slot */
	uint64_t hash;
};

struct table_place {
	uint32_t step; /* how far beyond its first bucket */
	uint32_t bucket;
	unsigned way;
};

static inline struct wt_family *family_of(const struct attribution_table *table, const struct table_key *key)
{
	return &table->heads->families[key->family];
}

/* A place's word: all of an IPv4 entry, or the head of an IPv6 one. Way 0: the tags. */
static inline __u64 *word_at(const struct attribution_table *table, int family, uint32_t bucket, unsigned way)
{
	return family == WT_IPV4 ? &table->buckets4[bucket].words[way]
				 : &table->buckets6[bucket].entries[way].head;
}

static inline __u64 *tags_of(const struct attribution_table *table, int family, uint32_t bucket)
{
	return word_at(table, family, bucket, 0);
}

static inline unsigned tag_at(uint64_t tags, unsigned way)
{
	return tags >> 8 * way & 0xff;
}

static inline __u16 *marks4_of(const struct attribution_table *table, uint32_t hint)
{
	return &table->hint_lines[hint / WT_HINT_LINE4].marks4[hint % WT_HINT_LINE4];
}

static inline __u32 *marks6_of(const struct attribution_table *table, uint32_t hint)
{
	return &table->hint_lines[wt_hint_line6(hint, wt_hints(table->capacity))]
			.marks6[hint % WT_HINT_LINE6];
}

/* Fills in what follows from family, length and address. */
void attribution_finish_key(const struct attribution_table *table, struct table_key *key);

bool attribution_find(const struct attribution_table *table, const struct table_key *key,
		      struct table_place *ret_place);

/* How many prefixes of this length the hint stands for; NULL for lengths that have none. */
uint8_t *attribution_hint_count(const struct attribution_table *table, const struct table_key *key);

typedef int (*attribution_entry_fn)(const struct attribution_table *table, const struct table_key *key,
				    const struct table_place *place, void *data);

/* In no order; stops at the first non-zero result and returns it. */
WT_MUST_CHECK int attribution_each_entry(const struct attribution_table *table, int family,
					 attribution_entry_fn fn, void *data);

#endif
