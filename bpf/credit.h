/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Credit: may these bytes pass? Each CPU spends a lease, drawn from the interface's pool, and touches the
 * shared line only when the lease is used up.
 *
 * Never above the ceiling: bytes are counted only out of a lease or a draw, and drawn is raised only by a
 * compare-and-swap (or an add that is checked and undone) that leaves it at or below the ceiling.
 * Unlimited is the highest ceiling there is and takes the same path, so that drawn == counted + leases
 * stays true when a limit comes later.
 *
 * Order of reading: generation first, ceiling after it. User space stores them the other way round, so a
 * packet may see a newer ceiling under an older generation, which only voids its lease early and latches
 * nothing, but never an older ceiling under a newer generation. x86 keeps this order of loads and stores.
 */
#ifndef WIRETOLL_BPF_CREDIT_H
#define WIRETOLL_BPF_CREDIT_H

#include "maps.h"
#include "parse.h"

#ifndef READ_ONCE /* the tests put other CPUs' steps in between */
#define READ_ONCE(word) (*(const volatile __typeof__(word) *)&(word))
#endif

/* A failed compare-and-swap means that another CPU has drawn; so many in a row need as many CPUs. */
#define DRAW_TRIES 16

WT_INLINE int enough(__u64 drawn, __u64 need, __u64 ceiling)
{
	return drawn <= ceiling && need <= ceiling - drawn;
}

/*
 * Latches the refusal for the generation that the packet was judged by, so that a late packet never latches
 * a newer grant. Never lowered. Whoever moves it sends the one event.
 */
WT_INLINE void latch(struct wt_pool *p, __u64 generation)
{
	struct wt_event event = {.kind = WT_EVENT_EXHAUSTED, .generation = generation};

	for (int i = 0; i < DRAW_TRIES; i++) {
		__u64 held = READ_ONCE(p->exhausted_generation);

		if (held >= generation)
			return;
		if (__sync_val_compare_and_swap(&p->exhausted_generation, held, generation) == held) {
			bpf_ringbuf_output(&events, &event, sizeof(event), 0);
			return;
		}
	}
}

/* A lease of an older grant is void: its bytes go back to the pool. */
WT_INLINE void renew(struct wt_pool *p, struct wt_interface_cell *iface, __u64 generation)
{
	if (iface->lease_generation == generation)
		return;
	if (iface->lease)
		__sync_fetch_and_add(&p->drawn, -iface->lease);
	iface->lease = 0;
	iface->lease_generation = generation;
}

/*
 * Takes `need` and a new lease from the pool. Near the ceiling leases shrink with what is left, so that
 * little is stranded on other CPUs when it is reached. Returns 0 when the pool has not enough.
 *
 * The last resort adds first and asks afterwards. That is exact, too: an add that passes the ceiling is
 * undone and admits nothing. Meanwhile others may find the pool too full, but only after this first add has
 * found it too full for its own bytes, and so has exhausted the grant for all.
 */
WT_INLINE int draw(struct wt_pool *p, struct wt_interface_cell *iface, __u64 need)
{
	__u64 ceiling = READ_ONCE(p->ceiling), max_lease = READ_ONCE(p->max_lease);

	for (int i = 0; i < DRAW_TRIES; i++) {
		__u64 drawn = READ_ONCE(p->drawn), lease;

		if (!enough(drawn, need, ceiling))
			return 0;
		lease = (ceiling - drawn - need) / (4 * (__u64)cpus);
		if (lease > max_lease)
			lease = max_lease;
		if (__sync_val_compare_and_swap(&p->drawn, drawn, drawn + need + lease) == drawn) {
			iface->lease = lease;
			return 1;
		}
	}
	if (!enough(__sync_fetch_and_add(&p->drawn, need), need, ceiling)) {
		__sync_fetch_and_add(&p->drawn, -need);
		return 0;
	}
	iface->lease = 0;
	return 1;
}

WT_INLINE int spend(struct wt_pool *p, struct wt_interface_cell *iface, __u64 generation, __u64 bytes)
{
	renew(p, iface, generation);
	if (iface->lease >= bytes)
		iface->lease -= bytes;
	else if (!draw(p, iface, bytes - iface->lease))
		return 0;
	iface->counted += bytes;
	return 1;
}

/* Whether the packet may pass. What belongs to no peer draws nothing, but stops with the rest. */
WT_INLINE int admit(struct wt_pool *p, struct wt_interface_cell *iface, __u32 slot, __u32 direction,
		    __u64 bytes)
{
	__u64 generation = READ_ONCE(p->generation);

	if (READ_ONCE(p->refuse) || READ_ONCE(p->exhausted_generation) == generation)
		return 0;
	if (slot == WT_SLOT_UNATTRIBUTED || !(READ_ONCE(p->mask) & direction))
		return 1;
	if (spend(p, iface, generation, bytes))
		return 1;
	latch(p, generation);
	return 0;
}

#endif
