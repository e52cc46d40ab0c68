// SPDX-License-Identifier: BSD-2-Clause
/*
 * Tunnels within the tunnel, in aggregates: what the meter has counted of them, byte by byte and packet by
 * packet, is what a capture in the customer's namespace has seen, where no device makes aggregates. In the
 * virtual machine only.
 */
#include "compare.h"
#include "lab.h"
#include "tunnels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AMOUNT 60000
#define NUMBER 1 /* of the tunnel */

static bool full; /* FULL=1 */

/* Down by the first version of IP that it can carry and up by the last; with FULL=1 by each. */
static void send_through(const void *data, int end)
{
	const struct tunnel_kind *kind = data;
	const int first = kind->within & IPV4 ? IPV4 : IPV6, last = kind->within & IPV6 ? IPV6 : IPV4;

	lab_tcp(end, 1, tunnel_address(NUMBER, first, true), AMOUNT);
	lab_tcp(1, end, tunnel_address(NUMBER, last, false), AMOUNT);
	if (!full)
		return;
	lab_tcp(end, 1, tunnel_address(NUMBER, last, true), 10 * AMOUNT);
	lab_tcp(1, end, tunnel_address(NUMBER, first, false), 10 * AMOUNT);
}

static void tunnels_to(int end)
{
	int wrong = 0;

	for (size_t i = 0; i < TUNNEL_KINDS; i++) {
		const struct tunnel_kind *kind = &tunnel_kinds[i];

		if ((kind->end != end && !full) || !tunnel_ends_at(kind, end))
			continue;
		tunnel_make(kind, end, NUMBER);
		wrong += !compare_traffic(kind->name, send_through, kind, end);
		tunnel_remove(end, NUMBER);
	}
	assert_int_equal(wrong, 0);
}

static void w1_w2_tunnels_that_end_on_the_gateway(void **state)
{
	(void)state;
	tunnels_to(GATEWAY);
}

static void w1_w2_tunnels_that_are_carried_through(void **state)
{
	(void)state;
	tunnels_to(CONTAINER);
}

/* What the kernel takes out of SRv6 on the gateway it hands to the same device again, with the outer header
 * still before it: the hook has it twice. */
static void w1_srv6_that_ends_on_the_gateway_is_counted_again(void **state)
{
	struct moment before, after;

	(void)state;
	tunnel_make(tunnel_named("srv6"), GATEWAY, NUMBER);
	before = compare_look();
	before = compare_rest(&before);
	lab_tcp(1, GATEWAY, tunnel_address(NUMBER, IPV6, false), AMOUNT);
	after = compare_rest(&before);
	compare_tell("srv6 to the gateway", &before, &after);
	assert_int_equal(compare_excess(&before, &after, CAPTURE_IN), 0);
	assert_int_equal(compare_excess(&before, &after, CAPTURE_OUT),
			 after.seen.bytes[CAPTURE_OUT] - before.seen.bytes[CAPTURE_OUT]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(w1_w2_tunnels_that_end_on_the_gateway, compare_setup,
						compare_teardown),
		cmocka_unit_test_setup_teardown(w1_w2_tunnels_that_are_carried_through, compare_setup,
						compare_teardown),
		cmocka_unit_test_setup_teardown(w1_srv6_that_ends_on_the_gateway_is_counted_again,
						compare_setup, compare_teardown),
	};
	const char *wanted = getenv("FULL");

	full = wanted && strcmp(wanted, "1") == 0;
	if (lab_make() || lab_make_container() || tunnels_prepare()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
