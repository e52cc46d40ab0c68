/* SPDX-License-Identifier: BSD-2-Clause OR GPL-2.0-only */
/*
 * Credit: may these bytes pass? Each CPU spends a lease, drawn from the pool of the interface (and of the
 * peer, if that has a limit of its own), and touches what is shared only when the lease is used up.
 *
 * Never above the ceiling: bytes are counted only out of a lease, and drawn is raised only by a
 * compare-and-swap (or an add that is checked and undone) that leaves it at or below the ceiling of the grant
 * in force. No ceiling is the highest ceiling there is and takes the same path, so that drawn == counted +
 * leases stays true when a limit comes later.
 *
 * Whatever is decided here is decided for the state that the packet read first. A grant stands still while
 * that state holds, so what was read of it is believed only if the state is the same afterwards; and the
 * state is changed only from the very value that was read. x86 keeps the order of loads and of stores that
 * this needs.
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
/* How often a packet is judged anew because the grant changed under it; more changes than that refuse it. */
#define JUDGE_TRIES 6

enum draw_result {
	DRAW_DONE,
	DRAW_EXHAUSTED,
	DRAW_IN_DOUBT, /* too little is left, but it may be because of what others are about to give back */
	DRAW_CHANGED,  /* another grant is in force now */
};

enum judgement {
	REFUSED,
	RESERVED, /* the lease has enough */
	UNLIMITED,
};

/* What a packet needs of one pool, and what it has drawn for that. */
struct wt_claim {
	__u64 bytes;
	__u64 drawn;
	__u64 in_doubt; /* 1: drawn for a peer, and the interface has not agreed yet */
	__u32 slot;     /* 0: the interface's */
	__u32 direction;
};

/* NULL, here and below, cannot be: slots are below the capacity. The verifier wants to be told. */
WT_INLINE __u64 *state_of(__u32 slot)
{
	return slot ? bpf_map_lookup_elem(&peer_states, &slot) : &credit.state;
}

WT_INLINE struct wt_pool *pool_of(__u32 slot)
{
	return slot ? bpf_map_lookup_elem(&peer_pools, &slot) : &credit.pool;
}

WT_INLINE struct wt_purse *interface_purse(__u32 cpu)
{
	return &interface_cells.of[cpu & (WT_MAX_CPUS - 1)].purse;
}

WT_INLINE struct wt_purse *peer_purse(__u32 cpu, __u32 slot)
{
	__u32 index = wt_purse_index(cpu, slot, stride);

	return bpf_map_lookup_elem(&purses, &index);
}

WT_INLINE struct wt_purse *purse_of(__u32 cpu, __u32 slot)
{
	return slot ? peer_purse(cpu, slot) : interface_purse(cpu);
}

WT_INLINE __u32 state_field(__u64 state, __u32 shift)
{
	return state >> shift & WT_STATE_FIELD;
}

/* The directions that draw credit; the others and strangers (direction 0) only stop with the rest. */
WT_INLINE int is_charged(__u64 state, __u32 direction)
{
	return (state & (__u64)direction << WT_STATE_MASK_SHIFT) != 0;
}

WT_INLINE int is_hopeless(__u64 state)
{
	return (state & WT_STATE_REASONS) ||
	       ((state & WT_STATE_REFUSES) && !state_field(state, WT_STATE_NEXT_SHIFT));
}

/* A lease of no bytes under this state. */
WT_INLINE __u64 empty_lease(__u64 state)
{
	return state << (32 - WT_STATE_SEQUENCE_SHIFT) >> 32 << 32;
}

WT_INLINE int enough(__u64 drawn, __u64 need, __u64 ceiling)
{
	return drawn <= ceiling && need <= ceiling - drawn;
}

WT_INLINE void tell(__u32 kind, __u32 slot, __u64 state)
{
	struct wt_event event = {.kind = kind, .slot = slot, .sequence = state >> WT_STATE_SEQUENCE_SHIFT};

	bpf_ringbuf_output(&events, &event, sizeof(event), 0);
}

/* The line of counted: monotonic, so what is read while others add is a position that it passed. */
WT_INLINE __u64 position(__u32 slot)
{
	const struct wt_pool *p = pool_of(slot);
	__u64 sum = p ? p->carried : 0;

	for (__u32 cpu = 0; cpu < cpus; cpu++) {
		const struct wt_purse *purse = purse_of(cpu, slot);

		if (purse)
			sum += READ_ONCE(purse->counted);
	}
	return sum;
}

/*
 * Puts the next cycle's grant in force, if its time has come, so that resuming needs no process. Who claims
 * it is alone until it clears TAKING_UP: everybody else refuses, user space waits, and so the cycle's base
 * is one position. Called only for packets that are refused otherwise: no other reads a clock.
 */
WT_SELDOM int take_up(__u32 slot, __u64 state)
{
	__u32 next = state_field(state, WT_STATE_NEXT_SHIFT) - 1;
	struct wt_pool *p = pool_of(slot);
	__u64 *word = state_of(slot), claimed;

	if (!p || !word || (state & WT_STATE_TAKING_UP) || next >= 3 ||
	    READ_ONCE(p->grants[next].not_before) > bpf_ktime_get_boot_ns())
		return 0;
	claimed = state & (WT_STATE_REASONS | WT_STATE_PEERS);
	claimed |= ((state >> WT_STATE_SEQUENCE_SHIFT) + 1) << WT_STATE_SEQUENCE_SHIFT;
	claimed |= (__u64)(READ_ONCE(p->grants[next].mask) & WT_STATE_FIELD) << WT_STATE_MASK_SHIFT;
	claimed |= (__u64)next << WT_STATE_LIVE_SHIFT | WT_STATE_TAKING_UP;
	if (__sync_val_compare_and_swap(word, state, claimed) != state)
		return 1;
	p->grants[next].base = position(slot);
	__sync_fetch_and_add(word, -WT_STATE_TAKING_UP);
	tell(WT_EVENT_TAKEN_UP, slot, claimed);
	return 1;
}

/*
 * The last resort adds first and asks afterwards. That is exact, too: an add that passes the ceiling is
 * undone and admits nothing. Until then it is in doubt, as the pool may look too full because of it, even to
 * a packet of a newer grant.
 */
WT_INLINE int draw_in_doubt(struct wt_pool *p, struct wt_purse *purse, __u64 need, __u64 ceiling)
{
	int result = DRAW_DONE;

	__sync_fetch_and_add(&p->doubts_begun, 1);
	if (enough(__sync_fetch_and_add(&p->drawn, need), need, ceiling)) {
		purse->lease += need;
	} else {
		__sync_fetch_and_add(&p->drawn, -need);
		result = DRAW_IN_DOUBT;
	}
	__sync_fetch_and_add(&p->doubts_ended, 1);
	return result;
}

/*
 * Takes `need` and a new lease from the pool. Near the ceiling leases shrink with what is left, so that
 * little is stranded on other CPUs when it is reached.
 *
 * Draws in doubt may yet be undone: those of peers, until the interface agrees (`own` of them are the
 * caller's), and those of the last resort. When all of others that had begun after the pool was looked at had
 * ended before, none was in what was seen, and what was seen exhausts the grant.
 */
WT_SELDOM int draw(__u32 slot, __u64 state, __u64 need, __u64 own)
{
	__u32 live = state_field(state, WT_STATE_LIVE_SHIFT);
	struct wt_purse *purse = purse_of(bpf_get_smp_processor_id(), slot);
	struct wt_pool *p = pool_of(slot);
	const __u64 *word = state_of(slot);
	__u64 base, ceiling, ended, drawn, lease;

	if (!p || !word || !purse || live >= 3)
		return DRAW_CHANGED;
	base = READ_ONCE(p->grants[live].base);
	ceiling = READ_ONCE(p->grants[live].ceiling);
	if (READ_ONCE(*word) != state)
		return DRAW_CHANGED;
	ceiling = ceiling < WT_NO_CEILING - base ? base + ceiling : WT_NO_CEILING;
	for (int i = 0; i < DRAW_TRIES; i++) {
		ended = READ_ONCE(p->doubts_ended);
		drawn = READ_ONCE(p->drawn);
		if (!enough(drawn, need, ceiling))
			goto too_little;
		lease = (ceiling - drawn - need) / (4 * (__u64)cpus);
		if (lease > p->max_lease)
			lease = p->max_lease;
		if (__sync_val_compare_and_swap(&p->drawn, drawn, drawn + need + lease) == drawn) {
			purse->lease += need + lease;
			return DRAW_DONE;
		}
	}
	return draw_in_doubt(p, purse, need, ceiling);
too_little:
	return READ_ONCE(p->doubts_begun) == ended + own ? DRAW_EXHAUSTED : DRAW_IN_DOUBT;
}

/* A lease of an older grant is void: its bytes go back to the pool. */
WT_INLINE void renew(struct wt_pool *p, struct wt_purse *purse, __u64 state)
{
	__u64 lease = purse->lease, held = wt_lease_bytes(lease);

	if (lease - held == empty_lease(state))
		return;
	if (held)
		__sync_fetch_and_add(&p->drawn, -held);
	purse->lease = empty_lease(state);
}

/*
 * Refusal latches for the grant that the packet was judged by, or not at all when another has come since.
 * Who latches it sends the one event.
 */
WT_INLINE void latch(__u64 *word, __u32 slot, __u64 state)
{
	if (__sync_val_compare_and_swap(word, state, state | WT_STATE_EXHAUSTED) == state)
		tell(WT_EVENT_EXHAUSTED, slot, state);
}

/* Sees to it that the lease has enough, and counts nothing yet. */
WT_SELDOM int reserve(struct wt_claim *claim)
{
	struct wt_purse *purse;
	struct wt_pool *p;
	__u64 *word;

	if (!claim)
		return REFUSED;
	purse = purse_of(bpf_get_smp_processor_id(), claim->slot);
	p = pool_of(claim->slot);
	word = state_of(claim->slot);
	if (!purse || !p || !word)
		return REFUSED;
	for (int i = 0; i < JUDGE_TRIES; i++) {
		__u64 state = READ_ONCE(*word), need, before;
		int result;

		if (is_hopeless(state))
			return REFUSED;
		if (state & WT_STATE_REFUSES) {
			if (!take_up(claim->slot, state))
				return REFUSED;
			continue;
		}
		if (!is_charged(state, claim->direction))
			return UNLIMITED;
		renew(p, purse, state);
		before = wt_lease_bytes(purse->lease);
		if (before >= claim->bytes)
			return RESERVED;
		if (claim->slot && !claim->in_doubt) {
			claim->in_doubt = 1;
			__sync_fetch_and_add(&p->doubts_begun, 1);
		}
		need = claim->bytes - before;
		result = draw(claim->slot, state, need, claim->in_doubt);
		if (result == DRAW_DONE) {
			claim->drawn = wt_lease_bytes(purse->lease) - before;
			return RESERVED;
		}
		if (result == DRAW_IN_DOUBT)
			return REFUSED;
		if (result == DRAW_EXHAUSTED)
			latch(word, claim->slot, state);
	}
	return REFUSED;
}

WT_INLINE void spend(struct wt_purse *purse, __u64 bytes)
{
	purse->lease -= bytes;
	purse->counted += bytes;
}

/* What was drawn for the claim is spent, or goes back to its pool: all of it, and nothing else. */
WT_INLINE void settle(const struct wt_claim *claim, int judgement, int passed)
{
	struct wt_purse *purse = purse_of(bpf_get_smp_processor_id(), claim->slot);
	struct wt_pool *p = pool_of(claim->slot);

	if (!purse || !p)
		return;
	if (judgement == RESERVED && passed) {
		spend(purse, claim->bytes);
	} else if (claim->drawn) {
		__sync_fetch_and_add(&p->drawn, -claim->drawn);
		purse->lease -= claim->drawn;
	}
	if (claim->in_doubt)
		__sync_fetch_and_add(&p->doubts_ended, 1);
}

/*
 * By the peer's limit first, then by the interface; only then are both spent. While the outcome is open, what
 * was drawn for the peer is in doubt: another CPU may find the peer's pool too full because of it, and then
 * refuses, but does not latch.
 */
WT_SELDOM int admit_slowly(__u32 slot, __u32 direction, __u64 bytes)
{
	struct wt_claim peer = {.bytes = bytes, .slot = slot, .direction = direction};
	struct wt_claim whole = {.bytes = bytes, .direction = slot ? direction : 0};
	int of_peer = UNLIMITED, of_whole;
	__u64 state = READ_ONCE(credit.state);

	if (is_hopeless(state))
		return 0;
	if (slot && (state & WT_STATE_PEERS))
		of_peer = reserve(&peer);
	of_whole = of_peer == REFUSED ? REFUSED : reserve(&whole);
	settle(&whole, of_whole, of_whole != REFUSED);
	settle(&peer, of_peer, of_whole != REFUSED);
	return of_whole != REFUSED;
}

/*
 * What a lease is after these bytes. It is good for them if it was drawn under this state and was large
 * enough: one comparison of the sequence, from which too small a lease borrows. (A sequence that is one too
 * high is not met: this CPU has read the state later than it drew any lease.)
 */
WT_INLINE __u64 lease_after(const struct wt_purse *purse, __u64 bytes)
{
	return purse->lease - bytes;
}

WT_INLINE int is_good(__u64 after, __u64 state)
{
	return (after ^ state << (32 - WT_STATE_SEQUENCE_SHIFT)) >> 32 == 0;
}

WT_INLINE void spend_to(struct wt_purse *purse, __u64 after, __u64 bytes)
{
	purse->lease = after;
	purse->counted += bytes;
}

WT_INLINE int admit_by_lease(struct wt_purse *purse, __u64 state, __u64 bytes)
{
	__u64 after = lease_after(purse, bytes);

	if (!is_good(after, state))
		return 0;
	spend_to(purse, after, bytes);
	return 1;
}

WT_INLINE int admit_by_both_leases(__u32 cpu, __u32 slot, __u32 direction, __u64 bytes, __u64 state)
{
	const __u64 *word = bpf_map_lookup_elem(&peer_states, &slot);
	struct wt_purse *whole = interface_purse(cpu), *peer;
	__u64 after = lease_after(whole, bytes), peer_state;

	if (!word || (is_charged(state, direction) && !is_good(after, state)))
		return 0;
	peer_state = READ_ONCE(*word);
	if ((state | peer_state) & WT_STATE_REFUSES)
		return 0;
	if (is_charged(peer_state, direction)) {
		peer = peer_purse(cpu, slot);
		if (!peer || !admit_by_lease(peer, peer_state, bytes))
			return 0;
	}
	if (is_charged(state, direction))
		spend_to(whole, after, bytes);
	return 1;
}

/*
 * Whether the packet may pass. What belongs to no peer draws nothing, but stops with the rest. For most
 * packets the leases at hand are good: of what is shared one word of the interface is read, and one of the
 * peer if it may have a limit, and nothing is written. Whatever else is to be done begins anew.
 */
WT_INLINE int admit(__u32 cpu, __u32 slot, __u32 direction, __u64 bytes)
{
	const __u64 charged = (__u64)direction << WT_STATE_MASK_SHIFT;
	__u64 state = READ_ONCE(credit.state), asks = state & (WT_STATE_REFUSES | WT_STATE_PEERS | charged);

	if (!asks)
		return 1;
	if (slot && (asks == charged ? admit_by_lease(interface_purse(cpu), state, bytes)
				     : admit_by_both_leases(cpu, slot, direction, bytes, state)))
		return 1;
	return admit_slowly(slot, direction, bytes);
}

#endif
