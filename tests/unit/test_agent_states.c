// SPDX-License-Identifier: BSD-2-Clause
/* States that wait for a batch: none is lost, none is longer or shorter, however many there are. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "agent/states.h"

#define SECOND 1000000000LL

static enum gateway_state turn(size_t i)
{
	static const enum gateway_state turns[] = {GATEWAY_ACTIVE, GATEWAY_SUSPENDED, GATEWAY_DOWN};

	return turns[i % 3];
}

/* What batches have told, one behind the other; what goes on behind a batch is one with what it says of it.
 */
struct told {
	struct batch_state list[2 * STATES_MAX];
	size_t n;
};

static bool tell(struct states *states, struct told *told, int64_t covered_to_ns)
{
	struct batch_head head = {.covered_to_ns = covered_to_ns};
	bool more = states_take(states, &head);

	assert_in_range(head.n_states, 0, WT_REPORT_MAX_STATES);
	for (size_t i = 0; i < head.n_states; i++) {
		struct batch_state *last = told->n ? &told->list[told->n - 1] : NULL;

		if (last && last->state == head.states[i].state && last->to_ns == head.states[i].from_ns)
			last->to_ns = head.states[i].to_ns;
		else
			told->list[told->n++] = head.states[i];
	}
	return more;
}

/* Change i lasts from i to i + 1 seconds; the last one to the end of what is covered. */
static void assert_all_told(size_t n_changes)
{
	static struct states states;
	static struct told told;
	int64_t end = (int64_t)n_changes * SECOND;
	size_t k = 0;

	memset(&states, 0, sizeof(states));
	memset(&told, 0, sizeof(told));
	for (size_t i = 0; i < n_changes; i++)
		states_set(&states, turn(i), (int64_t)i * SECOND);
	while (tell(&states, &told, end))
		end += SECOND;
	end += SECOND;
	assert_false(tell(&states, &told, end));
	for (size_t i = 0; i < n_changes; i++) {
		if (turn(i) == GATEWAY_DOWN)
			continue;
		assert_in_range(k, 0, told.n - 1);
		assert_int_equal(told.list[k].state, turn(i));
		assert_int_equal(told.list[k].from_ns, (int64_t)i * SECOND);
		assert_int_equal(told.list[k].to_ns, i + 1 < n_changes ? (int64_t)(i + 1) * SECOND : end);
		k++;
	}
	assert_int_equal(k, told.n);
}

static void test_m3_more_states_than_a_batch_has_room_for(void **state)
{
	(void)state;
	for (size_t n = 1; n <= 3 * WT_REPORT_MAX_STATES + 2; n++)
		assert_all_told(n);
	assert_all_told(STATES_MAX - 1);
}

static void test_the_last_one_stands_for_the_rest(void **state)
{
	static struct states states;
	static struct told told;
	int64_t end = 3 * STATES_MAX * SECOND;

	(void)state;
	for (size_t i = 0; i < 3 * STATES_MAX; i++)
		states_set(&states, i % 2 ? GATEWAY_SUSPENDED : GATEWAY_ACTIVE, (int64_t)i * SECOND);
	while (tell(&states, &told, end))
		end += SECOND;
	/* The last of them is as the one before it, in the end. */
	assert_int_equal(told.n, STATES_MAX - 2);
	assert_int_equal(told.list[told.n - 1].to_ns, end);
	assert_int_equal(told.list[told.n - 1].state, GATEWAY_SUSPENDED);
}

static void test_what_stays_the_same_is_no_change(void **state)
{
	static struct states states;
	struct batch_head head = {.covered_to_ns = 9 * SECOND};

	(void)state;
	states_set(&states, GATEWAY_DOWN, 1 * SECOND);
	assert_int_equal(states.n, 0);
	assert_false(states_take(&states, &head));
	states_set(&states, GATEWAY_ACTIVE, 2 * SECOND);
	states_set(&states, GATEWAY_ACTIVE, 3 * SECOND);
	assert_false(states_take(&states, &head));
	assert_int_equal(head.n_states, 1);
	assert_int_equal(head.states[0].from_ns, 2 * SECOND);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_m3_more_states_than_a_batch_has_room_for),
		cmocka_unit_test(test_the_last_one_stands_for_the_rest),
		cmocka_unit_test(test_what_stays_the_same_is_no_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
