// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/supervisor.h"
#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define BACKOFF_MIN (NSEC_PER_SEC / 10)
#define BACKOFF_MAX (5 * NSEC_PER_SEC)
#define GOOD_RUN    (10 * NSEC_PER_SEC) /* after which a failure begins at the shortest pause again */

struct process {
	struct process *next;
	char gateway[GATEWAY_ID_SIZE];
	enum deploy_program program;
	bool released; /* not ours to restart any more; kept until it has ended, to be collected */
	int pidfd;     /* -1: not running */
	int64_t started_ns;
	int64_t restart_ns; /* when to start it; INT64_MAX: it is done for good */
	int64_t backoff_ns;
};

struct supervisor {
	const struct deploy_driver *driver;
	const struct deploy_host *host;
	struct process *processes;
};

static const char *const program_names[] = {
	[DEPLOY_WIREGUARD] = "wireguard-go",
	[DEPLOY_AGENT] = "agent",
};

int supervisor_new(const struct deploy_driver *driver, const struct deploy_host *host,
		   struct supervisor **ret_supervisor)
{
	struct supervisor *supervisor = calloc(1, sizeof(*supervisor));

	if (!supervisor)
		return -ENOMEM;
	supervisor->driver = driver;
	supervisor->host = host;
	*ret_supervisor = supervisor;
	return 0;
}

static void process_free(struct process *process)
{
	cleanup_close(&process->pidfd);
	free(process);
}

void supervisor_free(struct supervisor *supervisor)
{
	if (!supervisor)
		return;
	while (supervisor->processes) {
		struct process *next = supervisor->processes->next;

		process_free(supervisor->processes);
		supervisor->processes = next;
	}
	free(supervisor);
}

static struct process *find(const struct supervisor *supervisor, const char *gateway,
			    enum deploy_program program)
{
	for (struct process *p = supervisor->processes; p; p = p->next)
		if (!p->released && p->program == program && strcmp(p->gateway, gateway) == 0)
			return p;
	return NULL;
}

static int watch(struct process *process, pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	if (fd < 0)
		return -errno;
	process->pidfd = fd;
	process->started_ns = clock_boot_ns();
	return 0;
}

static void retry_later(struct process *process)
{
	process->restart_ns = clock_boot_ns() + process->backoff_ns;
	process->backoff_ns *= 2;
	if (process->backoff_ns > BACKOFF_MAX)
		process->backoff_ns = BACKOFF_MAX;
}

static void start(struct supervisor *supervisor, struct process *process)
{
	pid_t pid;
	int r = supervisor->driver->start(supervisor->host, process->gateway, process->program, &pid);

	if (r == 0)
		r = watch(process, pid);
	if (r == 0)
		return;
	log_error("could not start %s of gateway %s: %s", program_names[process->program], process->gateway,
		  strerror(-r));
	retry_later(process);
}

/* Adopts a process that an earlier worker started, or starts one. */
static int add_program(struct supervisor *supervisor, const char *gateway, enum deploy_program program)
{
	struct process *process = calloc(1, sizeof(*process));
	pid_t pid;

	if (!process)
		return -ENOMEM;
	snprintf(process->gateway, sizeof(process->gateway), "%s", gateway);
	process->program = program;
	process->pidfd = -1;
	process->backoff_ns = BACKOFF_MIN;
	process->next = supervisor->processes;
	supervisor->processes = process;
	if (supervisor->driver->find(supervisor->host, gateway, program, &pid) == 0 &&
	    watch(process, pid) == 0)
		log_info("adopted %s of gateway %s, pid %d", program_names[program], gateway, (int)pid);
	else
		start(supervisor, process);
	return 0;
}

int supervisor_add(struct supervisor *supervisor, const char *gateway)
{
	for (enum deploy_program program = 0; program < DEPLOY_PROGRAMS; program++) {
		int r = 0;

		if (!find(supervisor, gateway, program) &&
		    supervisor->driver->has(supervisor->host, gateway, program))
			r = add_program(supervisor, gateway, program);
		if (r < 0)
			return r;
	}
	return 0;
}

void supervisor_remove(struct supervisor *supervisor, const char *gateway)
{
	for (struct process *p = supervisor->processes; p; p = p->next)
		if (strcmp(p->gateway, gateway) == 0) {
			p->released = true;
			p->restart_ns = INT64_MAX;
		}
}

bool supervisor_agent_expected(const struct supervisor *supervisor, const char *gateway)
{
	const struct process *agent = find(supervisor, gateway, DEPLOY_AGENT);

	return agent && (agent->pidfd >= 0 || agent->restart_ns != INT64_MAX);
}

void supervisor_each(const struct supervisor *supervisor, void (*fn)(const char *gateway, void *data),
		     void *data)
{
	for (const struct process *p = supervisor->processes; p; p = p->next)
		if (!p->released && p->program == DEPLOY_AGENT)
			fn(p->gateway, data);
}

size_t supervisor_poll_fds(const struct supervisor *supervisor, struct pollfd *fds, size_t max)
{
	size_t n = 0;

	for (const struct process *p = supervisor->processes; p && n < max; p = p->next)
		if (p->pidfd >= 0)
			fds[n++] = (struct pollfd){.fd = p->pidfd, .events = POLLIN};
	return n;
}

int64_t supervisor_next_ns(const struct supervisor *supervisor)
{
	int64_t next = INT64_MAX;

	for (const struct process *p = supervisor->processes; p; p = p->next)
		if (p->pidfd < 0 && p->restart_ns < next)
			next = p->restart_ns;
	return next;
}

/*
 * Whether it has ended; then with its exit status, or -1 when a signal ended it or it was not our child: only
 * a parent learns the status.
 */
static bool has_ended(const struct process *process, int *ret_status)
{
	struct pollfd readable = {.fd = process->pidfd, .events = POLLIN};
	siginfo_t info = {0};

	if (poll(&readable, 1, 0) <= 0)
		return false;
	if (waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED | WNOHANG) < 0)
		*ret_status = -1;
	else
		*ret_status = info.si_code == CLD_EXITED ? info.si_status : -1;
	return true;
}

static void note_end(struct process *process, int status)
{
	close(TAKE_FD(process->pidfd));
	if (process->released)
		return;
	if (process->program == DEPLOY_AGENT && status == 0) {
		log_info("the agent of gateway %s is done", process->gateway);
		process->restart_ns = INT64_MAX;
		return;
	}
	if (clock_boot_ns() - process->started_ns > GOOD_RUN)
		process->backoff_ns = BACKOFF_MIN;
	log_warning("%s of gateway %s ended (status %d), starting it again in %lld ms",
		    program_names[process->program], process->gateway, status,
		    (long long)(process->backoff_ns / 1000000));
	retry_later(process);
}

static void drop_released(struct supervisor *supervisor)
{
	struct process **link = &supervisor->processes;

	while (*link) {
		struct process *process = *link;

		if (process->released && process->pidfd < 0) {
			*link = process->next;
			process_free(process);
		} else {
			link = &process->next;
		}
	}
}

void supervisor_dispatch(struct supervisor *supervisor)
{
	int64_t now = clock_boot_ns();
	int status;

	for (struct process *p = supervisor->processes; p; p = p->next) {
		if (p->pidfd >= 0 && has_ended(p, &status))
			note_end(p, status);
		if (p->pidfd < 0 && p->restart_ns <= now)
			start(supervisor, p);
	}
	drop_released(supervisor);
}
