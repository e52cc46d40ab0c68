// SPDX-License-Identifier: BSD-2-Clause
/*
 * The programs' credit, compiled for user space, with other CPUs' packets and new grants put in wherever it
 * reads shared memory (I13, I14): the races that running programs meet once in a million packets.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdbool.h>

#include <wiretoll/meter_abi.h>

/* In place of bpf/maps.h. */
#define WIRETOLL_BPF_MAPS_H
#define CPUS 4

static const uint32_t cpus = CPUS;
static int events;
static int events_sent;

static long bpf_ringbuf_output(void *ring, const void *data, uint64_t size, uint64_t flags)
{
	(void)ring, (void)data, (void)size, (void)flags;
	events_sent++;
	return 0;
}

static void interleave(void);

#define READ_ONCE(word)                                                                                      \
	({                                                                                                   \
		__typeof__(word) value_ = *(const volatile __typeof__(word) *)&(word);                       \
		interleave();                                                                                \
		value_;                                                                                      \
	})

#include "../../bpf/credit.h"

#define MAX_LEASE ((WT_UNSPENT_BOUND - WT_LARGEST_AGGREGATE) / CPUS)

static struct wt_pool pool;
static struct wt_interface_cell cells[CPUS];
static bool busy[CPUS];
static void (*scripted)(void); /* what happens at the next reading, instead of chance */
static unsigned chance;        /* one in so many readings is interrupted; 0: none */
static bool granting;
static uint64_t highest_ceiling;
static uint64_t random_state;

static uint32_t random_below(uint32_t bound)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)((random_state >> 16) % bound);
}

static void reset(uint64_t ceiling, uint64_t max_lease)
{
	pool = (struct wt_pool){
		.generation = 1, .mask = WT_UPLOADS, .ceiling = ceiling, .max_lease = max_lease};
	highest_ceiling = ceiling;
	for (int i = 0; i < CPUS; i++) {
		cells[i] = (struct wt_interface_cell){0};
		busy[i] = false;
	}
	scripted = NULL;
	chance = 0;
	granting = false;
	events_sent = 0;
}

static uint64_t counted(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < CPUS; i++)
		sum += cells[i].counted;
	return sum;
}

static uint64_t leased(void)
{
	uint64_t sum = 0;

	for (int i = 0; i < CPUS; i++)
		sum += cells[i].lease;
	return sum;
}

static bool send(int cpu, uint64_t bytes)
{
	bool passed;

	busy[cpu] = true;
	passed = admit(&pool, &cells[cpu], 1, WT_UPLOADS, bytes);
	busy[cpu] = false;
	return passed;
}

/* As userspace/meter/limit.c stores it: the ceiling, and then the generation. */
static void store_grant(uint64_t ceiling)
{
	granting = true;
	pool.ceiling = ceiling;
	if (ceiling > highest_ceiling)
		highest_ceiling = ceiling;
	interleave();
	pool.generation++;
	granting = false;
}

static void interleave(void)
{
	void (*step)(void) = scripted;
	int cpu = (int)random_below(CPUS);

	if (step) {
		scripted = NULL;
		step();
		return;
	}
	if (!chance || random_below(chance))
		return;
	if (!granting && !random_below(50))
		store_grant(counted() + random_below(3000000));
	else if (!busy[cpu])
		send(cpu, 1 + random_below(random_below(4) ? 3000 : WT_LARGEST_AGGREGATE));
}

static void assert_sound(void)
{
	assert_int_equal(pool.drawn, counted() + leased());
	assert_true(counted() <= highest_ceiling);
	assert_true(pool.exhausted_generation <= pool.generation);
	/* At most one event for each grant. */
	assert_true(events_sent <= (int)pool.generation);
}

static void no_interleaving_breaks_the_account(void **state)
{
	(void)state;
	random_state = 88172645463325252ULL;
	for (int round = 0; round < 3000; round++) {
		reset(random_below(5000000), round % 3 ? MAX_LEASE : 0);
		/* With 1, another CPU draws between every reading and its swap: the last resort is reached.
		 */
		chance = 1 + (unsigned)round % 5;
		for (int packet = 0; packet < 30; packet++) {
			send((int)random_below(CPUS), 1 + random_below(100000));
			assert_sound();
		}
	}
}

/* A limit that stands still: admitted to within the bound, once exhausted. */
static void a_limit_is_used_up_to_the_bound(void **state)
{
	(void)state;
	random_state = 362436069;
	for (int round = 0; round < 300; round++) {
		uint64_t ceiling = 1000000 + random_below(5000000);

		reset(ceiling, MAX_LEASE);
		granting = true; /* no other grants */
		chance = 2 + (unsigned)round % 5;
		while (pool.exhausted_generation != pool.generation)
			send((int)random_below(CPUS), 1 + random_below(WT_LARGEST_AGGREGATE));
		assert_sound();
		assert_true(counted() <= ceiling && ceiling - counted() < WT_UNSPENT_BOUND);
		assert_int_equal(events_sent, 1);
	}
}

static void grant_more(void)
{
	store_grant(10000);
}

static void a_late_refusal_spares_the_newer_grant(void **state)
{
	(void)state;
	reset(1000, MAX_LEASE);
	assert_true(send(0, 1000));
	/* The grant comes after the packet has read the generation: the old latch, or none, but not the new.
	 */
	scripted = grant_more;
	send(0, 20000);
	assert_int_equal(pool.generation, 2);
	assert_true(pool.exhausted_generation < 2);
	assert_true(send(1, 9000));
	assert_sound();
}

static void exhaust_now(void)
{
	store_grant(1000);
	assert_false(send(1, 5000));
	assert_int_equal(pool.exhausted_generation, 2);
}

static void a_late_refusal_does_not_lift_a_newer_latch(void **state)
{
	(void)state;
	reset(1000, MAX_LEASE);
	scripted = exhaust_now;
	assert_false(send(0, 5000));
	assert_int_equal(pool.exhausted_generation, 2);
	assert_false(send(2, 1));
	assert_int_equal(events_sent, 1);
}

static int intrusions;

/* Another CPU takes a byte between every reading and the swap that follows it. */
static void intrude(void)
{
	scripted = NULL;
	assert_true(send(1, 1));
	intrusions++;
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
	assert_int_equal(pool.drawn, 1000 + taken);
	/* Enough to the byte; then a byte too little, which only the last resort can see. */
	assert_true(send_against_intruders(1000 + taken, 1000));
	assert_int_equal(pool.drawn, 1000 + taken);
	assert_false(send_against_intruders(1000 + taken - 1, 1000));
	assert_int_equal(pool.drawn, intrusions);
}

static void refusals_draw_nothing(void **state)
{
	(void)state;
	reset(1000, MAX_LEASE);
	assert_false(send(0, 1001));
	assert_int_equal(pool.drawn, 0);
	reset(1000, MAX_LEASE);
	pool.refuse = WT_REFUSE_ADMIN;
	assert_false(send(0, 10));
	assert_int_equal(pool.drawn, 0);
	assert_int_equal(pool.exhausted_generation, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_interleaving_breaks_the_account),
		cmocka_unit_test(a_limit_is_used_up_to_the_bound),
		cmocka_unit_test(a_late_refusal_spares_the_newer_grant),
		cmocka_unit_test(a_late_refusal_does_not_lift_a_newer_latch),
		cmocka_unit_test(the_last_resort_is_exact),
		cmocka_unit_test(refusals_draw_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
