// SPDX-License-Identifier: BSD-2-Clause
/* The meter counts: what follows from what the API answers and wants, for the parts that hear of it. */
#include "agent/agent.h"

#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define REPAIR_SECONDS_MAX 64

static void on_repair(void *data, int result)
{
	struct agent *agent = data;

	(void)result;
	agent->repairing = 0;
	follow_again(agent);
}

static void repair_later(struct agent *agent)
{
	int64_t seconds = 1;

	for (unsigned i = 0; i < agent->repairs && seconds < REPAIR_SECONDS_MAX; i++)
		seconds *= 2;
	agent->repairs++;
	loop_cancel(agent->loop, agent->repairing);
	if (loop_at_boot(agent->loop, clock_boot_ns() + seconds * NSEC_PER_SEC, on_repair, agent,
			 &agent->repairing) < 0)
		agent_exit(agent, 1);
}

static void on_state(struct agent *agent, struct desired *desired, bool grants_are_ours)
{
	switch (apply_desired(agent, desired, grants_are_ours)) {
	case APPLIED:
		agent->repairs = 0;
		break;
	case APPLY_IN_PART:
		repair_later(agent);
		break;
	case APPLY_GONE:
		leave_gone(agent);
		break;
	case APPLY_SEALED:
		upgrade_begin_anew(agent, false);
		break;
	}
}

static void on_acknowledged(struct agent *agent, uint64_t seq, bool first)
{
	peers_release_acknowledged(agent, seq);
	/* Grants that came before were not for this epoch. */
	if (first)
		follow_again(agent);
}

static void on_drained(struct agent *agent)
{
	refill_through(agent);
	leave_sent(agent);
}

void service_begin(struct agent *agent)
{
	static const struct uplink_events uplink_events = {
		.acknowledged = on_acknowledged,
		.drained = on_drained,
		.failed = leave_failed,
		.gone = leave_over,
		.gap = refill_epoch,
		.answered = refill_notice,
	};
	static const struct follow_events follow_events = {.state = on_state, .gone = leave_over};
	int r = schedule_begin(agent);

	if (r < 0) {
		log_error("could not watch the meter: %s", strerror(-r));
		agent_exit(agent, 1);
		return;
	}
	agent->uplink.events = &uplink_events;
	agent->follow.events = &follow_events;
	uplink_send(agent);
	report_make(agent);
	follow_begin(agent);
}
