// SPDX-License-Identifier: BSD-2-Clause
/* What the worker has to do, in the order in which it came. */
#include "deploy/worker_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool worker_has_task(const struct worker *worker, const char *gateway)
{
	for (const struct task *task = worker->tasks; task; task = task->next)
		if (strcmp(task->job.gateway, gateway) == 0)
			return true;
	return false;
}

int worker_add_task(struct worker *worker, enum task_kind kind, struct queue_job *job, struct task **ret_task)
{
	struct task *task = calloc(1, sizeof(*task));
	struct task **last = &worker->tasks;

	if (!task)
		return -ENOMEM;
	task->kind = kind;
	task->job = *job;
	job->spec = NULL;
	task->pidfd = task->progress_fd = -1;
	/* Behind the others: of one gateway's tasks the earlier goes first. */
	while (*last)
		last = &(*last)->next;
	*last = task;
	*ret_task = task;
	return 0;
}
