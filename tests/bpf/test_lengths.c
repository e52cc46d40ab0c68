// SPDX-License-Identifier: BSD-2-Clause
/*
 * Every outer header with every inner one, up to three tunnels within the tunnel, through the loaded programs
 * by BPF_PROG_TEST_RUN (I2). The runner takes packets of some 3.7 KB only, so segments are small. What is
 * counted is what the segments weigh, cut one by one; and a limit takes the whole of an aggregate or nothing.
 * All of it by both builds of the programs: a kernel that can be asked what it cuts has but one of them
 * loaded.
 */
#include "fixture.h"

#include "../chance.h"
#include "../drafts.h"

#include <bpf/btf.h>
#include <sys/utsname.h>

#define CHANCES 4 /* IP headers tried for three tunnels of which each kind is tried */

static struct meter_totals seen;

static struct frame frame_of(const struct draft *draft, uint32_t payload, uint32_t gso_size)
{
	struct frame frame = {.size = draft->size + payload, .gso_size = gso_size};
	struct cidr peer = prefix(draft->bytes[0] >> 4 == 4 ? "10.0.0.7" : "fd00::7");
	uint8_t *ip = frame.bytes + ETHERNET;

	assert_true(ETHERNET + frame.size <= sizeof(frame.bytes));
	memcpy(ip, draft->bytes, draft->size);
	memcpy(ip + (draft->bytes[0] >> 4 == 4 ? 12 : 8), peer.bytes, draft->bytes[0] >> 4 == 4 ? 4 : 16);
	frame.bytes[12] = draft->bytes[0] >> 4 == 4 ? 0x08 : 0x86;
	frame.bytes[13] = draft->bytes[0] >> 4 == 4 ? 0x00 : 0xdd;
	return frame;
}

static uint64_t unparsed(const struct fixture *fixture)
{
	struct meter_interface_totals totals;

	meter_read_interface(fixture->meter, &totals);
	return totals.unparsed_packets;
}

static void assert_counted(const struct fixture *fixture, struct pile pile)
{
	struct meter_totals totals;

	meter_read(fixture->meter, PEER, &totals);
	assert_int_equal(totals.upload_bytes - seen.upload_bytes, pile.bytes);
	assert_int_equal(totals.upload_packets - seen.upload_packets, pile.packets);
	seen = totals;
}

/* The headers of the draft, and behind them each of TCP, UDP and SCTP. */
static void weigh_transports(const struct fixture *fixture, const struct draft *outer)
{
	for (enum transport transport = 0; transport < TRANSPORTS; transport++) {
		const uint32_t gso_size = 4 + random_below(120), length = gso_size + random_below(1000);
		/* Each packet of SCTP has a whole chunk. */
		const uint32_t payload = transport == BY_SCTP ? length - length % gso_size : length;
		struct draft draft = *outer;
		struct frame frame;
		struct pile pile;

		draft_transport(&draft, transport);
		draft_seal(&draft, payload);
		pile = draft_cut(&draft, payload, gso_size);
		frame = frame_of(&draft, payload, gso_size);
		frame.gso_segs = random_below(65536); /* claimed */
		if (transport == BY_SCTP) {
			frame.gso_segs = (uint32_t)pile.packets;
			frame.gso_size = 0xffff;
		}
		assert_int_equal(run(fixture->ingress, &frame), PASSED);
		assert_counted(fixture, pile);
	}
}

static void draft_within(struct draft *draft, enum tunnel tunnel, enum ip_kind inner)
{
	draft_tunnel(draft, tunnel);
	draft_ip(draft, inner);
}

static void test_w1_w2_w3_every_header_in_every_other(void **state)
{
	const struct fixture *fixture = *state;
	struct draft draft;

	for (enum ip_kind outer = 0; outer < IP_KINDS; outer++)
		for (enum tunnel first = 0; first < TUNNELS; first++)
			for (enum ip_kind inner = 0; inner < IP_KINDS; inner++) {
				draft_begin(&draft);
				draft_ip(&draft, outer);
				draft_within(&draft, first, inner);
				weigh_transports(fixture, &draft);
			}
	assert_int_equal(unparsed(fixture), 0);
}

static void test_w1_w2_w3_tunnels_in_tunnels(void **state)
{
	const struct fixture *fixture = *state;
	struct draft draft;

	for (uint32_t pair = 0; pair < TUNNELS * TUNNELS * IP_KINDS * IP_KINDS; pair++) {
		draft_begin(&draft);
		draft_ip(&draft, (enum ip_kind)random_below(IP_KINDS));
		draft_within(&draft, pair % TUNNELS, pair / TUNNELS / TUNNELS % IP_KINDS);
		draft_within(&draft, pair / TUNNELS % TUNNELS, pair / TUNNELS / TUNNELS / IP_KINDS);
		weigh_transports(fixture, &draft);
	}
	assert_int_equal(unparsed(fixture), 0);
}

static void test_w1_w2_w3_three_tunnels_within_one_another(void **state)
{
	const struct fixture *fixture = *state;
	struct draft draft;

	for (uint32_t triple = 0; triple < TUNNELS * TUNNELS * TUNNELS * CHANCES; triple++) {
		uint32_t left = triple / CHANCES;

		draft_begin(&draft);
		draft_ip(&draft, (enum ip_kind)random_below(IP_KINDS));
		for (int i = 0; i < 3; i++, left /= TUNNELS)
			draft_within(&draft, left % TUNNELS, (enum ip_kind)random_below(IP_KINDS));
		weigh_transports(fixture, &draft);
	}
	assert_int_equal(unparsed(fixture), 0);
}

static void test_w1_a_fourth_tunnel_is_counted_by_length(void **state)
{
	const struct fixture *fixture = *state;
	struct draft draft;
	struct frame frame;

	draft_begin(&draft);
	for (int i = 0; i < 5; i++)
		draft_ip(&draft, IP4);
	draft_tcp(&draft, 0);
	draft_seal(&draft, 1000);
	frame = frame_of(&draft, 1000, 100);
	run(fixture->ingress, &frame);
	assert_counted(fixture, (struct pile){draft.size + 1000, 1});
	assert_int_equal(unparsed(fixture), 1);
}

static void test_w7_fragment_bits_change_nothing(void **state)
{
	const struct fixture *fixture = *state;
	struct draft draft;
	struct frame frame;

	for (uint32_t bits = 0; bits < 65536; bits += 251) {
		draft_begin(&draft);
		draft_ip(&draft, IP4);
		draft_tcp(&draft, 0);
		draft_put16(draft.bytes + 6, bits);
		draft_seal(&draft, 1000);
		frame = frame_of(&draft, 1000, 300);
		run(fixture->ingress, &frame);
		assert_counted(fixture, draft_cut(&draft, 1000, 300));
	}
	assert_int_equal(unparsed(fixture), 0);
}

/* One byte less than it weighs, and it is refused whole, by what it weighs; with that byte it passes. */
static void test_w1_w2_w3_limits_take_the_true_length(void **state)
{
	const struct fixture *fixture = *state;
	struct meter_grant grant = {.cycle = 1, .mask = WT_UPLOADS};
	uint64_t ceiling = 0;

	for (enum tunnel tunnel = 0; tunnel < TUNNELS; tunnel++) {
		struct meter_totals before, after;
		struct draft draft;
		struct frame frame;
		struct pile pile;

		draft_begin(&draft);
		draft_ip(&draft, IP4);
		draft_within(&draft, tunnel, IP6);
		draft_tcp(&draft, 3);
		draft_seal(&draft, 1000);
		pile = draft_cut(&draft, 1000, 90);
		frame = frame_of(&draft, 1000, 90);
		meter_read(fixture->meter, PEER, &before);
		for (uint64_t missing = 1; missing < 2; missing--) {
			grant.grant_seq++;
			grant.ceiling = ceiling + pile.bytes - missing;
			assert_int_equal(meter_grant(fixture->meter, &grant), 0);
			assert_int_equal(run(fixture->ingress, &frame), missing ? DROPPED : PASSED);
		}
		ceiling += pile.bytes;
		meter_read(fixture->meter, PEER, &after);
		assert_int_equal(after.upload_bytes - before.upload_bytes, pile.bytes);
		assert_int_equal(after.refused_bytes - before.refused_bytes, pile.bytes);
		assert_int_equal(after.refused_packets - before.refused_packets, pile.packets);
	}
}

static int setup_lengths(void **state)
{
	int r = setup(state);

	memset(&seen, 0, sizeof(seen));
	set_prefix(*state, "fd00::7/128", PEER);
	return r;
}

/* Without the kernel's BTF the programs are loaded that do not ask it. */
static int setup_untyped(void **state)
{
	int r;

	assert_int_equal(mount("none", "/sys/kernel/btf", "tmpfs", 0, NULL), 0);
	r = setup_lengths(state);
	assert_int_equal(umount("/sys/kernel/btf"), 0);
	return r;
}

/* An earlier kernel lacks what they ask for, and has had the others in the first place. */
static bool takes_typed_programs(void)
{
	struct utsname name;
	int major, minor;

	assert_int_equal(uname(&name), 0);
	assert_int_equal(sscanf(name.release, "%d.%d", &major, &minor), 2);
	return major > 6 || (major == 6 && minor >= 2);
}

/* It is looked for in other places, too, where the kernel's symbols are installed. */
static bool can_hide_types(void)
{
	struct btf *types;

	if (mount("none", "/sys/kernel/btf", "tmpfs", 0, NULL))
		return false; /* it has none */
	types = btf__load_vmlinux_btf();
	assert_int_equal(umount("/sys/kernel/btf"), 0);
	btf__free(types);
	return !types;
}

#define TYPED(test)   cmocka_unit_test_setup_teardown(test, setup_lengths, teardown)
#define UNTYPED(test) cmocka_unit_test_setup_teardown(test, setup_untyped, teardown)

int main(void)
{
	const struct CMUnitTest typed[] = {
		TYPED(test_w1_w2_w3_every_header_in_every_other),
		TYPED(test_w1_w2_w3_tunnels_in_tunnels),
		TYPED(test_w1_w2_w3_three_tunnels_within_one_another),
		TYPED(test_w1_a_fourth_tunnel_is_counted_by_length),
		TYPED(test_w7_fragment_bits_change_nothing),
		TYPED(test_w1_w2_w3_limits_take_the_true_length),
	};
	const struct CMUnitTest untyped[] = {
		UNTYPED(test_w1_w2_w3_every_header_in_every_other),
		UNTYPED(test_w1_w2_w3_tunnels_in_tunnels),
		UNTYPED(test_w1_a_fourth_tunnel_is_counted_by_length),
		UNTYPED(test_w7_fragment_bits_change_nothing),
		UNTYPED(test_w1_w2_w3_limits_take_the_true_length),
	};
	int r = make_laboratory();

	if (r < 0) {
		fprintf(stderr, "could not make namespaces for the test: %s\n", strerror(-r));
		return 1;
	}
	r = cmocka_run_group_tests_name("programs that the kernel prefers", typed, NULL, NULL);
	if (!takes_typed_programs())
		return r;
	if (can_hide_types())
		return cmocka_run_group_tests_name("programs that ask no types", untyped, NULL, NULL) + r;
	print_message("# the kernel's BTF cannot be hidden: programs that ask no types are left out\n");
	return r;
}
