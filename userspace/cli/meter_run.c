// SPDX-License-Identifier: BSD-2-Clause
/* wiretoll meter run: samples until it is stopped; what it attached stays. */
#include "cli/meter.h"

#include "base/clock.h"
#include "base/log.h"
#include "cli/signals.h"
#include "standalone/prometheus.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct runner {
	const struct meter_request *request;
	struct station *station;
	struct prometheus *server; /* NULL: none */
	int signal_fd;
	int64_t samples_left; /* -1: without end */
	int64_t next_sample, next_follow;
	/* A trouble is told once, and again when another comes. */
	char trouble[sizeof(((struct json_problem *)NULL)->message)];
	int shadowed;
	size_t unplaced;
};

static void tell_trouble(struct runner *runner, int r, const struct json_problem *problem)
{
	if (r == 0) {
		runner->trouble[0] = '\0';
		return;
	}
	if (strcmp(runner->trouble, problem->message) == 0)
		return;
	log_warning("%s; trying on", problem->message);
	memcpy(runner->trouble, problem->message, sizeof(runner->trouble));
}

static void tell_alarms(struct runner *runner)
{
	const struct record *record;
	char key[KEY_TEXT_SIZE];

	while ((record = station_next_alarm(runner->station)))
		log_error("peer %s: the meter counted uploads that WireGuard did not receive",
			  peer_title(record, key));
}

static void tell_state(struct runner *runner)
{
	int shadowed = station_shadowed(runner->station);
	size_t unplaced = station_unplaced(runner->station);

	if (shadowed != runner->shadowed && shadowed == 1)
		log_warning("shadowed: another program runs before the meter and may hide packets from it");
	else if (shadowed != runner->shadowed && runner->shadowed == 1)
		log_info("not shadowed any more");
	if (unplaced > runner->unplaced)
		log_warning("the meter is full: %zu peers or allowed IPs are counted as unattributed",
			    unplaced);
	runner->shadowed = shadowed;
	runner->unplaced = unplaced;
	tell_alarms(runner);
}

static void sample(struct runner *runner)
{
	struct json_problem problem;

	tell_trouble(runner, station_sample(runner->station, &problem), &problem);
	if (!station_is_attached(runner->station))
		runner->next_follow = 0;
	tell_state(runner);
}

static void refresh(void *data)
{
	sample(data);
}

static int print(const struct runner *runner, struct session *session)
{
	_cleanup_json_ json_t *object = NULL;
	int r;

	if (!runner->request->json) {
		r = meter_sample_print(stdout, runner->station);
	} else {
		object = meter_sample_json(runner->station);
		r = object && json_dumpf(object, stdout, JSON_COMPACT) == 0 ? 0 : -ENOMEM;
		putchar('\n');
	}
	if (r < 0)
		return session_no_memory(session);
	if (fflush(stdout) != 0)
		return session_fail(session, -EIO, "could not write the output");
	return 0;
}

/* Milliseconds to the next thing to be done at its time. */
static int timeout_ms(const struct runner *runner)
{
	int64_t now = clock_boot_ns();
	int64_t wait = runner->next_follow - now, turn = station_turns_at_ns() - clock_utc_ns();
	int server = runner->server ? prometheus_timeout_ms(runner->server) : -1, ms;

	if (runner->next_sample - now < wait)
		wait = runner->next_sample - now;
	if (turn < wait)
		wait = turn;
	ms = wait <= 0 ? 0 : (int)(wait / 1000000) + 1;
	return server >= 0 && server < ms ? server : ms;
}

/* Returns whether it is to end. */
static bool wait_for_work(struct runner *runner)
{
	struct pollfd fds[] = {
		{.fd = runner->signal_fd, .events = POLLIN},
		{.fd = station_event_fd(runner->station), .events = POLLIN},
		{.fd = station_links_fd(runner->station), .events = POLLIN},
		{.fd = runner->server ? prometheus_fd(runner->server) : -1, .events = POLLIN},
	};

	if (poll(fds, ARRAY_SIZE(fds), timeout_ms(runner)) < 0)
		return false;
	if (fds[0].revents)
		return true;
	if (fds[1].revents)
		sample(runner);
	if (fds[2].revents && station_links_changed(runner->station))
		runner->next_follow = clock_boot_ns();
	if (runner->server)
		prometheus_serve(runner->server);
	return false;
}

static int follow(struct runner *runner, struct session *session)
{
	struct json_problem problem;
	int r = station_follow(runner->station, &problem);
	const char *news = station_take_news(runner->station);

	if (news)
		log_warning("%s", news);
	if (r == -ENODEV || r == -ENOTRECOVERABLE)
		return session_fail(session, r, "%s", problem.message);
	tell_trouble(runner, r, &problem);
	runner->next_follow = clock_boot_ns() + STATION_FOLLOW_NS;
	return 0;
}

static int print_sample(struct runner *runner, struct session *session)
{
	int64_t now = clock_boot_ns();

	/* In step with the first one, also after a pause. */
	while (runner->next_sample <= now)
		runner->next_sample += runner->request->interval_ns;
	sample(runner);
	if (runner->samples_left > 0)
		runner->samples_left--;
	return print(runner, session);
}

static int run(struct runner *runner, struct session *session)
{
	int64_t turn = station_turns_at_ns();
	int r = 0;

	while (r == 0 && runner->samples_left != 0) {
		int64_t now = clock_boot_ns();

		if (now >= runner->next_follow)
			r = follow(runner, session);
		if (r == 0 && clock_utc_ns() >= turn) {
			sample(runner);
			turn = station_turns_at_ns();
		}
		if (r == 0 && now >= runner->next_sample)
			r = print_sample(runner, session);
		if (r == 0 && runner->samples_left != 0 && wait_for_work(runner))
			return 0;
	}
	return r;
}

static void tell_limits_without_peer(const struct station *station)
{
	const struct history *history = station_history(station);

	for (size_t i = 1; i < history->n_records; i++) {
		const struct record *record = history->records[i];
		char key[KEY_TEXT_SIZE];

		if (record->limit.set && !record->present)
			log_warning("no peer %s is on %s: its limit holds from when it comes",
				    peer_title(record, key), history->interface);
	}
}

static int begin(struct runner *runner, struct session *session)
{
	struct json_problem problem;
	int r = station_open(&runner->request->options, &runner->station, &problem);

	if (r == 0 && runner->request->prometheus)
		r = prometheus_open(runner->request->prometheus, runner->station, refresh, runner,
				    &runner->server, &problem);
	if (r < 0)
		return session_fail(session, r, "%s", problem.message);
	signal(SIGPIPE, SIG_IGN);
	r = signals_open(false, &runner->signal_fd);
	if (r < 0)
		return session_fail(session, r, "could not watch for signals: %s", strerror(-r));
	tell_state(runner);
	tell_limits_without_peer(runner->station);
	runner->next_sample = clock_boot_ns();
	runner->next_follow = runner->next_sample + STATION_FOLLOW_NS;
	r = run(runner, session);
	if (r == 0 && station_finish(runner->station, &problem) < 0)
		r = session_fail(session, -EIO, "%s", problem.message);
	return r;
}

int run_meter(struct session *session, const struct command *command, const struct arguments *arguments)
{
	struct runner runner = {.signal_fd = -1};
	struct meter_request request;
	struct json_problem problem;
	int r = meter_request_read(arguments, &request, &problem);

	(void)command;
	if (r == -EINVAL) {
		session_fail(session, r, "%s", problem.message);
		return WRONG_USAGE;
	}
	if (r < 0)
		return session_fail(session, r, "%s", problem.message);
	log_setup("wiretoll", LOG_LEVEL_INFO);
	runner.request = &request;
	runner.samples_left = request.count ? request.count : -1;
	r = meter_check_rights(session);
	if (r == 0)
		r = begin(&runner, session);
	prometheus_close(runner.server);
	station_close(runner.station);
	cleanup_close(&runner.signal_fd);
	meter_request_free(&request);
	return r;
}
