// SPDX-License-Identifier: BSD-2-Clause
/*
 * The parser of the BPF programs, compiled for user space (I2, I4). The oracle cuts the payload into segments
 * one by one and adds up what each of them weighs with its own copy of the headers.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdlib.h>

#include "../../bpf/parse.h"
#include "../chance.h"
#include "../drafts.h"

#define MAX_LENGTH (1U << 19)
#define ROUNDS     20000

static void begin4(struct draft *draft, uint32_t option_words)
{
	draft_begin(draft);
	draft_ipv4(draft, option_words);
}

static void begin6(struct draft *draft)
{
	draft_begin(draft);
	draft_ipv6(draft);
}

static void draft_random(struct draft *draft)
{
	static const enum number types[] = {HOP_BY_HOP, ROUTING, FRAGMENT, AH, DESTINATION, MOBILITY};

	if (random_below(2)) {
		begin4(draft, random_below(11));
	} else {
		begin6(draft);
		for (uint32_t left = random_below(8); left; left--)
			draft_extension(draft, types[random_below(6)], (uint8_t)random_below(8));
	}
	if (random_below(3))
		draft_tcp(draft, random_below(11));
	else
		draft_udp(draft);
}

static struct wt_weight weigh(const struct draft *draft, uint32_t length, uint32_t gso_size,
			      uint32_t gso_segs)
{
	const struct wt_packet packet = {.data = draft->bytes, .length = length, .captured = draft->size};
	const struct wt_gso gso = {.size = gso_size, .segs = gso_segs};

	return wt_weigh(&packet, &gso);
}

static void assert_weight(struct wt_weight weight, uint64_t bytes, uint64_t packets)
{
	assert_int_equal(weight.bytes, bytes);
	assert_int_equal(weight.packets, packets);
	assert_int_equal(weight.unparsed, 0);
}

static void assert_unparsed(const struct draft *draft, uint32_t length, uint32_t gso_size)
{
	struct wt_weight weight = weigh(draft, length, gso_size, 0);

	assert_int_equal(weight.bytes, length);
	assert_int_equal(weight.packets, 1);
	assert_int_equal(weight.unparsed, 1);
}

static void aggregates_weigh_what_their_segments_do(void **state)
{
	struct draft draft;

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t gso_size, payload;
		struct pile pile;

		draft_random(&draft);
		payload = 1 + random_below(round % 2 ? 3000 : MAX_LENGTH - draft.size);
		gso_size = 1 + random_below(round % 3 ? 1500 : 65535);
		pile = draft_cut(&draft, payload, gso_size);
		/* gso_segs is whatever somebody claims. */
		assert_weight(weigh(&draft, draft.size + payload, gso_size, random_below(65536)), pile.bytes,
			      pile.packets);
	}
}

static void single_packets_weigh_their_length(void **state)
{
	struct draft draft;

	(void)state;
	for (int round = 0; round < 1000; round++) {
		uint32_t length;
		struct wt_weight weight;

		draft_random(&draft);
		length = draft.size + random_below(1400);
		weight = weigh(&draft, length, 0, random_below(2));
		assert_int_equal(weight.bytes, length);
		assert_int_equal(weight.packets, 1);
		assert_int_equal(weight.unparsed, 0);
	}
}

static void segments_without_a_size_are_unparsed(void **state)
{
	struct draft draft;
	struct wt_weight weight;

	(void)state;
	begin4(&draft, 0);
	draft_tcp(&draft, 0);
	weight = weigh(&draft, 9000, 0, 7);
	assert_int_equal(weight.bytes, 9000);
	assert_int_equal(weight.unparsed, 1);
}

static void headers_cut_anywhere_are_unparsed(void **state)
{
	struct draft draft;

	(void)state;
	for (int round = 0; round < 300; round++) {
		draft_random(&draft);
		for (uint32_t whole = draft.size, cut = 0; cut < whole; cut++) {
			draft.size = cut;
			assert_unparsed(&draft, cut, 1);
			draft.size = whole;
		}
	}
}

static void packets_without_payload_are_unparsed(void **state)
{
	struct draft draft;

	(void)state;
	for (int round = 0; round < 1000; round++) {
		draft_random(&draft);
		assert_unparsed(&draft, draft.size, 1 + random_below(65535));
		assert_unparsed(&draft, draft.size - random_below(8), 1);
	}
}

static void what_is_not_followed_is_unparsed(void **state)
{
	static const uint8_t carried[] = {1, 50, 58, 115, 137};
	struct draft draft;

	(void)state;
	for (size_t i = 0; i < sizeof(carried); i++) {
		begin4(&draft, 0);
		draft_tcp(&draft, 0);
		draft.bytes[9] = carried[i];
		assert_unparsed(&draft, 20000, 1400);
		begin6(&draft);
		draft_extension(&draft, DESTINATION, 0);
		draft_tcp(&draft, 0);
		draft.bytes[40] = carried[i];
		assert_unparsed(&draft, 20000, 1400);
	}
	/* An extension header of IPv6 behind IPv4. */
	begin4(&draft, 0);
	draft_extension(&draft, DESTINATION, 0);
	draft_tcp(&draft, 0);
	assert_unparsed(&draft, 20000, 1400);
}

/* Up to three tunnels within the tunnel, which more than fills the packet: the last is two headers of IPv4.
 */
static void draft_nested(struct draft *draft, uint32_t layers)
{
	draft_begin(draft);
	draft_ip(draft, (enum ip_kind)random_below(IP_KINDS));
	for (; layers; layers--) {
		draft_tunnel(draft, (enum tunnel)random_below(TUNNELS));
		draft_ip(draft, (enum ip_kind)random_below(IP_KINDS));
	}
}

/* Of any length, BIG TCP's among them. */
static void test_w1_w2_tunnels_repeat_all_of_their_headers(void **state)
{
	struct draft draft;

	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		uint32_t payload, gso_size = 1 + random_below(round % 3 ? 1500 : 65535);
		struct pile pile;

		draft_nested(&draft, 1 + random_below(3));
		draft_transport(&draft, (enum transport)random_below(BY_SCTP));
		payload = 1 + random_below(round % 2 ? 3000 : MAX_LENGTH - draft.size);
		draft_seal(&draft, payload);
		pile = draft_cut(&draft, payload, gso_size);
		assert_weight(weigh(&draft, draft.size + payload, gso_size, random_below(65536)), pile.bytes,
			      pile.packets);
	}
}

static void test_w1_a_fourth_tunnel_is_not_followed(void **state)
{
	struct draft draft;

	(void)state;
	draft_begin(&draft);
	for (int i = 0; i < 5; i++)
		draft_ip(&draft, IP4);
	draft_tcp(&draft, 0);
	draft_seal(&draft, 9000);
	assert_unparsed(&draft, draft.size + 9000, 1400);
}

/* Datagrams that begin as a tunnel does: where the inner packet ends before, it is a datagram's own. */
static void test_w2_datagrams_with_tunnels_in_them_are_datagrams(void **state)
{
	struct draft draft;

	(void)state;
	for (enum tunnel tunnel = T_VXLAN; tunnel < TUNNELS; tunnel++) {
		for (uint32_t missing = 1; missing < 3; missing++) {
			draft_begin(&draft);
			draft_ip(&draft, IP4);
			draft_tunnel(&draft, tunnel);
			draft_ip(&draft, IP6);
			draft_tcp(&draft, 0);
			draft_seal(&draft, 9000 - missing);
			/* 28 bytes of header, and the rest in parts of 1,000 */
			assert_weight(weigh(&draft, 28 + 9500, 1000, 0), 28 + 9500 + 9 * 28, 10);
		}
	}
}

/* Where the kernel says that these are datagrams, nothing that a sender puts into them changes it. */
static void test_w2_the_kernel_knows_datagrams(void **state)
{
	struct draft draft;

	(void)state;
	for (enum tunnel tunnel = T_VXLAN; tunnel < TUNNELS; tunnel++) {
		const struct wt_gso gso = {.size = 1000, .cut = WT_CUT_DATAGRAMS};
		struct wt_packet packet = {.data = draft.bytes};

		draft_begin(&draft);
		draft_ip(&draft, IP4);
		draft_tunnel(&draft, tunnel);
		draft_ip(&draft, IP4);
		draft_tcp(&draft, 0);
		packet.captured = draft.size;
		packet.length = 28 + 9500;
		draft_seal(&draft, packet.length - draft.size);
		assert_weight(wt_weigh(&packet, &gso), 28 + 9500 + 9 * 28, 10);
	}
}

/* Behind a tunnel's headers stands what is not followed: then they are what plain datagrams hold. */
static void test_w2_a_tunnel_of_something_else_is_datagrams(void **state)
{
	struct draft draft;

	(void)state;
	draft_begin(&draft);
	draft_ip(&draft, IP4);
	draft_tunnel(&draft, T_VXLAN);
	draft_ip(&draft, IP4);
	draft_name(&draft, 50);
	draft_add(&draft, 8);
	draft_seal(&draft, 28 + 9500 - draft.size);
	assert_weight(weigh(&draft, 28 + 9500, 1000, 0), 28 + 9500 + 9 * 28, 10);
}

/* Packets of SCTP in one: each has chunks of its own behind a common header, and may be of another size. */
static void test_w3_sctp_is_counted_by_its_packets(void **state)
{
	struct draft draft;

	(void)state;
	for (int round = 0; round < 1000; round++) {
		uint32_t packets = 1 + random_below(45), length;
		struct pile pile = {0};

		draft_nested(&draft, random_below(3));
		draft_sctp(&draft);
		length = draft.size;
		for (uint32_t i = 0; i < packets; i++) {
			uint32_t chunks = 4 + random_below(1400);

			length += chunks;
			pile_add(&pile, draft.size, chunks);
		}
		draft_seal(&draft, length - draft.size);
		assert_weight(weigh(&draft, length, 0xffff, packets), pile.bytes, packets);
	}
	assert_unparsed(&draft, 20000, 0xffff);
}

/* The option of eight bytes that no segment has; behind other headers, or in shorter packets, it is one of
 * many. */
static void test_w4_segments_have_no_jumbo_option(void **state)
{
	struct draft draft;
	struct pile pile;

	(void)state;
	for (uint32_t payload = 65000; payload < MAX_LENGTH; payload += 517) {
		begin6(&draft);
		draft_extension(&draft, HOP_BY_HOP, 0);
		memcpy(draft.bytes + 42, (uint8_t[]){0xc2, 4, 0, 1}, 4);
		draft_tcp(&draft, 3);
		pile = draft_cut(&draft, payload, 1348);
		if (draft.size + payload > 65536)
			pile.bytes -= 8 * pile.packets;
		assert_weight(weigh(&draft, draft.size + payload, 1348, 0), pile.bytes, pile.packets);
	}
	/* IPv4's are too long for their length field, and say 0. */
	begin4(&draft, 0);
	draft_tcp(&draft, 0);
	draft_seal(&draft, 185000);
	pile = draft_cut(&draft, 185000, 1348);
	assert_weight(weigh(&draft, draft.size + 185000, 1348, 0), pile.bytes, pile.packets);
}

/* One datagram in fragments: they repeat the IP header, and IPv6's have one more each. */
static void test_w5_fragments_of_a_datagram_repeat_the_ip_header(void **state)
{
	(void)state;
	for (int round = 0; round < 1000; round++) {
		const bool ipv6 = round % 2;
		const struct wt_gso gso = {.size = 8 * (1 + random_below(180)), .cut = WT_CUT_FRAGMENTS};
		uint32_t datagram = gso.size + 1 + random_below(60000);
		struct draft draft;
		struct pile pile;
		struct wt_packet packet;

		draft_begin(&draft);
		draft_ip(&draft, ipv6 ? IP6_EXTENSIONS : IP4_OPTIONS);
		pile = draft_cut(&draft, datagram, gso.size);
		if (ipv6)
			pile.bytes += 8 * pile.packets;
		packet.length = draft.size + datagram;
		draft_udp(&draft);
		packet.data = draft.bytes;
		packet.captured = draft.size;
		assert_weight(wt_weigh(&packet, &gso), pile.bytes, pile.packets);
	}
}

/* An aggregate is no fragment, and its headers are repeated, whatever a guest has put into their bits. */
static void test_w7_fragment_bits_change_nothing(void **state)
{
	struct draft draft;
	struct pile pile;

	(void)state;
	for (uint32_t bits = 0; bits < 65536; bits += 13) {
		begin4(&draft, 0);
		draft_tcp(&draft, 0);
		draft.bytes[6] = (uint8_t)(bits >> 8);
		draft.bytes[7] = (uint8_t)bits;
		pile = draft_cut(&draft, 20000, 1400);
		assert_weight(weigh(&draft, 20040, 1400, 0), pile.bytes, pile.packets);
		begin6(&draft);
		draft_extension(&draft, FRAGMENT, 0);
		draft_udp(&draft);
		draft.bytes[42] = (uint8_t)(bits >> 8);
		draft.bytes[43] = (uint8_t)bits;
		pile = draft_cut(&draft, 20000, 1400);
		assert_weight(weigh(&draft, 20056, 1400, 0), pile.bytes, pile.packets);
	}
}

static void malformed_headers_are_unparsed(void **state)
{
	struct draft draft;

	(void)state;
	begin4(&draft, 0);
	draft_tcp(&draft, 0);
	draft.bytes[0] = 0x44; /* an IPv4 header of 16 bytes */
	assert_unparsed(&draft, 20000, 1400);
	draft.bytes[0] = 0x55; /* no such version */
	assert_unparsed(&draft, 20000, 1400);
	draft.bytes[0] = 0x45;
	draft.bytes[32] = 0x40; /* a TCP header of 16 bytes */
	assert_unparsed(&draft, 20000, 1400);
	begin6(&draft);
	for (int i = 0; i < 23; i++) /* a chain that never ends */
		draft_extension(&draft, DESTINATION, 0);
	draft_tcp(&draft, 0);
	assert_unparsed(&draft, 20000, 1400);
}

static void no_bytes_weigh_less_than_their_length(void **state)
{
	(void)state;
	for (int round = 0; round < 200000; round++) {
		uint32_t captured = random_below(160),
			 length = captured + (round % 2 ? random_below(MAX_LENGTH) : 0);
		uint8_t *bytes = malloc(captured ? captured : 1); /* exact, for the sanitizer */
		const struct wt_packet packet = {bytes, length, captured};
		const struct wt_gso gso = {random_below(65536), random_below(3), random_below(3)};
		struct wt_weight weight;

		assert_non_null(bytes);
		for (uint32_t i = 0; i < captured; i++)
			bytes[i] = (uint8_t)random_below(256);
		if (captured && round % 4)
			bytes[0] = round % 8 < 4 ? 0x45 : 0x60;
		if (captured > 9 && round % 3)
			bytes[bytes[0] == 0x45 ? 9 : 6] =
				(uint8_t[]){6, 17, 0, 60, 44, 51, 4, 41, 47, 132}[random_below(10)];
		weight = wt_weigh(&packet, &gso);
		assert_true(weight.bytes >= length);
		assert_true(weight.packets >= 1);
		assert_true(!weight.unparsed || weight.bytes == length);
		free(bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(aggregates_weigh_what_their_segments_do),
		cmocka_unit_test(single_packets_weigh_their_length),
		cmocka_unit_test(segments_without_a_size_are_unparsed),
		cmocka_unit_test(headers_cut_anywhere_are_unparsed),
		cmocka_unit_test(packets_without_payload_are_unparsed),
		cmocka_unit_test(what_is_not_followed_is_unparsed),
		cmocka_unit_test(test_w1_w2_tunnels_repeat_all_of_their_headers),
		cmocka_unit_test(test_w1_a_fourth_tunnel_is_not_followed),
		cmocka_unit_test(test_w2_datagrams_with_tunnels_in_them_are_datagrams),
		cmocka_unit_test(test_w2_the_kernel_knows_datagrams),
		cmocka_unit_test(test_w2_a_tunnel_of_something_else_is_datagrams),
		cmocka_unit_test(test_w3_sctp_is_counted_by_its_packets),
		cmocka_unit_test(test_w4_segments_have_no_jumbo_option),
		cmocka_unit_test(test_w5_fragments_of_a_datagram_repeat_the_ip_header),
		cmocka_unit_test(test_w7_fragment_bits_change_nothing),
		cmocka_unit_test(malformed_headers_are_unparsed),
		cmocka_unit_test(no_bytes_weigh_less_than_their_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
