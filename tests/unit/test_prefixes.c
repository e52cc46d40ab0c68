// SPDX-License-Identifier: BSD-2-Clause
/*
 * The attribution table, written by user space's code and read by the programs' own, both compiled here
 * (I16). The oracle is a list that is scanned for the longest prefix. The reader looks, and the writer dies,
 * after each single store.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

static void stored(void);

#define STORE(word, value) (__atomic_store_n(&(word), value, __ATOMIC_RELEASE), stored())
#include "../../userspace/meter/attribution.c"
#include "../../userspace/meter/attribution_recover.c"

#define TABLE_CLAIM(condition) assert_true(condition)
#include "prefix_table.h"
#include "../chance.h"
#include "../prefix_oracle.h"

/* ---- the oracle ---- */

struct known {
	struct cidr prefix;
	struct wt_attribution attribution;
};

static struct known list[4096];
static size_t listed;

static uint32_t expected(const struct cidr *address)
{
	const struct known *longest = NULL;

	for (size_t i = 0; i < listed; i++) {
		if (holds(&list[i].prefix, address) &&
		    (!longest || list[i].prefix.prefix_length > longest->prefix.prefix_length))
			longest = &list[i];
	}
	return longest ? longest->attribution.slot : WT_SLOT_UNATTRIBUTED;
}

static struct known *listed_as(const struct cidr *prefix)
{
	for (size_t i = 0; i < listed; i++) {
		if (cidr_equal(&list[i].prefix, prefix))
			return &list[i];
	}
	return NULL;
}

static void list_set(const struct cidr *prefix, struct wt_attribution attribution)
{
	struct known *known = listed_as(prefix);

	assert_true(known || listed < ARRAY_SIZE(list));
	if (!known)
		known = &list[listed++];
	*known = (struct known){*prefix, attribution};
}

static void list_delete(const struct cidr *prefix)
{
	struct known *known = listed_as(prefix);

	assert_non_null(known);
	*known = list[--listed];
}

/* ---- random prefixes that nest, and addresses in and around them ---- */

/* Few different bits, all over the address, so that prefixes of all lengths share their beginnings. */
static struct cidr random_address(void)
{
	struct cidr address = {.family = random_below(2) ? AF_INET : AF_INET6};
	unsigned size = address.family == AF_INET ? 4 : 16;
	static const uint8_t few[] = {0, 0, 1, 3, 128};

	address.bytes[0] = 10;
	for (unsigned i = 1; i < size; i++)
		address.bytes[i] = few[random_below(sizeof(few))];
	/* IPv6 addresses that hold an IPv4 one are IPv6 addresses. */
	if (size == 16 && !random_below(4)) {
		memset(address.bytes, 0, 10);
		memset(address.bytes + 10, 0xff, 2);
	}
	if (size == 16 && random_below(2))
		memset(address.bytes + 4, 0, 8);
	address.prefix_length = size * 8;
	return address;
}

static struct cidr random_prefix(void)
{
	struct cidr prefix = random_address();

	if (random_below(3))
		prefix.prefix_length = random_below(prefix.prefix_length + 1);
	return cidr_network(&prefix);
}

/* ---- a table of its own for each test ---- */

static int setup(void **state)
{
	(void)state;
	random_state = 88172645463325252ULL;
	listed = 0;
	make_table(64);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free_table();
	return 0;
}

/* ---- one change, watched ---- */

#define WATCHED 16

static struct {
	bool looking;
	struct cidr addresses[WATCHED];
	uint32_t before[WATCHED], after[WATCHED];
	int stores, die_after; /* 0: never */
	jmp_buf death;
} watch;

static void look(void)
{
	for (int i = 0; i < WATCHED; i++) {
		uint32_t slot = answered(&watch.addresses[i]);

		assert_true(slot == watch.before[i] || slot == watch.after[i]);
	}
}

static void stored(void)
{
	if (!watch.looking)
		return;
	look();
	if (++watch.stores == watch.die_after)
		longjmp(watch.death, 1);
}

struct change {
	bool deletes;
	struct cidr prefix;
	struct wt_attribution attribution;
};

static struct change random_change(void)
{
	struct change change = {.prefix = random_prefix(),
				.attribution = {1 + random_below(63), random_below(1000)}};

	/* What is there is moved and removed as often as something is added. */
	if (listed && random_below(3))
		change.prefix = list[random_below((uint32_t)listed)].prefix;
	change.deletes = listed_as(&change.prefix) && !random_below(listed > 200 ? 2 : 4);
	return change;
}

static int apply(const struct change *change)
{
	return change->deletes ? attribution_delete(&table, &change->prefix)
			       : attribution_set(&table, &change->prefix, &change->attribution);
}

/* Chooses addresses in and around the prefix, and applies the change to the list only. */
static void begin_watch(const struct change *change)
{
	for (int i = 0; i < WATCHED; i++) {
		struct cidr *address = &watch.addresses[i];

		*address = random_address();
		if (address->family == change->prefix.family && i % 2) {
			for (unsigned bit = 0; bit < change->prefix.prefix_length; bit++) {
				uint8_t mask = (uint8_t)(0x80 >> bit % 8);

				address->bytes[bit / 8] = (uint8_t)((address->bytes[bit / 8] & ~mask) |
								    (change->prefix.bytes[bit / 8] & mask));
			}
		}
		watch.before[i] = expected(address);
	}
	if (change->deletes)
		list_delete(&change->prefix);
	else
		list_set(&change->prefix, change->attribution);
	for (int i = 0; i < WATCHED; i++)
		watch.after[i] = expected(&watch.addresses[i]);
	watch.stores = 0;
}

static int check_listed(const struct cidr *prefix, const struct wt_attribution *attribution, void *data)
{
	const struct known *known = listed_as(prefix);

	assert_non_null(known);
	assert_int_equal(known->attribution.slot, attribution->slot);
	assert_int_equal(known->attribution.incarnation, attribution->incarnation);
	++*(size_t *)data;
	return 0;
}

static void assert_same_as_listed(void)
{
	size_t seen = 0;

	assert_int_equal(attribution_for_each(&table, check_listed, &seen), 0);
	assert_int_equal(seen, listed);
	for (int i = 0; i < 50; i++) {
		struct cidr address = random_address();

		assert_int_equal(answered(&address), expected(&address));
	}
}

static void answers_like_a_list_between_all_stores(void **state)
{
	(void)state;
	for (int round = 0; round < 3000; round++) {
		struct change change = random_change();

		begin_watch(&change);
		watch.looking = true;
		assert_int_equal(apply(&change), 0);
		watch.looking = false;
		memcpy(watch.before, watch.after, sizeof(watch.before));
		look();
		if (round % 50 == 0)
			assert_same_as_listed();
	}
	assert_true(listed > 100);
}

/* Dies after the store of the given number; false when the change was over before. */
static bool dies_after(const struct change *change, int stores)
{
	watch.die_after = stores;
	watch.looking = true;
	if (setjmp(watch.death) == 0)
		assert_int_equal(apply(change), 0);
	watch.looking = false;
	return watch.stores == stores;
}

/* What a program has of a dead writer are the maps; the counts are gone with it. */
static void survives_a_death_after_any_store(void **state)
{
	(void)state;
	for (int round = 0; round < 800; round++) {
		struct change change = random_change();
		int r;

		begin_watch(&change);
		if (!dies_after(&change, 1 + random_below(9)))
			memcpy(watch.before, watch.after, sizeof(watch.before));
		look();
		watch.die_after = 0;
		watch.looking = true;
		assert_int_equal(attribution_recover(&table), 0);
		watch.looking = false;
		look();
		r = apply(&change);
		assert_true(r == 0 || (change.deletes && r == -ENOENT));
		memcpy(watch.before, watch.after, sizeof(watch.before));
		look();
		if (round % 50 == 0)
			assert_same_as_listed();
	}
	assert_true(listed > 50);
}

static void leaves_nothing_behind(void **state)
{
	struct change change = {.deletes = true};

	answers_like_a_list_between_all_stores(state);
	while (listed) {
		change.prefix = list[0].prefix;
		list_delete(&change.prefix);
		assert_int_equal(apply(&change), 0);
	}
	assert_true(table_is_empty());
}

static struct cidr numbered(int family, uint32_t number)
{
	struct cidr prefix = {.family = family, .prefix_length = family == AF_INET ? 24 : 48};

	prefix.bytes[0] = 20;
	prefix.bytes[1] = (uint8_t)(number >> 8);
	prefix.bytes[2] = (uint8_t)number;
	return prefix;
}

/* Whether prefixes stand beyond full buckets. */
static bool some_are_passed(int family)
{
	for (uint32_t bucket = 0; bucket < buckets; bucket++) {
		if (BEYOND(*tags_of(&table, family, bucket)))
			return true;
	}
	return false;
}

/* The promised number fits, one more is refused and changes nothing. */
static void refuses_what_has_no_room(void **state)
{
	static const int families[] = {AF_INET, AF_INET6};
	const uint32_t room = 64 * WT_PREFIXES_PER_PEER;
	const struct wt_attribution attribution = {1, 1}, other = {2, 1};

	(void)state;
	for (int f = 0; f < WT_FAMILIES; f++) {
		struct cidr prefix;

		for (uint32_t i = 0; i < room; i++) {
			prefix = numbered(families[f], i);
			assert_int_equal(attribution_set(&table, &prefix, &attribution), 0);
		}
		assert_true(some_are_passed(f));
		prefix = numbered(families[f], room);
		assert_int_equal(attribution_set(&table, &prefix, &other), -ENOSPC);
		assert_int_equal(answered(&prefix), 0);
		for (uint32_t i = 0; i < room; i++) {
			prefix = numbered(families[f], i);
			assert_int_equal(answered(&prefix), 1);
		}
		assert_int_equal(attribution_set(&table, &prefix, &other), 0);
		assert_int_equal(answered(&prefix), 2);
		assert_int_equal(attribution_delete(&table, &prefix), 0);
		prefix = numbered(families[f], room);
		assert_int_equal(attribution_set(&table, &prefix, &other), 0);
		assert_int_equal(answered(&prefix), 2);
	}
}

static void gives_each_length_a_code_of_its_own(void **state)
{
	uint64_t seen = 0;

	(void)state;
	for (unsigned bit = 0; bit < 64; bit++)
		seen |= 1ULL << wt_mark_code(1ULL << bit);
	assert_true(seen == ~0ULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(answers_like_a_list_between_all_stores, setup, teardown),
		cmocka_unit_test_setup_teardown(survives_a_death_after_any_store, setup, teardown),
		cmocka_unit_test_setup_teardown(leaves_nothing_behind, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_what_has_no_room, setup, teardown),
		cmocka_unit_test(gives_each_length_a_code_of_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
