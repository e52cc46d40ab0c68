/* SPDX-License-Identifier: BSD-2-Clause */
/* What worker.c and upkeep.c share. */
#ifndef WIRETOLL_DEPLOY_WORKER_STATE_H
#define WIRETOLL_DEPLOY_WORKER_STATE_H

#include "deploy/queue.h"
#include "deploy/supervisor.h"
#include "deploy/task.h"
#include "deploy/worker.h"

struct worker_hypervisor {
	const char *name;
	char id[GATEWAY_ID_SIZE]; /* empty until the operator has created it */
	bool missed;              /* and that has been said */
};

struct worker {
	const struct deploy_driver *driver;
	const struct deploy_host *host;
	struct worker_hypervisor hypervisors[WORKER_MAX_HYPERVISORS];
	size_t n_hypervisors;
	struct queue *queue; /* NULL: works without one */
	struct supervisor *supervisor;
	struct task *tasks; /* oldest first */
	struct installed_routes *routes;
	struct pollfd *poll_fds;
	int signal_fd;
	int host_fd; /* the driver's word that something may have been taken away */
	bool stopping;
	bool disconnected;
	unsigned failures;
	int64_t backoff_ns;
	int64_t next_connect_ns, next_poll_ns, next_renew_ns, next_upkeep_ns, next_tidy_ns, next_restore_ns,
		last_restore_ns; /* boot time */
};

/* tasks.c: whether one is for this gateway. */
bool worker_has_task(const struct worker *worker, const char *gateway);

/* Adds a task behind the others, taking over the job's specification. It starts in the loop's next turn. */
WT_MUST_CHECK int worker_add_task(struct worker *worker, enum task_kind kind, struct queue_job *job,
				  struct task **ret_task);

#endif
