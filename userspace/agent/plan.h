/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The difference between the desired peers and the live ones, as steps in the order in which they are safe.
 * Pure: computed from values, executed elsewhere. A peer that is as it should be appears in no step.
 */
#ifndef WIRETOLL_AGENT_PLAN_H
#define WIRETOLL_AGENT_PLAN_H

#include "agent/desired.h"
#include "agent/table.h"
#include "wg/wg.h"

struct plan_slot {
	uint32_t slot; /* 0: the peer cannot be given one and is left out */
	uint32_t incarnation;
};

struct plan_input {
	const struct desired *desired;
	const struct desired *previous;           /* what was applied before; NULL after a start */
	const struct plan_slot *slots;            /* of each desired peer */
	const struct sockaddr_storage *endpoints; /* of each desired peer; AF_UNSPEC: none is known (yet) */
	const struct wg_device *device;
	const struct table *table;
};

struct plan_withdrawal {
	struct key public_key;
	struct cidr prefix;
};

struct plan {
	/* 1. Prefixes that nobody has yet: counted for their peer before it can send or receive. */
	struct table_entry *attribute;
	size_t n_attribute;
	/* 2. Peers that leave WireGuard: gone, disabled, or with another key now. */
	struct wg_peer_change *remove;
	size_t n_remove;
	/* 3. Single prefixes that leave a peer which stays, and go to nobody. */
	struct plan_withdrawal *withdraw;
	size_t n_withdraw;
	/* 4. New peers, changed peers; a prefix added here is taken from its old peer by WireGuard. */
	struct wg_peer_change *set;
	size_t n_set;
	/* 5. Prefixes that have just changed hands. */
	struct table_entry *move;
	size_t n_move;
	struct cidr *prefixes; /* what `set` points to */
};

/* Returns -ENOMEM. */
WT_MUST_CHECK int plan_make(const struct plan_input *input, struct plan **ret_plan);
void plan_free(struct plan *plan);
bool plan_is_empty(const struct plan *plan);

/*
 * 6. After the grace: whether a table entry may go, because no peer that is desired, enabled and in that slot
 * has the prefix.
 */
bool plan_is_stale(const struct desired *desired, const struct plan_slot *slots,
		   const struct table_entry *entry);

#endif
