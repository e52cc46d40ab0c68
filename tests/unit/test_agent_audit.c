// SPDX-License-Identifier: BSD-2-Clause
/*
 * Fair and audited (M4): the audit against a WireGuard that only pretends, which delays, pads, loses, starts
 * over, and knows what it dropped.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "meter/audit.h"

#define SETTLE_NS    (AUDIT_SETTLE_SECONDS * NSEC_PER_SEC)
#define QUEUE_SIZE   4096
#define STAGED_LIFE  90
#define HANDSHAKE    148
#define KEEPALIVE    32
#define SAMPLE_EVERY 10

static uint64_t random_state = 88172645463325252ULL;

static uint64_t random_below(uint64_t limit)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state % limit;
}

/* A packet that was counted and waits in WireGuard, to be sent or dropped at a later second. */
struct waiting {
	uint64_t bytes;
	int64_t second;
	bool dropped;
};

struct world {
	int64_t second;
	struct meter_totals totals;
	uint64_t rx_bytes, tx_bytes;
	int64_t handshake_ns;
	uint64_t dropped_bytes, dropped_packets; /* the truth */
	uint64_t extra_bytes;                    /* sent beyond bytes + 32 n */
	struct waiting queue[QUEUE_SIZE];
	size_t n_queue;
	unsigned loss;   /* of 100 packets */
	uint64_t length; /* of each packet; 0: any */
	bool silent;     /* no endpoint, so no handshakes */
};

static void world_send(struct world *world)
{
	uint64_t bytes = world->length ? world->length : 20 + random_below(1400);
	struct waiting *packet = &world->queue[world->n_queue++];

	assert_true(world->n_queue < QUEUE_SIZE);
	*packet = (struct waiting){.bytes = bytes, .dropped = random_below(100) < world->loss};
	packet->second = world->second + (random_below(4) ? 0 : (int64_t)random_below(STAGED_LIFE));
	world->totals.download_bytes += bytes;
	world->totals.download_packets++;
}

static void world_receive(struct world *world)
{
	uint64_t bytes = 20 + random_below(1400);

	world->rx_bytes += bytes + 32 + random_below(16);
	world->totals.upload_bytes += bytes;
	world->totals.upload_packets++;
}

static void world_settle_packet(struct world *world, const struct waiting *packet)
{
	uint64_t padding = (16 - packet->bytes % 16) % 16;

	if (packet->dropped) {
		world->dropped_bytes += packet->bytes;
		world->dropped_packets++;
	} else {
		world->tx_bytes += packet->bytes + 32 + padding;
		world->extra_bytes += padding;
	}
}

static void world_step(struct world *world, unsigned packets)
{
	size_t kept = 0;

	world->second++;
	for (unsigned i = 0; i < packets; i++) {
		world_send(world);
		world_receive(world);
	}
	for (size_t i = 0; i < world->n_queue; i++) {
		if (world->queue[i].second <= world->second)
			world_settle_packet(world, &world->queue[i]);
		else
			world->queue[kept++] = world->queue[i];
	}
	world->n_queue = kept;
	if (world->second % 120 == 0 && !world->silent) {
		world->tx_bytes += HANDSHAKE + KEEPALIVE;
		world->extra_bytes += HANDSHAKE + KEEPALIVE;
		world->rx_bytes += HANDSHAKE;
		world->handshake_ns = world->second * NSEC_PER_SEC;
	}
}

/* Out of the device, all that waits is dropped, and counters at 0. */
static void world_make_anew(struct world *world)
{
	for (size_t i = 0; i < world->n_queue; i++) {
		world->queue[i].dropped = true;
		world_settle_packet(world, &world->queue[i]);
	}
	world->n_queue = 0;
	world->rx_bytes = world->tx_bytes = 0;
	world->handshake_ns = 0;
}

static struct audit_sample world_sample(const struct world *world)
{
	return (struct audit_sample){.totals = world->totals,
				     .boot_ns = world->second * NSEC_PER_SEC,
				     .rx_bytes = world->rx_bytes,
				     .tx_bytes = world->tx_bytes,
				     .handshake_ns = world->handshake_ns};
}

static void take(struct audit *audit, const struct world *world)
{
	struct audit_sample sample = world_sample(world);
	uint64_t before = audit->undelivered;

	if (!audit_take(audit, &sample, SETTLE_NS))
		audit_begin(audit, &sample);
	assert_true(audit->undelivered >= before);
	assert_true(audit->undelivered <= world->dropped_bytes + 32 * world->dropped_packets);
	assert_true(audit->undelivered <= world->totals.download_bytes);
	if (world->dropped_packets == 0)
		assert_int_equal(audit->undelivered, 0);
	if (world->length)
		assert_true(audit->undelivered <= world->dropped_bytes);
	assert_int_equal(audit->verdict, AUDIT_FAIR);
}

static void run(struct audit *audit, struct world *world, int seconds, unsigned packets)
{
	for (int i = 0; i < seconds; i++) {
		world_step(world, packets);
		if (world->second % SAMPLE_EVERY == 0)
			take(audit, world);
	}
}

static void test_formula(void **state)
{
	(void)state;
	assert_int_equal(audit_undelivered(0, 0, 0), 0);
	assert_int_equal(audit_undelivered(1000, 10, 1320), 0);
	assert_int_equal(audit_undelivered(1000, 10, UINT64_MAX), 0);
	assert_int_equal(audit_undelivered(1000, 10, 0), 1000);
	/* 660 of 1,320 are missing: half of the bytes; one byte is 1000/1320 of a byte: none. */
	assert_int_equal(audit_undelivered(1000, 10, 660), 500);
	assert_int_equal(audit_undelivered(1000, 10, 1319), 0);
	assert_int_equal(audit_undelivered(1000, 10, 1318), 1);
	/* Beyond what 64 bits hold on the way. */
	assert_true(audit_undelivered(1ULL << 62, 1ULL << 40, 0) == 1ULL << 62);
	for (int i = 0; i < 20000; i++) {
		uint64_t packets = random_below(1ULL << random_below(40)), tx, less, more;
		uint64_t bytes = packets * 20 + random_below(1400 * packets + 1);

		tx = random_below(bytes + 40 * packets + 1);
		less = audit_undelivered(bytes, packets, tx);
		more = audit_undelivered(bytes, packets, tx / 2);
		assert_true(less <= bytes && less <= more);
		assert_true((less == 0) || tx < bytes + 32 * packets);
	}
}

/* Whatever is delayed up to 90 s, padded and shaken: not one byte is given back that was sent. */
static void test_without_a_drop_exactly_zero(void **state)
{
	(void)state;
	for (int round = 0; round < 30; round++) {
		struct world world = {.length = round % 2 ? 512 : 0};
		struct audit audit = {0};
		struct audit_sample zero = {0};

		audit_begin(&audit, &zero);
		for (int burst = 0; burst < 20; burst++)
			run(&audit, &world, 5 + (int)random_below(60), (unsigned)random_below(20));
		run(&audit, &world, 300, 0);
		assert_int_equal(audit.undelivered, 0);
	}
}

/* Packets of one length: all that was dropped, less what else WireGuard sent. */
static void test_drops_within_the_bound(void **state)
{
	(void)state;
	for (int round = 0; round < 60; round++) {
		struct world world = {.length = 84 + random_below(1300), .loss = (unsigned)random_below(101)};
		struct audit audit = {0};
		struct audit_sample zero = {0};

		audit_begin(&audit, &zero);
		for (int burst = 0; burst < 10; burst++)
			run(&audit, &world, 5 + (int)random_below(60), (unsigned)random_below(20));
		/* Quiet for longer than all settles: nothing later covers it. */
		run(&audit, &world, 300, 0);
		assert_true(audit.undelivered + world.extra_bytes + 1 >= world.dropped_bytes);
		if (world.dropped_bytes > world.extra_bytes + 1)
			assert_true(audit.undelivered > 0);
	}
}

static void test_no_endpoint_is_all_given_back(void **state)
{
	struct world world = {.length = 500, .loss = 100, .silent = true};
	struct audit audit = {0};
	struct audit_sample zero = {0};

	(void)state;
	audit_begin(&audit, &zero);
	for (int second = 0; second < 119; second++) {
		world_step(&world, 3);
		if (world.second % SAMPLE_EVERY == 0)
			take(&audit, &world);
		/* Nothing is claimed before it is settled. */
		if (world.second < AUDIT_SETTLE_SECONDS)
			assert_int_equal(audit.undelivered, 0);
	}
	assert_true(audit.undelivered > 0);
	run(&audit, &world, 300, 0);
	assert_true(audit.undelivered == 500ULL * 3 * 119);
}

/* Removal, a new presence with counters at 0, a restarted agent: the claim stands, and nothing is invented.
 */
static void test_new_baselines_invent_nothing(void **state)
{
	(void)state;
	for (int round = 0; round < 100; round++) {
		struct world world = {.loss = round % 3 ? (unsigned)random_below(60) : 0};
		struct audit audit = {0};
		struct audit_sample base;

		for (int turn = 0; turn < 12; turn++) {
			run(&audit, &world, 10 + (int)random_below(200), (unsigned)random_below(12));
			switch (random_below(round % 3 ? 4 : 2)) {
			case 0: /* restart: what was found is kept on disk, the rest begins anew */
				audit = (struct audit){.undelivered = audit.undelivered,
						       .kept = audit.undelivered};
				break;
			case 1:
				audit_forget(&audit);
				break;
			case 2: /* by the agent, which knows where the counters begin */
				base = (struct audit_sample){.totals = world.totals,
							     .boot_ns = world.second * NSEC_PER_SEC};
				world_make_anew(&world);
				audit_begin(&audit, &base);
				break;
			default: /* by somebody else, found by falling counters or by its absence */
				world_make_anew(&world);
				break;
			}
		}
	}
}

/* `packets` downloads of 500 bytes, none of them sent, and a sample at that second. */
static void take_lost(struct audit *audit, struct audit_sample *sample, int64_t second, uint64_t packets)
{
	sample->totals.download_packets += packets;
	sample->totals.download_bytes += 500 * packets;
	sample->boot_ns = second * NSEC_PER_SEC;
	assert_true(audit_take(audit, sample, SETTLE_NS));
}

static void test_baselines_add_up(void **state)
{
	struct audit_sample sample = {.tx_bytes = 1000000,
				      .totals = {.download_bytes = 900000, .download_packets = 1000}};
	struct audit audit = {0};

	(void)state;
	audit_begin(&audit, &sample);
	take_lost(&audit, &sample, 10, 100);
	take_lost(&audit, &sample, 110, 0);
	assert_int_equal(audit.undelivered, 500 * 100);
	audit_begin(&audit, &sample);
	take_lost(&audit, &sample, 120, 20);
	take_lost(&audit, &sample, 220, 0);
	assert_int_equal(audit.undelivered, 500 * 120);
}

/* A process that slept finds several counts old enough: the newest one holds them all. */
static void test_a_late_sample_takes_the_newest(void **state)
{
	struct audit_sample sample = {0};
	struct audit audit = {0};

	(void)state;
	audit_begin(&audit, &sample);
	sample.tx_bytes = 1000;
	for (int64_t second = 0; second < 90; second += 10)
		take_lost(&audit, &sample, second, 10);
	assert_int_equal(audit.undelivered, 0);
	/* Marks at 0, 30 and 60 s: the last one counts 70 packets. What came later waits for its turn. */
	take_lost(&audit, &sample, 175, 5);
	assert_int_equal(audit.undelivered, 35000 - 940); /* 1000 * 35000 / 37240, rounded up */
	take_lost(&audit, &sample, 1000, 0);
	assert_int_equal(audit.undelivered, 47500 - 940); /* 1000 * 47500 / 50540 */
	take_lost(&audit, &sample, 1100, 0);
	assert_int_equal(audit.n_marks, 0);
}

static void test_fallen_counters_begin_anew(void **state)
{
	struct audit_sample sample = {.rx_bytes = 900, .tx_bytes = 5000, .handshake_ns = 7};
	struct audit_sample fell[3];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(fell); i++) {
		struct audit audit = {0};

		fell[i] = sample;
		assert_false(audit_take(&audit, &sample, SETTLE_NS));
		audit_begin(&audit, &sample);
		assert_true(audit_take(&audit, &sample, SETTLE_NS));
		fell[i].rx_bytes -= i == 0;
		fell[i].tx_bytes -= i == 1;
		fell[i].handshake_ns -= i == 2;
		assert_false(audit_take(&audit, &fell[i], SETTLE_NS));
		assert_false(audit.begun);
	}
}

static void test_verdicts(void **state)
{
	struct audit audit = {0};
	struct audit_sample sample = {0};

	(void)state;
	audit_begin(&audit, &sample);
	sample.totals.upload_bytes = 1000000;
	sample.totals.upload_packets = 1000;
	sample.rx_bytes = 1032000;
	assert_true(audit_take(&audit, &sample, SETTLE_NS));
	assert_null(audit_verdict_name(audit.verdict));
	/* Refused packets and an hour of keepalives are no padding. */
	sample.boot_ns = 3600 * NSEC_PER_SEC;
	sample.totals.refused_bytes = 1000000;
	sample.rx_bytes = 1047000 + 1047000 + 3600 * 32;
	assert_true(audit_take(&audit, &sample, SETTLE_NS));
	assert_int_equal(audit.verdict, AUDIT_FAIR);
	sample.rx_bytes += 5000000;
	assert_true(audit_take(&audit, &sample, SETTLE_NS));
	assert_string_equal(audit_verdict_name(audit.verdict), "over_padding");
	/* A note goes, an alarm stays. */
	sample.totals.upload_bytes += 5000000;
	sample.totals.upload_packets += 5000;
	assert_true(audit_take(&audit, &sample, SETTLE_NS));
	assert_int_equal(audit.verdict, AUDIT_FAIR);
	sample.totals.upload_bytes += 4500000;
	assert_true(audit_take(&audit, &sample, SETTLE_NS));
	assert_string_equal(audit_verdict_name(audit.verdict), "rx_short");
	sample.rx_bytes += 5000000;
	assert_true(audit_take(&audit, &sample, SETTLE_NS));
	assert_int_equal(audit.verdict, AUDIT_RX_SHORT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formula),
		cmocka_unit_test(test_without_a_drop_exactly_zero),
		cmocka_unit_test(test_drops_within_the_bound),
		cmocka_unit_test(test_no_endpoint_is_all_given_back),
		cmocka_unit_test(test_new_baselines_invent_nothing),
		cmocka_unit_test(test_baselines_add_up),
		cmocka_unit_test(test_a_late_sample_takes_the_newest),
		cmocka_unit_test(test_fallen_counters_begin_anew),
		cmocka_unit_test(test_verdicts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
