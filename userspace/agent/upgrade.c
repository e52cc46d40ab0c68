// SPDX-License-Identifier: BSD-2-Clause
/*
 * A meter of an earlier layout, one that is full, and one whose epoch the API cannot follow, is taken over by
 * a new one while packets flow. At start only, as that is where epochs begin: who finds it so notes that, and
 * ends.
 */
#include <errno.h>

#include "agent/agent.h"
#include "base/log.h"
#include "meter/handover.h"

/* The last counts of the epoch that was taken over, in the journal before its maps are given up. */
static int write_down(struct agent *agent, struct meter *sealed, const struct batch_summary *last)
{
	struct epoch epoch = {.meter = sealed, .successor = agent->epoch.meter};

	seal_or_continue(agent, &epoch, last);
	restore_state(agent, &epoch);
	return seal_write_down(agent, &epoch);
}

int upgrade_take_sealed(struct agent *agent, const struct batch_summary *last)
{
	struct meter *sealed = NULL;
	int r = meter_open_sealed(agent->epoch.meter, &sealed);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = write_down(agent, sealed, last);
	if (r < 0) {
		meter_close(sealed);
		return r;
	}
	return meter_forget_sealed(agent->epoch.meter, sealed);
}

int upgrade_meter(struct agent *agent, const struct batch_summary *last)
{
	const struct meter_identity *identity = meter_identity(agent->epoch.meter);
	bool asked = uuid_equal(agent->config.outgoing, identity->map_uuid);
	bool grows = asked && agent->config.outgoing_is_full && upgrade_can_grow(agent);
	int r = upgrade_take_sealed(agent, last);

	if (r < 0 || (!asked && !meter_is_outdated(agent->epoch.meter)))
		return r;
	reconcile_before_epoch(agent);
	r = meter_hand_over(&agent->epoch.meter, grows ? 2 * identity->capacity : 0);
	if (r < 0)
		return r;
	reconcile_begin_epoch(agent);
	log_info("a new meter has taken over, with room for %u peers: a new epoch begins",
		 meter_identity(agent->epoch.meter)->capacity - 1);
	return upgrade_take_sealed(agent, last);
}
