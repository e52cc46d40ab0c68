// SPDX-License-Identifier: BSD-2-Clause
/* Grants, refusal and their events: user space's side of bpf/credit.h. */
#include "meter/internal.h"

#include <bpf/libbpf.h>
#include <errno.h>

#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)
#define LOAD(word)         __atomic_load_n(&(word), __ATOMIC_ACQUIRE)

/*
 * The same small lease under every grant, large limits and none included: a CPU that falls idle keeps its
 * lease into the next grant, and that may be a small one. All leases together with the one packet that is
 * refused stay under the bound.
 */
static uint64_t lease_bound(uint32_t cpus)
{
	return (WT_UNSPENT_BOUND - WT_LARGEST_AGGREGATE) / cpus;
}

void pool_init(struct wt_pool *ret_pool, uint32_t cpus)
{
	*ret_pool = (struct wt_pool){
		.generation = 1,
		.ceiling = WT_NO_CEILING,
		.max_lease = lease_bound(cpus),
		.abi = WT_POOL_ABI,
	};
}

/* A grant is first written down as pending. From then on it is certain, and finished by whoever comes. */
void pool_recover(struct wt_pool *pool)
{
	uint64_t generation = LOAD(pool->pending_generation);

	if (!generation)
		return;
	STORE(pool->mask, pool->pending_mask);
	STORE(pool->base, pool->pending_base);
	STORE(pool->cycle, pool->pending_cycle);
	STORE(pool->grant_seq, pool->pending_grant_seq);
	STORE(pool->ceiling, pool->pending_ceiling);
	STORE(pool->generation, generation);
	STORE(pool->pending_generation, 0);
}

/* The ceiling as a position on the line of counted; one that is out of reach is not "no limit" yet. */
static uint64_t absolute_ceiling(uint64_t base, uint64_t ceiling)
{
	if (ceiling == WT_NO_CEILING)
		return WT_NO_CEILING;
	return ceiling < WT_NO_CEILING - 1 - base ? base + ceiling : WT_NO_CEILING - 1;
}

static bool is_newer(const struct wt_pool *pool, const struct meter_grant *grant)
{
	if (grant->cycle != pool->cycle)
		return grant->cycle > pool->cycle;
	return grant->grant_seq > pool->grant_seq;
}

static uint64_t counted(const struct meter *meter)
{
	struct meter_interface_totals totals;

	meter_read_interface(meter, &totals);
	return totals.counted;
}

int meter_grant(struct meter *meter, const struct meter_grant *grant)
{
	struct wt_pool *pool = meter->pool;
	uint64_t base;

	if (meter->stale)
		return -ESTALE;
	if (!grant->cycle || !grant->mask || grant->mask & ~(uint32_t)(WT_UPLOADS | WT_DOWNLOADS))
		return -EINVAL;
	if (!is_newer(pool, grant))
		return -EALREADY;
	base = grant->cycle == pool->cycle ? pool->base : counted(meter);
	STORE(pool->pending_mask, grant->mask);
	STORE(pool->pending_base, base);
	STORE(pool->pending_cycle, grant->cycle);
	STORE(pool->pending_grant_seq, grant->grant_seq);
	STORE(pool->pending_ceiling, absolute_ceiling(base, grant->ceiling));
	STORE(pool->pending_generation, pool->generation + 1);
	pool_recover(pool);
	return 0;
}

void meter_set_refuse(struct meter *meter, uint32_t reasons)
{
	STORE(meter->pool->refuse, reasons);
}

void meter_read_limit(const struct meter *meter, struct meter_limit_state *ret_state)
{
	const struct wt_pool *pool = meter->pool;
	bool limited = pool->ceiling != WT_NO_CEILING;

	*ret_state = (struct meter_limit_state){
		.grant =
			{
				.cycle = pool->cycle,
				.grant_seq = pool->grant_seq,
				.ceiling = limited ? pool->ceiling - pool->base : WT_NO_CEILING,
				.mask = pool->mask,
			},
		.cycle_counted = counted(meter) - pool->base,
		.exhausted = LOAD(pool->exhausted_generation) == pool->generation,
		.refuse = pool->refuse,
	};
}

int meter_event_fd(const struct meter *meter)
{
	return ring_buffer__epoll_fd(meter->events);
}

int meter_drain_events(struct meter *meter)
{
	return ring_buffer__consume(meter->events);
}
