// SPDX-License-Identifier: BSD-2-Clause
/*
 * The attribution table's writer. Bits and counts that send a lookup on its way are raised before an entry
 * is stored and lowered after it is gone, so that they may promise too much but never too little.
 */
#include "meter/attribution_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static uint64_t read_word(const uint8_t *bytes, size_t count)
{
	uint64_t word = 0;

	while (count--)
		word = word << 8 | *bytes++;
	return word;
}

void attribution_finish_key(const struct attribution_table *table, struct table_key *key)
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

static struct table_key make_key(const struct attribution_table *table, const struct cidr *prefix)
{
	struct table_key key = {.family = prefix->family == AF_INET ? WT_IPV4 : WT_IPV6,
				.length = prefix->prefix_length};

	if (key.family == WT_IPV4) {
		key.low = read_word(prefix->bytes, 4);
	} else {
		key.high = read_word(prefix->bytes, 8);
		key.low = read_word(prefix->bytes + 8, 8);
	}
	attribution_finish_key(table, &key);
	return key;
}

static struct cidr make_cidr(const struct table_key *key)
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

static uint32_t *incarnation_of(const struct attribution_table *table, int family,
				const struct table_place *place)
{
	uint32_t first = family == WT_IPV4 ? 0 : wt_buckets(table->capacity);

	return &table->incarnations[first + place->bucket].of[place->way];
}

static bool stands_at(const struct attribution_table *table, const struct table_key *key,
		      const struct table_place *place)
{
	const struct wt_entry6 *entry;

	if (key->family == WT_IPV4)
		return table->buckets4[place->bucket].words[place->way] >> WT_SLOT_BITS == key->identity;
	entry = &table->buckets6[place->bucket].entries[place->way];
	return (entry->head >> WT_SLOT_BITS & 127) == key->code && entry->high == key->high &&
	       entry->low == key->low;
}

bool attribution_find(const struct attribution_table *table, const struct table_key *key,
		      struct table_place *ret_place)
{
	uint32_t buckets = wt_buckets(table->capacity);

	for (uint32_t step = 0; step < WT_CHAIN; step++) {
		struct table_place place = {step, wt_bucket_index(key->hash, step, buckets), 0};
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

static bool find_free(const struct attribution_table *table, const struct table_key *key,
		      struct table_place *ret_place)
{
	uint32_t buckets = wt_buckets(table->capacity);

	for (uint32_t step = 0; step < WT_CHAIN; step++) {
		struct table_place place = {step, wt_bucket_index(key->hash, step, buckets), 0};
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

static bool has_hint(const struct table_key *key)
{
	return key->family == WT_IPV4 ? key->mark <= WT_HINTED4
				      : key->length <= 64 && key->mark <= WT_HINTED6;
}

static uint32_t hint_of(const struct attribution_table *table, const struct table_key *key)
{
	const uint32_t hints = wt_hints(table->capacity);

	return key->family == WT_IPV4 ? wt_hint4((uint32_t)key->low, hints) : wt_hint6(key->high, hints);
}

uint8_t *attribution_hint_count(const struct attribution_table *table, const struct table_key *key)
{
	const int bit = __builtin_ctzll(key->mark);

	if (!has_hint(key))
		return NULL;
	return key->family == WT_IPV4 ? &table->counts->hints4[hint_of(table, key)][bit]
				      : &table->counts->hints6[hint_of(table, key)][bit];
}

static void change_hint(const struct attribution_table *table, const struct table_key *key, bool set)
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

static void raise_hint(const struct attribution_table *table, const struct table_key *key)
{
	uint8_t *count = attribution_hint_count(table, key);

	if (count && *count != HINT_MOST && !(*count)++)
		change_hint(table, key, true);
}

static void lower_hint(const struct attribution_table *table, const struct table_key *key)
{
	uint8_t *count = attribution_hint_count(table, key);

	if (count && *count != HINT_MOST && !--*count)
		change_hint(table, key, false);
}

static __u64 *lengths_of(const struct attribution_table *table, const struct table_key *key)
{
	return &family_of(table, key)->lengths[key->family == WT_IPV6 && key->length <= 64];
}

static void raise_marks(struct attribution_table *table, const struct table_key *key)
{
	table->counts->prefixes[key->family]++;
	if (!table->counts->lengths[key->family][key->length]++)
		STORE(*lengths_of(table, key), *lengths_of(table, key) | key->mark);
	raise_hint(table, key);
}

static void lower_marks(struct attribution_table *table, const struct table_key *key)
{
	table->counts->prefixes[key->family]--;
	lower_hint(table, key);
	if (!--table->counts->lengths[key->family][key->length])
		STORE(*lengths_of(table, key), *lengths_of(table, key) & ~key->mark);
}

/* Counts the prefix, or counts it no more, in the buckets that it passes. */
static void pass_buckets(const struct attribution_table *table, const struct table_key *key, uint32_t steps,
			 int by)
{
	for (uint32_t step = 0; step < steps; step++) {
		uint32_t bucket = wt_bucket_index(key->hash, step, wt_buckets(table->capacity));
		__u64 *tags = tags_of(table, key->family, bucket);

		if (BEYOND(*tags) != BEYOND_MOST)
			STORE(*tags, *tags + (uint64_t)(int64_t)by);
	}
}

/* ---- the window ---- */

static bool is_host(const struct table_key *key)
{
	return key->length == (key->family == WT_IPV4 ? 32 : 128);
}

/* Where the window answers for the address, or NULL. */
static uint32_t *window_of(const struct attribution_table *table, const struct table_key *key)
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
static void place_window(struct attribution_table *table, const struct table_key *key)
{
	struct wt_family *family = family_of(table, key);
	uint32_t size = wt_window_size(table->capacity);

	if (family->window_size || !is_host(key))
		return;
	STORE(family->window_high, key->high);
	STORE(family->window_low, key->low & -(uint64_t)size);
	STORE(family->window_size, size);
}

static void store_window(struct attribution_table *table, const struct table_key *key, uint32_t value)
{
	uint32_t *slot = window_of(table, key);

	if (slot && *slot != value)
		STORE(*slot, value);
}

/* ---- entries ---- */

static void write_entry(struct attribution_table *table, const struct table_key *key,
			const struct table_place *place, uint32_t slot)
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

static int add_entry(struct attribution_table *table, const struct table_key *key,
		     const struct wt_attribution *attribution)
{
	struct table_place place;
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
static void move_entry(struct attribution_table *table, const struct table_key *key,
		       const struct table_place *place, const struct wt_attribution *attribution)
{
	__u64 *word = word_at(table, key->family, place->bucket, place->way);

	store_window(table, key, WT_ATTRIBUTED | attribution->slot);
	STORE(*incarnation_of(table, key->family, place), attribution->incarnation);
	STORE(*word, (*word & ~(uint64_t)WT_SLOT_MASK) | attribution->slot);
}

int attribution_set(struct attribution_table *table, const struct cidr *prefix,
		    const struct wt_attribution *attribution)
{
	struct table_key key = make_key(table, prefix);
	struct wt_family *family = family_of(table, &key);
	struct table_place place;

	if (key.length == 0) {
		STORE(family->fallback_incarnation, attribution->incarnation);
		STORE(family->fallback, WT_ATTRIBUTED | attribution->slot);
		return 0;
	}
	if (!attribution_find(table, &key, &place))
		return add_entry(table, &key, attribution);
	move_entry(table, &key, &place, attribution);
	return 0;
}

int attribution_delete(struct attribution_table *table, const struct cidr *prefix)
{
	struct table_key key = make_key(table, prefix);
	struct wt_family *family = family_of(table, &key);
	struct table_place place;
	__u64 *tags;

	if (key.length == 0) {
		if (!family->fallback)
			return -ENOENT;
		STORE(family->fallback, 0);
		return 0;
	}
	if (!attribution_find(table, &key, &place))
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

static struct table_key key_at(const struct attribution_table *table, int family,
			       const struct table_place *place)
{
	uint64_t word = *word_at(table, family, place->bucket, place->way);
	struct table_key key = {.family = family};

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
	attribution_finish_key(table, &key);
	return key;
}

int attribution_each_entry(const struct attribution_table *table, int family, attribution_entry_fn fn,
			   void *data)
{
	struct table_place place = {0};
	int r = 0;

	for (; r == 0 && place.bucket < wt_buckets(table->capacity); place.bucket++) {
		uint64_t tags = *tags_of(table, family, place.bucket);

		for (place.way = 1; r == 0 && place.way <= WT_WAYS; place.way++) {
			struct table_key key;

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

static int visit(const struct attribution_table *table, const struct table_key *key,
		 const struct table_place *place, void *data)
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
	const struct table_key key = {.family = index};
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
			r = attribution_each_entry(table, family, visit, &visitor);
	}
	return r;
}
