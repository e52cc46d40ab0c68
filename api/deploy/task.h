/* SPDX-License-Identifier: BSD-2-Clause */
/* One driver call in a process of its own, with a deadline. */
#ifndef WIRETOLL_DEPLOY_TASK_H
#define WIRETOLL_DEPLOY_TASK_H

#include "deploy/driver.h"
#include "deploy/queue.h"

enum task_kind { TASK_DEPLOY, TASK_DESTROY, TASK_ROUTES, TASK_LOGS, TASK_TRASH, TASK_RESTORE, TASK_KINDS };

struct task {
	struct task *next;
	enum task_kind kind;
	struct queue_job job;
	bool has_job;   /* the queue waits for the result; else this host's own upkeep */
	bool forget;    /* of TASK_DESTROY */
	bool cancelled; /* killed: the result is nobody's any more */
	bool done;      /* with `failed`, `transient` and `error` */
	bool failed;
	bool transient;
	int pidfd; /* -1: not running */
	int progress_fd;
	pid_t pid;
	int64_t start_by_ns; /* TASK_DESTROY waits until then for the agent's last word */
	int64_t deadline_ns;
	char step[64];
	char error[512];
	json_t *refused; /* what was left out: objects with what and reason; NULL: nothing */
	char line[600];  /* an incomplete one */
	size_t line_length;
};

/* Frees the task; one that runs is killed. */
void task_free(struct task *task);

/* Starts the call; `spec` is for TASK_DEPLOY and TASK_ROUTES only, `token` may be NULL. */
WT_MUST_CHECK int task_start(struct task *task, const struct deploy_driver *driver,
			     const struct deploy_host *host, const struct deploy_spec *spec,
			     const char *token);

void task_kill(struct task *task);

/* Reads what the call tells; `on_step` is called for each step that begins. */
typedef void (*task_step_fn)(struct task *task, const char *step, void *data);
void task_read(struct task *task, task_step_fn on_step, void *data);

/* Whether the call has ended; then `done` and the result are set. Ends one past its deadline. */
bool task_check_end(struct task *task, task_step_fn on_step, void *data);

#endif
