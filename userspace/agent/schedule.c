// SPDX-License-Identifier: BSD-2-Clause
/* When the meter is read: each second, at the hour's edge, when the clock is set, and when the kernel says
 * so. */
#include "agent/agent.h"
#include "agent/split.h"

#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define SAMPLE_EVERY_NS (1 * NSEC_PER_SEC)
#define KEEP_JOURNAL_NS (7 * 24 * NSEC_PER_HOUR)

static bool is_over(const struct agent *agent)
{
	return !agent->epoch.meter || agent->leaving != STAYING;
}

static void begin_second(struct agent *agent);

static void on_second(void *data, int result)
{
	struct agent *agent = data;
	int64_t second_began = clock_boot_ns();

	(void)result;
	if (is_over(agent))
		return;
	sample_take(agent, &agent->epoch);
	report_watch_limit(agent);
	if (clock_boot_ns() >= agent->epoch.report.next_boot_ns ||
	    agent->epoch.report.watch_until_ns > clock_utc_ns())
		report_make(agent);
	/* A batch that was just built says the same as this sample; while it waits for the disk it does not.
	 */
	if (agent->epoch.report.boot_to_ns < second_began || agent->epoch.report.complained)
		samples_write(agent);
	begin_second(agent);
}

static void begin_second(struct agent *agent)
{
	int64_t now = clock_boot_ns();
	loop_tag tag;
	int r = loop_at_boot(agent->loop, now - now % SAMPLE_EVERY_NS + SAMPLE_EVERY_NS, on_second, agent,
			     &tag);

	if (r < 0) {
		log_error("could not set the sample timer: %s", strerror(-r));
		agent_exit(agent, 1);
	}
}

static void begin_hour(struct agent *agent);

static void on_hour(void *data, int result)
{
	struct agent *agent = data;
	int64_t now = clock_utc_ns(), edge = clock_hour_start(now);
	int r;

	(void)result;
	if (is_over(agent))
		return;
	sample_take(agent, &agent->epoch);
	/* A late one is no sample of the hour's edge: its growth is shared out by time. */
	report_make_at(agent, now - edge < SAMPLE_EVERY_NS ? edge : now);
	r = journal_expire(agent->journal, clock_utc_ns() - KEEP_JOURNAL_NS);
	if (r < 0)
		log_warning("could not delete old journal segments: %s", strerror(-r));
	begin_hour(agent);
}

static void begin_hour(struct agent *agent)
{
	int64_t edge = clock_hour_start(clock_utc_ns()) + NSEC_PER_HOUR;
	loop_tag tag;
	int r = loop_at_utc(agent->loop, edge, on_hour, agent, &tag);

	if (r < 0) {
		log_error("could not set the hour's timer: %s", strerror(-r));
		agent_exit(agent, 1);
	}
}

static int watch_clock(struct agent *agent)
{
	/* Never due: only a step of the clock makes it readable. */
	const struct itimerspec never = {.it_value.tv_sec = 9000000000};

	return timerfd_settime(agent->clock_fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL) < 0
		       ? -errno
		       : 0;
}

/* What was counted until now belongs to the hour that the clock showed before it was set. */
static void on_clock_set(void *data, int result)
{
	struct agent *agent = data;
	int64_t before = agent->utc_offset_ns + clock_boot_ns();
	uint64_t expirations;

	(void)result;
	if (read(agent->clock_fd, &expirations, sizeof(expirations)) >= 0 || errno != ECANCELED)
		return;
	if (watch_clock(agent) < 0)
		log_warning("could not watch the clock any further");
	turn_clock_set(agent);
	if (is_over(agent))
		return;
	log_info("the clock was set by %.3f s", (double)(clock_utc_ns() - before) / NSEC_PER_SEC);
	/* What is being written was counted a moment ago. */
	if (report_is_writing(agent))
		return;
	sample_take(agent, &agent->epoch);
	report_make_at(agent, before);
}

static int begin_clock(struct agent *agent)
{
	loop_tag tag;
	int r;

	agent->clock_fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
	if (agent->clock_fd < 0)
		return -errno;
	r = watch_clock(agent);
	return r < 0 ? r : loop_watch(agent->loop, agent->clock_fd, on_clock_set, agent, &tag);
}

static void on_meter_event(void *data, int result)
{
	struct agent *agent = data;

	(void)result;
	if (is_over(agent))
		return;
	if (meter_drain_events(agent->epoch.meter) < 0)
		log_warning("could not read the meter's events; the sampler sees what they tell");
	sample_take(agent, &agent->epoch);
	report_watch_limit(agent);
}

int schedule_begin(struct agent *agent)
{
	loop_tag tag;
	int r = begin_clock(agent);

	if (r == 0)
		r = turn_resume(agent);
	if (r < 0)
		return r;
	sample_take(agent, &agent->epoch);
	begin_second(agent);
	begin_hour(agent);
	return loop_watch(agent->loop, meter_event_fd(agent->epoch.meter), on_meter_event, agent, &tag);
}
