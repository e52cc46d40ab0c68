// SPDX-License-Identifier: BSD-2-Clause
/*
 * Aggregates that carry more than TCP or UDP: SCTP, and what a guest makes. What the meter has counted of
 * them, byte by byte and packet by packet, is what a capture in the customer's namespace has seen, where no
 * device makes aggregates. In the virtual machine only.
 */
#include "compare.h"
#include "guest.h"
#include "lab.h"

#include "net/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define AMOUNT 100000

static uint64_t scale = 1; /* more with FULL=1 */

/* ---- SCTP ----------------------------------------------------------------------------------------------
 */

static void send_sctp(const void *data, int end)
{
	(void)data;
	lab_sctp(end, 1, FIRST4, 2 * AMOUNT * scale);
	lab_sctp(1, end, end == GATEWAY ? GATEWAY6 : CONTAINER6, 2 * AMOUNT * scale);
}

static void w3_sctp(void **state)
{
	bool same;

	(void)state;
	same = compare_traffic("sctp with the gateway", send_sctp, NULL, GATEWAY);
	assert_true(compare_traffic("sctp through it", send_sctp, NULL, CONTAINER) && same);
}

/* ---- what a guest makes ---------------------------------------------------------------------------------
 */

static int guest = -1;

static void send_aggregate(size_t payload, uint16_t segment, uint16_t fragment, bool udp)
{
	guest_write(guest,
		    &(struct guest_aggregate){FIRST4 + strlen("::ffff:"), payload, segment, fragment, udp});
}

static void send_fragment_bits(const void *data, int end)
{
	static const uint16_t bits[] = {0, 0x4000, 0x2000, 0x0001, 0x2100, 0x1fff};

	(void)data;
	(void)end;
	for (size_t i = 0; i < ARRAY_SIZE(bits); i++)
		for (uint16_t segment = 200; segment < 1400; segment += 371)
			send_aggregate(7001, segment, bits[i], false);
}

static void w7_a_guests_segments_with_fragment_bits(void **state)
{
	(void)state;
	assert_true(compare_traffic("fragment bits", send_fragment_bits, NULL, GATEWAY));
}

/* Datagrams that an old guest leaves to be fragmented. */
static const struct {
	size_t payload;
	uint16_t segment;
} datagrams[] = {{7001, 200}, {7001, 1000}, {9000, 1400}, {9800, 1400}, {1393, 1400}};

static void send_datagrams(const void *data, int end)
{
	(void)data;
	(void)end;
	for (size_t i = 0; i < ARRAY_SIZE(datagrams); i++)
		send_aggregate(datagrams[i].payload, datagrams[i].segment, 0, true);
}

static size_t parts(size_t bytes, size_t size)
{
	return (bytes + size - 1) / size;
}

/* A kernel that does not say that these are to be fragmented: they count as if each were cut into datagrams,
 * where a fragment has no header of UDP but the first, for which there is less room. */
static void assert_counted_as_datagrams(void)
{
	struct moment before = compare_look(), after;
	int64_t expected = 0;

	for (size_t i = 0; i < ARRAY_SIZE(datagrams); i++) {
		size_t payload = datagrams[i].payload, segment = datagrams[i].segment;

		expected += (int64_t)(payload + 28 * parts(payload, segment));
		expected -= (int64_t)(payload + 8 + 20 * parts(payload + 8, segment));
	}
	send_datagrams(NULL, GATEWAY);
	after = compare_rest(&before);
	compare_tell("datagrams for fragmentation", &before, &after);
	assert_false(compare_lost(&before, &after, CAPTURE_IN));
	assert_int_equal(compare_excess(&before, &after, CAPTURE_IN), expected);
}

static void w5_an_old_guests_datagrams_for_fragmentation(void **state)
{
	(void)state;
	if (lab_kernel_is(6, 2))
		assert_true(compare_traffic("datagrams for fragmentation", send_datagrams, NULL, GATEWAY));
	else
		assert_counted_as_datagrams();
}

/* ---- IPsec that ends on the gateway ---------------------------------------------------------------------
 */

#define PING    "ping -q -n -c 2 -i 0.1 -W 20 10.8.0.1 >/dev/null"
#define NO_PING "ping -q -n -c 2 -i 0.1 -W 2 10.8.0.1 >/dev/null"

/* ESP between the first customer and the gateway, in plain: this is about headers. */
static void start_ipsec(void)
{
	static const char end[] =
		"sh -ec 'for to in 2 1; do ip xfrm state add src 10.8.0.$((3 - to)) dst 10.8.0.$to proto esp "
		"spi 0x100$to mode transport enc \"ecb(cipher_null)\" \"\" auth digest_null \"\"; "
		"[ $to = %d ] && way=in || way=out; ip xfrm policy add src 10.8.0.$((3 - to)) dst 10.8.0.$to "
		"dir $way tmpl proto esp mode transport; done'";

	assert_int_equal(lab_run(GATEWAY, end, 1), 0);
	assert_int_equal(lab_run(1, end, 2), 0);
}

static void stop_ipsec(void)
{
	for (int place = GATEWAY; place <= 1; place++) {
		lab_run(place, "ip xfrm policy flush");
		lab_run(place, "ip xfrm state flush");
	}
}

/* It is in no header what the kernel has taken off before, or puts on behind the hook. */
static void w6_ipsec_is_counted_short_and_a_gateway_takes_none(void **state)
{
	const struct net_firewall firewall = {.tunnel_interface = LAB_DEVICE, .listen_port = 51820};
	struct moment before, after;
	char error[256];

	(void)state;
	start_ipsec();
	before = compare_look();
	lab_tcp(GATEWAY, 1, FIRST4, AMOUNT);
	lab_tcp(1, GATEWAY, GATEWAY4, AMOUNT);
	after = compare_rest(&before);
	compare_tell("ipsec", &before, &after);
	assert_false(compare_lost(&before, &after, CAPTURE_OUT));
	assert_true(compare_excess(&before, &after, CAPTURE_OUT) < 0);
	assert_int_equal(lab_run(1, PING), 0);

	assert_int_equal(net_firewall_apply(&firewall, error, sizeof(error)), 0);
	assert_int_not_equal(lab_run(1, NO_PING), 0);
	stop_ipsec();
	assert_int_equal(lab_run(1, PING), 0);
}

static int setup_guest(void **state)
{
	guest = guest_open(GATEWAY);
	return compare_setup(state);
}

static int teardown_guest(void **state)
{
	close(guest);
	return compare_teardown(state);
}

static int teardown_ipsec(void **state)
{
	stop_ipsec();
	lab_run(GATEWAY, "nft delete table inet wiretoll 2>/dev/null");
	return compare_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(w3_sctp, compare_setup, compare_teardown),
		cmocka_unit_test_setup_teardown(w5_an_old_guests_datagrams_for_fragmentation, setup_guest,
						teardown_guest),
		cmocka_unit_test_setup_teardown(w6_ipsec_is_counted_short_and_a_gateway_takes_none,
						compare_setup, teardown_ipsec),
		cmocka_unit_test_setup_teardown(w7_a_guests_segments_with_fragment_bits, setup_guest,
						teardown_guest),
	};

	if (lab_is_full())
		scale = 5;
	if (lab_make() || lab_make_container()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
