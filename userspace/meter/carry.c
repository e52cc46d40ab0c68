// SPDX-License-Identifier: BSD-2-Clause
/*
 * Credit through a hand-over, where for some milliseconds two generations of programs draw on pools of their
 * own: half of what is left is lent to the new one, and when the old one counts no more, the whole rest is
 * its. Each step is one compare and swap of a state word, or a store that nobody reads yet, and can be done
 * again: see docs/decisions/hand-over.md.
 */
#include "meter/carry.h"

#include "meter/credit.h"

/* More than passes in the time of a hand-over, where no ceiling says how much that may be. */
#define AHEAD (1ULL << 40)

static uint64_t end_of(const struct wt_grant *grant)
{
	return grant->ceiling < WT_NO_CEILING - grant->base ? grant->base + grant->ceiling : WT_NO_CEILING;
}

static uint64_t rest_of(const struct wt_pool *pool, const struct wt_grant *grant)
{
	uint64_t end = end_of(grant), drawn = LOAD(pool->drawn);

	return end > drawn ? end - drawn : 0;
}

/* The grant in whose place the one in force stands, NULL when it stands for itself. */
static const struct wt_grant *held_grant(const struct wt_pool *pool, const struct wt_grant *live)
{
	return live->held & WT_HELD ? &pool->grants[live->held >> WT_HELD_LIVE_SHIFT & WT_STATE_FIELD] : NULL;
}

static uint32_t held_next(const struct wt_grant *live)
{
	return live->held >> WT_HELD_NEXT_SHIFT & WT_STATE_FIELD;
}

static bool has_grants(const struct wt_grant *live, uint64_t state)
{
	return live->cycle || field(state, WT_STATE_NEXT_SHIFT);
}

void carry_hold(struct meter *old, uint32_t slot)
{
	struct wt_pool *pool = pool_at(old, slot);
	__u64 *word = state_at(old, slot);
	uint64_t state, changed;

	do {
		const struct wt_grant *live;
		struct wt_grant stand_in;
		uint32_t place;

		state = read_state(word);
		if (!state)
			return;
		live = live_grant(pool, state);
		if (live->held || !has_grants(live, state))
			return;
		place = free_grant(state);
		stand_in = *live;
		if (live->ceiling != WT_NO_CEILING)
			stand_in.ceiling -= rest_of(pool, live) / 2;
		stand_in.held = WT_HELD | field(state, WT_STATE_LIVE_SHIFT) << WT_HELD_LIVE_SHIFT |
				field(state, WT_STATE_NEXT_SHIFT) << WT_HELD_NEXT_SHIFT |
				(state & WT_STATE_EXHAUSTED ? WT_HELD_EXHAUSTED : 0);
		store_grant(&pool->grants[place], &stand_in);
		changed = with_field(state, WT_STATE_LIVE_SHIFT, place);
		changed = with_field(changed, WT_STATE_NEXT_SHIFT, 0);
	} while (!change_state(word, state, changed));
}

void carry_release(struct meter *old, uint32_t slot)
{
	struct wt_pool *pool = pool_at(old, slot);
	__u64 *word = state_at(old, slot);
	uint64_t state, changed;
	uint32_t held, place;

	do {
		state = read_state(word);
		if (!state)
			return;
		place = field(state, WT_STATE_LIVE_SHIFT);
		held = pool->grants[place].held;
		if (!(held & WT_HELD))
			return;
		changed = with_field(state, WT_STATE_LIVE_SHIFT, held >> WT_HELD_LIVE_SHIFT & WT_STATE_FIELD);
		changed = with_field(changed, WT_STATE_NEXT_SHIFT, held_next(&pool->grants[place]));
		/* What latched was the stand-in: the next packet finds out. */
		if (!(held & WT_HELD_EXHAUSTED))
			changed &= ~WT_STATE_EXHAUSTED;
	} while (!change_state(word, state, changed));
	STORE(pool->grants[place].held, 0);
}

/* What the old programs can no longer draw. Some of them had drawn beyond the stand-in when it came. */
static uint64_t lent(const struct wt_pool *pool, const struct wt_grant *live, const struct wt_grant *held)
{
	uint64_t end = end_of(held), kept = end_of(live), drawn = LOAD(pool->drawn);

	if (held->ceiling == WT_NO_CEILING)
		return WT_NO_CEILING;
	if (drawn > kept)
		kept = drawn;
	return end > kept ? end - kept : 0;
}

/* Beyond all that the old programs may yet count, so that no cycle begins below 0. */
static uint64_t line_of(const struct wt_pool *pool, const struct wt_grant *held)
{
	uint64_t end = end_of(held), drawn = LOAD(pool->drawn);

	if (held->ceiling == WT_NO_CEILING)
		return drawn + AHEAD;
	return end > drawn ? end : drawn;
}

void carry_lend(const struct meter *old, struct meter *new, uint32_t slot)
{
	const struct wt_pool *from = pool_at(old, slot);
	struct wt_pool *to = pool_at(new, slot);
	uint64_t state = read_state(state_at(old, slot)), first;
	const struct wt_grant *live, *held;

	if (!state)
		return;
	live = live_grant(from, state);
	held = held_grant(from, live);
	first = SEQUENCE | (state & (WT_STATE_REASONS | WT_STATE_PEERS));
	if (held) {
		to->max_lease = lease_bound(new->meta->cpus);
		to->abi = WT_POOL_ABI;
		to->carried = to->drawn = line_of(from, held);
		to->grants[0] = *held;
		to->grants[0].ceiling = lent(from, live, held);
		to->grants[0].base = to->carried;
		if (held_next(live))
			to->grants[2] = from->grants[held_next(live) - 1];
		first |= state & WT_STATE_FIELD << WT_STATE_MASK_SHIFT;
		if (live->held & WT_HELD_EXHAUSTED)
			first |= WT_STATE_EXHAUSTED;
	}
	STORE(*state_at(new, slot), first);
}

void carry_finish(const struct meter *old, struct meter *new, uint32_t slot)
{
	const struct wt_pool *from = pool_at(old, slot);
	struct wt_pool *to = pool_at(new, slot);
	uint64_t state = read_state(state_at(old, slot)), changed;
	const struct wt_grant *live, *held;
	__u64 *word = state_at(new, slot);
	struct wt_grant whole;

	if (!state)
		return;
	live = live_grant(from, state);
	held = held_grant(from, live);
	if (!held)
		return;
	whole = *held;
	whole.base = to->carried - (counted(old, slot) - held->base);
	do {
		state = read_state(word);
		if (field(state, WT_STATE_LIVE_SHIFT) != 0)
			return;
		store_grant(&to->grants[1], &whole);
		changed = with_field(state, WT_STATE_LIVE_SHIFT, 1);
		changed = with_field(changed, WT_STATE_NEXT_SHIFT, held_next(live) ? 3 : 0);
		if (!(live->held & WT_HELD_EXHAUSTED))
			changed &= ~WT_STATE_EXHAUSTED;
	} while (!change_state(word, state, changed));
}
