// SPDX-License-Identifier: BSD-2-Clause
/*
 * The programs' credit and user space's grants, both compiled into this program, with other CPUs' packets and
 * new grants put in wherever one of them reads shared memory (I13, I14): the races that running programs meet
 * once in a million packets.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include <wiretoll/meter_abi.h>

/* In place of bpf/maps.h. */
#define WIRETOLL_BPF_MAPS_H
#define CPUS   4
#define SLOTS  64
#define PEER   3
#define PEERS  3 /* slots 1 to 3 */
#define NO_ONE WT_SLOT_UNATTRIBUTED

static const uint32_t possible_cpus = CPUS, stride = SLOTS;
static struct wt_credit credit;
static struct wt_pool peer_pools[SLOTS];
static __u64 peer_states[SLOTS];
static struct wt_interface_cells interface_cells;
static struct wt_purse purses[CPUS * SLOTS];
static uint32_t current_cpu;
static int events;
static int exhaustions[SLOTS], turns[SLOTS];
static uint64_t boot_time, clock_readings;

static void *bpf_map_lookup_elem(void *map, const uint32_t *index)
{
	if (map == &purses)
		return &purses[*index];
	return map == &peer_pools ? (void *)&peer_pools[*index] : &peer_states[*index];
}

static uint32_t bpf_get_smp_processor_id(void)
{
	return current_cpu;
}

static uint64_t bpf_ktime_get_boot_ns(void)
{
	clock_readings++;
	return boot_time;
}

static long bpf_ringbuf_output(void *ring, const void *data, uint64_t size, uint64_t flags)
{
	const struct wt_event *event = data;

	(void)ring, (void)size, (void)flags;
	(event->kind == WT_EVENT_TAKEN_UP ? turns : exhaustions)[event->slot]++;
	return 0;
}

static void interleave(void);

#define INTERLEAVED(value)                                                                                   \
	({                                                                                                   \
		__typeof__(value) value_ = (value);                                                          \
		interleave();                                                                                \
		value_;                                                                                      \
	})
#define READ_ONCE(word) INTERLEAVED(*(const volatile __typeof__(word) *)&(word))
#define LOAD(word)      READ_ONCE(word)

#define cpus possible_cpus
#include "../../bpf/credit.h"
#undef cpus
#include "../../userspace/meter/limit.c"
#include "../chance.h"

#define MAX_LEASE ((WT_UNSPENT_BOUND - WT_LARGEST_AGGREGATE) / CPUS)

static const struct wt_meta meta = {.cpus = CPUS, .stride = SLOTS, .capacity = SLOTS};
static struct meter meter = {.purses = purses,
			     .interface_cells = &interface_cells,
			     .credit = &credit,
			     .peer_pools = peer_pools,
			     .peer_states = peer_states,
			     .meta = &meta};
static bool busy[CPUS];
static bool granting;
static void (*scripted)(void); /* what happens at a reading, instead of chance */
static int script_delay;       /* after so many others */
static unsigned chance;        /* one in so many readings is interrupted; 0: none */
static uint64_t highest[SLOTS];
static uint64_t counted_at(uint32_t slot)
{
	uint64_t sum = 0;

	for (int cpu = 0; cpu < CPUS; cpu++)
		sum += purse_of((uint32_t)cpu, slot)->counted;
	return sum;
}

static uint64_t leased_at(uint32_t slot)
{
	uint64_t sum = 0;

	for (int cpu = 0; cpu < CPUS; cpu++)
		sum += wt_lease_bytes(purse_of((uint32_t)cpu, slot)->lease);
	return sum;
}

static bool latched(uint32_t slot)
{
	return *state_at(&meter, slot) & WT_STATE_EXHAUSTED;
}

/* The highest position that any grant has allowed so far. */
static void note_ceilings(void)
{
	for (uint32_t slot = 0; slot <= PEERS; slot++) {
		uint64_t state = *state_at(&meter, slot), top;
		const struct wt_grant *grant = live_grant(pool_at(&meter, slot), state);

		if (state & WT_STATE_TAKING_UP)
			continue;
		top = grant->ceiling == WT_NO_CEILING ? WT_NO_CEILING : grant->base + grant->ceiling;
		highest[slot] = top > highest[slot] ? top : highest[slot];
	}
}

static int put_in_force(uint32_t slot, uint64_t cycle, uint64_t seq, uint64_t ceiling)
{
	const struct meter_grant grant = {cycle, seq, ceiling, WT_UPLOADS};
	int r;

	granting = true;
	r = slot ? meter_grant_peer(&meter, slot, &grant) : meter_grant(&meter, &grant);
	granting = false;
	note_ceilings();
	return r;
}

static int lay_down(uint32_t slot, uint64_t cycle, uint64_t ceiling, uint64_t not_before)
{
	const struct meter_grant grant = {cycle, 1, ceiling, WT_UPLOADS};
	int r;

	granting = true;
	r = slot ? meter_grant_peer_next(&meter, slot, &grant, not_before)
		 : meter_grant_next(&meter, &grant, not_before);
	granting = false;
	return r;
}

static void reset(uint64_t ceiling, uint32_t max_lease)
{
	memset(peer_pools, 0, sizeof(peer_pools));
	memset(peer_states, 0, sizeof(peer_states));
	memset(purses, 0, sizeof(purses));
	memset(&interface_cells, 0, sizeof(interface_cells));
	memset(busy, 0, sizeof(busy));
	memset(exhaustions, 0, sizeof(exhaustions));
	memset(turns, 0, sizeof(turns));
	memset(highest, 0, sizeof(highest));
	scripted = NULL;
	script_delay = 0;
	chance = 0;
	boot_time = clock_readings = 0;
	granting = false;
	credit_init(&credit, CPUS);
	credit_recover(&meter);
	credit.pool.max_lease = max_lease;
	assert_int_equal(put_in_force(NO_ONE, 1, 1, ceiling), 0);
}

static bool send_from(uint32_t slot, int cpu, uint64_t bytes)
{
	const uint32_t interrupted = current_cpu;
	bool passed;

	busy[cpu] = true;
	current_cpu = (uint32_t)cpu;
	passed = admit(current_cpu, slot, WT_UPLOADS, bytes);
	current_cpu = interrupted;
	busy[cpu] = false;
	note_ceilings();
	return passed;
}

static bool send(int cpu, uint64_t bytes)
{
	return send_from(PEERS + 1, cpu, bytes);
}

static void random_packet(int cpu)
{
	send_from(1 + random_below(PEERS + 1), cpu,
		  1 + random_below(random_below(4) ? 3000 : WT_LARGEST_AGGREGATE));
}

/* A grant now or next, refusal and its end, for the interface or a peer. */
static void random_change(void)
{
	uint32_t slot = random_below(PEERS + 1), ceiling = random_below(random_below(2) ? 3000000 : 300000);
	struct meter_limit_state limit;

	granting = true;
	read_limit(&meter, slot, &limit);
	if (random_below(8) == 0) {
		set_reasons(state_at(&meter, slot), random_below(4) ? 0 : WT_REFUSE_ADMIN);
	} else if (slot && random_below(20) == 0) {
		assert_int_equal(meter_clear_peer_limit(&meter, slot), 0);
	} else if (limit.grant.cycle && random_below(2)) {
		lay_down(slot, limit.grant.cycle + 1, ceiling, boot_time + random_below(3));
	} else {
		put_in_force(slot, limit.grant.cycle + !random_below(4), limit.grant.grant_seq + 1,
			     limit.cycle_counted + ceiling);
	}
	granting = false;
}

static void interleave(void)
{
	void (*step)(void) = scripted;
	int cpu;

	note_ceilings();
	if (step) {
		if (script_delay-- > 0)
			return;
		scripted = NULL;
		step();
		return;
	}
	if (!chance || random_below(chance))
		return;
	boot_time += random_below(20) == 0;
	cpu = (int)random_below(CPUS);
	/* User space waits for a take-up, which goes on only when it returns to here. */
	for (uint32_t slot = 0; slot <= PEERS; slot++)
		if (*state_at(&meter, slot) & WT_STATE_TAKING_UP)
			cpu = -1;
	if (cpu >= 0 && !granting && !random_below(30))
		random_change();
	else if (cpu >= 0 && !busy[cpu])
		random_packet(cpu);
}

static void assert_sound(void)
{
	for (uint32_t slot = 0; slot <= PEERS; slot++) {
		const struct wt_pool *pool = pool_at(&meter, slot);

		assert_int_equal(pool->drawn, counted_at(slot) + leased_at(slot));
		assert_true(counted_at(slot) <= highest[slot]);
		assert_int_equal(pool->doubts_begun, pool->doubts_ended);
	}
}

static void no_interleaving_breaks_the_account(void **state)
{
	int all_turns = 0, all_exhaustions = 0;

	(void)state;
	random_state = 88172645463325252ULL;
	for (int round = 0; round < 3000; round++) {
		reset(random_below(5000000), round % 3 ? MAX_LEASE : 0);
		for (uint32_t slot = 1; slot <= PEERS; slot++)
			assert_int_equal(put_in_force(slot, 1, 1, random_below(2000000)), 0);
		/* With 1, another CPU draws between every reading and its swap: the last resort is reached.
		 */
		chance = 1 + (unsigned)round % 5;
		for (int packet = 0; packet < 30; packet++) {
			random_packet((int)random_below(CPUS));
			assert_sound();
		}
		for (uint32_t slot = 0; slot <= PEERS; slot++) {
			all_turns += turns[slot];
			all_exhaustions += exhaustions[slot];
		}
	}
	/* All that was meant to happen has happened. */
	assert_true(all_turns > 1000 && all_exhaustions > 1000);
}

/* Limits that stand still, one in another: whoever is latched is used up to within the bound. */
static void limits_are_used_up_to_the_bound(void **state)
{
	int seen[PEERS + 1] = {0};

	(void)state;
	random_state = 362436069;
	for (int round = 0; round < 500; round++) {
		uint64_t ceilings[PEERS + 1];

		ceilings[0] = 1000000 + random_below(6000000);
		reset(ceilings[0], MAX_LEASE);
		for (uint32_t slot = 1; slot <= PEERS; slot++) {
			ceilings[slot] = 1000000 + random_below(2000000);
			assert_int_equal(put_in_force(slot, 1, 1, ceilings[slot]), 0);
		}
		granting = true; /* no other grants */
		chance = 2 + (unsigned)round % 5;
		while (!latched(0))
			random_packet((int)random_below(CPUS));
		assert_sound();
		for (uint32_t slot = 0; slot <= PEERS; slot++) {
			assert_int_equal(exhaustions[slot], latched(slot));
			assert_true(counted_at(slot) <= ceilings[slot]);
			assert_true(!latched(slot) || ceilings[slot] - counted_at(slot) < WT_UNSPENT_BOUND);
			seen[slot] += latched(slot);
		}
	}
	for (uint32_t slot = 0; slot <= PEERS; slot++)
		assert_true(seen[slot] > 50);
}

static void grant_more(void)
{
	assert_int_equal(put_in_force(NO_ONE, 1, 2, 10000), 0);
}

/* Runs `packet` with `step` at its first reading, then at its second, and so on until it has no more. */
static void at_every_reading(void (*prepare)(void), void (*step)(void), void (*packet)(void),
			     void (*check_after)(void))
{
	int delay = 0;

	do {
		prepare();
		scripted = step;
		script_delay = delay++;
		packet();
		if (scripted)
			break;
		check_after();
		assert_sound();
	} while (delay < 1000);
	assert_true(delay > 1 && delay < 1000);
	scripted = NULL;
}

static void spend_a_limit(void)
{
	reset(1000, 0);
	assert_true(send(0, 1000));
}

static void send_5000(void)
{
	send(0, 5000);
}

static void assert_new_grant_is_usable(void)
{
	uint64_t left = 10000 - counted_at(NO_ONE);

	assert_false(latched(0));
	assert_true(left == 9000 || left == 4000);
	assert_true(send(1, left));
}

static void a_late_refusal_spares_the_newer_grant(void **state)
{
	(void)state;
	at_every_reading(spend_a_limit, grant_more, send_5000, assert_new_grant_is_usable);
}

static void exhaust_now(void)
{
	assert_int_equal(put_in_force(NO_ONE, 1, 2, 1001), 0);
	assert_false(send(1, 5000));
	assert_true(latched(0));
}

static void assert_still_latched(void)
{
	assert_true(latched(0));
	assert_false(send(2, 1));
	assert_in_range(exhaustions[0], 1, 2);
}

static void a_late_refusal_does_not_lift_a_newer_latch(void **state)
{
	(void)state;
	at_every_reading(spend_a_limit, exhaust_now, send_5000, assert_still_latched);
}

static void wait_for_the_turn(void)
{
	reset(1000, 0);
	assert_int_equal(put_in_force(PEER, 1, 1, 1000), 0);
	peer_pools[PEER].max_lease = 0;
	assert_true(send_from(PEER, 0, 700));
	assert_true(send_from(PEER, 1, 300));
	assert_int_equal(lay_down(NO_ONE, 2, 9000, 5), 0);
	assert_int_equal(lay_down(PEER, 2, 8000, 5), 0);
	assert_int_equal(clock_readings, 0);
	assert_false(send_from(PEER, 1, 200));
	assert_true(clock_readings > 0);
	boot_time = 5;
}

static void send_the_first_300(void)
{
	send_from(PEER, 0, 300);
}

static void send_another_200(void)
{
	send_from(PEER, 1, 200);
}

/* Once, whoever of the two was first, and the cycle begins where the last one ended. */
static void assert_turned_once(void)
{
	struct meter_limit_state limit;

	for (uint32_t slot = 0; slot <= PEER; slot += PEER) {
		assert_int_equal(turns[slot], 1);
		read_limit(&meter, slot, &limit);
		assert_int_equal(limit.grant.cycle, 2);
		assert_int_equal(limit.began, 1000);
		assert_int_equal(limit.next.cycle, 0);
		assert_true(limit.cycle_counted == 300 || limit.cycle_counted == 500);
		assert_false(limit.exhausted);
	}
	assert_true(send_from(PEER, 2, 8000 - limit.cycle_counted));
	assert_false(send_from(PEER, 3, 1));
}

static void the_next_cycle_is_taken_up_once(void **state)
{
	(void)state;
	at_every_reading(wait_for_the_turn, send_another_200, send_the_first_300, assert_turned_once);
	/* And when packets pass, nobody asks what time it is. */
	reset(1000, MAX_LEASE);
	assert_int_equal(lay_down(NO_ONE, 2, 9000, 5), 0);
	boot_time = 6;
	assert_true(send(0, 1000));
	assert_int_equal(clock_readings, 0);
	assert_true(send(0, 1));
	assert_int_equal(turns[0], 1);
}

static int late_result;

static void raise_the_old_cycle(void)
{
	late_result = put_in_force(PEER, 1, 2, 50000);
}

static void assert_old_cycle_is_over_or_raised(void)
{
	struct meter_limit_state limit;

	read_limit(&meter, PEER, &limit);
	if (late_result == 0) {
		/* It came first: its credit is there, and the next cycle still waits. */
		assert_int_equal(limit.grant.cycle, 1);
		assert_int_equal(limit.next.cycle, 2);
		assert_true(send_from(PEER, 2, 5));
	} else {
		assert_int_equal(late_result, -EALREADY);
		assert_int_equal(limit.grant.cycle, 2);
		assert_int_equal(limit.grant.ceiling, 8000);
		assert_int_equal(turns[PEER], 1);
	}
}

static void a_stale_grant_never_refills_a_newer_cycle(void **state)
{
	(void)state;
	at_every_reading(wait_for_the_turn, send_the_first_300, raise_the_old_cycle,
			 assert_old_cycle_is_over_or_raised);
}

/* The process and the packet both have the same grant in hand. */
static void turn_by_process(void)
{
	late_result = put_in_force(PEER, 2, 1, 8000);
}

static void assert_one_of_them_did_it(void)
{
	struct meter_limit_state limit;

	read_limit(&meter, PEER, &limit);
	assert_int_equal(late_result, turns[PEER] ? -EALREADY : 0);
	assert_int_equal(limit.grant.cycle, 2);
	assert_int_equal(limit.began, 1000);
	assert_int_equal(limit.next.cycle, 0);
}

static void process_and_packet_agree_on_the_turn(void **state)
{
	(void)state;
	at_every_reading(wait_for_the_turn, send_the_first_300, turn_by_process, assert_one_of_them_did_it);
}

static int intrusions;

/* Another CPU takes a byte between every reading and the swap that follows it. */
static void intrude(void)
{
	scripted = NULL;
	intrusions += send(1, 1);
	scripted = intrude;
}

static bool send_against_intruders(uint64_t ceiling, uint64_t bytes)
{
	bool passed;

	reset(ceiling, 0);
	intrusions = 0;
	scripted = intrude;
	passed = send(0, bytes);
	scripted = NULL;
	assert_sound();
	return passed;
}

static void the_last_resort_is_exact(void **state)
{
	uint64_t taken;

	(void)state;
	assert_true(send_against_intruders(WT_NO_CEILING, 1000));
	taken = (uint64_t)intrusions;
	assert_true(taken > DRAW_TRIES);
	assert_int_equal(credit.pool.drawn, 1000 + taken);
	/* Enough to the byte; then a byte too little, which only the last resort can see. */
	assert_true(send_against_intruders(1000 + taken, 1000));
	assert_int_equal(credit.pool.drawn, 1000 + taken);
	assert_false(send_against_intruders(1000 + taken - 1, 1000));
	assert_int_equal(credit.pool.drawn, intrusions);
}

/* Every word of the other's state, pool and purse is as it was. */
static void a_refusal_draws_nothing_from_the_other(void **state)
{
	struct wt_pool before;
	struct wt_credit credit_before;
	struct wt_purse purse;
	uint64_t word;

	(void)state;
	reset(1000, MAX_LEASE);
	assert_int_equal(put_in_force(PEER, 1, 1, 5000000), 0);
	assert_true(send_from(PEER, 0, 400));
	before = peer_pools[PEER];
	purse = purses[PEER];
	word = peer_states[PEER];
	assert_false(send_from(PEER, 0, 1000000));
	assert_true(latched(0) && !latched(PEER));
	assert_int_equal(peer_pools[PEER].drawn, before.drawn);
	assert_memory_equal(&purses[PEER], &purse, sizeof(purse));
	assert_int_equal(peer_states[PEER], word);
	/* The interface's is refused at once from now on. */
	before = peer_pools[PEER];
	assert_false(send_from(PEER, 0, 1000000));
	assert_memory_equal(&peer_pools[PEER], &before, sizeof(before));

	reset(5000000, MAX_LEASE);
	assert_int_equal(put_in_force(PEER, 1, 1, 1000), 0);
	assert_true(send_from(PEER, 0, 400));
	credit_before = credit;
	purse = interface_cells.of[0].purse;
	assert_false(send_from(PEER, 0, 1000000));
	assert_true(latched(PEER));
	assert_memory_equal(&credit, &credit_before, sizeof(credit));
	assert_memory_equal(&interface_cells.of[0].purse, &purse, sizeof(purse));
	assert_true(send(0, 1000000));
}

static void drain_the_interface_and_try_the_peer(void)
{
	/* CPU 0 has drawn for the peer, and is not through with the interface. */
	if (!(peer_pools[PEER].doubts_begun > peer_pools[PEER].doubts_ended))
		return;
	send(1, 6000);
	send_from(PEER, 2, 300);
}

static void prepare_doubts(void)
{
	reset(6000, 0);
	assert_int_equal(put_in_force(PEER, 1, 1, 1000), 0);
	peer_pools[PEER].max_lease = 0;
}

static void send_800(void)
{
	send_from(PEER, 0, 800);
}

/* 300 did not fit beside 800 that were then given back: not a reason to cut the peer off. */
static void assert_peer_is_not_cut_off(void)
{
	if (!latched(0))
		return;
	assert_false(latched(PEER));
	assert_int_equal(put_in_force(NO_ONE, 1, 2, 100000), 0);
	assert_true(send_from(PEER, 3, 1000 - counted_at(PEER)));
}

static void what_is_in_doubt_exhausts_nobody(void **state)
{
	(void)state;
	at_every_reading(prepare_doubts, drain_the_interface_and_try_the_peer, send_800,
			 assert_peer_is_not_cut_off);
}

static void reasons_refuse_both_directions(void **state)
{
	struct wt_credit before;

	(void)state;
	reset(1000, MAX_LEASE);
	assert_int_equal(meter_set_peer_refuse(&meter, PEER, WT_REFUSE_DISABLED), 0);
	before = credit;
	assert_false(send_from(PEER, 0, 10));
	assert_false(admit(0, PEER, WT_DOWNLOADS, 10));
	assert_memory_equal(&credit, &before, sizeof(credit));
	assert_true(send_from(PEER - 1, 0, 10));
	assert_int_equal(meter_set_peer_refuse(&meter, PEER, 0), 0);
	assert_true(send_from(PEER, 0, 10));
	meter_set_refuse(&meter, WT_REFUSE_BILLING);
	assert_false(send_from(PEER, 0, 10));
	assert_false(send_from(NO_ONE, 0, 10));
	meter_set_refuse(&meter, 0);
	assert_true(send_from(NO_ONE, 0, 10));
	assert_int_equal(counted_at(0), 20);
	assert_sound();
}

/* The programs look at peers while one of them has a limit or is refused, and a process that starts knows. */
static void peers_are_asked_while_one_is_limited(void **state)
{
	(void)state;
	reset(1000, MAX_LEASE);
	assert_false(credit.state & WT_STATE_PEERS);
	for (uint32_t slot = 1; slot <= 2; slot++)
		for (uint64_t grant = 1; grant <= 3; grant++)
			assert_int_equal(put_in_force(slot, 1, grant, 100), 0);
	assert_int_equal(put_in_force(1, 1, 1, 100), -EALREADY);
	assert_int_equal(meter_set_peer_refuse(&meter, 1, WT_REFUSE_ADMIN), 0);
	assert_int_equal(meter_set_peer_refuse(&meter, 3, WT_REFUSE_ADMIN), 0);
	assert_int_equal(meter_clear_peer_limit(&meter, 1), 0);
	assert_int_equal(meter_clear_peer_limit(&meter, 1), 0);
	assert_int_equal(meter_clear_peer_limit(&meter, 2), 0);
	assert_true(credit.state & WT_STATE_PEERS);
	assert_int_equal(meter_set_peer_refuse(&meter, 3, 0), 0);
	assert_false(credit.state & WT_STATE_PEERS);
	/* Killed between the bit and the state, and between the state and the bit. */
	set_peers_bit(&credit.state, true);
	credit_recover(&meter);
	assert_int_equal(meter_clear_peer_limit(&meter, 1), 0);
	assert_false(credit.state & WT_STATE_PEERS);
	assert_int_equal(put_in_force(1, 2, 1, 100), 0);
	meter.limited_peers = 0;
	credit_recover(&meter);
	assert_int_equal(meter_clear_peer_limit(&meter, 2), 0);
	assert_true(credit.state & WT_STATE_PEERS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_interleaving_breaks_the_account),
		cmocka_unit_test(limits_are_used_up_to_the_bound),
		cmocka_unit_test(a_late_refusal_spares_the_newer_grant),
		cmocka_unit_test(a_late_refusal_does_not_lift_a_newer_latch),
		cmocka_unit_test(the_next_cycle_is_taken_up_once),
		cmocka_unit_test(a_stale_grant_never_refills_a_newer_cycle),
		cmocka_unit_test(process_and_packet_agree_on_the_turn),
		cmocka_unit_test(the_last_resort_is_exact),
		cmocka_unit_test(a_refusal_draws_nothing_from_the_other),
		cmocka_unit_test(what_is_in_doubt_exhausts_nobody),
		cmocka_unit_test(reasons_refuse_both_directions),
		cmocka_unit_test(peers_are_asked_while_one_is_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
