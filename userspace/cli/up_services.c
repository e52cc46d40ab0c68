// SPDX-License-Identifier: BSD-2-Clause
#include "cli/up_services.h"
#include "base/clock.h"
#include "cli/up_postgres.h"
#include "cli/up_sample.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKOFF_MIN   (NSEC_PER_SEC / 10)
#define BACKOFF_MAX   (5 * NSEC_PER_SEC)
#define GOOD_RUN      (10 * NSEC_PER_SEC)
#define STOP_PATIENCE 15000 /* ms */

static const struct {
	const char *name;
	int stop_signal;
} services[] = {
	[UP_POSTGRES] = {"PostgreSQL", SIGINT}, /* fast: ends sessions, not the data */
	[UP_API] = {"wiretoll-api", SIGTERM},
	[UP_DEPLOYD] = {"wiretoll-deployd", SIGTERM},
	[UP_SAMPLE] = {"the sample", SIGTERM},
};

static int start_api(const struct up *up, pid_t *ret_pid)
{
	up_path program, state, database;
	const char *argv[8 + 2 * UP_MAX_LISTEN] = {program, "serve",           "--state",
						   state,   "--database-file", database};
	struct spawn spawn = {
		.argv = argv, .uid = UP_API_UID, .new_session = true, .parent_death_signal = SIGTERM};
	size_t n = 6;

	up_join(up->programs, "wiretoll-api", program);
	up_join(up->state, "api", state);
	up_join(up->state, UP_API_FILE, database);
	for (size_t i = 0; i < up->n_listen; i++) {
		argv[n++] = "--listen";
		argv[n++] = up->listen[i];
	}
	return spawn_start(&spawn, ret_pid);
}

static int start_deployd(const struct up *up, pid_t *ret_pid)
{
	up_path program, database, ca, agent;
	const char *port = strrchr(up->listen[0], ':') + 1;
	const char *argv[16 + 2 * UP_MAX_HYPERVISORS] = {program, "--state",         up->state, "--run",
							 up->run, "--database-file", database,  "--ca-file",
							 ca,      "--agent",         agent,     "--api-port",
							 port};
	struct spawn spawn = {.argv = argv, .new_session = true, .parent_death_signal = SIGTERM};
	size_t n = 13;

	up_join(up->programs, "wiretoll-deployd", program);
	up_join(up->programs, "wiretoll-agent", agent);
	up_join(up->state, UP_DEPLOY_FILE, database);
	up_join(up->state, "api/ca.pem", ca);
	for (size_t i = 0; i < up->n_hypervisors; i++) {
		argv[n++] = "--hypervisor";
		argv[n++] = up->hypervisors[i];
	}
	return spawn_start(&spawn, ret_pid);
}

static int start(struct up_processes *processes, enum up_service service)
{
	struct up_process *process = &processes->of[service];
	int r;

	switch (service) {
	case UP_POSTGRES:
		r = up_postgres_start(processes->up, &process->pid);
		break;
	case UP_API:
		r = start_api(processes->up, &process->pid);
		break;
	case UP_DEPLOYD:
		r = start_deployd(processes->up, &process->pid);
		break;
	case UP_SAMPLE:
		r = up_sample_start(processes->up, &process->pid);
		break;
	default:
		r = -EINVAL;
	}
	process->started_ns = clock_boot_ns();
	return r;
}

int up_services_start(struct up_processes *processes, enum up_service service)
{
	struct up_process *process = &processes->of[service];
	int r = start(processes, service);

	if (r < 0)
		return up_fail(r, "could not start %s: %s", services[service].name, strerror(-r));
	process->wanted = true;
	process->backoff_ns = BACKOFF_MIN;
	return 0;
}

static void plan_restart(struct up_process *process)
{
	int64_t now = clock_boot_ns();

	process->pid = 0;
	if (now - process->started_ns > GOOD_RUN)
		process->backoff_ns = BACKOFF_MIN;
	process->restart_ns = now + process->backoff_ns;
	process->backoff_ns = process->backoff_ns * 2 > BACKOFF_MAX ? BACKOFF_MAX : process->backoff_ns * 2;
}

static void collect(struct up_processes *processes)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (enum up_service service = 0; service < UP_SERVICES; service++) {
			struct up_process *process = &processes->of[service];

			if (process->pid != pid)
				continue;
			plan_restart(process);
			if (service == UP_SAMPLE && WIFEXITED(status) && WEXITSTATUS(status) == 1)
				process->wanted = false;
			if (process->wanted)
				fprintf(stderr, "wiretoll up: %s ended (%s %d), starting it again\n",
					services[service].name, WIFSIGNALED(status) ? "signal" : "status",
					WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
		}
}

bool up_services_gave_up(const struct up_processes *processes, enum up_service service)
{
	return !processes->of[service].wanted && !processes->of[service].pid;
}

int up_services_tend(struct up_processes *processes)
{
	int64_t now = clock_boot_ns(), next = INT64_MAX;

	collect(processes);
	for (enum up_service service = 0; service < UP_SERVICES; service++) {
		struct up_process *process = &processes->of[service];

		if (process->pid || !process->wanted)
			continue;
		if (process->restart_ns <= now && start(processes, service) < 0)
			plan_restart(process);
		if (!process->pid && process->restart_ns < next)
			next = process->restart_ns;
	}
	return next == INT64_MAX ? -1 : next <= now ? 0 : (int)((next - now + 999999) / 1000000);
}

static void stop(struct up_processes *processes, enum up_service service)
{
	struct up_process *process = &processes->of[service];

	process->wanted = false;
	if (process->pid)
		kill(process->pid, services[service].stop_signal);
}

static void await_end(struct up_processes *processes, enum up_service service)
{
	struct up_process *process = &processes->of[service];
	_cleanup_close_ int pidfd = process->pid ? (int)syscall(SYS_pidfd_open, process->pid, 0) : -1;
	struct pollfd ended = {.fd = pidfd, .events = POLLIN};
	int64_t end = clock_boot_ns() + STOP_PATIENCE * 1000000LL;

	while (pidfd >= 0 && clock_boot_ns() < end && poll(&ended, 1, 100) <= 0)
		;
	/* For PostgreSQL it is no loss either: it recovers at the next start. */
	if (pidfd >= 0 && poll(&ended, 1, 0) <= 0)
		kill(process->pid, SIGKILL);
	while (process->pid && waitpid(process->pid, NULL, 0) < 0 && errno == EINTR)
		;
	process->pid = 0;
}

void up_services_stop(struct up_processes *processes)
{
	stop(processes, UP_SAMPLE);
	await_end(processes, UP_SAMPLE);
	stop(processes, UP_API);
	stop(processes, UP_DEPLOYD);
	await_end(processes, UP_API);
	await_end(processes, UP_DEPLOYD);
	stop(processes, UP_POSTGRES);
	await_end(processes, UP_POSTGRES);
}
