// SPDX-License-Identifier: BSD-2-Clause
#include "agent/agent.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

/* How long a stopped agent waits for its last batch to be taken. It is in the journal by then. */
#define LAST_TRY_NS (2 * NSEC_PER_SEC)

static void link_down(struct agent *agent)
{
	int r = net_link_set_up(agent->net, agent->config.interface, false);

	if (r < 0)
		log_error("could not take %s down: %s", agent->config.interface, strerror(-r));
	agent->up = false;
}

void leave_gone(struct agent *agent)
{
	if (agent->leaving == LEAVING_GONE)
		return;
	log_info("the gateway is deleted: sending what was counted last");
	agent->leaving = LEAVING_GONE;
	follow_stop(agent);
	link_down(agent);
	report_state(agent, GATEWAY_DOWN);
	report_make(agent);
	/* All was sent by a process that was killed before it could say so. */
	if (uplink_is_idle(agent))
		leave_sent(agent);
}

void leave_over(struct agent *agent)
{
	log_info("the API knows this gateway, or this attempt, no more");
	if (agent->epoch.meter)
		link_down(agent);
	agent_exit(agent, 0);
}

static void on_deadline(void *data, int result)
{
	(void)result;
	agent_exit(data, 1);
}

void leave_stopped(struct agent *agent)
{
	loop_tag tag;

	if (agent->leaving == LEAVING_STOPPED || !agent->epoch.meter) {
		agent_exit(agent, 1);
		return;
	}
	/* A deleted gateway has nothing else to do than to be told apart from a stopped one. */
	if (agent->leaving == STAYING) {
		agent->leaving = LEAVING_STOPPED;
		follow_stop(agent);
		report_make(agent);
	}
	if (loop_at_boot(agent->loop, clock_boot_ns() + LAST_TRY_NS, on_deadline, agent, &tag) < 0)
		agent_exit(agent, 1);
}

void leave_sent(struct agent *agent)
{
	bool all = !report_is_writing(agent) && !agent->epoch.report.due;

	if (agent->leaving == LEAVING_GONE && agent->epoch.report.final && all)
		agent_exit(agent, 0);
	else if (agent->leaving == LEAVING_STOPPED && all)
		agent_exit(agent, 1);
}

void leave_failed(struct agent *agent)
{
	if (agent->leaving == LEAVING_STOPPED && !report_is_writing(agent))
		agent_exit(agent, 1);
}
