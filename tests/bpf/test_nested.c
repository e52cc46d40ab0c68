// SPDX-License-Identifier: BSD-2-Clause
/*
 * A peer's limit within the interface's, in the loaded programs, flooded by two CPUs in both directions: the
 * bound of both (I13), events and stale grants (I14), and totals that are read meanwhile (I5). What passed is
 * counted by who sent it.
 */
#include "fixture.h"

#include <pthread.h>

#define OTHER 8
#define BOTH  (WT_UPLOADS | WT_DOWNLOADS)

/* What its senders saw pass. */
static struct passed {
	uint64_t peer, other;
} passed;

struct sender {
	const struct fixture *fixture;
	int cpu;
	unsigned seed;
	pthread_t thread;
};

static bool stop;

static void pass(uint64_t *bytes, uint64_t more)
{
	__atomic_fetch_add(bytes, more, __ATOMIC_RELAXED);
}

static uint64_t passed_of_all(void)
{
	return __atomic_load_n(&passed.peer, __ATOMIC_RELAXED) +
	       __atomic_load_n(&passed.other, __ATOMIC_RELAXED);
}

/* Single packets and aggregates of both peers; in TCP aggregates each segment has 40 bytes of headers. */
static void *flood(void *argument)
{
	struct sender *sender = argument;

	use_cpu(sender->cpu);
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		bool peer = rand_r(&sender->seed) % 2, uploads = rand_r(&sender->seed) % 2;
		const char *self = peer ? "10.0.0.7" : "10.0.0.8";
		struct frame frame =
			uploads ? frame4(self, "192.0.2.1", 6, 41 + rand_r(&sender->seed) % 1400)
				: frame4("192.0.2.1", self, 6, 41 + rand_r(&sender->seed) % 1400);
		uint64_t payload = frame.size - 40, weight = frame.size;

		if (rand_r(&sender->seed) % 2) {
			frame.gso_size = 1 + rand_r(&sender->seed) % 100;
			weight = payload + (payload + frame.gso_size - 1) / frame.gso_size * 40;
		}
		if (run(uploads ? sender->fixture->ingress : sender->fixture->egress, &frame) == PASSED)
			pass(peer ? &passed.peer : &passed.other, weight);
	}
	return NULL;
}

static struct sender senders[2];

static void start_flood(const struct fixture *fixture)
{
	stop = false;
	for (int i = 0; i < 2; i++) {
		senders[i] = (struct sender){.fixture = fixture, .cpu = i, .seed = 7U + (unsigned)i};
		assert_int_equal(pthread_create(&senders[i].thread, NULL, flood, &senders[i]), 0);
	}
}

static void stop_flood(void)
{
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(senders[i].thread, NULL);
}

static int setup_two(void **state)
{
	int r = setup(state);

	passed = (struct passed){0};
	if (r == 0)
		set_prefix(*state, "10.0.0.8/32", OTHER);
	return r;
}

static struct meter_limit_state limit_of(const struct fixture *fixture, uint32_t slot)
{
	struct meter_limit_state limit;

	if (slot)
		assert_int_equal(meter_read_peer_limit(fixture->meter, slot, &limit), 0);
	else
		meter_read_limit(fixture->meter, &limit);
	return limit;
}

static int grant(struct fixture *fixture, uint32_t slot, uint64_t cycle, uint64_t seq, uint64_t ceiling)
{
	const struct meter_grant wanted = {cycle, seq, ceiling, BOTH};

	return slot ? meter_grant_peer(fixture->meter, slot, &wanted) : meter_grant(fixture->meter, &wanted);
}

static void await_exhaustion(const struct fixture *fixture, uint32_t slot)
{
	for (int i = 0; i < 120000 && !limit_of(fixture, slot).exhausted; i++)
		usleep(500);
	assert_true(limit_of(fixture, slot).exhausted);
}

/* ---- the bound (I13) ---- */

static void assert_spent(uint64_t ceiling, uint64_t admitted)
{
	assert_true(admitted <= ceiling);
	assert_true(ceiling - admitted < WT_UNSPENT_BOUND);
}

/* Both are raised all the time, so that now this one ends first and now that one. */
static void i13_nested_limits_are_never_passed(void **state)
{
	struct fixture *fixture = *state;
	uint64_t ceilings[2] = {1, 1};
	unsigned seed = 3, refusals = 0;

	assert_int_equal(grant(fixture, 0, 1, 1, 1), 0);
	assert_int_equal(grant(fixture, PEER, 1, 1, 1), 0);
	start_flood(fixture);
	/* More of them where the flood is slow to use them up. */
	for (uint64_t seq = 2; seq <= 1000 || (refusals <= 100 && seq <= 100000); seq++) {
		uint64_t peer = __atomic_load_n(&passed.peer, __ATOMIC_RELAXED), all = passed_of_all();

		assert_true(all <= ceilings[0]);
		assert_true(peer <= ceilings[1]);
		assert_true(limit_of(fixture, 0).cycle_counted <= ceilings[0]);
		assert_true(limit_of(fixture, PEER).cycle_counted <= ceilings[1]);
		for (int i = 0; i < 2; i++) {
			bool exhausted = limit_of(fixture, i ? PEER : 0).exhausted;

			/* By much only when it is used up, so that slow machines keep up. */
			ceilings[i] += 1 + (unsigned)rand_r(&seed) % (exhausted ? 60000 : 300);
			refusals += exhausted;
		}
		assert_int_equal(grant(fixture, 0, 1, seq, ceilings[0]), 0);
		assert_int_equal(grant(fixture, PEER, 1, seq, ceilings[1]), 0);
		usleep(500);
	}
	assert_true(refusals > 100);
	await_exhaustion(fixture, 0);
	stop_flood();
	assert_spent(ceilings[0], passed_of_all());
	/* The interface lets go, and the peer's own limit remains. */
	assert_int_equal(grant(fixture, 0, 2, 1, WT_NO_CEILING), 0);
	start_flood(fixture);
	await_exhaustion(fixture, PEER);
	stop_flood();
	assert_spent(ceilings[1], passed.peer);
	assert_int_equal(limit_of(fixture, PEER).cycle_counted, passed.peer);
}

/* A limit that its peer alone reaches leaves nothing on the interface, and the other way round. */
static void i13_what_one_refuses_draws_nothing_from_the_other(void **state)
{
	struct fixture *fixture = *state;
	struct meter_totals peer, other;

	assert_int_equal(grant(fixture, 0, 1, 1, 20000000), 0);
	assert_int_equal(grant(fixture, PEER, 1, 1, 2000000), 0);
	start_flood(fixture);
	await_exhaustion(fixture, 0);
	stop_flood();
	assert_spent(20000000, passed_of_all());
	assert_spent(2000000, passed.peer);
	meter_read(fixture->meter, PEER, &peer);
	meter_read(fixture->meter, OTHER, &other);
	assert_int_equal(peer.upload_bytes + peer.download_bytes, passed.peer);
	assert_int_equal(other.upload_bytes + other.download_bytes, passed.other);
	assert_int_equal(limit_of(fixture, 0).cycle_counted, passed_of_all());
	assert_true(peer.refused_packets > 0);
}

/* ---- events and stale grants (I14) ---- */

static void i14_tells_of_each_grants_end_exactly_once(void **state)
{
	struct fixture *fixture = *state;
	int events = 0, expected = 0;

	start_flood(fixture);
	for (uint64_t seq = 1; seq <= 200; seq++) {
		uint32_t slot = seq % 2 ? 0 : PEER;

		/* The other one is out of the way, and stays as it is. */
		assert_int_equal(grant(fixture, PEER - slot, seq, 0, WT_NO_CEILING), 0);
		assert_int_equal(grant(fixture, slot, seq, seq, 50000), 0);
		await_exhaustion(fixture, slot);
		expected++;
		for (int i = 0; i < 120000 && events < expected; i++) {
			usleep(500);
			events += meter_drain_events(fixture->meter);
		}
		usleep(1000); /* both CPUs go on being refused */
		events += meter_drain_events(fixture->meter);
		assert_int_equal(events, expected);
	}
	stop_flood();
	assert_int_equal(meter_drain_events(fixture->meter), 0);
}

static void i14_a_stale_grant_never_refills(void **state)
{
	const struct {
		uint64_t cycle, seq;
	} stale[] = {{4, 9}, {5, 4}, {5, 5}, {1, 100}, {5, 0}};
	struct fixture *fixture = *state;
	uint64_t before;

	assert_int_equal(grant(fixture, 0, 5, 5, 1500000), 0);
	assert_int_equal(grant(fixture, PEER, 5, 5, 1200000), 0);
	start_flood(fixture);
	await_exhaustion(fixture, 0);
	/* Not before the packets that were judged before are counted. */
	stop_flood();
	before = limit_of(fixture, 0).cycle_counted;
	start_flood(fixture);
	for (int round = 0; round < 300; round++) {
		const struct meter_grant next = {stale[round % 5].cycle, stale[round % 5].seq, 90000000,
						 BOTH};

		assert_int_equal(grant(fixture, 0, next.cycle, next.grant_seq, 90000000), -EALREADY);
		assert_int_equal(grant(fixture, PEER, next.cycle, next.grant_seq, 90000000), -EALREADY);
		assert_int_equal(meter_grant_next(fixture->meter, &next, 0), -EALREADY);
		assert_int_equal(meter_grant_peer_next(fixture->meter, PEER, &next, 0), -EALREADY);
		assert_true(limit_of(fixture, 0).exhausted);
		usleep(100);
	}
	assert_int_equal(limit_of(fixture, 0).cycle_counted, before);
	/* A newer one does, and of its cycle nothing is gone yet. */
	assert_int_equal(grant(fixture, 0, 6, 1, 1500000), 0);
	await_exhaustion(fixture, 0);
	stop_flood();
	assert_spent(1500000, passed_of_all() - before);
}

/* ---- totals (I5) ---- */

static void assert_not_less(const struct meter_totals *now, const struct meter_totals *before)
{
	assert_true(now->upload_bytes >= before->upload_bytes);
	assert_true(now->upload_packets >= before->upload_packets);
	assert_true(now->download_bytes >= before->download_bytes);
	assert_true(now->download_packets >= before->download_packets);
	assert_true(now->refused_bytes >= before->refused_bytes);
	assert_true(now->refused_packets >= before->refused_packets);
}

static bool all_happened(const struct meter_totals totals[2])
{
	return totals[0].upload_bytes > 0 && totals[1].download_bytes > 0 && totals[0].refused_bytes > 0;
}

/* While both CPUs write, limits come and go, prefixes move to and fro, and processes take over. */
static void i5_totals_never_decrease(void **state)
{
	struct fixture *fixture = *state;
	struct meter_totals before[2] = {{0}}, now;
	uint64_t counted = 0;

	start_flood(fixture);
	/* More rounds where others keep the flood from the CPUs. */
	for (uint64_t round = 0; round < 20000 || (!all_happened(before) && round < 10000000); round++) {
		struct meter_interface_totals totals;

		for (uint32_t i = 0; i < 2; i++) {
			meter_read(fixture->meter, PEER + i, &now);
			assert_not_less(&now, &before[i]);
			before[i] = now;
		}
		meter_read_interface(fixture->meter, &totals);
		assert_true(totals.counted >= counted);
		counted = totals.counted;
		if (round % 50 == 0)
			assert_int_equal(grant(fixture, round % 100 ? 0 : PEER, 1 + round, 1,
					       round % 150 ? WT_NO_CEILING : 9000),
					 0);
		if (round % 700 == 0)
			set_prefix(fixture, "10.0.0.8/32", round % 1400 ? OTHER : PEER);
		if (round % 5000 == 4999) {
			meter_close(fixture->meter);
			assert_int_equal(meter_adopt(&options, &fixture->meter), 0);
		}
	}
	stop_flood();
	assert_true(all_happened(before));
	for (uint32_t i = 0; i < 2; i++)
		meter_read(fixture->meter, PEER + i, &before[i]);
	assert_int_equal(before[0].upload_bytes + before[0].download_bytes + before[1].upload_bytes +
				 before[1].download_bytes,
			 passed_of_all());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(i13_nested_limits_are_never_passed, setup_two, teardown),
		cmocka_unit_test_setup_teardown(i13_what_one_refuses_draws_nothing_from_the_other, setup_two,
						teardown),
		cmocka_unit_test_setup_teardown(i14_tells_of_each_grants_end_exactly_once, setup_two,
						teardown),
		cmocka_unit_test_setup_teardown(i14_a_stale_grant_never_refills, setup_two, teardown),
		cmocka_unit_test_setup_teardown(i5_totals_never_decrease, setup_two, teardown),
	};
	int r = make_laboratory();

	if (r < 0) {
		fprintf(stderr, "could not make namespaces for the test: %s\n", strerror(-r));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
