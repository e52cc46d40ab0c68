// SPDX-License-Identifier: BSD-2-Clause
/*
 * The turn of a cycle. Its grant lies in the kernel beforehand, for which it needs neither the API nor this
 * process; here it is put in force at the instant itself, also while the old one has credit or had no
 * ceiling.
 */
#include "agent/agent.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

static void on_turn(void *data, int result)
{
	struct agent *agent = data;
	struct turn *turn = &agent->epoch.turn;
	int r;

	(void)result;
	turn->timer = 0;
	if (!agent->epoch.meter || agent->leaving != STAYING)
		return;
	/* What was counted before belongs to the old cycle. */
	sample_take(agent, &agent->epoch);
	r = meter_grant(agent->epoch.meter, &turn->grant);
	if (r < 0 && r != -EALREADY) {
		log_error("could not begin cycle %" PRIu64 ": %s", turn->grant.cycle, strerror(-r));
		return;
	}
	log_info("cycle %" PRIu64 " has begun", turn->grant.cycle);
	report_watch_limit(agent);
	report_make(agent);
}

/* By the clock where the instant is known by it, as that may be set meanwhile. */
static int set_timer(struct agent *agent, int64_t boot_ns)
{
	struct turn *turn = &agent->epoch.turn;

	loop_cancel(agent->loop, turn->timer);
	turn->timer = 0;
	return turn->at_ns ? loop_at_utc(agent->loop, turn->at_ns, on_turn, agent, &turn->timer)
			   : loop_at_boot(agent->loop, boot_ns, on_turn, agent, &turn->timer);
}

static int64_t boot_time_of(int64_t utc_ns)
{
	int64_t boot_ns = clock_boot_ns() + utc_ns - clock_utc_ns();

	return boot_ns > 0 ? boot_ns : 0;
}

static int lay(struct agent *agent)
{
	struct turn *turn = &agent->epoch.turn;
	int64_t boot_ns = boot_time_of(turn->at_ns);
	int r = meter_grant_next(agent->epoch.meter, &turn->grant, (uint64_t)boot_ns);

	return r < 0 ? r : set_timer(agent, boot_ns);
}

int turn_prepare(struct agent *agent, const struct meter_grant *grant, int64_t at_ns)
{
	int r;

	agent->epoch.turn.grant = *grant;
	agent->epoch.turn.at_ns = at_ns;
	r = lay(agent);
	/* A packet, or the API, was first. */
	return r == -EALREADY ? 0 : r;
}

int turn_resume(struct agent *agent)
{
	struct meter_limit_state limit;

	meter_read_limit(agent->epoch.meter, &limit);
	if (limit.next.cycle == 0)
		return 0;
	agent->epoch.turn = (struct turn){.grant = limit.next};
	return set_timer(agent, (int64_t)limit.next_not_before);
}

void turn_clock_set(struct agent *agent)
{
	int r = agent->epoch.meter && agent->epoch.turn.timer && agent->epoch.turn.at_ns ? lay(agent) : 0;

	if (r < 0 && r != -EALREADY)
		log_warning("could not follow the clock with the next cycle's grant: %s", strerror(-r));
}
