// SPDX-License-Identifier: BSD-2-Clause
/*
 * The attribution table under any sequence of additions, moves, removals, recoveries and lookups (I16). The
 * oracle is a list, of which the longest prefix that holds the address answers.
 */
#include "fuzz.h"

#include "../../userspace/meter/attribution.c"
#include "../../userspace/meter/attribution_recover.c"

#define TABLE_CLAIM CLAIM
#include "../unit/prefix_table.h"

#define CAPACITY 8 /* and so room for 32 prefixes of each family */
#define MOST     64

struct entry {
	struct cidr prefix;
	struct wt_attribution attribution;
};

static struct entry entries[MOST];
static size_t n_entries;

static bool in_prefix(const struct cidr *prefix, const struct cidr *address)
{
	unsigned whole = prefix->prefix_length / 8, rest = prefix->prefix_length % 8;

	return prefix->family == address->family && memcmp(prefix->bytes, address->bytes, whole) == 0 &&
	       (rest == 0 || (prefix->bytes[whole] ^ address->bytes[whole]) >> (8 - rest) == 0);
}

static uint32_t longest(const struct cidr *address)
{
	const struct entry *best = NULL;

	for (size_t i = 0; i < n_entries; i++)
		if (in_prefix(&entries[i].prefix, address) &&
		    (!best || entries[i].prefix.prefix_length > best->prefix.prefix_length))
			best = &entries[i];
	return best ? best->attribution.slot : WT_SLOT_UNATTRIBUTED;
}

static struct entry *entry_of(const struct cidr *prefix)
{
	for (size_t i = 0; i < n_entries; i++)
		if (cidr_equal(&entries[i].prefix, prefix))
			return &entries[i];
	return NULL;
}

static size_t n_of_family(int family)
{
	size_t count = 0;

	/* A default route needs no room. */
	for (size_t i = 0; i < n_entries; i++)
		count += entries[i].prefix.family == family && entries[i].prefix.prefix_length > 0;
	return count;
}

/* Of few different bytes in few places, so that prefixes nest and addresses are met again. */
static struct cidr take_address(struct input *input)
{
	uint32_t kind = take_number(input, 1);
	struct cidr address = {.family = kind % 2 ? AF_INET6 : AF_INET};

	if (address.family == AF_INET) {
		take(input, address.bytes, 4);
		address.bytes[0] &= 3;
	} else {
		take(input, address.bytes + (kind / 2 % 4) * 4, 4);
		take(input, address.bytes + 14, kind & 8 ? 2 : 0);
	}
	address.prefix_length = cidr_max_length(&address);
	return address;
}

static struct cidr take_prefix(struct input *input)
{
	struct cidr prefix = take_address(input);
	uint32_t length = take_number(input, 1);

	if (length % 3)
		prefix.prefix_length = length % (prefix.prefix_length + 1);
	/* One that is there, as often. */
	if (length & 0x80 && n_entries)
		return entries[length % n_entries].prefix;
	return cidr_network(&prefix);
}

static void set(struct input *input)
{
	struct cidr prefix = take_prefix(input);
	struct wt_attribution attribution = {1 + take_number(input, 1) % (CAPACITY - 1),
					     take_number(input, 1)};
	struct entry *entry = entry_of(&prefix);
	bool room = entry || prefix.prefix_length == 0 ||
		    n_of_family(prefix.family) < CAPACITY * WT_PREFIXES_PER_PEER;
	int r;

	if (!entry && n_entries == MOST)
		return;
	r = attribution_set(&table, &prefix, &attribution);
	CLAIM(r == (room ? 0 : -ENOSPC));
	if (r < 0)
		return;
	if (!entry)
		entry = &entries[n_entries++];
	*entry = (struct entry){prefix, attribution};
}

static void delete (struct input *input)
{
	struct cidr prefix = take_prefix(input);
	struct entry *entry = entry_of(&prefix);

	CLAIM(attribution_delete(&table, &prefix) == (entry ? 0 : -ENOENT));
	if (entry)
		*entry = entries[--n_entries];
}

static void look_up(const struct cidr *address)
{
	CLAIM(answered(address) == longest(address));
}

static int claim_listed(const struct cidr *prefix, const struct wt_attribution *attribution, void *data)
{
	const struct entry *entry = entry_of(prefix);

	CLAIM(entry && entry->attribution.slot == attribution->slot &&
	      entry->attribution.incarnation == attribution->incarnation);
	++*(size_t *)data;
	return 0;
}

/* Everything that was ever set answers, at both ends of its range. */
static void claim_all(void)
{
	size_t listed = 0;

	CLAIM(attribution_for_each(&table, claim_listed, &listed) == 0);
	CLAIM(listed == n_entries);
	for (size_t i = 0; i < n_entries; i++) {
		struct cidr address = entries[i].prefix;

		look_up(&address);
		for (unsigned bit = address.prefix_length; bit < cidr_max_length(&address); bit++)
			address.bytes[bit / 8] |= (uint8_t)(0x80 >> bit % 8);
		look_up(&address);
	}
}

/* For the next input, whose first single address places the windows anew. */
static void empty_table(void)
{
	while (n_entries) {
		CLAIM(attribution_delete(&table, &entries[n_entries - 1].prefix) == 0);
		n_entries--;
	}
	CLAIM(table_is_empty());
	for (int family = 0; family < WT_FAMILIES; family++)
		table.heads->families[family].window_size = 0;
}

/*
 * One input in 256 may recover the table, by chance and not by choice: that costs as much as ten thousand of
 * the other steps, and the fuzzer would like it.
 */
static bool has_luck(const uint8_t *data, size_t size)
{
	uint32_t hash = 2166136261U;

	for (size_t i = 0; i < size; i++)
		hash = (hash ^ data[i]) * 16777619U;
	return hash >> 24 == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data, size};
	bool may_recover = has_luck(data, size);

	if (!table.heads)
		make_table(CAPACITY);
	while (input.left) {
		uint32_t what = take_number(&input, 1) % 16;

		if (what < 7) {
			set(&input);
		} else if (what < 11) {
			delete (&input);
		} else if (what == 15 && may_recover) {
			may_recover = false;
			CLAIM(attribution_recover(&table) == 0);
			claim_all();
		} else {
			struct cidr address = take_address(&input);

			look_up(&address);
		}
	}
	claim_all();
	empty_table();
	return 0;
}
