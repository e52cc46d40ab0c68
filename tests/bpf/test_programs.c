// SPDX-License-Identifier: BSD-2-Clause
/* The loaded programs on crafted packets, by BPF_PROG_TEST_RUN: whose they are and what they weigh. */
#include "fixture.h"

static uint64_t unparsed(const struct fixture *fixture)
{
	struct meter_interface_totals totals;

	meter_read_interface(fixture->meter, &totals);
	return totals.unparsed_packets;
}

static void counts_the_longest_prefix(void **state)
{
	struct fixture *fixture = *state;
	struct cidr site = prefix("10.1.0.0/16");
	struct frame frame = frame4("10.1.2.3", "10.0.0.7", 17, 100);

	set_prefix(fixture, "10.1.0.0/16", 8);
	set_prefix(fixture, "10.1.2.0/24", 9);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_counts(fixture, 9, 100, 1, 0, 0);
	/* The other way the same packet belongs to its destination. */
	assert_int_equal(run(fixture->egress, &frame), PASSED);
	assert_counts(fixture, PEER, 0, 0, 100, 1);
	frame = frame4("10.1.3.3", "10.0.0.7", 17, 60);
	run(fixture->ingress, &frame);
	assert_counts(fixture, 8, 60, 1, 0, 0);
	assert_int_equal(meter_delete_prefix(fixture->meter, &site), 0);
	assert_int_equal(meter_delete_prefix(fixture->meter, &site), -ENOENT);
	run(fixture->ingress, &frame);
	assert_counts(fixture, 8, 60, 1, 0, 0);
	assert_counts(fixture, WT_SLOT_UNATTRIBUTED, 60, 1, 0, 0);
}

static void counts_ipv6_prefixes(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame6("fd00:1::5", "fd00:2::9", 17, 200);

	set_prefix(fixture, "fd00:1::/64", 3);
	set_prefix(fixture, "fd00:2::9/128", 4);
	run(fixture->ingress, &frame);
	run(fixture->egress, &frame);
	run(fixture->egress, &frame);
	assert_counts(fixture, 3, 200, 1, 0, 0);
	assert_counts(fixture, 4, 0, 0, 400, 2);
}

static void counts_strangers_apart(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("192.0.2.1", "192.0.2.2", 17, 90);
	struct frame frame_v6 = frame6("fd00::1", "fd00::2", 58, 70);

	run(fixture->ingress, &frame);
	run(fixture->egress, &frame_v6);
	assert_counts(fixture, WT_SLOT_UNATTRIBUTED, 90, 1, 70, 1);
	assert_int_equal(unparsed(fixture), 0);
}

static void counts_prefixes_as_they_move(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 50);

	run(fixture->ingress, &frame);
	set_prefix(fixture, "10.0.0.7/32", 8);
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 50, 1, 0, 0);
	assert_counts(fixture, 8, 50, 1, 0, 0);
}

static void weighs_tcp_aggregates(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 6, 1040);

	/* 1,000 bytes behind headers of 40, 300 at a time: four segments, three more headers. */
	frame.gso_size = 300;
	frame.gso_segs = 0;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 1160, 4, 0, 0);
	frame.gso_segs = 65535;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 2320, 8, 0, 0);
	/* TCP options are repeated, too: 12 bytes of them leave 988. */
	frame.bytes[ETHERNET + 32] = 0x80;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 2320 + 1040 + 3 * 52, 12, 0, 0);
	assert_int_equal(unparsed(fixture), 0);
}

static void weighs_udp_aggregates_behind_ipv6_extensions(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame6("fd00::1", "fd00:1::5", 0, 40 + 8 + 24 + 8 + 500);
	uint8_t *extensions = frame.bytes + ETHERNET + 40;

	set_prefix(fixture, "fd00:1::5/128", 3);
	extensions[0] = 60; /* hop-by-hop of 8 bytes, then destination options */
	extensions[8] = 17; /* of 24 bytes, then UDP */
	extensions[8 + 1] = 2;
	frame.gso_size = 100;
	run(fixture->egress, &frame);
	assert_counts(fixture, 3, 0, 0, 580 + 4 * 80, 5);
	assert_int_equal(unparsed(fixture), 0);
}

static void counts_what_it_cannot_follow_by_length(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 4, 1040);

	frame.gso_size = 300;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 1040, 1, 0, 0);
	assert_int_equal(unparsed(fixture), 1);
	frame.gso_size = 0;
	frame.gso_segs = 4;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 2080, 2, 0, 0);
	assert_int_equal(unparsed(fixture), 2);
}

static void counts_truncated_packets_apart(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 6, 19);
	struct frame frame_v6 = frame6("fd00::1", "fd00::2", 6, 39);

	/* Under an EtherType of their own, or the kernel's test runner might refuse them. */
	frame.bytes[12] = frame_v6.bytes[12] = 0x12;
	run(fixture->ingress, &frame);
	assert_counts(fixture, WT_SLOT_UNATTRIBUTED, 19, 1, 0, 0);
	run(fixture->ingress, &frame_v6);
	assert_counts(fixture, WT_SLOT_UNATTRIBUTED, 58, 2, 0, 0);
	assert_int_equal(unparsed(fixture), 2);
	/* A whole IP header with half a TCP header: the peer's, by its length. */
	frame = frame4("10.0.0.7", "192.0.2.1", 6, 30);
	frame.gso_size = 1;
	run(fixture->ingress, &frame);
	assert_counts(fixture, PEER, 30, 1, 0, 0);
	assert_int_equal(unparsed(fixture), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(counts_the_longest_prefix, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_ipv6_prefixes, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_strangers_apart, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_prefixes_as_they_move, setup, teardown),
		cmocka_unit_test_setup_teardown(weighs_tcp_aggregates, setup, teardown),
		cmocka_unit_test_setup_teardown(weighs_udp_aggregates_behind_ipv6_extensions, setup,
						teardown),
		cmocka_unit_test_setup_teardown(counts_what_it_cannot_follow_by_length, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_truncated_packets_apart, setup, teardown),
	};
	int r = make_laboratory();

	if (r < 0) {
		fprintf(stderr, "could not make namespaces for the test: %s\n", strerror(-r));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
