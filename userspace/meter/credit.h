/* SPDX-License-Identifier: BSD-2-Clause */
/* A credit's state word and its grants as user space reads and changes them: its side of bpf/credit.h. */
#ifndef WIRETOLL_METER_CREDIT_H
#define WIRETOLL_METER_CREDIT_H

#include "meter/internal.h"

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
static inline uint32_t lease_bound(uint32_t cpus)
{
	return (WT_UNSPENT_BOUND - WT_LARGEST_AGGREGATE) / cpus;
}

static inline uint32_t field(uint64_t state, unsigned shift)
{
	return (uint32_t)(state >> shift & WT_STATE_FIELD);
}

static inline uint64_t with_field(uint64_t state, unsigned shift, uint32_t value)
{
	return (state & ~(WT_STATE_FIELD << shift)) | (uint64_t)value << shift;
}

/* A program that is taking the next grant up is done in a moment: it does not sleep, and cannot die. */
static inline uint64_t read_state(const __u64 *word)
{
	uint64_t state;

	while ((state = LOAD(*word)) & WT_STATE_TAKING_UP)
		sched_yield();
	return state;
}

/* Fails when a program has latched the state or taken the next grant up since it was read. */
static inline bool change_state(__u64 *word, __u64 state, uint64_t changed)
{
	return __atomic_compare_exchange_n(word, &state, changed + SEQUENCE, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_ACQUIRE);
}

static inline const struct wt_grant *live_grant(const struct wt_pool *pool, uint64_t state)
{
	return &pool->grants[field(state, WT_STATE_LIVE_SHIFT)];
}

/* NULL when there is none. */
static inline const struct wt_grant *next_grant(const struct wt_pool *pool, uint64_t state)
{
	uint32_t next = field(state, WT_STATE_NEXT_SHIFT);

	return next ? &pool->grants[next - 1] : NULL;
}

/* The first of the three that is neither in force nor next: no program believes what it reads there. */
static inline uint32_t free_grant(uint64_t state)
{
	uint32_t live = field(state, WT_STATE_LIVE_SHIFT), next = field(state, WT_STATE_NEXT_SHIFT);
	uint32_t i = 0;

	while (i == live || i + 1 == next)
		i++;
	return i;
}

static inline void store_grant(struct wt_grant *to, const struct wt_grant *from)
{
	STORE(to->ceiling, from->ceiling);
	STORE(to->base, from->base);
	STORE(to->not_before, from->not_before);
	STORE(to->cycle, from->cycle);
	STORE(to->grant_seq, from->grant_seq);
	STORE(to->mask, from->mask);
	STORE(to->held, from->held);
}

/* The interface's, for slot 0, or a peer's. */
static inline struct wt_pool *pool_at(const struct meter *meter, uint32_t slot)
{
	return slot ? &meter->peer_pools[slot] : &meter->credit->pool;
}

static inline __u64 *state_at(const struct meter *meter, uint32_t slot)
{
	return slot ? &meter->peer_states[slot] : &meter->credit->state;
}

/* The position on the line of counted. */
static inline uint64_t counted(const struct meter *meter, uint32_t slot)
{
	const struct wt_meta *meta = meter->meta;
	uint64_t sum = pool_at(meter, slot)->carried;

	for (uint32_t cpu = 0; cpu < meta->cpus; cpu++) {
		const struct wt_purse *purse = slot ? &meter->purses[wt_purse_index(cpu, slot, meta->stride)]
						    : &meter->interface_cells->of[cpu].purse;

		sum += LOAD(purse->counted);
	}
	return sum;
}

#endif
