// SPDX-License-Identifier: BSD-2-Clause
/* Grants, refusal and their events: user space's side of bpf/credit.h, for the interface and for peers. */
#include "meter/credit.h"

#include <bpf/libbpf.h>
#include <errno.h>

void credit_init(struct wt_credit *ret_credit, uint32_t cpus)
{
	*ret_credit = (struct wt_credit){.pool = {.max_lease = lease_bound(cpus), .abi = WT_POOL_ABI}};
}

static bool is_newer(const struct meter_grant *grant, const struct wt_grant *than)
{
	if (grant->cycle != than->cycle)
		return grant->cycle > than->cycle;
	return grant->grant_seq > than->grant_seq;
}

static int check(const struct meter *meter, const struct meter_grant *grant)
{
	if (meter->stale)
		return -ESTALE;
	if (!grant->cycle || !grant->mask || grant->mask & ~(uint32_t)(WT_UPLOADS | WT_DOWNLOADS))
		return -EINVAL;
	return 0;
}

static int grant_now(const struct meter *meter, uint32_t slot, const struct meter_grant *grant)
{
	struct wt_pool *pool = pool_at(meter, slot);
	__u64 *word = state_at(meter, slot);
	uint64_t state, changed;

	do {
		const struct wt_grant *live, *next;
		struct wt_grant stored = {.ceiling = grant->ceiling,
					  .cycle = grant->cycle,
					  .grant_seq = grant->grant_seq,
					  .mask = grant->mask};
		uint32_t place;

		state = read_state(word);
		live = live_grant(pool, state);
		next = next_grant(pool, state);
		place = free_grant(state);
		if (!is_newer(grant, live))
			return -EALREADY;
		stored.base = grant->cycle == live->cycle ? live->base : counted(meter, slot);
		store_grant(&pool->grants[place], &stored);
		changed = with_field(state & ~WT_STATE_EXHAUSTED, WT_STATE_LIVE_SHIFT, place);
		changed = with_field(changed, WT_STATE_MASK_SHIFT, grant->mask);
		/* What this grant overtakes is not to come. */
		if (next && next->cycle <= grant->cycle)
			changed = with_field(changed, WT_STATE_NEXT_SHIFT, 0);
	} while (!change_state(word, state, changed));
	return 0;
}

static int grant_next(const struct meter *meter, uint32_t slot, const struct meter_grant *grant,
		      uint64_t not_before)
{
	struct wt_pool *pool = pool_at(meter, slot);
	__u64 *word = state_at(meter, slot);
	uint64_t state, changed;

	do {
		const struct wt_grant stored = {.ceiling = grant->ceiling,
						.not_before = not_before,
						.cycle = grant->cycle,
						.grant_seq = grant->grant_seq,
						.mask = grant->mask};
		uint32_t place;

		state = read_state(word);
		place = free_grant(state);
		if (grant->cycle <= live_grant(pool, state)->cycle)
			return -EALREADY;
		store_grant(&pool->grants[place], &stored);
		changed = with_field(state, WT_STATE_NEXT_SHIFT, place + 1);
	} while (!change_state(word, state, changed));
	return 0;
}

static void set_reasons(__u64 *word, uint32_t reasons)
{
	uint64_t state;

	do {
		state = read_state(word);
		if ((state & WT_STATE_REASONS) == reasons)
			return;
	} while (!change_state(word, state, (state & ~WT_STATE_REASONS) | (reasons & WT_STATE_REASONS)));
}

/* Read until nothing changed meanwhile. counted comes after the base, so it is never below. */
static void read_limit(const struct meter *meter, uint32_t slot, struct meter_limit_state *ret_state)
{
	const struct wt_pool *pool = pool_at(meter, slot);
	const __u64 *word = state_at(meter, slot);
	struct meter_limit_state limit;
	uint64_t state;

	do {
		const struct wt_grant *live, *next;

		state = read_state(word);
		live = live_grant(pool, state);
		next = next_grant(pool, state);
		limit = (struct meter_limit_state){
			.grant = {LOAD(live->cycle), LOAD(live->grant_seq), LOAD(live->ceiling),
				  field(state, WT_STATE_MASK_SHIFT)},
			.began = LOAD(live->base),
			.exhausted = state & WT_STATE_EXHAUSTED,
			.refuse = state & WT_STATE_REASONS,
		};
		if (!limit.grant.cycle)
			limit.grant.ceiling = WT_NO_CEILING;
		if (next) {
			limit.next = (struct meter_grant){LOAD(next->cycle), LOAD(next->grant_seq),
							  LOAD(next->ceiling), LOAD(next->mask)};
			limit.next_not_before = LOAD(next->not_before);
		}
		limit.cycle_counted = counted(meter, slot) - limit.began;
	} while (LOAD(*word) >> WT_STATE_SEQUENCE_SHIFT != state >> WT_STATE_SEQUENCE_SHIFT);
	*ret_state = limit;
}

int meter_grant(struct meter *meter, const struct meter_grant *grant)
{
	int r = check(meter, grant);

	return r < 0 ? r : grant_now(meter, 0, grant);
}

int meter_grant_next(struct meter *meter, const struct meter_grant *grant, uint64_t not_before)
{
	int r = check(meter, grant);

	return r < 0 ? r : grant_next(meter, 0, grant, not_before);
}

void meter_set_refuse(struct meter *meter, uint32_t reasons)
{
	set_reasons(&meter->credit->state, reasons);
}

void meter_read_limit(const struct meter *meter, struct meter_limit_state *ret_state)
{
	read_limit(meter, 0, ret_state);
}

static int check_slot(const struct meter *meter, uint32_t slot)
{
	if (meter->stale)
		return -ESTALE;
	return slot == WT_SLOT_UNATTRIBUTED || slot >= meter->meta->capacity ? -ERANGE : 0;
}

/* Tells the programs to look at the peers' states, or that none has anything to say. */
static void set_peers_bit(__u64 *word, bool there_are)
{
	uint64_t bit = there_are ? WT_STATE_PEERS : 0, state;

	do {
		state = read_state(word);
		if ((state & WT_STATE_PEERS) == bit)
			return;
	} while (!change_state(word, state, (state & ~WT_STATE_PEERS) | bit));
}

static bool is_limited(const struct meter *meter, uint32_t slot)
{
	return LOAD(meter->peer_states[slot]) & (WT_STATE_REASONS | WT_STATE_FIELD << WT_STATE_MASK_SHIFT);
}

/*
 * The bit only says where to look, and the peer's state is the truth. So it is set before a state changes,
 * and cleared after: a crash in between costs packets a look, and no peer its limit.
 */
static void expect_limit(struct meter *meter, uint32_t slot)
{
	struct wt_pool *pool = &meter->peer_pools[slot];

	STORE(pool->max_lease, lease_bound(meter->meta->cpus));
	STORE(pool->abi, WT_POOL_ABI);
	set_peers_bit(&meter->credit->state, true);
}

static void note_change(struct meter *meter, uint32_t slot, bool was_limited)
{
	meter->limited_peers += (uint32_t)is_limited(meter, slot) - was_limited;
	if (!meter->limited_peers)
		set_peers_bit(&meter->credit->state, false);
}

void credit_recover(struct meter *meter)
{
	meter->limited_peers = 0;
	for (uint32_t slot = 1; slot < meter->meta->capacity; slot++)
		meter->limited_peers += is_limited(meter, slot);
}

int meter_grant_peer(struct meter *meter, uint32_t slot, const struct meter_grant *grant)
{
	int r = check_slot(meter, slot);
	bool was_limited;

	if (r == 0)
		r = check(meter, grant);
	if (r < 0)
		return r;
	was_limited = is_limited(meter, slot);
	expect_limit(meter, slot);
	r = grant_now(meter, slot, grant);
	note_change(meter, slot, was_limited);
	return r;
}

int meter_grant_peer_next(struct meter *meter, uint32_t slot, const struct meter_grant *grant,
			  uint64_t not_before)
{
	int r = check_slot(meter, slot);

	if (r == 0)
		r = check(meter, grant);
	return r < 0 ? r : grant_next(meter, slot, grant, not_before);
}

int meter_set_peer_refuse(struct meter *meter, uint32_t slot, uint32_t reasons)
{
	int r = check_slot(meter, slot);
	bool was_limited;

	if (r < 0)
		return r;
	was_limited = is_limited(meter, slot);
	if (reasons)
		expect_limit(meter, slot);
	set_reasons(&meter->peer_states[slot], reasons);
	note_change(meter, slot, was_limited);
	return 0;
}

/* What was drawn and counted stays: credit is conserved into the slot's next limit. */
static void forget_grants(const struct meter *meter, uint32_t slot)
{
	static const struct wt_grant none = {0};
	__u64 *word = state_at(meter, slot);
	uint64_t state, changed;

	do {
		uint32_t place;

		state = read_state(word);
		place = free_grant(state);
		store_grant(&meter->peer_pools[slot].grants[place], &none);
		changed = with_field(state & ~(WT_STATE_REFUSES | WT_STATE_FIELD << WT_STATE_MASK_SHIFT),
				     WT_STATE_LIVE_SHIFT, place);
		changed = with_field(changed, WT_STATE_NEXT_SHIFT, 0);
	} while (!change_state(word, state, changed));
}

int meter_clear_peer_limit(struct meter *meter, uint32_t slot)
{
	int r = check_slot(meter, slot);
	bool was_limited;

	if (r < 0)
		return r;
	was_limited = is_limited(meter, slot);
	forget_grants(meter, slot);
	note_change(meter, slot, was_limited);
	return 0;
}

int meter_read_peer_limit(const struct meter *meter, uint32_t slot, struct meter_limit_state *ret_state)
{
	if (slot == WT_SLOT_UNATTRIBUTED || slot >= meter->meta->capacity)
		return -ERANGE;
	read_limit(meter, slot, ret_state);
	return 0;
}

int meter_event_fd(const struct meter *meter)
{
	return ring_buffer__epoll_fd(meter->events);
}

int meter_drain_events(struct meter *meter)
{
	return ring_buffer__consume(meter->events);
}
