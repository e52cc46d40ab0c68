// SPDX-License-Identifier: BSD-2-Clause
/* Grants, refusal and their events: user space's side of bpf/credit.h, for the interface and for peers. */
#include "meter/internal.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <sched.h>

#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)
#ifndef LOAD /* the tests put the programs' steps in between */
#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#endif

#define SEQUENCE (1ULL << WT_STATE_SEQUENCE_SHIFT)
#define GRANTS   3

/*
 * The same small lease under every grant, large limits and none included: a CPU that falls idle keeps its
 * lease into the next grant, and that may be a small one. All leases together with the one packet that is
 * refused stay under the bound.
 */
static uint32_t lease_bound(uint32_t cpus)
{
	return (WT_UNSPENT_BOUND - WT_LARGEST_AGGREGATE) / cpus;
}

void credit_init(struct wt_credit *ret_credit, uint32_t cpus)
{
	*ret_credit = (struct wt_credit){.pool = {.max_lease = lease_bound(cpus), .abi = WT_POOL_ABI}};
}

static uint32_t field(uint64_t state, unsigned shift)
{
	return (uint32_t)(state >> shift & WT_STATE_FIELD);
}

static uint64_t with_field(uint64_t state, unsigned shift, uint32_t value)
{
	return (state & ~(WT_STATE_FIELD << shift)) | (uint64_t)value << shift;
}

/* A program that is taking the next grant up is done in a moment: it does not sleep, and cannot die. */
static uint64_t read_state(const __u64 *word)
{
	uint64_t state;

	while ((state = LOAD(*word)) & WT_STATE_TAKING_UP)
		sched_yield();
	return state;
}

/* Fails when a program has latched the state or taken the next grant up since it was read. */
static bool change_state(__u64 *word, __u64 state, uint64_t changed)
{
	return __atomic_compare_exchange_n(word, &state, changed + SEQUENCE, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_ACQUIRE);
}

static const struct wt_grant *live_grant(const struct wt_pool *pool, uint64_t state)
{
	return &pool->grants[field(state, WT_STATE_LIVE_SHIFT)];
}

/* NULL when there is none. */
static const struct wt_grant *next_grant(const struct wt_pool *pool, uint64_t state)
{
	uint32_t next = field(state, WT_STATE_NEXT_SHIFT);

	return next ? &pool->grants[next - 1] : NULL;
}

/* The first of the three that is neither in force nor next: no program believes what it reads there. */
static uint32_t free_grant(uint64_t state)
{
	uint32_t live = field(state, WT_STATE_LIVE_SHIFT), next = field(state, WT_STATE_NEXT_SHIFT);
	uint32_t i = 0;

	while (i == live || i + 1 == next)
		i++;
	return i;
}

static void store_grant(struct wt_grant *to, const struct wt_grant *from)
{
	STORE(to->ceiling, from->ceiling);
	STORE(to->base, from->base);
	STORE(to->not_before, from->not_before);
	STORE(to->cycle, from->cycle);
	STORE(to->grant_seq, from->grant_seq);
	STORE(to->mask, from->mask);
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

/* The interface's, for slot 0, or a peer's. */
static struct wt_pool *pool_at(const struct meter *meter, uint32_t slot)
{
	return slot ? &meter->peer_pools[slot] : &meter->credit->pool;
}

static __u64 *state_at(const struct meter *meter, uint32_t slot)
{
	return slot ? &meter->peer_states[slot] : &meter->credit->state;
}

static uint64_t counted(const struct meter *meter, uint32_t slot)
{
	const struct wt_meta *meta = meter->meta;
	uint64_t sum = 0;

	for (uint32_t cpu = 0; cpu < meta->cpus; cpu++)
		sum += LOAD(meter->purses[wt_purse_index(cpu, slot, meta->stride)].counted);
	return sum;
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
