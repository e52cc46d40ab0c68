// SPDX-License-Identifier: BSD-2-Clause
/*
 * A meter of an earlier layout, or one that is full, is taken over by a new one while packets flow. At start
 * only, as that is where epochs begin: who finds the meter full ends, and the next start makes a larger one.
 */
#include <errno.h>
#include <string.h>

#include "agent/agent.h"
#include "base/log.h"
#include "meter/handover.h"

/* The last counts of the epoch that was taken over, in the journal before its maps are given up. */
static int write_down(struct agent *agent, struct meter *sealed, const struct batch_summary *last)
{
	int r;

	agent->successor = agent->meter;
	agent->meter = sealed;
	seal_or_continue(agent, last);
	start_restore_state(agent);
	r = start_restore_owners(agent);
	if (r == 0)
		r = report_append_final(agent);
	slots_free(&agent->slots);
	batch_list_free(&agent->report.writing);
	agent->report = (struct report){0};
	agent->reconcile.hour_ns = 0;
	agent->epoch_known = false;
	agent->meter = TAKE_PTR(agent->successor);
	return r;
}

int upgrade_take_sealed(struct agent *agent, const struct batch_summary *last)
{
	struct meter *sealed = NULL;
	int r = meter_open_sealed(agent->meter, &sealed);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = write_down(agent, sealed, last);
	if (r < 0) {
		meter_close(sealed);
		return r;
	}
	return meter_forget_sealed(agent->meter, sealed);
}

bool upgrade_can_grow(const struct agent *agent)
{
	return meter_identity(agent->meter)->capacity <= WT_MAX_CAPACITY / 2;
}

/* Seven eighths are in use: the rest is for peers that come while others' last counts are on their way. */
static int is_full(struct agent *agent, bool *ret_full)
{
	uint32_t capacity = meter_identity(agent->meter)->capacity, used = 0;
	struct wt_owner owner;
	int r = 0;

	for (uint32_t slot = 1; slot < capacity && r == 0; slot++) {
		r = meter_get_owner(agent->meter, slot, &owner);
		used += r == 0 && owner.flags != 0;
	}
	*ret_full = used >= capacity / 8 * 7;
	return r;
}

int upgrade_meter(struct agent *agent, const struct batch_summary *last)
{
	uint32_t capacity = meter_identity(agent->meter)->capacity;
	bool full = false, grows;
	int r = upgrade_take_sealed(agent, last);

	if (r == 0)
		r = is_full(agent, &full);
	grows = full && upgrade_can_grow(agent);
	if (r < 0 || (!grows && !meter_is_outdated(agent->meter)))
		return r;
	reconcile_before_epoch(agent);
	r = meter_hand_over(&agent->meter, grows ? 2 * capacity : 0);
	if (r < 0)
		return r;
	reconcile_begin_epoch(agent);
	log_info("a new meter has taken over, with room for %u peers: a new epoch begins",
		 meter_identity(agent->meter)->capacity - 1);
	return upgrade_take_sealed(agent, last);
}
