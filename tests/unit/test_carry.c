// SPDX-License-Identifier: BSD-2-Clause
/*
 * A limit through a hand-over (I13): whatever both generations of programs draw and count at any point of it,
 * together they never pass the ceiling, and in the end all of it has been used. The programs here are a few
 * lines that know a pool's rule and nothing of how user space splits it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "meter/carry.h"

#define CPUS   2
#define STRIDE 256
#define SLOT   7
#define ROUNDS 20000

/* One generation of programs with its maps, and what its leases hold. */
struct generation {
	struct meter meter;
	struct wt_meta meta;
	struct wt_credit credit;
	struct wt_interface_cells cells;
	struct wt_purse purses[CPUS * STRIDE];
	__u64 states[STRIDE];
	struct wt_pool pools[STRIDE];
	uint64_t leased;
};

static struct generation old, new;
static uint32_t slot;
static uint64_t admitted;
static uint64_t end; /* of the limit, on the old line of counted */

static uint64_t below(uint64_t limit)
{
	return limit ? (((uint64_t)random() << 31) ^ (uint64_t)random()) % limit : 0;
}

static void begin(struct generation *generation)
{
	memset(generation, 0, sizeof(*generation));
	generation->meta = (struct wt_meta){.capacity = STRIDE, .cpus = CPUS, .stride = STRIDE};
	generation->meter = (struct meter){.purses = generation->purses,
					   .interface_cells = &generation->cells,
					   .credit = &generation->credit,
					   .peer_states = generation->states,
					   .peer_pools = generation->pools,
					   .meta = &generation->meta};
}

static __u64 *word_of(struct generation *generation)
{
	return slot ? &generation->states[slot] : &generation->credit.state;
}

static struct wt_pool *pool_of(struct generation *generation)
{
	return slot ? &generation->pools[slot] : &generation->credit.pool;
}

static const struct wt_grant *in_force(struct generation *generation)
{
	return &pool_of(generation)->grants[*word_of(generation) >> WT_STATE_LIVE_SHIFT & 3];
}

/* What may still be drawn: nothing while refused, else up to the end of the grant in force. */
static uint64_t to_draw(struct generation *generation)
{
	const struct wt_grant *grant = in_force(generation);
	uint64_t drawn = pool_of(generation)->drawn;

	if (*word_of(generation) & WT_STATE_REFUSES)
		return 0;
	if (grant->ceiling > WT_NO_CEILING - grant->base)
		return WT_NO_CEILING - drawn;
	return grant->base + grant->ceiling > drawn ? grant->base + grant->ceiling - drawn : 0;
}

static void draw(struct generation *generation, uint64_t bytes)
{
	pool_of(generation)->drawn += bytes;
	generation->leased += bytes;
}

static void count(struct generation *generation, uint64_t bytes)
{
	uint32_t cpu = (uint32_t)below(CPUS);

	if (slot)
		generation->purses[cpu * STRIDE + slot].counted += bytes;
	else
		generation->cells.of[cpu].purse.counted += bytes;
	generation->leased -= bytes;
	admitted += bytes;
}

/* Some traffic, with what it leaves in leases; now and then as much as may pass. */
static void run(struct generation *generation)
{
	uint64_t most = to_draw(generation);

	draw(generation, below(3) ? below(most + 1) : most);
	count(generation, below(3) ? below(generation->leased + 1) : generation->leased);
}

static void run_to_the_end(struct generation *generation)
{
	draw(generation, to_draw(generation));
	count(generation, generation->leased);
}

/* A cycle that began at a random place, of which a part is used. */
static void grant(uint64_t ceiling)
{
	struct wt_pool *pool = pool_of(&old);
	uint64_t before = below(1ULL << 40);
	uint32_t place = (uint32_t)below(3);

	begin(&old);
	begin(&new);
	admitted = 0;
	pool->drawn = pool->carried = before;
	pool->grants[place] = (struct wt_grant){
		.ceiling = ceiling, .base = before, .cycle = 11, .grant_seq = 12, .mask = WT_UPLOADS};
	end = before + ceiling;
	*word_of(&old) = below(1U << 20) << WT_STATE_SEQUENCE_SHIFT | (uint64_t)place << WT_STATE_LIVE_SHIFT |
			 WT_UPLOADS << WT_STATE_MASK_SHIFT;
}

/* In a third place, neither in force nor free to be. */
static struct wt_grant add_next(void)
{
	uint32_t live = (uint32_t)(*word_of(&old) >> WT_STATE_LIVE_SHIFT & 3), place = (live + 1) % 3;
	struct wt_grant next = {
		.ceiling = 1000, .not_before = 13, .cycle = 14, .grant_seq = 15, .mask = WT_DOWNLOADS};

	pool_of(&old)->grants[place] = next;
	*word_of(&old) |= (uint64_t)(place + 1) << WT_STATE_NEXT_SHIFT;
	return next;
}

static uint32_t next_of(struct generation *generation)
{
	return *word_of(generation) >> WT_STATE_NEXT_SHIFT & 3;
}

/* A packet that was judged before the stand-in came knows nothing of it. */
static void draw_late(void)
{
	if (!(*word_of(&old) & WT_STATE_REFUSES))
		draw(&old, below(end - pool_of(&old)->drawn + 1));
}

static void hand_over(uint64_t ceiling)
{
	carry_hold(&old.meter, slot);
	if (below(2))
		draw_late();
	run(&old);
	carry_lend(&old.meter, &new.meter, slot);
	for (int i = 0; i < 3; i++) {
		run(&old); /* on another CPU, until the kernel says that none runs */
		run(&new);
		assert_in_range(admitted + old.leased + new.leased, 0, ceiling);
	}
	carry_finish(&old.meter, &new.meter, slot);
	carry_finish(&old.meter, &new.meter, slot);
}

static void i13_two_generations_share_a_limit(void **state)
{
	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t ceiling = below(4) ? below(1ULL << 30) : below(4);

		slot = below(2) ? SLOT : 0;
		grant(ceiling);
		run(&old);
		hand_over(ceiling);
		assert_in_range(admitted + to_draw(&new) + new.leased, ceiling, ceiling);
		run_to_the_end(&new);
		assert_int_equal(admitted, ceiling);
		assert_int_equal(to_draw(&new), 0);
		assert_int_equal(in_force(&new)->cycle, 11);
		assert_int_equal(in_force(&new)->grant_seq, 12);
	}
}

/* Both as much as they can: neither may have what the other has. */
static void i13_both_at_once_to_the_end(void **state)
{
	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t ceiling = below(1ULL << 30);

		slot = below(2) ? SLOT : 0;
		grant(ceiling);
		run(&old);
		carry_hold(&old.meter, slot);
		carry_lend(&old.meter, &new.meter, slot);
		run_to_the_end(&old);
		run_to_the_end(&new);
		assert_in_range(admitted, 0, ceiling);
		carry_finish(&old.meter, &new.meter, slot);
		run_to_the_end(&new);
		assert_int_equal(admitted, ceiling);
	}
}

static void what_was_only_begun_is_undone(void **state)
{
	(void)state;
	for (int round = 0; round < ROUNDS; round++) {
		uint64_t ceiling = below(1ULL << 30);
		struct wt_grant next;

		slot = below(2) ? SLOT : 0;
		grant(ceiling);
		next = add_next();
		run(&old);
		carry_hold(&old.meter, slot);
		assert_int_equal(next_of(&old), 0);
		run(&old);
		if (!to_draw(&old))
			*word_of(&old) |= WT_STATE_EXHAUSTED; /* of the stand-in */
		carry_release(&old.meter, slot);
		carry_release(&old.meter, slot);
		run_to_the_end(&old);
		assert_int_equal(admitted, ceiling);
		assert_int_not_equal(next_of(&old), 0);
		assert_memory_equal(&pool_of(&old)->grants[next_of(&old) - 1], &next, sizeof(next));
	}
}

static void the_next_cycle_goes_along(void **state)
{
	struct wt_grant next;

	(void)state;
	slot = SLOT;
	grant(5000);
	next = add_next();
	hand_over(5000);
	assert_int_not_equal(next_of(&new), 0);
	assert_memory_equal(&pool_of(&new)->grants[next_of(&new) - 1], &next, sizeof(next));
}

static void exhausted_and_refused_stay_so(void **state)
{
	(void)state;
	for (slot = 0; slot <= SLOT; slot += SLOT) {
		grant(5000);
		run_to_the_end(&old);
		*word_of(&old) |= WT_STATE_EXHAUSTED;
		hand_over(5000);
		assert_true(*word_of(&new) & WT_STATE_EXHAUSTED);

		grant(5000);
		*word_of(&old) |= WT_REFUSE_BILLING;
		hand_over(5000);
		assert_int_equal(*word_of(&new) & WT_STATE_REASONS, WT_REFUSE_BILLING);
		assert_int_equal(admitted, 0);
	}
}

/* A stand-in that was used up in these milliseconds is no end of the limit. */
static void the_new_ones_latch_is_lifted(void **state)
{
	(void)state;
	slot = SLOT;
	grant(5000);
	carry_hold(&old.meter, slot);
	carry_lend(&old.meter, &new.meter, slot);
	run_to_the_end(&new);
	*word_of(&new) |= WT_STATE_EXHAUSTED;
	carry_finish(&old.meter, &new.meter, slot);
	run_to_the_end(&new);
	assert_int_equal(admitted, 5000);
}

static void no_limit_stays_none(void **state)
{
	uint64_t before;

	(void)state;
	slot = 0;
	grant(WT_NO_CEILING);
	draw(&old, 123456);
	count(&old, 123456);
	carry_hold(&old.meter, slot);
	draw(&old, 1000000);
	carry_lend(&old.meter, &new.meter, slot);
	count(&old, 700000);
	draw(&new, 5000);
	count(&new, 5000);
	carry_finish(&old.meter, &new.meter, slot);
	before = pool_of(&new)->carried + 5000 - in_force(&new)->base;
	assert_int_equal(before, 123456 + 700000 + 5000);
	assert_true(in_force(&new)->ceiling == WT_NO_CEILING && to_draw(&new) > 1ULL << 40);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(i13_two_generations_share_a_limit),
		cmocka_unit_test(i13_both_at_once_to_the_end),
		cmocka_unit_test(what_was_only_begun_is_undone),
		cmocka_unit_test(the_next_cycle_goes_along),
		cmocka_unit_test(exhausted_and_refused_stay_so),
		cmocka_unit_test(the_new_ones_latch_is_lifted),
		cmocka_unit_test(no_limit_stays_none),
	};

	srandom(1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
