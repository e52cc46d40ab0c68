// SPDX-License-Identifier: BSD-2-Clause
/*
 * Peers: slots, the meter's table and WireGuard, in the order in which no byte passes uncounted or is counted
 * for another. Steps of a plan: see plan.h.
 */
#include "agent/agent.h"
#include "agent/flows.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* Packets that WireGuard had taken before its change are through the device by then. */
#define GRACE_NS  (30 * 1000000LL)
#define TRIES_MAX 3

/* -ENOSPC of the meter's, which a larger one cures: a full disk has that, too. */
#define METER_FULL (-EXFULL)

static int store_owner(struct agent *agent, uint32_t slot)
{
	struct wt_owner owner = slots_owner(&agent->epoch.slots, slot);

	return meter_set_owner(agent->epoch.meter, slot, &owner);
}

static int assign_slot(struct agent *agent, const uint8_t *peer_id, uint32_t *ret_slot)
{
	static const struct meter_totals nothing;
	uint32_t slot;
	int r = slots_assign(&agent->epoch.slots, peer_id, &slot);

	if (r < 0)
		return r == -ENOSPC ? METER_FULL : r;
	/* What the cell held before must be on disk before it counts for another. */
	if (!totals_equal(&agent->epoch.slots.slots[slot].base, &nothing))
		r = bases_save(agent, &agent->epoch);
	if (r == 0)
		r = store_owner(agent, slot);
	if (r < 0)
		slots_release(&agent->epoch.slots, slot);
	else
		*ret_slot = slot;
	return r;
}

/* METER_FULL: a larger one has room for all. */
static int assign_slots(struct agent *agent, const struct desired *desired, struct plan_slot *slots)
{
	for (size_t i = 0; i < desired->n_peers; i++) {
		const struct desired_peer *peer = &desired->peers[i];
		uint32_t slot = slots_find(&agent->epoch.slots, peer->id);
		char id[UUID_TEXT_SIZE], what[UUID_TEXT_SIZE + 8];
		int r = 0;

		if (slot == 0 && peer->enabled)
			r = assign_slot(agent, peer->id, &slot);
		if (r == METER_FULL && upgrade_can_grow(agent))
			return r;
		if (r < 0) {
			snprintf(what, sizeof(what), "peer %s", uuid_format(peer->id, id));
			cannot_add(agent, what, "%s",
				   r == METER_FULL ? "the meter has no free slot" : strerror(-r));
			continue;
		}
		slots[i] = (struct plan_slot){slot, agent->epoch.slots.slots[slot].incarnation};
	}
	return 0;
}

/* Where a peer that is not connected is to be called: as configured, or where it was last. */
static void find_endpoint(struct agent *agent, const struct desired_peer *peer, struct sockaddr_storage *ret)
{
	const struct endpoint *known = NULL;

	if (peer->endpoint[0] && endpoint_parse(peer->endpoint, ret) == 0)
		return;
	if (peer->endpoint[0])
		known = endpoints_find(&agent->resolved, peer->id);
	if (peer->endpoint[0] && !known)
		resolve_begin(agent, peer->id, peer->endpoint);
	if (!known)
		known = endpoints_find(&agent->endpoints, peer->id);
	if (known)
		*ret = known->address;
}

static struct sockaddr_storage *find_endpoints(struct agent *agent, const struct desired *desired,
					       const struct wg_device *device)
{
	struct sockaddr_storage *endpoints = calloc(desired->n_peers + 1, sizeof(*endpoints));

	for (size_t i = 0; endpoints && i < desired->n_peers; i++) {
		const struct desired_peer *peer = &desired->peers[i], *before = NULL;

		if (!peer->enabled)
			continue;
		if (agent->applied)
			before = desired_find_key(agent->applied, &peer->public_key);
		/* A name that is another now is resolved anew. */
		if (before && strcmp(before->endpoint, peer->endpoint) != 0)
			endpoints_forget(&agent->resolved, peer->id);
		if (peer->endpoint[0] || !wg_device_find(device, &peer->public_key))
			find_endpoint(agent, peer, &endpoints[i]);
	}
	return endpoints;
}

/* The table is what the meter has, also when that takes only some. */
static int put_entries(struct agent *agent, const struct table_entry *entries, size_t n)
{
	size_t done = 0;
	int r = 0, kept;

	while (done < n && r == 0) {
		r = meter_set_prefix(agent->epoch.meter, &entries[done].prefix, entries[done].slot,
				     entries[done].incarnation);
		done += r == 0;
	}
	kept = table_put_all(&agent->epoch.table, entries, done);
	if (r == -ENOSPC)
		r = METER_FULL;
	return r < 0 ? r : kept;
}

/* Remembers where the peers that leave were last. */
static void remember_leaving(struct agent *agent, const struct desired *desired, const struct plan *plan,
			     const struct wg_device *device)
{
	for (size_t i = 0; i < plan->n_remove; i++) {
		const struct key *key = &plan->remove[i].public_key;
		const struct wg_peer *live = wg_device_find(device, key);
		const struct desired_peer *peer = desired_find_key(desired, key);

		if (live && peer && endpoints_put(&agent->endpoints, peer->id, &live->endpoint) < 0)
			log_warning("could not remember an endpoint: out of memory");
	}
}

static int withdraw(struct agent *agent, const struct plan *plan)
{
	int r = 0;

	for (size_t i = 0; i < plan->n_withdraw && r == 0; i++)
		r = wg_remove_allowed_ip(agent->wg, &plan->withdraw[i].public_key, &plan->withdraw[i].prefix);
	return r;
}

/* Without its allowed IPs a peer passes nothing more, and its keys and counters are still there. */
static int silence(struct agent *agent, const struct plan *plan)
{
	struct wg_peer_change *changes _cleanup_free_ = calloc(plan->n_remove, sizeof(*changes));

	for (size_t i = 0; changes && i < plan->n_remove; i++)
		changes[i] = (struct wg_peer_change){.public_key = plan->remove[i].public_key,
						     .update_only = true,
						     .replace_allowed_ips = true};
	return changes ? wg_change_peers(agent->wg, changes, plan->n_remove) : -ENOMEM;
}

/* A peer's counters go with it: they are read when all that the meter has counted for it is in them. */
static int remove_peers(struct agent *agent, const struct plan *plan)
{
	struct wg_device *device = NULL;
	int r = silence(agent, plan);

	if (r == 0)
		r = wg_dump(agent->wg, &device);
	if (r < 0)
		return r;
	sums_expect_removal(agent, device, plan);
	wg_device_free(device);
	return wg_change_peers(agent->wg, plan->remove, plan->n_remove);
}

static int execute(struct agent *agent, const struct plan *plan, const struct wg_device *device)
{
	int r = put_entries(agent, plan->attribute, plan->n_attribute);

	if (r == 0 && plan->n_remove)
		r = remove_peers(agent, plan);
	if (r == 0)
		r = withdraw(agent, plan);
	if (r < 0)
		return r;
	if (plan->n_move)
		sample_take(agent, &agent->epoch);
	if (plan->n_set) {
		sums_expect_addition(agent, device, plan);
		r = wg_change_peers(agent->wg, plan->set, plan->n_set);
	}
	/* Even after an error: a move that did happen must be counted for its new peer. */
	if (plan->n_move && r == 0)
		r = put_entries(agent, plan->move, plan->n_move);
	if (plan->n_move)
		sample_take(agent, &agent->epoch);
	return r;
}

static int try_once(struct agent *agent, const struct desired *desired, const struct plan_slot *slots)
{
	struct wg_device *device = NULL;
	struct sockaddr_storage *endpoints _cleanup_free_ = NULL;
	struct plan *plan = NULL;
	int r = wg_dump(agent->wg, &device);

	if (r < 0)
		return r;
	endpoints = find_endpoints(agent, desired, device);
	if (endpoints)
		r = plan_make(&(struct plan_input){.desired = desired,
						   .previous = agent->applied,
						   .slots = slots,
						   .endpoints = endpoints,
						   .device = device,
						   .table = &agent->epoch.table},
			      &plan);
	else
		r = -ENOMEM;
	if (r == 0) {
		remember_leaving(agent, desired, plan, device);
		fair_expect(agent, desired, plan);
		r = execute(agent, plan, device);
	}
	plan_free(plan);
	wg_device_free(device);
	return r;
}

static void settle_table(struct agent *agent, const struct plan_slot *slots)
{
	struct table *table = &agent->epoch.table;
	size_t kept = 0;

	for (size_t i = 0; i < table->count; i++) {
		struct table_entry entry = table->entries[i];
		int r = -EEXIST;

		if (plan_is_stale(agent->desired, slots, &entry)) {
			r = meter_delete_prefix(agent->epoch.meter, &entry.prefix);
			if (r < 0 && r != -ENOENT)
				log_warning("could not take a prefix out of the meter: %s", strerror(-r));
		}
		if (r < 0 && r != -ENOENT)
			table->entries[kept++] = entry;
	}
	table->count = kept;
}

static int compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, UUID_SIZE);
}

/* Slots of peers that are gone are retired: free again when their last count is acknowledged. */
static bool settle_slots(struct agent *agent)
{
	const struct desired *desired = agent->desired;
	uint8_t(*ids)[UUID_SIZE] _cleanup_free_ = calloc(desired->n_peers + 1, sizeof(*ids));
	bool retired = false;

	if (!ids)
		return false;
	for (size_t i = 0; i < desired->n_peers; i++)
		memcpy(ids[i], desired->peers[i].id, UUID_SIZE);
	qsort(ids, desired->n_peers, UUID_SIZE, compare_ids);
	for (uint32_t slot = 1; slot < agent->epoch.slots.end; slot++) {
		const struct slot *at = &agent->epoch.slots.slots[slot];

		if (at->flags != WT_OWNER_IN_USE ||
		    bsearch(at->peer_id, ids, desired->n_peers, UUID_SIZE, compare_ids) ||
		    table_has_slot(&agent->epoch.table, slot))
			continue;
		endpoints_forget(&agent->endpoints, at->peer_id);
		endpoints_forget(&agent->resolved, at->peer_id);
		slots_retire(&agent->epoch.slots, slot);
		if (store_owner(agent, slot) < 0)
			log_warning("could not mark slot %u as retiring", slot);
		retired = true;
	}
	return retired;
}

/* What WireGuard had taken before its change may have made the connection anew. */
static void end_flows_again(struct agent *agent)
{
	_cleanup_flows_ struct flows flows = {0};
	int r = flows_collect(agent, agent->desired, &flows);

	if (r == 0 && flows.n_revoked > 0)
		r = flows_end(&flows, agent->desired);
	if (r < 0)
		log_warning("could not end connections of peers that are gone: %s", strerror(-r));
}

static void on_grace_over(void *data, int result)
{
	struct agent *agent = data;
	struct plan_slot *slots _cleanup_free_ = NULL;

	(void)result;
	agent->settling = 0;
	if (!agent->epoch.meter || !agent->desired)
		return;
	slots = calloc(agent->desired->n_peers + 1, sizeof(*slots));
	if (!slots)
		return;
	for (size_t i = 0; i < agent->desired->n_peers; i++) {
		uint32_t slot = slots_find(&agent->epoch.slots, agent->desired->peers[i].id);

		slots[i] = (struct plan_slot){slot, agent->epoch.slots.slots[slot].incarnation};
	}
	end_flows_again(agent);
	sample_take(agent, &agent->epoch);
	settle_table(agent, slots);
	if (settle_slots(agent))
		report_make(agent);
	if (endpoints_save(agent->base, &agent->endpoints) < 0)
		log_warning("could not write endpoints.json");
}

/* A change of WireGuard is not atomic: after an error, look again at what is there. */
static int try_repeatedly(struct agent *agent, const struct desired *desired, const struct plan_slot *slots)
{
	int r = try_once(agent, desired, slots);

	for (int tries = 1; r < 0 && r != METER_FULL && tries < TRIES_MAX; tries++)
		r = try_once(agent, desired, slots);
	return r;
}

int peers_apply(struct agent *agent, const struct desired *desired)
{
	struct plan_slot *slots _cleanup_free_ = calloc(desired->n_peers + 1, sizeof(*slots));
	int r = -ENOMEM;

	if (!slots)
		return r;
	r = assign_slots(agent, desired, slots);
	if (r == 0)
		r = try_repeatedly(agent, desired, slots);
	/* Of slots or prefixes. Nothing of this state is in WireGuard then. */
	if (r == METER_FULL && upgrade_can_grow(agent)) {
		log_warning("the meter is full: starting over with a larger one");
		upgrade_begin_anew(agent, true);
		return -ENOSPC;
	}
	loop_cancel(agent->loop, agent->settling);
	agent->settling = 0;
	if (loop_at_boot(agent->loop, clock_boot_ns() + GRACE_NS, on_grace_over, agent, &agent->settling) < 0)
		return -ENOMEM;
	return r == METER_FULL ? -ENOSPC : r;
}

void peers_release_acknowledged(struct agent *agent, uint64_t seq)
{
	for (uint32_t slot = 1; slot < agent->epoch.slots.end; slot++) {
		const struct slot *at = &agent->epoch.slots.slots[slot];

		if (at->flags != WT_OWNER_RETIRING || at->retire_seq == 0 || at->retire_seq > seq)
			continue;
		slots_release(&agent->epoch.slots, slot);
		if (store_owner(agent, slot) < 0)
			log_warning("could not free slot %u", slot);
	}
}
