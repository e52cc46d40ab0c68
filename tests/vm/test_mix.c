// SPDX-License-Identifier: BSD-2-Clause
/*
 * Everything at once, chosen by chance: several tunnels to the gateway and through it, TCP, SCTP and
 * datagrams in them and beside them, in both directions, and what a guest writes. What the meter has counted
 * is what a capture in the customer's namespace has seen. In the virtual machine only; SEED=N repeats a run's
 * choices.
 */
#include "compare.h"
#include "guest.h"
#include "lab.h"
#include "tunnels.h"

#include "../chance.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TUNNELS    3 /* to each end */
#define PLAIN      3 /* streams in none */
#define LEAST      20000
#define MOST       120000
#define AGGREGATES 20 /* of the guest's, in a round */

static bool full; /* FULL=1 */
static int guest = -1;

/* A round. */
struct mix {
	const struct tunnel_kind *tunnels[2 * TUNNELS]; /* by number */
	size_t n_tunnels;
	struct lab_stream streams[2 * TUNNELS + PLAIN];
	size_t n_streams;
	int aggregates; /* the guest is still to write */
};

static int end_of(size_t number)
{
	return number < TUNNELS ? GATEWAY : CONTAINER;
}

static int random_version(int within)
{
	return within == BOTH ? (random_below(2) ? IPV4 : IPV6) : within;
}

static const struct tunnel_kind *random_kind(const struct mix *mix, size_t number)
{
	for (;;) {
		const struct tunnel_kind *kind = &tunnel_kinds[random_below(TUNNEL_KINDS)];
		bool free = true;

		for (size_t i = 0; i < number; i++)
			if (end_of(i) == end_of(number))
				free &= tunnel_differs(kind, mix->tunnels[i]);
		if (free)
			return kind;
	}
}

static struct lab_stream random_stream(int end, bool down)
{
	static const int protocols[] = {IPPROTO_TCP, IPPROTO_TCP, IPPROTO_SCTP, IPPROTO_UDP};

	return (struct lab_stream){
		.protocol = protocols[random_below(ARRAY_SIZE(protocols))],
		.from = down ? end : 1,
		.to = down ? 1 : end,
		.bytes = LEAST + random_below(MOST - LEAST),
		.segment = (uint16_t)(100 + random_below(1000)),
	};
}

/*
 * Of what it can carry. WireGuard's device drops aggregates of IPv6 in GRE in GUE in SRv6 on Linux 6.1, each
 * time, so none of the tries would be without a loss.
 */
static int carried(const struct tunnel_kind *kind)
{
	return strstr(kind->name, " in srv6") && !lab_kernel_is(6, 12) ? kind->within & IPV4 : kind->within;
}

/* A stream in each of the tunnels, and some in none. */
static struct mix random_mix(void)
{
	static const char *const plain[][2] = {[GATEWAY] = {GATEWAY4, GATEWAY6},
					       [1] = {FIRST4, FIRST6},
					       [CONTAINER] = {CONTAINER4, CONTAINER6}};
	struct mix mix = {.n_tunnels = 2 * TUNNELS, .aggregates = AGGREGATES};

	for (size_t i = 0; i < mix.n_tunnels; i++) {
		bool down = random_below(3) > 0;

		mix.tunnels[i] = random_kind(&mix, i);
		mix.streams[i] = random_stream(end_of(i), down);
		mix.streams[i].address =
			strdup(tunnel_address((int)i, random_version(carried(mix.tunnels[i])), down));
	}
	for (size_t i = mix.n_tunnels; i < ARRAY_SIZE(mix.streams); i++) {
		mix.streams[i] = random_stream(end_of(random_below(2 * TUNNELS)), random_below(3) > 0);
		mix.streams[i].address = strdup(plain[mix.streams[i].to][random_below(2)]);
	}
	mix.n_streams = ARRAY_SIZE(mix.streams);
	return mix;
}

static void tell_mix(const struct mix *mix)
{
	for (size_t i = 0; i < mix->n_streams; i++) {
		const struct lab_stream *stream = &mix->streams[i];
		const char *protocol = stream->protocol == IPPROTO_TCP    ? "TCP"
				       : stream->protocol == IPPROTO_SCTP ? "SCTP"
									  : "UDP";

		print_message("#  %zu bytes by %s (%u) to %s in %s\n", stream->bytes, protocol,
			      stream->segment, stream->address,
			      i < mix->n_tunnels ? mix->tunnels[i]->name : "no tunnel");
	}
}

/* One aggregate with any fragment bits, now and then. */
static void write_beside(void *data)
{
	struct mix *mix = data;

	if (!mix->aggregates || random_below(4))
		return;
	mix->aggregates--;
	guest_write(guest, &(struct guest_aggregate){.to = FIRST4 + strlen("::ffff:"),
						     .payload = 1500 + random_below(8000),
						     .segment = (uint16_t)(200 + random_below(1000)),
						     .fragment = (uint16_t)(random_below(0x8000))});
}

static void send_mix(const void *data, int end)
{
	struct mix mix = *(const struct mix *)data;

	(void)end;
	print_message("#  %zu bytes of datagrams did not arrive\n",
		      lab_streams(mix.streams, mix.n_streams, write_beside, &mix));
	while (mix.aggregates)
		write_beside(&mix);
}

static bool is_same(int round)
{
	struct mix mix = random_mix();
	char name[32];
	bool same;

	tell_mix(&mix);
	for (size_t i = 0; i < mix.n_tunnels; i++)
		tunnel_make(mix.tunnels[i], end_of(i), (int)i);
	snprintf(name, sizeof(name), "round %d", round);
	same = compare_traffic(name, send_mix, &mix, GATEWAY);
	lab_clean();
	for (size_t i = 0; i < mix.n_streams; i++)
		free((char *)mix.streams[i].address);
	return same;
}

static void w1_w2_w3_w7_a_random_mix(void **state)
{
	const time_t end = time(NULL) + (full ? 60 : 1);
	const char *seed = getenv("SEED");
	int wrong = 0;

	(void)state;
	random_state = seed && *seed ? strtoull(seed, NULL, 0) : (uint64_t)end;
	print_message("# SEED=%" PRIu64 "\n", random_state);
	for (int round = 1; round == 1 || time(NULL) < end; round++)
		wrong += !is_same(round);
	assert_int_equal(wrong, 0);
}

static int setup(void **state)
{
	guest = guest_open(GATEWAY);
	return compare_setup(state);
}

static int teardown(void **state)
{
	close(guest);
	return compare_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(w1_w2_w3_w7_a_random_mix, setup, teardown),
	};

	full = lab_is_full();
	if (lab_make() || lab_make_container() || tunnels_prepare()) {
		fprintf(stderr, "could not make the test's network\n");
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
