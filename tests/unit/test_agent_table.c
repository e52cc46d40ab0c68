// SPDX-License-Identifier: BSD-2-Clause
/* The agent's copy of the attribution table, and the index of its slots, against the plain way of doing the
 * same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "agent/slots.h"
#include "agent/table.h"

#define ROUNDS 200
#define BATCH  100
#define PEERS  64

static struct table_entry some_entry(void)
{
	struct table_entry entry = {.prefix = {.family = AF_INET, .prefix_length = 32, .bytes = {10}},
				    .slot = (uint32_t)rand() % 50,
				    .incarnation = 1};

	/* Few of them, so that many are there already. */
	entry.prefix.bytes[2] = (uint8_t)(rand() % 4);
	entry.prefix.bytes[3] = (uint8_t)rand();
	return entry;
}

static bool is_in(const struct table_entry *entries, size_t n, const struct cidr *prefix)
{
	for (size_t i = 0; i < n; i++)
		if (cidr_equal(&entries[i].prefix, prefix))
			return true;
	return false;
}

static void assert_same(const struct table *a, const struct table *b)
{
	assert_int_equal(a->count, b->count);
	for (size_t i = 0; i < a->count; i++) {
		assert_int_equal(cidr_compare(&a->entries[i].prefix, &b->entries[i].prefix), 0);
		assert_int_equal(a->entries[i].slot, b->entries[i].slot);
	}
}

static void test_s4a_many_at_once_are_the_same_as_one_by_one(void **state)
{
	struct table together = {0}, single = {0};

	(void)state;
	srand(1);
	for (int round = 0; round < ROUNDS; round++) {
		struct table_entry batch[BATCH];
		size_t n = 0;

		for (size_t i = 0; i < (size_t)rand() % (BATCH + 1); i++) {
			struct table_entry entry = some_entry();

			if (!is_in(batch, n, &entry.prefix))
				batch[n++] = entry;
		}
		assert_int_equal(table_put_all(&together, batch, n), 0);
		for (size_t i = 0; i < n; i++)
			assert_int_equal(table_put(&single, &batch[i]), 0);
		for (int i = 0; i < 20; i++) {
			struct table_entry entry = some_entry();

			table_delete(&together, &entry.prefix);
			table_delete(&single, &entry.prefix);
		}
		assert_same(&together, &single);
	}
	table_free(&together);
	table_free(&single);
}

static void test_s4b_peers_are_found_whoever_left_before(void **state)
{
	uint8_t ids[PEERS][16] = {{0}};
	uint32_t held[PEERS] = {0};
	struct slots slots;

	(void)state;
	srand(2);
	assert_int_equal(slots_create(PEERS + 1, &slots), 0);
	for (int i = 0; i < PEERS; i++) {
		ids[i][0] = (uint8_t)(i % 7); /* in the same buckets, many of them */
		ids[i][15] = (uint8_t)i;
	}
	for (int turn = 0; turn < 20000; turn++) {
		int i = rand() % PEERS;

		if (held[i] == 0) {
			assert_int_equal(slots_assign(&slots, ids[i], &held[i]), 0);
		} else {
			if (rand() % 2)
				slots_retire(&slots, held[i]);
			slots_release(&slots, held[i]);
			held[i] = 0;
		}
		for (int j = 0; j < PEERS; j++)
			assert_int_equal(slots_find(&slots, ids[j]), held[j]);
	}
	slots_free(&slots);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_s4a_many_at_once_are_the_same_as_one_by_one),
		cmocka_unit_test(test_s4b_peers_are_found_whoever_left_before),
	};

	return cmocka_run_group_tests_name("agent's table and slots", tests, NULL, NULL);
}
