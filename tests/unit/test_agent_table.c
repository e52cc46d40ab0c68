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
#include <time.h>

#include <cmocka.h>

#include "agent/slots.h"
#include "agent/table.h"

#define ROUNDS 200
#define BATCH  100
#define PEERS  64

#define MANY_PREFIXES 100000
#define MANY_PEERS    20000
/* Of CPU, with sanitizers. It is a hundredth of that, and was many times as much. */
#define MOST_SECONDS 1.0

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

static double cpu_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The highest prefix first, which is the worst for who makes room for each: minutes. */
static void test_s4a_a_hundred_thousand_prefixes_take_no_time(void **state)
{
	struct table_entry *entries = calloc(MANY_PREFIXES, sizeof(*entries));
	struct table table = {0};
	double began;

	(void)state;
	assert_non_null(entries);
	for (uint32_t i = 0; i < MANY_PREFIXES; i++) {
		uint32_t number = MANY_PREFIXES - i;

		entries[i] = (struct table_entry){
			.prefix = {.family = AF_INET, .prefix_length = 32, .bytes = {10}},
			.slot = 1,
			.incarnation = 1};
		for (int byte = 0; byte < 3; byte++)
			entries[i].prefix.bytes[1 + byte] = (uint8_t)(number >> (16 - 8 * byte));
	}
	began = cpu_seconds();
	assert_int_equal(table_put_all(&table, entries, MANY_PREFIXES), 0);
	assert_true(cpu_seconds() - began < MOST_SECONDS);
	assert_int_equal(table.count, MANY_PREFIXES);
	table_free(&table);
	free(entries);
}

static void test_s4b_thousands_that_leave_take_no_time(void **state)
{
	uint32_t *held = calloc(MANY_PEERS, sizeof(*held));
	struct slots slots;
	double began;

	(void)state;
	assert_non_null(held);
	assert_int_equal(slots_create(MANY_PEERS + 1, &slots), 0);
	for (uint32_t i = 0; i < MANY_PEERS; i++) {
		uint8_t id[16] = {0};

		memcpy(id, &i, sizeof(i));
		assert_int_equal(slots_assign(&slots, id, &held[i]), 0);
	}
	began = cpu_seconds();
	for (uint32_t i = 0; i < MANY_PEERS; i++)
		slots_retire(&slots, held[i]);
	assert_true(cpu_seconds() - began < MOST_SECONDS);
	slots_free(&slots);
	free(held);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_s4a_many_at_once_are_the_same_as_one_by_one),
		cmocka_unit_test(test_s4b_peers_are_found_whoever_left_before),
		cmocka_unit_test(test_s4a_a_hundred_thousand_prefixes_take_no_time),
		cmocka_unit_test(test_s4b_thousands_that_leave_take_no_time),
	};

	return cmocka_run_group_tests_name("agent's table and slots", tests, NULL, NULL);
}
