// SPDX-License-Identifier: BSD-2-Clause
/*
 * The attribution table's writer. Bits and counts that send a lookup on its way are raised before an entry
 * is stored and lowered after it is gone, so that they may promise too much but never too little.
 */
#include "meter/attribution.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

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
struct key {
	int family;
	unsigned length;
	uint64_t high, low; /* IPv4: low only */
	uint64_t mark;
	uint32_t code;     /* IPv6 */
	uint64_t identity; /* IPv4: what stands above the slot */
	uint64_t hash;
};

struct place {
	uint32_t step; /* how far beyond its first bucket */
	uint32_t bucket;
	unsigned way;
};

static uint64_t read_word(const uint8_t *bytes, size_t count)
{
	uint64_t word = 0;

	while (count--)
		word = word << 8 | *bytes++;
	return word;
}

static void finish_key(const struct attribution_table *table, struct key *key)
{
	uint64_t seed = table->heads->families[key->family].seed;
	unsigned bits = key->family == WT_IPV4 ? 32 : key->length > 64 ? 128 : 64;

	key->mark = key->length ? 1ULL << (bits - key->length) : 0;
	if (key->family == WT_IPV4) {
		key->identity = wt_key4((uint32_t)key->low, (uint32_t)key->mark);
		key->hash = wt_hash4(key->identity, seed);
	} else {
		key->code = wt_mark_code(key->mark) | (key->length > 64 ? 0 : WT_CODE6_HIGH);
		key->hash = wt_hash6(key->high, key->low, key->code, seed);
	}
}

static struct key make_key(const struct attribution_table *table, const struct cidr *prefix)
{
	struct key key = {.family = prefix->family == AF_INET ? WT_IPV4 : WT_IPV6,
			  .length = prefix->prefix_length};

	if (key.family == WT_IPV4) {
		key.low = read_word(prefix->bytes, 4);
	} else {
		key.high = read_word(prefix->bytes, 8);
		key.low = read_word(prefix->bytes + 8, 8);
	}
	finish_key(table, &key);
	return key;
}

static struct cidr make_cidr(const struct key *key)
{
	struct cidr prefix = {.family = key->family == WT_IPV4 ? AF_INET : AF_INET6,
			      .prefix_length = key->length};

	for (unsigned i = 0; i < 4 && key->family == WT_IPV4; i++)
		prefix.bytes[i] = (uint8_t)(key->low >> (24 - 8 * i));
	for (unsigned i = 0; i < 8 && key->family == WT_IPV6; i++) {
		prefix.bytes[i] = (uint8_t)(key->high >> (56 - 8 * i));
		prefix.bytes[8 + i] = (uint8_t)(key->low >> (56 - 8 * i));
	}
	return prefix;
}

static struct wt_family *family_of(const struct attribution_table *table, const struct key *key)
{
	return &table->heads->families[key->family];
}

/* A place's word: all of an IPv4 entry, or the head of an IPv6 one. Way 0: the tags. */
static __u64 *word_at(const struct attribution_table *table, int family, uint32_t bucket, unsigned way)
{
	return family == WT_IPV4 ? &table->buckets4[bucket].words[way]
				 : &table->buckets6[bucket].entries[way].head;
}

static __u64 *tags_of(const struct attribution_table *table, int family, uint32_t bucket)
{
	return word_at(table, family, bucket, 0);
}

static uint32_t *incarnation_of(const struct attribution_table *table, int family, const struct place *place)
{
	uint32_t first = family == WT_IPV4 ? 0 : wt_buckets(table->capacity);

	return &table->incarnations[first + place->bucket].of[place->way];
}

static unsigned tag_at(uint64_t tags, unsigned way)
{
	return tags >> 8 * way & 0xff;
}

static bool stands_at(const struct attribution_table *table, const struct key *key, const struct place *place)
{
	const struct wt_entry6 *entry;

	if (key->family == WT_IPV4)
		return table->buckets4[place->bucket].words[place->way] >> WT_SLOT_BITS == key->identity;
	entry = &table->buckets6[place->bucket].entries[place->way];
	return (entry->head >> WT_SLOT_BITS & 127) == key->code && entry->high == key->high &&
	       entry->low == key->low;
}

static bool find(const struct attribution_table *table, const struct key *key, struct place *ret_place)
{
	uint32_t buckets = wt_buckets(table->capacity);

	for (uint32_t step = 0; step < WT_CHAIN; step++) {
		struct place place = {step, wt_bucket_index(key->hash, step, buckets), 0};
		uint64_t tags = *tags_of(table, key->family, place.bucket);

		for (place.way = 1; place.way <= WT_WAYS; place.way++) {
			if (tag_at(tags, place.way) == wt_tag(key->hash) && stands_at(table, key, &place)) {
				*ret_place = place;
				return true;
			}
		}
		if (!BEYOND(tags))
			return false;
	}
	return false;
}

static bool find_free(const struct attribution_table *table, const struct key *key, struct place *ret_place)
{
	uint32_t buckets = wt_buckets(table->capacity);

	for (uint32_t step = 0; step < WT_CHAIN; step++) {
		struct place place = {step, wt_bucket_index(key->hash, step, buckets), 0};
		uint64_t tags = *tags_of(table, key->family, place.bucket);

		for (place.way = 1; place.way <= WT_WAYS; place.way++) {
			if (!tag_at(tags, place.way)) {
				*ret_place = place;
				return true;
			}
		}
	}
	return false;
}

/* ---- what sends lookups on their way ---- */

static bool has_hint(const struct key *key)
{
	return key->family == WT_IPV4 ? key->mark <= WT_HINTED4
				      : key->length <= 64 && key->mark <= WT_HINTED6;
}

static uint32_t hint_of(const struct attribution_table *table, const struct key *key)
{
	const uint32_t hints = wt_hints(table->capacity);

	return key->family == WT_IPV4 ? wt_hint4((uint32_t)key->low, hints) : wt_hint6(key->high, hints);
}

/* How many prefixes of this length the hint stands for; NULL for lengths that have none. */
static uint8_t *hint_count(const struct attribution_table *table, const struct key *key)
{
	const int bit = __builtin_ctzll(key->mark);

	if (!has_hint(key))
		return NULL;
	return key->family == WT_IPV4 ? &table->counts->hints4[hint_of(table, key)][bit]
				      : &table->counts->hints6[hint_of(table, key)][bit];
}

static __u16 *marks4_of(const struct attribution_table *table, uint32_t hint)
{
	return &table->hint_lines[hint / WT_HINT_LINE4].marks4[hint % WT_HINT_LINE4];
}

static __u32 *marks6_of(const struct attribution_table *table, uint32_t hint)
{
	return &table->hint_lines[wt_hint_line6(hint, wt_hints(table->capacity))]
			.marks6[hint % WT_HINT_LINE6];
}

static void change_hint(const struct attribution_table *table, const struct key *key, bool set)
{
	uint32_t hint = hint_of(table, key);

	if (key->family == WT_IPV4) {
		__u16 *marks = marks4_of(table, hint);

		STORE(*marks, (__u16)(set ? *marks | key->mark : *marks & ~key->mark));
	} else {
		__u32 *marks = marks6_of(table, hint);

		STORE(*marks, (__u32)(set ? *marks | key->mark : *marks & ~key->mark));
	}
}

static void raise_hint(const struct attribution_table *table, const struct key *key)
{
	uint8_t *count = hint_count(table, key);

	if (count && *count != HINT_MOST && !(*count)++)
		change_hint(table, key, true);
}

static void lower_hint(const struct attribution_table *table, const struct key *key)
{
	uint8_t *count = hint_count(table, key);

	if (count && *count != HINT_MOST && !--*count)
		change_hint(table, key, false);
}

static __u64 *lengths_of(const struct attribution_table *table, const struct key *key)
{
	return &family_of(table, key)->lengths[key->family == WT_IPV6 && key->length <= 64];
}

static void raise_marks(struct attribution_table *table, const struct key *key)
{
	table->counts->prefixes[key->family]++;
	if (!table->counts->lengths[key->family][key->length]++)
		STORE(*lengths_of(table, key), *lengths_of(table, key) | key->mark);
	raise_hint(table, key);
}

static void lower_marks(struct attribution_table *table, const struct key *key)
{
	table->counts->prefixes[key->family]--;
	lower_hint(table, key);
	if (!--table->counts->lengths[key->family][key->length])
		STORE(*lengths_of(table, key), *lengths_of(table, key) & ~key->mark);
}

/* Counts the prefix, or counts it no more, in the buckets that it passes. */
static void pass_buckets(const struct attribution_table *table, const struct key *key, uint32_t steps, int by)
{
	for (uint32_t step = 0; step < steps; step++) {
		uint32_t bucket = wt_bucket_index(key->hash, step, wt_buckets(table->capacity));
		__u64 *tags = tags_of(table, key->family, bucket);

		if (BEYOND(*tags) != BEYOND_MOST)
			STORE(*tags, *tags + (uint64_t)(int64_t)by);
	}
}

/* ---- the window ---- */

static bool is_host(const struct key *key)
{
	return key->length == (key->family == WT_IPV4 ? 32 : 128);
}

/* Where the window answers for the address, or NULL. */
static uint32_t *window_of(const struct attribution_table *table, const struct key *key)
{
	const struct wt_family *family = family_of(table, key);
	uint64_t offset = key->low - family->window_low;
	uint32_t lines = wt_window_size(table->capacity) / WT_WINDOW_LINE;

	if (!is_host(key) || key->high != family->window_high || offset >= family->window_size)
		return NULL;
	return &table->windows[(uint32_t)key->family * lines + offset / WT_WINDOW_LINE]
			.slots[offset % WT_WINDOW_LINE];
}

/* The first single address says where the tunnel's subnet is. The size puts the window in force. */
static void place_window(struct attribution_table *table, const struct key *key)
{
	struct wt_family *family = family_of(table, key);
	uint32_t size = wt_window_size(table->capacity);

	if (family->window_size || !is_host(key))
		return;
	STORE(family->window_high, key->high);
	STORE(family->window_low, key->low & -(uint64_t)size);
	STORE(family->window_size, size);
}

static void store_window(struct attribution_table *table, const struct key *key, uint32_t value)
{
	uint32_t *slot = window_of(table, key);

	if (slot && *slot != value)
		STORE(*slot, value);
}

/* ---- entries ---- */

static void write_entry(struct attribution_table *table, const struct key *key, const struct place *place,
			uint32_t slot)
{
	__u64 *word = word_at(table, key->family, place->bucket, place->way), version;
	struct wt_entry6 *entry;

	if (key->family == WT_IPV4) {
		STORE(*word, key->identity << WT_SLOT_BITS | slot);
		return;
	}
	/* Whoever is still comparing the old address finds the version changed, and no match. */
	entry = &table->buckets6[place->bucket].entries[place->way];
	version = (*word >> WT_HEAD6_VERSION) + 1;
	STORE(*word, version << WT_HEAD6_VERSION);
	STORE(entry->high, key->high);
	STORE(entry->low, key->low);
	STORE(*word, version << WT_HEAD6_VERSION | WT_HEAD6_VALID | key->code << WT_SLOT_BITS | slot);
}

static int add_entry(struct attribution_table *table, const struct key *key,
		     const struct wt_attribution *attribution)
{
	struct place place;
	__u64 *tags;

	if (table->counts->prefixes[key->family] >= table->capacity * WT_PREFIXES_PER_PEER ||
	    !find_free(table, key, &place))
		return -ENOSPC;
	tags = tags_of(table, key->family, place.bucket);
	STORE(*incarnation_of(table, key->family, &place), attribution->incarnation);
	raise_marks(table, key);
	pass_buckets(table, key, place.step, 1);
	write_entry(table, key, &place, attribution->slot);
	STORE(*tags, *tags | wt_tag(key->hash) << 8 * place.way);
	place_window(table, key);
	store_window(table, key, WT_ATTRIBUTED | attribution->slot);
	return 0;
}

/* The window first: a prefix whose entry says that it has moved has moved. */
static void move_entry(struct attribution_table *table, const struct key *key, const struct place *place,
		       const struct wt_attribution *attribution)
{
	__u64 *word = word_at(table, key->family, place->bucket, place->way);

	store_window(table, key, WT_ATTRIBUTED | attribution->slot);
	STORE(*incarnation_of(table, key->family, place), attribution->incarnation);
	STORE(*word, (*word & ~(uint64_t)WT_SLOT_MASK) | attribution->slot);
}

int attribution_set(struct attribution_table *table, const struct cidr *prefix,
		    const struct wt_attribution *attribution)
{
	struct key key = make_key(table, prefix);
	struct wt_family *family = family_of(table, &key);
	struct place place;

	if (key.length == 0) {
		STORE(family->fallback_incarnation, attribution->incarnation);
		STORE(family->fallback, WT_ATTRIBUTED | attribution->slot);
		return 0;
	}
	if (!find(table, &key, &place))
		return add_entry(table, &key, attribution);
	move_entry(table, &key, &place, attribution);
	return 0;
}

int attribution_delete(struct attribution_table *table, const struct cidr *prefix)
{
	struct key key = make_key(table, prefix);
	struct wt_family *family = family_of(table, &key);
	struct place place;
	__u64 *tags;

	if (key.length == 0) {
		if (!family->fallback)
			return -ENOENT;
		STORE(family->fallback, 0);
		return 0;
	}
	if (!find(table, &key, &place))
		return -ENOENT;
	tags = tags_of(table, key.family, place.bucket);
	store_window(table, &key, 0);
	STORE(*tags, *tags & ~(0xffULL << 8 * place.way));
	pass_buckets(table, &key, place.step, -1);
	lower_marks(table, &key);
	return 0;
}

/* ---- all of it ---- */

static unsigned length_of_code(uint32_t code)
{
	unsigned bit = 0;

	while (wt_mark_code(1ULL << bit) != (code & 63))
		bit++;
	return (code & WT_CODE6_HIGH ? 64 : 128) - bit;
}

static struct key key_at(const struct attribution_table *table, int family, const struct place *place)
{
	uint64_t word = *word_at(table, family, place->bucket, place->way);
	struct key key = {.family = family};

	if (family == WT_IPV4) {
		uint64_t identity = word >> WT_SLOT_BITS;
		unsigned bit = (unsigned)__builtin_ctzll(identity);

		key.length = 32 - bit;
		key.low = (identity & (identity - 1)) >> 1;
	} else {
		key.length = length_of_code(word >> WT_SLOT_BITS & 127);
		key.high = table->buckets6[place->bucket].entries[place->way].high;
		key.low = table->buckets6[place->bucket].entries[place->way].low;
	}
	finish_key(table, &key);
	return key;
}

typedef int (*entry_fn)(const struct attribution_table *table, const struct key *key,
			const struct place *place, void *data);

static int for_each_entry(const struct attribution_table *table, int family, entry_fn fn, void *data)
{
	struct place place = {0};
	int r = 0;

	for (; r == 0 && place.bucket < wt_buckets(table->capacity); place.bucket++) {
		uint64_t tags = *tags_of(table, family, place.bucket);

		for (place.way = 1; r == 0 && place.way <= WT_WAYS; place.way++) {
			struct key key;

			if (!tag_at(tags, place.way))
				continue;
			key = key_at(table, family, &place);
			r = fn(table, &key, &place, data);
		}
	}
	return r;
}

struct visitor {
	attribution_fn fn;
	void *data;
};

static int visit(const struct attribution_table *table, const struct key *key, const struct place *place,
		 void *data)
{
	const struct visitor *visitor = data;
	const struct wt_attribution attribution = {
		.slot = *word_at(table, key->family, place->bucket, place->way) & WT_SLOT_MASK,
		.incarnation = *incarnation_of(table, key->family, place),
	};
	struct cidr prefix = make_cidr(key);

	return visitor->fn(&prefix, &attribution, visitor->data);
}

static int visit_fallback(const struct attribution_table *table, int index, const struct visitor *visitor)
{
	const struct wt_family *family = &table->heads->families[index];
	const struct wt_attribution attribution = {family->fallback & WT_SLOT_MASK,
						   family->fallback_incarnation};
	const struct key key = {.family = index};
	struct cidr prefix = make_cidr(&key);

	return family->fallback ? visitor->fn(&prefix, &attribution, visitor->data) : 0;
}

int attribution_for_each(const struct attribution_table *table, attribution_fn fn, void *data)
{
	struct visitor visitor = {fn, data};
	int r = 0;

	for (int family = 0; r == 0 && family < WT_FAMILIES; family++) {
		r = visit_fallback(table, family, &visitor);
		if (r == 0)
			r = for_each_entry(table, family, visit, &visitor);
	}
	return r;
}

/* ---- after a crash ---- */

struct recovery {
	uint64_t lengths[WT_FAMILIES][2];
	uint8_t *beyond; /* by bucket, of one family */
};

static int count_entry(const struct attribution_table *table, const struct key *key,
		       const struct place *place, void *data)
{
	uint32_t buckets = wt_buckets(table->capacity);
	uint8_t *count = hint_count(table, key);
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
		struct key key = {.family = index,
				  .length = index == WT_IPV4 ? 32 : 128,
				  .high = family->window_high,
				  .low = family->window_low + offset};
		struct place place;
		uint32_t exact = 0;

		finish_key(table, &key);
		if (find(table, &key, &place))
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
		r = for_each_entry(table, family, count_entry, &recovery);
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
