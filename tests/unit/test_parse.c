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

#define MAX_LENGTH (1U << 19)
#define ROUNDS     20000

/* Headers being written front to back; `next` is where the type of the following header goes. */
struct draft {
	uint8_t bytes[8192];
	uint32_t size;
	uint32_t next;
};

static void add(struct draft *draft, const void *bytes, uint32_t size)
{
	memcpy(draft->bytes + draft->size, bytes, size);
	draft->size += size;
}

static void begin4(struct draft *draft, uint32_t option_words)
{
	uint8_t header[60] = {0};

	memset(draft, 0, sizeof(*draft));
	header[0] = (uint8_t)(0x40 | (5 + option_words));
	header[6] = 0x40; /* don't fragment */
	add(draft, header, 20 + option_words * 4);
	draft->next = 9;
}

static void begin6(struct draft *draft)
{
	const uint8_t header[40] = {0x60};

	memset(draft, 0, sizeof(*draft));
	add(draft, header, sizeof(header));
	draft->next = 6;
}

/* An extension header of the type with `units` beyond its smallest size. */
static void extend(struct draft *draft, uint8_t type, uint8_t units)
{
	uint8_t header[2048] = {0};
	uint32_t size = type == 51 ? (units + 2U) * 4 : type == 44 ? 8 : (units + 1U) * 8;

	header[1] = type == 44 ? 0 : units;
	draft->bytes[draft->next] = type;
	draft->next = draft->size;
	add(draft, header, size);
}

static void finish_tcp(struct draft *draft, uint8_t option_words)
{
	uint8_t header[60] = {0};

	header[12] = (uint8_t)((5 + option_words) << 4);
	draft->bytes[draft->next] = 6;
	add(draft, header, 20U + option_words * 4U);
}

static void finish_udp(struct draft *draft)
{
	const uint8_t header[8] = {0};

	draft->bytes[draft->next] = 17;
	add(draft, header, sizeof(header));
}

static void draft_random(struct draft *draft)
{
	static const uint8_t types[] = {0, 43, 44, 51, 60, 135};

	if (random_below(2)) {
		begin4(draft, random_below(11));
	} else {
		begin6(draft);
		for (uint32_t left = random_below(8); left; left--)
			extend(draft, types[random_below(sizeof(types))], (uint8_t)random_below(8));
	}
	if (random_below(3))
		finish_tcp(draft, (uint8_t)random_below(11));
	else
		finish_udp(draft);
}

static struct wt_weight weigh(const struct draft *draft, uint32_t length, uint32_t gso_size,
			      uint32_t gso_segs)
{
	const struct wt_packet packet = {.data = draft->bytes, .length = length, .captured = draft->size};

	return wt_weigh(&packet, gso_size, gso_segs);
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
		uint64_t bytes = 0, packets = 0;
		uint32_t gso_size, payload;
		struct wt_weight weight;

		draft_random(&draft);
		payload = 1 + random_below(round % 2 ? 3000 : MAX_LENGTH - draft.size);
		gso_size = 1 + random_below(round % 3 ? 1500 : 65535);
		for (uint32_t left = payload; left; packets++) {
			uint32_t part = left < gso_size ? left : gso_size;

			bytes += draft.size + part;
			left -= part;
		}
		/* gso_segs is whatever somebody claims. */
		weight = weigh(&draft, draft.size + payload, gso_size, random_below(65536));
		assert_int_equal(weight.bytes, bytes);
		assert_int_equal(weight.packets, packets);
		assert_int_equal(weight.unparsed, 0);
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
	finish_tcp(&draft, 0);
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

static void encapsulated_aggregates_are_unparsed(void **state)
{
	static const uint8_t carried[] = {4, 41, 47, 50, 115, 1, 58, 132};
	struct draft draft;

	(void)state;
	for (size_t i = 0; i < sizeof(carried); i++) {
		begin4(&draft, 0);
		finish_tcp(&draft, 0);
		draft.bytes[9] = carried[i];
		assert_unparsed(&draft, 20000, 1400);
		begin6(&draft);
		extend(&draft, 60, 0);
		finish_tcp(&draft, 0);
		draft.bytes[40] = carried[i];
		assert_unparsed(&draft, 20000, 1400);
	}
}

static void fragments_are_unparsed(void **state)
{
	struct draft draft;

	(void)state;
	begin4(&draft, 0);
	finish_udp(&draft);
	draft.bytes[6] = 0x20; /* more fragments */
	assert_unparsed(&draft, 20000, 1400);
	draft.bytes[6] = 0;
	draft.bytes[7] = 1; /* an offset */
	assert_unparsed(&draft, 20000, 1400);
	begin6(&draft);
	extend(&draft, 44, 0);
	finish_udp(&draft);
	draft.bytes[43] = 1; /* more fragments */
	assert_unparsed(&draft, 20000, 1400);
	draft.bytes[43] = 8; /* an offset */
	assert_unparsed(&draft, 20000, 1400);
}

static void malformed_headers_are_unparsed(void **state)
{
	struct draft draft;

	(void)state;
	begin4(&draft, 0);
	finish_tcp(&draft, 0);
	draft.bytes[0] = 0x44; /* an IPv4 header of 16 bytes */
	assert_unparsed(&draft, 20000, 1400);
	draft.bytes[0] = 0x55; /* no such version */
	assert_unparsed(&draft, 20000, 1400);
	draft.bytes[0] = 0x45;
	draft.bytes[32] = 0x40; /* a TCP header of 16 bytes */
	assert_unparsed(&draft, 20000, 1400);
	begin6(&draft);
	for (int i = 0; i < 9; i++) /* a chain that never ends */
		extend(&draft, 60, 0);
	finish_tcp(&draft, 0);
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
		struct wt_weight weight;

		assert_non_null(bytes);
		for (uint32_t i = 0; i < captured; i++)
			bytes[i] = (uint8_t)random_below(256);
		if (captured && round % 4)
			bytes[0] = round % 8 < 4 ? 0x45 : 0x60;
		if (captured > 9 && round % 3)
			bytes[bytes[0] == 0x45 ? 9 : 6] = (uint8_t[]){6, 17, 0, 60, 44, 51}[random_below(6)];
		weight = wt_weigh(&packet, random_below(65536), random_below(3));
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
		cmocka_unit_test(encapsulated_aggregates_are_unparsed),
		cmocka_unit_test(fragments_are_unparsed),
		cmocka_unit_test(malformed_headers_are_unparsed),
		cmocka_unit_test(no_bytes_weigh_less_than_their_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
