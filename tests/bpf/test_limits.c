// SPDX-License-Identifier: BSD-2-Clause
/* The loaded programs under every transition of a limit (I13, I14). */
#include "fixture.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

static uint64_t counted(const struct fixture *fixture)
{
	struct meter_interface_totals totals;

	meter_read_interface(fixture->meter, &totals);
	return totals.counted;
}

/* Credit is neither made nor lost: what was drawn is counted or still on a lease. */
static void assert_conserved(const struct fixture *fixture)
{
	uint64_t held = 0;

	for (long cpu = 0; cpu < sysconf(_SC_NPROCESSORS_CONF); cpu++)
		held += wt_lease_bytes(fixture->cells->of[cpu].purse.lease);
	assert_int_equal(fixture->credit->pool.drawn, counted(fixture) + held);
}

static void grant(struct fixture *fixture, uint64_t cycle, uint64_t seq, uint64_t ceiling, uint32_t mask)
{
	const struct meter_grant new_grant = {cycle, seq, ceiling, mask};

	assert_int_equal(meter_grant(fixture->meter, &new_grant), 0);
}

static bool exhausted(const struct fixture *fixture)
{
	struct meter_limit_state limit;

	meter_read_limit(fixture->meter, &limit);
	return limit.exhausted;
}

/* Sends packets of changing size on both CPUs until one is refused; returns how many bytes passed. */
static uint64_t send_until_refused(struct fixture *fixture)
{
	uint64_t before = counted(fixture);

	for (unsigned i = 0;; i++) {
		struct frame frame = frame4("10.0.0.7", "192.0.2.1", 6, 41 + i * 37 % 1400);

		frame.gso_size = i % 3 ? 1 + i % 11 : 0; /* up to 57 kB on the wire */
		use_cpu((int)(i % 2));
		if (run(fixture->ingress, &frame) == DROPPED)
			break;
		assert_true(i < 1000000);
	}
	use_cpu(0);
	assert_conserved(fixture);
	return counted(fixture) - before;
}

static void limits_to_the_ceiling(void **state)
{
	static const uint64_t ceilings[] = {2000000, 10000000, 12345678, 999999};
	struct fixture *fixture = *state;
	struct meter_limit_state limit;

	for (size_t i = 0; i < ARRAY_SIZE(ceilings); i++) {
		uint64_t admitted;

		grant(fixture, i + 1, 1, ceilings[i], WT_UPLOADS);
		admitted = send_until_refused(fixture);
		assert_true(admitted <= ceilings[i]);
		assert_true(ceilings[i] - admitted < 1000000);
		meter_read_limit(fixture->meter, &limit);
		assert_int_equal(limit.cycle_counted, admitted);
		assert_int_equal(limit.grant.ceiling, ceilings[i]);
		assert_true(limit.exhausted);
	}
}

/* A ceiling that single packets reach to the byte lets the last of them pass and not one byte more. */
static void spends_the_last_byte(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);

	grant(fixture, 1, 1, 5000, WT_UPLOADS);
	for (int i = 0; i < 5; i++)
		assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_false(exhausted(fixture));
	frame.size = 28;
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	assert_true(exhausted(fixture));
	assert_int_equal(counted(fixture), 5000);
	assert_conserved(fixture);
}

static void refuses_until_a_newer_grant(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "10.0.0.7", 17, 1000), small = frame, stranger;
	const struct meter_grant same = {3, 5, 900000, WT_UPLOADS}, older = {2, 9, 900000, WT_UPLOADS};
	struct meter_totals totals;

	stranger = frame4("192.0.2.1", "192.0.2.2", 17, 500);
	small.size = 28;
	grant(fixture, 3, 5, 1500, WT_UPLOADS);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	/* 500 bytes are left, but refusal is for good, both ways, and for all. */
	assert_int_equal(run(fixture->ingress, &small), DROPPED);
	assert_int_equal(run(fixture->egress, &small), DROPPED);
	assert_int_equal(run(fixture->ingress, &stranger), DROPPED);
	assert_int_equal(meter_grant(fixture->meter, &same), -EALREADY);
	assert_int_equal(meter_grant(fixture->meter, &older), -EALREADY);
	assert_int_equal(run(fixture->ingress, &small), DROPPED);
	meter_read(fixture->meter, PEER, &totals);
	assert_int_equal(totals.refused_bytes, 1000 + 3 * 28);
	assert_int_equal(totals.refused_packets, 4);
	assert_counts(fixture, PEER, 1000, 1, 0, 0);
	assert_counts(fixture, WT_SLOT_UNATTRIBUTED, 0, 0, 0, 0);
	grant(fixture, 3, 6, 1500, WT_UPLOADS);
	assert_int_equal(run(fixture->ingress, &small), PASSED);
	assert_int_equal(run(fixture->ingress, &stranger), PASSED);
}

static void raises_within_a_cycle(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);

	for (uint64_t seq = 1; seq <= 1000; seq++) {
		grant(fixture, 1, seq, 1000 * seq, WT_UPLOADS);
		assert_int_equal(run(fixture->ingress, &frame), PASSED);
		if (seq % 2)
			assert_int_equal(run(fixture->ingress, &frame), DROPPED);
		assert_int_equal(counted(fixture), 1000 * seq);
		assert_conserved(fixture);
	}
}

static void lowers_below_what_was_counted(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);

	grant(fixture, 1, 1, WT_NO_CEILING, WT_UPLOADS);
	run_times(fixture->ingress, &frame, 5000);
	grant(fixture, 1, 2, 2000000, WT_UPLOADS);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	assert_int_equal(counted(fixture), 5000000);
	grant(fixture, 1, 3, 5001000, WT_UPLOADS);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	assert_int_equal(counted(fixture), 5001000);
	assert_conserved(fixture);
}

/* A CPU that fell idle under a large grant holds a lease; the small grant after it is still usable. */
static void keeps_the_bound_with_an_idle_lease(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);
	int passed = 0;

	grant(fixture, 1, 1, 1000000000000, WT_UPLOADS);
	use_cpu(1);
	run(fixture->ingress, &frame);
	use_cpu(0);
	grant(fixture, 2, 1, 1100000, WT_UPLOADS);
	while (run(fixture->ingress, &frame) == PASSED)
		passed++;
	assert_true(passed * 1000 > 1100000 - 1000000 && passed * 1000 <= 1100000);
	assert_conserved(fixture);
}

static void counts_by_the_mask(void **state)
{
	static const uint32_t masks[] = {WT_UPLOADS, WT_DOWNLOADS, WT_UPLOADS | WT_DOWNLOADS};
	static const uint64_t expected[] = {100, 30, 130};
	struct fixture *fixture = *state;
	struct frame up = frame4("10.0.0.7", "192.0.2.1", 17, 100),
		     down = frame4("192.0.2.1", "10.0.0.7", 17, 30);
	struct frame stranger = frame4("192.0.2.1", "192.0.2.2", 17, 500);
	struct meter_limit_state limit;

	/* Before the first grant nothing is counted against a limit. */
	run(fixture->ingress, &up);
	assert_int_equal(counted(fixture), 0);
	for (uint64_t i = 0; i < ARRAY_SIZE(masks); i++) {
		grant(fixture, i + 1, 1, 130, masks[i]);
		assert_int_equal(run(fixture->ingress, &up), PASSED);
		assert_int_equal(run(fixture->egress, &down), PASSED);
		assert_int_equal(run(fixture->ingress, &stranger), PASSED);
		meter_read_limit(fixture->meter, &limit);
		assert_int_equal(limit.cycle_counted, expected[i]);
		assert_int_equal(limit.grant.mask, masks[i]);
		assert_conserved(fixture);
	}
}

static void refuses_for_other_reasons(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "10.0.0.7", 17, 100);

	grant(fixture, 1, 1, 1000, WT_UPLOADS);
	for (uint32_t reasons = 1; reasons <= (WT_REFUSE_ADMIN | WT_REFUSE_BILLING); reasons++) {
		meter_set_refuse(fixture->meter, reasons);
		assert_int_equal(run(fixture->ingress, &frame), DROPPED);
		assert_int_equal(run(fixture->egress, &frame), DROPPED);
	}
	assert_false(exhausted(fixture));
	/* A grant does not lift them. */
	grant(fixture, 1, 2, 2000, WT_UPLOADS);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	meter_set_refuse(fixture->meter, 0);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(counted(fixture), 100);
}

static void tells_of_exhaustion_once(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);

	for (uint64_t seq = 1; seq <= 3; seq++) {
		grant(fixture, 1, seq, 1500, WT_UPLOADS);
		assert_int_equal(meter_drain_events(fixture->meter), 0);
		for (int i = 0; i < 10; i++)
			run(fixture->ingress, &frame);
		assert_int_equal(meter_drain_events(fixture->meter), 1);
	}
}

static struct meter_grant numbered_grant(uint64_t number)
{
	return (struct meter_grant){number / 7 + 1, number, 1000 * number + 1, 1 + number % 3};
}

static void assert_numbered(const struct meter_grant *grant)
{
	struct meter_grant expected = numbered_grant(grant->grant_seq);

	assert_int_equal(grant->cycle, expected.cycle);
	assert_int_equal(grant->ceiling, expected.ceiling);
	assert_int_equal(grant->mask, expected.mask);
}

/* Adopts the meter and grants, one number after the other, until it is killed. */
static void grant_for_ever(void)
{
	struct meter_limit_state limit;
	struct meter *meter;

	if (meter_adopt(&options, &meter))
		_exit(1);
	meter_read_limit(meter, &limit);
	for (uint64_t number = limit.grant.grant_seq + 1;; number++) {
		const struct meter_grant next = numbered_grant(number + 7), now = numbered_grant(number);

		if (meter_grant_next(meter, &next, UINT64_MAX) || meter_grant(meter, &now))
			_exit(2);
	}
}

static uint64_t changes(const struct wt_credit *credit)
{
	return *(const volatile __u64 *)&credit->state >> WT_STATE_SEQUENCE_SHIFT;
}

/* A next grant stored and one put in force, however slow the machine is. */
static void await_two_changes(const struct wt_credit *credit, uint64_t since)
{
	for (int i = 0; i < 600000 && changes(credit) < since + 2; i++)
		usleep(100);
	assert_true(changes(credit) >= since + 2);
}

/* Wherever the process that grants is killed, a grant is wholly in force, and the next process goes on. */
static void grants_are_whole_after_a_crash(void **state)
{
	struct fixture *fixture = *state;
	const struct meter_grant first = numbered_grant(1);
	struct meter_limit_state limit;
	uint64_t before = 0;
	int status;

	assert_int_equal(meter_grant(fixture->meter, &first), 0);
	for (int round = 0; round < 100; round++) {
		uint64_t begun = changes(fixture->credit);
		pid_t child;

		meter_close(fixture->meter);
		child = fork();
		if (child == 0)
			grant_for_ever();
		/* Every other one after its first grant; the others perhaps before. */
		if (round % 2)
			await_two_changes(fixture->credit, begun);
		else
			usleep(3000);
		usleep((round * 37) % 1000);
		kill(child, SIGKILL);
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(meter_adopt(&options, &fixture->meter), 0);
		meter_read_limit(fixture->meter, &limit);
		assert_numbered(&limit.grant);
		assert_true(limit.grant.grant_seq >= before);
		before = limit.grant.grant_seq;
		if (limit.next.cycle)
			assert_numbered(&limit.next);
	}
	assert_true(before > 50);
}

struct sender {
	const struct fixture *fixture;
	const bool *stop;
	int cpu;
	uint64_t sent;
};

static void *send_on_a_cpu(void *argument)
{
	struct sender *sender = argument;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);
	int program = sender->fixture->ingress;

	use_cpu(sender->cpu);
	while (!__atomic_load_n(sender->stop, __ATOMIC_RELAXED)) {
		run_times(program, &frame, 1000);
		sender->sent += 1000;
	}
	return NULL;
}

/* Two CPUs race for the same credit while the limit is raised, lowered and lifted 1,000 times. */
static void stays_exact_under_every_transition(void **state)
{
	struct fixture *fixture = *state;
	bool stop = false;
	struct sender senders[2] = {{fixture, &stop, 0, 0}, {fixture, &stop, 1, 0}};
	pthread_t threads[2];
	struct meter_totals totals;
	uint64_t highest = 7919;

	/* What passes before there is a limit is not counted against it. */
	grant(fixture, 1, 1, highest, WT_UPLOADS);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, send_on_a_cpu, &senders[i]), 0);
	for (uint64_t seq = 2; seq <= 1001; seq++) {
		uint64_t ceiling = counted(fixture) + (seq * 7919) % 3000000;

		if (seq % 5 == 0)
			ceiling -= ceiling < 500000 ? ceiling : 500000;
		highest = ceiling > highest ? ceiling : highest;
		grant(fixture, 1, seq, ceiling, WT_UPLOADS);
		assert_true(counted(fixture) <= highest);
		usleep(200);
	}
	while (!exhausted(fixture))
		usleep(1000);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	meter_read(fixture->meter, PEER, &totals);
	assert_true(counted(fixture) <= highest);
	assert_int_equal(totals.upload_bytes, counted(fixture));
	assert_int_equal(totals.upload_packets + totals.refused_packets, senders[0].sent + senders[1].sent);
	assert_int_equal(totals.upload_bytes, totals.upload_packets * 1000);
	assert_conserved(fixture);
}

#define OTHER 8

static void grant_peer(struct fixture *fixture, uint64_t cycle, uint64_t ceiling)
{
	const struct meter_grant new_grant = {cycle, 1, ceiling, WT_UPLOADS};

	assert_int_equal(meter_grant_peer(fixture->meter, PEER, &new_grant), 0);
}

static struct meter_limit_state peer_limit(const struct fixture *fixture)
{
	struct meter_limit_state limit;

	assert_int_equal(meter_read_peer_limit(fixture->meter, PEER, &limit), 0);
	return limit;
}

static void limits_one_peer_and_no_other(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "10.0.0.8", 17, 1000);
	struct frame other = frame4("10.0.0.8", "10.0.0.7", 17, 1000);
	struct meter_totals totals;

	set_prefix(fixture, "10.0.0.8/32", OTHER);
	grant(fixture, 1, 1, 100000, WT_UPLOADS);
	grant_peer(fixture, 1, 2500);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(run(fixture->ingress, &frame), i < 2 ? PASSED : DROPPED);
		assert_int_equal(run(fixture->ingress, &other), PASSED);
	}
	/* The latch holds in both directions; what it refuses draws nothing from the interface. */
	assert_int_equal(run(fixture->egress, &other), DROPPED);
	assert_int_equal(counted(fixture), 12000);
	meter_read(fixture->meter, PEER, &totals);
	assert_int_equal(totals.upload_bytes, 2000);
	assert_int_equal(totals.refused_bytes, 9000);
	assert_int_equal(peer_limit(fixture).cycle_counted, 2000);
	assert_true(peer_limit(fixture).exhausted);
	assert_false(exhausted(fixture));
	assert_conserved(fixture);
	assert_int_equal(meter_clear_peer_limit(fixture->meter, PEER), 0);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(meter_set_peer_refuse(fixture->meter, PEER, WT_REFUSE_DISABLED), 0);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	assert_int_equal(meter_set_peer_refuse(fixture->meter, PEER, 0), 0);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(meter_set_peer_refuse(fixture->meter, 100, 0), -ERANGE);
}

static uint64_t boot_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void grant_next_of_both(struct fixture *fixture, const struct meter_grant *next, uint64_t turn)
{
	assert_int_equal(meter_grant_next(fixture->meter, next, turn), 0);
	assert_int_equal(meter_grant_peer_next(fixture->meter, PEER, next, turn), 0);
}

/*
 * The process is gone at the turn: the packets themselves begin the next cycle, of the peer and of all.
 * Refused are those of an hour before; how quick the machine is does not matter.
 */
static void resumes_without_a_process(void **state)
{
	struct fixture *fixture = *state;
	struct frame frame = frame4("10.0.0.7", "192.0.2.1", 17, 1000);
	const struct meter_grant next = {2, 1, 3000, WT_UPLOADS}, late = {1, 9, 90000, WT_UPLOADS};
	struct meter_limit_state limit;
	uint64_t turn;
	int events;

	grant(fixture, 1, 1, 1500, WT_UPLOADS);
	grant_peer(fixture, 1, 1200);
	grant_next_of_both(fixture, &next, boot_now() + 3600000000000);
	meter_close(fixture->meter);
	assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	assert_int_equal(meter_adopt(&options, &fixture->meter), 0);
	turn = boot_now() + 300000000;
	grant_next_of_both(fixture, &next, turn);
	meter_close(fixture->meter);
	while (boot_now() < turn)
		usleep(1000);
	for (int i = 0; i < 3; i++)
		assert_int_equal(run(fixture->ingress, &frame), PASSED);
	assert_int_equal(run(fixture->ingress, &frame), DROPPED);
	assert_int_equal(meter_adopt(&options, &fixture->meter), 0);
	limit = peer_limit(fixture);
	assert_int_equal(limit.grant.cycle, 2);
	assert_int_equal(limit.began, 1000);
	assert_int_equal(limit.cycle_counted, 3000);
	assert_int_equal(limit.next.cycle, 0);
	meter_read_limit(fixture->meter, &limit);
	assert_int_equal(limit.grant.cycle, 2);
	assert_int_equal(limit.began, 1000);
	assert_int_equal(meter_grant(fixture->meter, &late), -EALREADY);
	assert_int_equal(meter_grant_peer(fixture->meter, PEER, &late), -EALREADY);
	assert_int_equal(meter_grant_peer(fixture->meter, PEER, &next), -EALREADY);
	events = meter_drain_events(fixture->meter);
	assert_in_range(events, 4, 5);
	assert_conserved(fixture);
}

/* Two CPUs flood one peer through the turns of 200 cycles: each begins once, where the last one ended. */
static void turns_are_taken_once_by_two_cpus(void **state)
{
	struct fixture *fixture = *state;
	bool stop = false;
	struct sender senders[2] = {{fixture, &stop, 0, 0}, {fixture, &stop, 1, 0}};
	struct meter_limit_state limit;
	struct meter_totals totals;
	pthread_t threads[2];
	uint64_t began = 0;

	grant(fixture, 1, 1, WT_NO_CEILING, WT_UPLOADS);
	grant_peer(fixture, 1, 1200000);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, send_on_a_cpu, &senders[i]), 0);
	for (uint64_t cycle = 2; cycle <= 200; cycle++) {
		const struct meter_grant next = {cycle, 1, 1200000 + cycle, WT_UPLOADS};

		assert_int_equal(meter_grant_peer_next(fixture->meter, PEER, &next, boot_now()), 0);
		do {
			usleep(50);
			limit = peer_limit(fixture);
		} while (limit.grant.cycle < cycle);
		assert_int_equal(limit.grant.ceiling, 1200000 + cycle);
		assert_true(limit.began - began > 200000);
		assert_true(limit.began - began < 1200000 + cycle);
		began = limit.began;
	}
	while (!peer_limit(fixture).exhausted)
		usleep(1000);
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	limit = peer_limit(fixture);
	meter_read(fixture->meter, PEER, &totals);
	/* What is billed is what passed, whatever refused the rest. */
	assert_int_equal(totals.upload_bytes, limit.began + limit.cycle_counted);
	assert_int_equal(totals.upload_bytes, counted(fixture));
	assert_int_equal(totals.upload_bytes, totals.upload_packets * 1000);
	assert_int_equal(totals.upload_packets + totals.refused_packets, senders[0].sent + senders[1].sent);
	assert_conserved(fixture);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(limits_to_the_ceiling, setup, teardown),
		cmocka_unit_test_setup_teardown(spends_the_last_byte, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_until_a_newer_grant, setup, teardown),
		cmocka_unit_test_setup_teardown(raises_within_a_cycle, setup, teardown),
		cmocka_unit_test_setup_teardown(lowers_below_what_was_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(keeps_the_bound_with_an_idle_lease, setup, teardown),
		cmocka_unit_test_setup_teardown(counts_by_the_mask, setup, teardown),
		cmocka_unit_test_setup_teardown(refuses_for_other_reasons, setup, teardown),
		cmocka_unit_test_setup_teardown(tells_of_exhaustion_once, setup, teardown),
		cmocka_unit_test_setup_teardown(grants_are_whole_after_a_crash, setup, teardown),
		cmocka_unit_test_setup_teardown(stays_exact_under_every_transition, setup, teardown),
		cmocka_unit_test_setup_teardown(limits_one_peer_and_no_other, setup, teardown),
		cmocka_unit_test_setup_teardown(resumes_without_a_process, setup, teardown),
		cmocka_unit_test_setup_teardown(turns_are_taken_once_by_two_cpus, setup, teardown),
	};
	int r = make_laboratory();

	if (r < 0) {
		fprintf(stderr, "could not make namespaces for the test: %s\n", strerror(-r));
		return 1;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
