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

/* With FULL=1 only: others are like them. */
static const char *const rare[] = {"vxlan over IPv6", "ip6tnl with a limit", "gre with a key", "ip6gretap"};

/* Each kind to one of the ends, and SRv6 to both: what comes out of it on the gateway is at the hook again.
 */
static bool is_wanted(const struct tunnel_kind *kind, int end)
{
	for (size_t i = 0; !full && i < ARRAY_SIZE(rare); i++)
		if (strcmp(kind->name, rare[i]) == 0)
			return false;
	return full || kind->end == end || kind == tunnel_named("srv6") ||
	       kind == tunnel_named("ipip in srv6 in srv6");
}

static void tunnels_to(int end)
{
	int wrong = 0;

	for (size_t i = 0; i < TUNNEL_KINDS; i++) {
		const struct tunnel_kind *kind = &tunnel_kinds[i];

		if (!is_wanted(kind, end))
			continue;
		tunnel_make(kind, end, NUMBER);
		wrong += !(tunnel_is_cut(kind) ? compare_any_traffic
					       : compare_traffic)(kind->name, send_through, kind, end);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(w1_w2_tunnels_that_end_on_the_gateway, compare_setup,
						compare_teardown),
		cmocka_unit_test_setup_teardown(w1_w2_tunnels_that_are_carried_through, compare_setup,
						compare_teardown),
	};

	full = lab_is_full();
	if (lab_make() || lab_make_container() || tunnels_prepare()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
