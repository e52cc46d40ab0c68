// SPDX-License-Identifier: BSD-2-Clause
/* What any part of the agent may decide about the whole: that this process, or this epoch, ends here. */
#include "agent/agent.h"

#include <string.h>

#include "base/log.h"

void agent_exit(struct agent *agent, int status)
{
	agent->exit_status = status;
	/* Nothing is answered any more: the meter may be gone already. */
	http_mute(agent->http);
	loop_stop(agent->loop);
}

bool upgrade_can_grow(const struct agent *agent)
{
	return meter_identity(agent->epoch.meter)->capacity <= WT_MAX_CAPACITY / 2;
}

void upgrade_begin_anew(struct agent *agent, bool larger)
{
	int r;

	memcpy(agent->config.outgoing, meter_identity(agent->epoch.meter)->map_uuid, UUID_SIZE);
	agent->config.outgoing_is_full = larger;
	r = config_save(agent->base, &agent->config);
	if (r < 0)
		log_error("could not write agent.json: %s", strerror(-r));
	agent_exit(agent, 1);
}
