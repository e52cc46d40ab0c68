// SPDX-License-Identifier: BSD-2-Clause
#include "agent/plan.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* A keepalive interval that is set on a peer which had none makes WireGuard send one at once. */
#define KICK_SECONDS 25

static bool is_wanted(const struct plan_input *input, size_t i)
{
	return input->desired->peers[i].enabled && input->slots[i].slot != 0;
}

/* The index of the desired, enabled peer with the key; -1: none. */
static ssize_t wanted_index(const struct plan_input *input, const struct key *public_key)
{
	const struct desired_peer *peer = desired_find_key(input->desired, public_key);

	if (!peer || !is_wanted(input, (size_t)(peer - input->desired->peers)))
		return -1;
	return peer - input->desired->peers;
}

static bool live_has(const struct wg_peer *live, const struct cidr *prefix)
{
	return live && live->n_allowed_ips > 0 &&
	       bsearch(prefix, live->allowed_ips, live->n_allowed_ips, sizeof(*prefix), cidr_compare);
}

static void plan_table(const struct plan_input *input, size_t i, struct plan *plan)
{
	const struct desired_peer *peer = &input->desired->peers[i];

	for (size_t p = 0; p < peer->allowed_ips.count; p++) {
		struct table_entry entry = {peer->allowed_ips.items[p], input->slots[i].slot,
					    input->slots[i].incarnation};
		const struct table_entry *now = table_find(input->table, &entry.prefix);

		if (!now)
			plan->attribute[plan->n_attribute++] = entry;
		else if (now->slot != entry.slot || now->incarnation != entry.incarnation)
			plan->move[plan->n_move++] = entry;
	}
}

/* An endpoint that the peer roamed to is kept; only what the customer changed is set. */
static bool endpoint_changes(const struct plan_input *input, size_t i, const struct wg_peer *live)
{
	const struct desired_peer *peer = &input->desired->peers[i], *before;

	if (input->endpoints[i].ss_family == AF_UNSPEC)
		return false;
	if (!live || live->endpoint.ss_family == AF_UNSPEC)
		return true;
	before = input->previous ? desired_find_key(input->previous, &peer->public_key) : NULL;
	return before && peer->endpoint[0] && strcmp(before->endpoint, peer->endpoint) != 0;
}

static bool preshared_key_differs(const struct desired_peer *peer, const struct wg_peer *live)
{
	if (!live)
		return peer->has_preshared_key;
	return peer->has_preshared_key != live->has_preshared_key ||
	       (peer->has_preshared_key && !key_equal(&peer->preshared_key, &live->preshared_key));
}

static void plan_peer(const struct plan_input *input, size_t i, struct plan *plan, struct cidr **next_prefix)
{
	const struct desired_peer *peer = &input->desired->peers[i];
	const struct wg_peer *live = wg_device_find(input->device, &peer->public_key);
	struct wg_peer_change change = {.public_key = peer->public_key,
					.update_only = live != NULL,
					.preshared_key = peer->preshared_key,
					.set_preshared_key = preshared_key_differs(peer, live),
					.keepalive = peer->keepalive,
					.set_keepalive = peer->keepalive != (live ? live->keepalive : 0),
					.set_endpoint = endpoint_changes(input, i, live),
					.endpoint = input->endpoints[i],
					.allowed_ips = *next_prefix};
	bool kick = !live && change.set_endpoint && peer->keepalive == 0;

	for (size_t p = 0; p < peer->allowed_ips.count; p++)
		if (!live_has(live, &peer->allowed_ips.items[p]))
			(*next_prefix)[change.n_allowed_ips++] = peer->allowed_ips.items[p];
	*next_prefix += change.n_allowed_ips;
	if (live && !change.set_preshared_key && !change.set_keepalive && !change.set_endpoint &&
	    change.n_allowed_ips == 0)
		return;
	if (kick) {
		change.set_keepalive = true;
		change.keepalive = KICK_SECONDS;
	}
	plan->set[plan->n_set++] = change;
	if (kick)
		plan->set[plan->n_set++] = (struct wg_peer_change){
			.public_key = peer->public_key, .update_only = true, .set_keepalive = true};
	key_wipe(&change.preshared_key);
}

/* Whether some wanted peer is given the prefix: then WireGuard takes it from the one that has it. */
static bool goes_to_another(const struct plan *plan, const struct cidr *prefix)
{
	for (size_t i = 0; i < plan->n_set; i++)
		for (size_t p = 0; p < plan->set[i].n_allowed_ips; p++)
			if (cidr_equal(&plan->set[i].allowed_ips[p], prefix))
				return true;
	return false;
}

static void plan_withdrawals(const struct plan_input *input, const struct wg_peer *live, size_t i,
			     struct plan *plan)
{
	const struct cidr_list *wanted = &input->desired->peers[i].allowed_ips;

	for (size_t p = 0; p < live->n_allowed_ips; p++)
		if (!cidr_list_has(wanted, &live->allowed_ips[p]) &&
		    !goes_to_another(plan, &live->allowed_ips[p]))
			plan->withdraw[plan->n_withdraw++] =
				(struct plan_withdrawal){live->public_key, live->allowed_ips[p]};
}

static int allocate(const struct plan_input *input, struct plan *plan)
{
	size_t n_desired = 0, n_live = 0;

	for (size_t i = 0; i < input->desired->n_peers; i++)
		n_desired += input->desired->peers[i].allowed_ips.count;
	for (size_t i = 0; i < input->device->n_peers; i++)
		n_live += input->device->peers[i].n_allowed_ips;
	/* One more than needed, as calloc(0) may be NULL. */
	plan->attribute = calloc(n_desired + 1, sizeof(*plan->attribute));
	plan->move = calloc(n_desired + 1, sizeof(*plan->move));
	plan->prefixes = calloc(n_desired + 1, sizeof(*plan->prefixes));
	plan->remove = calloc(input->device->n_peers + 1, sizeof(*plan->remove));
	plan->withdraw = calloc(n_live + 1, sizeof(*plan->withdraw));
	plan->set = calloc(2 * input->desired->n_peers + 1, sizeof(*plan->set));
	return plan->attribute && plan->move && plan->prefixes && plan->remove && plan->withdraw && plan->set
		       ? 0
		       : -ENOMEM;
}

int plan_make(const struct plan_input *input, struct plan **ret_plan)
{
	struct plan *plan = calloc(1, sizeof(*plan));
	struct cidr *next_prefix;

	if (!plan)
		return -ENOMEM;
	if (allocate(input, plan) < 0) {
		plan_free(plan);
		return -ENOMEM;
	}
	next_prefix = plan->prefixes;
	for (size_t i = 0; i < input->desired->n_peers; i++) {
		if (!is_wanted(input, i))
			continue;
		plan_table(input, i, plan);
		plan_peer(input, i, plan, &next_prefix);
	}
	for (size_t i = 0; i < input->device->n_peers; i++) {
		const struct wg_peer *live = &input->device->peers[i];
		ssize_t wanted = wanted_index(input, &live->public_key);

		if (wanted < 0)
			plan->remove[plan->n_remove++] =
				(struct wg_peer_change){.public_key = live->public_key, .remove = true};
		else
			plan_withdrawals(input, live, (size_t)wanted, plan);
	}
	*ret_plan = plan;
	return 0;
}

void plan_free(struct plan *plan)
{
	if (!plan)
		return;
	if (plan->set)
		sodium_memzero(plan->set, plan->n_set * sizeof(*plan->set));
	free(plan->attribute);
	free(plan->remove);
	free(plan->withdraw);
	free(plan->set);
	free(plan->move);
	free(plan->prefixes);
	free(plan);
}

bool plan_is_empty(const struct plan *plan)
{
	return plan->n_attribute + plan->n_remove + plan->n_withdraw + plan->n_set + plan->n_move == 0;
}

bool plan_is_stale(const struct desired *desired, const struct plan_slot *slots,
		   const struct table_entry *entry)
{
	for (size_t i = 0; i < desired->n_peers; i++)
		if (slots[i].slot == entry->slot && slots[i].incarnation == entry->incarnation)
			return !desired->peers[i].enabled ||
			       !cidr_list_has(&desired->peers[i].allowed_ips, &entry->prefix);
	return true;
}
