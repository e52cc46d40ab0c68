// SPDX-License-Identifier: BSD-2-Clause
#include "deploy/upkeep.h"
#include "base/clock.h"
#include "deploy/worker_state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUTES_AGAIN (30 * NSEC_PER_SEC)

/* The specification that a gateway's routes were last set by. */
struct installed_routes {
	struct installed_routes *next;
	char gateway[GATEWAY_ID_SIZE];
	char *spec;
	int64_t again_ns; /* when to look again, as some were left out; 0: when the specification changes */
};

struct found {
	char gateway[GATEWAY_ID_SIZE];
	unsigned attempt;
};

/* One look at both sides. */
struct view {
	struct queue_assigned *assigned;
	size_t n_assigned;
	struct found *found;
	size_t n_found;
	bool incomplete;
};

static void view_clear(struct view *view)
{
	for (size_t i = 0; i < view->n_assigned; i++)
		queue_job_clear(&view->assigned[i].job);
	free(view->assigned);
	free(view->found);
}
#define _cleanup_view_ WT_CLEANUP(view_clear)

/* ---- which routes are in force --------------------------------------------------------------------------
 */

static struct installed_routes **routes_of(struct worker *worker, const char *gateway)
{
	struct installed_routes **link = &worker->routes;

	while (*link && strcmp((*link)->gateway, gateway) != 0)
		link = &(*link)->next;
	return link;
}

void upkeep_forget_routes(struct worker *worker, const char *gateway)
{
	struct installed_routes **link = routes_of(worker, gateway);
	struct installed_routes *routes = *link;

	if (!routes)
		return;
	*link = routes->next;
	free(routes->spec);
	free(routes);
}

void upkeep_note_routes(struct worker *worker, struct task *task)
{
	struct installed_routes *routes = calloc(1, sizeof(*routes));

	upkeep_forget_routes(worker, task->job.gateway);
	if (!routes)
		return;
	snprintf(routes->gateway, sizeof(routes->gateway), "%s", task->job.gateway);
	routes->spec = TAKE_PTR(task->job.spec);
	routes->again_ns = task->refused ? clock_boot_ns() + ROUTES_AGAIN : 0;
	routes->next = worker->routes;
	worker->routes = routes;
}

void upkeep_clear(struct worker *worker)
{
	while (worker->routes)
		upkeep_forget_routes(worker, worker->routes->gateway);
}

/* ---- looking --------------------------------------------------------------------------------------------
 */

static int add_assigned(struct worker *worker, const char *hypervisor, struct view *view)
{
	struct queue_assigned *list, *grown;
	size_t n;
	int r = queue_assigned(worker->queue, hypervisor, &list, &n);

	if (r < 0)
		return r;
	grown = realloc(view->assigned, (view->n_assigned + n + 1) * sizeof(*grown));
	if (!grown) {
		while (n-- > 0)
			queue_job_clear(&list[n].job);
		free(list);
		return -ENOMEM;
	}
	memcpy(grown + view->n_assigned, list, n * sizeof(*list));
	view->assigned = grown;
	view->n_assigned += n;
	free(list);
	return 0;
}

static void add_found(const char *gateway, unsigned attempt, void *data)
{
	struct view *view = data;
	struct found *grown = realloc(view->found, (view->n_found + 1) * sizeof(*grown));

	if (!grown) {
		view->incomplete = true;
		return;
	}
	view->found = grown;
	snprintf(grown[view->n_found].gateway, GATEWAY_ID_SIZE, "%s", gateway);
	grown[view->n_found++].attempt = attempt;
}

static int look(struct worker *worker, struct view *view)
{
	int r = 0;

	for (size_t i = 0; i < worker->n_hypervisors && r == 0; i++) {
		if (worker->hypervisors[i].id[0])
			r = add_assigned(worker, worker->hypervisors[i].id, view);
		else
			view->incomplete = true;
	}
	return r == 0 ? worker->driver->list(worker->host, add_found, view) : r;
}

static bool is_found(const struct view *view, const struct queue_job *job)
{
	for (size_t i = 0; i < view->n_found; i++)
		if (view->found[i].attempt == job->attempt &&
		    strcmp(view->found[i].gateway, job->gateway) == 0)
			return true;
	return false;
}

static const struct queue_job *find_assigned(const struct view *view, const char *gateway)
{
	for (size_t i = 0; i < view->n_assigned; i++)
		if (strcmp(view->assigned[i].job.gateway, gateway) == 0)
			return &view->assigned[i].job;
	return NULL;
}

/* ---- acting ---------------------------------------------------------------------------------------------
 */

static int add_task(struct worker *worker, enum task_kind kind, const char *gateway, unsigned attempt,
		    const char *spec, bool forget)
{
	struct queue_job job = {.attempt = attempt};
	struct task *task;
	int r;

	snprintf(job.gateway, sizeof(job.gateway), "%s", gateway);
	job.spec = spec ? strdup(spec) : NULL;
	if (spec && !job.spec)
		return -ENOMEM;
	r = worker_add_task(worker, kind, &job, &task);
	queue_job_clear(&job);
	if (r == 0)
		task->forget = forget;
	return r;
}

/* After a reboot nothing is here but the gateway's folder, with all that its agent needs to go on. */
static bool can_repair(const struct worker *worker, const struct queue_assigned *assigned)
{
	_cleanup_spec_ struct deploy_spec *spec = NULL;
	struct json_problem problem;

	return assigned->alive && deploy_spec_parse(assigned->job.spec, &spec, &problem) == 0 &&
	       !worker->driver->needs_token(worker->host, spec);
}

static int keep(struct worker *worker, const struct view *view, const struct queue_assigned *assigned)
{
	const struct queue_job *job = &assigned->job;
	const struct installed_routes *routes;
	int r;

	/* A deletion is a job and comes as one. */
	if (job->absent || worker_has_task(worker, job->gateway))
		return 0;
	if (!is_found(view, job))
		return can_repair(worker, assigned)
			       ? add_task(worker, TASK_DEPLOY, job->gateway, job->attempt, job->spec, false)
			       : 0;
	if (!worker->driver->has(worker->host, job->gateway, DEPLOY_AGENT))
		return 0;
	r = supervisor_add(worker->supervisor, job->gateway);
	routes = *routes_of(worker, job->gateway);
	if (r == 0 && (!routes || strcmp(routes->spec, job->spec) != 0 ||
		       (routes->again_ns && routes->again_ns <= clock_boot_ns())))
		r = add_task(worker, TASK_ROUTES, job->gateway, job->attempt, job->spec, false);
	return r;
}

static int reap_left_over(struct worker *worker, const struct view *view)
{
	int r = 0;

	for (size_t i = 0; i < view->n_found && r == 0; i++) {
		const struct found *found = &view->found[i];
		const struct queue_job *job = find_assigned(view, found->gateway);

		if (worker_has_task(worker, found->gateway))
			continue;
		/* Of an assigned gateway only another attempt goes; its folder stays for the next. */
		if (!job || (found->attempt != 0 && found->attempt != job->attempt))
			r = add_task(worker, TASK_DESTROY, found->gateway, found->attempt, NULL, !job);
	}
	return r;
}

int upkeep(struct worker *worker, bool reap)
{
	_cleanup_view_ struct view view = {0};
	int r = look(worker, &view);

	for (size_t i = 0; i < view.n_assigned && r == 0; i++)
		r = keep(worker, &view, &view.assigned[i]);
	if (r == 0 && reap && !view.incomplete)
		r = reap_left_over(worker, &view);
	return r;
}
