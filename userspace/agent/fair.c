// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

static struct audit_sample read_meter(const struct agent *agent, uint32_t slot)
{
	struct audit_sample sample = {.boot_ns = clock_boot_ns()};
	struct meter_totals cell;

	meter_read(agent->epoch.meter, slot, &cell);
	sample.totals = totals_subtract(&cell, &agent->epoch.slots.slots[slot].base);
	return sample;
}

static void forget_slot(struct agent *agent, uint32_t slot)
{
	if (slot != WT_SLOT_UNATTRIBUTED)
		audit_forget(&agent->epoch.slots.slots[slot].audit);
}

/* A prefix that changes hands is counted for its old peer for a moment, and sent to its new one. */
static void expect_moves(struct agent *agent, const struct plan *plan)
{
	for (size_t i = 0; i < plan->n_move; i++) {
		const struct table_entry *before = table_find(&agent->epoch.table, &plan->move[i].prefix);

		if (before)
			forget_slot(agent, before->slot);
		forget_slot(agent, plan->move[i].slot);
	}
}

void fair_expect(struct agent *agent, const struct desired *desired, const struct plan *plan)
{
	for (size_t i = 0; i < plan->n_set; i++) {
		const struct wg_peer_change *change = &plan->set[i];
		const struct desired_peer *peer = desired_find_key(desired, &change->public_key);
		uint32_t slot = peer && !change->update_only ? slots_find(&agent->epoch.slots, peer->id) : 0;
		struct audit_sample base;

		if (slot == 0)
			continue;
		base = read_meter(agent, slot);
		audit_begin(&agent->epoch.slots.slots[slot].audit, &base);
	}
	expect_moves(agent, plan);
}

static void take_wireguard(struct audit_sample *sample, const struct wg_peer *live)
{
	sample->rx_bytes = live->rx_bytes;
	sample->tx_bytes = live->tx_bytes;
	sample->handshake_ns = live->handshake_ns;
}

void fair_take(struct agent *agent, uint32_t slot, const struct wg_peer *live, int64_t boot_ns)
{
	struct slot *at = &agent->epoch.slots.slots[slot];
	struct audit_sample sample = {.totals = at->sampled, .boot_ns = boot_ns};
	enum audit_verdict before = at->audit.verdict;
	bool was_begun = at->audit.begun;
	char id[UUID_TEXT_SIZE];

	take_wireguard(&sample, live);
	if (!audit_take(&at->audit, &sample, agent->settle_ns)) {
		if (was_begun)
			sums_restarted(agent);
		/* A baseline's meter is read behind WireGuard, which has answered already. */
		sample = read_meter(agent, slot);
		take_wireguard(&sample, live);
		audit_begin(&at->audit, &sample);
	}
	if (at->audit.verdict == AUDIT_RX_SHORT && before != AUDIT_RX_SHORT)
		log_error("peer %s: the meter counted uploads that WireGuard did not receive",
			  uuid_format(at->peer_id, id));
}

void fair_finish(struct agent *agent, int64_t boot_ns)
{
	bool found = false;
	int r;

	for (uint32_t slot = 1; slot < agent->epoch.slots.end; slot++) {
		struct slot *at = &agent->epoch.slots.slots[slot];

		/* Not in the device: what WireGuard sent to it in the end is not known. */
		if (at->audit.begun && at->audit.last.boot_ns < boot_ns)
			audit_forget(&at->audit);
		found = found || at->audit.undelivered != at->undelivered;
	}
	if (!found)
		return;
	/* On disk before it is said: it must not fall when the next process begins. */
	r = bases_save(agent, &agent->epoch);
	if (r < 0)
		log_warning("could not write slots.json; undelivered bytes are reported later: %s",
			    strerror(-r));
}
